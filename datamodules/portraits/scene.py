"""Behind and below the head: background, neck and clothes; and the colours of everything."""

from __future__ import annotations

import torch
from torch import Tensor

from datamodules.portraits.geometry import Pose, Scalars, affine, band, bump, cosine, coverage, degrees, direction, over, sine, step, wave

SKIN = ((0.99, 0.86, 0.78), (0.95, 0.77, 0.65), (0.86, 0.66, 0.51), (0.70, 0.49, 0.35), (0.52, 0.34, 0.24), (0.36, 0.23, 0.17))
HAIR = (
    (0.07, 0.06, 0.06),
    (0.17, 0.11, 0.08),
    (0.33, 0.21, 0.13),
    (0.50, 0.33, 0.18),
    (0.78, 0.60, 0.34),
    (0.90, 0.78, 0.54),
    (0.58, 0.25, 0.10),
)
IRIS = ((0.22, 0.12, 0.06), (0.38, 0.23, 0.10), (0.40, 0.40, 0.20), (0.28, 0.48, 0.38), (0.30, 0.50, 0.72), (0.50, 0.58, 0.62))
FRAME = ((0.06, 0.06, 0.07), (0.25, 0.13, 0.07), (0.45, 0.35, 0.20), (0.12, 0.16, 0.35), (0.50, 0.10, 0.14), (0.62, 0.62, 0.65))


def palette(colours: tuple[tuple[float, float, float], ...], t: Tensor) -> Tensor:
    """Linear-light colour (B, 3, 1, 1) at t in [0, 1] (B, 1, 1) of sRGB colours placed evenly."""
    table, place = t.new_tensor(colours), t.view(-1) * float(len(colours) - 1)
    first = torch.floor(place).clamp(max=len(colours) - 2.0)
    index, rest = first.long(), (place - first).unsqueeze(1)
    result = (table[index] * (1.0 - rest) + table[index + 1] * rest).view(-1, 3, 1, 1)
    return result * result


def hsv(hue: Tensor, saturation: Tensor, value: Tensor) -> Tensor:
    """Linear-light colour (B, 3, 1, 1); the hue is cyclic."""
    h, s, v = hue.unsqueeze(1), saturation.unsqueeze(1), value.unsqueeze(1)
    k = h * 6.0 + h.new_tensor([5.0, 3.0, 1.0]).view(3, 1, 1)
    k = k - 6.0 * torch.floor(k * (1 / 6))
    rgb = v - v * s * torch.minimum(k, 4.0 - k).clamp(0.0, 1.0)
    return rgb * rgb


def mix(a: Tensor, b: Tensor, t: Tensor) -> Tensor:
    """Colours a (t = 0) to b (t = 1)."""
    return a + (b - a) * t.unsqueeze(1)


