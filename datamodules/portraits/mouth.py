"""Mouth, the lines beside it, and beards."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from datamodules.portraits import textures
from datamodules.portraits.colours import colour
from datamodules.portraits.geometry import (
    Scalars,
    band,
    between,
    bump,
    coverage,
    over,
    spot,
    stamp,
    step,
    visible,
)
from datamodules.portraits.labels import LABEL


class Grid(NamedTuple):
    """A window's pixels in the coordinates of the mouth (B, h, w); lengths in half-heights of the head."""

    x: Tensor
    m: Tensor  # x in half-widths of the mouth
    m2: Tensor
    level: Tensor  # above the mouth's curved axis
    # levels of the lips' four edges
    top: Tensor
    inner_top: Tensor
    inner_bottom: Tensor
    bottom: Tensor
    size: int
    scale: Tensor  # pixels per unit


class Mouth:
    """What decides the mouth's shape: derived once, drawn window by window."""

    def __init__(self, p: Scalars, g: Scalars) -> None:
        self.p, self.g = p, g
        smile = p["smile"]
        self.glad = glad = smile.clamp(min=0.0)
        self.width = p["mouth_width"] * (1.0 + 0.24 * glad - 0.06 * p["mouth_open"])
        self.lift = 0.085 * smile
        self.skew = 0.022 * p["smirk"]
        self.y = p["mouth_y"] - 0.022 * smile
        self.gap = p["mouth_open"] * 0.15 + (glad - 0.35).clamp(min=0.0) * 0.075
        thin = 1.0 - 0.30 * glad - 0.25 * g["ageing"]
        self.upper, self.lower = p["lip_upper"] * thin, p["lip_lower"] * thin

    def corner(self, side: float) -> tuple[Tensor, Tensor]:
        """(x, y) of the head; side -1 left, 1 right."""
        return self.width * side, self.y + self.lift + self.skew * side

    def draw(self, x: Tensor, y: Tensor, size: int, albedo: Tensor, parts: Tensor) -> None:
        """Paint over albedo (B, 3, h, w) and labels `parts` (B, h, w) at the head's (x, y), in place."""
        lips = self.g["lips"]
        at = self._grid(x, y, size)
        level = at.level
        upper = between(level, at.inner_top, at.top, at.scale * 0.85)
        lower = between(level, at.bottom, at.inner_bottom, at.scale * 0.85)
        inside = between(level, at.inner_bottom, at.inner_top, at.scale * 0.9)
        self._lines(at, albedo)
        over(albedo, lips * 0.80, upper)
        over(albedo, lips, lower)
        if size >= textures.SMALLEST:
            creases = textures.sample("strands", x * 150.0 + 90.0, level * 60.0, size)
            creases.mul_(0.25).clamp_(0.0, 0.5)
            over(albedo, lips * 0.35, creases.mul_(torch.maximum(upper, lower)))
        shine = spot(x * 8.0, (level - (at.inner_bottom + at.bottom) * 0.5) * 42.0)
        over(albedo, (lips * 1.8 + 0.10).clamp(max=1.0), shine.mul_(0.45).mul_(lower))
        self._inside(at, inside, albedo)
        # the line where the lips meet, in closed mouths
        seam = band(level - (at.inner_top + at.inner_bottom) * 0.5, 0.008, at.scale)
        seam.mul_((1.0 - at.m2).mul_(9.0).clamp_(0.0, 1.0))
        over(albedo, lips * 0.22, seam.mul_(1.0 - inside))
        for name, region in (("u_lip", upper), ("l_lip", lower), ("mouth", inside)):
            stamp(parts, region > 0.5, LABEL[name])

    def _grid(self, x: Tensor, y: Tensor, size: int) -> Grid:
        """The pixels at the head's (x, y)."""
        m = x * (1.0 / self.width)
        m2 = m * m
        arch = (1.0 - m2).clamp_(min=-1.0)
        level = y - self.y - self.lift * m2 - self.skew * m
        gap = self.gap * arch
        inner_top, inner_bottom = gap * 0.42, gap * -0.58
        bow = 1.0 - 0.34 * bump(m2 * 12.0)
        top = inner_top + self.upper * arch * bow
        bottom = inner_bottom - self.lower * arch * (1.0 + 0.25 * arch)
        scale = self.p["zoom"] * (0.5 * size)
        return Grid(x, m, m2, level, top, inner_top, inner_bottom, bottom, size, scale)

    def _lines(self, at: Grid, albedo: Tensor) -> None:
        """Folds from the nose to the corners and below them, deeper with age and smile; corners; shadows."""
        p, g = self.p, self.g
        x, level = at.x, at.level
        side = x.abs()
        fold = self.width + 0.045 - 0.42 * (level - 0.02).clamp_(min=0.0)
        dark = spot((side - fold) * 20.0, (level - 0.10) * 6.8)
        dark.mul_(0.10 + 0.40 * g["wrinkles"] + 0.30 * self.glad)
        sad = (-p["smile"]).clamp(min=0.0)
        below = spot((side - self.width - 0.02) * 26.0, (level + 0.09) * 9.0)
        dark.add_(below.mul_(0.45 * g["wrinkles"] + 0.25 * sad))
        corner = spot((side - self.width) * 20.0, (level - self.lift * (1.0 - at.m2)) * 26.0)
        dark.add_(corner.mul_(0.35))
        under_lip = spot(x * 5.0, (level - at.bottom + 0.03) * 20.0)
        dark.add_(under_lip.mul_(0.30))
        groove = spot(x * 26.0, (level - at.top - 0.05) * 16.0)  # from the nose to the lip
        dark.add_(groove.mul_(0.18))
        over(albedo, g["skin"] * g["shade"], dark.clamp_(max=1.0))

    def _inside(self, at: Grid, inside: Tensor, albedo: Tensor) -> None:
        """Teeth above and below, gums, and the tongue."""
        g = self.g
        level, inner_top, inner_bottom = at.level, at.inner_top, at.inner_bottom
        over(albedo, g["lips"] * 0.10, inside)
        tongue = spot(at.m * 1.5, (level - inner_bottom - 0.012) * 15.0)
        over(albedo, g["lips"] * 0.60, tongue.mul_(inside))

        edge = inner_top - 0.058 + 0.02 * at.m2
        above = between(level, edge, inner_top, at.scale)
        below = coverage(inner_bottom + 0.022 - level, at.scale)
        below.mul_((inner_top - inner_bottom).mul_(12.0).sub_(0.5).clamp_(0.0, 0.75))
        teeth = torch.maximum(above, below).mul_(inside).mul_((1.0 - 0.6 * at.m2).clamp_(min=0.0))
        bone = colour(self.gap, 0.80, 0.77, 0.68) * (1.0 - 0.18 * g["ageing"]).unsqueeze(1)
        over(albedo, bone, teeth)
        fine = visible(at.size, 40.0)
        if fine > 0:
            tooth = at.x * (21.0 - 9.0 * at.x.abs()) + 0.5
            tooth.sub_(torch.floor(tooth)).sub_(0.5).abs_()
            gums = coverage(level - inner_top + 0.012 + 0.02 * (tooth - 0.25), at.scale)
            over(albedo, g["lips"] * 0.9, gums.mul_(inside).mul_(teeth).mul_(0.5))
            gaps = (1.0 - tooth * 14.0).clamp_(min=0.0)
            over(albedo, bone * 0.35, gaps.mul_(teeth).mul_(0.55 * fine))

    def draw_beard(self, x: Tensor, y: Tensor, size: int, albedo: Tensor) -> None:
        """Beard and moustache, over the skin and beneath the lips."""
        p = self.p
        side = x.abs()
        lip = y - self.y
        # the cheeks' line falls from the sideburn to the mouth's corner, the jaw below is bearded
        line = -0.50 + 0.95 * (side - 0.22).clamp_(min=0.0).square_() - 0.1 * (0.25 - side).clamp_(min=0.0)
        rough: Tensor | float = 0.0
        if size >= textures.SMALLEST:
            across = side * 300.0 + x * 40.0 - lip * 130.0 + 300.0
            rough = textures.sample("strands", across, y * 480.0 + side * 240.0, size)
            line = line + rough * 0.02
        grown = step(line - y, -0.08, 0.16)
        lip_free = spot(x * 4.4, (lip + 0.02) * 9.0)
        grown.mul_((1.0 - lip_free * 1.5).clamp_(min=0.0))
        grown.mul_((0.80 - side).mul_(8.0).clamp_(0.0, 1.0)).mul_(p["beard"])  # not behind the ears
        over_lip = spot(x * 2.9, (lip - 0.120 + 0.5 * side * side + rough * 0.008) * 8.5)
        over_lip = (over_lip * 2.0).clamp_(max=1.0).mul_(p["moustache"])
        density = torch.maximum(grown, over_lip)
        if isinstance(rough, Tensor):  # sparse hair shows skin between the hairs
            hairs = (rough * 0.22 + 0.55).add_(density * 0.50).clamp_(0.0, 1.25)
            density.mul_(hairs).clamp_(max=1.0)
        over(albedo, self.g["hair"] * 0.8, density.mul_(0.93))
