"""Fuse several faces into one, region by region.

Python -m experiments.fuse --checkpoint F --inverter C --base a.png --take hair=b.png --output DIR.

F is a checkpoint of stylefusion, C of an inverter on the same generator. The faces are inverted, or their
codes read from what `experiments.invert` wrote (--codes; they go by the images' names then). Regions that are
not taken from another face are the base's, its pose included; --take all=b.png takes the pose. DIR/fused.png
is the result at the generator's size, DIR/strip.png shows all faces beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Literal

from jsonargparse import ActionYesNo, Namespace

from _runtime import UserError, nearest
from datamodules.decode import Filter
from experiments.shared import console
from experiments.shared.options import (
    add_filter_option,
    add_weights_option,
    command_parser,
    parse,
    use_weights,
)
from experiments.shared.outputs import check_folder, check_new, make_folder

if TYPE_CHECKING:
    from torch import Tensor

    from experiments.shared.codes import Codes
    from lightning_modules.base import Inverter
    from lightning_modules.stylefusion import StyleFusion

FUSED, STRIP = "fused.png", "strip.png"


def main(argv: Sequence[str] | None = None) -> int:
    """Fuse. Returns the exit status."""
    parser = command_parser("fuse", __doc__)
    parser.add_argument("--checkpoint", type=str, required=True, help="checkpoint of stylefusion")
    help = "checkpoint of an inversion method on the same generator; faces are image files then"
    parser.add_argument("--inverter", type=str | None, help=help)
    help = "output folder of python -m experiments.invert, in place of --inverter"
    parser.add_argument("--codes", type=str | None, help=help)
    parser.add_argument("--base", type=str, required=True, help="the face that the others change")
    help = "which region comes from which face, e.g. hair=b.png background=c.png"
    parser.add_argument("--take", type=str, nargs="+", metavar="REGION=FACE", required=True, help=help)
    help = "what drives RGB layers: right, or released as in the release; as the checkpoint says if not given"
    parser.add_argument("--rgb", type=Literal["right", "released"] | None, help=help)
    help = f"folder for {FUSED} and {STRIP}"
    parser.add_argument("--output", type=str, required=True, help=help)
    help = "replace files that exist in the output folder"
    parser.add_argument("--overwrite", action=ActionYesNo, default=False, help=help)
    add_filter_option(parser)
    add_weights_option(parser)
    config = parse(parser, argv)
    if (config.inverter is None) == (config.codes is None):
        raise UserError("give either --inverter (for image files) or --codes (of experiments.invert)")
    if config.codes is not None and config.filter is not None:
        made = "the codes of --codes are made already"
        raise UserError(f"--filter {config.filter} is of images: {made}; leave it out")
    use_weights(config)
    return fuse(config)


def fuse(config: Namespace) -> int:
    """Fuse as the options say."""
    import torch

    from experiments.shared.photographs import Writing

    output = Path(config.output)
    check_folder(output)
    check_new(output, [FUSED, STRIP], config.overwrite)
    takes = [taken(text) for text in config.take]
    method = load_fusion(config)
    check_regions(method, takes)
    faces = list(dict.fromkeys([config.base, *(face for _, face in takes)]))
    with torch.no_grad(), Writing() as writing:
        codes = codes_of(config, method, faces)
        point = method.fuse(codes_of_parts(method, codes, config.base, takes))
        make_folder(output)
        writing.save(output / FUSED, method.synthesize(point)[0])
        columns = {f"base: {title_of(config.base)}": method.point(codes[config.base])}
        for region, face in takes:
            columns[f"{region}: {title_of(face)}"] = method.point(codes[face])
        columns["fused"] = point
        images = torch.stack([method.seen(own) for own in columns.values()], dim=1)
        writing.do(draw_strip, output / STRIP, images[0].cpu(), list(columns))
    print(f"{len(faces)} faces fused to {output / FUSED}")
    return 0


def taken(text: str) -> tuple[str, str]:
    """Region and face of REGION=FACE. Raises `UserError`."""
    region, sign, face = text.partition("=")
    if not (region and sign and face):
        raise UserError(f"--take {text}: expected REGION=FACE, e.g. hair=b.png")
    return region, face


def load_fusion(config: Namespace) -> StyleFusion:
    """The checkpoint's method, where the command computes. Raises `UserError` where it is of another."""
    from experiments.shared.devices import load_to_device
    from lightning_modules.checkpoints import read_checkpoint
    from lightning_modules.stylefusion import StyleFusion

    name = read_checkpoint(config.checkpoint)["suite"]["method"]
    if name != "stylefusion":
        what = f"--checkpoint {config.checkpoint} is of {name}, which fuses nothing"
        raise UserError(f"{what}: give one of stylefusion (python -m experiments.fit --method stylefusion)")
    options = {} if config.rgb is None else {"rgb": config.rgb}
    method = load_to_device(config.checkpoint, **options)
    assert isinstance(method, StyleFusion)
    return method


