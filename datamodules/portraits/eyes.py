"""Eyes, lids, brows, and the lines around them."""

from __future__ import annotations

import torch
from torch import Tensor

from datamodules.portraits import textures
from datamodules.portraits.geometry import Scalars, band, between, bump, coverage, over, stamp, visible, wave
from datamodules.portraits.labels import LABEL


class Eyes:
    """Both eyes and brows at once, on |x| of the head; only gaze, brow_skew and the labels tell left from right."""

    def __init__(self, p: Scalars, g: Scalars) -> None:
        self.p, self.g = p, g
        self.glad = p["smile"].clamp(min=0.0)
        self.upper = p["eye_height"] * p["eye_open"] * (1.0 - 0.16 * self.glad - 0.22 * p["squint"])
        self.lower = (
            p["eye_height"] * (0.58 - 0.28 * self.glad - 0.25 * p["squint"]) * p["eye_open"].clamp(max=1.0)
        )

    def draw(self, x: Tensor, y: Tensor, size: int, albedo: Tensor, parts: Tensor) -> None:
        """Paint over albedo (B, 3, h, w) and labels `parts` (B, h, w) at the head's (x, y), in place."""
        p, g = self.p, self.g
        scale = p["zoom"] * (0.5 * size)
        sign = torch.copysign(torch.ones_like(x), x)
        out = x.abs() - p["eye_distance"]  # outwards from the eye's middle
        e = out * (1.0 / p["eye_width"])
        e2 = e * e
        arch = (1.0 - e2).clamp_(min=-1.0)
        level = y - p["eye_slant"] * out
        lid = self.upper * arch * (1.0 - 0.15 * e).clamp_(min=0.0)
        low = self.lower * arch
        self._lines(x, y, out, e, e2, level, lid, size, scale, albedo)
        eye = between(level, -low, lid, scale * 0.85)
        over(albedo, self._ball(out, e, level, lid, sign, size, scale), eye)
        left, right = ((side * sign).add_(1.0).mul_(0.5) for side in (-1.0, 1.0))
        stamp(parts, eye * left > 0.5, LABEL["l_eye"])
        stamp(parts, eye * right > 0.5, LABEL["r_eye"])
        # lids' edges: lashes above, a moist rim and thin lashes below
        near = (1.18 - e2).mul_(4.0).clamp_(0.0, 1.0)
        fine = visible(size, 60.0)
        thick = 0.010 + 0.008 * p["makeup"]
        lash = band(level - lid - 0.004, thick, scale)
        if fine > 0:
            curl = out * 1.25 + (level - lid) * 0.7 * e
            comb = wave(curl * 48.0).mul_(0.5).add_(0.5).mul_((e + 1.0).clamp_(0.2, 1.0))
            lash = torch.maximum(
                lash,
                between(level, lid, lid + comb.mul_(0.018 + 0.03 * p["makeup"]), scale).mul_(0.75 * fine),
            )
        over(albedo, g["skin"] * 0.05, lash.mul_(near).mul_(0.92))
        if fine > 0:
            over(
                albedo, g["blush"] * 1.15, band(level + low - 0.004, 0.005, scale).mul_(near).mul_(0.7 * fine)
            )
        over(
            albedo,
            g["lips"] * 0.45,
            band(level + low + 0.004, 0.005, scale).mul_(near).mul_(0.5 + 0.35 * p["makeup"]),
        )
        brow = self._brow(x, y, sign, size, scale, albedo)
        stamp(parts, brow * left > 0.5, LABEL["l_brow"])
        stamp(parts, brow * right > 0.5, LABEL["r_brow"])

    def _lines(
        self,
        x: Tensor,
        y: Tensor,
        out: Tensor,
        e: Tensor,
        e2: Tensor,
        level: Tensor,
        lid: Tensor,
        size: int,
        scale: Tensor,
        albedo: Tensor,
    ) -> None:
        """What only darkens the skin: socket, bags, the lid's fold, lines of the forehead, crow's feet, a scowl."""
        p, g = self.p, self.g
        dark = bump((e * 0.72).square_().add_(((level - 0.05) * 7.5).square_())).mul_(
            0.26 + 0.24 * p["makeup"]
        )
        dark.add_(
            bump((e * 0.85).square_().add_(((level + 0.115) * 16.0).square_())).mul_(
                0.08 + 0.34 * g["wrinkles"] + 0.12 * p["squint"]
            )
        )
        fold = band(level - lid - 0.034 + 0.03 * e2, 0.006 + 0.004 * g["ageing"], scale).mul_(
            (1.3 - e2).clamp_(0.0, 0.75)
        )
        dark.add_(fold)
        bend = 0.02 * wave(x * 1.4) + 0.012 * wave(x * 3.7 + p["skin_grain"])
        fine = visible(size, 11.0)
        furrow = (
            wave((y - bend).mul_(11.0).add_(0.2))
            .sub_(0.45)
            .clamp_(min=0.0)
            .mul_(fine)
            .add_(0.10 * (1.0 - fine))
        )
        furrow.mul_(bump((x * 2.0).square_().add_(((y - 0.39) * 6.0).square_())))
        dark.add_(
            furrow.mul_((1.5 * g["wrinkles"] + 0.9 * p["brow_raise"].clamp(min=0.0)) * (g["ageing"] + 0.25))
        )
        feet = (
            wave((level * 13.0).add_(out * 3.0))
            .sub_(0.35)
            .clamp_(min=0.0)
            .mul_(fine)
            .add_(0.14 * (1.0 - fine))
        )
        feet.mul_(bump(((e - 1.75) * 1.7).square_().add_((level * 8.0).square_())))
        dark.add_(feet.mul_(0.9 * g["wrinkles"] * (0.5 + 0.6 * self.glad + 0.4 * p["squint"])))
        scowl = bump(((x.abs() - 0.055) * 30.0).square_().add_(((y - 0.17) * 9.0).square_()))
        dark.add_(scowl.mul_(0.7 * p["frown"] + 0.15 * g["wrinkles"]))
        over(albedo, g["skin"] * g["shade"], dark.clamp_(max=1.0))

    def _ball(
        self, out: Tensor, e: Tensor, level: Tensor, lid: Tensor, sign: Tensor, size: int, scale: Tensor
    ) -> Tensor:
        """The eyeball (B, 3, h, w): white, iris, pupil, the lid's shadow, and the light mirrored in it."""
        p, g = self.p, self.g
        white = torch.full_like(g["skin"], 0.72)
        round_ = (1.08 - 0.40 * e * e).mul_(1.0 - 0.5 * ((level - lid) * 9.0 + 1.0).clamp_(0.0, 1.0))
        ball = (white * round_.unsqueeze(1)).contiguous()
        over(ball, g["blush"] * 0.8 + 0.08, bump(((e + 0.98) * 3.2).square_()).mul_(0.75))  # the inner corner
        gx, gy = out - p["gaze_x"] * 0.05 * sign, level - p["gaze_y"] * 0.022 - 0.008
        distance = (gx * gx).add_(gy * gy).sqrt_()
        radius = p["iris_radius"]
        over(ball, g["iris"] * 0.22, coverage(radius - distance, scale * 0.8))
        glow = (1.25 - distance * (1.0 / radius) * 0.55).mul_(coverage(radius * 0.86 - distance, scale))
        fine = visible(size, 90.0)
        if fine > 0:  # fibres around the pupil, and a lighter ring next to it
            around = gx / (gx.abs() + gy.abs()).add_(1e-3)
            fibres = wave(around * 9.0 + gy.sign() * 0.2).add_(wave(around * 5.3 + 0.3)).mul_(0.18 * fine)
            fibres.add_(bump((distance * (1.0 / radius) - 0.5).mul_(4.0).square_()).mul_(0.35 * fine))
            glow.mul_(fibres.add_(1.0))
        below = (1.05 - gy * (3.0 / radius) * 0.1).mul_(
            glow
        )  # light falls in from above and brightens the lower half
        over(ball, (g["iris"] * 1.2).clamp(max=1.0), below.clamp_(0.0, 1.0))
        over(ball, white * 0.012, coverage(radius * 0.40 - distance, scale))
        over(ball, white * 0.02, bump(((level - lid) * 16.0).square_()).mul_(0.35))
        sx, sy = gx.mul_(sign).sub_(g["light_x"] * 0.026), gy.sub_(0.016 + 0.012 * g["light_y"])
        pane = (
            torch.maximum(sx.abs(), sy.abs()).add_((sx * sx).add_(sy * sy).sqrt_()).mul_(0.5)
        )  # a rounded square
        over(ball, white * 2.2, coverage(0.014 - pane, scale))
        if fine > 0:
            tx, ty = sx.add_(g["light_x"] * 0.05), sy.add_(0.045)
            over(ball, white * 1.2, bump((tx * 45.0).square_().add_((ty * 60.0).square_())).mul_(0.3 * fine))
        return ball

    def _brow(self, x: Tensor, y: Tensor, sign: Tensor, size: int, scale: Tensor, albedo: Tensor) -> Tensor:
        p, g = self.p, self.g
        b = (x.abs() - p["eye_distance"] * 1.02) * (1.0 / (p["eye_width"] * 1.55))
        line = (
            p["brow_height"]
            + 0.035 * p["brow_raise"]
            - 0.02 * self.glad
            + p["brow_arch"] * (1.0 - (b - 0.25) * (b - 0.25))
        )
        line = line + sign * (p["brow_skew"] * 0.022) - 0.012 * p["squint"]
        inner = (0.3 - b).clamp_(0.0, 1.3)
        line = (
            line
            - inner * (0.06 * p["frown"])
            - 0.02 * p["frown"]
            + inner * (0.05 * (-p["smile"]).clamp(min=0.0))
        )
        thick = p["brow_thickness"] * (1.12 - 0.62 * ((b + 0.6) * 0.62).clamp_(min=0.0).square_())
        off = y - line
        ends = (1.0 - b.abs()).mul_(6.0).clamp_(0.0, 1.0)
        if size < textures.SMALLEST:
            brow = band(off, thick.clamp_(min=0.002), scale * 0.7).mul_(ends)
            over(albedo, g["brow"], brow * 0.86)
            return brow
        level = textures.level(size)
        # hairs lean outwards, the more the farther out
        place = textures.locate(
            x.abs() * 330.0 - off * (170.0 + 90.0 * b), off * 90.0 + x.abs() * 40.0 + 40.0 * sign, level
        )
        hairs = textures.look("strands", place, level)
        brow = band(off, (thick + hairs * 0.0025).clamp_(min=0.002), scale * 0.5).mul_(ends)
        over(albedo, g["brow"], hairs.mul_(0.20).add_(0.84).clamp_(0.0, 1.0).mul_(brow))
        return brow
