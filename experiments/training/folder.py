"""The run folder: where it is, whether it may be written, what a resume starts from."""

from __future__ import annotations

import shutil
from pathlib import Path

from jsonargparse import Namespace

from _runtime import UserError
from experiments.shared.naming import default_run

# Options that say how a call starts, not what the run is
TRANSIENT = ("config", "run_dir", "resume", "overwrite", "dry_run", "init_from", "stop_at")
FILES = (
    *("config.yaml", "segments.jsonl", "train.log", "metrics.csv", "validation.json", "validation.csv"),
    *("curves.png", "wandb_id"),
)
FOLDERS = ("checkpoints", "pictures", "evaluation", "wandb", "tensorboard", "profile")
DEFAULT = "runs/<data>-<degradation>/<method>-<preset>[-<options that are not the recipe's>]"
RUN_DIR = f"run folder; {DEFAULT} if not given; --run for short"


def resume_path(config: Namespace, run: Path) -> Path | None:
    """The checkpoint to go on from; None starts anew, also where `auto` finds nothing yet."""
    if not config.resume:
        return None
    if config.resume != "auto":
        return Path(config.resume)
    last = run / "checkpoints" / "last.ckpt"
    return last if last.exists() else None


def other_runs(config: Namespace) -> str | None:
    """Words about runs with other options, which a `--resume auto` that starts anew may have meant.

    None where there are none.
    """
    if config.resume != "auto" or config.run_dir is not None:
        return None
    run = default_run(config)
    checkpoints = sorted(run.parent.glob(f"{config.method}-{config.preset}*/checkpoints/last.ckpt"))
    if not checkpoints:
        return None
    others = ", ".join(str(path.parents[1]) for path in checkpoints)
    return f"a new run starts in {run}; to go on with one of other options, name it with --run_dir: {others}"


def check_run(run: Path, config: Namespace) -> None:
    """Raise `UserError` where a new run would write over an earlier one."""
    if config.resume is not None or config.overwrite:
        return
    if any((run / name).exists() for name in FILES + FOLDERS):
        ways = "go on with --resume auto, start anew with --overwrite, or choose another --run_dir DIR"
        raise UserError(f"run folder {run} exists: {ways}")


def prepare_run(run: Path, config: Namespace) -> None:
    """Create the run folder, empty of what an earlier run wrote if that was asked for.

    Raises:
        UserError: it cannot be written.
    """
    try:
        if config.overwrite:
            remove_run(run)
        for name in ("checkpoints", "pictures"):
            (run / name).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"run folder {run} cannot be created: {error.strerror}") from error


def remove_run(run: Path) -> None:
    """Remove what a run wrote into its folder."""
    for name in FILES:
        (run / name).unlink(missing_ok=True)
    for path in run.glob("config-*.yaml"):
        path.unlink()
    for name in FOLDERS:
        shutil.rmtree(run / name, ignore_errors=True)
