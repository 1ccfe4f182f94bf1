"""Find eyes, nose and mouth: python -m experiments.landmarks --input DIR_OR_ZIP --output landmarks.csv.

What `fit --data.landmarks` reads, for photographs that have no such file. The detector is YuNet, which OpenCV
runs; its weights are a file of their own (`experiments.weights fetch landmarks/yunet`). Of several faces in a
picture the largest counts; pictures in which it finds none, or that are damaged, are left out and counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from jsonargparse import ActionYesNo, Namespace

from _runtime import UserError
from datamodules.decode import ImageFiles, UnreadableImage
from experiments.shared import console
from experiments.shared.options import WEIGHTS_DIR, command_parser, parse, use_weights
from experiments.shared.outputs import check_output

if TYPE_CHECKING:
    import cv2
    import numpy as np

DETECTOR = "landmarks/yunet"
SEEN = 320  # pixels of the longer side that the detector sees: it was trained on faces of 10 to 300 px
SURE = 0.6  # its least score, as published with it
POINTS = slice(4, 14)  # in what it returns, behind the box: eyes, nose and mouth, the picture's left first


def main(argv: Sequence[str] | None = None) -> int:
    """Find landmarks. Returns the exit status."""
    parser = command_parser("landmarks", __doc__)
    parser.add_argument(
        "--input", type=str, required=True, help="a folder (searched recursively) or a zip of images"
    )
    parser.add_argument("--output", type=str, required=True, help="file to write, *.csv")
    parser.add_argument("--weights_dir", type=str | None, help=WEIGHTS_DIR)
    overwrite = "replace the output if it exists"
    parser.add_argument("--overwrite", action=ActionYesNo, default=False, help=overwrite)
    return landmarks(parse(parser, argv))


def landmarks(config: Namespace) -> int:
    """Write the landmarks of all pictures in which there is a face. Returns the exit status."""
    import cv2
    from tqdm import tqdm

    from datamodules.landmarks import write_landmarks
    from lightning_modules import weights

    use_weights(config)
    output = Path(config.output)
    check_output(output, ".csv", config.overwrite)
    files = ImageFiles(config.input, "--input")
    model = weights.find(DETECTOR)
    detector = cv2.FaceDetectorYN.create(str(model), "", (SEEN, SEEN), score_threshold=SURE)
    found: dict[str, np.ndarray] = {}
    without: list[str] = []
    for i, name in enumerate(tqdm(files.names, "landmarks", unit="image", delay=2, disable=None)):
        try:
            points = find_points(files.image(i), detector)
        except UnreadableImage as error:
            without.append(str(error))
            continue
        if points is None:
            without.append(f"{name}: no face found")
        else:
            found[name] = points
    if not found:
        raise UserError(f"--input {config.input}: no face in {len(files)} images, the first: {without[0]}")
    write_landmarks(output, found)
    print(f"{len(found)} of {len(files)} images have landmarks in {output}")
    if without:
        print(f"left out: {len(without)}, the first: {without[0]}")
    return 0


def find_points(image: np.ndarray, detector: cv2.FaceDetectorYN) -> np.ndarray | None:
    """The five landmarks (5, 2) of the largest face of a uint8 (H, W, 3) RGB image; None without a face."""
    import cv2
    import numpy as np

    height, width = image.shape[:2]
    scale = min(1.0, SEEN / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    detector.setInputSize(size)
    _, faces = detector.detect(cv2.cvtColor(small, cv2.COLOR_RGB2BGR))
    if faces is None:
        return None
    largest = max(faces, key=lambda face: face[2] * face[3])
    points = largest[POINTS].reshape(5, 2).astype(np.float64)
    return (points + 0.5) * np.array([width / size[0], height / size[1]]) - 0.5


if __name__ == "__main__":
    console.run(main)
