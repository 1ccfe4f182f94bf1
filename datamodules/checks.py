"""Options of the data that cannot work, found before a file is opened.

Raises  UserError: names the option and the way out.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from _runtime import UserError, nearest
from datamodules.datasets import FrozenSet
from datamodules.degradations import DEGRADATIONS


def check_options(options: Any) -> None:
    """Raise UserError for one of `FaceData`'s options that cannot work."""
    size, degradation, split = options.size, options.degradation, options.val_split
    if size < 16 or size & (size - 1):
        raise UserError(f"--data.size {size}: expected a power of two from 16 on, e.g. 64, 256 or 512")
    if options.height is not None:
        _check_height(options)
    _at_least(1, batch_size=options.batch_size, accumulate=options.accumulate)
    _at_least(1, val_batch_size=options.val_batch_size, val_images=options.val_images)
    _at_least(1, portraits=options.portraits)
    _at_least(0, workers=options.workers, seed=options.seed)
    if not 0 <= options.unreadable <= 1:
        raise UserError(f"--data.unreadable {options.unreadable}: expected a share of the files, 0 to 1")
    if degradation not in DEGRADATIONS:
        raise UserError(f"unknown --data.degradation {degradation!r}: {nearest(degradation, DEGRADATIONS)}")
    if split not in ("random", "last") and not Path(split).is_file():
        raise UserError(
            f"--data.val_split {split}: expected random, last or a text file with one image name per line"
        )
    if options.pairs is not None and options.root is not None:
        raise UserError("--data.pairs and --data.root both name what to train on: give one of them")
    if options.landmarks is not None and options.root is None and options.pairs is None:
        raise UserError(f"--data.landmarks {options.landmarks}: portraits have their own; leave it out")
    if options.masks is not None:
        _check_masks(options)
    if options.root is not None and FrozenSet.at(options.root):
        raise UserError(
            f"--data.root {options.root} is a test set of degraded and clean images:"
            " name it as --data.val_root"
        )


def _check_masks(options: Any) -> None:
    """Raise UserError where there are no photographs that masks could be of."""
    where = f"--data.masks {options.masks}"
    if options.pairs is not None:
        raise UserError(f"{where}: pairs come without masks; leave out --data.masks or --data.pairs")
    if options.root is None and options.val_root is None:
        raise UserError(f"{where} are of photographs: give --data.root, or leave out --data.masks")
    if options.degradation != "none":
        raise UserError(f"{where} are of clean photographs: give --data.degradation none")


def _check_height(options: Any) -> None:
    """Raise UserError where images that are no squares cannot be had."""
    height = options.height
    if height % 8 or not 8 <= height < options.size:
        raise UserError(
            f"--data.height {height}: expected a multiple of 8 below --data.size {options.size};"
            " leave it out for squares"
        )
    if options.degradation != "none":
        raise UserError(f"--data.height {height}: degradations are of squares; give --data.degradation none")
    if options.root is None and (options.val_root is None or FrozenSet.at(options.val_root)):
        raise UserError(
            f"--data.height {height}: portraits and test sets are square; give --data.root with photographs"
        )


def _at_least(least: int, **options: int) -> None:
    for option, value in options.items():
        if value < least:
            raise UserError(f"--data.{option} {value}: expected at least {least}")
