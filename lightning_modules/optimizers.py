"""Ranger, the optimizer of pSp and e4e; Adam for several methods, and the schedules that they share.

Source  Liu et al., "On the Variance of the Adaptive Learning Rate and Beyond", arXiv:1908.03265, algorithm 2
        (RAdam); Zhang et al., "Lookahead Optimizer", arXiv:1907.08610, algorithm 1; Yong et al., "Gradient
        Centralization", arXiv:2004.01461; put together as in omertov/encoder4editing@99ea505
        (training/ranger.py).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor


class Ranger(torch.optim.Optimizer):
    """RAdam on centred gradients, with lookahead.

    Every k-th step the weights go back to a fraction alpha of the way from the slow weights. All of the state
    is in `state_dict`, the slow weights as well. A parameter's steps count from its first gradient.

    Args:
        params, lr, betas, eps: as in Adam.
        weight_decay: decoupled, as in AdamW.
        k, alpha: of the lookahead.
    """

    THRESHOLD = 5  # length of the average of squared gradients, up to which it is too noisy to divide by

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-4,
        betas: tuple[float, float] = (0.95, 0.999),
        eps: float = 1e-5,
        weight_decay: float = 0.0,
        k: int = 6,
        alpha: float = 0.5,
    ) -> None:
        options = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "k": k, "alpha": alpha}
        super().__init__(params, options)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Move every parameter that has a gradient; -> what the closure returns."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    self._update(p, group)
        return loss

    def _update(self, p: Tensor, group: dict[str, Any]) -> None:
        """One step of a parameter, in the symbols of the papers."""
        assert p.grad is not None
        state, g = self.state[p], p.grad
        if not state:
            state["step"] = torch.zeros(())  # on the CPU, where reading it waits for nothing
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(p), torch.zeros_like(p)
            state["slow"] = p.clone()
        if g.ndim > 1:
            g = g - g.mean(dim=tuple(range(1, g.ndim)), keepdim=True)
        state["step"] += 1
        t, (beta1, beta2) = int(state["step"]), group["betas"]
        m = state["exp_avg"].lerp_(g, 1 - beta1)
        v = state["exp_avg_sq"].mul_(beta2).addcmul_(g, g, value=1 - beta2)

        rate = group["lr"] / (1 - beta1**t)
        rho_inf = 2 / (1 - beta2) - 1
        rho = rho_inf - 2 * t * beta2**t / (1 - beta2**t)
        if rho > self.THRESHOLD:
            rectified = (rho - 4) / (rho_inf - 4) * (rho - 2) / (rho_inf - 2) * rho_inf / rho
            rate *= math.sqrt((1 - beta2**t) * rectified)
            direction = m / (v.sqrt() + group["eps"])
        else:
            direction = m
        p.mul_(1 - group["lr"] * group["weight_decay"])
        p.add_(direction, alpha=-rate)
        if t % group["k"] == 0:
            p.copy_(state["slow"].lerp_(p, group["alpha"]))


def adam(
    params: Iterable[Any], kind: type[torch.optim.Adam] = torch.optim.Adam, **options: Any
) -> torch.optim.Adam:
    """Adam, or AdamW as `kind`, over parameters or groups of them.

    Where they lie on a CUDA device, a step is one kernel. A state that was saved on another device loads into
    it.
    """
    optimizer = kind(params, **options)
    if _fusible(_parameters(optimizer)):
        groups = [{**group, "fused": True} for group in optimizer.param_groups]
        optimizer = kind(groups, fused=True)

    def as_built(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> dict[str, Any]:
        """Counters of steps are loaded to where `fused` says, and that is said by the groups of the state."""
        groups = []
        for saved, built in zip(state["param_groups"], optimizer.param_groups, strict=True):
            groups.append({**saved, "fused": built["fused"]})
        return {**state, "param_groups": groups}

    optimizer.register_load_state_dict_pre_hook(as_built)
    return optimizer


def _parameters(optimizer: torch.optim.Optimizer) -> Iterator[Tensor]:
    for group in optimizer.param_groups:
        yield from group["params"]


def _fusible(parameters: Iterable[Tensor]) -> bool:
    return all(parameter.device.type == "cuda" for parameter in parameters)


def clip_norm(optimizer: torch.optim.Optimizer, limit: float) -> torch.optim.Optimizer:
    """The optimizer itself, which from now on clips its gradients to a common norm before every step.

    A hook, since with float16 autocast the gradients are unscaled no earlier; a fused optimizer unscales them
    itself, even later.
    """

    def clip(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        """The hook; the limit holds for unscaled gradients, without a wait for their norm."""
        gradients = [p.grad for p in _parameters(optimizer) if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        # of the gradients, set by GradScaler for fused optimizers
        scale = getattr(optimizer, "grad_scale", None)
        if scale is not None:
            norm = norm / scale
        torch._foreach_mul_(gradients, (limit / (norm + 1e-6)).clamp(max=1.0))

    optimizer.register_step_pre_hook(clip)
    return optimizer


def linear_decay(progress: float, start: float) -> float:
    """What a rate is multiplied with: 1 up to the share `start` of a run, then falling to 0 at its end."""
    if progress <= start:
        return 1.0
    return (1 - progress) / (1 - start)


def cosine_decay(progress: float, end: float = 0.0) -> float:
    """What a rate is multiplied with: from 1 along half a cosine down to `end` at the end of a run."""
    return end + (1 - end) * (1 + math.cos(math.pi * progress)) / 2
