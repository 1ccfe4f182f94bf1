"""What the types of options cannot say: which of them must agree with each other."""

from __future__ import annotations

from pathlib import Path

from jsonargparse import Namespace

from _runtime import UserError
from experiments.shared.dashboards import check_dashboards
from experiments.shared.naming import default_run
from experiments.shared.outputs import check_outside_data
from experiments.training.hardware import check_precision, check_strategy
from experiments.training.plan import check_roots
from lightning_modules.base import Inverter, Restorer
from lightning_modules.methods import find_method

LONGEST = 10**12  # iterations; counters are integers of 64 bits


def check_config(config: Namespace) -> None:
    """Raise `UserError` where options do not agree with each other."""
    method = find_method(config.method)
    if config.data.size != config.model.size:
        sizes = f"--data.size {config.data.size} and --model.size {config.model.size}"
        raise UserError(f"{sizes} differ: set both")
    check_dashboards(config)
    check_precision(config)
    check_strategy(config, method)
    if config.loss_limit != 0 and config.loss_limit <= 1:
        raise UserError(f"--loss_limit {config.loss_limit:g}: expected more than 1, or 0 for none")
    if not 0 <= config.iterations <= LONGEST:
        raise UserError(f"--iterations must be at least 0 and at most {LONGEST}, got {config.iterations}")
    for name in ("validate_every", "save_every", "log_every"):
        if config[name] < 1:
            raise UserError(f"--{name} must be at least 1, got {config[name]}")
    if config.stop_at is not None and config.stop_at < 1:
        raise UserError(f"--stop_at must be at least 1, got {config.stop_at}")
    photographs = config.data.root is not None or config.data.pairs is not None
    if method.needs_masks and photographs and config.data.masks is None:
        what = f"{config.method} learns from masks, which photographs come without"
        raise UserError(f"{what}: give --data.masks DIR_OR_ZIP, or leave out --data.root for portraits")
    if config.edits is not None:
        check_edits(config)
    if config.data.degradation == "none" and config.data.pairs is None and issubclass(method, Restorer):
        raise UserError(f"--data.degradation none leaves {config.method} nothing to restore: choose another")
    if config.resume is not None and config.overwrite:
        raise UserError("--resume and --overwrite exclude each other")
    check_outside_data(Path(config.run_dir or default_run(config)), vars(config.data), "--run")
    if not config.dry_run:  # which lists them with all else that is missing
        check_roots(config)


def check_edits(config: Namespace) -> None:
    """Raise `UserError` where a run cannot score edits."""
    if config.edits < 2:
        raise UserError(f"--edits {config.edits}: expected at least 2")
    if not issubclass(find_method(config.method), Inverter):
        raise UserError(f"--edits: {config.method} inverts nothing that could be edited; leave it out")
    photographs = config.data.root is not None or config.data.pairs is not None
    if photographs or config.metrics.scorer is None:
        why = "photographs have no truth to be compared with"
        raise UserError(f"--edits needs --metrics.scorer CKPT, and portraits: {why}")
