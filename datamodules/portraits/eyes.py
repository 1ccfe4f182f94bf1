"""Eyes, lids, brows, and the lines around them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from datamodules.portraits import textures
from datamodules.portraits.geometry import (
    Scalars,
    band,
    between,
    bump,
    coverage,
    over,
    spot,
    stamp,
    visible,
    wave,
)
from datamodules.portraits.labels import LABEL


class Grid(NamedTuple):
    """A window's pixels in the coordinates of the eyes (B, h, w); lengths in half-heights of the head."""

    x: Tensor
    y: Tensor
    sign: Tensor  # -1 left, 1 right
    out: Tensor  # outwards from the eye's middle
    e: Tensor  # `out` in half-widths of the eye
    e2: Tensor
    level: Tensor  # above the eye's axis, which slants
    lid: Tensor  # level of the upper lid's edge
    low: Tensor  # level of the lower lid's edge, negated
    size: int
    scale: Tensor  # pixels per unit


class Eyes:
    """Both eyes and brows at once, on |x| of the head.

    Only gaze, brow_skew and labels tell left from right.
    """

    def __init__(self, p: Scalars, g: Scalars) -> None:
        self.p, self.g = p, g
        self.glad = p["smile"].clamp(min=0.0)
        self.upper = p["eye_height"] * p["eye_open"] * (1.0 - 0.16 * self.glad - 0.22 * p["squint"])
        low = 0.58 - 0.28 * self.glad - 0.25 * p["squint"]
        self.lower = p["eye_height"] * low * p["eye_open"].clamp(max=1.0)

    def draw(self, x: Tensor, y: Tensor, size: int, albedo: Tensor, parts: Tensor) -> None:
        """Paint over albedo (B, 3, h, w) and labels `parts` (B, h, w) at the head's (x, y), in place."""
        at = self._grid(x, y, size)
        self._lines(at, albedo)
        eye = between(at.level, -at.low, at.lid, at.scale * 0.85)
        over(albedo, self._ball(at), eye)
        left = (1.0 - at.sign).mul_(0.5)
        right = (1.0 + at.sign).mul_(0.5)
        stamp(parts, eye * left > 0.5, LABEL["l_eye"])
        stamp(parts, eye * right > 0.5, LABEL["r_eye"])
        self._lashes(at, albedo)
        brow = self._brow(at, albedo)
        stamp(parts, brow * left > 0.5, LABEL["l_brow"])
        stamp(parts, brow * right > 0.5, LABEL["r_brow"])

    def _grid(self, x: Tensor, y: Tensor, size: int) -> Grid:
        """The pixels at the head's (x, y)."""
        p = self.p
        sign = torch.copysign(torch.ones_like(x), x)
        out = x.abs() - p["eye_distance"]
        e = out * (1.0 / p["eye_width"])
        e2 = e * e
        arch = (1.0 - e2).clamp_(min=-1.0)
        level = y - p["eye_slant"] * out
        lid = self.upper * arch * (1.0 - 0.15 * e).clamp_(min=0.0)
        return Grid(x, y, sign, out, e, e2, level, lid, self.lower * arch, size, p["zoom"] * (0.5 * size))

    def _lines(self, at: Grid, albedo: Tensor) -> None:
        """What only darkens the skin: socket, bags, fold of the lid, furrows, crow's feet, a scowl."""
        p, g = self.p, self.g
        x, y, e, level = at.x, at.y, at.e, at.level
        dark = spot(e * 0.72, (level - 0.05) * 7.5).mul_(0.26 + 0.24 * p["makeup"])
        bags = spot(e * 0.85, (level + 0.115) * 16.0)
        dark.add_(bags.mul_(0.08 + 0.34 * g["wrinkles"] + 0.12 * p["squint"]))
        fold = band(level - at.lid - 0.034 + 0.03 * at.e2, 0.006 + 0.004 * g["ageing"], at.scale)
        dark.add_(fold.mul_((1.3 - at.e2).clamp_(0.0, 0.75)))

        fine = visible(at.size, 11.0)
        bend = 0.02 * wave(x * 1.4) + 0.012 * wave(x * 3.7 + p["skin_grain"])
        furrows = wave((y - bend).mul_(11.0).add_(0.2)).sub_(0.45).clamp_(min=0.0)
        furrows.mul_(fine).add_(0.10 * (1.0 - fine))
        furrows.mul_(spot(x * 2.0, (y - 0.39) * 6.0))
        raised = 1.5 * g["wrinkles"] + 0.9 * p["brow_raise"].clamp(min=0.0)
        dark.add_(furrows.mul_(raised * (g["ageing"] + 0.25)))

        feet = wave((level * 13.0).add_(at.out * 3.0)).sub_(0.35).clamp_(min=0.0)
        feet.mul_(fine).add_(0.14 * (1.0 - fine))
        feet.mul_(spot((e - 1.75) * 1.7, level * 8.0))
        dark.add_(feet.mul_(0.9 * g["wrinkles"] * (0.5 + 0.6 * self.glad + 0.4 * p["squint"])))

        scowl = spot((x.abs() - 0.055) * 30.0, (y - 0.17) * 9.0)
        dark.add_(scowl.mul_(0.7 * p["frown"] + 0.15 * g["wrinkles"]))
        over(albedo, g["skin"] * g["shade"], dark.clamp_(max=1.0))

    def _lashes(self, at: Grid, albedo: Tensor) -> None:
        """The lids' edges: lashes above, a moist rim and thin lashes below."""
        p, g = self.p, self.g
        near = (1.18 - at.e2).mul_(4.0).clamp_(0.0, 1.0)
        fine = visible(at.size, 60.0)
        lash = band(at.level - at.lid - 0.004, 0.010 + 0.008 * p["makeup"], at.scale)
        if fine > 0:
            curl = at.out * 1.25 + (at.level - at.lid) * 0.7 * at.e
            comb = wave(curl * 48.0).mul_(0.5).add_(0.5).mul_((at.e + 1.0).clamp_(0.2, 1.0))
            tips = at.lid + comb.mul_(0.018 + 0.03 * p["makeup"])
            lash = torch.maximum(lash, between(at.level, at.lid, tips, at.scale).mul_(0.75 * fine))
        over(albedo, g["skin"] * 0.05, lash.mul_(near).mul_(0.92))
        if fine > 0:
            rim = band(at.level + at.low - 0.004, 0.005, at.scale)
            over(albedo, g["blush"] * 1.15, rim.mul_(near).mul_(0.7 * fine))
        below = band(at.level + at.low + 0.004, 0.005, at.scale)
        over(albedo, g["lips"] * 0.45, below.mul_(near).mul_(0.5 + 0.35 * p["makeup"]))

    def _ball(self, at: Grid) -> Tensor:
        """The eyeball (B, 3, h, w): white, iris, pupil, the lid's shadow, and the light mirrored in it."""
        p, g = self.p, self.g
        white = torch.full_like(g["skin"], 0.72)
        under = at.level - at.lid
        round_ = 1.08 - 0.40 * at.e * at.e
        round_.mul_(1.0 - 0.5 * (under * 9.0 + 1.0).clamp_(0.0, 1.0))
        ball = (white * round_.unsqueeze(1)).contiguous()
        corner = bump(((at.e + 0.98) * 3.2).square_())  # the inner one
        over(ball, g["blush"] * 0.8 + 0.08, corner.mul_(0.75))

        # from the pupil's middle
        gx = at.out - p["gaze_x"] * 0.05 * at.sign
        gy = at.level - p["gaze_y"] * 0.022 - 0.008
        distance = (gx * gx).add_(gy * gy).sqrt_()
        self._iris(ball, gx, gy, distance, at)
        over(ball, white * 0.012, coverage(p["iris_radius"] * 0.40 - distance, at.scale))
        over(ball, white * 0.02, bump((under * 16.0).square_()).mul_(0.35))

        sx = gx.mul_(at.sign).sub_(g["light_x"] * 0.026)
        sy = gy.sub_(0.016 + 0.012 * g["light_y"])
        pane = torch.maximum(sx.abs(), sy.abs())
        pane.add_((sx * sx).add_(sy * sy).sqrt_()).mul_(0.5)  # a rounded square
        over(ball, white * 2.2, coverage(0.014 - pane, at.scale))
        fine = visible(at.size, 90.0)
        if fine > 0:
            glint = spot(sx.add_(g["light_x"] * 0.05).mul(45.0), sy.add_(0.045).mul(60.0))
            over(ball, white * 1.2, glint.mul_(0.3 * fine))
        return ball

    def _iris(self, ball: Tensor, gx: Tensor, gy: Tensor, distance: Tensor, at: Grid) -> None:
        """Paint the iris over the ball: its dark edge, and what glows within."""
        iris, radius = self.g["iris"], self.p["iris_radius"]
        over(ball, iris * 0.22, coverage(radius - distance, at.scale * 0.8))
        glow = 1.25 - distance * (1.0 / radius) * 0.55
        glow.mul_(coverage(radius * 0.86 - distance, at.scale))
        fine = visible(at.size, 90.0)
        if fine > 0:
            around = gx / (gx.abs() + gy.abs()).add_(1e-3)
            fibres = wave(around * 9.0 + gy.sign() * 0.2).add_(wave(around * 5.3 + 0.3)).mul_(0.18 * fine)
            ring = bump((distance * (1.0 / radius) - 0.5).mul_(4.0).square_())  # lighter, next to the pupil
            fibres.add_(ring.mul_(0.35 * fine))
            glow.mul_(fibres.add_(1.0))
        # light falls in from above and brightens the lower half
        glow.mul_(1.05 - gy * (3.0 / radius) * 0.1)
        over(ball, (iris * 1.2).clamp(max=1.0), glow.clamp_(0.0, 1.0))

    def _brow(self, at: Grid, albedo: Tensor) -> Tensor:
        """Paint the brows; their coverage (B, h, w)."""
        p, g = self.p, self.g
        side = at.x.abs()
        b = (side - p["eye_distance"] * 1.02) * (1.0 / (p["eye_width"] * 1.55))
        off = at.y - self._brow_line(b, at.sign)
        thick = p["brow_thickness"] * (1.12 - 0.62 * ((b + 0.6) * 0.62).clamp_(min=0.0).square_())
        ends = (1.0 - b.abs()).mul_(6.0).clamp_(0.0, 1.0)
        if at.size < textures.SMALLEST:
            brow = band(off, thick.clamp_(min=0.002), at.scale * 0.7).mul_(ends)
            over(albedo, g["brow"], brow * 0.86)
            return brow
        # hairs lean outwards, the more the farther out
        across = side * 330.0 - off * (170.0 + 90.0 * b)
        along = off * 90.0 + side * 40.0 + 40.0 * at.sign
        hairs = textures.sample("strands", across, along, at.size)
        brow = band(off, (thick + hairs * 0.0025).clamp_(min=0.002), at.scale * 0.5).mul_(ends)
        over(albedo, g["brow"], hairs.mul_(0.20).add_(0.84).clamp_(0.0, 1.0).mul_(brow))
        return brow

    def _brow_line(self, b: Tensor, sign: Tensor) -> Tensor:
        """y of the brows' middle line at b, -1 inside to 1 outside."""
        p = self.p
        level = p["brow_height"] + 0.035 * p["brow_raise"] - 0.02 * self.glad
        line = level + p["brow_arch"] * (1.0 - (b - 0.25) * (b - 0.25))
        line = line + sign * (p["brow_skew"] * 0.022) - 0.012 * p["squint"]
        inner = (0.3 - b).clamp_(0.0, 1.3)
        line = line - inner * (0.06 * p["frown"]) - 0.02 * p["frown"]
        return line + inner * (0.05 * (-p["smile"]).clamp(min=0.0))
