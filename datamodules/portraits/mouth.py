"""Mouth, the lines beside it, and beards."""

from __future__ import annotations

import torch
from torch import Tensor

from datamodules.portraits import textures
from datamodules.portraits.geometry import Scalars, band, between, bump, coverage, over, stamp, step, visible
from datamodules.portraits.labels import LABEL


class Mouth:
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
        g = self.g
        scale = self.p["zoom"] * (0.5 * size)
        m = x * (1.0 / self.width)
        m2 = m * m
        arch = (1.0 - m2).clamp_(min=-1.0)
        level = y - self.y - self.lift * m2 - self.skew * m
        gap = self.gap * arch
        inner_top, inner_bottom = gap * 0.42, gap * -0.58
        bow = 1.0 - 0.34 * bump(m2 * 12.0)
        top = inner_top + self.upper * arch * bow
        bottom = inner_bottom - self.lower * arch * (1.0 + 0.25 * arch)
        upper = between(level, inner_top, top, scale * 0.85)
        lower = between(level, bottom, inner_bottom, scale * 0.85)
        inside = between(level, inner_bottom, inner_top, scale * 0.9)
        self._lines(x, m2, level, top, bottom, scale, albedo)
        over(albedo, g["lips"] * 0.80, upper)
        over(albedo, g["lips"], lower)
        if size >= textures.SMALLEST:
            grade = textures.level(size)
            creases = textures.look("strands", textures.locate(x * 150.0 + 90.0, level * 60.0, grade), grade)
            part = torch.maximum(upper, lower)
            over(albedo, g["lips"] * 0.35, creases.mul_(0.25).clamp_(0.0, 0.5).mul_(part))
        shine = bump((x * 8.0).square_().add_(((level - (inner_bottom + bottom) * 0.5) * 42.0).square_()))
        over(albedo, (g["lips"] * 1.8 + 0.10).clamp(max=1.0), shine.mul_(0.45).mul_(lower))
        self._inside(x, m, m2, level, inner_top, inner_bottom, inside, size, scale, albedo)
        # the line where the lips meet, in closed mouths
        seam = band(level - (inner_top + inner_bottom) * 0.5, 0.008, scale).mul_(
            (1.0 - m2).mul_(9.0).clamp_(0.0, 1.0)
        )
        over(albedo, g["lips"] * 0.22, seam.mul_(1.0 - inside))
        for name, region in (("u_lip", upper), ("l_lip", lower), ("mouth", inside)):
            stamp(parts, region > 0.5, LABEL[name])

    def _lines(
        self, x: Tensor, m2: Tensor, level: Tensor, top: Tensor, bottom: Tensor, scale: Tensor, albedo: Tensor
    ) -> None:
        """Folds from the nose to the corners and below them, deeper with age and smile; the corners; the shadow below the lip."""
        p, g = self.p, self.g
        side = x.abs()
        fold = self.width + 0.045 - 0.42 * (level - 0.02).clamp_(min=0.0)
        dark = bump(((side - fold) * 20.0).square_().add_(((level - 0.10) * 6.8).square_())).mul_(
            0.10 + 0.40 * g["wrinkles"] + 0.30 * self.glad
        )
        sad = (-p["smile"]).clamp(min=0.0)
        dark.add_(
            bump(((side - self.width - 0.02) * 26.0).square_().add_(((level + 0.09) * 9.0).square_())).mul_(
                0.45 * g["wrinkles"] + 0.25 * sad
            )
        )
        dark.add_(
            bump(
                ((side - self.width) * 20.0)
                .square_()
                .add_(((level - self.lift * (1.0 - m2)) * 26.0).square_())
            ).mul_(0.35)
        )
        dark.add_(bump((x * 5.0).square_().add_(((level - bottom + 0.03) * 20.0).square_())).mul_(0.30))
        groove = bump(
            (x * 26.0).square_().add_(((level - top - 0.05) * 16.0).square_())
        )  # from the nose to the lip
        dark.add_(groove.mul_(0.18))
        over(albedo, g["skin"] * g["shade"], dark.clamp_(max=1.0))

    def _inside(
        self, x: Tensor, m: Tensor, m2: Tensor, level: Tensor, inner_top: Tensor, inner_bottom: Tensor, inside: Tensor, size: int,
        scale: Tensor, albedo: Tensor,
    ) -> None:  # fmt: skip
        """Teeth above and below, and the tongue."""
        g = self.g
        over(albedo, g["lips"] * 0.10, inside)
        tongue = bump((m * 1.5).square_().add_(((level - inner_bottom - 0.012) * 15.0).square_()))
        over(albedo, g["lips"] * 0.60, tongue.mul_(inside))
        edge = inner_top - 0.058 + 0.02 * m2
        teeth = between(level, edge, inner_top, scale)
        below = coverage(inner_bottom + 0.022 - level, scale).mul_(
            (inner_top - inner_bottom).mul_(12.0).sub_(0.5).clamp_(0.0, 0.75)
        )
        teeth = torch.maximum(teeth, below).mul_(inside).mul_((1.0 - 0.6 * m2).clamp_(min=0.0))
        bone = torch.cat([torch.full_like(self.gap, c) for c in (0.80, 0.77, 0.68)], 1).unsqueeze(-1) * (
            1.0 - 0.18 * g["ageing"]
        ).unsqueeze(1)
        over(albedo, bone, teeth)
        fine = visible(size, 40.0)
        if fine > 0:
            tooth = x * (21.0 - 9.0 * x.abs()) + 0.5
            tooth = tooth.sub_(torch.floor(tooth)).sub_(0.5).abs_()
            gums = (
                coverage(level - inner_top + 0.012 + 0.02 * (tooth - 0.25), scale)
                .mul_(inside)
                .mul_(teeth)
                .mul_(0.5)
            )
            over(albedo, g["lips"] * 0.9, gums)
            over(albedo, bone * 0.35, (1.0 - tooth * 14.0).clamp_(min=0.0).mul_(teeth).mul_(0.55 * fine))

    def draw_beard(self, x: Tensor, y: Tensor, size: int, albedo: Tensor) -> None:
        """Beard and moustache, over the skin and beneath the lips."""
        p, g = self.p, self.g
        side = x.abs()
        # the cheeks' line falls from the sideburn to the mouth's corner, the jaw below is bearded
        line = -0.50 + 0.95 * (side - 0.22).clamp_(min=0.0).square_() - 0.1 * (0.25 - side).clamp_(min=0.0)
        lip = y - self.y
        rough: Tensor | float = 0.0
        if size >= textures.SMALLEST:
            level = textures.level(size)
            place = textures.locate(
                side * 300.0 + x * 40.0 - lip * 130.0 + 300.0, y * 480.0 + side * 240.0, level
            )
            rough = textures.look("strands", place, level)
            line = line + rough * 0.02
        grown = step(line - y, -0.08, 0.16)
        lip_free = bump((x * 4.4).square_().add_(((lip + 0.02) * 9.0).square_()))
        grown.mul_((1.0 - lip_free * 1.5).clamp_(min=0.0)).mul_(
            (0.80 - side).mul_(8.0).clamp_(0.0, 1.0)
        ).mul_(p["beard"])  # not behind the ears
        over_lip = bump(
            (x * 2.9).square_().add_(((lip - 0.120 + 0.5 * side * side + rough * 0.008) * 8.5).square_())
        )
        over_lip = (over_lip * 2.0).clamp_(max=1.0).mul_(p["moustache"])
        density = torch.maximum(grown, over_lip)
        if isinstance(rough, Tensor):  # sparse hair shows skin between the hairs
            density.mul_((rough * 0.22 + 0.55).add_(density * 0.50).clamp_(0.0, 1.25)).clamp_(max=1.0)
        over(albedo, g["hair"] * 0.8, density.mul_(0.93))
