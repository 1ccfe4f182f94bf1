"""Write a frozen degraded test set: python -m experiments.degrade --output DIR [--data.root DIR_OR_ZIP --data.degradation gfpgan ...].

The held-out images of the data options, exactly as `evaluate` sees them, as 8-bit RGB PNGs of the same name in input/ (degraded) and
target/ (clean), for other people's code to be scored on. To take a whole folder, name it as --data.val_root and give --data.val_images
a number that is large enough. protocol.json says how the set was made and lists the original names in the order of the PNGs' images;
`pixels` in it is a hash of all of them, equal where another machine wrote the same set.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from jsonargparse import ActionYesNo
from tqdm import tqdm

from _runtime import UserError
from datamodules.faces import FaceData
from experiments.shared import console
from experiments.shared.options import Parser, parse
from experiments.shared.outputs import (
    check_apart,
    check_replaceable,
    part_of,
    publish,
    remove,
    renamed,
    start,
)
from experiments.shared.squares import encode

NOTE = "protocol.json"


def main(argv: Sequence[str] | None = None) -> int:
    """Degrade. Returns the exit status."""
    argv = list(sys.argv[1:] if argv is None else argv)
    parser = Parser(prog="python -m experiments.degrade", description=__doc__, default_env=False)
    parser.add_argument("--output", type=str, required=True, help="the folder to make")
    parser.add_argument(
        "--overwrite", action=ActionYesNo, default=False, help="replace a test set that this command wrote"
    )
    parser.add_class_arguments(FaceData, "data", fail_untyped=False)
    config = parse(parser, argv)
    return degrade(FaceData(**config.data.as_dict()), Path(config.output), config.overwrite)


def degrade(data: FaceData, output: Path, overwrite: bool) -> int:
    """Write the held-out images of `data`, degraded and clean, into the folder `output`."""
    output = output.expanduser().resolve()
    if data.hparams["degradation"] == "none":
        raise UserError("--data.degradation none leaves the images as they are: choose how to degrade them")
    for option in ("root", "val_root"):
        if data.hparams[option] is not None:
            check_apart(output, Path(data.hparams[option]), f"--data.{option}")
    check_replaceable(output, NOTE, (".png",), overwrite)
    data.setup("test")
    files = dict(zip(data.val_names, renamed(data.val_names, ".png"), strict=True))
    protocol = {name: value for name, value in data.describe().items() if name not in ("source", "train")}

    part = part_of(output)
    remove(part)
    store = start(part, False, NOTE, protocol)
    pixels = hashlib.sha256()
    with tqdm(total=len(files), desc="degrade", unit="image", dynamic_ncols=True, disable=None) as bar:
        for batch in data.test_dataloader():
            batch = data.on_before_batch_transfer(
                batch, 0
            )  # raises what a worker found; images are uint8 until they are on a device
            sides = {
                side: batch[side].permute(0, 2, 3, 1).contiguous().numpy() for side in ("input", "target")
            }
            for k, name in enumerate(batch["name"]):
                for side, images in sides.items():
                    store.add(f"{side}/{files[name]}", encode(images[k], "png"))
                    pixels.update(images[k])
            bar.update(len(batch["name"]))
    whole = {**protocol, "pixels": pixels.hexdigest()[:12], "images": data.val_names}
    store.add(NOTE, (json.dumps(whole, indent=2) + "\n").encode())
    publish(part, output)
    print(
        f"{len(files)} images of {protocol['val_source']}, degraded by {protocol['degradation']}, in {output}: input/, target/, {NOTE}"
    )
    return 0


if __name__ == "__main__":
    console.run(main)
