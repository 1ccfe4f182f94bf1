"""The network that finds 98 landmarks of a face: four stacked hourglasses that know where they look.

Source  Wang, Bo, Li, "Adaptive Wing Loss for Robust Face Alignment via Heatmap Regression", arXiv:1904.07399,
        section 5, as released for WFLW with xinntao/facexlib@9f609b1 (facexlib/alignment/awing_arch.py),
        which VQFR measures with. Parameters have the released names.
Differs A landmark at the heatmap's border is not moved towards a neighbour that lies outside. The release
        takes the next value in memory there, for all landmarks of the image in the first and last rows.
Shapes  images (B, 3, H, W) RGB in [0, 1], resized to 256 px -> landmarks (B, 98, 2), x and y in [0, 1] of
        width and height.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SIDE = 256  # pixels
HEAT = 64  # pixels of a heatmap
LANDMARKS = 98  # of WFLW; one more heatmap shows the boundaries of the parts of a face
STACKS, DEPTH, WIDTH = 4, 4, 256
VISIBLE = 0.05  # of a boundary
TOWARDS = 0.25  # of a pixel, in which a maximum lies nearer to its larger neighbour


def coordinates(x: Tensor) -> Tensor:
    """Row, column and distance from the centre of every pixel of x (B, C, S, S) -> (1, 3, S, S).

    The first two are in [-1, 1], the third in [0, 1].
    """
    along = torch.linspace(-1, 1, x.shape[-1], device=x.device, dtype=x.dtype)
    rows, columns = torch.meshgrid(along, along, indexing="ij")
    radius = (rows.square() + columns.square()).sqrt()
    return torch.stack([rows, columns, radius / radius.max()])[None]


class CoordConv(nn.Module):
    """A convolution that sees coordinates beside the features, and those of visible boundaries again."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, boundary: bool) -> None:
        super().__init__()
        more = 5 if boundary else 3
        self.conv = nn.Conv2d(inputs + more, outputs, kernel, stride, padding=kernel // 2)

    def forward(self, x: Tensor, boundary: Tensor | None = None) -> Tensor:
        """x (B, C, S, S); boundary (B, 1, S, S), None where the convolution sees none."""
        places = coordinates(x).expand(len(x), -1, -1, -1)
        seen = [x, places]
        if boundary is not None:
            visible = boundary.clamp(0, 1) > VISIBLE
            seen.append(torch.where(visible, places[:, :2], torch.zeros_like(places[:, :2])))
        return self.conv(torch.cat(seen, dim=1))


class Block(nn.Module):
    """Three BN-ReLU-conv 3x3, each on the one before, joined to half, a quarter and a quarter; residual."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        half, quarter = outputs // 2, outputs // 4
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, half, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(half)
        self.conv2 = nn.Conv2d(half, quarter, 3, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(quarter)
        self.conv3 = nn.Conv2d(quarter, quarter, 3, padding=1, bias=False)
        self.downsample: nn.Module = nn.Identity()
        if inputs != outputs:
            wider = nn.Conv2d(inputs, outputs, 1, bias=False)
            self.downsample = nn.Sequential(nn.BatchNorm2d(inputs), nn.ReLU(), wider)

    def forward(self, x: Tensor) -> Tensor:
        first = self.conv1(F.relu(self.bn1(x)))
        second = self.conv2(F.relu(self.bn2(first)))
        third = self.conv3(F.relu(self.bn3(second)))
        return torch.cat([first, second, third], dim=1) + self.downsample(x)


class Hourglass(nn.Module):
    """Halves its features four times and comes back, with a shortcut at every size."""

    def __init__(self, boundary: bool) -> None:
        super().__init__()
        self.coordconv = CoordConv(WIDTH, WIDTH, kernel=1, stride=1, boundary=boundary)
        for level in range(1, DEPTH + 1):
            for part in ("b1", "b2", "b3"):
                setattr(self, f"{part}_{level}", Block(WIDTH, WIDTH))
        self.b2_plus_1 = Block(WIDTH, WIDTH)

    def forward(self, x: Tensor, boundary: Tensor | None) -> Tensor:
        return self._pass(DEPTH, self.coordconv(x, boundary))

    def _pass(self, level: int, x: Tensor) -> Tensor:
        small = self.get_submodule(f"b2_{level}")(F.avg_pool2d(x, 2))
        small = self._pass(level - 1, small) if level > 1 else self.b2_plus_1(small)
        small = self.get_submodule(f"b3_{level}")(small)
        return self.get_submodule(f"b1_{level}")(x) + F.interpolate(small, scale_factor=2, mode="nearest")


class LandmarkNetwork(nn.Module):
    """Heatmaps of the landmarks, refined from one hourglass to the next."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = CoordConv(3, 64, kernel=7, stride=2, boundary=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.conv2, self.conv3, self.conv4 = Block(64, 128), Block(128, 128), Block(128, WIDTH)
        for i in range(STACKS):
            setattr(self, f"m{i}", Hourglass(boundary=i > 0))
            setattr(self, f"top_m_{i}", Block(WIDTH, WIDTH))
            setattr(self, f"conv_last{i}", nn.Conv2d(WIDTH, WIDTH, 1))
            setattr(self, f"bn_end{i}", nn.BatchNorm2d(WIDTH))
            setattr(self, f"l{i}", nn.Conv2d(WIDTH, LANDMARKS + 1, 1))
            if i < STACKS - 1:
                setattr(self, f"bl{i}", nn.Conv2d(WIDTH, WIDTH, 1))
                setattr(self, f"al{i}", nn.Conv2d(LANDMARKS + 1, WIDTH, 1))

    def heatmaps(self, face: Tensor) -> Tensor:
        """Faces (B, 3, 256, 256) RGB in [0, 1] -> (B, 99, 64, 64), of which the last is the boundary's."""
        x = self.conv2(F.relu(self.bn1(self.conv1(face))))
        x = self.conv4(self.conv3(F.avg_pool2d(x, 2)))
        boundary = None
        for i in range(STACKS):
            y = self.get_submodule(f"top_m_{i}")(self.get_submodule(f"m{i}")(x, boundary))
            y = self.get_submodule(f"conv_last{i}")(y)
            y = F.relu(self.get_submodule(f"bn_end{i}")(y))
            heat = self.get_submodule(f"l{i}")(y)
            boundary = heat[:, -1:]
            if i < STACKS - 1:
                x = x + self.get_submodule(f"bl{i}")(y) + self.get_submodule(f"al{i}")(heat)
        return heat

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, 98, 2)."""
        return maxima(self.heatmaps(resized(x))[:, :-1]) / HEAT


def resized(x: Tensor) -> Tensor:
    """RGB in [0, 1] at 256 px, bilinearly without antialias, rounded to whole grey levels as OpenCV does."""
    small = F.interpolate(x, (SIDE, SIDE), mode="bilinear", align_corners=False)
    return (255 * small + 0.5).floor() / 255


def maxima(heat: Tensor) -> Tensor:
    """Where each map (B, N, S, S) is largest, x and y of pixel centres (B, N, 2).

    They are a quarter of a pixel nearer to the larger neighbour, in x and in y.
    """
    side = heat.shape[-1]
    values = heat.flatten(2)
    index = values.argmax(dim=2)
    x, y = index % side, index // side

    def at(x: Tensor, y: Tensor) -> Tensor:
        place = y.clamp(0, side - 1) * side + x.clamp(0, side - 1)
        return values.gather(2, place[..., None])[..., 0]

    right = (at(x + 1, y) - at(x - 1, y)).sign()
    down = (at(x, y + 1) - at(x, y - 1)).sign()
    inside_x, inside_y = (x > 0) & (x < side - 1), (y > 0) & (y < side - 1)
    moved = torch.stack([right * inside_x, down * inside_y], dim=2)
    return torch.stack([x, y], dim=2) + 0.5 + TOWARDS * moved
