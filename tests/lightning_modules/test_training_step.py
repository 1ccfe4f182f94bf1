"""Training steps against those of the papers' own trainers.

Losses, gradients, weights, rates, averages and statistics, in float64.
"""

from __future__ import annotations

from collections import deque
from pathlib import Path
from typing import Any, ClassVar

import lightning as L
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_modules.base import Method
from lightning_modules.checkpoints import load_weights
from lightning_modules.e4e import E4E
from lightning_modules.gan_prior import GANPrior
from lightning_modules.gpen import GPEN
from lightning_modules.hfgi import HFGI
from lightning_modules.hinet import HINet
from lightning_modules.losses.gan import NonSaturating
from lightning_modules.losses.lpips import LPIPS
from lightning_modules.nafnet import NAFNet
from lightning_modules.pretrained import gpen, hfgi, hinet, inverters, nafnet, names
from lightning_modules.pretrained.layouts import (
    GPEN_GENERATOR,
    ROSINALITY_DISCRIMINATOR,
    ROSINALITY_GENERATOR,
)
from lightning_modules.psp import PSP
from tests.golden.check import HERE, Fixture
from tests.lightning_modules.official import Part, Parts, Run, input_noise, weights_of
from tests.lightning_modules.random_weights import publish

FIXTURES = sorted(folder.name for folder in HERE.glob("train_step_*"))


class GPENRun(Run):
    players: ClassVar = {"G": "g.", "D": "d."}

    def make(self) -> GPEN:
        g = names.from_released(self.fixture.state("g."), GPEN_GENERATOR)
        d = names.from_released(self.fixture.state("d."), ROSINALITY_DISCRIMINATOR)
        shape, d_shape = gpen.infer_network(g), names.infer_discriminator(d)
        del shape["in_size"]
        method = GPEN(
            "scratch",
            **shape,
            d_channel_base=d_shape["channel_base"],
            d_channel_max=d_shape["channel_max"],
            alpha=self.args["alpha"],
            beta=self.args["beta"],
            r1=self.args["r1"],
        )
        method.R1_EVERY = self.args["d_reg_every"]
        names.load(method.G, g, "g", optional=("w_avg",))
        names.load(method.D, d, "d")
        method.reset_ema()
        return method

    def networks(self) -> dict[str, Parts]:
        return {
            "G": [Part(self.method.G, "g.", GPEN_GENERATOR)],
            "D": [Part(self.method.D, "d.", ROSINALITY_DISCRIMINATOR)],
        }

    def averages(self) -> Parts:
        return [Part(self.method.G_ema, "g.", GPEN_GENERATOR)]

    def images(self, smooth: Tensor, index: int) -> dict[str, Tensor]:
        target = 0.5 * smooth
        return {"target": target, "input": target + 0.2 * input_noise(index, target)}

    def named(self, new: dict[str, Tensor]) -> dict[str, Tensor]:
        scores = {name: new[name] for name in ("d", "real_score", "fake_score")}
        return {**scores, "r1": self.kept["r1"] / (self.args["r1"] / 2), "g": self.losses[-1]}


