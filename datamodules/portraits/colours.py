"""The colours of everything, and the light."""

from __future__ import annotations

import torch
from torch import Tensor

from datamodules.portraits.geometry import Pose, Scalars, cosine, degrees, direction, sine, step

SKIN = (
    (0.99, 0.86, 0.78),
    (0.95, 0.77, 0.65),
    (0.86, 0.66, 0.51),
    (0.70, 0.49, 0.35),
    (0.52, 0.34, 0.24),
    (0.36, 0.23, 0.17),
)
HAIR = (
    (0.07, 0.06, 0.06),
    (0.17, 0.11, 0.08),
    (0.33, 0.21, 0.13),
    (0.50, 0.33, 0.18),
    (0.78, 0.60, 0.34),
    (0.90, 0.78, 0.54),
    (0.58, 0.25, 0.10),
)
IRIS = (
    (0.22, 0.12, 0.06),
    (0.38, 0.23, 0.10),
    (0.40, 0.40, 0.20),
    (0.28, 0.48, 0.38),
    (0.30, 0.50, 0.72),
    (0.50, 0.58, 0.62),
)
FRAME = (
    (0.06, 0.06, 0.07),
    (0.25, 0.13, 0.07),
    (0.45, 0.35, 0.20),
    (0.12, 0.16, 0.35),
    (0.50, 0.10, 0.14),
    (0.62, 0.62, 0.65),
)


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
    g["shade"] = (
        p["age"].new_tensor([0.46, 0.37, 0.34]).view(1, 3, 1, 1).expand_as(skin)
    )  # what a fold or spot leaves of the skin's light
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
    g["back_line"] = hsv(
        p["back_hue"] + 0.5, base[0] * 0.8, step(0.6 - p["back_value"], -0.05, 0.05) * 0.75 + 0.12
    )
    angle = degrees(p["back_angle"])
    g["back_sin"], g["back_cos"] = sine(angle), cosine(angle)
    angle = degrees(p["back_line_angle"])
    g["line_sin"], g["line_cos"] = sine(angle), cosine(angle)
    return g
