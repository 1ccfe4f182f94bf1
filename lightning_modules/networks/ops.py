"""The layers StyleGAN2 is made of: FIR resampling, equalised layers, modulated convolution.

Source  Karras et al., "Analyzing and Improving the Image Quality of StyleGAN", arXiv:1912.04958, section 2
        and appendix B; numerics as in rosinality/stylegan2-pytorch@bef283a (model.py, op/) and
        NVlabs/stylegan2-ada-pytorch@d72cc7d (training/networks.py).

R1 and the path-length term differentiate twice through all of this: everything has a double backward, and
nothing needs an extension.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Resample = Literal["up", "down"] | None
OWN_WEIGHTS = 2**20  # elements of an image's features from which a CPU scales weights instead


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
    line = torch.tensor(taps, dtype=torch.float32)
    kernel = torch.outer(line, line)
    return kernel / kernel.sum()


class _Convolution(torch.autograd.Function):
    """Correlation of x (B, I, H, W) with weight (O, I / groups, k, l), with stride and zero padding.

    This and the two below are each other's derivatives, of every order. Torch's own second derivative of a
    convolution takes the place of these with convolutions whose kernels are as large as the images, and for a
    depthwise filter with one call per channel, the constant filter's own gradient included: on a CPU most of
    the time of R1 and of the path length.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: int, padding: int, groups: int) -> Tensor:
        ctx.save_for_backward(x if ctx.needs_input_grad[1] else None, weight)
        ctx.size, ctx.how = x.shape[2:], (stride, padding, groups)
        return F.conv2d(x, weight, None, stride, padding, 1, groups)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        """The gradients to x and to the weight."""
        x, weight = ctx.saved_tensors
        to_x = to_weight = None
        if ctx.needs_input_grad[0]:
            to_x = _Transposed.apply(grad, weight, *ctx.how, ctx.size)
        if ctx.needs_input_grad[1]:
            to_weight = _WeightGradient.apply(x, grad, weight.detach(), *ctx.how)
        return to_x, to_weight, None, None, None


class _Transposed(torch.autograd.Function):
    """The transpose of `_Convolution` with the same weight: x (B, O, h, w) -> (B, I, *size)."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, stride: int, padding: int, groups: int, size: tuple[int, int]
    ) -> Tensor:
        """(B, O, h, w) -> (B, I, *size)."""
        ctx.save_for_backward(x if ctx.needs_input_grad[1] else None, weight)
        ctx.how = stride, padding, groups
        extra = []  # rows and columns that the stride stepped over
        for n, m, k in zip(size, x.shape[2:], weight.shape[2:], strict=True):
            extra.append(n - (m - 1) * stride + 2 * padding - k)
        depthwise = groups == x.shape[1] and weight.shape[1] == 1
        if x.device.type == "cpu" and x.itemsize < 4 and stride > 1 and depthwise:
            # in half precision oneDNN has only a reference for it, 40 times as slow
            return _depthwise_transposed(x, weight, stride, padding, extra)
        return F.conv_transpose2d(x, weight, None, stride, padding, extra, groups)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None, None]:
        """The gradients to x and to the weight."""
        x, weight = ctx.saved_tensors
        to_x = to_weight = None
        if ctx.needs_input_grad[0]:
            to_x = _Convolution.apply(grad, weight, *ctx.how)
        if ctx.needs_input_grad[1]:
            to_weight = _WeightGradient.apply(grad, x, weight.detach(), *ctx.how)
        return to_x, to_weight, None, None, None, None


def _depthwise_transposed(x: Tensor, weight: Tensor, stride: int, padding: int, extra: list[int]) -> Tensor:
    """`F.conv_transpose2d` of one filter per channel, as a convolution of x with zeros in between."""
    b, c, h, w = x.shape
    wide = x.new_zeros(b, h * stride, w * stride, c).permute(0, 3, 1, 2)
    wide[:, :, ::stride, ::stride] = x
    pads: list[tuple[int, int]] = []
    for k, more in zip(weight.shape[2:], extra, strict=True):
        before = k - 1 - padding
        pads.insert(0, (before, before + more + 1 - stride))  # `F.pad` begins with the last axis
    wide = F.pad(wide, (*pads[0], *pads[1]))
    return F.conv2d(wide, weight.flip(2, 3), groups=c)


class _WeightGradient(torch.autograd.Function):
    """The gradient of <y, _Convolution(x, weight)> to the weight, of which only the shape matters.

    Wide layers on a CPU take one matrix product per tap of the kernel: with stride 2 or small images oneDNN
    reaches half of their speed.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, y: Tensor, weight: Tensor, stride: int, padding: int, groups: int
    ) -> Tensor:
        """x (B, I, H, W), y (B, O, h, w) -> (O, I / groups, k, l)."""
        ctx.save_for_backward(x, y)
        ctx.how = stride, padding, groups
        wide = len(weight) >= (256 if stride == 2 else 512)
        if x.device.type == "cpu" and groups == 1 and wide:
            return _weight_gradient_by_taps(x, y, weight.shape, stride, padding)
        mask = (False, True, False)
        pairs = [stride, stride], [padding, padding], [1, 1]
        return torch.ops.aten.convolution_backward(y, x, weight, None, *pairs, False, [0, 0], groups, mask)[1]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None, None]:
        """The gradients to x and to y; there is none to the weight."""
        x, y = ctx.saved_tensors
        to_x = to_y = None
        if ctx.needs_input_grad[0]:
            to_x = _Transposed.apply(y, grad, *ctx.how, x.shape[2:])
        if ctx.needs_input_grad[1]:
            to_y = _Convolution.apply(x, grad, *ctx.how)
        return to_x, to_y, None, None, None, None


