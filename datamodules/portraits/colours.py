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
    table = t.new_tensor(colours)
    place = t.view(-1) * float(len(colours) - 1)
    first = torch.floor(place).clamp(max=len(colours) - 2.0)
    index = first.long()
    rest = (place - first).unsqueeze(1)
    blend = table[index] * (1.0 - rest) + table[index + 1] * rest
    return (blend * blend).view(-1, 3, 1, 1)


def hsv(hue: Tensor, saturation: Tensor, value: Tensor) -> Tensor:
    """Linear-light colour (B, 3, 1, 1); the hue is cyclic."""
    h, s, v = hue.unsqueeze(1), saturation.unsqueeze(1), value.unsqueeze(1)
    k = h * 6.0 + colour(hue, 5.0, 3.0, 1.0)
    k = k - 6.0 * torch.floor(k * (1 / 6))
    rgb = v - v * s * torch.minimum(k, 4.0 - k).clamp(0.0, 1.0)
    return rgb * rgb


def colour(like: Tensor, red: float, green: float, blue: float) -> Tensor:
    """The same three numbers for all images (3, 1, 1), on the device of `like`."""
    return like.new_tensor([red, green, blue]).view(3, 1, 1)


def mix(a: Tensor, b: Tensor, t: Tensor) -> Tensor:
    """Colours a (t = 0) to b (t = 1)."""
    return a + (b - a) * t.unsqueeze(1)


def prepare(p: Scalars, pose: Pose) -> Scalars:
    """Colours, light and the ageing that several parts share."""
    g: Scalars = {}
    _people(g, p)
    _light(g, p, pose)
    _background(g, p)
    return g


def _people(g: Scalars, p: Scalars) -> None:
    """Skin, hair, eyes, glasses and clothes."""
    like = p["age"]
    g["ageing"] = ((p["age"] - 20.0) * (1 / 60)).clamp(0.0, 1.0)
    g["wrinkles"] = step(p["age"], 28.0, 75.0)

    skin = palette(SKIN, p["skin_tone"])
    warm = p["skin_warmth"].unsqueeze(1) * colour(like, 0.03, 0.0, -0.07)
    g["skin"] = skin * (1.0 + warm) * (1.0 - 0.06 * g["ageing"]).unsqueeze(1)
    # what a fold or spot leaves of the skin's light
    g["shade"] = colour(like, 0.46, 0.37, 0.34).expand_as(skin)
    g["blush"] = g["skin"] * colour(like, 0.98, 0.66, 0.62)
    rosy = g["skin"] * colour(like, 0.86, 0.46, 0.45)
    painted = colour(like, 0.50, 0.035, 0.06).expand_as(rosy)
    g["lips"] = mix(rosy, painted, p["makeup"] * 0.75)

    g["haired"] = (p["hair_length"] > 0.1).float()
    g["long"] = step(p["hair_length"], 0.31, 0.40)
    g["grey"] = step(p["age"] - 32.0 * (1.0 - p["greying"]), 36.0, 60.0)
    silver = colour(like, 0.60, 0.60, 0.62).expand_as(skin)
    g["hair"] = mix(palette(HAIR, p["hair_tone"]), silver, g["grey"] * 0.92)
    g["brow"] = g["hair"] * 0.42 + g["skin"] * 0.11

    g["iris"] = palette(IRIS, p["iris_tone"])
    g["frame"] = palette(FRAME, p["glasses_tone"])
    g["cloth"] = hsv(p["cloth_hue"], p["cloth_saturation"], p["cloth_value"])
    g["cloth_2"] = hsv(p["cloth_hue"] + 0.08, p["cloth_saturation"] * 0.6, 1.0 - 0.75 * p["cloth_value"])


def _light(g: Scalars, p: Scalars, pose: Pose) -> None:
    """Directions of the key light (in the picture and, as `sun`, in the head) and of its gloss; strengths."""
    azimuth, elevation = degrees(p["light_azimuth"]), degrees(p["light_elevation"])
    x = sine(azimuth) * cosine(elevation)
    y = sine(elevation)
    z = cosine(azimuth) * cosine(elevation)
    g["light_x"], g["light_y"], g["light_z"] = x, y, z
    g["sun_x"], g["sun_y"], g["sun_z"] = direction(pose, x, y, z)
    # half way between the light and the viewer
    norm = 1.0 / (x * x + y * y + (z + 1.0) * (z + 1.0)).sqrt()
    g["half_x"], g["half_y"], g["half_z"] = x * norm, y * norm, (z + 1.0) * norm
    tint = p["light_warmth"].unsqueeze(1) * colour(x, 0.07, 0.0, -0.10)
    g["key"] = (p["light_intensity"] * 0.92).unsqueeze(1) * (1.0 + tint)
    g["ambient"] = (0.52 - 0.30 * p["light_intensity"]).unsqueeze(1) * (1.0 - 0.6 * tint)


def _background(g: Scalars, p: Scalars) -> None:
    """Three colours beside each other on the wheel, one opposite for lines, and the lines' directions."""
    hue, shift = p["back_hue"], p["back_hue_shift"]
    saturation, value = p["back_saturation"], p["back_value"]
    g["back_1"] = hsv(hue, saturation, value)
    g["back_2"] = hsv(hue + shift, saturation * 0.8, value * 0.72)
    g["back_3"] = hsv(hue - shift, saturation * 0.7, (value * 1.12).clamp(max=1.0))
    against = step(0.6 - value, -0.05, 0.05)  # dark lines on light, light ones on dark
    g["back_line"] = hsv(hue + 0.5, saturation * 0.8, against * 0.75 + 0.12)
    angle = degrees(p["back_angle"])
    g["back_sin"], g["back_cos"] = sine(angle), cosine(angle)
    line_angle = degrees(p["back_line_angle"])
    g["line_sin"], g["line_cos"] = sine(line_angle), cosine(line_angle)
