"""BiSeNet for faces: a class for every pixel, from a ResNet-18 and two paths that are fused.

Source  Yu et al., "BiSeNet: Bilateral Segmentation Network for Real-time Semantic Segmentation",
        arXiv:1808.00897, section 3, as zllrunning/face-parsing.PyTorch@d2e684c (model.py) has it: the stage
        of the ResNet at an eighth takes the place of the spatial path. Parameters have its names.
Differs `width` scales all channels, as 64 they are the released ones.
Shapes  x (B, 3, H, W) RGB in [0, 1], of any size from 32 up; scores (B, C, H, W), before the softmax.
Raises  ValueError: images of another shape, a width below 4.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock

from lightning_modules.networks.ops import means_of_enlarged

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet
LEAST = 32  # pixels: the deepest features are of one then


def unit(inputs: int, outputs: int, kernel: int = 3) -> nn.Sequential:
    """A convolution that keeps the size, normalised over the batch, and a ReLU."""
    conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
    return nn.Sequential(OrderedDict(conv=conv, bn=nn.BatchNorm2d(outputs), relu=nn.ReLU(inplace=True)))


def mean_of(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, C, 1, 1)."""
    return x.mean((2, 3), keepdim=True)


def enlarged(x: Tensor, like: Tensor) -> Tensor:
    """x by nearest neighbour, as large as another feature."""
    return F.interpolate(x, like.shape[2:])


class ResNet18(nn.Module):
    """ImageNet's ResNet-18 without its head: features at an eighth, a sixteenth and a thirty-second."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1 = stage(width, width, stride=1)
        self.layer2 = stage(width, 2 * width, stride=2)
        self.layer3 = stage(2 * width, 4 * width, stride=2)
        self.layer4 = stage(4 * width, 8 * width, stride=2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = self.maxpool(F.relu(self.bn1(self.conv1(x))))
        eighth = self.layer2(self.layer1(x))
        sixteenth = self.layer3(eighth)
        return eighth, sixteenth, self.layer4(sixteenth)


def stage(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    """Two residual blocks."""
    shortcut = None
    if stride > 1:
        conv = nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False)
        shortcut = nn.Sequential(conv, nn.BatchNorm2d(outputs))
    return nn.Sequential(BasicBlock(inputs, outputs, stride, shortcut), BasicBlock(outputs, outputs))


class Attention(nn.Module):
    """Features, each channel weighed by what the mean over the image says (section 3.2)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = unit(inputs, outputs)
        self.conv_atten = nn.Conv2d(outputs, outputs, 1, bias=False)
        self.bn_atten = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return x * self.bn_atten(self.conv_atten(mean_of(x))).sigmoid()


class ContextPath(nn.Module):
    """What is seen from far: the ResNet's deep features and their mean, handed back to higher resolutions."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.resnet = ResNet18(width)
        self.arm16 = Attention(4 * width, 2 * width)
        self.arm32 = Attention(8 * width, 2 * width)
        self.conv_head32 = unit(2 * width, 2 * width)
        self.conv_head16 = unit(2 * width, 2 * width)
        self.conv_avg = unit(8 * width, 2 * width, kernel=1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The ResNet's features at an eighth, and the path's at an eighth and a sixteenth."""
        eighth, sixteenth, deepest = self.resnet(x)
        deep = self.arm32(deepest) + self.conv_avg(mean_of(deepest))
        deep = self.conv_head32(enlarged(deep, sixteenth))
        context = self.arm16(sixteenth) + deep
        return eighth, self.conv_head16(enlarged(context, eighth)), deep


class Fusion(nn.Module):
    """The features of both paths in one, channels weighed by their mean over the image (section 3.2)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.convblk = unit(4 * width, 4 * width, kernel=1)
        self.conv1 = nn.Conv2d(4 * width, width, 1, bias=False)
        self.conv2 = nn.Conv2d(width, 4 * width, 1, bias=False)

    def forward(self, spatial: Tensor, context: Tensor) -> Tensor:
        x = self.convblk(torch.cat([spatial, context], dim=1))
        weights = self.conv2(F.relu(self.conv1(mean_of(x)))).sigmoid()
        return x * weights + x


class Head(nn.Module):
    """Features -> scores of the classes at the size of the image, or their means at `means_at` px."""

    def __init__(self, inputs: int, hidden: int, classes: int) -> None:
        super().__init__()
        self.conv = unit(inputs, hidden)
        self.conv_out = nn.Conv2d(hidden, classes, 1, bias=False)

    def forward(self, x: Tensor, size: torch.Size, means_at: int | None) -> Tensor:
        scores = self.conv_out(self.conv(x))
        if means_at is not None:
            return means_of_enlarged(scores, size, means_at)
        return F.interpolate(scores, size, mode="bilinear", align_corners=True)


class BiSeNet(nn.Module):
    """Scores of every pixel's classes: the result, and two of the context path that help its training.

    `forward` gives them at the size of the images, or their area means at `means_at` px, for which it makes
    no large images of scores. Without `auxiliary` it gives the result alone.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, classes: int = 19, width: int = 64) -> None:
        super().__init__()
        if width < 4:
            raise ValueError(f"width {width}: expected at least 4")
        self.cp = ContextPath(width)
        self.ffm = Fusion(width)
        self.conv_out = Head(4 * width, 4 * width, classes)
        self.conv_out16 = Head(2 * width, width, classes)
        self.conv_out32 = Head(2 * width, width, classes)
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("deviation", torch.tensor(DEVIATION).view(1, 3, 1, 1), persistent=False)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, a=1)  # gain 1, as the release

    def forward(
        self, x: Tensor, means_at: int | None = None, *, auxiliary: bool = True
    ) -> tuple[Tensor, ...]:
        if x.ndim != 4 or x.shape[1] != 3 or min(x.shape[2:]) < LEAST:
            shape = tuple(x.shape)
            raise ValueError(
                f"expected images in [0, 1] as (B, 3, H, W), of at least {LEAST} px, got {shape}"
            )
        size = x.shape[2:]
        spatial, context, deep = self.cp((x - self.mean) / self.deviation)
        scores = self.conv_out(self.ffm(spatial, context), size, means_at)
        if not auxiliary:
            return (scores,)
        return scores, self.conv_out16(context, size, means_at), self.conv_out32(deep, size, means_at)

    def heads(self) -> tuple[nn.Module, ...]:
        """What the release trains ten times as fast as the context path."""
        return self.ffm, self.conv_out, self.conv_out16, self.conv_out32