def check_regions(method: StyleFusion, takes: Sequence[tuple[str, str]]) -> None:
    """Raise `UserError` for a region that the tree does not have, or one that is taken twice."""
    from lightning_modules.networks.stylefusion import regions_of

    known = regions_of(method.tree)
    for region, face in takes:
        if region not in known:
            what = f"the tree {method.hparams['tree']} has no such region"
            raise UserError(f"--take {region}={face}: {what}: {nearest(region, known)}")
    regions = [region for region, _ in takes]
    if len(set(regions)) < len(regions):
        raise UserError(f"--take {' '.join(regions)}: each region comes from one face")


def codes_of_parts(
    method: StyleFusion, codes: dict[str, Tensor], base: str, takes: Sequence[tuple[str, str]]
) -> dict[str, Tensor]:
    """The code w (1, L, D) of each part of the tree; where regions overlap the smaller one counts."""
    from lightning_modules.networks.stylefusion import regions_of, taken_parts

    faces = dict.fromkeys(method.parts, base)
    order = regions_of(method.tree)
    for region, face in sorted(takes, key=lambda take: order.index(take[0])):
        faces |= dict.fromkeys(taken_parts(method.tree, region), face)
    return {part: codes[face] for part, face in faces.items()}


def codes_of(config: Namespace, method: StyleFusion, faces: Sequence[str]) -> dict[str, Tensor]:
    """The code w (1, L, D) of each face, where the method is. Raises `UserError`."""
    from experiments.shared.codes import load_inverter, read_codes

    if config.codes is not None:
        source = read_codes(Path(config.codes))
        source.check_generator(method.G, config.checkpoint)
        return {face: source.w([number_of(face, source)]).to(method.device) for face in faces}
    inverter, trained = load_inverter(config.inverter)
    check_generators(config, method, inverter)
    filter = config.filter or trained
    return {face: inverted(inverter, face, filter).to(method.device) for face in faces}


def check_generators(config: Namespace, method: StyleFusion, inverter: Inverter) -> None:
    """Raise `UserError` where the inverter's codes are of another generator."""
    from lightning_modules.generators import fingerprint, generator_of

    own, theirs = fingerprint(method.G), fingerprint(generator_of(inverter))
    if own != theirs:
        what = f"--inverter {config.inverter} is on the generator {theirs}, {config.checkpoint} on {own}"
        raise UserError(f"{what}: give two checkpoints that were trained on one prior")


def number_of(face: str, source: Codes) -> int:
    """The number of a face among codes, by its name with or without suffix. Raises `UserError`."""
    for key in (str, lambda name: str(PurePosixPath(name).with_suffix(""))):
        found = [number for number, name in enumerate(source.names) if key(name) == face]
        if len(found) == 1:
            return found[0]
    raise UserError(f"--codes {source.path} has no code of {face}: {nearest(face, source.names)}")


def inverted(inverter: Inverter, face: str, filter: Filter) -> Tensor:
    """w (1, L, D) of an image file. Raises `UserError` where it is none."""
    from experiments.shared.photographs import Photographs

    photographs = Photographs([Path(face)])
    if len(photographs) != 1:
        raise UserError(f"{face} holds {len(photographs)} images: give the file of one face")
    for _, image in photographs.batches(inverter.image_shape, 1, 0, "invert", filter):
        return inverter.invert(image.to(inverter.device))["w"]
    raise UserError(photographs.skipped[0])


def title_of(face: str) -> str:
    return PurePosixPath(face).stem


def draw_strip(path: Path, images: Tensor, titles: Sequence[str]) -> None:
    from callbacks.grid import save_png, tile

    save_png(path, tile([images], column_names=titles))


if __name__ == "__main__":
    console.run(main)