class GANPriorRun(Run):
    players: ClassVar = {"G": "g.", "D": "d."}
    clean = "real"

    def make(self) -> GANPrior:
        g = names.from_released(self.fixture.state("g."), ROSINALITY_GENERATOR)
        d = names.from_released(self.fixture.state("d."), ROSINALITY_DISCRIMINATOR)
        shape = names.infer_generator(g)
        del shape["z_dim"]
        method = GANPrior(
            **shape,
            r1=self.args["r1"],
            path_length=self.args["path_regularize"],
            lr=self.args["lr"],
            ema_images=10_000 * self.args["batch"] / 32,  # the release's half-life is in batches
        )
        method.R1_EVERY, method.PATH_EVERY = self.args["d_reg_every"], self.args["g_reg_every"]
        method.PATH_SHRINK = self.args["path_batch_shrink"]
        self.running = torch.zeros(())  # mean of the path lengths
        method.D.stddev_group = self.args["stddev_group"]
        names.load(method.G, g, "g", optional=("w_avg", "noise_const"))
        names.load(method.D, d, "d")
        method.reset_ema()
        return method

    def networks(self) -> dict[str, Parts]:
        return {
            "G": [Part(self.method.G, "g.", ROSINALITY_GENERATOR)],
            "D": [Part(self.method.D, "d.", ROSINALITY_DISCRIMINATOR)],
        }

    def averages(self) -> Parts:
        return [Part(self.method.G_ema, "g.", ROSINALITY_GENERATOR)]

    def feed(self, step: dict[str, Any]) -> None:
        """All images of a pass go over to the second code at the same layer."""
        for drawn in self.draws.normal:
            if drawn.ndim == 3:  # the codes of a pass; noise has four
                count = drawn.shape[1]
                self.draws.whole.append(torch.full((count,), self.args["mixing_at"]))
                self.draws.uniform.append(torch.zeros(count))

    def named(self, new: dict[str, Tensor]) -> dict[str, Tensor]:
        fresh = {name: new[name] for name in ("d", "g", "real_score", "fake_score")}
        regularisers = {"r1": self.kept["r1"] / (self.args["r1"] / 2), "path": self.kept["path_length"]}
        running, decay = self.method.path_length.mean.clone(), self.method.path_length.decay
        if "path_length" in new:  # the fixture has the mean of this batch's lengths
            self.kept["mean_length"] = (running - (1 - decay) * self.running) / decay
            self.running = running
        return {**fresh, **regularisers, "mean_length": self.kept["mean_length"]}


class PSPRun(Run):
    players: ClassVar = {"E": "encoder."}
    clean = "batch"

    def weights(self) -> dict[str, Tensor]:
        """The file's tensors under our names."""
        parts = {f"{part}.": self.fixture.state(f"{part}.") for part in inverters.PARTS}
        state = {
            f"{part}{name}": tensor for part, tensors in parts.items() for name, tensor in tensors.items()
        }
        content = {"state_dict": state, "latent_avg": self.fixture.state()["latent_avg"]}
        return inverters.from_released(content)[0]

    def distortion(self) -> dict[str, Any]:
        """Options that psp, e4e and hfgi have in common."""
        weights = {f"lambda_{name}": self.args[name] for name in ("l2", "lpips", "id")}
        return {**weights, "features": "pretrained", "identity": "off"}

    def options(self) -> dict[str, Any]:
        rate = self.args["optimizer_E"]["lr"]
        return {"prior": "scratch", "start": "scratch", "lr": rate, **self.distortion()}

    def make(self) -> PSP:
        state = self.weights()
        method = PSP(**inverters.infer(state), **self.options())
        return self.loaded(method, state)

    def loaded(self, method: Any, state: dict[str, Tensor]) -> Any:
        inverters.load(self.released_networks(method), state)
        for module in method.modules():
            if isinstance(module, PSP | HFGI):
                module.size = self.args["size"]  # heads take smaller images than they are made for
            if isinstance(module, LPIPS):
                self.load_criterion(module.distance.network)
        return method

    def released_networks(self, method: Any) -> dict[str, Any]:
        return inverters.networks(method)

    def load_criterion(self, network: Any) -> None:
        """The heads of LPIPS, and its constants, which float32 would round; its trunk has a name."""
        for i, head in enumerate(network.lins):
            load_weights(
                head, {"model.1.weight": self.fixture.state(f"lpips.lin.{i}.1.")["weight"]}, "lpips.lin"
            )
        for name, constant in {"shift": "mean", "scale": "std"}.items():
            exact = torch.tensor(self.manifest["kept_values"][f"lpips.net.{constant}"], dtype=torch.float64)
            setattr(network.scaling_layer, name, exact.view(1, 3, 1, 1))

    def networks(self) -> dict[str, Parts]:
        return {"E": [Part(self.method.E, "encoder.")]}

    def named(self, new: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"loss": self.losses[-1], "loss_l2": new["l2"], "loss_lpips": new["lpips"]}


class Halves(NonSaturating):
    """The discriminator's loss, and what it is the sum of."""

    def d(self, real: Tensor, fake: Tensor) -> Tensor:
        self.real, self.fake = F.softplus(-real.detach()).mean(), F.softplus(fake.detach()).mean()
        return super().d(real, fake)


