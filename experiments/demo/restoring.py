"""The demo's restorations: by the suite's GPEN, and by one that is trained from the suite's prior."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from callbacks.grid import save_png, tile
from datamodules.faces import FaceData
from experiments import fit
from experiments.demo.baseline import Convolutions, train
from experiments.shared.devices import compute_device, load_to_device
from experiments.shared.evaluation import Evaluation, score
from lightning_modules import embedded
from lightning_modules.base import Method, Restorer
from lightning_modules.checkpoints import read_checkpoint
from lightning_modules.gpen import SHAPE

SMALL, TRAINED, SHIPPED = "three convolutions", "GPEN trained here", "GPEN of the suite"
SHOWN = 8
MEASURED = {"lpips": "random", "fid": "off", "identity": "off", "scorer": embedded.SCORER}


def pairs(size: int) -> dict[str, Any]:
    """The options of what is restored: held-out portraits, and others to train on."""
    return {"size": size, "degradation": "x4", "batch_size": 4, "val_images": 256, "workers": 1}


def restore(path: Path) -> None:
    """Draw what the suite's GPEN makes of degraded portraits."""
    method = load_to_device(embedded.GPEN)
    assert isinstance(method, Restorer)
    batch = next(FaceData(**pairs(method.size)).batches("val", method.device))
    input = batch["input"][:SHOWN]
    with torch.no_grad():
        rows = {"degraded": input, SHIPPED: method.restore(input), "truth": batch["target"][:SHOWN]}
    save_png(path, tile(list(rows.values()), row_names=list(rows)))


def fine_tune(run: Path, iterations: int) -> Path:
    """Train GPEN from the suite's prior; returns its checkpoint."""
    prior = read_checkpoint(embedded.PRIOR)["hyper_parameters"]
    options: dict[str, Any] = {"method": "gpen", "run_dir": run, "model.prior": embedded.PRIOR}
    options |= {f"model.{name}": prior[name] for name in SHAPE}
    options |= {f"data.{name}": value for name, value in pairs(prior["size"]).items()}
    options |= {f"metrics.{name}": value for name, value in MEASURED.items()}
    options |= {"iterations": iterations, "validate_every": iterations, "save_every": iterations}
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    fit.main([*words, "--overwrite"])
    return run / "checkpoints/last.ckpt"


def compare(trained: Path, iterations: int, output: Path) -> str:
    """Score it beside a small network that sees the same pairs, and draw both; returns the table's text."""
    method = load_to_device(trained)
    size = method.size
    torch.manual_seed(0)
    small = Convolutions(size).to(compute_device())
    train(small, FaceData(**pairs(size)).batches("train", small.device), iterations)
    methods: dict[str, Method] = {SMALL: small, TRAINED: method, SHIPPED: load_to_device(embedded.GPEN)}
    files = {SMALL: "experiments.demo.baseline", TRAINED: str(trained), SHIPPED: embedded.GPEN}
    data = FaceData(**pairs(size))
    evaluation = score(files, list(methods.values()), data, MEASURED, output / "evaluation")
    shown = {"input": "degraded", SMALL: SMALL, TRAINED: TRAINED, "target": "truth"}
    rows = [evaluation.pictures[name] for name in shown]
    save_png(output / "finetuned.png", tile(rows, row_names=list(shown.values())))
    return f"{evaluation.table.text()}\n{verdict(evaluation)}"


def verdict(evaluation: Evaluation) -> str:
    """Where the GPEN that was trained here is better than the small network, and where it is not."""
    rows = dict(evaluation.table.rows)
    better: list[str] = []
    worse: list[str] = []
    for name in evaluation.judge.names:
        column = evaluation.judge.column(name)
        ours, theirs = float(rows[TRAINED][column.title]), float(rows[SMALL][column.title])
        ahead = ours > theirs if column.better == "max" else ours < theirs
        (better if ahead else worse).append(column.title)
    return (
        f"{TRAINED}, from {embedded.PRIOR}, beats {SMALL} that saw the same pairs in: "
        f"{', '.join(better) or 'nothing'}; it does not in: {', '.join(worse) or 'nothing'}"
    )
