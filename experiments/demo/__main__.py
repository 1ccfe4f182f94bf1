"""Show what the networks that come with the suite do: python -m experiments.demo [--output runs/demo].

No download and no training is needed before it. On portraits that none of them has seen it writes

  restored.png   degraded portraits, what GPEN makes of them, and the truth
  finetuned.png  the same by a GPEN that is trained for two minutes, from the prior that comes with the suite,
                 and by a network of three convolutions that has seen the same pairs
  inverted.png   portraits as e4e and HFGI give them back
  edited.png     portraits turned and made to smile by HFGI, beside what the renderer draws

and says in figures what came of it, also where the small network is the better one.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jsonargparse import ActionYesNo

from _runtime import UserError
from experiments.shared import console
from experiments.shared.options import command_parser, parse

ITERATIONS = 1_200  # two minutes on one core
RESTORED, FINETUNED, INVERTED, EDITED = "restored.png", "finetuned.png", "inverted.png", "edited.png"


def main(argv: Sequence[str] | None = None) -> int:
    """Show it. Returns the exit status."""
    parser = command_parser("demo", __doc__)
    parser.add_argument(
        "--output", type=str, default="runs/demo", help="folder of pictures, table and training"
    )
    iterations = "of the training, at 4 portraits each"
    parser.add_argument("--iterations", type=int, default=ITERATIONS, help=iterations)
    overwrite = "replace what an earlier demo wrote"
    parser.add_argument("--overwrite", action=ActionYesNo, default=False, help=overwrite)
    config = parse(parser, argv)
    if config.iterations < 1:
        raise UserError(f"--iterations {config.iterations}: expected at least 1")
    return demo(Path(config.output), config.iterations, config.overwrite)


def demo(output: Path, iterations: int, overwrite: bool) -> int:
    """Restore, train, invert and edit, each with its picture and figures."""
    from experiments.demo.editing import edit, invert
    from experiments.demo.restoring import compare, fine_tune, restore
    from experiments.shared.outputs import check_new, make_folder
    from lightning_modules import embedded

    check_new(output, [RESTORED, FINETUNED, INVERTED, EDITED], overwrite)
    for name in embedded.NAMES:  # before any long work
        embedded.find(name)
    make_folder(output)
    restore(output / RESTORED)
    run = fine_tune(output / "gpen", iterations)
    print(compare(run, iterations, output))
    print(invert(output / INVERTED))
    print(edit(output / EDITED))
    print(f"pictures: {', '.join(str(output / name) for name in (RESTORED, FINETUNED, INVERTED, EDITED))}")
    return 0


if __name__ == "__main__":
    console.run(main)
