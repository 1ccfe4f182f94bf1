"""Behind the head: six kinds of backgrounds, all with straight lines, most with texture. They know nothing of the head."""

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
    rgb = torch.empty(len(kinds), 3, y.shape[1], x.shape[2], device=x.device)
    used = (
        {name: p[name] for name in p if name.startswith("back_")},
        {name: g[name] for name in g if name.startswith("back_")},
    )
    for kind, draw in enumerate((_studio, _stripes, _bricks, _boards, _books, _window)):
        rows = (kinds == kind).nonzero().view(-1)
        if len(rows):  # drawn for those images alone
            rgb.index_copy_(0, rows, draw(*take(used, rows), x, y, half))
    _lines(p, g, rgb, x, y, half)
    return rgb


def _lines(p: Scalars, g: Scalars, rgb: Tensor, x: Tensor, y: Tensor, half: float) -> None:
    """Straight lines across everything."""
    rows = (
        (g["line_cos"], g["line_sin"], 0.030),
        (-g["line_sin"], g["line_cos"], 0.018),
        (g["back_sin"], -g["back_cos"], 0.045),
    )
    lines = [
        band(affine((a, b, -p[f"back_line_{i + 1}"]), x, y), width, half)
        for i, (a, b, width) in enumerate(rows)
    ]
    plain = 0.3 + 0.7 * (p["back_kind"] < 2.0 / len(KINDS)).float()  # the other kinds have lines of their own
    over(
        rgb,
        g["back_line"],
        torch.maximum(torch.maximum(lines[0], lines[1]), lines[2]).mul_(
            p["back_line_contrast"] * 0.85 * plain
        ),
    )


