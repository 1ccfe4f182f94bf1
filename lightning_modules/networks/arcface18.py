"""The network that recognises a face's identity from its grey levels: ArcFace on ResNet-18.

Source  Deng et al., "ArcFace", arXiv:1801.07698, as published with TencentARC/GFPGAN@7552a77
        (gfpgan/archs/arcface_arch.py; gfpgan/models/gfpgan_model.py: gray_resize_for_identity), without
        squeeze and excitation. Parameters have the released names.
Shapes  images (B, 3, H, W) RGB in [-1, 1], aligned as in FFHQ -> embeddings (B, 512), of any length.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

SIDE = 128  # pixels
LUMA = (0.2989, 0.5870, 0.1140)
WIDTHS = (64, 128, 256, 512)


class GreyBlock(nn.Module):
    """PReLU(shortcut + [BN, conv 3x3, BN, PReLU, conv 3x3 of the stride, BN](x)), one slope for both."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.bn0 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, inputs, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(inputs)
        self.prelu = nn.PReLU()
        self.conv2 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample: nn.Module = nn.Identity()
        if stride > 1 or inputs != outputs:
            narrow = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.downsample = nn.Sequential(narrow, nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        y = self.prelu(self.bn1(self.conv1(self.bn0(x))))
        return self.prelu(self.bn2(self.conv2(y)) + self.downsample(x))


class GreyArcFace(nn.Module):
    """Eight residual blocks on the grey image, BatchNorm, a linear layer and BatchNorm."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, WIDTHS[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(WIDTHS[0])
        self.prelu = nn.PReLU()
        inputs = WIDTHS[0]
        for level, outputs in enumerate(WIDTHS, start=1):
            first = GreyBlock(inputs, outputs, stride=1 if level == 1 else 2)
            setattr(self, f"layer{level}", nn.Sequential(first, GreyBlock(outputs, outputs, stride=1)))
            inputs = outputs
        self.bn4 = nn.BatchNorm2d(inputs)
        self.fc5 = nn.Linear(inputs * (SIDE // 16) ** 2, 512)
        self.bn5 = nn.BatchNorm1d(512)

    def embed(self, face: Tensor) -> Tensor:
        """Grey faces (B, 1, 128, 128) -> (B, 512)."""
        x = F.max_pool2d(self.prelu(self.bn1(self.conv1(face))), 2)
        for level in range(1, len(WIDTHS) + 1):
            x = self.get_submodule(f"layer{level}")(x)
        return self.bn5(self.fc5(self.bn4(x).flatten(1)))

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, 512)."""
        return self.embed(grey_face(x))


def grey_face(x: Tensor) -> Tensor:
    """RGB (B, 3, H, W) -> luma (B, 1, 128, 128), resized bilinearly without antialias."""
    red, green, blue = (weight * channel for weight, channel in zip(LUMA, x.split(1, dim=1), strict=True))
    grey = red + green + blue
    return F.interpolate(grey, (SIDE, SIDE), mode="bilinear", align_corners=False)
