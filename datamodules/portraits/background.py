"""Behind the head: six kinds of backgrounds, all with straight lines, most with texture.

They know nothing of the head.
"""

from __future__ import annotations

import torch
from torch import Tensor

from datamodules.portraits import textures
from datamodules.portraits.colours import mix
from datamodules.portraits.geometry import Scalars, affine, band, bump, coverage, over, step, take

KINDS = ("studio", "stripes", "bricks", "boards", "books", "window")


def background(p: Scalars, g: Scalars, x: Tensor, y: Tensor, size: int) -> Tensor:
    """Linear-light (B, 3, h, w) at the picture's x (1, 1, w) and y (1, h, 1)."""
    half = 0.5 * size
    kinds = (p["back_kind"].view(-1) * len(KINDS)).long().clamp_(max=len(KINDS) - 1)
    rgb = x.new_empty(len(kinds), 3, y.shape[1], x.shape[2])
    used_p = {name: p[name] for name in p if name.startswith("back_")}
    used_g = {name: g[name] for name in g if name.startswith("back_")}
    for kind, draw in enumerate((_studio, _stripes, _bricks, _boards, _books, _window)):
        rows = (kinds == kind).nonzero().view(-1)
        if len(rows):  # drawn for those images alone
            drawn = draw(take(used_p, rows), take(used_g, rows), x, y, half)
            rgb.index_copy_(0, rows, drawn)
    _lines(p, g, rgb, x, y, half)
    return rgb


def _lines(p: Scalars, g: Scalars, rgb: Tensor, x: Tensor, y: Tensor, half: float) -> None:
    """Straight lines across everything."""
    first = band(affine((g["line_cos"], g["line_sin"], -p["back_line_1"]), x, y), 0.030, half)
    second = band(affine((-g["line_sin"], g["line_cos"], -p["back_line_2"]), x, y), 0.018, half)
    third = band(affine((g["back_sin"], -g["back_cos"], -p["back_line_3"]), x, y), 0.045, half)
    lines = torch.maximum(torch.maximum(first, second), third)
    plain = (p["back_kind"] < 2.0 / len(KINDS)).float()  # the other kinds have lines of their own
    over(rgb, g["back_line"], lines.mul_(p["back_line_contrast"] * 0.85 * (0.3 + 0.7 * plain)))