def _weight_gradient_by_taps(x: Tensor, y: Tensor, shape: torch.Size, stride: int, padding: int) -> Tensor:
    """The same without groups, one matrix product per tap; -> (O, I, k, l)."""
    o, i, rows, columns = shape
    h, w = (n * stride for n in y.shape[2:])
    x = F.pad(x, (padding,) * 4).permute(0, 2, 3, 1)
    y = y.permute(0, 2, 3, 1).reshape(-1, o).T
    gradient = x.new_empty(rows, columns, o, i)
    for a in range(rows):
        for b in range(columns):
            seen = x[:, a : a + h : stride, b : b + w : stride]
            torch.mm(y, seen.reshape(-1, i), out=gradient[a, b])
    return gradient.permute(2, 3, 0, 1)


def _same_type(x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Both in autocast's type where it is on: it does not see into the functions above."""
    device, dtype = x.device.type, x.dtype
    # the meta device knows no autocast
    if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
    return x.to(dtype), weight.to(dtype)


def conv2d(x: Tensor, weight: Tensor, stride: int = 1, padding: int = 0, groups: int = 1) -> Tensor:
    """`F.conv2d` with fast derivatives of every order."""
    return _Convolution.apply(*_same_type(x, weight), stride, padding, groups)


def conv_transpose2d(x: Tensor, weight: Tensor, stride: int, padding: int = 0) -> Tensor:
    """`F.conv_transpose2d` with fast derivatives of every order; weight (I, O, k, k)."""
    size = [(n - 1) * stride + k - 2 * padding for n, k in zip(x.shape[2:], weight.shape[2:], strict=True)]
    return _Transposed.apply(*_same_type(x, weight), stride, padding, 1, size)


def upfirdn(
    x: Tensor, kernel: Tensor, *, up: int = 1, down: int = 1, pad: tuple[int, int] = (0, 0)
) -> Tensor:
    """Insert up - 1 zeros after every sample, pad both axes, convolve, keep every down-th sample.

    x (B, C, H, W), kernel (kh, kw): a true convolution, the kernel is flipped. Padding is (before, after),
    and negative padding crops. One filter per channel: taking the channels as images instead costs 20 to 30
    times as much on a CPU.
    """
    b, c, h, w = x.shape
    if up > 1:
        x = F.pad(x.reshape(b, c, h, 1, w, 1), (0, up - 1, 0, 0, 0, up - 1))
        x = x.reshape(b, c, h * up, w * up)  # under the same name: a copy less to hold
    if pad[0] != pad[1] or pad[0] < 0:
        x, pad = F.pad(x, (*pad, *pad)), (0, 0)
    filters = kernel.flip(0, 1).to(x.dtype).expand(c, 1, -1, -1)
    return conv2d(x, filters, down, pad[0], groups=c)


def upsample(x: Tensor, kernel: Tensor) -> Tensor:
    """x (B, C, H, W) -> (B, C, 2H, 2W), FIR filtered; the gain 4 makes up for the inserted zeros."""
    k = len(kernel)
    return upfirdn(x, kernel * 4, up=2, pad=((k - 1) // 2 + 1, (k - 2) // 2))


def downsample(x: Tensor, kernel: Tensor) -> Tensor:
    """x (B, C, H, W) -> (B, C, H/2, W/2), FIR filtered."""
    k = len(kernel)
    return upfirdn(x, kernel, down=2, pad=((k - 1) // 2, (k - 2) // 2))


def full_precision(x: Tensor) -> AbstractContextManager[Any]:
    """The context in which x is computed with in its own precision, also under autocast."""
    if x.is_meta:  # a tensor of shapes alone has none
        return nullcontext()
    return torch.autocast(x.device.type, enabled=False)


def at_least_float32(x: Tensor) -> Tensor:
    """Half precision becomes float32, float64 stays."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def area_means(x: Tensor, size: int) -> Tensor:
    """x (B, C, H, W) -> (B, C, size, size): the means of the pixels that each one touches.

    They are those of `F.adaptive_avg_pool2d`, whose gradient a GPU adds up in any order; here it is fixed.
    """
    H, W = x.shape[2:]
    if H % size == 0 and W % size == 0:
        return F.avg_pool2d(x, (H // size, W // size))
    with full_precision(x):
        wide = at_least_float32(x)
        rows, columns = (_shares(side, size, wide) for side in (H, W))
        return (rows @ wide @ columns.T).to(x.dtype)


def means_of_enlarged(x: Tensor, enlarged: Sequence[int], size: int) -> Tensor:
    """x (B, C, h, w) -> (B, C, size, size): area means of x bilinearly `enlarged` to (H, W), corners aligned.

    Both steps are linear, so one product along rows and one along columns do without the large image.
    """
    with full_precision(x):
        wide = at_least_float32(x)
        sides = zip(x.shape[2:], enlarged, strict=True)
        rows, columns = (_shares(long, size, wide) @ _between(short, long, wide) for short, long in sides)
        return (rows @ wide @ columns.T).to(x.dtype)


def _between(pixels: int, enlarged: int, like: Tensor) -> Tensor:
    """What each of so many pixels on a line counts in the enlarged one, (enlarged, pixels), beside `like`."""
    alone = torch.eye(pixels, dtype=like.dtype, device=like.device)[None]
    return F.interpolate(alone, enlarged, mode="linear", align_corners=True)[0].T


def _shares(pixels: int, size: int, like: Tensor) -> Tensor:
    """What each of so many pixels on a line counts in each of `size` means, (size, pixels), beside `like`."""
    step = torch.arange(size, device=like.device)[:, None]
    first = step * pixels // size
    end = ((step + 1) * pixels + size - 1) // size
    pixel = torch.arange(pixels, device=like.device)
    touched = (first <= pixel) & (pixel < end)
    return touched.to(like.dtype) / (end - first)


def convolve(x: Tensor, weight: Tensor, kernel: Tensor, resample: Resample = None) -> Tensor:
    """Convolution with `weight` (O, I, k, k), at the same size or with FIR-filtered resampling by 2.

    x (B, I, H, W) -> (B, O, H, W); "up": transposed convolution, then the filter -> (B, O, 2H, 2W); "down":
    the filter, then a strided convolution -> (B, O, H/2, W/2). `kernel` (t, t) is the filter with sum 1.
    """
    k, taps = weight.shape[-1], len(kernel)
    if resample is None:
        return conv2d(x, weight, padding=k // 2)
    if resample == "up":
        pad = taps - 1 - k
        x = conv_transpose2d(x, weight.transpose(0, 1), stride=2)
        return upfirdn(x, kernel * 4, pad=((pad + 1) // 2 + 1, pad // 2 + 1))
    if k == 1:  # filter only the samples that are kept
        return conv2d(downsample(x, kernel), weight)
    pad = taps - 3 + k
    return conv2d(upfirdn(x, kernel, pad=((pad + 1) // 2, pad // 2)), weight, stride=2)


def modulated_convolve(
    x: Tensor,
    weight: Tensor,
    style: Tensor,
    kernel: Tensor,
    *,
    demodulate: bool = True,
    gain: float = 1.0,
    resample: Resample = None,
) -> Tensor:
    """Convolution whose weight (O, I, k, k) is scaled by `style` (B, I) per image, times `gain`.

    With `demodulate` the weight is normalised per output channel. Scaling the activations before and after
    one shared convolution equals scaling the weights (arXiv:1912.04958, equations 1 and 3). On a CPU, images
    larger than the weight get weights of their own: memory takes longer than arithmetic there.
    """
    norm = torch.full_like(style[:, :1], gain)
    if demodulate:
        norm = gain * torch.rsqrt(style.square() @ weight.square().sum(dim=(2, 3)).T + 1e-8)
    if x.device.type == "cpu" and x[0].numel() > max(weight.numel(), OWN_WEIGHTS):
        weights = weight * style[:, None, :, None, None] * norm[:, :, None, None, None]
        pairs = zip(x.split(1), weights, strict=True)
        images = [convolve(image, scaled, kernel, resample) for image, scaled in pairs]
        return images[0] if len(x) == 1 else torch.cat(images)
    y = convolve(x * style[:, :, None, None], weight, kernel, resample)
    norm = norm[:, :, None, None]
    return y * norm if y.requires_grad else y.mul_(norm)


def minibatch_stddev(x: Tensor, group: int | None) -> Tensor:
    """Append the standard deviation over groups of images as a channel: (B, C, H, W) -> (B, C + 1, H, W).

    A group has min(B, group) members, images i, i + B/group, i + 2B/group, ...; None makes the whole batch
    one group.

    Raises:
        ValueError: the batch is not a multiple of the group.
    """
    b, c, h, w = x.shape
    group = b if group is None else min(b, group)
    if b % group:
        raise ValueError(
            f"the discriminator compares groups of {group} images: "
            f"expected a multiple of {group} per batch, got {b}"
        )
    grouped = x.view(group, b // group, c, h, w)
    std = torch.sqrt(grouped.var(dim=0, correction=0) + 1e-8).mean(dim=(1, 2, 3))  # (B / group,)
    channel = std.repeat(group)[:, None, None, None].expand(b, 1, h, w)
    return torch.cat([x, channel.to(x.dtype)], dim=1)


class EqualLinear(nn.Module):
    """Linear layer with equalised learning rate, (B, I) -> (B, O).

    The weight is stored as N(0, 1) / lr_mul and used times lr_mul / sqrt(I), the bias times lr_mul.
    """

    def __init__(
        self, inputs: int, outputs: int, *, bias: float = 0.0, lr_mul: float = 1.0, activate: bool = False
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / lr_mul)
        self.bias = nn.Parameter(torch.full((outputs,), bias / lr_mul))
        self.lr_mul, self.activate = lr_mul, activate

    def forward(self, x: Tensor) -> Tensor:
        gain = self.lr_mul * math.sqrt(2) if self.activate else self.lr_mul
        scale = gain / math.sqrt(self.weight.shape[1])
        x = torch.addmm(self.bias, x, self.weight.T, beta=gain, alpha=scale)
        return F.leaky_relu_(x, 0.2) if self.activate else x


class ConvLayer(nn.Module):
    """Equalised convolution, (B, I, H, W) -> (B, O, H, W), or (B, O, H/2, W/2) with `down`.

    FIR filtering comes before it where `down`, a bias after it, and a scaled leaky ReLU where `activate`. All
    is times `gain`.
    """

    fir: Tensor

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel_size: int,
        *,
        down: bool = False,
        bias: bool = True,
        activate: bool = True,
        gain: float = 1.0,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, kernel_size, kernel_size))
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None
        self.register_buffer("fir", fir(), persistent=False)
        # the activation's slopes do not change with a positive factor: it goes in first
        self.gain = gain * math.sqrt(2) if activate else gain
        self.scale = self.gain / math.sqrt(inputs * kernel_size**2)
        self.resample: Resample = "down" if down else None
        self.activate = activate

    def forward(self, x: Tensor) -> Tensor:
        x = convolve(x, self.weight * self.scale, self.fir, self.resample)
        if self.bias is not None:
            x = x.add_((self.bias * self.gain).to(x.dtype).view(1, -1, 1, 1))
        return F.leaky_relu_(x, 0.2) if self.activate else x


class ResidualBlock(nn.Module):
    """Half the size: (conv 3x3, conv 3x3 down) + skip (conv 1x1 down), divided by sqrt(2)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = ConvLayer(inputs, inputs, 3)
        self.conv2 = ConvLayer(inputs, outputs, 3, down=True, gain=math.sqrt(0.5))
        self.skip = ConvLayer(inputs, outputs, 1, down=True, bias=False, activate=False, gain=math.sqrt(0.5))

    def forward(self, x: Tensor) -> Tensor:
        return self.conv2(self.conv1(x)) + self.skip(x)


def count_parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
