"""The layers StyleGAN2 is made of: FIR resampling, equalised linear and convolution layers, modulated convolution.

Source  Karras et al., "Analyzing and Improving the Image Quality of StyleGAN", arXiv:1912.04958, section 2 and appendix B;
        numerics as in rosinality/stylegan2-pytorch@bef283a (model.py, op/) and NVlabs/stylegan2-ada-pytorch@d72cc7d (training/networks.py).
R1 and the path-length term differentiate twice through all of this: everything has a double backward, and nothing needs an extension.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Resample = Literal["up", "down"] | None


def flrelu(x: Tensor, bias: Tensor | None = None) -> Tensor:
    """sqrt(2) * leaky_relu(x + bias, 0.2); `bias` is per channel (dimension 1)."""
    if bias is not None:
        x = x + bias.view(1, -1, *(1,) * (x.ndim - 2))
    return F.leaky_relu(x, 0.2) * math.sqrt(2)


def pixel_norm(z: Tensor) -> Tensor:
    """z (B, D) divided by its root mean square over D (+ 1e-8 under the root)."""
    return z * torch.rsqrt(z.square().mean(dim=1, keepdim=True) + 1e-8)


def fir(taps: tuple[float, ...] = (1, 3, 3, 1)) -> Tensor:
    """The separable low-pass filter of StyleGAN2 as a (k, k) kernel: outer product of the taps, sum 1."""
    kernel = torch.outer(torch.tensor(taps, dtype=torch.float32), torch.tensor(taps, dtype=torch.float32))
    return kernel / kernel.sum()


class _Filter(torch.autograd.Function):
    """Depthwise correlation of x (B, C, H, W) with one constant kernel (kh, kw), with stride and symmetric zero padding."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, kernel: Tensor, stride: int, padding: int) -> Tensor:
        ctx.save_for_backward(kernel)
        ctx.shape, ctx.stride, ctx.padding = x.shape, stride, padding
        c = x.shape[1]
        return F.conv2d(x, kernel.to(x.dtype).expand(c, 1, -1, -1), stride=stride, padding=padding, groups=c)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        return _Adjoint.apply(grad, *ctx.saved_tensors, ctx.stride, ctx.padding, ctx.shape[2:]), None, None, None


