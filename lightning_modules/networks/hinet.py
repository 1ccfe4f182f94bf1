"""HINet: two U-Nets in sequence, whose encoders normalise half of their channels over each image.

Source  Chen, Lu, Zhang, Chu, Chen, "HINet: Half Instance Normalization Network for Image Restoration",
        arXiv:2105.06086, section 3; numerics and names as in megvii-model/HINet@4e72315
        (basicsr/models/archs/hinet_arch.py): a released state_dict loads as it is. Cross-stage feature fusion
        (CSFF) and the supervised attention module (SAM) are those of MPRNet, arXiv:2102.02808.
Differs any size: images are extended by reflection at the right and bottom (by their last row and column
        where they are too small for that) and cropped again; the released class takes multiples of 16 only.
        The statistics of HIN include the extension.
Shapes  x (B, 3, H, W) RGB in [0, 1] of any size; both outputs (B, 3, H, W), nominally in [0, 1], never
        clamped.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import zip_longest

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def conv3x3(i: int, o: int) -> nn.Conv2d:
    return nn.Conv2d(i, o, 3, padding=1)


class ConvBlock(nn.Module):
    """Two 3x3 convolutions beside a 1x1 one: features, and those at half the resolution.

    Args:
        i: channels of the input.
        o: channels of the output.
        hin: half instance normalisation (figure 3a) after the first convolution.
        csff: the features of stage 1 are added to the result.
        down: without it the second output is the first one again.
    """

    def __init__(self, i: int, o: int, *, hin: bool = False, csff: bool = False, down: bool = False) -> None:
        super().__init__()
        self.identity = nn.Conv2d(i, o, 1)
        self.conv_1, self.conv_2 = conv3x3(i, o), conv3x3(o, o)
        if csff:
            self.csff_enc, self.csff_dec = conv3x3(o, o), conv3x3(o, o)
        self.norm = nn.InstanceNorm2d(o // 2, affine=True) if hin else None
        self.downsample = nn.Conv2d(o, o, 4, stride=2, padding=1, bias=False) if down else nn.Identity()

    def forward(self, x: Tensor, stage_1: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, Tensor]:
        """Features (B, i, H, W) and, with `csff`, both of stage 1 -> (B, o, H, W) and its half."""
        u = self.conv_1(x)
        if self.norm is not None:
            first, second = u.chunk(2, dim=1)
            u = torch.cat([self.norm(first), second], dim=1)
        u = self.conv_2(F.leaky_relu(u, 0.2))
        u = F.leaky_relu(u, 0.2) + self.identity(x)
        if stage_1 is not None:
            encoded, decoded = stage_1
            u = u + self.csff_enc(encoded) + self.csff_dec(decoded)
        return u, self.downsample(u)


class UpBlock(nn.Module):
    """Twice the resolution, joined by the encoder's features of that level."""

    def __init__(self, i: int, o: int) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(i, o, 2, stride=2)
        self.conv_block = ConvBlock(2 * o, o)

    def forward(self, x: Tensor, bridge: Tensor) -> Tensor:
        return self.conv_block(torch.cat([self.up(x), bridge], dim=1))[0]


