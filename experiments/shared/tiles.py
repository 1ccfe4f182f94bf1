"""Large pictures in overlapping parts, for memory that does not hold them whole."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from experiments.shared.devices import out_of_memory
from lightning_modules.base import Restorer

STEP = 32  # tiles begin at multiples of it, so that the grids of networks that halve the picture lie the same
SMALLEST = 4 * STEP
AUTOMATIC = (1024, 512, 256)  # sides that are tried where a picture does not fit


def overlap_of(tile: int) -> int:
    """How much of its neighbour a tile shares, in pixels."""
    return max(tile // 4 // STEP, 1) * STEP


def starts(length: int, tile: int) -> list[int]:
    """Where tiles begin that cover a length; the last may be shorter."""
    step = (tile - overlap_of(tile)) // STEP * STEP
    last = max(0, -(-(length - tile) // STEP) * STEP)
    return [*range(0, last, step), last]


def ramp(start: int, end: int, length: int, overlap: int) -> Tensor:
    """Weights (end - start) of a tile along one axis: less towards its seams, not at the picture's edges."""
    at = torch.arange(start, end, dtype=torch.float32) + 0.5
    weights = torch.ones(end - start)
    if start > 0:
        weights = torch.minimum(weights, (at - start) / overlap)
    if end < length:
        weights = torch.minimum(weights, (end - at) / overlap)
    return weights


def in_tiles(restore: Callable[[Tensor], Tensor], image: Tensor, tile: int) -> Tensor:
    """`restore` of (1, 3, H, W) in squares of `tile` pixels, blended where they overlap, on the CPU.

    Away from the seams it is what the whole picture gives, as far as the network sees no further than the
    overlap.
    """
    height, width = image.shape[-2:]
    overlap = overlap_of(tile)
    total, weight = torch.zeros(image.shape), torch.zeros(height, width)
    for top in starts(height, tile):
        bottom = min(top + tile, height)
        rows = ramp(top, bottom, height, overlap)
        for left in starts(width, tile):
            right = min(left + tile, width)
            own = rows[:, None] * ramp(left, right, width, overlap)
            part = restore(image[..., top:bottom, left:right]).float().cpu()
            total[..., top:bottom, left:right] += own * part
            weight[top:bottom, left:right] += own
    return total / weight


class Patient:
    """Restores what the memory does not hold one by one, then in tiles, and goes on where that fails too.

    Args:
        method: of which `any_size` says whether it takes tiles.
        tile: their side; None for whole pictures, and tiles where these do not fit.
        skip: told the name of what cannot be restored, and why.

    Attributes:
        told: lines about what tiles have changed.
    """

    def __init__(self, method: Restorer, tile: int | None, skip: Callable[[str, str], None]) -> None:
        self.method, self.tile, self.skip = method, tile, skip
        self.told: list[str] = []
        if tile is not None:
            self._tell()

    def restored(self, names: Sequence[str], images: Tensor) -> Iterator[tuple[int, Tensor]]:
        """Numbers and restored images (3, H, W) of a batch (B, 3, H, W)."""
        together = self._attempt(images, self.tile)
        if together is not None:
            yield from enumerate(together)
            return
        for i, name in enumerate(names):
            alone = self._alone(name, images[i : i + 1])
            if alone is not None:
                yield i, alone[0]

    def _alone(self, name: str, image: Tensor) -> Tensor | None:
        """One image as well as the memory allows; None where it does not."""
        height, width = image.shape[-2:]
        sides: list[int | None] = [None] if self.tile is None else [self.tile]
        longest = min(height + width if self.tile is None else self.tile, max(height, width))
        if self.method.any_size:
            sides += [side for side in AUTOMATIC if side < longest]
        for side in sides:
            restored = self._attempt(image, side)
            if restored is not None:
                if side != self.tile:
                    self._tell()
                    size = f"{name} ({width}x{height})"
                    self.told.append(f"{size} did not fit into memory: restored in tiles of {side} px")
                return restored
        way = "give a smaller --tile" if self.method.any_size else "give a smaller --batch_size"
        self.skip(name, f"no memory left for its {width}x{height} pixels; {way} or a smaller picture")
        return None

    def _attempt(self, images: Tensor, tile: int | None) -> Tensor | None:
        """(B, 3, H, W) restored, on the CPU where in tiles; None where the memory is too small."""
        try:
            if tile is None or max(images.shape[-2:]) <= tile:
                return self._restore(images)
            return in_tiles(self._restore, images, tile)
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
        # not above, where the error still holds what was computed
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return None

    def _restore(self, images: Tensor) -> Tensor:
        return self.method.restore(images.to(self.method.device))

    def _tell(self) -> None:
        """Say once what tiles change."""
        line = f"{type(self.method).__name__} averages over all it sees: tiles change its result a little"
        if line not in self.told:
            self.told.append(line)
