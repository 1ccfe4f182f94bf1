"""The running average against its formula."""

from __future__ import annotations

from types import SimpleNamespace

import torch
from torch import nn

from callbacks.ema import EMA


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2)
        self.register_buffer("counter", torch.zeros(()))


def test_parameters_are_averaged_and_buffers_copied() -> None:
    torch.manual_seed(0)
    method = SimpleNamespace(ema=("G",), G=Net(), G_ema=Net(), ema_decay=lambda: 0.9)
    expected = {name: value.clone() for name, value in method.G_ema.named_parameters()}
    for step in range(3):
        with torch.no_grad():
            method.G.counter.fill_(step)
            for parameter in method.G.parameters():
                parameter.add_(1)
        EMA().on_train_batch_end(None, method)
        for name, value in method.G.named_parameters():
            expected[name] = 0.9 * expected[name] + 0.1 * value.detach()
    for name, value in method.G_ema.named_parameters():
        assert torch.allclose(value, expected[name])
    assert method.G_ema.counter == 2
