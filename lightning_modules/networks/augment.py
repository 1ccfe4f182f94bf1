"""Adaptive discriminator augmentation: whatever the discriminator sees, real or generated, is transformed at random.

Source  Karras et al., "Training Generative Adversarial Networks with Limited Data", arXiv:2006.06676, section 3 and
        appendix B; ranges, order and adaptation law as in NVlabs/stylegan2-ada-pytorch@375a436 (training/augment.py, pipe
        `bgc`, and training/training_loop.py).
Differs One bicubic lookup per image instead of a bilinear one between 2x wavelet filters: it keeps more of the fine detail
        (94 % instead of 88 % of the energy of a 1/f image) and is exact for flips and quarter turns, but does not filter what
        shrinks. The image continues by reflection without end; the original reflects once and is black beyond.
R1      is taken with respect to the images *before* augmentation, as in the original: everything here can be differentiated
        twice, also on releases of torch whose `grid_sample` cannot.
Shapes  images (B, 3, H, W) RGB in [-1, 1] -> the same shape; strong colour changes leave the range, as in the original.
Raises  ValueError: images are not (B, 3, H, W).
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import torch
from kornia.geometry.transform import remap
from torch import Tensor, nn

from lightning_modules.collectives import mean_over_processes

SHIFT_MAX = 0.125  # of the side; uniform, whole pixels
SHIFT_STD = 0.125  # of the side; normal, fractions of a pixel
SCALE_STD, STRETCH_STD = 0.2, 0.2  # of log2
BRIGHTNESS_STD = 0.2  # where white is 1 and black is -1
CONTRAST_STD, SATURATION_STD = 0.5, 1.0  # of log2


class AdaptiveAugment(nn.Module):
    """Applies each transform to each image with probability `p`, which follows how sure the discriminator is of real images.

    p         the probability to start with.
    target    where the mean of sign(D(real)) is held; above it, p grows.
    kimg      thousands of images in which p can go from 0 to 1 (100 when a trained network is adapted to new data).
    interval  iterations between two changes of p.
    """

    p: Tensor
    signs: Tensor
    calls: Tensor

    def __init__(self, p: float = 0.0, *, target: float = 0.6, kimg: float = 500.0, interval: int = 4) -> None:
        super().__init__()
        self.target, self.kimg, self.interval = target, kimg, interval
        self.register_buffer("p", torch.tensor(float(p)))
        self.register_buffer("signs", torch.tensor(0.0))  # sum of the mean signs since p last changed
        self.register_buffer("calls", torch.tensor(0))  # how many those are
        self._mirror()

    def forward(self, images: Tensor) -> Tensor:
        """images (B, 3, H, W) in [-1, 1] -> augmented, float32; the very same tensor while p is 0."""
        if images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(f"expected images in [-1, 1] as (B, 3, H, W), got {tuple(images.shape)}")
        if not self._active:
            return images
        images = warp(images.float(), self.draw_geometry(images))
        return recolour(images, self.draw_colours(images))

    def draw_geometry(self, images: Tensor) -> Tensor:
        """-> (B, 3, 3), one transform per image as `warp` takes it: each factor undoes one step, the first step leftmost."""
        B, _, H, W = images.shape
        rand, randn = partial(torch.rand, device=images.device), partial(torch.randn, device=images.device)
        rare = 1 - (1 - self.p).sqrt()  # of either rotation, so that p is the probability of at least one

        flip = self._maybe(rand(B).round(), 0)
        G = scaling(1 - 2 * flip, torch.ones_like(flip))
        G = compose(G, rotation(self._maybe((4 * rand(B)).floor(), 0) * (math.pi / 2)))
        shift = self._maybe(SHIFT_MAX * (2 * rand(B, 2) - 1), 0)
        G = compose(G, translation((shift[:, 0] * W).round(), (shift[:, 1] * H).round()))
        scale = self._maybe((SCALE_STD * randn(B)).exp2(), 1)
        G = compose(G, scaling(scale, scale))
        G = compose(G, rotation(self._maybe(math.pi * (2 * rand(B) - 1), 0, rare)))
        stretch = self._maybe((STRETCH_STD * randn(B)).exp2(), 1)
        G = compose(G, scaling(stretch, 1 / stretch))
        G = compose(G, rotation(self._maybe(math.pi * (2 * rand(B) - 1), 0, rare)))
        shift = self._maybe(SHIFT_STD * randn(B, 2), 0)
        return compose(G, translation(shift[:, 0] * W, shift[:, 1] * H))

    def draw_colours(self, images: Tensor) -> Tensor:
        """-> (B, 4, 4), one transform per image as `recolour` takes it: the last step leftmost."""
        B = len(images)
        rand, randn = partial(torch.rand, device=images.device), partial(torch.randn, device=images.device)

        C = brightness(self._maybe(BRIGHTNESS_STD * randn(B), 0))
        C = compose(contrast(self._maybe((CONTRAST_STD * randn(B)).exp2(), 1)), C)
        C = compose(luma_flip(self._maybe(rand(B).round(), 0)), C)
        C = compose(hue(self._maybe(math.pi * (2 * rand(B) - 1), 0)), C)
        return compose(saturation(self._maybe((SATURATION_STD * randn(B)).exp2(), 1)), C)

    @torch.no_grad()
    def update(self, sign_mean: Tensor, batch: int) -> None:
        """Once per iteration: sign_mean = mean of sign(D(real)) of this process, batch = images of all processes.

        Every `interval` calls  p <- clip(p + sign(mean sign - target) * batch * interval / (1000 kimg), 0, 1).
        Processes share their means, so all keep the same p; the host waits for the device at a change of p only.
        """
        self.signs += mean_over_processes(sign_mean)
        self.calls += 1
        self._calls += 1
        if self._calls == self.interval:
            step = batch * self.interval / (1000 * self.kimg)
            self.p.add_(step * (self.signs / self.interval - self.target).sign()).clamp_(0, 1)
            self.signs.zero_()
            self.calls.zero_()
            self._mirror()

    def _maybe(self, drawn: Tensor, neutral: float, p: Tensor | None = None) -> Tensor:
        """drawn (B,) or (B, n), with probability p (self.p) per image, otherwise `neutral`."""
        chosen = torch.rand(len(drawn), *[1] * (drawn.ndim - 1), device=drawn.device) < (self.p if p is None else p)
        return torch.where(chosen, drawn, neutral)

    def _mirror(self) -> None:
        """What the host branches on, so that it asks the device only when that can have changed."""
        self._active, self._calls = bool(self.p > 0), int(self.calls)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._mirror()


def compose(a: Tensor, b: Tensor) -> Tensor:
    """(B, n, n) @ (B, n, n), in full float32 whatever precision the device multiplies matrices in."""
    return (a.unsqueeze(-1) * b.unsqueeze(-3)).sum(-2)


def translation(x: Tensor, y: Tensor) -> Tensor:
    """Shifts (B,) in pixels -> (B, 3, 3)."""
    one, zero = torch.ones_like(x), torch.zeros_like(x)
    return torch.stack([one, zero, x, zero, one, y, zero, zero, one], dim=-1).unflatten(-1, (3, 3))


def scaling(x: Tensor, y: Tensor) -> Tensor:
    """Factors (B,) -> (B, 3, 3)."""
    return torch.diag_embed(torch.stack([x, y, torch.ones_like(x)], dim=-1))


def rotation(angle: Tensor) -> Tensor:
    """Angles (B,) in radians -> (B, 3, 3), about the centre."""
    cos, sin, one, zero = angle.cos(), angle.sin(), torch.ones_like(angle), torch.zeros_like(angle)
    return torch.stack([cos, -sin, zero, sin, cos, zero, zero, zero, one], dim=-1).unflatten(-1, (3, 3))


def warp(images: Tensor, G: Tensor) -> Tensor:
    """Look every pixel up where G says: (x, y, 1) from the centre, y down, in the result -> G (x, y, 1) in `images`.

    images (B, 3, H, W), G (B, 3, 3) -> (B, 3, H, W). Differentiable, as often as wanted, with respect to the images only.
    """
    H, W = images.shape[-2:]
    y = torch.arange(H, device=G.device, dtype=G.dtype).sub((H - 1) / 2)[:, None]
    x = torch.arange(W, device=G.device, dtype=G.dtype).sub((W - 1) / 2)
    g = G[..., None, None]  # not a matrix product: reduced precision (TF32) would move pixels
    map_x = g[:, 0, 0] * x + g[:, 0, 1] * y + g[:, 0, 2] + (W - 1) / 2
    map_y = g[:, 1, 0] * x + g[:, 1, 1] * y + g[:, 1, 2] + (H - 1) / 2
    return _Lookup.apply(images, map_x, map_y)


def _lookup(images: Tensor, map_x: Tensor, map_y: Tensor) -> Tensor:
    return remap(images, map_x, map_y, mode="bicubic", padding_mode="reflection", align_corners=True)


class _Lookup(torch.autograd.Function):
    """A lookup is linear in the images, so its derivative is its transpose, and the derivative of that is the lookup."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, map_x: Tensor, map_y: Tensor) -> Tensor:
        ctx.save_for_backward(map_x, map_y)
        return _lookup(images, map_x, map_y)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return _Transpose.apply(grad, *ctx.saved_tensors), None, None


