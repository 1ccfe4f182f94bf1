"""The head without its hair: shape, face, ears, glasses."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from datamodules.portraits.geometry import (
    Ellipsoids,
    Pose,
    Scalars,
    Window,
    affine,
    band,
    between,
    bump,
    coverage,
    over,
    smooth_max,
    step,
    wave,
)

LABELS: tuple[str, ...] = (
    "background", "skin", "l_brow", "r_brow", "l_eye", "r_eye", "eye_g", "l_ear", "r_ear", "ear_r",
    "nose", "mouth", "u_lip", "l_lip", "neck", "neck_l", "cloth", "hair", "hat",
)  # fmt: skip
LABEL = {name: index for index, name in enumerate(LABELS)}
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
    return Window(int((1.0 - top) * half) - 2, int((1.0 - bottom) * half) + 3, int((left + 1.0) * half) - 2, int((right + 1.0) * half) + 3)


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
        smile = p["smile"]
        glad = smile.clamp(min=0.0)
        zero = torch.zeros_like(smile)
        self.glad = glad
        # mouth
        self.mouth_width = p["mouth_width"] * (1.0 + 0.24 * glad - 0.06 * p["mouth_open"])
        self.mouth_lift = 0.085 * smile
        self.mouth_y = p["mouth_y"] - 0.022 * smile
        self.gap = p["mouth_open"] * 0.15 + (glad - 0.35).clamp(min=0.0) * 0.075
        thin = 1.0 - 0.30 * glad - 0.25 * g["ageing"]
        self.lip_upper, self.lip_lower = p["lip_upper"] * thin, p["lip_lower"] * thin
        # eyes
        self.lid_upper = p["eye_height"] * p["eye_open"] * (1.0 - 0.18 * glad)
        self.lid_lower = p["eye_height"] * (0.55 - 0.28 * glad) * p["eye_open"].clamp(max=1.0)
        # nose
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
        for s in (-1.0, 1.0):  # discs that stand off the sides of the head, looking slightly forward
            axes = ((s * 0.94, 0.0, tilt * 0.97), (0.0, 1.0, 0.0), (-s * tilt * 0.97, 0.0, 0.94))
            ears.append(((s * (p["head_width"] + 0.005), -0.09, -0.06), axes, (0.05, 0.185 * size, 0.115 * size)))
            ears.append(((s * (p["head_width"] + 0.03), -0.075, -0.045), axes, (0.05, 0.115 * size, 0.065 * size)))
        self.ellipsoids = Ellipsoids(pose, [
            (middle, (side, along, across), (0.066 * wide, length * 0.60, 0.095)),
            ((0.0, tip_y + 0.015, tip_z - 0.10), upright, (0.080 * wide, 0.072, 0.10)),
            ((-wing_x, *wing_at), upright, (wing, 0.056, 0.085)),
            ((wing_x, *wing_at), upright, (wing, 0.056, 0.085)),
            ((-0.054 * wide, tip_y - 0.050, tip_z - 0.105), upright, (0.034 * wide, 0.02, 0.035)),
            ((0.054 * wide, tip_y - 0.050, tip_z - 0.105), upright, (0.034 * wide, 0.02, 0.035)),
            *ears,
        ])  # fmt: skip
        corner_y = self.mouth_y + self.mouth_lift
        eye = p["eye_distance"]
        self.landmarks = [
            pose.at(-eye, zero, depth_at(p, eye, zero)),
            pose.at(eye, zero, depth_at(p, eye, zero)),
            pose.at(*self.nose_tip),
            pose.at(-self.mouth_width, corner_y, depth_at(p, self.mouth_width, corner_y)),
            pose.at(self.mouth_width, corner_y, depth_at(p, self.mouth_width, corner_y)),
        ]

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
        behind = (0.15 - skull.z).clamp_(min=0.0)
        skull.x = torch.where(skull.x < 0, skull.x - behind, skull.x + behind)
        hx, hy = (window.of(c, around).contiguous() for c in (skull.x, skull.y))
        depth = skull.t + self._relief(skull)
        cover = coverage(window.of(skull.inside, around).contiguous(), scale)
        nose = self._nose(around, size, skull.t, depth, scale)

        albedo = g["skin"].expand(-1, -1, *hx.shape[-2:]).contiguous()
        parts = torch.full_like(label, LABEL["skin"])
        flush = bump(((hx.abs() - 0.40) * 4.0).square_().add_(((hy + 0.27) * 4.2).square_()))
        over(albedo, g["blush"], flush.mul_(0.30 + 0.35 * self.glad))
        self._beard(hx, hy, albedo)
        self._stubble(window.of(skull.z, around), hy, albedo, parts)
        for region, paint in ((self._mouth_window, self._mouth), (self._eye_window, self._eyes)):
            part = region(size).within(window)
            if not part.empty:
                sx, sy = part.of(hx, window).contiguous(), part.of(hy, window).contiguous()
                paint(sx, sy, part.of(albedo, window), part.of(parts, window), scale)
        part, nose_cover, nose_shape = nose
        part = part.within(window)
        if not part.empty:
            self._paint_nose(part, size, part.of(nose_cover, nose[0]), part.of(albedo, window), part.of(parts, window), scale)
            shape = coverage(part.of(nose_shape, nose[0]).contiguous(), scale)
            part.of(cover, window).copy_(torch.maximum(part.of(cover, window), shape))

        colour = self._light(depth, albedo, 0.5 * size)
        depth = window.of(skull.t, around)
        ears = list(self._ears(window, size, depth, scale))
        for part, name, tint, alpha, _ in ears:  # what stands out beside the head; then the head; then what stands before it
            over(part.of(rgb, window), tint, alpha)
            part.of(label, window).masked_fill_(alpha > 0.5, name)
        over(rgb, colour, cover)
        label.copy_(torch.where(cover > 0.5, parts, label))
        for part, name, tint, _, alpha in ears:
            over(part.of(rgb, window), tint, alpha)
            part.of(label, window).masked_fill_(alpha > 0.5, name)
        return depth, cover

    def _relief(self, skull: Surface) -> Tensor:
        """What the skull lacks, as depth: sockets, brow ridge, cheeks, lips, chin, folds."""
        p, x, y = self.p, skull.x, skull.y
        side = x.abs()
        relief = bump(((side - p["eye_distance"] + 0.03) * 4.6).square_().add_(((y - 0.03) * 6.5).square_())).mul_(-0.075)
        relief.add_(bump(((side - 0.24) * 3.4).square_().add_(((y - 0.215) * 10.0).square_())).mul_(0.022))
        relief.add_(bump(((side - 0.40) * 4.4).square_().add_(((y + 0.27) * 4.6).square_())).mul_(0.030 + 0.040 * self.glad))
        lips = y - self.mouth_y
        relief.add_(bump((x * 3.4).square_().add_((lips * 5.5).square_())).mul_(0.055))
        relief.add_(bump((x * 3.6).square_().add_(((lips + 0.145) * 13.0).square_())).mul_(-0.030))
        relief.add_(bump((x * 4.4).square_().add_(((y + 0.87) * 6.0).square_())).mul_(0.050))
        return relief

    def _light(self, depth: Tensor, albedo: Tensor, half: float) -> Tensor:
        """albedo (B, 3, h, w) under the light, with normals from the depth (B, h + 2, w + 2); takes albedo over."""
        g, slope = self.g, self.p["zoom"] * (0.5 * half)
        gx = (depth[:, 1:-1, 2:] - depth[:, 1:-1, :-2]).mul_(slope).clamp_(-2.5, 2.5)
        gy = (depth[:, :-2, 1:-1] - depth[:, 2:, 1:-1]).mul_(slope).clamp_(-2.5, 2.5)
        facing = 1.0 / (gx * gx).add_(gy * gy).add_(1.0).sqrt_()
        diffuse = (g["light_z"] - gx * g["light_x"]).sub_(gy * g["light_y"]).mul_(facing)
        diffuse.add_(0.25).mul_(1 / 1.25).clamp_(min=0.0)
        gloss = (g["half_z"] - gx.mul_(g["half_x"])).sub_(gy.mul_(g["half_y"])).mul_(facing).clamp_(min=0.0)
        for _ in range(4):
            gloss.mul_(gloss)
        ambient = facing.mul_(0.45).add_(0.6)
        shade = g["ambient"] * ambient.unsqueeze(1)
        shade.add_(g["key"] * diffuse.unsqueeze(1))
        return albedo.mul_(shade).add_(gloss.mul_(self.p["light_intensity"] * 0.07).unsqueeze(1))

    def _nose(self, around: Window, size: int, skull: Tensor, depth: Tensor, scale: Tensor) -> tuple[Window, Tensor, Tensor]:
        """Raise depth by the nose; its window, how much it hides of what lies behind, and the distance within its outline."""
        tip_y, tip_z = self.nose_tip[1], self.nose_tip[2]
        part = pixels(self.pose.box((0.0, tip_y * 0.5 + 0.03, tip_z - 0.15), (0.23, 0.36, 0.26)), size).within(around)
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

    def _paint_nose(self, part: Window, size: int, cover: Tensor, albedo: Tensor, parts: Tensor, scale: Tensor) -> None:
        g = self.g
        x, y = part.coordinates(size, cover.device)
        over(albedo, g["skin"] * 0.75 + g["blush"] * 0.25, cover)
        parts.masked_fill_(cover > 0.5, LABEL["nose"])
        nearest = torch.minimum(self.ellipsoids.outline(4, x, y), self.ellipsoids.outline(5, x, y))
        dark = (1.0 - nearest).mul_(1.2).clamp_(0.0, 1.0)
        over(albedo, g["skin"] * 0.16, dark.mul_(0.85).mul_(cover))

    def _mouth_window(self, size: int) -> Window:
        return pixels(self.pose.box((0.0, self.mouth_y - 0.03, 0.85), (0.38, 0.28, 0.16)), size)

    def _eye_window(self, size: int) -> Window:
        return pixels(self.pose.box((0.0, 0.13, 0.60), (0.66, 0.42, 0.31)), size)

    def _stubble(self, z: Tensor, y: Tensor, albedo: Tensor, parts: Tensor) -> None:
        """Short hair goes on as sideburns and down the nape."""
        g = self.g
        low = (z * -4.0).sub_(0.4).clamp_(0.0, 1.0).mul_(-0.30).sub_(0.20)
        alpha = (
            (y - low).mul_(5.0).clamp_(0.0, 1.0).mul_((0.28 - z).mul_(6.0).clamp_(0.0, 1.0)).mul_(g["haired"] * (1.0 - g["long"]) * 0.92)
        )
        over(albedo, g["hair"] * 0.8, alpha)
        parts.masked_fill_(alpha > 0.5, LABEL["hair"])

    def _beard(self, x: Tensor, y: Tensor, albedo: Tensor) -> None:
        p, g = self.p, self.g
        if not bool((p["moustache"] > 0).any()):
            return
        side = x.abs()
        # the cheeks' line falls from the sideburn to the mouth's corner, the jaw below is bearded
        line = -0.50 + 0.95 * (side - 0.22).clamp_(min=0.0).square_() - 0.1 * (0.25 - side).clamp_(min=0.0)
        grown = step(line - y, -0.02, 0.10)
        lip = y - self.mouth_y
        lip_free = bump((x * 4.2).square_().add_(((lip + 0.02) * 8.0).square_()))
        grown.mul_((1.0 - lip_free * 1.6).clamp_(min=0.0)).mul_(p["beard"])
        over_lip = bump((x * 3.1).square_().add_(((lip - 0.125 + 0.5 * side * side) * 9.5).square_()))
        over_lip = (over_lip * 2.2).clamp_(max=1.0).mul_(p["moustache"])
        hairs = wave(x * 19.0 + wave(y * 7.0) * 0.3).mul_(wave(y * 6.0 + x * 5.0)).mul_(0.10).add_(0.90)
        over(albedo, g["hair"] * 0.8, torch.maximum(grown, over_lip).mul_(hairs).mul_(0.93))

    def _mouth(self, x: Tensor, y: Tensor, albedo: Tensor, parts: Tensor, scale: Tensor) -> None:
        g = self.g
        m = x * (1.0 / self.mouth_width)
        m2 = m * m
        arch = (1.0 - m2).clamp_(min=-1.0)
        level = y - self.mouth_y - self.mouth_lift * m2
        gap = self.gap * arch
        inner_top, inner_bottom = gap * 0.42, gap * -0.58
        bow = 1.0 - 0.30 * bump(m2 * 12.0)
        top = inner_top + self.lip_upper * arch * bow
        bottom = inner_bottom - self.lip_lower * arch * (1.0 + 0.25 * arch)
        upper = between(level, inner_top, top, scale * 0.85)
        lower = between(level, bottom, inner_bottom, scale * 0.85)
        inside = between(level, inner_bottom, inner_top, scale * 0.9)
        # wrinkles from the nose to the mouth's corners, deeper with age and smile
        fold = self.mouth_width + 0.045 - 0.42 * (level - 0.02).clamp_(min=0.0)
        fold = bump(((x.abs() - fold) * 22.0).square_().add_(((level - 0.10) * 6.8).square_()))
        over(albedo, g["skin"] * 0.42, fold.mul_(0.12 + 0.45 * g["wrinkles"] + 0.28 * self.glad))
        over(albedo, g["lips"] * 0.86, upper)
        over(albedo, g["lips"], lower)
        shine = bump((x * 9.0).square_().add_(((level - (inner_bottom + bottom) * 0.5) * 42.0).square_()))
        over(albedo, (g["lips"] * 1.8 + 0.08).clamp(max=1.0), shine.mul_(0.35).mul_(lower))
        over(albedo, g["lips"] * 0.12, inside)
        teeth = coverage(torch.minimum(level - (inner_top - 0.062), inner_top - level), scale).mul_(inside)
        over(albedo, torch.full_like(g["lips"], 0.78), teeth.mul_((1.0 - 0.35 * m2).clamp_(min=0.0)))
        tongue = bump((m * 1.5).square_().add_(((level - inner_bottom - 0.005) * 16.0).square_()))
        over(albedo, g["lips"] * 0.55, tongue.mul_(inside))
        # the line where the lips meet, in closed mouths
        seam = band(level - (inner_top + inner_bottom) * 0.5, 0.008, scale).mul_((1.0 - m2).mul_(9.0).clamp_(0.0, 1.0))
        over(albedo, g["lips"] * 0.22, seam.mul_(1.0 - inside))
        parts.masked_fill_(upper > 0.5, LABEL["u_lip"]).masked_fill_(lower > 0.5, LABEL["l_lip"]).masked_fill_(inside > 0.5, LABEL["mouth"])

    def _eyes(self, x: Tensor, y: Tensor, albedo: Tensor, parts: Tensor, scale: Tensor) -> None:
        """Both eyes and brows at once, on |x|; only the gaze tells left from right."""
        p, g = self.p, self.g
        left = x < 0
        sign = torch.where(left, -1.0, 1.0)
        out = x.abs() - p["eye_distance"]  # outwards from the eye's middle
        e = out * (1.0 / p["eye_width"])
        e2 = e * e
        arch = (1.0 - e2).clamp_(min=-1.0)
        level = y - p["eye_slant"] * out
        lid = self.lid_upper * arch * (1.0 - 0.15 * e)
        low = self.lid_lower * arch
        # everything that only darkens the skin: socket, bags, crease, forehead lines, crow's feet, scowl
        dark = bump((e * 0.72).square_().add_(((level - 0.05) * 7.5).square_())).mul_(0.30 + 0.20 * p["makeup"])
        dark.add_(bump((e * 0.85).square_().add_(((level + 0.115) * 16.0).square_())).mul_(0.08 + 0.40 * g["wrinkles"]))
        dark.add_(band(level - lid - 0.036 + 0.03 * e2, 0.008, scale).mul_((1.3 - e2).clamp_(0.0, 0.6)))
        furrow = wave((y - 0.02 * wave(x * 1.4)).mul_(12.0).add_(0.2)).sub_(0.55).clamp_(min=0.0)
        furrow.mul_(bump((x * 2.0).square_().add_(((y - 0.39) * 6.5).square_())))
        dark.add_(furrow.mul_((1.5 * g["wrinkles"] + 0.7 * p["brow_raise"].clamp(min=0.0)) * (g["ageing"] + 0.25)))
        feet = wave((level * 13.0).add_(out * 3.0)).sub_(0.4).clamp_(min=0.0)
        feet.mul_(bump(((e - 1.75) * 1.7).square_().add_((level * 8.0).square_())))
        dark.add_(feet.mul_(0.9 * g["wrinkles"] * (0.6 + 0.6 * self.glad)))
        scowl = bump(((x.abs() - 0.055) * 30.0).square_().add_(((y - 0.17) * 9.0).square_()))
        dark.add_(scowl.mul_(0.7 * p["frown"] + 0.15 * g["wrinkles"]))
        over(albedo, g["skin"] * 0.4, dark.clamp_(max=1.0))
        # eyeball, seen between the lids
        eye = between(level, -low, lid, scale * 0.85)
        white = torch.full_like(g["skin"], 0.74)
        ball = (white * (1.0 - 0.45 * ((level - lid) * 9.0 + 1.0).clamp_(0.0, 1.0)).unsqueeze(1)).contiguous()
        gx, gy = out - p["gaze_x"] * 0.05 * sign, level - p["gaze_y"] * 0.022 - 0.008
        distance = (gx * gx).add_(gy * gy).sqrt_()
        disc = coverage(p["iris_radius"] - distance, scale)
        over(ball, g["iris"] * 0.30, disc)
        glow = (1.25 - distance * (1.0 / p["iris_radius"]) * 0.55).mul_(coverage(p["iris_radius"] * 0.84 - distance, scale))
        over(ball, (g["iris"] * 1.15).clamp(max=1.0), glow.clamp_(0.0, 1.0))
        over(ball, white * 0.012, coverage(p["iris_radius"] * 0.42 - distance, scale))
        sx, sy = gx.mul_(sign).sub_(g["light_x"] * 0.028), gy.sub_(0.018 + 0.012 * g["light_y"])
        over(ball, white * 1.7, coverage(0.015 - sx.mul_(sx).add_(sy.mul_(sy)).sqrt_(), scale))
        over(albedo, ball, eye)
        parts.masked_fill_((eye > 0.5) & left, LABEL["l_eye"]).masked_fill_((eye > 0.5) & ~left, LABEL["r_eye"])
        # lids' edges: lashes above, thin below
        near = (1.18 - e2).mul_(4.0).clamp_(0.0, 1.0)
        lash = band(level - lid - 0.004, 0.011 + 0.008 * p["makeup"], scale).mul_(near)
        over(albedo, g["skin"] * 0.05, lash.mul_(0.92))
        over(albedo, g["lips"] * 0.5, band(level + low + 0.003, 0.005, scale).mul_(near).mul_(0.55 + 0.3 * p["makeup"]))
        # brows
        b = (x.abs() - p["eye_distance"] * 1.02) * (1.0 / (p["eye_width"] * 1.55))
        line = p["brow_height"] + 0.035 * p["brow_raise"] - 0.02 * self.glad + p["brow_arch"] * (1.0 - (b - 0.25) * (b - 0.25))
        inner = (0.3 - b).clamp_(0.0, 1.3)
        line = line - inner * (0.06 * p["frown"]) - 0.02 * p["frown"] + inner * (0.05 * (-p["smile"]).clamp(min=0.0))
        thick = p["brow_thickness"] * (1.08 - 0.55 * ((b + 0.6) * 0.62).clamp_(min=0.0).square_())
        brow = band(y - line, thick.clamp_(min=0.002), scale * 0.8).mul_((1.0 - b.abs()).mul_(7.0).clamp_(0.0, 1.0))
        strands = wave(x * 24.0 + y * sign * 16.0).mul_(0.10).add_(0.86)
        over(albedo, g["brow"], strands.mul_(brow))
        parts.masked_fill_((brow > 0.5) & left, LABEL["l_brow"]).masked_fill_((brow > 0.5) & ~left, LABEL["r_brow"])

    def _ears(self, window: Window, size: int, skull: Tensor, scale: Tensor) -> Iterator[tuple[Window, int, Tensor, Tensor, Tensor]]:
        """Per ear: window, label, colour, its coverage, and its coverage where it stands before the skull (depth over `window`)."""
        g = self.g
        for s, k, name in ((-1.0, 6, "l_ear"), (1.0, 8, "r_ear")):
            part = pixels(self.pose.box((s * self.p["head_width"], -0.09, -0.06), (0.22, 0.34, 0.26)), size).within(window)
            if part.empty:
                continue
            x, y = part.coordinates(size, skull.device)
            t, d2 = self.ellipsoids.front(k, x, y)
            alpha = coverage((1.0 - d2).mul_(0.06), scale)
            before = (t - part.of(skull, window)).mul_(14.0).add_(0.5).clamp_(0.0, 1.0).mul_(alpha)
            bowl = bump(self.ellipsoids.outline(k + 1, x, y).mul_(0.9))
            light = (1.0 - 0.45 * bowl).mul_((1.05 - 0.35 * d2).clamp_(min=0.5))
            yield part, LABEL[name], g["blush"] * light.unsqueeze(1) * (g["key"] * 0.55 + g["ambient"]), alpha, before
