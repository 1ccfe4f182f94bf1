"""Fit P-norm+ to a generator: python -m experiments.pnorm --checkpoint C --output F.

P-norm+ is the space in which the generator's codes are spread like a normal distribution; ii2s and bdinvert
hold their codes in it. They fit it by themselves, which takes a minute or two; this makes a file of it, which
--model.pnorm takes, and which is refused beside another generator.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jsonargparse import ActionYesNo, Namespace

from experiments.shared import console
from experiments.shared.options import command_parser, parse
from experiments.shared.outputs import check_output


def main(argv: Sequence[str] | None = None) -> int:
    """Fit. Returns the exit status."""
    parser = command_parser("pnorm", __doc__)
    help = "checkpoint with a generator: of a prior, or of a method built on one"
    parser.add_argument("--checkpoint", type=str, required=True, help=help)
    parser.add_argument("--output", type=str, required=True, help="file to write, *.safetensors")
    parser.add_argument("--samples", type=int, default=1_000_000, help="codes that it is fitted to")
    overwrite = "replace the output if it exists"
    parser.add_argument("--overwrite", action=ActionYesNo, default=False, help=overwrite)
    return fit(parse(parser, argv))


def fit(config: Namespace) -> int:
    """Fit as the options say."""
    from experiments.shared.devices import load_to_device
    from lightning_modules import pnorm
    from lightning_modules.generators import generator_of

    output = Path(config.output)
    check_output(output, ".safetensors", config.overwrite)
    G = generator_of(load_to_device(config.checkpoint))
    arrays = pnorm.fit(G, config.samples, "--samples")
    pnorm.save(arrays, G, output)
    values = arrays["values"].double().clamp_min(0)
    shares = values.cumsum(0) / values.sum()
    dimensions = int((shares < 0.99).sum()) + 1
    spread = f"99 % of their variance in {dimensions} of {len(values)} dimensions"
    print(f"P-norm+ of {config.samples:,} codes: {spread}, {values[0]:.4g} down to {values[-1]:.4g}")
    print(f"written to {output}")
    return 0


if __name__ == "__main__":
    console.run(main)
