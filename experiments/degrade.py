"""Write a frozen degraded test set: python -m experiments.degrade --output DIR [--data.root DIR_OR_ZIP ...].

The held-out images of the data options, exactly as `evaluate` sees them, as 8-bit RGB PNGs of the same name
in input/ (degraded) and target/ (clean), for other people's code to be scored on. To take a whole folder,
name it as --data.val_root and give --data.val_images a number that is large enough. protocol.json says how
the set was made and lists the original names in the order of the PNGs' images; `pixels` in it is a hash of
all of them, equal where another machine wrote the same set.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from jsonargparse import ActionYesNo
from tqdm import tqdm

from _runtime import UserError, part_of
from datamodules.faces import FaceData
from experiments.shared import console, outputs
from experiments.shared.encoding import encode
from experiments.shared.locks import alone, beside
from experiments.shared.options import command_parser, parse

NOTE = "protocol.json"


def main(argv: Sequence[str] | None = None) -> int:
    """Degrade. Returns the exit status."""
    parser = command_parser("degrade", __doc__)
    overwrite_help = "replace a test set that this command wrote"
    parser.add_argument("--output", type=str, required=True, help="the folder to make")
    parser.add_argument("--overwrite", action=ActionYesNo, default=False, help=overwrite_help)
    parser.add_class_arguments(FaceData, "data", fail_untyped=False)
    config = parse(parser, argv)
    output = Path(config.output).expanduser().resolve()
    with alone(beside(output), f"--output {output}"):
        return degrade(FaceData(**config.data.as_dict()), output, config.overwrite)


def degrade(data: FaceData, output: Path, overwrite: bool) -> int:
    """Write the held-out images of `data`, degraded and clean, into the folder `output`, a whole path.

    Raises:
        UserError: nothing would be degraded, or the folder may not or cannot be written.
    """
    if data.options.degradation == "none":
        raise UserError("--data.degradation none leaves the images as they are: choose how to degrade them")
    for option in ("root", "pairs", "val_root"):
        if data.options[option] is not None:
            outputs.check_apart(output, Path(data.options[option]), f"--data.{option}")
    outputs.check_replaceable(output, NOTE, (".png",), overwrite)
    data.setup("test")
    files = dict(zip(data.val_names, outputs.renamed(data.val_names, ".png"), strict=True))
    protocol = data.describe()
    for name in ("source", "train"):
        protocol.pop(name, None)

    part = part_of(output)
    outputs.remove(part)
    store = outputs.start(part, False, NOTE, protocol)
    digest = write_images(data, files, store)
    whole = {**protocol, "pixels": digest, "images": data.val_names}
    store.add(NOTE, (json.dumps(whole, indent=2) + "\n").encode())
    outputs.publish(part, output)
    images = f"{len(files)} images of {protocol['val_source']}"
    print(f"{images}, degraded by {protocol['degradation']}, in {output}: input/, target/, {NOTE}")
    return 0


def write_images(data: FaceData, files: dict[str, str], store: outputs.Folder | outputs.Archive) -> str:
    """Write all held-out images, degraded and clean, as the `files` of their names; returns a hash of all."""
    pixels = hashlib.sha256()
    with tqdm(total=len(files), desc="degrade", unit="image", dynamic_ncols=True, disable=None) as bar:
        for loaded in data.test_dataloader():
            # raises what a worker found; images are uint8 until they are on a device
            batch = data.on_before_batch_transfer(loaded, 0)
            sides = {side: batch[side].permute(0, 2, 3, 1).contiguous() for side in ("input", "target")}
            for k, name in enumerate(batch["name"]):
                for side, images in sides.items():
                    image = images[k].numpy()
                    store.add(f"{side}/{files[name]}", encode(image, ".png"))
                    pixels.update(image)
            bar.update(len(batch["name"]))
    return pixels.hexdigest()[:12]


if __name__ == "__main__":
    console.run(main)
