"""Write a trained network as plain safetensors: python -m experiments.export --checkpoint C --output F.

The tensors have the names and shapes of the released networks, so other code can read them, and
`import_checkpoint` brings them back.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from jsonargparse import ActionYesNo, Namespace

from _runtime import UserError, nearest, write_bytes
from experiments.shared import console
from experiments.shared.options import command_parser, parse
from experiments.shared.outputs import check_output


def main(argv: Sequence[str] | None = None) -> int:
    """Export. Returns the exit status."""
    parser = command_parser("export", __doc__)
    parser.add_argument("--checkpoint", type=str, required=True, help="checkpoint of ours")
    parser.add_argument("--output", type=str, required=True, help="file to write, *.safetensors")
    layout = (
        "whose names: rosinality (default), nvlabs, basicsr or genforce for StyleGAN2; gfpgan (default) or "
        "gfpgan-clean, which turns a bilinear GFP-GAN into a clean one; others have one layout"
    )
    parser.add_argument("--layout", type=str | None, help=layout)
    network = (
        "what restores, samples or inverts (G_ema where there is an average), or the discriminator as a file "
        "of its own"
    )
    parser.add_argument("--network", type=Literal["G_ema", "D"], default="G_ema", help=network)
    overwrite = "replace the output if it exists"
    parser.add_argument("--overwrite", action=ActionYesNo, default=False, help=overwrite)
    config = parse(parser, argv)
    check_output(Path(config.output), ".safetensors", config.overwrite)
    return export(config)


def export(config: Namespace) -> int:
    """Export as the options say."""
    import safetensors.torch

    from lightning_modules.methods import load_method
    from lightning_modules.pretrained.released import export_released, find_released, layouts_of

    output = Path(config.output)
    method, checkpoint = load_method(config.checkpoint)
    name = checkpoint["suite"]["method"]
    layouts = layouts_of(method)
    layout = config.layout or layouts[0]
    if layout not in layouts:
        whose = f"this {name}" if layout in find_released(name).LAYOUTS else name
        raise UserError(f"--layout {layout} is none of {whose}: {nearest(layout, layouts)}")
    try:
        tensors = export_released(method, layout, config.network)
    except UserError as error:
        raise UserError(f"{config.checkpoint} cannot be written with --layout {layout}: {error}") from error
    hyper_parameters = json.dumps(checkpoint["hyper_parameters"])
    metadata = {
        "method": name,
        "hyper_parameters": hyper_parameters,
        "layout": layout,
        "network": config.network,
    }
    write_bytes(output, safetensors.torch.save(tensors, metadata))
    written = f"{len(tensors)} tensors with the names of {layout} written to {output}"
    print(f"{config.network} of {config.checkpoint}: {written}")
    return 0


if __name__ == "__main__":
    console.run(main)
