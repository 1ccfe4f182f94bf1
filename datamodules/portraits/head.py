"""The head without its hair: shape, skin, light, nose and ears; eyes and mouth have files of their own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from datamodules.portraits import textures
from datamodules.portraits.colours import colour
from datamodules.portraits.eyes import Eyes
from datamodules.portraits.geometry import (
    Ellipsoid,
    Ellipsoids,
    Pose,
    Scalars,
    Triple,
    Window,
    affine,
    bump,
    coverage,
    over,
    smooth_max,
    spot,
    stamp,
    step,
)
from datamodules.portraits.labels import LABEL
from datamodules.portraits.mouth import Mouth

DEPTH = 0.85  # half the head's depth, in half-heights
CHIN = 0.40  # how far forward the lower face lies, over the squared distance below the eyes

# the ellipsoids' places in their list
NOSE = (0, 1, 2, 3)  # bridge, tip, wings
NOSTRILS = (4, 5)
EARS = ((-1.0, 6, "l_ear"), (1.0, 8, "r_ear"))  # side, rim (the bowl follows), label
UPRIGHT: tuple[Triple, Triple, Triple] = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))


@dataclass
class Surface:
    """Where the rays of a window meet a surface, in head units."""

    x: Tensor
    y: Tensor
    z: Tensor
    t: Tensor  # depth along the ray
    inside: Tensor  # distance within the outline


class Nose(NamedTuple):
    """Where the nose is in a window."""

    window: Window
    cover: Tensor  # how much it hides of what lies behind
    inside: Tensor  # distance within its outline


class Ear(NamedTuple):
    """What an ear looks like in its window."""

    window: Window
    label: int
    colour: Tensor  # (B, 3, h, w)
    cover: Tensor
    before: Tensor  # its cover where it stands before the skull


def pixels(box: tuple[Tensor, ...], size: int) -> Window:
    """The window that holds the boxes (left, right, bottom, top) of all images, and a pixel more."""
    lefts, rights, bottoms, tops = box
    left, right = float(lefts.min()), float(rights.max())
    bottom, top = float(bottoms.min()), float(tops.max())
    half = 0.5 * size
    return Window(
        top=int((1.0 - top) * half) - 2,
        bottom=int((1.0 - bottom) * half) + 3,
        left=int((left + 1.0) * half) - 2,
        right=int((right + 1.0) * half) + 3,
    )


def outline_distance(pose: Pose, d2: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Distance within an outline around the head's middle from the squared radius d2, 1 on the outline."""
    u, v = affine(pose.u, x, y), affine(pose.v, x, y)
    radius = u.mul_(u).add_(v.mul_(v)).sqrt_()
    return ((1.0 / d2.sqrt()) - 1.0).mul_(radius)


