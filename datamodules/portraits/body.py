"""Below the head: neck and clothes, a flat drawing that follows the head's place but does not turn."""

from __future__ import annotations

import torch
from torch import Tensor

from datamodules.portraits import textures
from datamodules.portraits.colours import mix
from datamodules.portraits.geometry import (
    Pose,
    Scalars,
    Window,
    affine,
    band,
    bump,
    coverage,
    over,
    spot,
    stamp,
    wave,
)
from datamodules.portraits.labels import LABEL


class Body:
    """Coordinates (u, v) in head units, from the neck's upper end."""

    def __init__(self, p: Scalars, g: Scalars, pose: Pose) -> None:
        self.p, self.g = p, g
        x, y = pose.at(0.0, -0.62, -0.12)
        k = 1.0 / p["zoom"]
        zero = torch.zeros_like(k)
        self.u = (k, zero, -x * k)
        self.v = (zero, k, -y * k)
        self.top = y + 0.2 * p["zoom"]
        self.width = p["head_width"] * 0.50
        chin_x, chin_y = pose.at(0.0, -0.72, 0.40)  # the head's shadow falls from here
        self.chin = (chin_x - x) * k - 0.12 * g["light_x"], (chin_y - y) * k
        self.shirt = ((p["collar"] > 0.45) & (p["collar"] <= 0.75)).float()
        self.jacket = (p["collar"] > 0.75).float()

    def box(self) -> tuple[Tensor, ...]:
        """Left, right, bottom, top in the picture."""
        edge = torch.full_like(self.top, 1.1)
        return -edge, edge, -edge, self.top

    def draw(self, window: Window, size: int, rgb: Tensor, label: Tensor) -> None:
        """Paint neck and clothes over the window's rgb (B, 3, h, w) and label (B, h, w), in place."""
        g = self.g
        x, y = window.coordinates(size, rgb.device)
        scale = self.p["zoom"] * (0.5 * size)
        u, v = affine(self.u, x, y), affine(self.v, x, y)
        side = u.abs()
        chin_x, chin_y = self.chin
        shadow = spot((u - chin_x) * (1.05 / self.p["head_width"]), (v - chin_y) * 1.9)
        self._neck(u, v, side, shadow, size, scale, rgb, label)

        below = self._neckline(side) - v  # distance within the clothes
        colour = self._pattern(u, v, side, scale)
        light = self._folds(u, v, below, shadow, scale)
        if bool((self.shirt + self.jacket > 0).any()):
            self._collar(u, v, side, size, scale, colour, light)
        if size >= textures.SMALLEST:
            level = textures.level(size)
            place = textures.locate(u * 200.0, v * 200.0, level)
            knit = textures.look("grain", place, level).mul_(0.05)
            knit.add_(textures.look("clouds", place, level).mul_(0.05))
            light.mul_(knit.add_(1.0))
        colour.mul_(light.unsqueeze(1)).mul_(g["key"] * 0.8 + g["ambient"])
        alpha = coverage(below, scale * 0.9)
        over(rgb, colour, alpha)
        stamp(label, alpha > 0.5, LABEL["cloth"])

    def _neck(
        self, u: Tensor, v: Tensor, side: Tensor, shadow: Tensor, size: int, scale: Tensor,
        rgb: Tensor, label: Tensor,
    ) -> None:  # fmt: skip
        """Widens into the shoulders; two muscles run down to the pit of the throat."""
        g = self.g
        low = (-0.25 - v).clamp_(min=0.0)
        inside = self.width + 0.9 * low * low - side
        round_ = 1.0 - (u * (1.0 / self.width)).square_().clamp_(max=1.0) * 0.5
        muscle = bump(((side - 0.05 + (v + 0.62) * -0.55) * 9.0).square_())
        muscle.mul_((-v - 0.2).clamp_(0.0, 0.3))
        light = 0.95 + 0.3 * u * g["light_x"]
        light.mul_(round_).add_(muscle.mul_(0.45)).mul_(1.0 - 0.62 * shadow)
        if size >= textures.SMALLEST:
            patches = textures.sample("clouds", u * 200.0, v * 200.0, size)
            light.mul_(patches.mul_(0.03).add_(1.0))
        alpha = coverage(torch.minimum(inside, 0.2 - v), scale)
        over(rgb, g["skin"] * light.unsqueeze(1) * (g["key"] * 0.75 + g["ambient"]), alpha)
        stamp(label, alpha > 0.5, LABEL["neck"])

    def _neckline(self, side: Tensor) -> Tensor:
        """v of the clothes' upper edge: shoulders, and an opening from round (neckline 0) to pointed (1)."""
        pointed = self.p["neckline"]
        reach = side * 0.85
        shoulder = -0.43 - 0.13 * reach - 0.20 * reach * reach
        opening = (0.14 + 0.10 * pointed) * (1.0 - 0.35 * self.jacket)
        across = (side * (1.0 / (self.width + 0.06))).clamp_(max=1.0)
        arc = (1.0 - across * across) * (1.0 - pointed) + (1.0 - across) * (0.4 + pointed)
        return shoulder - opening * arc

    def _folds(self, u: Tensor, v: Tensor, below: Tensor, shadow: Tensor, scale: Tensor) -> Tensor:
        """Light and shade of the cloth (B, h, w): folds, the head's shadow, and the hem of a pullover."""
        p = self.p
        light = wave(u * 1.9 + v * 0.8 + p["cloth_hue"] * 7.0).mul_(0.09)
        light.add_(wave(u * 0.7 - v * 1.9 + p["cloth_value"] * 5.0).mul_(0.06))
        light.add_(0.86 + u * (self.g["light_x"] * 0.22)).mul_(1.0 - 0.4 * shadow)
        plain = 1.0 - self.shirt - self.jacket
        hem = band(below - 0.052, 0.006, scale).mul_(0.35)
        hem.add_(coverage(0.05 - below, scale).mul_(0.12))
        return light.mul_(1.0 - hem.mul_(plain))

    def _pattern(self, u: Tensor, v: Tensor, side: Tensor, scale: Tensor) -> Tensor:
        """The cloth's colour (B, 3, h, w): stripes across or along, checks, or dots."""
        p, g = self.p, self.g
        kind = torch.floor(p["cloth_pattern"] * 4.0)
        across, along, checks, dots = ((kind == k).float() for k in range(4))
        period = 0.12 + 0.14 * p["neckline"]
        # distances from the middle of a period
        a = (u + 0.03) * (1.0 / period)
        b = (v + side * 0.16) * (1.0 / period)
        a.sub_(torch.floor(a)).sub_(0.5).abs_().mul_(period)
        b.sub_(torch.floor(b)).sub_(0.5).abs_().mul_(period)
        stripe_a = coverage(period * 0.25 - a, scale)
        stripe_b = coverage(period * 0.25 - b, scale)
        share = stripe_b * (across + 0.5 * checks) + stripe_a * (along + 0.5 * checks)
        if bool((dots > 0).any()):
            radius = (a.mul_(a).add_(b.mul_(b))).sqrt_()
            share.add_(coverage(period * 0.27 - radius, scale).mul_(dots))
        contrast = (p["cloth_stripes"] > 0).float() * (0.3 + 0.7 * p["cloth_stripes"])
        return mix(g["cloth"], g["cloth_2"], share.mul_(contrast))

    def _collar(
        self, u: Tensor, v: Tensor, side: Tensor, size: int, scale: Tensor, colour: Tensor, light: Tensor
    ) -> None:
        """A shirt's collar and buttons; with a jacket the shirt shows between the lapels."""
        p, g = self.p, self.g
        lapel = side - 0.16 - (v + 0.75) * 0.62  # the jacket's edge
        within = coverage(-lapel, scale).mul_(self.jacket)
        shirt = g["cloth"] * 0.35 + (g["cloth"] * 2.5 + 0.03).clamp(max=0.8) * 0.65
        over(colour, shirt, within)
        tie = coverage(0.045 + (-0.5 - v).clamp_(0.0, 0.2) * 0.16 - side, scale)
        tie.mul_((p["neckline"] < 0.5).float()).mul_(within)
        over(colour, g["cloth_2"] * 0.7 + g["cloth"] * 0.1, tie)
        edge = bump((lapel * 14.0).square_()).mul_(self.jacket)
        light.mul_(1.0 - 0.5 * edge.mul_(within.neg().add_(1.2).clamp_(max=1.0)))

        flap = self._flap(v, side)
        worn = self.shirt + self.jacket
        shadow = bump(((flap + 0.02) * 22.0).square_()).mul_(worn)  # on the cloth below
        light.mul_(1.0 - 0.35 * shadow)
        lid = coverage(flap, scale).mul_(worn)
        cloth = (g["cloth"] * 1.15 + 0.01) * (1.0 - self.jacket).unsqueeze(1)
        over(colour, cloth + shirt * self.jacket.unsqueeze(1), lid)
        light.add_(lid * 0.06)
        if size < textures.SMALLEST:  # what follows is finer than a pixel
            return
        bend = bump(((v + 0.66) * 9.0).square_())
        seam = band(lapel - 0.13 + 0.3 * bend.mul_(0.2), 0.004, scale)
        light.mul_(1.0 - 0.5 * seam.mul_(self.jacket).mul_(1.0 - lid))
        light.mul_(1.0 - self._buttons(u, v, side, scale))

    def _flap(self, v: Tensor, side: Tensor) -> Tensor:
        """Distance within a quadrilateral on either side: its corners at neck, throat, point and shoulder."""
        zero = torch.zeros_like(self.width)
        neck, throat = (self.width - 0.02, -0.30), (zero + 0.02, -0.585)
        point, shoulder = (zero + 0.19, -0.735), (self.width + 0.11, -0.44)
        edges = ((neck, throat), (throat, point), (point, shoulder), (shoulder, neck))
        flap = torch.ones_like(v)
        for (x0, y0), (x1, y1) in edges:
            dx, dy = x1 - x0, y1 - y0
            norm = 1.0 / (dx * dx + dy * dy).sqrt()
            distance = ((v - y0) * (dx * norm)).sub_((side - x0) * (dy * norm))
            flap = torch.minimum(flap, distance)
        return flap

    def _buttons(self, u: Tensor, v: Tensor, side: Tensor, scale: Tensor) -> Tensor:
        """A shirt's placket and the buttons down its middle: how much darker (B, h, w)."""
        placket = band(side - 0.055, 0.004, scale)
        placket.mul_(coverage(-0.6 - v, scale)).mul_(self.shirt)
        d = v * 4.5 + 0.5
        d.sub_(torch.floor(d)).sub_(0.5).mul_(1 / 4.5)  # height above the nearest button
        button = coverage(0.016 - (d.mul_(d) + u * u).sqrt_(), scale)
        button.mul_(self.shirt).mul_(coverage(-0.62 - v, scale))
        return torch.maximum(placket.mul_(0.3), button.mul_(0.55))
