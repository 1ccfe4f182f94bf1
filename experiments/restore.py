"""Restore photographs of aligned faces: python -m experiments.restore --checkpoint C --input FILE_OR_DIR --output DIR.

Each image is cropped to its central square, brought to the network's size, restored, and written under its own name and
format. The faces must be aligned the way the network's training images were.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from jsonargparse import ActionYesNo
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from _runtime import UserError, write_bytes
from datamodules.decode import ImageFiles, UnreadableImage, central_square, decode
from experiments import console
from experiments.options import Parser, parse
from lightning_modules.base import Restorer
from lightning_modules.methods import load_method
from lightning_modules.metrics.image import to_uint8

UNREADABLE = 0.1  # share of the files that may be unreadable before the command counts as failed


def main(argv: Sequence[str] | None = None) -> int:
    """Restore. Returns the exit status."""
    argv = list(sys.argv[1:] if argv is None else argv)
    parser = Parser(prog="python -m experiments.restore", description=__doc__, default_env=False)
    parser.add_argument("--checkpoint", type=str, required=True, help="checkpoint of a restoration method")
    parser.add_argument("--input", type=str, required=True, help="an image, a folder (searched recursively) or a zip of images")
    parser.add_argument("--output", type=str, required=True, help="folder for the restored images; names and subfolders are kept")
    parser.add_argument("--overwrite", action=ActionYesNo, default=False, help="replace images that exist in the output folder")
    parser.add_argument("--batch_size", type=int, default=8, help="images restored at once")
    parser.add_argument("--workers", type=int, default=2, help="processes that read images")
    config = parse(parser, argv)
    if config.batch_size < 1 or config.workers < 0:
        raise UserError(f"--batch_size {config.batch_size} --workers {config.workers}: expected at least 1 and 0")
    return restore(config.checkpoint, Path(config.input), Path(config.output), config.overwrite, config.batch_size, config.workers)


class Squares(Dataset):
    """Files as uint8 squares of one size; an unreadable file is its error's message instead."""

    def __init__(self, sources: list[tuple[str, ImageFiles | Path, int]], size: int) -> None:
        self.sources, self.size = sources, size

    def __len__(self) -> int:
        return len(self.sources)

    def __getitem__(self, i: int) -> tuple[str, torch.Tensor | str]:
        name, source, index = self.sources[i]
        try:
            image = source.image(index) if isinstance(source, ImageFiles) else decode(source)
        except UnreadableImage as error:
            return name, str(error)
        return name, torch.from_numpy(square(image, self.size))  # tensors cross in shared memory: no pipe is full when a reader is killed


def square(image: np.ndarray, size: int) -> np.ndarray:
    """uint8 (H, W, 3) -> (size, size, 3): central square, reduced by area averages or enlarged bilinearly (GPEN's own pipeline)."""
    image = central_square(image)
    way = cv2.INTER_AREA if len(image) > size else cv2.INTER_LINEAR
    return cv2.resize(image, (size, size), interpolation=way)


def restore(checkpoint: str, source: Path, output: Path, overwrite: bool, batch_size: int, workers: int) -> int:
    """Restore the image or all images of `source` into the folder `output`."""
    if source.is_file() and source.suffix.lower() != ".zip":
        sources: list[tuple[str, ImageFiles | Path, int]] = [(source.name, source, 0)]
        home = source.parent
    else:
        files = ImageFiles(source, "--input")
        sources, home = [(name, files, i) for i, name in enumerate(files.names)], source
    if output.exists() and not output.is_dir():
        raise UserError(f"--output {output} is a file: give a folder")
    if output.resolve() == home.resolve():
        raise UserError(f"--output {output} is where the input lies: restored images would replace it; give another folder")
    existing = [name for name, *_ in sources if (output / name).exists()]
    if existing and not overwrite:
        raise UserError(
            f"{output / existing[0]} exists ({len(existing)} of {len(sources)} outputs do): give --overwrite or another --output"
        )

    method, _ = load_method(checkpoint)
    if not isinstance(method, Restorer):
        raise UserError(f"{checkpoint}: {type(method).__name__} does not restore images")

    squares = Squares(sources, method.hparams["size"])
    loader = DataLoader(squares, batch_size, num_workers=min(workers, len(squares) - 1), collate_fn=list)
    skipped: list[str] = []
    with tqdm(total=len(squares), desc="restore", unit="image", dynamic_ncols=True, disable=None) as bar, torch.inference_mode():
        for batch in loader:
            good = [(name, image) for name, image in batch if not isinstance(image, str)]
            for message in (image for _, image in batch if isinstance(image, str)):
                skipped.append(message)
                bar.write(f"skipped {message}", file=sys.stderr)
            if good:
                images = torch.stack([image for _, image in good]).to(method.device).permute(0, 3, 1, 2)
                restored = to_uint8(method.restore(images / 127.5 - 1)).permute(0, 2, 3, 1).cpu().numpy()
                for (name, _), image in zip(good, restored, strict=True):
                    save(output / name, image)
            bar.update(len(batch))
    print(f"{len(squares) - len(skipped)} of {len(squares)} images restored to {output}, {len(skipped)} skipped")
    if len(skipped) > UNREADABLE * len(squares):
        raise UserError(f"{len(skipped)} of {len(squares)} images could not be read, the first: {skipped[0]}")
    return 0


def save(path: Path, image: np.ndarray) -> None:
    """Write uint8 (H, W, 3) in the format of the name: JPEG at quality 95 without chroma subsampling, everything else lossless."""
    suffix = path.suffix.lower()
    options: dict[str, Any] = {}
    if suffix in (".jpg", ".jpeg"):
        options = {"quality": 95, "subsampling": 0}
    elif suffix == ".webp":
        options = {"lossless": True}
    data = io.BytesIO()
    Image.fromarray(image).save(data, Image.registered_extensions()[suffix], **options)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{path.parent} cannot be created: {error.strerror}") from error
    write_bytes(path, data.getvalue())


if __name__ == "__main__":
    console.run(main)
