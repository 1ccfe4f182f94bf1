"""Running averages of generator weights, one update per iteration."""

from __future__ import annotations

import lightning as L
import torch

from lightning_modules.base import Method


class EMA(L.Callback):
    """Update `<name>_ema` beside every module that a method names in `ema`.

    Parameters are averaged, buffers copied.
    """

    @torch.no_grad()
    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Method, *args: object) -> None:
        for name in pl_module.ema:
            module, average = getattr(pl_module, name), getattr(pl_module, f"{name}_ema")
            weight = 1 - pl_module.ema_decay()
            torch._foreach_lerp_(list(average.parameters()), list(module.parameters()), weight)
            for old, new in zip(average.buffers(), module.buffers(), strict=True):
                old.copy_(new)
