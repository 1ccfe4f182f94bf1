"""Hair: a shell around the skull, an ellipsoid above the eyes and a hanging tube below, with an opening for the face."""

from __future__ import annotations

import torch
from torch import Tensor

from datamodules.portraits.geometry import Pose, Scalars, Window, affine, coverage, over, smooth_max, wave
from datamodules.portraits.head import DEPTH, LABEL, Surface, outline_distance


class Hair:
    def __init__(self, p: Scalars, g: Scalars, pose: Pose) -> None:
        self.p, self.g, self.pose = p, g, pose
        length = p["hair_length"]
        self.long = long = g["long"]
        self.present = g["haired"]
        thick = p["hair_volume"] * (0.7 + 0.3 * long) + 0.015
        self.radii = p["head_width"] + thick, 1.0 + 1.05 * thick, DEPTH + thick
        self.thin = (thick - 0.02) * 1.5 * (1.0 - long)  # short hair lies closer at the sides
        self.back = 0.03 + 0.06 * (1.0 - long)  # and in front
        self.flare = -0.25 * (1.0 - long) + long * (0.02 + 0.7 * (p["hair_volume"] - 0.05))
        self.curl = 0.05 * p["hair_wave"] * long
        self.end = -0.20 - 0.9 * (length - 0.16) - 0.9 * (length - 0.35).clamp(min=0.0)
        receding = g["ageing"] * (1.0 - long)
        self.far_end = self.end * long + 0.20 * (1.0 - long)
        self.front = 0.62 + 0.13 * long + 0.12 * receding - p["fringe"] * (0.44 * long + 0.18 * (1.0 - long))
        self.sweep = 0.62 * long * (1.0 - p["fringe"]) - (0.04 + 0.30 * receding) * (1.0 - long)
        self.opening = 0.62 + 0.06 * receding - 0.10 * long * p["hair_strand"]
        self.side = 0.14 - 0.10 * p["hair_strand"] + (self.end - 1.0) * long  # short hair is cut above the ears
        self.ear = 2.2 - 1.6 * long  # below that cut the skull itself carries stubble

    def box(self) -> tuple[Tensor, ...]:
        """Left, right, bottom, top in the picture."""
        rx, ry, rz = self.radii
        low = self.end - 0.1
        return self.pose.box((0.0, (ry + low) * 0.5, -self.back), (rx * 1.3, (ry - low) * 0.5 + 0.05, rz * 1.2))

    def trace(self, x: Tensor, y: Tensor, near: bool) -> Surface:
        """Where rays enter the shell (near) or leave it."""
        p, (dx, dy, dz), (ox, oy, oz) = self.p, self.pose.ray, (affine(c, x, y) for c in self.pose.origin)
        ix, iy, iz = (1.0 / (r * r) for r in self.radii)
        oz = oz + self.back
        ray2, cross, origin2 = dx * dx * ix + dz * dz * iz, ox * (dx * ix) + oz * (dz * iz), ox * ox * ix + oz * oz * iz
        t: Tensor = 0.6 * dz if near else -0.6 * dz
        for _ in range(2 if near else 1):
            h = oy + t * dy
            grow = (-h).clamp_(0.0, 1.8).mul_(self.flare)
            grow.add_(wave(h * 1.7 + p["hair_part"] * 3.0).mul_(self.curl).mul_((0.15 - h).clamp_(0.0, 1.0)))
            grow.sub_((0.7 - h).clamp_(0.0, 0.6).mul_(self.thin)).add_(1.0)
            s = 1.0 / grow.mul_(grow)
            wy = (h > 0).float().mul_(iy)
            a = (s * ray2).add_(wy * (dy * dy))
            q = (s * cross).add_((wy * oy).mul_(dy)).div_(a)
            d2 = (s * origin2).add_(wy.mul_(oy).mul_(oy)).sub_(q * q * a)
            root = (1.0 - d2).clamp_(min=0.0).div_(a).sqrt_()
            t = root.sub_(q) if near else root.neg_().sub_(q)
        inside = outline_distance(self.pose, d2.clamp_(min=1e-4), x, y)
        return Surface(ox + t * dx, oy + t * dy, oz + t * dz, t, inside)

    def draw_back(self, window: Window, size: int, rgb: Tensor, label: Tensor) -> None:
        """Paint the far inner side, which shows beside the neck and through the opening; before neck and head are drawn."""
        x, y = window.coordinates(size, rgb.device)
        scale = self.p["zoom"] * (0.5 * size)
        far = self.trace(x, y, near=False)
        alpha = coverage(far.inside, scale).mul_(coverage(far.y - self.far_end, scale)).mul_(self.present)
        shade = wave(far.x * 9.0).mul_(0.08).add_(0.42 + 0.10 * self.g["light_z"])
        over(rgb, self.g["hair"] * shade.unsqueeze(1) * (self.g["key"] * 0.5 + self.g["ambient"]), alpha)
        label.masked_fill_(alpha > 0.5, LABEL["hair"])

    def draw_front(self, window: Window, size: int, rgb: Tensor, label: Tensor) -> None:
        """Paint the near side, with a soft shadow on the face beneath its edge."""
        p, g = self.p, self.g
        x, y = window.coordinates(size, rgb.device)
        scale = p["zoom"] * (0.5 * size)
        near = self.trace(x, y, near=True)
        rx, ry, rz = self.radii
        xn, zn = near.x * (1.0 / rx), (near.z + self.back) * (1.0 / rz)
        around = 1.0 / (xn.abs() + zn.abs()).add_(1e-3)
        turn = 1.0 - zn * around  # 0 in front, 1 at the sides, 2 behind
        lock_x, lock_z = xn - p["hair_part"] * (0.7 * self.long), zn - 0.25  # locks fall from the parting
        strand = lock_x / (lock_x.abs() + lock_z.abs_()).add_(0.02) + wave(near.y * 0.9 + p["hair_strand"]).mul_(0.05 * p["hair_wave"])
        fine = min(max((size - 80) / 170.0, 0.0), 1.0)  # locks that a picture of this size can show
        locks = wave(strand * 4.5 + near.y * 0.5 + p["hair_part"] * 2.0).mul_(0.6)
        if fine > 0:
            locks.add_(wave(strand * 14.0 + near.y * 1.3).mul_(0.5 * fine)).add_(wave(strand * 31.0 - near.y * 2.1).mul_(0.35 * fine))
            frizz = wave(near.x * 7.0 + near.z * 3.0 + wave(near.y * 5.0) * 0.2).mul_(wave(near.y * 8.0 + near.x * 2.0))
            locks.add_(frizz.mul_(p["hair_wave"] * (1.0 - self.long) * 1.2 * fine))
        # distance within the hair: outside the face's opening, not around the ears, above the end
        line = self.front - self.sweep * (near.x - p["hair_part"]).abs() + locks * 0.02
        face = smooth_max(near.y - line, (turn - self.opening) * 0.75, 0.16)
        below = smooth_max(near.y - self.side, (turn - self.ear) * 0.75, 0.06)
        hair = torch.minimum(torch.minimum(face, below), near.y - self.end + locks * 0.03)
        cover = coverage(near.inside, scale).mul_(self.present)
        skin = (label != LABEL["background"]).float()
        shadow = (1.0 + hair * 7.0).clamp_(0.0, 1.0).mul_(cover).mul_(skin)
        rgb.mul_((1.0 - shadow.mul_(shadow).mul_(0.3)).unsqueeze(1))
        # light on the shell's own normal; a band of gloss across the strands
        up = (near.y > 0).float().mul_(near.y) * (1.0 / (ry * ry))
        nx, nz = xn * (1.0 / rx), zn * (1.0 / rz)
        norm = 1.0 / (nx * nx + nz * nz + up * up).add_(1e-4).sqrt_()
        diffuse = (nx * g["sun_x"] + up * g["sun_y"] + nz * g["sun_z"]).mul_(norm).add_(0.35).mul_(1 / 1.35).clamp_(min=0.0)
        ring = (up * norm - 0.55 - 0.2 * g["sun_y"]).mul_(3.2).square_().neg_().add_(1.0).clamp_(min=0.0)
        ring.mul_(diffuse).mul_(locks * 0.5 + 0.7)
        shade = diffuse.unsqueeze(1) * g["key"] + g["ambient"]
        tone = locks.mul_(0.22).add_(0.95)
        colour = g["hair"] * (shade * tone.unsqueeze(1))
        colour.add_((g["hair"] * 0.8 + 0.035) * ring.mul_(0.55).unsqueeze(1))
        # short hair thins out into the skin, but ends sharply against the background
        fade = 1.0 - (1.0 - self.long) * (0.75 - 2.5 / size) * skin
        alpha = coverage(hair, scale * fade).mul_(cover)
        over(rgb, colour, alpha)
        label.masked_fill_(alpha > 0.5, LABEL["hair"])
