"""What a run would do, without doing it, and all that it would miss: `--dry_run`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from _runtime import UserError
from datamodules.faces import FaceData
from experiments.shared.reference import is_set
from experiments.training.memory import training_bytes
from lightning_modules.base import Method
from lightning_modules.losses.frozen import Frozen
from lightning_modules.methods import build, find_method
from lightning_modules.metrics.judge import Judge
from lightning_modules.networks.ops import count_parameters

GIB = 2**30
SCORES_OFF: dict[str, Any] = {"lpips": "off", "fid": "off", "scorer": None, "identity": "off"}


class Missing:
    """What a run needs and does not find.

    It is listed where `listing`; else the first that is missing ends the command, as anywhere.

    Attributes:
        words: a line about each.
        parts: names of the method's parts whose shapes are in a file that is missing.
    """

    def __init__(self, listing: bool) -> None:
        self.listing = listing
        self.words: list[str] = []
        self.parts: tuple[str, ...] = ()

    def find(self, work: Callable[[], object]) -> bool:
        """Whether `work` finds what it needs."""
        try:
            work()
        except UserError as error:
            if not self.listing:
                raise
            if str(error) not in self.words:
                self.words.append(str(error))
            return False
        return True


def build_method(config: Namespace, missing: Missing) -> Method:
    """The method that the options describe, with a stand-in for what is missing where that has its shape.

    Raises:
        UserError: a file is missing and not listed, or the options fit nothing.
    """
    cls, options = find_method(config.method), config.model.as_dict()
    try:
        return build(config.method, **options)
    except UserError as error:  # a ValueError too, which names the option itself
        if not missing.listing or not cls.shaped_by_start:
            raise
        method = cls(**cls.without_start(options))  # raises the same error where it has another cause
        missing.words.append(str(error))
        missing.parts = cls.shaped_by_start
        return method
    except ValueError as error:
        raise UserError(f"--model options: {error}") from error


def print_plan(
    config: Namespace, method: Method, data: FaceData, images: int, run: Path, missing: Missing
) -> int:
    """Print data, parameters, memory of a process that takes `images` an iteration, and all that is missing.

    Returns:
        The exit status.
    """
    batch = config.data.batch_size
    seen = f"{config.iterations * batch:,} images seen"
    print(f"{config.method}: {config.iterations:,} iterations of {batch} images = {seen}; run folder {run}")
    missing.find(partial(print_data, config, data))
    print_parameters(method, missing.parts)
    find_networks(method, missing)
    asked = config.metrics.as_dict()
    asked["also"] = list(asked["also"])
    if is_set(asked["fid_reference"]):
        asked["fid_reference"] = None  # the statistics are computed once the run begins
    judge = find_scores(method, asked, missing)
    left_out = [f"--metrics.{name}" for name, value in asked.items() if judge.options[name] != value]
    notes = [f"without {', '.join(['workspace', *left_out])}"]
    if missing.parts:
        notes.append(f"with a stand-in for {', '.join(missing.parts)}")
    if config.iterations > 0:
        print_memory(method, judge, images, config, notes)
    if not missing.words:
        return 0
    for words in missing.words:
        print(f"  missing                 {words}")
    return 2


def check_roots(config: Namespace) -> None:
    """Raise `UserError` where there is no data to train on."""
    for name in ("root", "pairs", "val_root"):
        place = config.data[name]
        if place is not None and not Path(place).expanduser().exists():
            raise UserError(f"--data.{name} {place}: no such folder or zip file")
    if config.preset == "paper" and config.data.root is None and config.data.pairs is None:
        raise UserError(
            "--preset paper trains on photographs: give --data.root DIR_OR_ZIP "
            "(FFHQ, CelebA-HQ or any folder of aligned faces), "
            "or choose --preset demo for the embedded portraits"
        )


def print_data(config: Namespace, data: FaceData) -> None:
    """What there is to train and validate on. Raises `UserError` where there is nothing."""
    check_roots(config)
    data.setup("fit")
    for key, value in data.describe().items():
        print(f"  data {key:20} {value}")
    for line in data.folders():
        print(f"  data folder               {line}")


def print_parameters(method: Method, unknown: tuple[str, ...]) -> None:
    """The parameters of every part; not of those `unknown`."""
    for part, module in method.named_children():
        if part in unknown or not count_parameters(module):
            continue
        words = f"{count_parameters(module) / 1e6:10.3f} M"
        if not any(parameter.requires_grad for parameter in module.parameters()):
            words += " (not trained)"
        print(f"  parameters {part:14} {words}")
    for part in unknown:
        print(f"  parameters {part:14}    unknown: they are those of a file that is missing")


def find_networks(method: Method, missing: Missing) -> None:
    """Build the networks of losses; note those that are missing, which have their shapes alone then."""
    for module in method.modules():
        if isinstance(module, Frozen) and not missing.find(partial(getattr, module, "network")):
            module.build_bare()


def find_scores(method: Method, options: dict[str, Any], missing: Missing) -> Judge:
    """What scores the run, without the scores whose files are missing; these are noted."""
    possible = dict(SCORES_OFF)
    for name, value in options.items():
        alone = {**SCORES_OFF, name: value}
        if name in ("also", "fid_reference"):  # which are measured in its features
            alone["fid"] = options["fid"]
        found = [missing.find(partial(Judge, **alone, scored=(kind,))) for kind in method.scored]
        if all(found):
            possible[name] = value
    return Judge(**possible, scored=method.scored)


def print_memory(method: Method, judge: Judge, images: int, config: Namespace, notes: Sequence[str]) -> None:
    """The memory that a training takes at its peak, and what it is made of."""
    need = training_bytes(method, images, judge, config.data.val_batch_size)
    parts = ", ".join(f"{name} {size / GIB:.2f}" for name, size in need._asdict().items())
    dtype = str(next(method.parameters()).dtype).removeprefix("torch.")
    notes = [f"{images} images a process in {dtype}", *notes]
    if config.trainer.precision.endswith("-mixed"):
        notes.append(f"{config.trainer.precision} takes less for activations")
    print(f"  memory at its peak      {sum(need) / GIB:.2f} GiB: {parts} ({'; '.join(notes)})")
