"""The run folder: where it is, whether it may be written, what a resume starts from."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import Namespace

from _runtime import UserError, write_text

TRANSIENT = ("config", "run", "resume", "overwrite", "dry_run", "init_from")  # say how a call starts, not what the run is
FILES = ("config.yaml", "metrics.csv", "validation.json", "validation.csv", "curves.png", "wandb_id")
FOLDERS = ("checkpoints", "pictures", "evaluation", "wandb")


def data_name(root: str | None) -> str:
    """What the data are called in folders and on dashboards."""
    return Path(root).expanduser().resolve().name.removesuffix(".zip") if root else "portraits"


def default_run(config: Namespace) -> Path:
    return Path("runs") / f"{data_name(config.data.root)}-{config.data.degradation}" / f"{config.method}-{config.preset}"


def resume_path(config: Namespace, run: Path) -> Path | None:
    """The checkpoint to go on from; None starts anew, also where `auto` finds nothing yet."""
    if config.resume == "auto":
        last = run / "checkpoints" / "last.ckpt"
        return last if last.exists() else None
    return Path(config.resume) if config.resume else None


def check_run(run: Path, config: Namespace) -> None:
    """Raise `UserError` where a new run would write over an earlier one."""
    if config.resume is None and not config.overwrite and any((run / name).exists() for name in FILES + FOLDERS):
        raise UserError(f"run folder {run} exists: go on with --resume auto, start anew with --overwrite, or choose another --run DIR")


def prepare_run(run: Path, resolved: dict[str, Any], config: Namespace) -> None:
    """Create the run folder, empty of what an earlier run wrote if that was asked for, and write the configuration into it."""
    try:
        if config.overwrite:
            for name in FILES:
                (run / name).unlink(missing_ok=True)
            for name in FOLDERS:
                shutil.rmtree(run / name, ignore_errors=True)
        for name in ("checkpoints", "pictures"):
            (run / name).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"run folder {run} cannot be created: {error.strerror}") from error
    write_text(run / "config.yaml", yaml.safe_dump(resolved, sort_keys=False))
