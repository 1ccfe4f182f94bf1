"""Tiny methods and their training steps, by hand or through a Trainer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import lightning as L
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from callbacks.ema import EMA
from datamodules import portraits
from experiments.shared.recipes import recipe
from lightning_modules.base import Method
from lightning_modules.methods import METHODS, find_method
from lightning_modules.networks.augment import AdaptiveAugment

SIZE = 32
STYLEGAN = {"size": SIZE, "channel_base": 128, "channel_max": 8, "style_dim": 16, "mapping_layers": 2}
GENERATOR = {
    "generator_size": SIZE,
    "channel_base": 128,
    "channel_max": 8,
    "style_dim": 16,
    "mapping_layers": 2,
}
ENCODER = {
    "size": SIZE,
    "encoder_width": 48,
    "encoder_blocks": (1, 1, 1, 1),
    "prior": "scratch",
    "start": "scratch",
}
PRIOR = {"method": "gan_prior", "hyper_parameters": STYLEGAN}
STANDINS = {"features": "random", "identity": "random"}
# of eyes, nose and mouth in an aligned face, as shares of its side
FACE = [[0.38, 0.47], [0.62, 0.47], [0.5, 0.61], [0.39, 0.73], [0.61, 0.73]]
# Constructor options with which a step takes a fraction of a second
SMALLER: dict[str, dict[str, Any]] = {
    "bdinvert": {
        "size": SIZE,
        "prior": PRIOR,
        "base_size": 8,
        "encoder_width": 4,
        "steps": 2,
        "val_steps": 1,
        "pnorm_samples": 1_000,
        "features": "random",
    },
    "e4e": {**GENERATOR, **ENCODER, **STANDINS, "pool": 50, "delta_from": 0.0, "delta_every": 0.0},
    "gan_prior": {**STYLEGAN, "augment": "ada"},
    "gan_prior_restoration": {
        **STYLEGAN,
        "regressor": "identity",
        "prior": "scratch",
        "encoder_width": 4,
        "features": "random",
    },
    "gfpgan": {
        **STYLEGAN,
        **STANDINS,
        "prior": "scratch",
        "freeze_prior": False,
        "component_width": 4,
        "pyramid_until": 1.0,
    },
    "gpen": {**STYLEGAN, "prior": "scratch"},
    "hfgi": {
        "size": SIZE,
        "width": 4,
        "warp": 0.0,
        **STANDINS,
        "base": {"method": "e4e", "hyper_parameters": {**GENERATOR, **ENCODER}},
    },
    "hfgi_sf": {
        "size": SIZE,
        "features": "random",
        "hfgi": {
            "method": "hfgi",
            "hyper_parameters": {
                "size": SIZE,
                "width": 4,
                "base": {"method": "e4e", "hyper_parameters": {**GENERATOR, **ENCODER}},
            },
        },
        "parser": {
            "method": "parser",
            "hyper_parameters": {"size": SIZE, "seen_at": SIZE, "width": 4, "start": "scratch"},
        },
    },
    "hinet": {"size": SIZE, "wf": 4, "depth": 3, "hin": (1, 2)},
    "i2s": {"size": SIZE, "prior": PRIOR, "steps": 2, "features": "random"},
    "idinvert": {
        "size": SIZE,
        "prior": PRIOR,
        "encoder_width": 4,
        "encoder_width_max": 8,
        "features": "random",
        "steps": 2,
    },
    "ii2s": {"size": SIZE, "prior": PRIOR, "steps": 2, "pnorm_samples": 1_000, "features": "random"},
    "nafnet": {"size": SIZE, "width": 4, "encoder_blocks": (1, 2), "decoder_blocks": (1, 1)},
    "parser": {"size": SIZE, "seen_at": 64, "width": 4, "start": "scratch"},
    "psp": {**GENERATOR, **ENCODER, **STANDINS},
    "pti": {"size": SIZE, "prior": PRIOR, "pivot_steps": 2, "steps": 2, "features": "random"},
    "scorer": {"size": SIZE, "width": 8, "embedding": 16},
    "stylefusion": {
        "size": SIZE,
        "features": "random",
        "prior": {"method": "gan_prior", "hyper_parameters": STYLEGAN},
        "parser": {
            "method": "parser",
            "hyper_parameters": {"size": SIZE, "seen_at": SIZE, "width": 4, "start": "scratch"},
        },
    },
}


def smoke(name: str) -> dict[str, Any]:
    """Constructor options of a method's recipe at the smoke preset."""
    options = recipe(name, "smoke")
    return {key.removeprefix("model."): value for key, value in options.items() if key.startswith("model.")}


