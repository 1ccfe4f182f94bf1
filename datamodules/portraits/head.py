"""The head without its hair: shape, skin, light, nose and ears; eyes and mouth have files of their own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from datamodules.portraits import textures
from datamodules.portraits.eyes import Eyes
from datamodules.portraits.geometry import (
    Ellipsoids,
    Pose,
    Scalars,
    Window,
    affine,
    bump,
    coverage,
    over,
    smooth_max,
    stamp,
    step,
)
from datamodules.portraits.labels import LABEL
from datamodules.portraits.mouth import Mouth

DEPTH = 0.85  # half the head's depth, in half-heights
CHIN = 0.40  # how far forward the lower face lies, over the squared distance below the eyes


@dataclass
class Surface:
    """Where the rays of a window meet a surface: head coordinates, depth along the ray, distance within the outline, in head units."""

    x: Tensor
    y: Tensor
    z: Tensor
    t: Tensor
    inside: Tensor


def pixels(box: tuple[Tensor, ...], size: int) -> Window:
    """The window that holds the boxes (left, right, bottom, top in the picture) of all images, and a pixel more."""
    left, right, bottom, top = (float(edge.min() if i % 2 == 0 else edge.max()) for i, edge in enumerate(box))
    half = 0.5 * size
    return Window(
        int((1.0 - top) * half) - 2,
        int((1.0 - bottom) * half) + 3,
        int((left + 1.0) * half) - 2,
        int((right + 1.0) * half) + 3,
    )


def outline_distance(pose: Pose, d2: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Distance within an outline around the head's middle from the squared radius d2, 1 on the outline."""
    u, v = affine(pose.u, x, y), affine(pose.v, x, y)
    return ((1.0 / d2.sqrt()) - 1.0).mul_(u.mul_(u).add_(v.mul_(v)).sqrt_())


def trace_head(p: Scalars, pose: Pose, x: Tensor, y: Tensor) -> Surface:
    """The skull: an ellipsoid whose width (jaw) and place in depth (chin) change with height, met by two rounds of substitution."""
    (dx, dy, dz), (ox, oy, oz) = pose.ray, (affine(c, x, y) for c in pose.origin)
    inverse_width, wz = 1.0 / p["head_width"], 1.0 / (DEPTH * DEPTH)
    a_fixed, b_fixed, c_fixed = dy * dy + dz * dz * wz, oy * dy, oy * oy
    t: Tensor = 0.6 * dz
    for last in (False, True):
        low = (-t * dy - oy).clamp_(0.0, 0.98)
        low.mul_(low)
        wx = inverse_width / (1.0 + p["jaw"] * low)
        wx.mul_(wx)
        forward = oz - CHIN * low
        wx_ox = wx * ox
        a = wx * (dx * dx) + a_fixed
        q = (wx_ox * dx).add_(forward * (dz * wz)).add_(b_fixed).div_(a)
        d2 = wx_ox.mul_(ox).add_(forward.mul_(forward).mul_(wz)).add_(c_fixed).sub_(q * q * a)
        rest = 1.0 - d2
        if not last:  # smooth where the first guess misses, or a crease would run along the jaw
            rest = (rest * rest).add_(0.02).sqrt_().add_(rest).mul_(0.5)
        t = rest.clamp_(min=0.0).div_(a).sqrt_().sub_(q)
    return Surface(ox + t * dx, oy + t * dy, oz + t * dz, t, outline_distance(pose, d2, x, y))


def depth_at(p: Scalars, x: Tensor, y: Tensor) -> Tensor:
    """z of the skull's front at (x, y) of the head."""
    low = (-y).clamp(0.0, 0.98)
    low = low * low
    across = x / (p["head_width"] * (1.0 + p["jaw"] * low))
    return CHIN * low + DEPTH * (1.0 - across * across - y * y).clamp(min=0.0).sqrt()