class E4ERun(PSPRun):
    players: ClassVar = {"E": "encoder.", "D": "discriminator."}

    def make(self) -> E4E:
        state, pool = self.weights(), self.args["pool"]
        method = E4E(
            **inverters.infer(state),
            **self.options(),
            lambda_delta=self.args["delta"],
            lambda_adv=self.args["adv"],
            pool=pool,
            r1=self.args["r1"],
            lr_d=self.args["optimizer_D"]["lr"],
        )
        load_weights(method.D, self.fixture.state("discriminator."), "discriminator")
        method.R1_EVERY, method.adversary = self.args["d_reg_every"], Halves()
        method.stage = lambda: self.step["active_offsets"]
        self.pool_draws, self.pool_size = deque(self.manifest.get("pool_draws", ())), pool
        self.pooled = {"real": 0, "fake": 0}
        return self.loaded(method, state)

    def networks(self) -> dict[str, Parts]:
        return {**super().networks(), "D": [Part(self.method.D, "discriminator.")]}

    def feed(self, step: dict[str, Any]) -> None:
        """The fixture draws code by code.

        We draw the layers of all codes at once, before the pools are asked.
        """
        if not self.pool_size:
            return
        layers, exchanges = [], []
        for kind in self.pooled:
            for _ in range(self.args["batch"]):
                if kind == "fake":
                    layers.append(self.drawn("randint", step["active_offsets"] + 1))
                if self.pooled[kind] < self.pool_size:
                    self.pooled[kind] += 1
                    continue
                u = self.drawn("uniform")
                self.draws.uniform.append(torch.tensor(1 - u))  # it exchanges above a half, we below
                if u > 0.5:
                    exchanges.append(self.drawn("randint", self.pool_size))
        self.draws.whole.append(torch.tensor(layers))
        self.draws.whole.extend(torch.tensor(k) for k in exchanges)

    def drawn(self, kind: str, of: int | None = None) -> Any:
        draw = self.pool_draws.popleft()
        assert (draw["step"], draw["kind"], draw.get("of")) == (self.step["step"], kind, of)
        return draw["value"]

    def named(self, new: dict[str, Tensor]) -> dict[str, Tensor]:
        nothing = torch.zeros(())
        return {
            **super().named(new),
            "encoder_discriminator_loss": new["adv"],
            "total_delta_loss": new.get("delta", nothing),
            "discriminator_loss": new["d"],
            "d_real_loss": self.method.adversary.real,
            "d_fake_loss": self.method.adversary.fake,
            "discriminator_r1_loss": self.args["d_reg_every"] * new.get("r1", nothing),
        }

    def finish(self) -> None:
        if self.pool_size:
            pools = {
                f"pool_{kind}": pool.codes for kind, pool in zip(self.pooled, self.method.pools, strict=True)
            }
            self.record("buffers_pools", pools, list(pools))


class HFGIRun(PSPRun):
    players: ClassVar = {"AC": ""}

    def make(self) -> HFGI:
        state = self.weights()
        shape = hfgi.infer(state)
        method = HFGI(
            **shape,
            lr=self.args["optimizer_AC"]["lr"],
            lambda_align=self.args["res"],
            **self.distortion(),
        )
        return self.loaded(method, state)

    def released_networks(self, method: Any) -> dict[str, Any]:
        method.base.join(method.base.G.layers - 1)  # all offsets, as the released code inverts
        return hfgi.networks(method)

    def networks(self) -> dict[str, Parts]:
        return {"AC": [Part(self.method.C, "residue."), Part(self.method.A, "grid_align.")]}

    def feed(self, step: dict[str, Any]) -> None:
        (warp,) = (warp for warp in self.manifest["warps"] if warp["step"] == step["step"])
        self.draws.uniform.append(torch.tensor(0.0 if warp["warped"] else 1.0))
        if warp["warped"]:
            self.draws.whole.extend(torch.tensor(warp["corners_inwards"][axis]) for axis in "xy")

    def named(self, new: dict[str, Tensor]) -> dict[str, Tensor]:
        return {**super().named(new), "loss_res": new["align"]}

    def finish(self) -> None:
        self.record("buffers_running", weights_of(self.parts["AC"]), self.manifest["buffers"])


