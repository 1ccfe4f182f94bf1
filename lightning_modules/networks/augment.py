"""Adaptive discriminator augmentation: what the discriminator sees is transformed at random.

Source  Karras et al., "Training Generative Adversarial Networks with Limited Data", arXiv:2006.06676, section
        3 and appendix B; ranges, order and adaptation law as in NVlabs/stylegan2-ada-pytorch@375a436
        (training/augment.py, pipe `bgc`, and training/training_loop.py).
Differs One bicubic lookup per image instead of a bilinear one between 2x wavelet filters: it keeps more of
        the fine detail (94 % instead of 88 % of the energy of a 1/f image) and is exact for flips and quarter
        turns, but does not filter what shrinks. The image continues by reflection without end; the original
        reflects once and is black beyond.
R1      is taken with respect to the images *before* augmentation, as in the original: everything here can be
        differentiated twice, also on releases of torch whose `grid_sample` cannot.
Device  p lives there and the host does not know it: no call waits for the device, and none uploads anything.
Shapes  images (B, 3, H, W) RGB in [-1, 1] -> the same shape; strong colour changes leave the range, as in the
        original.
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
from lightning_modules.networks.ops import at_least_float32

SHIFT_MAX = 0.125  # of the side; uniform, whole pixels
SHIFT_STD = 0.125  # of the side; normal, fractions of a pixel
SCALE_STD, STRETCH_STD = 0.2, 0.2  # of log2
BRIGHTNESS_STD = 0.2  # where white is 1 and black is -1
CONTRAST_STD, SATURATION_STD = 0.5, 1.0  # of log2
CUBIC = -0.75  # the slope at distance 1 of `grid_sample`'s bicubic weights


class AdaptiveAugment(nn.Module):
    """Applies each transform to each image with probability `p`.

    p follows how sure the discriminator is of real images.

    Args:
        p: the probability to start with.
        target: where the mean of sign(D(real)) is held; above it, p grows.
        kimg: thousands of images in which p can go from 0 to 1 (100 when a trained network is adapted to new
            data).
        interval: iterations between two changes of p.
    """

    p: Tensor
    signs: Tensor
    calls: Tensor

    def __init__(
        self, p: float = 0.0, *, target: float = 0.6, kimg: float = 500.0, interval: int = 4
    ) -> None:
        super().__init__()
        self.target, self.kimg, self.interval = target, kimg, interval
        self.register_buffer("p", torch.tensor(float(p)))
        self.register_buffer("signs", torch.tensor(0.0))  # sum of the mean signs since p last changed
        self.register_buffer("calls", torch.tensor(0))  # how many those are
        self._calls = 0  # what the host knows of them

    def forward(self, images: Tensor) -> Tensor:
        """images (B, 3, H, W) in [-1, 1] -> augmented, at least float32; unchanged while p is 0."""
        if images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(f"expected images in [-1, 1] as (B, 3, H, W), got {tuple(images.shape)}")
        if self.p.device.type == "cpu" and self.p == 0:  # any other device would have to be waited for
            return images
        images = at_least_float32(images)
        warped = warp(images, self.draw_geometry(images))
        return torch.where(self.p > 0, recolour(warped, self.draw_colours(images)), images)

    def draw_geometry(self, images: Tensor) -> Tensor:
        """-> (B, 3, 3), one transform per image as `warp` takes it.

        Each factor undoes one step, the first step leftmost.
        """
        B, _, H, W = images.shape
        like = {"device": images.device, "dtype": images.dtype}
        rand, randn = partial(torch.rand, **like), partial(torch.randn, **like)
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
        like = {"device": images.device, "dtype": images.dtype}
        rand, randn = partial(torch.rand, **like), partial(torch.randn, **like)

        C = brightness(self._maybe(BRIGHTNESS_STD * randn(B), 0))
        C = compose(contrast(self._maybe((CONTRAST_STD * randn(B)).exp2(), 1)), C)
        C = compose(luma_flip(self._maybe(rand(B).round(), 0)), C)
        C = compose(hue(self._maybe(math.pi * (2 * rand(B) - 1), 0)), C)
        return compose(saturation(self._maybe((SATURATION_STD * randn(B)).exp2(), 1)), C)

    @torch.no_grad()
    def update(self, sign_mean: Tensor, batch: int) -> None:
        """Move p; to be called once per iteration.

        Every `interval` calls p <- clip(p + sign(mean sign - target) step, 0, 1), where step is
        batch * interval / (1000 kimg). Processes share their means, so all keep the same p.

        Args:
            sign_mean: mean of sign(D(real)) of this process.
            batch: images of all processes.
        """
        self.signs += mean_over_processes(sign_mean)
        self.calls += 1
        self._calls += 1
        if self._calls == self.interval:
            step = batch * self.interval / (1000 * self.kimg)
            direction = (self.signs / self.interval - self.target).sign()
            self.p.add_(step * direction).clamp_(0, 1)
            self.signs.zero_()
            self.calls.zero_()
            self._calls = 0

    def _maybe(self, drawn: Tensor, neutral: float, p: Tensor | None = None) -> Tensor:
        """drawn (B,) or (B, n), with probability p (self.p) per image, otherwise `neutral`."""
        one_each = (len(drawn), *[1] * (drawn.ndim - 1))
        chance = torch.rand(one_each, device=drawn.device, dtype=drawn.dtype)
        chosen = chance < (self.p if p is None else p)
        return torch.where(chosen, drawn, neutral)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._calls = int(self.calls)


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
    cos, sin = angle.cos(), angle.sin()
    one, zero = torch.ones_like(angle), torch.zeros_like(angle)
    return torch.stack([cos, -sin, zero, sin, cos, zero, zero, zero, one], dim=-1).unflatten(-1, (3, 3))


def warp(images: Tensor, G: Tensor) -> Tensor:
    """Look every pixel (x, y, 1) of the result, from the centre, y down, up at G (x, y, 1) in `images`.

    images (B, 3, H, W), G (B, 3, 3) -> (B, 3, H, W). Differentiable, as often as wanted, with respect to the
    images only.
    """
    H, W = images.shape[-2:]
    y = torch.arange(H, device=G.device, dtype=G.dtype).sub((H - 1) / 2)[:, None]
    x = torch.arange(W, device=G.device, dtype=G.dtype).sub((W - 1) / 2)
    g = G[..., None, None]  # not a matrix product: reduced precision (TF32) would move pixels
    map_x = g[:, 0, 0] * x + g[:, 0, 1] * y + g[:, 0, 2] + (W - 1) / 2
    map_y = g[:, 1, 0] * x + g[:, 1, 1] * y + g[:, 1, 2] + (H - 1) / 2
    return _Lookup.apply(images, map_x, map_y)


def _lookup(images: Tensor, map_x: Tensor, map_y: Tensor) -> Tensor:
    """images (B, C, H, W) at the places (map_x, map_y) in pixels, (B, H, W) each -> (B, C, H, W); bicubic."""
    H, W = images.shape[-2:]
    # remap can do this too, with constants that it uploads at every call
    map_x = map_x * (2 / max(W - 1, 1)) - 1
    map_y = map_y * (2 / max(H - 1, 1)) - 1
    kernel, beyond = "bicubic", "reflection"
    return remap(images, map_x, map_y, kernel, beyond, align_corners=True, normalized_coordinates=True)


def _transposed_lookup(grad: Tensor, map_x: Tensor, map_y: Tensor) -> Tensor:
    """What `_lookup` takes from each pixel is added to it again: (B, C, H, W) -> (B, C, H, W)."""
    if torch.are_deterministic_algorithms_enabled():
        return _transposed_by_taps(grad, map_x, map_y)
    with torch.enable_grad():
        images = torch.zeros_like(grad, requires_grad=True)
        return torch.autograd.grad(_lookup(images, map_x, map_y), images, grad)[0]


def _transposed_by_taps(grad: Tensor, map_x: Tensor, map_y: Tensor) -> Tensor:
    """The same, one of 4 x 4 pixels after the other: CUDA can add them in a fixed order."""
    B, C, H, W = grad.shape
    image = torch.arange(B, device=grad.device)[:, None, None]
    values = grad.movedim(1, -1)
    total = grad.new_zeros(B * H * W, C)
    for row, weight_y in _taps(map_y, H):
        for column, weight_x in _taps(map_x, W):
            pixels = (image * H + row) * W + column
            weighted = values * (weight_y * weight_x)[..., None]
            total.index_add_(0, pixels.flatten(), weighted.flatten(0, 2))
    return total.view(B, H, W, C).movedim(-1, 1)


def _taps(places: Tensor, side: int) -> list[tuple[Tensor, Tensor]]:
    """The four pixels that a lookup takes along a side, reflected at its ends, and their weights."""
    first = places.floor()
    t = places - first
    weights = _cubic_outside(1 + t), _cubic_inside(t), _cubic_inside(1 - t), _cubic_outside(2 - t)
    period = max(2 * (side - 1), 1)
    taps = []
    for offset, weight in zip((-1, 0, 1, 2), weights, strict=True):
        pixel = (first.long() + offset) % period
        reflected = torch.minimum(pixel, period - pixel)
        taps.append((reflected, weight))
    return taps


def _cubic_inside(d: Tensor) -> Tensor:
    """The weight of a pixel at a distance d <= 1 (Keys' cubic convolution)."""
    return ((CUBIC + 2) * d - (CUBIC + 3)) * d * d + 1


def _cubic_outside(d: Tensor) -> Tensor:
    """The weight of a pixel at a distance 1 <= d <= 2."""
    return CUBIC * (((d - 5) * d + 8) * d - 4)


class _Lookup(torch.autograd.Function):
    """`_lookup`, linear in the images: its derivative is its transpose, and that one's the lookup."""

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
        return _transposed_lookup(grad, map_x, map_y)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return _Lookup.apply(grad, *ctx.saved_tensors), None, None


def brightness(shift: Tensor) -> Tensor:
    """Added to every channel, (B,) -> (B, 4, 4)."""
    one, zero = torch.ones_like(shift), torch.zeros_like(shift)
    return _four_by_four(one, zero, zero, shift)


def contrast(factor: Tensor) -> Tensor:
    """Factor of every channel, about mid-grey, (B,) -> (B, 4, 4)."""
    return torch.diag_embed(torch.stack([factor, factor, factor, torch.ones_like(factor)], dim=-1))


def luma_flip(flip: Tensor) -> Tensor:
    """Where flip (B,) is 1, mirror colours at the plane of zero luma -> (B, 4, 4).

    Dark becomes light, and the hue stays.
    """
    return _about_luma(1 - 2 * flip, torch.ones_like(flip), torch.zeros_like(flip))


def hue(angle: Tensor) -> Tensor:
    """Turn colours about the grey axis, (B,) in radians -> (B, 4, 4)."""
    return _about_luma(torch.ones_like(angle), angle.cos(), angle.sin())


def saturation(factor: Tensor) -> Tensor:
    """Scale the distance from the grey axis, (B,) -> (B, 4, 4)."""
    return _about_luma(torch.ones_like(factor), factor, torch.zeros_like(factor))


def _about_luma(along: Tensor, across: Tensor, turned: Tensor) -> Tensor:
    """(B, 4, 4) that scales colours `along` the grey axis v and `across` it.

    `turned` times the cross product with v is added.
    """
    common = (along - across) / 3  # all elements of v v^T are 1/3
    side = turned / math.sqrt(3)
    return _four_by_four(common + across, common - side, common + side, torch.zeros_like(along))


def _four_by_four(same: Tensor, next: Tensor, last: Tensor, shift: Tensor) -> Tensor:
    """(B,) each -> (B, 4, 4): a channel takes of itself, of the next, of the last in turn, and `shift`."""
    one, zero = torch.ones_like(same), torch.zeros_like(same)
    red = [same, next, last, shift]
    green = [last, same, next, shift]
    blue = [next, last, same, shift]
    return torch.stack([*red, *green, *blue, zero, zero, zero, one], dim=-1).unflatten(-1, (4, 4))


def recolour(images: Tensor, C: Tensor) -> Tensor:
    """(r, g, b, 1) -> C (r, g, b, 1) for every pixel: images (B, 3, H, W), C (B, 4, 4) -> (B, 3, H, W)."""
    c = C[..., None, None]  # not a matrix product, as in `warp`
    return c[:, :3, 3] + sum(c[:, :3, i] * images[:, i : i + 1] for i in range(3))
