"""The arithmetic of the renderer: exact functions, coverage from signed distances, pose, ellipsoids, windows.

Frames  Picture: x, y in [-1, 1], right and up.
        Head: x right, y up, z towards the viewer when frontal; in half-heights of the head, from its middle.
        View: the head frame turned by yaw and pitch (not roll), orthographic along t, towards the viewer.
Shapes  Scalars of an image are (B, 1, 1), so that they meet planes (B, h, w).
        Colours are (B, 3, 1, 1), linear light, gamma 2.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

Scalars = dict[str, Tensor]
Triple = tuple[Tensor | float, Tensor | float, Tensor | float]
T = TypeVar("T")


def sine(x: Tensor) -> Tensor:
    """sin x for |x| <= pi / 2, by its series.

    Sines of libm and of the vector library differ in the last bit, this one cannot.
    """
    x2 = x * x
    y = x2 * (-1 / 39916800) + (1 / 362880)
    for coefficient in (-1 / 5040, 1 / 120, -1 / 6, 1.0):
        y = y * x2 + coefficient
    return y * x


def cosine(x: Tensor) -> Tensor:
    """cos x for |x| <= pi / 2, as `sine`."""
    x2 = x * x
    y = x2 * (1 / 479001600) - (1 / 3628800)
    for coefficient in (1 / 40320, -1 / 720, 1 / 24, -0.5, 1.0):
        y = y * x2 + coefficient
    return y


def degrees(x: Tensor) -> Tensor:
    return x * 0.017453292


def coverage(inside: Tensor, scale: Tensor | float) -> Tensor:
    """Share of a pixel within an edge, `inside` units away and positive within, at `scale` pixels per unit.

    Takes `inside` over.
    """
    return inside.mul_(scale).add_(0.5).clamp_(0.0, 1.0)


def band(offset: Tensor, half: Tensor | float, scale: Tensor | float) -> Tensor:
    """Share of the pixel within a line of half-width `half`, right for lines thinner than a pixel too."""
    return coverage(half - offset, scale).add_(coverage(offset + half, scale)).sub_(1.0)


def between(x: Tensor, low: Tensor, high: Tensor, scale: Tensor | float) -> Tensor:
    """Share of the pixel with low < x < high, right for thin strips too, 0 where high < low."""
    below = coverage(high - x, scale)
    above = coverage(x - low, scale)
    return below.add_(above).sub_(1.0).clamp_(min=0.0)


def bump(distance2: Tensor) -> Tensor:
    """A soft spot: 1 at squared distance 0, smoothly 0 from 1 on. Takes `distance2` over."""
    b = distance2.neg_().add_(1.0).clamp_(min=0.0)
    return b.mul_(b)


def spot(u: Tensor, v: Tensor) -> Tensor:
    """`bump` of the ellipse u^2 + v^2 = 1, for u and v of one shape; takes both over."""
    return bump(u.square_().add_(v.square_()))


def step(x: Tensor, low: float, high: float) -> Tensor:
    """Smoothly from 0 at `low` to 1 at `high`."""
    t = ((x - low) * (1.0 / (high - low))).clamp_(0.0, 1.0)
    return t * t * (3.0 - 2.0 * t)


def wave(x: Tensor) -> Tensor:
    """A sine-like wave of period 1, in [-1, 1], made of parabolas."""
    h = (x - torch.floor(x)).mul_(2.0).sub_(1.0)
    return h.abs().neg_().add_(1.0).mul_(h).mul_(4.0)


def smooth_max(a: Tensor, b: Tensor, radius: float) -> Tensor:
    """max(a, b), rounded within `radius`."""
    h = (a - b).abs_().neg_().add_(radius).clamp_(min=0.0)
    return torch.maximum(a, b).add_(h.mul_(h).mul_(0.25 / radius))


def affine(coefficients: Sequence[Tensor], x: Tensor, y: Tensor) -> Tensor:
    """a x + b y + c over the picture, from its row x (1, 1, w) and its column y (1, h, 1)."""
    a, b, c = coefficients
    return (a * x + c) + b * y


def over(base: Tensor, colour: Tensor, alpha: Tensor) -> None:
    """Paint colour (B, 3, ...) with alpha (B, h, w) over base (B, 3, h, w), in place.

    Where alpha is 0, base stays as it is, bit for bit.
    """
    base.add_((colour - base).mul_(alpha.unsqueeze(1)))


def stamp(label: Tensor, region: Tensor, name: int) -> None:
    """Write the label `name` over label (uint8) where region (bool), in place.

    By bits, which is many times faster than masked_fill.
    """
    chosen = region.view(torch.uint8).neg()
    label.bitwise_and_(~chosen).bitwise_or_(chosen.bitwise_and_(name))


def visible(size: int, cycles: float) -> float:
    """The share of its contrast that a pattern of `cycles` per head unit keeps.

    All from 4 pixels a cycle on, none at 2.
    """
    return min(max(0.2 * size / cycles - 1.0, 0.0), 1.0)


class Window(NamedTuple):
    """A rectangle of pixels, of the picture or beyond its border."""

    top: int
    bottom: int
    left: int
    right: int

    def within(self, other: Window) -> Window:
        top, left = max(self.top, other.top), max(self.left, other.left)
        bottom, right = min(self.bottom, other.bottom), min(self.right, other.right)
        return Window(top, max(bottom, top), left, max(right, left))

    def grown(self, pixels: int) -> Window:
        return Window(self.top - pixels, self.bottom + pixels, self.left - pixels, self.right + pixels)

    @property
    def empty(self) -> bool:
        return self.bottom <= self.top or self.right <= self.left

    def of(self, plane: Tensor, whole: Window) -> Tensor:
        """This window's part (a view) of a plane (..., h, w) that shows `whole`."""
        rows = slice(self.top - whole.top, self.bottom - whole.top)
        columns = slice(self.left - whole.left, self.right - whole.left)
        return plane[..., rows, columns]

    def coordinates(self, size: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """The picture's x (1, 1, w) and y (1, h, 1) at the pixels' centres."""
        columns = torch.arange(self.left, self.right, dtype=torch.float32, device=device)
        rows = torch.arange(self.top, self.bottom, dtype=torch.float32, device=device)
        x = (columns + 0.5) * (2.0 / size) - 1.0
        y = 1.0 - (rows + 0.5) * (2.0 / size)
        return x.view(1, 1, -1), y.view(1, -1, 1)


class Pose:
    """Where the heads are: maps between picture, view and head for a batch of images."""

    def __init__(self, p: Scalars) -> None:
        yaw, pitch, roll = degrees(p["yaw"]), degrees(p["pitch"]), degrees(p["roll"])
        sy, cy = sine(yaw), cosine(yaw)
        sp, cp = sine(pitch), cosine(pitch)
        sr, cr = sine(roll), cosine(roll)
        zero = torch.zeros_like(sy)
        # rows: the head's axes x, y, z in the view's (u, v, t); columns are the view's axes in the head frame
        self.axes = ((cy, -sy * sp, -sy * cp), (zero, cp, -sp), (sy, cy * sp, cy * cp))
        self.zoom = p["zoom"]
        # FFHQ's alignment keeps the middle between eyes and mouth in place;
        # here nearly, so that pose shows in the place too
        u0 = 0.74 * sy * 0.86
        v0 = (0.74 * cy * sp) * 0.7 - 0.28 * cp
        x0, y0 = p["shift_x"], p["shift_y"] - 0.165
        k = 1.0 / self.zoom
        self.u = (cr * k, -sr * k, u0 - (cr * x0 - sr * y0) * k)
        self.v = (sr * k, cr * k, v0 - (sr * x0 + cr * y0) * k)
        self._roll, self._origin = (sr, cr), (u0, v0, x0, y0)
        self.ray = tuple(row[2] for row in self.axes)
        # head x, y, z of a pixel at t = 0, as affine maps
        self.origin = tuple(self._compose(row[0], row[1]) for row in self.axes)

    def _compose(self, along_u: Tensor, along_v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        a, b, c = (along_u * u + along_v * v for u, v in zip(self.u, self.v, strict=True))
        return a, b, c

    def view(self, x: Tensor | float, y: Tensor | float, z: Tensor | float) -> tuple[Tensor, Tensor, Tensor]:
        """A point of the head -> (u, v, t)."""
        (xu, xv, xt), (yu, yv, yt), (zu, zv, zt) = self.axes
        u = x * xu + y * yu + z * zu
        v = x * xv + y * yv + z * zv
        t = x * xt + y * yt + z * zt
        return u, v, t

    def picture(self, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """A point of the view -> the picture's (x, y)."""
        (sr, cr), (u0, v0, x0, y0) = self._roll, self._origin
        du, dv = u - u0, v - v0
        x = x0 + (du * cr + dv * sr) * self.zoom
        y = y0 + (dv * cr - du * sr) * self.zoom
        return x, y

    def at(self, x: Tensor | float, y: Tensor | float, z: Tensor | float) -> tuple[Tensor, Tensor]:
        """A point of the head -> the picture's (x, y)."""
        u, v, _ = self.view(x, y, z)
        return self.picture(u, v)

    def box(self, centre: tuple, half: tuple) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Left, right, bottom, top in the picture of a box given in the head frame."""
        x, y = self.at(*centre)
        sr, cr = self._roll
        (xu, xv, _), (yu, yv, _), (zu, zv, _) = self.axes
        u = xu.abs() * half[0] + yu.abs() * half[1] + zu.abs() * half[2]
        v = xv.abs() * half[0] + yv.abs() * half[1] + zv.abs() * half[2]
        dx = (u * cr + v * sr.abs()) * self.zoom
        dy = (v * cr + u * sr.abs()) * self.zoom
        return x - dx, x + dx, y - dy, y + dy


def direction(pose: Pose, x: Tensor, y: Tensor, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """A direction of the picture (right, up, to the viewer) -> of the head."""
    sr, cr = pose._roll
    u, v = x * cr - y * sr, x * sr + y * cr
    hx, hy, hz = (row[0] * u + row[1] * v + row[2] * z for row in pose.axes)
    return hx, hy, hz


class Ellipsoid(NamedTuple):
    """An ellipsoid of the head frame; components are numbers or (B, 1, 1)."""

    centre: Triple
    axes: tuple[Triple, Triple, Triple]  # orthonormal
    half: Triple  # half-lengths along the axes


class Ellipsoids:
    """K ellipsoids of the head frame as the picture sees them."""

    def __init__(self, pose: Pose, shapes: Sequence[Ellipsoid]) -> None:
        u, v, t = pose.view(*_columns([shape.centre for shape in shapes], pose.zoom))
        # the maps to the unit spheres: each axis in the view's (u, v, t), over the radius
        radii = _columns([shape.half for shape in shapes], pose.zoom)
        rows = []
        for j, radius in enumerate(radii):
            axis = _columns([shape.axes[j] for shape in shapes], pose.zoom)
            inverse = 1.0 / radius
            rows.append([c * inverse for c in pose.view(*axis)])
        # their Gram matrix
        (u1, v1, t1), (u2, v2, t2), (u3, v3, t3) = rows
        uu = u1 * u1 + u2 * u2 + u3 * u3
        uv = u1 * v1 + u2 * v2 + u3 * v3
        vv = v1 * v1 + v2 * v2 + v3 * v3
        ut = u1 * t1 + u2 * t2 + u3 * t3
        vt = v1 * t1 + v2 * t2 + v3 * t3
        itt = 1.0 / (t1 * t1 + t2 * t2 + t3 * t3)
        # the outline's quadratic form in (u, v), as a sum of two squares
        l11 = (uu - ut * ut * itt).sqrt()
        l21 = (uv - ut * vt * itt) / l11
        l22 = (vv - vt * vt * itt - l21 * l21).clamp(min=1e-6).sqrt()
        # affine maps of the picture's (x, y)
        du = (*pose.u[:2], pose.u[2] - u)
        dv = (*pose.v[:2], pose.v[2] - v)
        self._p = [l11 * a + l21 * b for a, b in zip(du, dv, strict=True)]
        self._q = [l22 * b for b in dv]
        self._middle = [(ut * a + vt * b) * -itt for a, b in zip(du, dv, strict=True)]
        self._middle[2] = self._middle[2] + t
        self._thickness = itt.sqrt()

    def outline(self, k: int, x: Tensor, y: Tensor) -> Tensor:
        """Squared distance from the middle of ellipsoid k, 1 at its outline."""
        p = affine([c[:, k : k + 1] for c in self._p], x, y)
        q = affine([c[:, k : k + 1] for c in self._q], x, y)
        return p.mul_(p).add_(q.mul_(q))

    def front(self, k: int, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Depth t of the near side, falling away outside, and `outline`."""
        d2 = self.outline(k, x, y)
        rest = 1.0 - d2
        half = rest.clamp(min=0.0).sqrt_()
        half.add_(rest.clamp_(max=0.0).mul_(3.0))  # the fall
        half.mul_(self._thickness[:, k : k + 1])
        middle = affine([c[:, k : k + 1] for c in self._middle], x, y)
        return half.add_(middle), d2


def _columns(points: Sequence[Triple], like: Tensor) -> list[Tensor]:
    """The x, y and z of K points, each (B, K, 1)."""
    columns = []
    for values in zip(*points, strict=True):
        tensors = [v if isinstance(v, Tensor) else torch.full_like(like, v) for v in values]
        columns.append(torch.cat(tensors, dim=1))
    return columns


def take(value: T, rows: slice | Tensor, taken: dict[int, object] | None = None) -> T:
    """The images `rows` of anything built from (B, ...) tensors, containers and plain objects.

    What is shared stays shared; `taken` holds what was taken so far, by its id.
    """
    if taken is None:
        taken = {}
    if id(value) in taken:
        return taken[id(value)]  # type: ignore[return-value]
    result: object
    if isinstance(value, Tensor):
        result = value[rows] if isinstance(rows, slice) else value.index_select(0, rows)
    elif isinstance(value, dict):
        result = {key: take(item, rows, taken) for key, item in value.items()}
    elif isinstance(value, list | tuple):
        result = [take(item, rows, taken) for item in value]
    elif hasattr(value, "__dict__"):
        result = copy.copy(value)
        vars(result).update({key: take(item, rows, taken) for key, item in vars(value).items()})
    else:
        return value
    taken[id(value)] = result
    return result  # type: ignore[return-value]
