"""Glasses: two rims, a bridge and arms."""

from __future__ import annotations

import torch
from torch import Tensor

from datamodules.portraits.geometry import Pose, Scalars, Window, affine, band, coverage, over, stamp
from datamodules.portraits.labels import LABEL


class Glasses:
    def __init__(self, p: Scalars, g: Scalars, pose: Pose) -> None:
        used = (
            "zoom",
            "head_width",
            "eye_distance",
            "light_intensity",
            *(name for name in p if "glasses" in name),
        )
        self.p, self.pose = {name: p[name] for name in used}, pose
        self.g = {name: g[name] for name in ("frame", "key", "ambient", "light_x", "light_z")}
        plane = 0.90  # z of the lenses
        (dx, dy, dz), (ox, oy, oz) = pose.ray, pose.origin
        # the picture's (x, y) -> the plane's: along the ray to z = plane
        t = [-c / dz for c in oz]
        t[2] = t[2] + plane / dz
        self.x = tuple(o + c * dx for o, c in zip(ox, t, strict=True))
        self.y = tuple(o + c * dy for o, c in zip(oy, t, strict=True))
        reach = p["eye_distance"] + p["glasses_width"] + 0.01
        self.arms = [
            (pose.view(s * reach, 0.03, plane - 0.03), pose.view(s * (p["head_width"] + 0.03), 0.02, -0.02))
            for s in (-1.0, 1.0)
        ]

    def box(self) -> tuple[Tensor, ...]:
        return self.pose.box((0.0, -0.02, 0.45), (0.82, 0.26, 0.52))

    def draw(
        self, window: Window, size: int, skull: Tensor, cover: Tensor, rgb: Tensor, label: Tensor
    ) -> None:
        """Paint over the window's rgb and label; the skull's depth (B, h, w) hides the arms behind the head."""
        p, g, pose = self.p, self.g, self.pose
        x, y = window.coordinates(size, rgb.device)
        scale = p["zoom"] * (0.5 * size)
        worn, rim = p["glasses"], p["glasses_rim"]
        px, py = affine(self.x, x, y), affine(self.y, x, y)
        side = px.abs()
        # rounded boxes, one on each side
        width, height = p["glasses_width"], p["glasses_height"]
        corner = height * p["glasses_round"]
        qx = (side - p["eye_distance"]).abs_().sub_(width - corner)
        qy = (
            (py + 0.025 - 0.06 * (side - p["eye_distance"]) * (1.0 - p["glasses_round"]))
            .abs_()
            .sub_(height - corner)
        )
        distance = (
            (qx.clamp(min=0.0).square_() + qy.clamp(min=0.0).square_()).sqrt_()
            + torch.maximum(qx, qy).clamp_(max=0.0)
            - corner
        )
        lens = coverage(-distance, scale).mul_(worn)
        line = band(distance, rim, scale)
        gap = p["eye_distance"] - width
        bridge = band(py - 0.03 + 2.0 * px * px, rim * 0.9, scale).mul_(coverage(gap - side, scale))
        line = torch.maximum(line, bridge)
        u, v = affine(pose.u, x, y), affine(pose.v, x, y)
        for (u0, v0, t0), (u1, v1, t1) in self.arms:
            du, dv = u1 - u0, v1 - v0
            along = (
                ((u - u0).mul_(du).add_((v - v0).mul_(dv)))
                .mul_(1.0 / (du * du + dv * dv + 1e-4))
                .clamp_(0.0, 1.0)
            )
            off = ((u - u0 - along * du).square_() + (v - v0 - along * dv).square_()).sqrt_()
            arm = band(off, rim * 0.9, scale)
            hidden = (skull - t0 - along.mul_(t1 - t0)).mul_(12.0).add_(0.2).clamp_(0.0, 1.0).mul_(cover)
            line = torch.maximum(line, arm.mul_(1.0 - hidden))
        dark = lens * p["sunglasses"]
        gleam = band(px * 0.6 + py - 0.05 + 0.1 * g["light_x"], 0.035, scale).mul_(lens)
        over(rgb, g["frame"] * 0.15 + 0.01, dark * 0.93)
        over(rgb, torch.ones_like(g["frame"]), gleam.mul_(0.07 + 0.07 * p["light_intensity"]))
        light = 0.55 + 0.45 * g["light_z"]
        over(rgb, g["frame"] * (g["key"] * light.unsqueeze(1) + g["ambient"]), line.mul_(worn))
        stamp(label, torch.maximum(line, dark) > 0.5, LABEL["eye_g"])