def _along(g: Scalars, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Coordinates along and across the background's direction."""
    sin, cos = g["back_sin"], g["back_cos"]
    zero = torch.zeros_like(sin)
    return affine((cos, sin, zero), x, y), affine((-sin, cos, zero), x, y)


def _textured(rgb: Tensor, name: str, u: Tensor, v: Tensor, half: float, amount: Tensor | float) -> Tensor:
    """rgb, lighter and darker by a texture at (u, v) in units of the picture; takes rgb over."""
    size = int(2 * half)
    if size < textures.SMALLEST:
        return rgb
    light = textures.sample(name, u * 256.0, v * 256.0, size) * amount + 1.0
    return rgb.mul_(light.clamp_(min=0.0).unsqueeze(1))


def _focus(p: Scalars, half: float) -> Tensor:
    """The scale for `coverage` where edges are blurred, by the same width at every size of picture."""
    return 1.0 / (1.0 / half + 0.05 * (1.0 - p["back_focus"]).square())


def _cells(a: Tensor, b: Tensor) -> Tensor:
    """Noise, deviation 1, constant within each unit cell of (a, b)."""
    return textures.look("grain", textures.locate(torch.floor(a) * 7.0, torch.floor(b) * 13.0, 0), 0)


def _off_middle(a: Tensor, period: Tensor | float) -> Tensor:
    """Distance from the middle of the unit period that a lies in, times `period`."""
    return (a - torch.floor(a) - 0.5).abs_().mul_(period)


def _studio(p: Scalars, g: Scalars, x: Tensor, y: Tensor, half: float) -> Tensor:
    """A painted canvas in soft light."""
    along, _ = _along(g, x, y)
    rgb = mix(g["back_1"], g["back_2"], (along * 0.4 + 0.5).clamp_(0.0, 1.0))
    dx, dy = x - p["back_glow_x"], y - p["back_glow_y"]
    glow = bump((dx * dx + dy * dy) * 0.5)
    over(rgb, (g["back_3"] * 1.25).clamp(max=1.0), glow.mul_(0.6))
    return _textured(rgb, "clouds", x, y + p["back_line_1"], half, 0.05 + 0.05 * p["back_line_contrast"])


def _stripes(p: Scalars, g: Scalars, x: Tensor, y: Tensor, half: float) -> Tensor:
    """Wallpaper: stripes from faint to clear, tiles in a part of the pictures."""
    along, across = _along(g, x, y)
    rgb = mix(g["back_1"], g["back_2"], (along * 0.35 + 0.5).clamp_(0.0, 1.0))
    period = p["back_period"]
    phase = along * (1.0 / period)
    inside = (phase - torch.floor(phase) - 0.5).abs_().sub_(0.25).mul_(period)
    stripes = coverage(inside, half)
    over(rgb, g["back_3"], stripes.mul_(0.15 + p["back_stripes"] * 0.75))
    gx = _off_middle((x + p["back_line_1"]) * 2.2, 1 / 2.2)
    gy = _off_middle((y + p["back_line_2"]) * 2.2, 1 / 2.2)
    tiles = band(0.5 / 2.2 - torch.maximum(gx, gy), 0.012, half)
    over(rgb, g["back_line"], tiles.mul_(p["back_grid"] * 0.5))
    return _textured(rgb, "grain", along, across, half, 0.04)


def _bricks(p: Scalars, g: Scalars, x: Tensor, y: Tensor, half: float) -> Tensor:
    """A wall of bricks, each with a tone of its own."""
    high = 0.08 + 0.12 * p["back_period"]
    wide = high * 2.6
    b = (y + p["back_line_2"]) / high + 32.0
    row = torch.floor(b)
    a = (x + p["back_line_1"]) / wide + row * 0.5 + 32.0
    tone = _cells(a, row.expand_as(a))
    rgb = mix(g["back_1"], g["back_2"], (tone * 0.35 + 0.5).clamp_(0.0, 1.0))
    edge = torch.minimum(high * 1.3 - _off_middle(a, wide), high * 0.5 - _off_middle(b, high))
    mortar = band(edge, 0.010, _focus(p, half))
    over(rgb, g["back_3"] * 1.1 + 0.01, mortar.mul_(0.85))
    light = 1.0 - 0.25 * (x * p["back_glow_x"] - y * p["back_glow_y"])
    return _textured(rgb.mul_(light.unsqueeze(1)), "clouds", x, y, half, 0.10 * p["back_focus"])


def _boards(p: Scalars, g: Scalars, x: Tensor, y: Tensor, half: float) -> Tensor:
    """Wooden planks, upright or leaning a little."""
    lean = g["back_sin"] * 0.2
    along, across = y - lean * x, x + lean * y
    wide = 0.16 + 0.30 * p["back_period"]
    a = (across + p["back_line_1"]) / wide + 32.0
    plank = torch.floor(a)
    tone = _cells(a, torch.zeros_like(a) + 5.0)
    rgb = mix(g["back_1"], g["back_2"], (tone * 0.3 + 0.5).clamp_(0.0, 1.0))
    edge = (0.5 - (a - plank - 0.5).abs_()).mul_(wide)
    gaps = band(edge, 0.008, _focus(p, half))
    over(rgb, g["back_2"] * 0.25, gaps.mul_(0.9))
    rgb.mul_((0.85 + 0.12 * (along + p["back_glow_y"])).unsqueeze(1))
    rgb = _textured(rgb, "locks", across + plank * 0.37, along, half, 0.05 + 0.09 * p["back_focus"])
    return _textured(rgb, "strands", across + plank * 0.71, along * 0.5, half, 0.10 * p["back_focus"])


def _books(p: Scalars, g: Scalars, x: Tensor, y: Tensor, half: float) -> Tensor:
    """Shelves of books, in the three colours of the background and mixtures of them."""
    soft = _focus(p, half)
    shelf, wide = 0.45 + 0.4 * p["back_period"], 0.16
    b = (y + p["back_line_2"]) / shelf + 32.0
    row = torch.floor(b)
    up = (b - row).mul_(shelf)  # above the shelf
    shift = textures.look("grain", textures.locate(row * 11.0, row * 5.0, 0), 0)
    a = (x + p["back_line_1"] + 0.03 * shift) / wide + 64.0
    # every other edge between books moves, so that some are thick and some are thin
    book = torch.floor(a)
    share = a - book
    first, second = _cells(a, row.expand_as(a)), _cells(a, (row + 40.0).expand_as(a))
    split = (0.5 + 0.14 * first).clamp_(0.25, 0.75)
    right = (share > split).float()
    nearest_edge = torch.minimum(torch.minimum(share, 1.0 - share), (share - split).abs_())
    seam = nearest_edge.mul_(wide)
    contrast = (seam * soft + 0.35).clamp_(max=1.0)  # a pixel on an edge is half the next book
    tone = _cells(a + right * 50.0, row.expand_as(a)).mul_(contrast)
    rgb = mix(g["back_1"], g["back_2"], (0.5 + 0.5 * tone).clamp_(0.0, 1.0))
    other = (second * (right - 0.5)).mul_(1.2).mul_(contrast).clamp_(0.0, 1.0)
    over(rgb, g["back_3"], other)
    labels = (tone > 0.6).float().mul_(band(up - shelf * 0.45, 0.012, soft))  # on some backs
    over(rgb, g["back_3"], labels.mul_(0.6))
    over(rgb, g["back_1"] * 0.10, band(seam, 0.005, soft).mul_(0.85))
    odd = book - 2.0 * torch.floor(book * 0.5)
    top = shelf * (0.78 + 0.06 * odd + 0.04 * tone) - 0.03
    over(rgb, g["back_2"] * 0.06, coverage(up - top, soft))
    over(rgb, g["back_2"] * 0.55, coverage(0.035 - up, soft).expand_as(seam))
    return rgb.mul_((0.95 + 0.25 * x * p["back_glow_x"]).unsqueeze(1))


def _window(p: Scalars, g: Scalars, x: Tensor, y: Tensor, half: float) -> Tensor:
    """A window: sky over something out of focus, bars across, a wall beside it."""
    sky = step(y - p["back_glow_y"] * 0.4, -0.25, 0.35)
    bright = (g["back_3"] * 1.3).clamp(max=1.2)
    rgb = mix(g["back_2"] * 0.6, bright, sky.expand(-1, -1, x.shape[2]))
    leaves = _leaves(p, x, y)
    over(rgb, g["back_1"] * 0.35 + g["back_2"] * 0.15, leaves.mul_(1.0 - 0.75 * sky))
    # panes 0.8 x 0.95 apart
    a = _off_middle((x + p["back_line_1"]) * (1 / 0.8), 0.8)
    b = _off_middle((y + p["back_line_2"]) * (1 / 0.95), 0.95)
    bars = torch.maximum(coverage(a - 0.345, half), coverage(b - 0.43, half))
    frame = g["back_1"] * 0.5 + 0.25 * g["back_3"]
    over(rgb, frame, bars)
    edges = torch.maximum(band(a - 0.345, 0.010, half), band(b - 0.43, 0.010, half))
    over(rgb, frame * 0.35, edges.mul_(0.8))
    side = torch.where(p["back_glow_x"] > 0, 1.0, -1.0)
    wall = coverage(side * x - 0.45 - 0.4 * p["back_focus"], half)
    over(rgb, g["back_1"] * 0.8, wall.expand_as(bars))
    return _textured(rgb, "clouds", x, y, half, 0.03)


def _leaves(p: Scalars, x: Tensor, y: Tensor) -> Tensor:
    """Soft dark patches: rounded noise between the corners of a grid, at two sizes.

    They are the same at every size of picture.
    """
    total = torch.zeros(1, device=x.device)
    for frequency, amount in ((3.5, 0.9), (8.0, 0.55)):
        a = x * frequency + p["back_line_1"] * 5.0 + 32.0
        b = y * frequency + p["back_line_2"] * 5.0 + 32.0
        fa, fb = a - torch.floor(a), b - torch.floor(b)
        fa, fb = fa * fa * (3.0 - 2.0 * fa), fb * fb * (3.0 - 2.0 * fb)
        left, right = _cells(a, b), _cells(a + 1, b)
        low = left + (right - left) * fa
        left, right = _cells(a, b + 1), _cells(a + 1, b + 1)
        high = left + (right - left) * fa
        total = total + (low + (high - low) * fb).mul_(amount)
    return (total * 0.45 + 0.45).clamp_(0.0, 1.0)