# Of the others `fit --iterations 0` writes a checkpoint
TRAINED = [name for name in METHODS if recipe(name, "smoke")["iterations"] > 0]
TINY = {name: SMALLER[name] if name in SMALLER else smoke(name) for name in METHODS}


def tiny(name: str, **options: Any) -> Method:
    """A small method with seeded weights, with `options` over TINY's.

    Augmentation, which begins with none, is under way.
    """
    torch.manual_seed(0)
    method = find_method(name)(**{**TINY[name], **options})
    method.total_iterations = 100
    for module in method.modules():
        if isinstance(module, AdaptiveAugment):
            module.load_state_dict({**module.state_dict(), "p": torch.tensor(0.5)})
    return method


def batch_of(count: int, size: int, seed: int = 0) -> dict[str, Any]:
    """A batch of smooth random images with noisy inputs, with the attributes of as many portraits.

    Their landmarks are where faces have them, about.
    """
    generator = torch.Generator().manual_seed(seed)
    small = torch.rand(count, 3, 4, 4, generator=generator) * 2 - 1
    target = torch.nn.functional.interpolate(small, size=size, mode="bilinear")
    noise = 0.3 * torch.randn(target.shape, generator=generator)
    parameters = portraits.sample_parameters(seed, range(count))
    places = torch.tensor(FACE) + 0.02 * torch.randn(count, 5, 2, generator=generator)
    return {
        "target": target,
        "input": target + noise,
        "index": torch.arange(count),
        "name": [f"image-{index}" for index in range(count)],
        "landmarks": size * places,
        "mask": portraits.render(parameters, 2 * size)["mask"][:, ::2, ::2],
        "attributes": torch.stack([parameters[name] for name in portraits.ATTRIBUTES], dim=1),
        "code": portraits.sample_codes(seed, range(count)),
    }


def loop(
    method: Method,
    batch: dict[str, Any],
    iterations: int,
    spy: Callable[[torch.optim.Optimizer, Tensor], None] | None = None,
) -> None:
    """`iterations` training steps on one batch.

    `spy` sees every (optimizer, loss) that is descended along.
    """
    if not hasattr(method, "_plain_optimizers"):
        method._plain_optimizers = method.configure_optimizers()
    optimizers = method._plain_optimizers
    method.optimizers = lambda: optimizers if len(optimizers) > 1 else optimizers[0]  # as Lightning does
    method.manual_backward = lambda loss: loss.backward()
    method._trainer = SimpleNamespace(world_size=1, global_rank=0, optimizers=optimizers)
    descend = Method.descend

    def spied(optimizer, loss):
        if spy is not None:
            spy(optimizer, loss)
        descend(method, optimizer, loss)

    method.descend = spied
    if "initial_lr" not in optimizers[0].param_groups[0]:
        method.on_train_start()
    for index in range(iterations):
        method.on_train_batch_start(batch, index)
        method.training_step(batch, index)


def fit(
    method: Method,
    batches: Sequence[dict[str, Any]],
    *,
    processes: int = 1,
    precision: Literal["32-true", "64-true"] = "32-true",
    resume: Path | None = None,
    spies: Sequence[L.Callback] = (),
) -> L.Trainer:
    """One training iteration per batch, as in a run.

    With several processes in each of them, on its own batches.
    """
    trainer = L.Trainer(
        accelerator="cpu",
        devices=processes,
        precision=precision,
        strategy=method.strategy if processes > 1 else "auto",
        callbacks=[EMA(), *spies],
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    trainer.fit(method, DataLoader(batches, batch_size=None), ckpt_path=resume, weights_only=True)
    return trainer