class NAFNetRun(Run):
    players: ClassVar = {"N": ""}

    def make(self) -> Any:
        state, train = self.fixture.state(), self.args["train"]
        method = self.restorer(state, train)
        load_weights(method.net, state, "the filled weights")
        method.total_iterations = train["scheduler"]["T_max"]
        return method

    def restorer(self, state: dict[str, Tensor], train: dict[str, Any]) -> Any:
        window = self.args["network"].get("train_size")  # of NAFNetLocal
        size = self.args["size"] if window is None else window[-1]
        rates = {"lr": train["optim_g"]["lr"], "weight_decay": train["optim_g"]["weight_decay"]}
        method = NAFNet(size=size, tlc=window is not None, **nafnet.infer(state), **rates)
        method.BETAS = tuple(train["optim_g"]["betas"])
        method.LR_END = train["scheduler"]["eta_min"]
        return method

    def networks(self) -> dict[str, Parts]:
        return {"N": [Part(self.method.net)]}

    def images(self, smooth: Tensor, index: int) -> dict[str, Tensor]:
        target = (0.5 + 0.2 * smooth).clamp(0, 1)
        return {"target": target, "input": (target + 0.1 * input_noise(index, target)).clamp(0, 1)}

    def batch(self, images: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: 2 * image - 1 for name, image in images.items()}

    def on_after_backward(self, trainer: L.Trainer, pl_module: Method) -> None:
        gradients = [parameter.grad.norm() for parameter in pl_module.net.parameters()]
        self.unclipped.append(torch.stack(gradients).norm())

    def named(self, new: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"l_pix": self.losses[-1]}

    def finish(self) -> None:
        self.outputs["unclipped_norm"] = torch.stack(self.unclipped)


class HINetRun(NAFNetRun):
    empty_groups = True

    def restorer(self, state: dict[str, Tensor], train: dict[str, Any]) -> HINet:
        pixels = train["pixel_opt"]
        method = HINet(
            size=self.args["size"],
            **hinet.infer(state),
            loss={"PSNRLoss": "psnr", "L1Loss": "l1"}[pixels["type"]],
            lr=train["optim_g"]["lr"],
            lr_end=train["scheduler"]["eta_min"],
            warm_up=max(0, train["warmup_iter"]),
            beta2=train["optim_g"]["betas"][1],
        )
        method.weight = pixels["loss_weight"]
        return method


RUNS: dict[str, type[Run]] = {
    "e4e": E4ERun,
    "gan_prior": GANPriorRun,
    "gpen": GPENRun,
    "hfgi": HFGIRun,
    "hinet": HINetRun,
    "nafnet": NAFNetRun,
    "psp": PSPRun,
}


def run_of(fixture: Fixture) -> Run:
    """A fixture's folder begins with the method."""
    (kind,) = (run for name, run in RUNS.items() if fixture.name.startswith(f"train_step_{name}"))
    return kind(fixture)


@pytest.mark.parametrize("name", FIXTURES)
def test_the_official_training_steps(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fixture = Fixture(name)
    if trunk := fixture.state("lpips.net.layers."):
        publish(
            monkeypatch, tmp_path, "lpips/alex", {f"features.{key}": tensor for key, tensor in trunk.items()}
        )
    run = run_of(fixture)
    run.train()
    assert run.events == [(event["step"], event["optimizer"]) for event in fixture.manifest["events"]]
    fixture.check(run.outputs)


@pytest.mark.parametrize("name", [name for name in FIXTURES if "schedules" in Fixture(name).manifest])
def test_the_official_schedules(name: str) -> None:
    """Rates that the release's own scheduler gave at some iterations of the published lengths."""
    fixture = Fixture(name)
    method = run_of(fixture).method
    for schedule in fixture.manifest["schedules"].values():
        method.total_iterations, method.LR_END = schedule["T_max"], schedule["eta_min"]
        method.hparams.update(
            lr=schedule["lr"], lr_end=schedule["eta_min"], warm_up=max(0, schedule["warmup_iter"])
        )
        for method.iteration, rate in zip(schedule["iterations"], schedule["rates"], strict=True):
            assert schedule["lr"] * method.lr_factor() == pytest.approx(rate, rel=1e-6), method.iteration
