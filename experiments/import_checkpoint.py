"""Turn a released file into ours: python -m experiments.import_checkpoint --method M --source F --output C.

Layout and architecture are read off the file, which never executes anything. The result can be evaluated,
restores photographs, and starts a training with `fit --init_from`.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonargparse import ActionYesNo, Namespace

from _runtime import write_bytes
from experiments.shared import console, recipes
from experiments.shared.options import command_parser, parse
from experiments.shared.outputs import check_output
from lightning_modules.pretrained import with_files

if TYPE_CHECKING:
    from lightning_modules.pretrained.imported import Imported


def main(argv: Sequence[str] | None = None) -> int:
    """Import. Returns the exit status."""
    parser = command_parser("import_checkpoint", __doc__)
    methods = f"whose checkpoint it becomes: {', '.join(with_files(recipes.METHODS))}"
    parser.add_argument("--method", type=str, required=True, help=methods)
    source = (
        "released file: .pth, .pt, .pkl (NVlabs) or .safetensors; StyleFusion's index.json; of hfgi_sf those "
        "of HFGI, parser and StyleFusion, in any order"
    )
    parser.add_argument("--source", type=str, nargs="+", required=True, help=source)
    discriminator = (
        "released file of the discriminator, where it is not in the source; of gfpgan, a folder with several"
    )
    parser.add_argument("--discriminator", type=str | None, help=discriminator)
    generator = "checkpoint of the prior whose codes an encoder makes, where its released file is that alone"
    parser.add_argument("--generator", type=str | None, help=generator)
    base_size = "width of the base codes that BDInvert's encoder makes, where the file's name does not tell"
    parser.add_argument("--base_size", type=int | None, help=base_size)
    parser.add_argument("--output", type=str, required=True, help="our checkpoint, *.ckpt")
    overwrite = "replace the output if it exists"
    parser.add_argument("--overwrite", action=ActionYesNo, default=False, help=overwrite)
    return import_checkpoint(parse(parser, argv))


def import_checkpoint(config: Namespace) -> int:
    """Import as the options say."""
    import torch

    from lightning_modules.pretrained.released import find_released, import_parts, import_released

    find_released(config.method)
    output, sources = Path(config.output), [Path(source) for source in config.source]
    check_output(output, ".ckpt", config.overwrite)
    discriminator = Path(config.discriminator) if config.discriminator else None
    generator = Path(config.generator) if config.generator else None
    if len(sources) > 1:
        imported = import_parts(config.method, sources)
    else:
        imported = import_released(config.method, sources[0], discriminator, generator, config.base_size)
    checkpoint = checkpoint_of(imported, sources)
    file = io.BytesIO()
    torch.save(checkpoint, file)
    write_bytes(output, file.getvalue())
    print(summary(imported, sources))
    print(f"written to {output}")
    return 0


def checkpoint_of(imported: Imported, sources: Sequence[Path]) -> dict[str, Any]:
    """What a run at iteration 0 would have saved, and where its weights come from."""
    method = imported.method
    checkpoint: dict[str, Any] = {
        "state_dict": method.state_dict(),
        "hyper_parameters": dict(method.hparams),
    }
    method.on_save_checkpoint(checkpoint)
    digest = hashlib.sha256()  # of several, of one after the other
    for source in sources:
        with open(source, "rb") as file:
            while block := file.read(2**20):
                digest.update(block)
    entry = {
        "file": " ".join(source.name for source in sources),
        "sha256": digest.hexdigest(),
        "layout": imported.layout,
        "notes": imported.notes,
    }
    if imported.filter is not None:
        entry["filter"] = imported.filter  # `experiments.shared.photographs.filter_of` reads it
    checkpoint["suite"]["imported"] = entry
    return checkpoint


def summary(imported: Imported, sources: Sequence[Path]) -> str:
    """What was recognised, a line each."""
    from lightning_modules.networks.ops import count_parameters
    from lightning_modules.weights import licence_of

    networks = dict(imported.method.named_children())
    parts = []
    for name, network in networks.items():
        parameters = count_parameters(network)
        if parameters and f"{name}_ema" not in networks:
            parts.append(f"{name} {parameters / 1e6:.3f} M")
    recognised = {
        "method": type(imported.method).__name__,
        "layout": imported.layout,
        **imported.arguments,
        "parameters": ", ".join(parts),
    }
    lines = [f"{', '.join(map(str, sources))}:"]
    lines += [f"  {name:15} {value}" for name, value in recognised.items()]
    lines += [f"  note: {note}" for note in imported.notes]
    for source in sources:
        licence = licence_of(source.name)
        if licence is not None:
            lines.append(f"  licence: {licence}")
    return "\n".join(lines)


if __name__ == "__main__":
    console.run(main)
