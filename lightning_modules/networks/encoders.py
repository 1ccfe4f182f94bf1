"""Encoders that invert an image: a base code (a feature map of the generator) and one code w per layer.

Source  Kang, Kim, Cho, "GAN Inversion for Out-of-Range Images with Geometric Transformations",
        arXiv:2108.08998, as released in kkang831/BDInvert_Release@8bbd373
        (models/stylegan_basecode_encoder.py); the heads map2style of Richardson et al., "Encoding in Style",
        arXiv:2008.00951, eladrich/pixel2style2pixel@5cfff38 (models/encoders/psp_encoders.py).
Differs any number of pooling stages; BatchNorm sees the images of all processes. Parameters have the released
        names.
Shapes  images (B, 3, H, W) RGB in [-1, 1]; base code f (B, C, H / 2^stages, W / 2^stages); codes (B, L, D).
"""

from __future__ import annotations

import torch
from torch import Tensor, distributed, nn

from lightning_modules.collectives import mean_over_processes
from lightning_modules.networks.ops import EqualLinear, at_least_float32


class BatchNorm(nn.BatchNorm2d):
    """BatchNorm2d whose statistics in training are those of all processes' images.

    Each process has equally many. Torch's own needs a GPU.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same shape; in training every process must call it."""
        if not (self.training and distributed.is_available() and distributed.is_initialized()):
            return super().forward(x)
        dtype = x.dtype
        x = at_least_float32(x)  # statistics of half precision would not be
        mean = mean_over_processes(x.mean(dim=(0, 2, 3)))
        x = x - mean[:, None, None]
        var = mean_over_processes(x.square().mean(dim=(0, 2, 3)))
        self._track(mean, var, count=distributed.get_world_size() * x.numel() / len(mean))
        x = x * (self.weight * (var + self.eps).rsqrt())[:, None, None] + self.bias[:, None, None]
        return x.to(dtype)

    @torch.no_grad()
    def _track(self, mean: Tensor, var: Tensor, count: float) -> None:
        """Move the running mean and, unbiased, the running variance of `count` values per channel."""
        self.num_batches_tracked.add_(1)  # type: ignore[union-attr]
        unbiased = var * count / (count - 1)
        for running, new in ((self.running_mean, mean), (self.running_var, unbiased)):
            running.lerp_(new.to(running), self.momentum)  # type: ignore[union-attr, arg-type]


class BaseCodeEncoder(nn.Module):
    """BDInvert's simple encoder.

    Per stage three times [conv 3x3, BatchNorm, leaky ReLU 0.2] and average pooling; then one more of these
    and a plain convolution, both with as many channels as the base code has.

    Args:
        outputs: channels C of the base code.
        stages: how often the image is halved.
        width: channels of the first stage; they double with each stage.
        width_max: the most channels a stage has.
    """

    def __init__(self, outputs: int, *, stages: int = 3, width: int = 128, width_max: int = 512) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = 3

        def block(channels: int) -> list[nn.Module]:
            return [nn.Conv2d(inputs, channels, 3, padding=1), BatchNorm(channels), nn.LeakyReLU(0.2)]

        for stage in range(stages):
            channels = min(width << stage, width_max)
            for _ in range(3):
                layers += block(channels)
                inputs = channels
            layers.append(nn.AvgPool2d(2))
        layers += block(outputs)
        layers.append(nn.Conv2d(outputs, outputs, 3, padding=1))
        self.model = nn.Sequential(*layers)
        for layer in self.model:
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="leaky_relu")
                nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def features(self, x: Tensor) -> Tensor:
        """Images (B, 3, H, W) -> what the last convolution turns into the base code, of its shape."""
        return self.model[:-1](x.contiguous(memory_format=torch.channels_last))

    def forward(self, x: Tensor) -> Tensor:
        return self.model[-1](self.features(x))


class Map2Style(nn.Module):
    """pSp's head: (B, I, H, W) -> (B, D), where H, W <= 2^convs, so that one pixel is left.

    `convs` times [conv 3x3 of stride 2, leaky ReLU 0.01], then an equalised linear layer.
    """

    def __init__(self, inputs: int, style_dim: int, convs: int) -> None:
        super().__init__()
        self.convs = nn.Sequential()
        for _ in range(convs):
            self.convs.append(nn.Conv2d(inputs, style_dim, 3, stride=2, padding=1))
            self.convs.append(nn.LeakyReLU(0.01))
            inputs = style_dim
        self.linear = EqualLinear(style_dim, style_dim)

    def forward(self, x: Tensor) -> Tensor:
        """Raises `ValueError` where more than one pixel is left."""
        x = self.convs(x)
        if x.shape[2:] != (1, 1):
            raise ValueError(
                f"expected a map of which {len(self.convs) // 2} convolutions leave one pixel, "
                f"got {tuple(x.shape[2:])} of it"
            )
        return self.linear(x.flatten(1))


class InversionEncoder(nn.Module):
    """Image -> (base code f, codes relative to the mean w).

    The heads read the features that the last convolution turns into f.

    Args:
        outputs: channels C of the 16x16 base code.
        style_dim: width D of w.
        codes: number of heads, one per code.
        stages, width, width_max: as in `BaseCodeEncoder`; images are (B, 3, 16 * 2^stages, 16 * 2^stages).
    """

    HEAD_CONVS = 4  # 16x16 -> 1x1

    def __init__(
        self, outputs: int, style_dim: int, codes: int, *, stages: int, width: int, width_max: int
    ) -> None:
        super().__init__()
        self.base = BaseCodeEncoder(outputs, stages=stages, width=width, width_max=width_max)
        self.heads = nn.ModuleList(Map2Style(outputs, style_dim, self.HEAD_CONVS) for _ in range(codes))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """(B, 3, H, W) -> f (B, C, 16, 16) and w - w_avg (B, codes, D), None without heads."""
        features = self.base.features(x)
        codes = None
        if len(self.heads):
            codes = torch.stack([head(features) for head in self.heads], dim=1)
        return self.base.model[-1](features), codes