class _Transpose(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, grad: Tensor, map_x: Tensor, map_y: Tensor) -> Tensor:
        ctx.save_for_backward(map_x, map_y)
        with torch.enable_grad():
            images = torch.zeros_like(grad, requires_grad=True)
            return torch.autograd.grad(_lookup(images, map_x, map_y), images, grad)[0]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return _Lookup.apply(grad, *ctx.saved_tensors), None, None


def brightness(shift: Tensor) -> Tensor:
    """Added to every channel, (B,) -> (B, 4, 4)."""
    C = torch.eye(4, device=shift.device).repeat(len(shift), 1, 1)
    C[:, :3, 3] = shift[:, None]
    return C


def contrast(factor: Tensor) -> Tensor:
    """Factor of every channel, about mid-grey, (B,) -> (B, 4, 4)."""
    return torch.diag_embed(torch.stack([factor, factor, factor, torch.ones_like(factor)], dim=-1))


def luma_flip(flip: Tensor) -> Tensor:
    """Where flip (B,) is 1, mirror colours at the plane of zero luma (dark becomes light, hue stays) -> (B, 4, 4)."""
    return _about_luma(1 - 2 * flip, torch.ones_like(flip), torch.zeros_like(flip))


def hue(angle: Tensor) -> Tensor:
    """Turn colours about the grey axis, (B,) in radians -> (B, 4, 4)."""
    return _about_luma(torch.ones_like(angle), angle.cos(), angle.sin())