class _Adjoint(torch.autograd.Function):
    """The transpose of `_Filter` with the same arguments; `size` is the (H, W) of its result.

    The two are each other's derivatives. Torch's own second derivative of a depthwise convolution would also compute that of the kernel,
    with one call per channel: a fifth of R1's time on a CPU.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, kernel: Tensor, stride: int, padding: int, size: tuple[int, int]) -> Tensor:
        ctx.save_for_backward(kernel)
        ctx.stride, ctx.padding = stride, padding
        c = x.shape[1]
        extra = [n - (m - 1) * stride + 2 * padding - k for n, m, k in zip(size, x.shape[2:], kernel.shape, strict=True)]
        kernel = kernel.to(x.dtype).expand(c, 1, -1, -1)
        return F.conv_transpose2d(x, kernel, stride=stride, padding=padding, output_padding=extra, groups=c)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None, None]:
        return _Filter.apply(grad, *ctx.saved_tensors, ctx.stride, ctx.padding), None, None, None, None


def upfirdn(x: Tensor, kernel: Tensor, *, up: int = 1, down: int = 1, pad: tuple[int, int] = (0, 0)) -> Tensor:
    """Insert up - 1 zeros after every sample, pad both axes (before, after), convolve with `kernel`, keep every down-th sample.

    x (B, C, H, W), kernel (kh, kw): a true convolution, the kernel is flipped. Negative padding crops. One filter per channel: taking
    the channels as images instead costs 20 to 30 times as much on a CPU.
    """
    b, c, h, w = x.shape
    if up > 1:
        x = F.pad(x.view(b, c, h, 1, w, 1), (0, up - 1, 0, 0, 0, up - 1)).view(b, c, h * up, w * up)
    if pad[0] != pad[1] or pad[0] < 0:
        x, pad = F.pad(x, (*pad, *pad)), (0, 0)
    return _Filter.apply(x, kernel.flip(0, 1), down, pad[0])


def upsample(x: Tensor, kernel: Tensor) -> Tensor:
    """x (B, C, H, W) -> (B, C, 2H, 2W), FIR filtered; the gain 4 makes up for the inserted zeros."""
    k = len(kernel)
    return upfirdn(x, kernel * 4, up=2, pad=((k - 1) // 2 + 1, (k - 2) // 2))


def downsample(x: Tensor, kernel: Tensor) -> Tensor:
    """x (B, C, H, W) -> (B, C, H/2, W/2), FIR filtered."""
    k = len(kernel)
    return upfirdn(x, kernel, down=2, pad=((k - 1) // 2, (k - 2) // 2))


def convolve(x: Tensor, weight: Tensor, kernel: Tensor, resample: Resample = None) -> Tensor:
    """Convolution with `weight` (O, I, k, k), at the same size, or with FIR-filtered resampling by 2 around it.

    x (B, I, H, W) -> (B, O, H, W); "up": transposed convolution, then the filter -> (B, O, 2H, 2W); "down": the filter, then a strided
    convolution -> (B, O, H/2, W/2). `kernel` (t, t) is the filter with sum 1.
    """
    k, taps = weight.shape[-1], len(kernel)
    if resample is None:
        return F.conv2d(x, weight, padding=k // 2)
    if resample == "up":
        pad = taps - 1 - k
        x = F.conv_transpose2d(x, weight.transpose(0, 1), stride=2)
        return upfirdn(x, kernel * 4, pad=((pad + 1) // 2 + 1, pad // 2 + 1))
    if k == 1:  # filter only the samples that are kept
        return F.conv2d(downsample(x, kernel), weight)
    pad = taps - 3 + k
    return F.conv2d(upfirdn(x, kernel, pad=((pad + 1) // 2, pad // 2)), weight, stride=2)


def modulated_convolve(
    x: Tensor, weight: Tensor, style: Tensor, kernel: Tensor, *, demodulate: bool = True, resample: Resample = None
) -> Tensor:
    """Convolution whose weight (O, I, k, k) is scaled by `style` (B, I) per image, and with `demodulate` normalised per output channel.

    Scaling the activations before and after one shared convolution equals scaling the weights (arXiv:1912.04958, equations 1 and 3).
    """
    y = convolve(x * style[:, :, None, None], weight, kernel, resample)
    if demodulate:
        norm = torch.rsqrt(style.square() @ weight.square().sum(dim=(2, 3)).T + 1e-8)
        y = y * norm[:, :, None, None]
    return y


def minibatch_stddev(x: Tensor, group: int | None) -> Tensor:
    """Append the standard deviation over groups of images as one channel: (B, C, H, W) -> (B, C + 1, H, W).

    A group has min(B, group) members, images i, i + B/group, i + 2B/group, ...; None makes the whole batch one group.

    Raises
        ValueError: the batch is not a multiple of the group.
    """
    b, c, h, w = x.shape
    group = b if group is None else min(b, group)
    if b % group:
        raise ValueError(f"the discriminator compares groups of {group} images: expected a multiple of {group} per batch, got {b}")
    grouped = x.view(group, b // group, c, h, w)
    std = torch.sqrt(grouped.var(dim=0, correction=0) + 1e-8).mean(dim=(1, 2, 3))  # (B / group,)
    return torch.cat([x, std.repeat(group)[:, None, None, None].expand(b, 1, h, w).to(x.dtype)], dim=1)


class EqualLinear(nn.Module):
    """Linear layer with equalised learning rate, (B, I) -> (B, O): the weight is stored as N(0, 1) / lr_mul and used times
    lr_mul / sqrt(I), the bias times lr_mul."""

    def __init__(self, inputs: int, outputs: int, *, bias: float = 0.0, lr_mul: float = 1.0, activate: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / lr_mul)
        self.bias = nn.Parameter(torch.full((outputs,), bias / lr_mul))
        self.lr_mul, self.activate = lr_mul, activate

    def forward(self, x: Tensor) -> Tensor:
        x = F.linear(x, self.weight * (self.lr_mul / math.sqrt(self.weight.shape[1])), self.bias * self.lr_mul)
        return flrelu(x) if self.activate else x


class ConvLayer(nn.Module):
    """Equalised convolution, optionally after FIR filtering down by 2, with bias and scaled leaky ReLU where `activate`.

    (B, I, H, W) -> (B, O, H, W), or (B, O, H/2, W/2) with `down`.
    """

    fir: Tensor

    def __init__(
        self, inputs: int, outputs: int, kernel_size: int, *, down: bool = False, bias: bool = True, activate: bool = True
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, kernel_size, kernel_size))
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None
        self.register_buffer("fir", fir(), persistent=False)
        self.scale = 1 / math.sqrt(inputs * kernel_size**2)
        self.resample: Resample = "down" if down else None
        self.activate = activate

    def forward(self, x: Tensor) -> Tensor:
        x = convolve(x, self.weight * self.scale, self.fir, self.resample)
        if self.activate:
            return flrelu(x, self.bias)
        return x if self.bias is None else x + self.bias.view(1, -1, 1, 1)


class ResidualBlock(nn.Module):
    """Halve the size of a feature map: (conv 3x3, conv 3x3 down) + skip (conv 1x1 down), divided by sqrt(2)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = ConvLayer(inputs, inputs, 3)
        self.conv2 = ConvLayer(inputs, outputs, 3, down=True)
        self.skip = ConvLayer(inputs, outputs, 1, down=True, bias=False, activate=False)

    def forward(self, x: Tensor) -> Tensor:
        return (self.conv2(self.conv1(x)) + self.skip(x)) / math.sqrt(2)
