"""python -m experiments.fit, called in-process with the smoke preset."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image

from _runtime import UserError
from callbacks.guards import Guards
from callbacks.logs import Logs
from experiments.fit import main
from lightning_modules.base import Restorer
from lightning_modules.checkpoints import read_checkpoint
from lightning_modules.gpen import GPEN
from lightning_modules.methods import find_method, load_method
from tests.lightning_modules.steps import TRAINED

ROOT = Path(__file__).parents[2]


def smoke(method: str, run, *more: str) -> int:
    return main(["--method", method, "--preset", "smoke", "--run", str(run), *more])


def rows(run) -> list[dict[str, str]]:
    with open(run / "metrics.csv", newline="") as file:
        return list(csv.DictReader(file))


def column(run, name: str) -> list[float]:
    return [float(row[name]) for row in rows(run) if row.get(name)]


@pytest.mark.parametrize("name", TRAINED)
def test_smoke_leaves_a_complete_run_folder(name: str, tmp_path) -> None:
    run = tmp_path / "run"
    assert smoke(name, run) == 0
    method, checkpoint = load_method(run / "checkpoints" / "last.ckpt")
    assert type(method) is find_method(name)
    assert checkpoint["suite"]["iteration"] == method.iteration == 4
    assert method.images_seen == 16
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["method"] == name
    assert config["model"]["size"] == config["data"]["size"] == 32
    assert sorted({int(row["iteration"]) for row in rows(run)}) == [1, 2, 3, 4]
    assert column(run, "train/images_seen") == [4, 8, 12, 16]
    assert Image.open(run / "curves.png").width > 300
    assert Image.open(run / "pictures" / "0000004.png").width > 300
    assert not any(key.startswith(("psnr", "ssim")) for key in checkpoint["state_dict"])
    result = json.loads((run / "validation.json").read_text())
    assert result["iteration"] == 4
    assert result["protocol"]["val"] == 6  # a number that no batch size here divides
    for score in (name for name in result if name.startswith("val/")):
        assert result[score] == pytest.approx(column(run, score)[-1])
    if method.monitor:
        best = read_checkpoint(run / "checkpoints" / "best.ckpt")
        assert best["suite"]["iteration"] in (2, 4)
        assert method.monitor[0] in result
    if "pairs" in method.scored:
        assert {"val/psnr", "val/ssim", "val/lpips_random"} <= set(result)
        assert isinstance(method, Restorer) == (
            {"val/psnr_input", "val/ssim_input", "val/improved"} <= set(result)
        )
        with open(run / "validation.csv", newline="") as file:
            per_image = [float(row["psnr"]) for row in csv.DictReader(file)]
        assert len(per_image) == 6
        assert sum(per_image) / 6 == pytest.approx(result["val/psnr"], abs=1e-5)
    if "inversion" in method.scored:
        assert {"val/mse", "val/id_random"} <= set(result)
    if "sets" in method.scored:
        assert "val/fid_random" in result


def test_gpen_learns(tmp_path) -> None:
    plain = ["--model.adversarial_from", "1", "--model.lr_ratio", "[1, 1, 1]", "--data.portraits", "4"]
    smoke("gpen", tmp_path / "run", "--iterations", "60", "--validate_every", "60", *plain)
    l1 = column(tmp_path / "run", "train/l1")
    assert sum(l1[-5:]) < 0.7 * sum(l1[:5])


def test_gan_prior_discriminator_learns(tmp_path) -> None:
    smoke(
        "gan_prior",
        tmp_path / "run",
        "--iterations",
        "40",
        "--model.r1",
        "0",
        "--model.augment",
        "off",
        "--validate_every",
        "40",
    )
    d = column(tmp_path / "run", "train/d")
    assert sum(d[-5:]) < 0.8 * sum(d[:5])


@pytest.mark.parametrize("name", TRAINED)
def test_interrupted_run_resumes_to_the_same_weights(name: str, tmp_path, monkeypatch) -> None:
    options = ["--iterations", "6", "--validate_every", "3", "--save_every", "100"]
    smoke(name, tmp_path / "whole", *options)

    ended = Logs.on_train_batch_end

    def interrupt(self, trainer, pl_module, *args):
        ended(self, trainer, pl_module, *args)
        if pl_module.iteration == 4:
            os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    with monkeypatch.context() as patch:
        patch.setattr(Logs, "on_train_batch_end", interrupt)
        status = smoke(name, tmp_path / "parts", *options)
    assert status == 128 + signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) == before
    stopped_at = read_checkpoint(tmp_path / "parts/checkpoints/last.ckpt")["suite"]["iteration"]
    assert stopped_at in (
        4,
        5,
    )  # the signal may be seen by the callbacks of its own iteration or by the next one's
    assert smoke(name, tmp_path / "parts", *options, "--resume", "auto") == 0

    whole, parts = (read_checkpoint(tmp_path / part / "checkpoints/last.ckpt") for part in ("whole", "parts"))
    assert parts["suite"] == whole["suite"]
    for key, value in whole["state_dict"].items():
        assert torch.equal(value, parts["state_dict"][key]), key
    measured = [
        {k: v for k, v in row.items() if not k.startswith("perf/")} for row in rows(tmp_path / "whole")
    ]
    assert measured == [
        {k: v for k, v in row.items() if not k.startswith("perf/")} for row in rows(tmp_path / "parts")
    ]


def test_stop_between_an_iteration_and_its_validation(tmp_path, monkeypatch) -> None:
    options = ["--iterations", "4", "--validate_every", "2", "--save_every", "100"]
    smoke("gpen", tmp_path / "whole", *options)
    ended = Guards.on_train_batch_end

    def interrupt(self, trainer, pl_module, *args):
        if pl_module.iteration == 2:
            self.signal = signal.SIGTERM
        ended(self, trainer, pl_module, *args)

    with monkeypatch.context() as patch:
        patch.setattr(Guards, "on_train_batch_end", interrupt)
        smoke("gpen", tmp_path / "parts", *options)
    assert column(tmp_path / "parts", "val/psnr") == []  # who sends a signal does not wait
    smoke("gpen", tmp_path / "parts", *options, "--resume", "auto")
    assert len(column(tmp_path / "parts", "val/psnr")) == 2
    assert column(tmp_path / "parts", "val/psnr") == column(tmp_path / "whole", "val/psnr")


def test_resume_with_another_rate_uses_it(tmp_path) -> None:
    smoke("gpen", tmp_path / "run", "--iterations", "1")
    smoke("gpen", tmp_path / "run", "--iterations", "2", "--resume", "auto", "--model.lr", "1e-5")
    assert (
        yaml.safe_load((tmp_path / "run/config.yaml").read_text())["model"]["lr"] == 2e-3
    )  # as the run began
    assert column(tmp_path / "run", "train/lr") == [2e-3, 1e-5]


def test_resume_refuses_what_would_not_continue(tmp_path) -> None:
    smoke("gpen", tmp_path / "run", "--iterations", "1")
    for option, message in (
        (["--data.batch_size", "2"], "--data.batch_size 4"),
        (["--model.freeze_prior"], "other parts of the method"),
    ):
        with pytest.raises(UserError, match=message):
            smoke("gpen", tmp_path / "run", "--iterations", "2", "--resume", "auto", *option)


def test_weights_that_are_no_numbers_are_not_saved(tmp_path, monkeypatch) -> None:
    run = tmp_path / "run"
    smoke("gpen", run, "--iterations", "1")
    good = (run / "checkpoints/last.ckpt").read_bytes()
    step = GPEN.training_step

    def poison(self, batch, batch_idx):
        step(self, batch, batch_idx)
        next(self.G.parameters()).data[0] = float("nan")

    monkeypatch.setattr(GPEN, "training_step", poison)
    with pytest.raises(UserError, match="weights became infinite or NaN"):
        smoke(
            "gpen",
            run,
            "--iterations",
            "2",
            "--resume",
            "auto",
            "--validate_every",
            "100",
            "--save_every",
            "100",
        )
    assert (run / "checkpoints/last.ckpt").read_bytes() == good


def test_finished_run_has_nothing_to_resume(tmp_path, capsys) -> None:
    smoke("gpen", tmp_path / "run", "--iterations", "1")
    assert smoke("gpen", tmp_path / "run", "--iterations", "1", "--resume", "auto") == 0
    assert "nothing left to train" in capsys.readouterr().out


def test_prior_to_gpen(tmp_path) -> None:
    smoke("gan_prior", tmp_path / "prior", "--model.noise", "concat", "--iterations", "2")
    prior = tmp_path / "prior/checkpoints/last.ckpt"
    smoke("gpen", tmp_path / "gpen", "--model.prior", str(prior), "--model.freeze_prior", "--iterations", "2")
    start, end = (
        read_checkpoint(path)["state_dict"] for path in (prior, tmp_path / "gpen/checkpoints/last.ckpt")
    )
    names = [name for name in start if name.startswith("G_ema.")]
    assert names
    for name in names:  # ablation [b]: the prior is what it was
        assert torch.equal(start[name], end[name.replace("G_ema.", "G.prior.")]), name
    (tmp_path / "prior").rename(tmp_path / "moved")
    load_method(tmp_path / "gpen/checkpoints/last.ckpt")  # the file alone is enough, the prior is in it


def test_init_from(tmp_path) -> None:
    smoke("gpen", tmp_path / "first", "--iterations", "1")
    first = tmp_path / "first/checkpoints/last.ckpt"
    smoke(
        "gpen",
        tmp_path / "second",
        "--iterations",
        "1",
        "--init_from",
        str(first),
        "--model.lr",
        "1e-30",
        "--model.beta1",
        "0.9",
    )
    a, b = (read_checkpoint(path) for path in (first, tmp_path / "second/checkpoints/last.ckpt"))
    assert b["suite"]["iteration"] == 1
    assert torch.allclose(
        a["state_dict"]["G.encoder.stages.0.weight"], b["state_dict"]["G.encoder.stages.0.weight"], atol=1e-6
    )


def test_saved_configuration_repeats_the_run(tmp_path) -> None:
    smoke("gpen", tmp_path / "a", "--iterations", "2", "--model.beta", "0.5")
    main(["--config", str(tmp_path / "a/config.yaml"), "--run", str(tmp_path / "b")])
    assert (tmp_path / "a/config.yaml").read_text() == (tmp_path / "b/config.yaml").read_text()
    a, b = (read_checkpoint(tmp_path / run / "checkpoints/last.ckpt") for run in "ab")
    assert all(torch.equal(value, b["state_dict"][key]) for key, value in a["state_dict"].items())


def test_another_seed_is_another_run_on_the_same_held_out_images(tmp_path) -> None:
    smoke("gpen", tmp_path / "a", "--iterations", "2")
    smoke("gpen", tmp_path / "b", "--iterations", "2", "--seed", "1")
    a, b = (json.loads((tmp_path / run / "validation.json").read_text()) for run in "ab")
    assert a["val/psnr_input"] == b["val/psnr_input"]
    assert a["val/psnr"] != b["val/psnr"]


def test_photographs(tmp_path, draw_faces, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = draw_faces(tmp_path / "faces", 14)
    (folder / "broken.png").write_bytes((folder / "003.png").read_bytes()[:200])
    assert (
        main(["--method", "gpen", "--preset", "smoke", "--data.root", str(folder), "--data.val_images", "4"])
        == 0
    )
    assert (tmp_path / "runs/faces-gpen-paper/gpen-smoke/checkpoints/best.ckpt").exists()


def test_dry_run_says_what_would_happen_and_writes_nothing(tmp_path, capsys) -> None:
    assert smoke("gpen", tmp_path / "run", "--dry_run") == 0
    said = capsys.readouterr().out
    for words in (
        "train                64",
        "val                  6",
        "parameters G ",
        "parameters D ",
        "GiB",
        "16 images seen",
    ):
        assert words in said
    assert smoke("gan_prior", tmp_path / "run", "--dry_run") == 0
    assert "GiB" in capsys.readouterr().out
    assert not (tmp_path / "run").exists()


def test_print_config_and_help(capsys) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--method", "gpen", "--preset", "smoke", "--model.lr=1e-3", "--print_config"])
    printed = yaml.safe_load(capsys.readouterr().out)
    assert printed["model"]["lr"] == 1e-3
    assert printed["model"]["prior"] == "scratch"
    with pytest.raises(SystemExit, match="0"):
        main(["--method", "gpen", "--help"])
    assert "--model.freeze_prior" in capsys.readouterr().out
    assert main(["--help"]) == 0
    assert "gan_prior, " in capsys.readouterr().out


def test_default_preset_follows_the_data_root(tmp_path, draw_faces, capsys) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--method", "gpen", "--print_config"])
    assert yaml.safe_load(capsys.readouterr().out)["preset"] == "demo"
    with pytest.raises(SystemExit, match="0"):
        main(["--method", "gpen", "--data.root", str(tmp_path), "--print_config"])
    printed = yaml.safe_load(capsys.readouterr().out)
    assert printed["preset"] == "paper"
    assert printed["model"]["size"] == 512
    assert printed["model"]["alpha"] == 1.0
    assert printed["model"]["beta"] == 0.02
    assert printed["model"]["lr"] == 2e-3
    assert printed["model"]["lr_ratio"] == [100, 10, 1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--method is missing: choose one of bdinvert, e4e, .*gpen"),
        (["--method", "gpenn"], "unknown method 'gpenn': did you mean 'gpen'"),
        (["--method", "gpen", "--preset", "dmo"], "unknown preset 'dmo': did you mean 'demo'"),
        (["--method", "gpen", "--model.lrr", "1"], "unknown option --model.lrr: did you mean '--model.lr'"),
        (
            ["--method", "gpen", "--data.batchsize=1"],
            "unknown option --data.batchsize: did you mean '--data.batch_size'",
        ),
        (["--method", "gpen", "--overwrit"], "unknown option --overwrit: did you mean '--overwrite'"),
        (
            ["--method", "gpen", "--trainer.max_steps", "9"],
            "--trainer.max_steps is not offered.*--iterations",
        ),
        (["--method", "gpen", "--model.size", "x"], "model.size"),
        (["--method", "gpen", "--model.size", "128"], "--data.size 64 and --model.size 128 differ"),
        (["--method", "gpen", "--iterations", "-1"], "--iterations must be at least 0"),
        (["--method", "gpen", "--preset", "paper"], "--data.root DIR_OR_ZIP"),
        (["--method", "gpen", "--data.root", "no/such/folder"], "no/such/folder: no such folder"),
        (["--method", "gpen", "--data.degradation", "gpen-papr"], "did you mean '?gpen-paper"),
        (["--method", "gpen", "--preset", "small"], "gan_prior.*--model.prior scratch"),
        (["--method", "gpen", "--model.prior", "no.ckpt"], "no.ckpt does not exist"),
        (["--method", "gpen", "--resume", "no.ckpt"], "no.ckpt does not exist"),
        (["--method", "gpen", "--resume", "auto", "--overwrite"], "exclude each other"),
        (["--method", "gpen", "--trainer.limit_val_batches", "2"], "--data.val_images"),
        (["--method", "gpen", "--data.degradation", "none"], "leaves gpen nothing to restore"),
        (["--method", "gpen", "--data.size", "100", "--model.size", "100"], "power of two"),
        (["--method", "gpen", "--model.channel_base", "16"], "leave no channel at 64 px"),
        (["--method", "gpen", "--seed", "-1"], "--seed must be from 0"),
        (["--method", "gpen", "--trainer.accelerator", "tpu"], "--trainer options: .*torch_xla"),
        (["--method", "gan_prior", "--data.batch_size", "6"], "multiple of 4"),
        (
            [
                "--method",
                "gpen",
                "--trainer.devices",
                "3",
                "--trainer.accelerator",
                "cpu",
                "--data.batch_size",
                "4",
            ],
            "does not divide by 3",
        ),
        (["--method", "gpen", "--config", "no.yaml"], "no.yaml cannot be read"),
    ],
)
def test_refusals_are_one_line(arguments: list[str], message: str, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message) as error:
        main(arguments)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("option", ["root", "pairs", "val_root"])
def test_a_run_among_its_images_is_refused(option: str, tmp_path: Path) -> None:
    """The next one would take its pictures for faces."""
    with pytest.raises(UserError, match=rf"--run .*run lies inside --data\.{option} .*give a place outside"):
        smoke("nafnet", tmp_path / "faces/run", f"--data.{option}", str(tmp_path / "faces"))
    assert not (tmp_path / "faces/run").exists()


def test_unknown_key_in_a_configuration_file(tmp_path) -> None:
    (tmp_path / "my.yaml").write_text("model: {lrr: 0.1}\n")
    with pytest.raises(UserError, match="lrr"):
        main(["--method", "gpen", "--config", str(tmp_path / "my.yaml")])


def test_existing_run_is_not_touched_unless_asked(tmp_path) -> None:
    run = tmp_path / "run"
    smoke("gpen", run, "--iterations", "1")
    (run / "notes.txt").write_text("mine")
    before = (run / "checkpoints/last.ckpt").read_bytes()
    with pytest.raises(UserError, match="--resume auto.*--overwrite"):
        smoke("gpen", run, "--iterations", "1")
    assert (run / "checkpoints/last.ckpt").read_bytes() == before
    assert smoke("gpen", run, "--iterations", "2", "--overwrite") == 0
    assert (run / "notes.txt").read_text() == "mine"
    assert read_checkpoint(run / "checkpoints/last.ckpt")["suite"]["iteration"] == 2


def test_checkpoints_of_another_method_or_size(tmp_path) -> None:
    smoke("gan_prior", tmp_path / "prior", "--iterations", "1")  # additive noise
    prior = str(tmp_path / "prior/checkpoints/last.ckpt")
    with pytest.raises(UserError, match="is a checkpoint of gan_prior, this run trains gpen"):
        smoke("gpen", tmp_path / "run", "--resume", prior)
    with pytest.raises(UserError, match="has noise add, this run none: set --model.noise add"):
        smoke("gpen", tmp_path / "run", "--model.prior", prior, "--model.noise", "none")
    with pytest.raises(UserError, match="networks of another size or kind: give --model.channel_max 32$"):
        smoke("gan_prior", tmp_path / "run", "--init_from", prior, "--model.channel_max", "16")
    assert not (tmp_path / "run").exists()


def test_infinite_loss_stops_the_run_and_keeps_the_last_good_checkpoint(tmp_path) -> None:
    run = tmp_path / "run"
    smoke("gpen", run, "--iterations", "2")
    good = (run / "checkpoints/last.ckpt").read_bytes()
    with pytest.raises(UserError, match="infinite or NaN at iteration"):
        smoke("gpen", run, "--resume", "auto", "--iterations", "50", "--model.alpha", "1e39")
    assert (run / "checkpoints/last.ckpt").read_bytes() == good
    assert all(
        value.isfinite().all()
        for value in read_checkpoint(run / "checkpoints/last.ckpt")["state_dict"].values()
    )


def test_full_disk_is_one_line(tmp_path, monkeypatch) -> None:
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    run = tmp_path / "run"
    smoke("gpen", run, "--iterations", "2")
    good = (run / "checkpoints/last.ckpt").read_bytes()
    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(
        UserError, match=r"last\.ckpt could not be written: No space left on device; the previous one is kept"
    ):
        smoke("gpen", run, "--resume", "auto", "--validate_every", "100")
    assert (run / "checkpoints/last.ckpt").read_bytes() == good


@pytest.mark.processes
def test_several_processes_score_what_one_does(tmp_path) -> None:
    options = [
        "--method",
        "gpen",
        "--preset",
        "smoke",
        "--iterations",
        "1",
        "--data.val_images",
        "7",
        "--data.batch_size",
        "6",
    ]
    # how batches are cut matters to the discriminator's statistics, and to an image's last bit, which can
    # become a grey level
    options += ["--trainer.accelerator", "cpu", "--model.lr", "1e-30", "--data.val_batch_size", "1"]
    main([*options, "--run", str(tmp_path / "1")])
    one = json.loads((tmp_path / "1/validation.json").read_text())
    for world in (2, 3):
        command = [
            sys.executable,
            "-m",
            "experiments.fit",
            *options,
            "--run",
            str(tmp_path / str(world)),
            "--trainer.devices",
            str(world),
        ]
        subprocess.run(command, check=True, timeout=300, cwd=ROOT)
        several = json.loads((tmp_path / str(world) / "validation.json").read_text())
        assert several["images_seen"] == one["images_seen"] == 6
        scores = [name for name in one if name.startswith("val/")]
        assert {
            "val/psnr",
            "val/ssim_input",
            "val/lpips_random",
            "val/fid_random",
            "val/fid_random_input",
        } <= set(scores)
        for name in scores:
            tolerance = {"rel": 1e-4} if "fid" in name else {"abs": 1e-6}
            assert several[name] == pytest.approx(one[name], **tolerance), (world, name)
        with open(tmp_path / str(world) / "validation.csv", newline="") as file:
            assert [int(row["index"]) for row in csv.DictReader(file)] == list(
                range(7)
            )  # an odd set, each image once