def trace_head(p: Scalars, pose: Pose, x: Tensor, y: Tensor) -> Surface:
    """The skull: an ellipsoid whose width (jaw) and place in depth (chin) change with height.

    Two rounds of substitution find where the rays meet it.
    """
    dx, dy, dz = pose.ray
    ox, oy, oz = (affine(c, x, y) for c in pose.origin)
    inverse_width, wz = 1.0 / p["head_width"], 1.0 / (DEPTH * DEPTH)
    a_fixed = dy * dy + dz * dz * wz
    b_fixed, c_fixed = oy * dy, oy * oy
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
        c = wx_ox.mul_(ox).add_(forward.mul_(forward).mul_(wz)).add_(c_fixed)
        d2 = c.sub_(q * q * a)
        rest = 1.0 - d2
        if not last:  # smooth where the first guess misses, or a crease would run along the jaw
            rest = (rest * rest).add_(0.02).sqrt_().add_(rest).mul_(0.5)
        t = rest.clamp_(min=0.0).div_(a).sqrt_().sub_(q)
    inside = outline_distance(pose, d2, x, y)
    return Surface(ox + t * dx, oy + t * dy, oz + t * dz, t, inside)


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
        self.nose_tip = (zero, tip_y + 0.02, tip_z)
        self.ellipsoids = Ellipsoids(pose, [*self._nose_shapes(tip_y, tip_z), *self._ear_shapes()])
        eyes = [self._landmark(s * p["eye_distance"], zero) for s in (-1.0, 1.0)]
        corners = [self._landmark(*self.mouth.corner(s)) for s in (-1.0, 1.0)]
        self.landmarks = [*eyes, pose.at(*self.nose_tip), *corners]

    def _landmark(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """The picture's (x, y) of a point of the skull's front."""
        return self.pose.at(x, y, depth_at(self.p, x, y))

    def _nose_shapes(self, tip_y: Tensor, tip_z: Tensor) -> list[Ellipsoid]:
        """Bridge, tip, two wings, two nostrils."""
        p, zero = self.p, torch.zeros_like(tip_y)
        wide = p["nose_width"]
        root_y, root_z = zero + 0.04, depth_at(p, zero, zero + 0.04) - 0.02
        dy, dz = tip_y - root_y, tip_z - 0.06 - root_z
        length = (dy * dy + dz * dz).sqrt()
        along = (0.0, dy / length, dz / length)
        across = (0.0, -along[2], along[1])
        middle = (zero, (tip_y + root_y) * 0.5 + 0.01, (tip_z + root_z) * 0.5 - 0.085)
        bridge = Ellipsoid(middle, (UPRIGHT[0], along, across), (0.074 * wide, length * 0.60, 0.095))
        tip = Ellipsoid((0.0, tip_y + 0.015, tip_z - 0.10), UPRIGHT, (0.080 * wide, 0.072, 0.10))
        wings, nostrils = [], []
        for s in (-1.0, 1.0):
            wing = (s * (0.074 * wide), tip_y - 0.012, tip_z - 0.155)
            wings.append(Ellipsoid(wing, UPRIGHT, (0.056 * wide, 0.056, 0.085)))
            nostril = (s * (0.054 * wide), tip_y - 0.050, tip_z - 0.105)
            nostrils.append(Ellipsoid(nostril, UPRIGHT, (0.034 * wide, 0.02, 0.035)))
        return [bridge, tip, *wings, *nostrils]

    def _ear_shapes(self) -> list[Ellipsoid]:
        """Discs off the sides of the head that look slightly forward: rim and bowl of either ear."""
        width, size, tilt = self.p["head_width"], self.p["ear_size"], 0.35
        shapes = []
        for s in (-1.0, 1.0):
            axes = ((s * 0.94, 0.0, tilt * 0.97), (0.0, 1.0, 0.0), (-s * tilt * 0.97, 0.0, 0.94))
            rim, bowl = (s * (width + 0.005), -0.09, -0.06), (s * (width + 0.03), -0.075, -0.045)
            shapes.append(Ellipsoid(rim, axes, (0.05, 0.185 * size, 0.115 * size)))
            shapes.append(Ellipsoid(bowl, axes, (0.05, 0.120 * size, 0.068 * size)))
        return shapes

    def box(self) -> tuple[Tensor, ...]:
        """Left, right, bottom, top in the picture, ears and nose included."""
        return self.pose.box((0.0, -0.02, 0.05), (self.p["head_width"] + 0.22, 1.14, 1.16))

    def draw(self, window: Window, size: int, rgb: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        """Paint ears and face over the window's rgb (B, 3, h, w) and label (B, h, w), in place.

        Returns:
            The skull's depth and the face's cover (B, h, w).
        """
        around = window.grown(1)
        x, y = around.coordinates(size, rgb.device)
        scale = self.p["zoom"] * (0.5 * size)  # pixels per unit of the head
        skull = trace_head(self.p, self.pose, x, y)
        # what is drawn in front must not come again behind the ears: there x grows on
        skull.x.add_(torch.copysign((0.15 - skull.z).clamp_(min=0.0), skull.x))
        depth = skull.t + self._relief(skull)
        nose = self._nose(around, size, skull.t, depth)
        cover = coverage(window.of(skull.inside, around).contiguous(), scale)

        hx, hy = window.of(skull.x, around).contiguous(), window.of(skull.y, around).contiguous()
        hz = window.of(skull.z, around)
        albedo = self.g["skin"].expand(-1, -1, *hx.shape[-2:]).contiguous()
        parts = torch.full_like(label, LABEL["skin"])
        shadow = self._shadows(hx, hy)
        self._skin(hx, hy, hz, size, albedo, parts)
        self._features(window, hx, hy, hz, size, albedo, parts)
        part = nose.window.within(window)
        if not part.empty:
            hides = part.of(nose.cover, nose.window)
            self._paint_nose(part, size, hides, part.of(albedo, window), part.of(parts, window))
            shape = coverage(part.of(nose.inside, nose.window).contiguous(), scale)
            covered = part.of(cover, window)
            covered.copy_(torch.maximum(covered, shape))
            part.of(shadow, window).mul_(1.0 - 0.6 * hides)

        lit = self._light(depth, albedo, shadow, 0.5 * size)
        skull_depth = window.of(skull.t, around)
        ears = list(self._ears(window, size, skull_depth, scale))
        # what stands out beside the head; then the head; then what stands before it
        for ear in ears:
            over(ear.window.of(rgb, window), ear.colour, ear.cover)
            stamp(ear.window.of(label, window), ear.cover > 0.5, ear.label)
        over(rgb, lit, cover)
        inside = (cover > 0.5).view(torch.uint8).neg()
        label.bitwise_and_(~inside).bitwise_or_(parts.bitwise_and_(inside))
        for ear in ears:
            over(ear.window.of(rgb, window), ear.colour, ear.before)
            stamp(ear.window.of(label, window), ear.before > 0.5, ear.label)
        return skull_depth, cover

    def _skin(self, x: Tensor, y: Tensor, z: Tensor, size: int, albedo: Tensor, parts: Tensor) -> None:
        """Paint what lies on all of the head: flushed cheeks, texture, the stubble of short hair."""
        flush = spot((x.abs() - 0.40) * 4.0, (y + 0.27) * 4.2)
        over(albedo, self.g["blush"], flush.mul_(0.30 + 0.35 * self.mouth.glad))
        if size >= textures.SMALLEST:
            self._texture(x, y, z, size, albedo)
        self._stubble(x, y, z, size, albedo, parts)

    def _features(
        self, window: Window, x: Tensor, y: Tensor, z: Tensor, size: int, albedo: Tensor, parts: Tensor
    ) -> None:
        """Paint beard, mouth and eyes over the window's albedo and labels, each where it can be."""
        p = self.p
        if bool((p["beard"] + p["moustache"] > 0).any()):
            low = pixels(self.pose.box((0.0, -0.56, 0.20), (0.85, 0.56, 0.90)), size).within(window)
            if not low.empty:
                bx, by = low.of(x, window).contiguous(), low.of(y, window).contiguous()
                self.mouth.draw_beard(bx, by, size, low.of(albedo, window))
        mouth = self.pose.box((0.0, self.mouth.y + 0.02, 0.74), (0.42, 0.42, 0.30))
        eyes = self.pose.box((0.0, 0.13, 0.45), (0.68, 0.43, 0.50))
        for box, feature in ((mouth, self.mouth), (eyes, self.eyes)):
            part = pixels(box, size).within(window)
            if not part.empty:
                sx, sy = part.of(x, window), part.of(y, window).contiguous()
                # x grows faster still, or mouths come below chins
                hidden = (0.15 - part.of(z, window)).clamp_(min=0.0).mul_(2.0)
                sx = sx + torch.copysign(hidden, sx)
                feature.draw(sx, sy, size, part.of(albedo, window), part.of(parts, window))

    def _relief(self, skull: Surface) -> Tensor:
        """What the skull lacks, as depth: sockets, brow ridge, cheeks, lips, chin, folds."""
        p, x, y = self.p, skull.x, skull.y
        side = x.abs()
        relief = spot((side - p["eye_distance"] + 0.03) * 4.6, (y - 0.03) * 6.5).mul_(-0.085)  # sockets
        ridge = spot((side - 0.24) * 3.4, (y - 0.215) * 10.0)
        relief.add_(ridge.mul_(0.024))
        high = y + (0.27 - 0.035 * self.mouth.glad)
        cheek = spot((side - 0.40) * 4.4, high * 4.6)
        relief.add_(cheek.mul_(0.032 + 0.042 * self.mouth.glad))
        below = y - self.mouth.y
        lips = spot(x * 3.4, below * 5.5)
        relief.add_(lips.mul_(0.055))
        fold = spot(x * 3.6, (below + 0.145) * 13.0)
        relief.add_(fold.mul_(-0.030))
        chin = spot(x * 4.4, (y + 0.87) * 6.0)
        return relief.add_(chin.mul_(0.050))

    def _shadows(self, x: Tensor, y: Tensor) -> Tensor:
        """How much of the key light is kept from the face (B, h, w): by the nose, and by the brows."""
        p, g = self.p, self.g
        high = g["sun_y"].clamp(min=0.0)
        # the nose's falls away from the light
        aside, below = g["sun_x"] * -0.15, high * -0.15
        nose = spot((x - aside) * 6.0, (y + p["nose_length"] - below) * 5.0).mul_(0.55)
        socket = spot((x.abs() - p["eye_distance"] + 0.05) * 5.4, (y - 0.075) * 7.5)
        return nose.add_(socket.mul_(0.15 + 0.40 * high))

    def _texture(self, x: Tensor, y: Tensor, z: Tensor, size: int, albedo: Tensor) -> None:
        """Pores, patches of warmer and colder skin, freckles and the spots of age."""
        p, g = self.p, self.g
        level = textures.level(size)
        along = x + torch.copysign((0.7 - z).clamp_(0.0, 0.6).mul_(0.7), x)  # around the head
        place = textures.locate((along + p["skin_grain"] * 2.0) * 200.0, y * 200.0, level)
        pores = textures.look("grain", place, level)
        albedo.mul_(pores.mul_(0.03 + 0.03 * g["ageing"]).add_(1.0).unsqueeze(1))
        patches = textures.look("clouds", place, level)
        albedo.mul_(1.0 + patches.unsqueeze(1) * colour(x, 0.012, 0.030, 0.034))
        freckled = spot(x * 1.6, (y + 0.16) * 2.6).mul_(1.6 * p["freckled"])  # the cheeks
        aged = 0.55 * step(p["age"], 45.0, 85.0)  # everywhere
        spots = textures.look("spots", place, level).mul_(freckled.add_(aged).clamp_(max=1.0))
        over(albedo, g["skin"] * g["shade"], spots.mul_(0.75))

    def _light(self, depth: Tensor, albedo: Tensor, shadow: Tensor, half: float) -> Tensor:
        """albedo (B, 3, h, w), taken over, under the light; the normals are from depth (B, h + 2, w + 2)."""
        g, slope = self.g, self.p["zoom"] * (0.5 * half)
        gx = (depth[:, 1:-1, 2:] - depth[:, 1:-1, :-2]).mul_(slope).clamp_(-2.5, 2.5)
        gy = (depth[:, :-2, 1:-1] - depth[:, 2:, 1:-1]).mul_(slope).clamp_(-2.5, 2.5)
        facing = 1.0 / (gx * gx).add_(gy * gy).add_(1.0).sqrt_()
        diffuse = (g["light_z"] - gx * g["light_x"]).sub_(gy * g["light_y"]).mul_(facing)
        diffuse.add_(0.25).mul_(1 / 1.25).clamp_(min=0.0).mul_(1.0 - shadow)
        gloss = (g["half_z"] - gx.mul_(g["half_x"])).sub_(gy.mul_(g["half_y"]))
        gloss.mul_(facing).clamp_(min=0.0)
        for _ in range(4):
            gloss.mul_(gloss)
        ambient = facing.mul_(0.45).add_(0.6)
        shade = g["ambient"] * ambient.unsqueeze(1)
        shade.add_(g["key"] * diffuse.unsqueeze(1))
        # light that went through the skin reddens where it fades
        shade[:, 0].add_((1.0 - diffuse).mul_(diffuse).mul_(0.16 * self.p["light_intensity"]))
        gloss.mul_(self.p["light_intensity"] * 0.08)
        return albedo.mul_(shade).add_(gloss.unsqueeze(1))

    def _nose(self, around: Window, size: int, skull: Tensor, depth: Tensor) -> Nose:
        """Raise depth by the nose."""
        tip_y, tip_z = self.nose_tip[1], self.nose_tip[2]
        box = self.pose.box((0.0, tip_y * 0.5 + 0.03, tip_z - 0.15), (0.23, 0.36, 0.26))
        part = pixels(box, size).within(around)
        if part.empty:
            return Nose(part, skull, skull)
        x, y = part.coordinates(size, skull.device)
        raised, nearest = self.ellipsoids.front(NOSE[0], x, y)
        for k in NOSE[1:]:
            t, d2 = self.ellipsoids.front(k, x, y)
            raised = smooth_max(raised, t, 0.085)
            nearest = torch.minimum(nearest, d2)
        cover = (raised - part.of(skull, around)).mul_(30.0).clamp_(0.0, 1.0)
        surface = part.of(depth, around)
        surface.copy_(smooth_max(surface, raised, 0.09))
        return Nose(part, cover, (1.0 - nearest).mul_(0.04))

    def _paint_nose(self, part: Window, size: int, cover: Tensor, albedo: Tensor, parts: Tensor) -> None:
        """Its tint and label, and the nostrils."""
        g = self.g
        x, y = part.coordinates(size, cover.device)
        over(albedo, g["skin"] * 0.7 + g["blush"] * 0.3, cover * 0.6)
        stamp(parts, cover > 0.5, LABEL["nose"])
        left, right = (self.ellipsoids.outline(k, x, y) for k in NOSTRILS)
        dark = (1.0 - torch.minimum(left, right)).mul_(1.2).clamp_(0.0, 1.0)
        over(albedo, g["skin"] * g["shade"] * 0.3, dark.mul_(0.9).mul_(cover))

    def _stubble(self, x: Tensor, y: Tensor, z: Tensor, size: int, albedo: Tensor, parts: Tensor) -> None:
        """Short hair goes on down the nape."""
        g = self.g
        cropped = g["haired"] * (1.0 - g["long"])
        if not bool((cropped > 0).any()):
            return
        low = (z * -4.0).sub_(0.4).clamp_(0.0, 1.0).mul_(-0.30).sub_(0.20)
        behind = (0.20 - z).mul_(7.0).clamp_(0.0, 1.0)
        alpha = (y - low).mul_(5.0).clamp_(0.0, 1.0).mul_(behind).mul_(cropped * 0.92)
        region = alpha > 0.5
        if size >= textures.SMALLEST:
            hairs = textures.sample("strands", (x + z) * 120.0, y * 70.0, size)
            alpha.mul_(hairs.mul_(0.12).add_(0.9).clamp_(max=1.0))
        over(albedo, g["hair"] * 0.8, alpha)
        stamp(parts, region, LABEL["hair"])

    def _ears(self, window: Window, size: int, skull: Tensor, scale: Tensor) -> Iterator[Ear]:
        """The ears that reach into the window; `skull` is its depth there."""
        g = self.g
        for side, rim, name in EARS:
            box = self.pose.box((side * self.p["head_width"], -0.09, -0.06), (0.22, 0.34, 0.26))
            part = pixels(box, size).within(window)
            if part.empty:
                continue
            x, y = part.coordinates(size, skull.device)
            t, d2 = self.ellipsoids.front(rim, x, y)
            cover = coverage((1.0 - d2).mul_(0.06), scale)
            before = coverage((t - part.of(skull, window)).mul_(2.0), scale * 0.5).mul_(cover)
            bowl = self.ellipsoids.outline(rim + 1, x, y)
            light = 1.0 - 0.55 * bump(bowl * 0.85)
            light.mul_((1.08 - 0.45 * d2 * d2).clamp_(min=0.5))
            ring = bump((bowl - 1.25).mul_(1.8).square_())
            light.add_(ring.mul_(0.25)).mul_(0.9 + 0.35 * side * g["light_x"])
            tint = (g["skin"] * 0.5 + g["blush"] * 0.5) * light.unsqueeze(1)
            yield Ear(part, LABEL[name], tint * (g["key"] * 0.6 + g["ambient"]), cover, before)
