"""Photographs that are looked at before a run, so that none surprises it: their sizes, damage and looks.

Raises  UserError: too many cannot be used, or none can.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from lightning.fabric.utilities.rank_zero import _get_rank
from tqdm import tqdm

from datamodules.datasets import Photographs, allowed, too_many
from datamodules.decode import ImageFiles, SmallImage, UnreadableImage, too_small
from datamodules.prints import Look

log = logging.getLogger(__name__)
GLANCES = 64  # headers that tell whether a whole set is too small


def glance(files: ImageFiles, indices: Sequence[int], shape: tuple[int, int]) -> None:
    """Refuse a set of too small images before long work starts, from some of their headers."""
    stride = -(-len(indices) // GLANCES)
    for i in indices[::stride]:
        try:
            width, height = files.size(i)
        except UnreadableImage:
            continue  # counted when its turn comes
        if height < shape[0] or width < shape[1]:
            raise too_small(files.path(i), width, height, shape)


def readable(source: Photographs, indices: Sequence[int], unreadable: float) -> dict[int, Look]:
    """Decode every held-out image once; leave out and name the damaged ones. Raises UserError."""
    n = len(indices)
    looks = look_at(source, indices, "checking held-out images")
    usable = {i: look for i, look in looks.items() if isinstance(look, Look)}
    bad = [str(error) for error in looks.values() if isinstance(error, UnreadableImage)]
    for error in looks.values():
        if isinstance(error, SmallImage):
            raise error
    if len(bad) > allowed(unreadable, n) or len(bad) == n:
        raise too_many(bad, n)
    if bad and not _get_rank():
        log.warning("%d of %d held-out images skipped: %s", len(bad), n, "; ".join(bad[:3]))
    warn_of_masks(source, usable, "held-out")
    return usable


def look_at(
    source: Photographs, indices: Sequence[int], what: str
) -> dict[int, Look | UnreadableImage | SmallImage]:
    """Decode images once each; what is noted of them, or why they cannot be used."""

    def look(i: int) -> Look | UnreadableImage | SmallImage:
        try:
            return source.look(i)
        except (UnreadableImage, SmallImage) as error:
            return error

    # the rank from the environment: the trainer is not there yet when this runs first
    hidden = bool(_get_rank())
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        results = pool.map(look, indices)
        checks = tqdm(results, what, len(indices), leave=False, delay=2, disable=hidden)
        return dict(zip(indices, checks, strict=True))


def warn_of_masks(source: Photographs, looks: dict[int, Look], which: str) -> None:
    """Count the pictures that are black, plain or of two values."""
    masks = [i for i, look in looks.items() if look.two_valued]
    if masks and not _get_rank():
        what = f"{len(masks)} of {len(looks)} {which} images looked at are black or have two values alone"
        log.warning("%s, as masks have (e.g. %s): are they faces?", what, source.files.path(masks[0]))