class Face:
    """What a batch of faces consists of, in the head frame: derived once, drawn window by window."""

    def __init__(self, p: Scalars, g: Scalars, pose: Pose) -> None:
        self.p, self.g, self.pose = p, g, pose
        self.mouth, self.eyes = Mouth(p, g), Eyes(p, g)
        zero = torch.zeros_like(p["smile"])
        tip_y = -p["nose_length"]
        tip_z = depth_at(p, zero, tip_y) + p["nose_depth"]
        wide = p["nose_width"]
        self.nose_tip = (zero, tip_y + 0.02, tip_z)
        root_y, root_z = zero + 0.04, depth_at(p, zero, zero + 0.04) - 0.02
        dy, dz = tip_y - root_y, tip_z - 0.06 - root_z
        length = (dy * dy + dz * dz).sqrt()
        along = (0.0, dy / length, dz / length)
        across = (0.0, -along[2], along[1])
        side = (1.0, 0.0, 0.0)
        upright = (side, (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
        middle = (zero, (tip_y + root_y) * 0.5 + 0.01, (tip_z + root_z) * 0.5 - 0.085)
        wing_x, wing = 0.074 * wide, 0.056 * wide
        wing_at = (tip_y - 0.012, tip_z - 0.155)
        tilt, size = 0.35, p["ear_size"]
        ears = []
        for s in (
            -1.0,
            1.0,
        ):  # discs that stand off the sides of the head, looking slightly forward: rim and bowl
            axes = ((s * 0.94, 0.0, tilt * 0.97), (0.0, 1.0, 0.0), (-s * tilt * 0.97, 0.0, 0.94))
            ears.append(
                ((s * (p["head_width"] + 0.005), -0.09, -0.06), axes, (0.05, 0.185 * size, 0.115 * size))
            )
            ears.append(
                ((s * (p["head_width"] + 0.03), -0.075, -0.045), axes, (0.05, 0.120 * size, 0.068 * size))
            )
        self.ellipsoids = Ellipsoids(pose, [
            (middle, (side, along, across), (0.074 * wide, length * 0.60, 0.095)),
            ((0.0, tip_y + 0.015, tip_z - 0.10), upright, (0.080 * wide, 0.072, 0.10)),
            ((-wing_x, *wing_at), upright, (wing, 0.056, 0.085)),
            ((wing_x, *wing_at), upright, (wing, 0.056, 0.085)),
            ((-0.054 * wide, tip_y - 0.050, tip_z - 0.105), upright, (0.034 * wide, 0.02, 0.035)),
            ((0.054 * wide, tip_y - 0.050, tip_z - 0.105), upright, (0.034 * wide, 0.02, 0.035)),
            *ears,
        ])  # fmt: skip
        eye = p["eye_distance"]
        points = [(s * eye, zero) for s in (-1.0, 1.0)], [self.mouth.corner(s) for s in (-1.0, 1.0)]
        eyes, corners = ([pose.at(x, y, depth_at(p, x, y)) for x, y in pair] for pair in points)
        self.landmarks = [*eyes, pose.at(*self.nose_tip), *corners]

    def box(self) -> tuple[Tensor, ...]:
        """Left, right, bottom, top in the picture, ears and nose included."""
        return self.pose.box((0.0, -0.02, 0.05), (self.p["head_width"] + 0.22, 1.14, 1.16))

    def draw(self, window: Window, size: int, rgb: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        """Paint ears and face over the window's rgb (B, 3, h, w) and label (B, h, w), in place; the skull's depth and the face's cover."""
        p, g = self.p, self.g
        around = window.grown(1)
        x, y = around.coordinates(size, rgb.device)
        scale = p["zoom"] * (0.5 * size)  # pixels per unit of the head
        skull = trace_head(p, self.pose, x, y)
        # what is drawn in front must not come again behind the ears: there x grows on
        skull.x.add_(torch.copysign((0.15 - skull.z).clamp_(min=0.0), skull.x))
        hx, hy = (window.of(c, around).contiguous() for c in (skull.x, skull.y))
        depth = skull.t + self._relief(skull)
        cover = coverage(window.of(skull.inside, around).contiguous(), scale)
        nose = self._nose(around, size, skull.t, depth)
        shadow = self._shadows(hx, hy)

        albedo = g["skin"].expand(-1, -1, *hx.shape[-2:]).contiguous()
        parts = torch.full_like(label, LABEL["skin"])
        flush = bump(((hx.abs() - 0.40) * 4.0).square_().add_(((hy + 0.27) * 4.2).square_()))
        over(albedo, g["blush"], flush.mul_(0.30 + 0.35 * self.mouth.glad))
        if size >= textures.SMALLEST:
            self._texture(hx, hy, window.of(skull.z, around), size, albedo)
        self._stubble(window.of(skull.z, around), hx, hy, size, albedo, parts)
        if bool((p["beard"] + p["moustache"] > 0).any()):
            low = pixels(self.pose.box((0.0, -0.56, 0.20), (0.85, 0.56, 0.90)), size).within(window)
            if not low.empty:
                bx, by = low.of(hx, window).contiguous(), low.of(hy, window).contiguous()
                self.mouth.draw_beard(bx, by, size, low.of(albedo, window))
        mouth = pixels(self.pose.box((0.0, self.mouth.y + 0.02, 0.74), (0.42, 0.42, 0.30)), size)
        eyes = pixels(self.pose.box((0.0, 0.13, 0.45), (0.68, 0.43, 0.50)), size)
        for part, feature in ((mouth, self.mouth), (eyes, self.eyes)):
            part = part.within(window)
            if not part.empty:
                sx, sy = part.of(hx, window), part.of(hy, window).contiguous()
                hidden = (
                    (0.15 - part.of(skull.z, around)).clamp_(min=0.0).mul_(2.0)
                )  # x grows faster still, or mouths come below chins
                sx = sx + torch.copysign(hidden, sx)
                feature.draw(sx, sy, size, part.of(albedo, window), part.of(parts, window))
        part, nose_cover, nose_shape = nose
        part = part.within(window)
        if not part.empty:
            self._paint_nose(
                part, size, part.of(nose_cover, nose[0]), part.of(albedo, window), part.of(parts, window)
            )
            shape = coverage(part.of(nose_shape, nose[0]).contiguous(), scale)
            part.of(cover, window).copy_(torch.maximum(part.of(cover, window), shape))
            part.of(shadow, window).mul_(1.0 - 0.6 * part.of(nose_cover, nose[0]))

        colour = self._light(depth, albedo, shadow, 0.5 * size)
        depth = window.of(skull.t, around)
        ears = list(self._ears(window, size, depth, scale))
        for (
            part,
            name,
            tint,
            alpha,
            _,
        ) in ears:  # what stands out beside the head; then the head; then what stands before it
            over(part.of(rgb, window), tint, alpha)
            stamp(part.of(label, window), alpha > 0.5, name)
        over(rgb, colour, cover)
        inside = (cover > 0.5).view(torch.uint8).neg()
        label.bitwise_and_(~inside).bitwise_or_(parts.bitwise_and_(inside))
        for part, name, tint, _, alpha in ears:
            over(part.of(rgb, window), tint, alpha)
            stamp(part.of(label, window), alpha > 0.5, name)
        return depth, cover

    def _relief(self, skull: Surface) -> Tensor:
        """What the skull lacks, as depth: sockets, brow ridge, cheeks, lips, chin, folds."""
        p, x, y = self.p, skull.x, skull.y
        side = x.abs()
        relief = bump(
            ((side - p["eye_distance"] + 0.03) * 4.6).square_().add_(((y - 0.03) * 6.5).square_())
        ).mul_(-0.085)
        relief.add_(bump(((side - 0.24) * 3.4).square_().add_(((y - 0.215) * 10.0).square_())).mul_(0.024))
        high = y + (0.27 - 0.035 * self.mouth.glad)
        relief.add_(
            bump(((side - 0.40) * 4.4).square_().add_((high * 4.6).square_())).mul_(
                0.032 + 0.042 * self.mouth.glad
            )
        )
        lips = y - self.mouth.y
        relief.add_(bump((x * 3.4).square_().add_((lips * 5.5).square_())).mul_(0.055))
        relief.add_(bump((x * 3.6).square_().add_(((lips + 0.145) * 13.0).square_())).mul_(-0.030))
        relief.add_(bump((x * 4.4).square_().add_(((y + 0.87) * 6.0).square_())).mul_(0.050))
        return relief

    def _shadows(self, x: Tensor, y: Tensor) -> Tensor:
        """How much of the key light is kept from the face (B, h, w): by the nose, away from the light, and by the brows."""
        p, g = self.p, self.g
        aside, below = g["sun_x"] * -0.15, g["sun_y"].clamp(min=0.0) * -0.15
        dark = bump(
            ((x - aside) * 6.0).square_().add_(((y + p["nose_length"] - below) * 5.0).square_())
        ).mul_(0.55)
        socket = ((x.abs() - p["eye_distance"] + 0.05) * 5.4).square_().add_(((y - 0.075) * 7.5).square_())
        return dark.add_(bump(socket).mul_(0.15 + 0.40 * g["sun_y"].clamp(min=0.0)))

    def _texture(self, x: Tensor, y: Tensor, z: Tensor, size: int, albedo: Tensor) -> None:
        """Pores, patches of warmer and colder skin, freckles and the spots of age."""
        p, g = self.p, self.g
        level = textures.level(size)
        along = x + torch.copysign((0.7 - z).clamp_(0.0, 0.6).mul_(0.7), x)  # around the head
        place = textures.locate((along + p["skin_grain"] * 2.0) * 200.0, y * 200.0, level)
        pores, patches = textures.look("grain", place, level), textures.look("clouds", place, level)
        albedo.mul_(pores.mul_(0.03 + 0.03 * g["ageing"]).add_(1.0).unsqueeze(1))
        albedo.mul_(1.0 + patches.unsqueeze(1) * x.new_tensor([0.012, 0.030, 0.034]).view(3, 1, 1))
        cheeks = bump((x * 1.6).square_().add_(((y + 0.16) * 2.6).square_())).mul_(1.6 * p["freckled"])
        everywhere = 0.55 * step(p["age"], 45.0, 85.0)
        spots = textures.look("spots", place, level).mul_(cheeks.add_(everywhere).clamp_(max=1.0))
        over(albedo, g["skin"] * g["shade"], spots.mul_(0.75))

    def _light(self, depth: Tensor, albedo: Tensor, shadow: Tensor, half: float) -> Tensor:
        """albedo (B, 3, h, w) under the light, with normals from the depth (B, h + 2, w + 2); takes albedo over."""
        g, slope = self.g, self.p["zoom"] * (0.5 * half)
        gx = (depth[:, 1:-1, 2:] - depth[:, 1:-1, :-2]).mul_(slope).clamp_(-2.5, 2.5)
        gy = (depth[:, :-2, 1:-1] - depth[:, 2:, 1:-1]).mul_(slope).clamp_(-2.5, 2.5)
        facing = 1.0 / (gx * gx).add_(gy * gy).add_(1.0).sqrt_()
        diffuse = (g["light_z"] - gx * g["light_x"]).sub_(gy * g["light_y"]).mul_(facing)
        diffuse.add_(0.25).mul_(1 / 1.25).clamp_(min=0.0).mul_(1.0 - shadow)
        gloss = (g["half_z"] - gx.mul_(g["half_x"])).sub_(gy.mul_(g["half_y"])).mul_(facing).clamp_(min=0.0)
        for _ in range(4):
            gloss.mul_(gloss)
        ambient = facing.mul_(0.45).add_(0.6)
        shade = g["ambient"] * ambient.unsqueeze(1)
        shade.add_(g["key"] * diffuse.unsqueeze(1))
        # light that went through the skin reddens where it fades
        shade[:, 0].add_((1.0 - diffuse).mul_(diffuse).mul_(0.16 * self.p["light_intensity"]))
        return albedo.mul_(shade).add_(gloss.mul_(self.p["light_intensity"] * 0.08).unsqueeze(1))

    def _nose(self, around: Window, size: int, skull: Tensor, depth: Tensor) -> tuple[Window, Tensor, Tensor]:
        """Raise depth by the nose; its window, how much it hides of what lies behind, and the distance within its outline."""
        tip_y, tip_z = self.nose_tip[1], self.nose_tip[2]
        part = pixels(
            self.pose.box((0.0, tip_y * 0.5 + 0.03, tip_z - 0.15), (0.23, 0.36, 0.26)), size
        ).within(around)
        if part.empty:
            return part, skull, skull
        x, y = part.coordinates(size, skull.device)
        raised, nearest = self.ellipsoids.front(0, x, y)
        for k in (1, 2, 3):
            t, d2 = self.ellipsoids.front(k, x, y)
            raised, nearest = smooth_max(raised, t, 0.085), torch.minimum(nearest, d2)
        base = part.of(skull, around)
        surface = part.of(depth, around)
        cover = (raised - base).mul_(30.0).clamp_(0.0, 1.0)
        surface.copy_(smooth_max(surface, raised, 0.09))
        return part, cover, (1.0 - nearest).mul_(0.04)

    def _paint_nose(self, part: Window, size: int, cover: Tensor, albedo: Tensor, parts: Tensor) -> None:
        g = self.g
        x, y = part.coordinates(size, cover.device)
        over(albedo, g["skin"] * 0.7 + g["blush"] * 0.3, cover * 0.6)
        stamp(parts, cover > 0.5, LABEL["nose"])
        nearest = torch.minimum(self.ellipsoids.outline(4, x, y), self.ellipsoids.outline(5, x, y))
        dark = (1.0 - nearest).mul_(1.2).clamp_(0.0, 1.0)
        over(albedo, g["skin"] * g["shade"] * 0.3, dark.mul_(0.9).mul_(cover))

    def _stubble(self, z: Tensor, x: Tensor, y: Tensor, size: int, albedo: Tensor, parts: Tensor) -> None:
        """Short hair goes on down the nape."""
        g = self.g
        cropped = g["haired"] * (1.0 - g["long"])
        if not bool((cropped > 0).any()):
            return
        low = (z * -4.0).sub_(0.4).clamp_(0.0, 1.0).mul_(-0.30).sub_(0.20)
        alpha = (
            (y - low)
            .mul_(5.0)
            .clamp_(0.0, 1.0)
            .mul_((0.20 - z).mul_(7.0).clamp_(0.0, 1.0))
            .mul_(cropped * 0.92)
        )
        region = alpha > 0.5
        if size >= textures.SMALLEST:
            level = textures.level(size)
            hairs = textures.look("strands", textures.locate((x + z) * 120.0, y * 70.0, level), level)
            alpha.mul_(hairs.mul_(0.12).add_(0.9).clamp_(max=1.0))
        over(albedo, g["hair"] * 0.8, alpha)
        stamp(parts, region, LABEL["hair"])

    def _ears(
        self, window: Window, size: int, skull: Tensor, scale: Tensor
    ) -> Iterator[tuple[Window, int, Tensor, Tensor, Tensor]]:
        """Per ear: window, label, colour, its coverage, and its coverage where it stands before the skull (depth over `window`)."""
        g = self.g
        for s, k, name in ((-1.0, 6, "l_ear"), (1.0, 8, "r_ear")):
            part = pixels(
                self.pose.box((s * self.p["head_width"], -0.09, -0.06), (0.22, 0.34, 0.26)), size
            ).within(window)
            if part.empty:
                continue
            x, y = part.coordinates(size, skull.device)
            t, d2 = self.ellipsoids.front(k, x, y)
            alpha = coverage((1.0 - d2).mul_(0.06), scale)
            before = coverage((t - part.of(skull, window)).mul_(2.0), scale * 0.5).mul_(alpha)
            bowl = self.ellipsoids.outline(k + 1, x, y)
            light = (1.0 - 0.55 * bump(bowl * 0.85)).mul_((1.08 - 0.45 * d2 * d2).clamp_(min=0.5))
            light.add_(bump((bowl - 1.25).mul_(1.8).square_()).mul_(0.25)).mul_(0.9 + 0.35 * s * g["light_x"])
            yield (
                part,
                LABEL[name],
                (g["skin"] * 0.5 + g["blush"] * 0.5) * light.unsqueeze(1) * (g["key"] * 0.6 + g["ambient"]),
                alpha,
                before,
            )
