"""python -m experiments.demo, on tiny stand-ins for the networks that come with the suite."""

from __future__ import annotations

from itertools import repeat
from pathlib import Path

import pytest
import torch
from PIL import Image

from _runtime import UserError
from experiments.demo import baseline
from experiments.demo.__main__ import main
from experiments.demo.restoring import SMALL, TRAINED, verdict
from experiments.shared.evaluation import Evaluation
from experiments.shared.tables import Table
from lightning_modules import embedded
from lightning_modules.checkpoints import read_checkpoint
from lightning_modules.metrics.judge import Judge
from tests.experiments.standins import embed_all
from tests.lightning_modules.steps import batch_of

PICTURES = ("restored.png", "finetuned.png", "inverted.png", "edited.png")


def test_four_pictures_and_what_came_of_it(tmp_path, monkeypatch, capsys) -> None:
    (tmp_path / "embedded").mkdir()
    monkeypatch.setattr(embedded, "FOLDER", tmp_path / "embedded")
    embed_all(tmp_path, tmp_path / "embedded")
    output = tmp_path / "demo"
    capsys.readouterr()
    assert main(["--output", str(output), "--iterations", "2"]) == 0
    out = capsys.readouterr().out
    sizes = {name: Image.open(output / name).size for name in PICTURES}
    assert sizes["restored.png"][1] < sizes["finetuned.png"][1] < sizes["edited.png"][1]
    for words in (
        SMALL,
        TRAINED,
        "FID (portraits)",
        "beats",
        "inverted, PSNR of",
        "yaw by 15",
        "smile by 0.6",
    ):
        assert words in out
    trained = read_checkpoint(output / "gpen/checkpoints/last.ckpt")
    assert trained["hyper_parameters"]["prior"] == embedded.PRIOR
    assert trained["suite"]["images_seen"] == 8
    with pytest.raises(UserError, match="give --overwrite"):
        main(["--output", str(output)])


def test_a_missing_network_is_told_before_any_work(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(embedded, "FOLDER", tmp_path)
    (tmp_path / embedded.TABLE).write_text("{}")
    with pytest.raises(UserError, match="portraits/prior is not shipped with this version"):
        main(["--output", str(tmp_path / "demo")])
    assert not (tmp_path / "demo").exists()


def test_the_small_network_has_11_011_parameters_and_learns() -> None:
    torch.manual_seed(0)
    network = baseline.Convolutions(32)
    assert sum(parameter.numel() for parameter in network.parameters()) == 11_011
    batch = batch_of(4, 32)
    before = torch.nn.functional.l1_loss(network.restore(batch["input"]), batch["target"])
    baseline.train(network, repeat(batch), 20)
    assert torch.nn.functional.l1_loss(network.restore(batch["input"]), batch["target"]) < 0.8 * before


def test_the_verdict_says_where_it_is_worse() -> None:
    judge = Judge(lpips="random", fid="off", scored=("pairs",))
    rows = [
        (SMALL, {"PSNR": 25.0, "SSIM": 0.8, "LPIPS (random net)": 0.5}),
        (TRAINED, {"PSNR": 24.0, "SSIM": 0.9, "LPIPS (random net)": 0.4}),
    ]
    said = verdict(Evaluation(Table({}, rows), {}, {}, Path(), judge))
    assert said.endswith("in: SSIM, LPIPS (random net); it does not in: PSNR")