def prepare(p: Scalars, pose: Pose) -> Scalars:
    """Colours, light and the ageing that several parts share."""
    g: Scalars = {}
    ageing = ((p["age"] - 20.0) * (1 / 60)).clamp(0.0, 1.0)
    g["ageing"], g["wrinkles"] = ageing, step(p["age"], 28.0, 75.0)
    skin = palette(SKIN, p["skin_tone"])
    warm = p["skin_warmth"].unsqueeze(1) * p["age"].new_tensor([0.03, 0.0, -0.07]).view(3, 1, 1)
    g["skin"] = skin * (1.0 + warm) * (1.0 - 0.06 * ageing).unsqueeze(1)
    rosy = g["skin"] * p["age"].new_tensor([0.86, 0.46, 0.45]).view(3, 1, 1)
    painted = p["age"].new_tensor([0.50, 0.035, 0.06]).view(3, 1, 1)
    g["lips"] = mix(rosy, painted.expand_as(rosy), p["makeup"] * 0.75)
    g["blush"] = g["skin"] * p["age"].new_tensor([0.98, 0.66, 0.62]).view(3, 1, 1)
    g["grey"] = step(p["age"] - 32.0 * (1.0 - p["greying"]), 36.0, 60.0)
    silver = p["age"].new_tensor([0.60, 0.60, 0.62]).view(3, 1, 1)
    g["hair"] = mix(palette(HAIR, p["hair_tone"]), silver.expand_as(skin), g["grey"] * 0.92)
    g["haired"] = (p["hair_length"] > 0.1).float()
    g["long"] = step(p["hair_length"], 0.31, 0.40)
    g["brow"] = g["hair"] * 0.42 + g["skin"] * 0.11
    g["iris"] = palette(IRIS, p["iris_tone"])
    g["frame"] = palette(FRAME, p["glasses_tone"])
    g["cloth"] = hsv(p["cloth_hue"], p["cloth_saturation"], p["cloth_value"])
    g["cloth_2"] = hsv(p["cloth_hue"] + 0.08, p["cloth_saturation"] * 0.6, 1.0 - 0.75 * p["cloth_value"])

    azimuth, elevation = degrees(p["light_azimuth"]), degrees(p["light_elevation"])
    light = sine(azimuth) * cosine(elevation), sine(elevation), cosine(azimuth) * cosine(elevation)
    g["light_x"], g["light_y"], g["light_z"] = light
    g["sun_x"], g["sun_y"], g["sun_z"] = direction(pose, *light)
    half = light[0], light[1], light[2] + 1.0
    norm = 1.0 / (half[0] * half[0] + half[1] * half[1] + half[2] * half[2]).sqrt()
    g["half_x"], g["half_y"], g["half_z"] = (c * norm for c in half)
    tint = p["light_warmth"].unsqueeze(1) * p["age"].new_tensor([0.07, 0.0, -0.10]).view(3, 1, 1)
    g["key"] = (p["light_intensity"] * 0.92).unsqueeze(1) * (1.0 + tint)
    g["ambient"] = (0.52 - 0.30 * p["light_intensity"]).unsqueeze(1) * (1.0 - 0.6 * tint)

    base = p["back_saturation"], p["back_value"]
    g["back_1"] = hsv(p["back_hue"], *base)
    g["back_2"] = hsv(p["back_hue"] + p["back_hue_shift"], base[0] * 0.8, base[1] * 0.72)
    g["back_3"] = hsv(p["back_hue"] - p["back_hue_shift"], base[0] * 0.7, (base[1] * 1.12).clamp(max=1.0))
    g["back_line"] = hsv(p["back_hue"] + 0.5, base[0] * 0.8, step(0.6 - p["back_value"], -0.05, 0.05) * 0.75 + 0.12)
    angle = degrees(p["back_angle"])
    g["back_sin"], g["back_cos"] = sine(angle), cosine(angle)
    angle = degrees(p["back_line_angle"])
    g["line_sin"], g["line_cos"] = sine(angle), cosine(angle)
    return g


def background(p: Scalars, g: Scalars, x: Tensor, y: Tensor, half: float) -> Tensor:
    """Linear-light (B, 3, h, w); `half` is half the picture's size, the pixels per unit. Knows nothing of the head."""
    zero = torch.zeros_like(g["back_sin"])
    along = affine((g["back_cos"], g["back_sin"], zero), x, y)
    rgb = g["back_1"] + (g["back_2"] - g["back_1"]) * (along * 0.35 + 0.5).clamp_(0.0, 1.0).unsqueeze(1)
    # stripes, from faint to clear
    period = p["back_period"]
    phase = along * (1.0 / period)
    phase = (phase - torch.floor(phase) - 0.5).abs_().sub_(0.25).mul_(period)
    over(rgb, g["back_3"], coverage(phase, half).mul_(p["back_stripes"] * 0.8))
    # a soft glow, so that no background is flat
    dx, dy = x - p["back_glow_x"], y - p["back_glow_y"]
    over(rgb, (g["back_3"] * 1.25).clamp(max=1.0), bump((dx * dx + dy * dy) * 0.7).mul_(0.45))
    # tiles, in a part of the pictures
    gx, gy = (x + p["back_line_1"]) * 2.2, (y + p["back_line_2"]) * 2.2
    gx, gy = (((c - torch.floor(c)) - 0.5).abs() * (1 / 2.2) for c in (gx, gy))
    joint = 0.5 / 2.2 - torch.maximum(gx, gy)
    over(rgb, g["back_line"], band(joint, 0.012, half).mul_(p["back_grid"] * 0.5))
    # straight lines across everything
    rows = ((g["line_cos"], g["line_sin"], 0.030), (-g["line_sin"], g["line_cos"], 0.018), (g["back_sin"], -g["back_cos"], 0.045))
    lines = [band(affine((a, b, -p[f"back_line_{i + 1}"]), x, y), width, half) for i, (a, b, width) in enumerate(rows)]
    alpha = torch.maximum(torch.maximum(lines[0], lines[1]), lines[2])
    over(rgb, g["back_line"], alpha.mul_(p["back_line_contrast"] * 0.85))
    return rgb


