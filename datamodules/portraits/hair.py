"""Hair: a shell around the skull, an ellipsoid above, a hanging tube below, open at the face."""

from __future__ import annotations

import torch
from torch import Tensor

from datamodules.portraits import textures
from datamodules.portraits.geometry import (
    Pose,
    Scalars,
    Window,
    affine,
    bump,
    coverage,
    over,
    smooth_max,
    stamp,
    wave,
)
from datamodules.portraits.head import DEPTH, Surface, outline_distance
from datamodules.portraits.labels import LABEL


class Hair:
    """What decides the shell's shape and colour: derived once, traced and drawn window by window."""

    def __init__(self, p: Scalars, g: Scalars, pose: Pose) -> None:
        self.p = {name: p[name] for name in p if name == "zoom" or name.startswith("hair_")}
        self.g = {name: g[name] for name in ("hair", "key", "ambient", "light_z", "sun_x", "sun_y", "sun_z")}
        self.pose = pose
        self.present = g["haired"]
        self.long = long = g["long"]
        self.short = short = 1.0 - long
        self.some_long = bool((long > 0).any())
        length, taper, fringe = p["hair_length"], p["hair_taper"], p["fringe"]
        receding = g["ageing"] * short
        # the shell
        thick = p["hair_volume"] * (0.7 + 0.3 * long) + 0.015
        height = 1.0 + (1.05 + 0.5 * taper * short) * thick
        self.radii = p["head_width"] + thick, height, DEPTH + thick
        self.thin = (thick - 0.02) * 1.5 * short  # short hair lies closer at the sides
        self.back = 0.03 + 0.06 * short  # and in front
        self.flare = -0.25 * short + long * (0.02 + 0.7 * (p["hair_volume"] - 0.05))
        self.neck = (0.05 + 0.22 * taper) * long  # long hair comes in at the neck
        self.curl = 0.05 * p["hair_wave"] * long
        # its edges
        self.end = -0.20 - 0.9 * (length - 0.16) - 0.9 * (length - 0.35).clamp(min=0.0)
        self.far_end = self.end + 0.05
        self.front = 0.62 + 0.13 * long + 0.12 * receding - fringe * (0.44 * long + 0.18 * short)
        self.sweep = 0.62 * long * (1.0 - fringe) - (0.04 + 0.30 * receding) * short
        self.opening = 0.62 + 0.06 * receding - 0.10 * long * p["hair_strand"]
        self.narrow = 0.15 + (0.50 - 0.25 * receding) * short  # the opening is narrower towards the top
        cut = 0.12 - 0.16 * p["hair_strand"]
        self.side = cut * short + (self.end - 0.9) * long  # short hair is cut around the ears
        self.ear = 2.2 - 1.6 * long  # below that cut the skull itself carries stubble

    def box(self, top: float = 2.0) -> tuple[Tensor, ...]:
        """Left, right, bottom, top in the picture, of the hair below `top`."""
        rx, ry, rz = self.radii
        low, high = self.end - 0.16, ry.clamp(max=top)
        centre = (0.0, (high + low) * 0.5, -self.back)
        return self.pose.box(centre, (rx * 1.3, (high - low) * 0.5 + 0.05, rz * 1.2))

    def trace(self, x: Tensor, y: Tensor, near: bool) -> Surface:
        """Where rays enter the shell (near) or leave it."""
        dx, dy, dz = self.pose.ray
        ox, oy, oz = (affine(c, x, y) for c in self.pose.origin)
        ix, iy, iz = (1.0 / (r * r) for r in self.radii)
        oz = oz + self.back
        # around the vertical axis: ray . ray, ray . origin and origin . origin
        ray2 = dx * dx * ix + dz * dz * iz
        cross = ox * (dx * ix) + oz * (dz * iz)
        origin2 = ox * ox * ix + oz * oz * iz
        sign, rounds = (1.0, 2) if near else (-1.0, 1)
        t: Tensor = dz * (0.6 * sign)
        for _ in range(rounds):
            h = oy + t * dy
            grow = self._growth(h)
            s = 1.0 / grow.mul_(grow)
            wy = torch.sign(h).clamp_(min=0.0).mul_(iy)  # rounded above, a tube below
            a = (s * ray2).add_(wy * (dy * dy))
            q = (s * cross).add_((wy * oy).mul_(dy)).div_(a)
            d2 = (s * origin2).add_(wy.mul_(oy).mul_(oy)).sub_(q * q * a)
            root = (1.0 - d2).clamp_(min=0.0).div_(a).sqrt_()
            t = root.mul_(sign).sub_(q)
        inside = outline_distance(self.pose, d2.clamp_(min=1e-4), x, y)
        return Surface(ox + t * dx, oy + t * dy, oz + t * dz, t, inside)

    def _growth(self, h: Tensor) -> Tensor:
        """The shell's width at height h over that of the ellipsoid."""
        grow = (-h).clamp_(0.0, 1.8).mul_(self.flare)
        grow.sub_((0.7 - h).clamp_(0.0, 0.6).mul_(self.thin)).add_(1.0)
        if self.some_long:
            curl = wave(h * 1.7 + self.p["hair_part"] * 3.0).mul_(self.curl)
            grow.add_(curl.mul_((0.15 - h).clamp_(0.0, 1.0)))
            neck = bump((h + 0.80).mul_(1.25).square_())
            grow.sub_(neck.mul_(self.neck))
        return grow

    def draw_back(self, window: Window, size: int, rgb: Tensor, label: Tensor) -> None:
        """Paint the far inner side of long hair, which shows beside face and neck; before these are drawn."""
        g = self.g
        x, y = window.coordinates(size, rgb.device)
        scale = self.p["zoom"] * (0.5 * size)
        far = self.trace(x, y, near=False)
        ragged = wave(far.x * 5.0).add_(wave(far.x * 13.0)).mul_(0.02)
        alpha = coverage(far.inside, scale).mul_(coverage(far.y - self.far_end - ragged, scale))
        alpha.mul_((0.75 - far.y).mul_(8.0).clamp_(0.0, 1.0))  # nothing outside of the box
        shade = wave(far.x * 9.0).mul_(0.08).add_(0.34 + 0.10 * g["light_z"])
        if size >= textures.SMALLEST:
            strands = textures.sample("strands", far.x * 190.0, far.y * 40.0, size)
            shade.mul_(strands.mul_(0.2).add_(1.0))
        over(rgb, g["hair"] * shade.unsqueeze(1) * (g["key"] * 0.5 + g["ambient"]), alpha)
        stamp(label, alpha > 0.5, LABEL["hair"])

    def draw_front(self, window: Window, size: int, rgb: Tensor, label: Tensor) -> None:
        """Paint the near side, with a soft shadow on the face beneath its edge."""
        x, y = window.coordinates(size, rgb.device)
        scale = self.p["zoom"] * (0.5 * size)
        near = self.trace(x, y, near=True)
        rx, _, rz = self.radii
        xn, zn = near.x * (1.0 / rx), (near.z + self.back) * (1.0 / rz)
        locks, fibres = self._locks(near, xn, zn, size)
        hair = self._within(near, xn, zn, locks)
        cover = coverage(near.inside + locks * 0.008, scale).mul_(self.present)
        skin = label.clamp(max=1).float()
        shadow = (1.0 + hair * 6.0).clamp_(0.0, 1.0).mul_(cover).mul_(skin)
        rgb.mul_((1.0 - shadow.mul_(shadow).mul_(0.42)).unsqueeze(1))
        colour = self._colour(near, xn, zn, hair, locks, fibres)
        if fibres is not None:
            # above: along the cheeks the edge runs with the hairs
            hair.add_(fibres.mul_((near.y * 4.0).clamp_(0.0, 0.014)))
        # short hair thins out into the skin, but ends sharply against the background
        fade = 1.0 - self.short * (0.75 - 2.5 / size) * skin
        alpha = coverage(hair, scale * fade).mul_(cover)
        over(rgb, colour, alpha)
        stamp(label, alpha > 0.5, LABEL["hair"])

    def _within(self, near: Surface, xn: Tensor, zn: Tensor, locks: Tensor) -> Tensor:
        """Distance within the hair: outside the face's opening, not around the ears, above the end."""
        p = self.p
        around = 1.0 / (xn.abs() + zn.abs()).add_(1e-3)
        turn = 1.0 - zn * around  # 0 in front, 1 at the sides, 2 behind
        line = self.front - self.sweep * (near.x - p["hair_part"]).abs() + locks * 0.03
        temple = bump((near.y - 0.30).mul_(3.2).square_()).mul_(0.07 * self.short)
        narrow = (near.y - 0.10).clamp_(min=0.0).mul_(self.narrow)
        ragged = wave(near.y * 0.9 + p["hair_strand"] * 5.0).mul_(0.015)
        aside = (turn - self.opening - temple).add_(narrow).mul_(0.75).add_(ragged)
        face = smooth_max(near.y - line, aside, 0.16)
        tip = (turn - 0.86).abs_().mul_(0.8 * self.short)  # a sideburn ends in a point before the ear
        ear = smooth_max(near.y - self.side - tip, (turn - self.ear) * 0.75, 0.06)
        layered = (turn - 1.0) * (0.10 * self.long)  # shorter in front
        end = near.y - self.end + layered + locks * 0.05
        return torch.minimum(torch.minimum(face, ear), end)

    def _locks(self, near: Surface, xn: Tensor, zn: Tensor, size: int) -> tuple[Tensor, Tensor | None]:
        """Locks, about -1 .. 1, and single hairs where a picture of this size can show them."""
        p = self.p
        # locks fall from the parting: `strand` counts around it, `far` tells how far from it
        lock_x, lock_z = xn - p["hair_part"] * (0.7 * self.long), zn - 0.25
        far = (lock_x.abs() + lock_z.abs_()).add_(0.02)
        sway = wave(near.y * 0.9 + p["hair_strand"]).mul_(0.06 * p["hair_wave"])
        strand = lock_x / far + sway
        locks = wave(strand * 4.5 + near.y * 0.5 + p["hair_part"] * 2.0).mul_(0.6)
        fine = min(max((size - 80) / 80.0, 0.0), 1.0)
        if fine == 0:
            return locks, None
        frizz = wave(near.x * 7.0 + near.z * 3.0 + wave(near.y * 5.0) * 0.2)
        frizz.mul_(wave(near.y * 8.0 + near.x * 2.0))
        locks.add_(frizz.mul_(p["hair_wave"] * self.short * 0.9 * fine))
        level = textures.level(size)
        bend = wave(near.y * 2.3 + strand * 2.0).mul_(9.0 * p["hair_wave"])
        across = strand * 210.0 + p["hair_strand"] * 97.0 + bend
        place = textures.locate(across, (near.y - far) * 55.0, level)
        root = far.mul_(3.0).clamp_(max=1.0).mul_(fine)  # where they meet they are finer than a pixel
        locks.mul_(0.5).add_(textures.look("locks", place, level).mul_(0.42).mul_(root))
        return locks, textures.look("strands", place, level).mul_(root)

    def _colour(
        self, near: Surface, xn: Tensor, zn: Tensor, hair: Tensor, locks: Tensor, fibres: Tensor | None
    ) -> Tensor:
        """Light on the shell's own normal, a band of gloss across the strands, darkness between them."""
        g = self.g
        rx, ry, rz = self.radii
        up = near.y.clamp(min=0.0) * (1.0 / (ry * ry))
        nx, nz = xn * (1.0 / rx), zn * (1.0 / rz)
        norm = 1.0 / (nx * nx + nz * nz + up * up).add_(1e-4).sqrt_()
        diffuse = nx * g["sun_x"] + up * g["sun_y"] + nz * g["sun_z"]
        diffuse.mul_(norm).add_(0.35).mul_(1 / 1.35).clamp_(min=0.0)
        ring = (up * norm).add_(locks * 0.06).sub_(0.55 + 0.2 * g["sun_y"])
        if fibres is not None:
            ring.add_(fibres * 0.05)
        gloss = ring.mul_(3.2).square_().neg_().add_(1.0).clamp_(min=0.0).mul_(diffuse)
        tone = locks.mul(0.20).add_(0.92)
        if fibres is not None:
            tone.add_(fibres * 0.17)
            gloss.mul_(fibres.mul(0.5).add_(0.8).clamp_(min=0.0))
        depth = (hair * 5.0).clamp_(0.0, 1.0)
        tone.clamp_(min=0.3).mul_(depth.mul_(0.2).add_(0.8))  # darker at the edges
        shade = diffuse.unsqueeze(1) * g["key"] + g["ambient"]
        colour = g["hair"] * shade.mul_(tone.unsqueeze(1))
        return colour.add_((g["hair"] * 0.8 + 0.035) * gloss.mul_(0.55).unsqueeze(1))