def _along(p: Scalars, g: Scalars, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    zero = torch.zeros_like(g["back_sin"])
    return affine((g["back_cos"], g["back_sin"], zero), x, y), affine(
        (-g["back_sin"], g["back_cos"], zero), x, y
    )


def _textured(rgb: Tensor, name: str, u: Tensor, v: Tensor, half: float, amount: Tensor | float) -> Tensor:
    """rgb, lighter and darker by a texture at (u, v) in units of the picture; takes rgb over."""
    size = int(2 * half)
    if size < textures.SMALLEST:
        return rgb
    level = textures.level(size)
    return rgb.mul_(
        (textures.look(name, textures.locate(u * 256.0, v * 256.0, level), level) * amount + 1.0)
        .clamp_(min=0.0)
        .unsqueeze(1)
    )


def _focus(p: Scalars, half: float) -> Tensor:
    """The scale for `coverage` where edges are blurred, by the same width at every size of picture."""
    return 1.0 / (1.0 / half + 0.05 * (1.0 - p["back_focus"]).square())


def _cells(a: Tensor, b: Tensor) -> Tensor:
    """Noise, deviation 1, constant within each unit cell of (a, b)."""
    return textures.look("grain", textures.locate(torch.floor(a) * 7.0, torch.floor(b) * 13.0, 0), 0)


def _studio(p: Scalars, g: Scalars, x: Tensor, y: Tensor, half: float) -> Tensor:
    """A painted canvas in soft light."""
    along, _ = _along(p, g, x, y)
    rgb = mix(g["back_1"], g["back_2"], (along * 0.4 + 0.5).clamp_(0.0, 1.0))
    dx, dy = x - p["back_glow_x"], y - p["back_glow_y"]
    over(rgb, (g["back_3"] * 1.25).clamp(max=1.0), bump((dx * dx + dy * dy) * 0.5).mul_(0.6))
    return _textured(rgb, "clouds", x, y + p["back_line_1"], half, 0.05 + 0.05 * p["back_line_contrast"])


def _stripes(p: Scalars, g: Scalars, x: Tensor, y: Tensor, half: float) -> Tensor:
    """Wallpaper: stripes from faint to clear, tiles in a part of the pictures."""
    along, across = _along(p, g, x, y)
    rgb = mix(g["back_1"], g["back_2"], (along * 0.35 + 0.5).clamp_(0.0, 1.0))
    period = p["back_period"]
    phase = along * (1.0 / period)
    phase = (phase - torch.floor(phase) - 0.5).abs_().sub_(0.25).mul_(period)
    over(rgb, g["back_3"], coverage(phase, half).mul_(0.15 + p["back_stripes"] * 0.75))
    gx, gy = (x + p["back_line_1"]) * 2.2, (y + p["back_line_2"]) * 2.2
    gx, gy = (((c - torch.floor(c)) - 0.5).abs() * (1 / 2.2) for c in (gx, gy))
    over(rgb, g["back_line"], band(0.5 / 2.2 - torch.maximum(gx, gy), 0.012, half).mul_(p["back_grid"] * 0.5))
    return _textured(rgb, "grain", along, across, half, 0.04)


def _bricks(p: Scalars, g: Scalars, x: Tensor, y: Tensor, half: float) -> Tensor:
    """A wall of bricks, each with a tone of its own."""
    high = 0.08 + 0.12 * p["back_period"]
    b = (y + p["back_line_2"]) / high + 32.0
    row = torch.floor(b)
    a = (x + p["back_line_1"]) / (high * 2.6) + row * 0.5 + 32.0
    off_a, off_b = (a - torch.floor(a) - 0.5).abs_().mul_(high * 2.6), (b - row - 0.5).abs_().mul_(high)
    edge = torch.minimum(high * 1.3 - off_a, high * 0.5 - off_b)
    tone = _cells(a, row.expand_as(a))
    rgb = mix(g["back_1"], g["back_2"], (tone * 0.35 + 0.5).clamp_(0.0, 1.0))
    soft = _focus(p, half)
    over(rgb, g["back_3"] * 1.1 + 0.01, band(edge, 0.010, soft).mul_(0.85))
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
    soft = _focus(p, half)
    over(rgb, g["back_2"] * 0.25, band(edge, 0.008, soft).mul_(0.9))
    rgb.mul_((0.85 + 0.12 * (along + p["back_glow_y"])).unsqueeze(1))
    rgb = _textured(rgb, "locks", across + plank * 0.37, along, half, 0.05 + 0.09 * p["back_focus"])
    return _textured(rgb, "strands", across + plank * 0.71, along * 0.5, half, 0.10 * p["back_focus"])


def _books(p: Scalars, g: Scalars, x: Tensor, y: Tensor, half: float) -> Tensor:
    """Shelves of books, in the three colours of the background and mixtures of them."""
    soft = _focus(p, half)
    shelf = 0.45 + 0.4 * p["back_period"]
    b = (y + p["back_line_2"]) / shelf + 32.0
    row = torch.floor(b)
    up = (b - row).mul_(shelf)  # above the shelf
    wide = 0.16
    a = (
        x + p["back_line_1"] + 0.03 * textures.look("grain", textures.locate(row * 11.0, row * 5.0, 0), 0)
    ) / wide + 64.0
    # every other edge between books moves, so that some are thick and some are thin
    book, share = torch.floor(a), a - torch.floor(a)
    first, second = _cells(a, row.expand_as(a)), _cells(a, (row + 40.0).expand_as(a))
    split = (0.5 + 0.14 * first).clamp_(0.25, 0.75)
    right = (share > split).float()
    seam = torch.minimum(torch.minimum(share, 1.0 - share), (share - split).abs_()).mul_(wide)
    own = (seam * soft + 0.35).clamp_(max=1.0)  # a pixel on an edge is half the next book
    tone = _cells(a + right * 50.0, row.expand_as(a)).mul_(own)
    rgb = mix(g["back_1"], g["back_2"], (0.5 + 0.5 * tone).clamp_(0.0, 1.0))
    over(rgb, g["back_3"], (second * (right - 0.5)).mul_(1.2).mul_(own).clamp_(0.0, 1.0))
    over(
        rgb, g["back_3"], (tone > 0.6).float().mul_(band(up - shelf * 0.45, 0.012, soft)).mul_(0.6)
    )  # a label on some backs
    over(rgb, g["back_1"] * 0.10, band(seam, 0.005, soft).mul_(0.85))
    top = shelf * (0.78 + 0.06 * (book - 2.0 * torch.floor(book * 0.5)) + 0.04 * tone) - 0.03
    over(rgb, g["back_2"] * 0.06, coverage(up - top, soft))
    over(rgb, g["back_2"] * 0.55, coverage(0.035 - up, soft).expand_as(seam))
    return rgb.mul_((0.95 + 0.25 * x * p["back_glow_x"]).unsqueeze(1))


def _window(p: Scalars, g: Scalars, x: Tensor, y: Tensor, half: float) -> Tensor:
    """A window: sky over something out of focus, bars across, a wall beside it."""
    sky = step(y - p["back_glow_y"] * 0.4, -0.25, 0.35)
    rgb = mix(g["back_2"] * 0.6, (g["back_3"] * 1.3).clamp(max=1.2), sky.expand(-1, -1, x.shape[2]))
    leaves = _leaves(p, x, y)
    over(rgb, g["back_1"] * 0.35 + g["back_2"] * 0.15, leaves.mul_(1.0 - 0.75 * sky))
    # panes 0.8 x 0.95 apart
    a, b = (x + p["back_line_1"]) * (1 / 0.8), (y + p["back_line_2"]) * (1 / 0.95)
    a, b = (a - torch.floor(a) - 0.5).abs_().mul_(0.8), (b - torch.floor(b) - 0.5).abs_().mul_(0.95)
    bar = torch.maximum(coverage(a - 0.345, half), coverage(b - 0.43, half))
    frame = g["back_1"] * 0.5 + 0.25 * g["back_3"]
    over(rgb, frame, bar)
    inner = torch.maximum(
        band(a - 0.345, 0.010, half).expand_as(bar), band(b - 0.43, 0.010, half).expand_as(bar)
    )
    over(rgb, frame * 0.35, inner.mul_(0.8))
    wall = coverage(torch.where(p["back_glow_x"] > 0, 1.0, -1.0) * x - 0.45 - 0.4 * p["back_focus"], half)
    over(rgb, g["back_1"] * 0.8, wall.expand_as(bar))
    return _textured(rgb, "clouds", x, y, half, 0.03)


def _leaves(p: Scalars, x: Tensor, y: Tensor) -> Tensor:
    """Soft dark patches: rounded noise between the corners of a grid, at two sizes; the same at every size of picture."""
    total = torch.zeros(1, device=x.device)
    for frequency, amount in ((3.5, 0.9), (8.0, 0.55)):
        a, b = x * frequency + p["back_line_1"] * 5.0 + 32.0, y * frequency + p["back_line_2"] * 5.0 + 32.0
        fa, fb = a - torch.floor(a), b - torch.floor(b)
        fa, fb = fa * fa * (3.0 - 2.0 * fa), fb * fb * (3.0 - 2.0 * fb)
        near, far = ([_cells(a + i, b + j) for i in (0, 1)] for j in (0, 1))
        low, high = (n[0] + (n[1] - n[0]) * fa for n in (near, far))
        total = total + (low + (high - low) * fb).mul_(amount)
    return (total * 0.45 + 0.45).clamp_(0.0, 1.0)