class Body:
    """Neck and clothes: a flat drawing that follows the head's place but does not turn."""

    def __init__(self, p: Scalars, pose: Pose) -> None:
        x, y = pose.at(0.0, -0.62, -0.12)
        k = 1.0 / p["zoom"]
        self.u, self.v = (k, torch.zeros_like(k), -x * k), (torch.zeros_like(k), k, -y * k)  # head units, from the neck's upper end
        self.top = y + 0.2 * p["zoom"]
        self.width = p["head_width"] * 0.52

    def box(self) -> tuple[Tensor, ...]:
        """Left, right, bottom, top in the picture."""
        edge = torch.full_like(self.top, 1.1)
        return -edge, edge, -edge, self.top


def draw_body(
    p: Scalars, g: Scalars, body: Body, rgb: Tensor, label: Tensor, x: Tensor, y: Tensor, half: float, labels: tuple[int, int]
) -> None:
    """Paint neck and clothes over rgb (B, 3, h, w) and label (B, h, w), in place; labels are those of neck and cloth."""
    scale = p["zoom"] * half
    u, v = affine(body.u, x, y), affine(body.v, x, y)
    side = u.abs()
    # neck: widens into the shoulders
    low = (-0.25 - v).clamp_(min=0.0)
    inside = body.width + 0.9 * low * low - side
    round_ = 1.0 - (u * (1.0 / body.width)).square_().clamp_(max=1.0) * 0.55
    light = (0.8 + 0.25 * u * g["light_x"]).mul_(round_).mul_(0.55 + 0.35 * step(-v, 0.22, 0.75))
    alpha = coverage(torch.minimum(inside, 0.2 - v), scale)
    over(rgb, g["skin"] * light.unsqueeze(1) * (g["key"] * 0.75 + g["ambient"]), alpha)
    label.masked_fill_(alpha > 0.5, labels[0])
    # shoulders and neckline: round (0) to pointed (1)
    reach = side * 0.85
    shoulder = -0.43 - 0.13 * reach - 0.20 * reach * reach
    opening = 0.14 + 0.10 * p["neckline"]
    across = (side * (1.0 / (body.width + 0.06))).clamp_(max=1.0)
    arc = (1.0 - across * across) * (1.0 - p["neckline"]) + (1.0 - across) * (0.4 + p["neckline"])
    top = shoulder - opening * arc
    alpha = coverage(top - v, scale * 0.9)
    stripe = v * 5.0 + side * 0.8
    stripe = (stripe - torch.floor(stripe) - 0.5).abs_().sub_(0.25).mul_(0.2)
    colour = mix(
        g["cloth"], g["cloth_2"], coverage(stripe, scale).mul_((p["cloth_stripes"] > 0).float() * (0.3 + 0.7 * p["cloth_stripes"]))
    )
    fold = wave(u * 1.9 + v * 0.8 + p["cloth_hue"] * 7.0).mul_(0.10).add_(0.86)
    fold = fold.add_(u * (g["light_x"] * 0.22)).mul_(1.0 - 0.25 * band(top - v - 0.03, 0.022, scale))
    over(rgb, colour * fold.unsqueeze(1) * (g["key"] * 0.8 + g["ambient"]), alpha)
    label.masked_fill_(alpha > 0.5, labels[1])
