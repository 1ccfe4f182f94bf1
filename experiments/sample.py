"""Draw what a generator has learnt.

Python -m experiments.sample --checkpoint prior.ckpt --output DIR [--truncation 0.7].

Writes images/SEED.png of truncated samples and grid.png of the first of them; interpolations.png, straight
lines in W between the samples of neighbouring seeds; and mixing.png, the table of the StyleGAN paper
(arXiv:1812.04948, figure 3): rows and columns are samples, and a row's image takes its coarse (4 to 8 px),
middle (16 to 32 px) or fine styles from the column's. Noise is the same for all images, so what differs comes
from the codes. A checkpoint of gan_prior, or of any method that holds a generator, is enough.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from jsonargparse import ActionYesNo, Namespace

from _runtime import UserError
from experiments.shared import console
from experiments.shared.options import command_parser, parse

if TYPE_CHECKING:
    from torch import Tensor

    from lightning_modules.generators import LatentGenerator

GRID, LINES, MIXING = "grid.png", "interpolations.png", "mixing.png"
SHOWN = 64  # images in the grid
COLUMNS = 8
COARSE, MIDDLE = 8, 32  # pixels up to which styles are coarse or middle, as in the paper
MIXED_ROWS, MIXED_COLUMNS = 2, 5  # of the table, the rows once for each kind of styles


def main(argv: Sequence[str] | None = None) -> int:
    """Draw. Returns the exit status."""
    parser = command_parser("sample", __doc__)
    help = "checkpoint of gan_prior, or of a method with a generator"
    parser.add_argument("--checkpoint", type=str, required=True, help=help)
    help = f"folder for images/, {GRID}, {LINES} and {MIXING}"
    parser.add_argument("--output", type=str, required=True, help=help)
    parser.add_argument("--count", type=int, default=64, help="samples, a file each")
    parser.add_argument("--seed", type=int, default=0, help="of the first sample; each has the next")
    help = "how far codes are from their mean: 0 the mean face, 1 what was learnt"
    parser.add_argument("--truncation", type=float, default=0.7, help=help)
    parser.add_argument("--interpolations", type=int, default=4, help=f"rows of {LINES}; 0 for none")
    parser.add_argument("--steps", type=int, default=8, help="images in such a row, both ends included")
    help = f"write {MIXING}; --no_mixing does not"
    parser.add_argument("--mixing", action=ActionYesNo, default=True, help=help)
    parser.add_argument("--batch_size", type=int, default=32, help="images at once")
    help = "replace files that exist in the output folder"
    parser.add_argument("--overwrite", action=ActionYesNo, default=False, help=help)
    config = parse(parser, argv)
    for name, least in (("count", 1), ("seed", 0), ("interpolations", 0), ("steps", 2), ("batch_size", 1)):
        if config[name] < least:
            raise UserError(f"--{name} {config[name]}: expected at least {least}")
    if not 0 <= config.truncation <= 2:
        given = f"--truncation {config.truncation:g}"
        raise UserError(f"{given}: expected a number from 0 to 2, 1 for what was learnt")
    return sample(config)


def sample(config: Namespace) -> int:
    """Draw as the options say."""
    import torch

    from experiments.shared.devices import load_to_device
    from experiments.shared.outputs import check_new, make_folder
    from experiments.shared.photographs import Writing
    from lightning_modules.generators import generator_of

    output = Path(config.output)
    seeds = range(config.seed, config.seed + config.count)
    files = {seed: f"images/{seed:06d}.png" for seed in seeds}
    tables = [GRID]
    if config.interpolations:
        tables.append(LINES)
    if config.mixing:
        tables.append(MIXING)
    check_new(output, [*tables, *files.values()], config.overwrite)
    G = generator_of(load_to_device(config.checkpoint))
    artist = Artist(G, config.truncation, config.batch_size)
    make_folder(output / "images")

    first: list[Tensor] = []
    with torch.no_grad(), Writing() as writing:
        images = artist.draw(artist.codes(seeds), "samples")
        for seed, image in zip(seeds, images, strict=True):
            writing.save(output / files[seed], image)
            if len(first) < SHOWN:
                first.append(image)
        save_rows(output / GRID, in_rows(first, COLUMNS))
        if config.interpolations:
            save_rows(output / LINES, artist.interpolations(config.seed, config.interpolations, config.steps))
        if config.mixing:
            draw_mixing(output / MIXING, artist, config.seed)
    what = f"{config.count} samples of {G.size} px with truncation {config.truncation:g}"
    print(f"{what}, and {' '.join(tables)} in {output}")
    return 0


class Artist:
    """Draws images of a generator in batches; each is a function of its code alone."""

    def __init__(self, G: LatentGenerator, truncation: float, batch_size: int) -> None:
        import torch

        self.G, self.truncation, self.batch_size = G, truncation, batch_size
        noise = torch.Generator().manual_seed(0)
        self.noise = G.draw_noise(1, noise)

    def codes(self, seeds: Sequence[int]) -> Tensor:
        """w (N, L, D) of seeds, truncated."""
        import torch

        z = [torch.randn(self.G.z_dim, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        return self.G.map(torch.stack(z).to(self.G.w_avg), self.truncation)

    def draw(self, w: Tensor, task: str) -> Iterator[Tensor]:
        """The images (3, H, W) of codes on the CPU, one after the other, under a progress bar."""
        from tqdm import tqdm

        with tqdm(total=len(w), desc=task, unit="image", dynamic_ncols=True, disable=None) as bar:
            for part in w.split(self.batch_size):
                yield from self.G(part, self.noise).cpu()
                bar.update(len(part))

    def interpolations(self, seed: int, rows: int, steps: int) -> list[Tensor]:
        """Rows (steps, 3, H, W): from the code of a seed to that of the next."""
        import torch

        ends = self.codes(range(seed, seed + rows + 1))
        shares = torch.linspace(0, 1, steps).tolist()
        codes = []
        for a, b in pairwise(ends):
            codes += [torch.lerp(a, b, share) for share in shares]
        return in_rows(list(self.draw(torch.stack(codes), "interpolations")), steps)

    def kinds(self) -> dict[str, list[int]]:
        """Layers of w by what they style; only a generator above 32 px has fine ones."""
        kinds: dict[str, list[int]] = {}
        for layer, side in enumerate(self.G.sides):
            if side <= COARSE:
                kind = "coarse"
            elif side <= MIDDLE:
                kind = "middle"
            else:
                kind = "fine"
            kinds.setdefault(kind, []).append(layer)
        return kinds

    def mixed(self, rows: Tensor, columns: Tensor) -> dict[str, Tensor]:
        """For each kind of styles codes (R, C, L, D): a row's, with that kind from the column's."""
        mixed: dict[str, Tensor] = {}
        for kind, layers in self.kinds().items():
            codes = rows[:, None].repeat(1, len(columns), 1, 1)
            codes[:, :, layers] = columns[None, :, layers]
            mixed[kind] = codes
        return mixed


def draw_mixing(path: Path, artist: Artist, seed: int) -> None:
    """The style mixing table.

    Columns' samples above, rows' samples on the left, once for each kind of styles.
    """
    import torch

    from callbacks.grid import save_png, tile

    w = artist.codes(range(seed, seed + MIXED_ROWS + MIXED_COLUMNS))
    rows, columns = w.split([MIXED_ROWS, MIXED_COLUMNS])
    mixed = artist.mixed(rows, columns)
    codes = torch.cat([w, *(part.flatten(0, 1) for part in mixed.values())])
    images = torch.stack(list(artist.draw(codes, "mixing")))
    samples, tables = images[: len(w)], images[len(w) :].unflatten(0, (len(mixed), MIXED_ROWS, -1))
    white = torch.ones_like(samples[:1])  # in the corner
    lines, names = [torch.cat([white, samples[MIXED_ROWS:]])], [""]
    for kind, table in zip(mixed, tables, strict=True):
        for sample, row in zip(samples[:MIXED_ROWS], table, strict=True):
            lines.append(torch.cat([sample[None], row]))
            names.append(f"{kind} from above")
    save_png(path, tile(lines, row_names=names))


def in_rows(images: Sequence[Tensor], columns: int) -> list[Tensor]:
    """Images as rows of so many, the last filled up with white."""
    import torch

    columns = min(columns, len(images))
    missing = -len(images) % columns
    filled = [*images, *[torch.ones_like(images[0])] * missing]
    return list(torch.stack(filled).split(columns))


def save_rows(path: Path, rows: Sequence[Tensor]) -> None:
    from callbacks.grid import save_png, tile

    save_png(path, tile(rows))


if __name__ == "__main__":
    console.run(main)
