"""Motion blur: the projected random walk of a shaking camera, rendered as a centred kernel.

Source  The trajectory family of Schmidt et al., "Cascades of Regression Tree Fields for Image Restoration", as used around Rim et al.,
        "Real-World Blur Dataset for Learning and Benchmarking Deblurring Algorithms" (ECCV 2020): a bank of trajectories, each rendered at
        a random odd extent, centred by mass. No generator was published with it; steps and draw order here are this project's.
Shapes  a kernel is (n, n) float32 of sum 1, n odd; its centre of mass is the centre pixel, so blurring moves nothing.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

STEPS = 250  # T
POINTS_PER_STEP = 8
BANK = 1000


def scaled_size(size: int, scale: float) -> int:
    """The odd number nearest to size * scale, at least 3."""
    return max(3, 2 * round((size * scale - 1) / 2) + 1)


def motion_kernel(rng: np.random.Generator, extent: tuple[int, int] = (5, 71), scale: float = 1.0) -> np.ndarray:
    """One random kernel; draws the walk, then the extent, from `rng`.

    Args:
        extent: smallest and largest side of the trajectory's bounding box in pixels, both odd; drawn uniformly over the odd numbers.
            The largest is also the canvas.
        scale: shrinks extent and canvas alike, for images other than 512 pixels.
    """
    return render(*draw(rng, 1, extent), extent[1], scale)[0]


@lru_cache(maxsize=8)
def motion_bank(seed: int, extent: tuple[int, int], scale: float) -> np.ndarray:
    """The 1,000 kernels that default_rng(seed) gives one after the other, (1000, n, n), read-only; built once per process."""
    bank = render(*draw(np.random.default_rng(seed), BANK, extent), extent[1], scale)
    bank.setflags(write=False)
    return bank


def draw(rng: np.random.Generator, count: int, extent: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Normals (count, 3 + 6 (T - 1)), in order v_0, then e and e' of each step; and extents (count,). Kernel after kernel."""
    low, high = extent
    if low % 2 == 0 or high % 2 == 0 or not 3 <= low <= high:
        raise ValueError(f"expected two odd extents, 3 <= smallest <= largest, got {extent}")
    normals, extents = np.empty((count, 3 + 6 * (STEPS - 1))), np.empty(count)
    for i in range(count):
        normals[i] = rng.standard_normal(normals.shape[1])
        extents[i] = low + 2 * rng.integers((high - low) // 2 + 1)
    return normals, extents


def trajectories(normals: np.ndarray) -> np.ndarray:
    """Normals (N, 3 + 6 (T - 1)) -> the walk's (x, y), (N, T, 2), in arbitrary units."""
    shocks = normals[:, 3:].reshape(len(normals), STEPS - 1, 2, 3) / np.arange(2, STEPS + 1)[:, None, None]  # e / (t + 1), e' / (t + 1)
    v = normals[:, None, :3] + np.cumsum(shocks[:, :, 1], axis=1)
    r = np.zeros_like(v)
    angle = np.zeros((len(normals), 3))
    for t in range(STEPS - 1):
        angle = angle + 2 * np.pi / STEPS * (angle + shocks[:, t, 0])
        r[:, t] = angle

    (cx, cy, cz), (sx, sy, sz) = np.moveaxis(np.cos(r), -1, 0), np.moveaxis(np.sin(r), -1, 0)
    x, y, z = np.moveaxis(v, -1, 0)
    y, z = cx * y - sx * z, sx * y + cx * z  # Rx
    x, z = cy * x + sy * z, cy * z - sy * x  # Ry
    x, y = cz * x - sz * y, sz * x + cz * y  # Rz
    walk = np.cumsum(np.stack([x, y], axis=-1), axis=1)
    return np.concatenate([np.zeros_like(walk[:, :1]), walk], axis=1)


def render(normals: np.ndarray, extents: np.ndarray, largest: int, scale: float) -> np.ndarray:
    """Walks at their extents, centred by mass, splatted bilinearly: (N, n, n)."""
    size = scaled_size(largest, scale)
    centre = (size - 1) / 2
    walk = trajectories(normals)
    box = np.ptp(walk, axis=1).max(axis=-1)
    walk = walk * ((extents - 1) * scale / box)[:, None, None]  # one factor for both axes: the walk is not distorted

    # resampled linearly, so that the time spent at a place becomes its weight
    u = np.arange(POINTS_PER_STEP) / POINTS_PER_STEP
    between = walk[:, :-1, None] * (1 - u)[:, None] + walk[:, 1:, None] * u[:, None]
    points = np.concatenate([between.reshape(len(walk), -1, 2), walk[:, -1:]], axis=1)
    points = points - points.mean(axis=1, keepdims=True)
    reach = np.abs(points).max(axis=(1, 2), keepdims=True)
    points = points * np.minimum(1, centre / reach) + centre  # shrunk where it would leave the canvas

    corner = np.clip(np.floor(points), 0, size - 2).astype(np.int64)
    fx, fy = np.moveaxis(points - corner, -1, 0)
    cell = np.arange(len(walk))[:, None] * size**2 + corner[..., 1] * size + corner[..., 0]
    weights = np.zeros(len(walk) * size**2)
    for dy, wy in ((0, 1 - fy), (1, fy)):
        for dx, wx in ((0, 1 - fx), (1, fx)):
            weights += np.bincount((cell + dy * size + dx).ravel(), (wy * wx).ravel(), minlength=weights.size)
    kernels = weights.reshape(len(walk), size, size)
    return (kernels / kernels.sum(axis=(1, 2), keepdims=True)).astype(np.float32)