def saturation(factor: Tensor) -> Tensor:
    """Scale the distance from the grey axis, (B,) -> (B, 4, 4)."""
    return _about_luma(torch.ones_like(factor), factor, torch.zeros_like(factor))


def _about_luma(along: Tensor, across: Tensor, turned: Tensor) -> Tensor:
    """(B, 4, 4) that scales colours `along` the grey axis v and `across` it, plus `turned` times the cross product with v."""
    v = torch.full((3,), 1 / math.sqrt(3), device=along.device)
    axis = torch.outer(v, v)
    cross = torch.tensor([[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]], device=along.device) / math.sqrt(3)
    C = torch.eye(4, device=along.device).repeat(len(along), 1, 1)
    terms = ((along, axis), (across, torch.eye(3, device=along.device) - axis), (turned, cross))
    C[:, :3, :3] = sum(weight[:, None, None] * basis for weight, basis in terms)
    return C


def recolour(images: Tensor, C: Tensor) -> Tensor:
    """(r, g, b, 1) -> C (r, g, b, 1) for every pixel: images (B, 3, H, W), C (B, 4, 4) -> (B, 3, H, W)."""
    c = C[..., None, None]  # not a matrix product, as in `warp`
    return c[:, :3, 3] + sum(c[:, :3, i] * images[:, i : i + 1] for i in range(3))
