"""Make a trained network part of the suite: python -m experiments.embed --name portraits/e4e --checkpoint C.

What the name stands for in `lightning_modules/embedded` becomes a file there, in half precision and without
what only a training needs, and gets its line in embedded.json: SHA-256, licence, what it was trained on, and
the command that made it (--made_by). The same checkpoint always gives the same bytes. Of portraits alone, and
all files together at most 8 MB. A network that takes parts of another one comes after it: the prior first.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from jsonargparse import ActionYesNo, Namespace

from _runtime import UserError, write_bytes, write_text
from experiments.shared import console
from experiments.shared.options import command_parser, parse

if TYPE_CHECKING:
    from torch import Tensor

    from lightning_modules.base import Method

LICENCE = "MIT"  # the code's, which drew all that they have seen
MOST_BYTES = 8_000_000
COMPARED = 16  # images on which a network is compared with its halves


def main(argv: Sequence[str] | None = None) -> int:
    """Embed. Returns the exit status."""
    parser = command_parser("embed", __doc__)
    parser.add_argument("--name", type=str, required=True, help="portraits/prior, gpen, e4e, hfgi or scorer")
    parser.add_argument("--checkpoint", type=str, required=True, help="file of a run on portraits")
    made_by = "the command that trained it, for embedded.json"
    parser.add_argument("--made_by", type=str, required=True, help=made_by)
    overwrite = "replace the network of this name"
    parser.add_argument("--overwrite", action=ActionYesNo, default=False, help=overwrite)
    return embed(parse(parser, argv))


def embed(config: Namespace) -> int:
    """Embed as the options say."""
    import hashlib

    from lightning_modules import embedded
    from lightning_modules.embedded.packing import pack
    from lightning_modules.methods import load_method

    name = embedded.full_name(config.name)
    rows = embedded.rows()
    if name in rows and not config.overwrite:
        raise UserError(f"--name {name} is embedded already: give --overwrite to replace it")
    method, checkpoint = load_method(config.checkpoint)
    trained_on = check_content(name, checkpoint, config.checkpoint)
    try:
        data = pack(name, checkpoint)
        difference = compare(name, method, data)
    except UserError as error:
        raise UserError(f"{config.checkpoint} cannot be {name}: {error}") from error

    file = f"{name.partition('/')[2]}.safetensors"
    digest = hashlib.sha256(data).hexdigest()
    rows[name] = embedded.Row(file, digest, len(data), LICENCE, trained_on, config.made_by)
    total = sum(row.bytes for row in rows.values())
    if total > MOST_BYTES:
        too_many = f"with it the embedded files have {total:,} bytes, at most {MOST_BYTES:,}"
        raise UserError(f"{config.checkpoint} cannot be {name}: {too_many}")
    write_bytes(embedded.FOLDER / file, data)
    table = {known: asdict(rows[known]) for known in embedded.NAMES if known in rows}
    write_text(embedded.FOLDER / embedded.TABLE, json.dumps(table, indent=2) + "\n")
    print(f"{name}: {len(data):,} bytes, {trained_on}; all together {total:,} of {MOST_BYTES:,} bytes")
    print(f"its output differs from the checkpoint's by at most {difference:.2%} of the largest value")
    for other in made_beside(name, rows):
        print(f"{other} was made beside the {name} before: embed it again")
    return 0


def check_content(name: str, checkpoint: dict[str, Any], path: str) -> str:
    """What a checkpoint was trained on, in words.

    Raises:
        UserError: it is of another method than the name stands for, or did not see portraits alone.
    """
    from experiments.shared.trained import portraits_seen
    from lightning_modules.embedded import NAMES

    expected, method = NAMES[name].method, checkpoint["suite"]["method"]
    if method != expected:
        raise UserError(f"{path} is a checkpoint of {method}, {name} is of {expected}")
    seen = portraits_seen(checkpoint, f"checkpoint {path}")
    if seen is None:
        raise UserError(f"{path} was not trained on rendered portraits alone: {name} has to be")
    return f"{seen}, {checkpoint['suite']['images_seen']:,} images"


def compare(name: str, method: Method, data: bytes) -> float:
    """How far the output of what is stored is from a method's, relative to the largest of its values.

    Raises:
        UserError: what is stored does not fit the method.
    """
    import copy

    import safetensors.torch
    import torch

    from lightning_modules.checkpoints import load_weights
    from lightning_modules.embedded import assembled

    again = copy.deepcopy(method)
    load_weights(again, assembled(name, safetensors.torch.load(data)), "what is stored")
    inputs = inputs_of(method)
    outputs = []
    for network in (method, again):
        torch.manual_seed(0)  # of a generator's noise
        with torch.no_grad():
            outputs.append(network(inputs))
    first, second = outputs
    return float((first - second).abs().max() / first.abs().max())


def inputs_of(method: Method) -> Tensor:
    """What a call of a method takes: codes of a prior, and portraits of all others."""
    import torch

    from datamodules import portraits
    from lightning_modules.gan_prior import GANPrior

    if isinstance(method, GANPrior):
        return torch.randn(COMPARED, method.G.z_dim, generator=torch.Generator().manual_seed(0))
    people = portraits.sample_parameters(0, range(COMPARED))
    return portraits.render(people, method.size)["image"].float() / 127.5 - 1


def made_beside(name: str, rows: dict[str, Any]) -> list[str]:
    """The embedded networks that take parts of one, through others too."""
    from lightning_modules.embedded import NAMES

    found = [name]
    for other, kind in NAMES.items():
        if other in rows and any(part.source in found for part in kind.parts):
            found.append(other)
    return found[1:]


if __name__ == "__main__":
    console.run(main)