class SAM(nn.Module):
    """Features of stage 1 -> (those, weighted by what its image looks like; its image, out_1)."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.conv1, self.conv2, self.conv3 = conv3x3(c, c), conv3x3(c, 3), conv3x3(3, c)

    def forward(self, x: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
        out_1 = self.conv2(x) + image
        return self.conv1(x) * self.conv3(out_1).sigmoid() + x, out_1


class HINetwork(nn.Module):
    """Degraded image in, the images of both stages out; the second is the restored one.

    Args:
        wf: channels at full resolution; they double with each level.
        depth: number of levels, at least 2.
        hin: first and last level whose encoders, in both stages, have half instance normalisation; level 0 is
            full resolution.

    Raises:
        ValueError: an odd wf, a depth below 2, or levels that there are not.
    """

    def __init__(self, wf: int = 64, depth: int = 5, hin: tuple[int, int] = (3, 4)) -> None:
        super().__init__()
        if wf < 2 or wf % 2 or depth < 2:
            raise ValueError(f"expected an even wf and a depth of at least 2, got wf {wf}, depth {depth}")
        if not 0 <= hin[0] <= hin[1] < depth:
            raise ValueError(
                f"expected hin as first and last of the levels 0 to {depth - 1}, got {tuple(hin)}"
            )
        self.multiple = 2 ** (depth - 1)

        def encoder(stage: int) -> nn.ModuleList:
            levels = nn.ModuleList()
            for level in range(depth):
                i, o = wf << max(level - 1, 0), wf << level
                normalised, down = hin[0] <= level <= hin[1], level < depth - 1
                levels.append(ConvBlock(i, o, hin=normalised, csff=down and stage == 2, down=down))
            return levels

        widths = [wf << level for level in reversed(range(depth - 1))]  # of the decoders, rising
        self.conv_01, self.conv_02 = conv3x3(3, wf), conv3x3(3, wf)
        self.down_path_1, self.down_path_2 = encoder(1), encoder(2)
        self.up_path_1 = nn.ModuleList(UpBlock(2 * width, width) for width in widths)
        self.up_path_2 = nn.ModuleList(UpBlock(2 * width, width) for width in widths)
        self.skip_conv_1 = nn.ModuleList(conv3x3(width, width) for width in widths)
        self.skip_conv_2 = nn.ModuleList(conv3x3(width, width) for width in widths)
        self.sam12 = SAM(wf)
        self.cat12 = nn.Conv2d(2 * wf, wf, 1)
        self.last = conv3x3(wf, 3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, H, W) in [0, 1] -> two images of that shape."""
        if x.ndim != 4 or x.shape[1] != 3:
            raise ValueError(f"expected images as (B, 3, H, W), got {tuple(x.shape)}")
        height, width = x.shape[2:]
        image = self.extended(x)

        encoded = self.encode(self.down_path_1, self.conv_01(image))
        decoded = self.decode(self.up_path_1, self.skip_conv_1, encoded)
        attended, out_1 = self.sam12(decoded[-1], image)

        u = self.cat12(torch.cat([self.conv_02(image), attended], dim=1))
        stage_1 = zip(encoded[:-1], reversed(decoded), strict=True)
        encoded = self.encode(self.down_path_2, u, stage_1)
        u = self.decode(self.up_path_2, self.skip_conv_2, encoded)[-1]
        out_2 = self.last(u) + image
        return out_1[:, :, :height, :width], out_2[:, :, :height, :width]

    @staticmethod
    def encode(path: nn.ModuleList, u: Tensor, stage_1: Iterable[tuple[Tensor, Tensor]] = ()) -> list[Tensor]:
        """The features of every level from full resolution down.

        `stage_1` is what CSFF adds at all levels but the lowest.
        """
        encoded = []
        for block, pair in zip_longest(path, stage_1):
            features, u = block(u, pair)
            encoded.append(features)
        return encoded

    @staticmethod
    def decode(path: nn.ModuleList, skips: nn.ModuleList, encoded: list[Tensor]) -> list[Tensor]:
        """The features of every level but the lowest, up to full resolution."""
        u = encoded[-1]
        decoded = []
        for up, skip, bridge in zip(path, skips, encoded[-2::-1], strict=True):
            u = up(u, skip(bridge))
            decoded.append(u)
        return decoded

    def extended(self, x: Tensor) -> Tensor:
        """x, extended at the right and bottom to multiples of 2^(depth - 1)."""
        m = self.multiple
        height, width = x.shape[2:]
        down, right = -height % m, -width % m
        if height + down == width + right == m:  # a single pixel at the lowest level, which has no statistics
            down, right = 2 * m - height, 2 * m - width
        possible = down < height and right < width
        return F.pad(x, (0, right, 0, down), mode="reflect" if possible else "replicate")
