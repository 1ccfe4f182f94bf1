"""Glasses: two rims, a bridge and arms."""

from __future__ import annotations

import torch
from torch import Tensor

from datamodules.portraits.geometry import Pose, Scalars, Window, affine, band, coverage, over, stamp
from datamodules.portraits.labels import LABEL


class Glasses:
    """Drawn on a plane before the eyes, where x and y are the head's; the arms run back to the ears."""

    def __init__(self, p: Scalars, g: Scalars, pose: Pose) -> None:
        shared = ("zoom", "head_width", "eye_distance", "light_intensity")
        self.p = {name: p[name] for name in p if name in shared or "glasses" in name}
        self.g = {name: g[name] for name in ("frame", "key", "ambient", "light_x", "light_z")}
        self.pose = pose
        plane = 0.90  # z of the lenses
        (dx, dy, dz), (ox, oy, oz) = pose.ray, pose.origin
        # the picture's (x, y) -> the plane's: along the ray to z = plane
        t = [-c / dz for c in oz]
        t[2] = t[2] + plane / dz
        self.x = tuple(o + c * dx for o, c in zip(ox, t, strict=True))
        self.y = tuple(o + c * dy for o, c in zip(oy, t, strict=True))
        hinge, ear = p["eye_distance"] + p["glasses_width"] + 0.01, p["head_width"] + 0.03
        self.arms = []
        for s in (-1.0, 1.0):
            self.arms.append((pose.view(s * hinge, 0.03, plane - 0.03), pose.view(s * ear, 0.02, -0.02)))

    def box(self) -> tuple[Tensor, ...]:
        """Left, right, bottom, top in the picture."""
        return self.pose.box((0.0, -0.02, 0.45), (0.82, 0.26, 0.52))

    def draw(
        self, window: Window, size: int, skull: Tensor, cover: Tensor, rgb: Tensor, label: Tensor
    ) -> None:
        """Paint over the window's rgb and label; the skull (depth, B h w) hides the arms behind the head."""
        p, g = self.p, self.g
        x, y = window.coordinates(size, rgb.device)
        scale = p["zoom"] * (0.5 * size)
        px, py = affine(self.x, x, y), affine(self.y, x, y)
        worn, thin = p["glasses"], p["glasses_rim"] * 0.9

        outline = self._outline(px, py)
        lens = coverage(-outline, scale).mul_(worn)
        rim = band(outline, p["glasses_rim"], scale)
        gap = p["eye_distance"] - p["glasses_width"]
        bridge = band(py - 0.03 + 2.0 * px * px, thin, scale).mul_(coverage(gap - px.abs(), scale))
        frame = self._with_arms(torch.maximum(rim, bridge), x, y, thin, scale, skull, cover)

        dark = lens * p["sunglasses"]
        gleam = band(px * 0.6 + py - 0.05 + 0.1 * g["light_x"], 0.035, scale).mul_(lens)
        over(rgb, g["frame"] * 0.15 + 0.01, dark * 0.93)
        over(rgb, torch.ones_like(g["frame"]), gleam.mul_(0.07 + 0.07 * p["light_intensity"]))
        light = 0.55 + 0.45 * g["light_z"]
        over(rgb, g["frame"] * (g["key"] * light.unsqueeze(1) + g["ambient"]), frame.mul_(worn))
        stamp(label, torch.maximum(frame, dark) > 0.5, LABEL["eye_g"])

    def _outline(self, px: Tensor, py: Tensor) -> Tensor:
        """Distance outside the lenses, rounded boxes, one on each side."""
        p = self.p
        corner = p["glasses_height"] * p["glasses_round"]
        out = px.abs() - p["eye_distance"]
        level = py + 0.025 - 0.06 * out * (1.0 - p["glasses_round"])
        qx = out.abs_().sub_(p["glasses_width"] - corner)
        qy = level.abs_().sub_(p["glasses_height"] - corner)
        outside = (qx.clamp(min=0.0).square_() + qy.clamp(min=0.0).square_()).sqrt_()
        inside = torch.maximum(qx, qy).clamp_(max=0.0)
        return outside + inside - corner

    def _with_arms(
        self, line: Tensor, x: Tensor, y: Tensor, half: Tensor, scale: Tensor, skull: Tensor, cover: Tensor
    ) -> Tensor:
        """The frame's coverage with both arms, straight lines of half-width `half` that the head may hide."""
        u, v = affine(self.pose.u, x, y), affine(self.pose.v, x, y)
        for (u0, v0, t0), (u1, v1, t1) in self.arms:
            du, dv = u1 - u0, v1 - v0
            along = (u - u0).mul_(du).add_((v - v0).mul_(dv))
            along.mul_(1.0 / (du * du + dv * dv + 1e-4)).clamp_(0.0, 1.0)
            off = ((u - u0 - along * du).square_() + (v - v0 - along * dv).square_()).sqrt_()
            arm = band(off, half, scale)
            behind = skull - t0 - along.mul_(t1 - t0)
            hidden = behind.mul_(12.0).add_(0.2).clamp_(0.0, 1.0).mul_(cover)
            line = torch.maximum(line, arm.mul_(1.0 - hidden))
        return line
