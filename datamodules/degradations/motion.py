"""Motion blur: the projected random walk of a shaking camera, rendered as a centred kernel.

Source  The trajectory family of Schmidt et al., "Cascades of Regression Tree Fields for Image
        Restoration", as used around Rim et al., "Real-World Blur Dataset for Learning and Benchmarking
        Deblurring Algorithms" (ECCV 2020): a bank of trajectories, each rendered at a random odd extent,
        centred by mass. No generator was published with it; steps and draw order here are this project's.
Shapes  A kernel is (n, n) float32 of sum 1, n odd; its centre of mass is the centre pixel, so blurring
        moves nothing. A file of kernels is an .npz with the arrays `train` and `held_out`, (N, n, n)
        each, made for images of 512 pixels.
"""

from __future__ import annotations

import io
import json
import lzma
import math
import struct
import tokenize
import zipfile
import zlib
from functools import lru_cache
from pathlib import Path

import numpy as np

from _runtime import UserError, plain_file, write_bytes

STEPS = 250  # T
POINTS_PER_STEP = 8
BANK = 1000
EXTENT = (5, 71)  # of the 71x71 kernels, in pixels at 512
SEEDS = (0, 1)  # of the banks for training and for held-out images
PARTS = ("train", "held_out")  # their names in a file
LARGEST = 511  # side of a kernel in a file: no larger than the image it belongs to
MOST = 2**30  # bytes of a bank: 1,000 of the largest kernels
HEADERS = {  # of the versions of NumPy's format
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
UNREADABLE = (  # what zipfile and NumPy raise for a damaged archive or one of something else
    OSError, ValueError, LookupError, TypeError, SyntaxError, EOFError, RuntimeError, MemoryError,
    zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, tokenize.TokenError,
)  # fmt: skip


def scaled_size(size: int, scale: float) -> int:
    """The odd number nearest to size * scale, at least 3."""
    return max(3, 2 * round((size * scale - 1) / 2) + 1)


def motion_kernel(
    rng: np.random.Generator, extent: tuple[int, int] = (5, 71), scale: float = 1.0
) -> np.ndarray:
    """One random kernel; draws the walk, then the extent, from `rng`.

    Args:
        rng: where the numbers are drawn from.
        extent: smallest and largest side of the trajectory's bounding box in pixels, both odd; drawn
            uniformly over the odd numbers. The largest is also the canvas.
        scale: shrinks extent and canvas alike, for images other than 512 pixels.
    """
    normals, extents = draw(rng, 1, extent)
    return render(normals, extents, extent[1], scale)[0]


@lru_cache(maxsize=8)
def motion_bank(seed: int, extent: tuple[int, int], scale: float) -> np.ndarray:
    """The 1,000 kernels that default_rng(seed) gives one after the other, (1000, n, n), read-only.

    Built once per process.
    """
    normals, extents = draw(np.random.default_rng(seed), BANK, extent)
    bank = render(normals, extents, extent[1], scale)
    bank.setflags(write=False)
    return bank


def draw(rng: np.random.Generator, count: int, extent: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """What kernels are made of, drawn kernel after kernel.

    Returns:
        Normals (count, 3 + 6 (T - 1)), in order v_0, then e and e' of each step; and extents (count,).
    """
    low, high = extent
    if low % 2 == 0 or high % 2 == 0 or not 3 <= low <= high:
        raise ValueError(f"expected two odd extents, 3 <= smallest <= largest, got {extent}")
    normals = np.empty((count, 3 + 6 * (STEPS - 1)))
    extents = np.empty(count)
    for i in range(count):
        normals[i] = rng.standard_normal(normals.shape[1])
        extents[i] = low + 2 * rng.integers((high - low) // 2 + 1)
    return normals, extents


def trajectories(normals: np.ndarray) -> np.ndarray:
    """Normals (N, 3 + 6 (T - 1)) -> the walk's (x, y), (N, T, 2), in arbitrary units."""
    shocks = normals[:, 3:].reshape(len(normals), STEPS - 1, 2, 3)
    shocks = shocks / np.arange(2, STEPS + 1)[:, None, None]  # e / (t + 1), e' / (t + 1)
    v = normals[:, None, :3] + np.cumsum(shocks[:, :, 1], axis=1)
    r = np.zeros_like(v)
    angle = np.zeros((len(normals), 3))
    for t in range(STEPS - 1):
        angle = angle + 2 * np.pi / STEPS * (angle + shocks[:, t, 0])
        r[:, t] = angle

    cx, cy, cz = np.moveaxis(np.cos(r), -1, 0)
    sx, sy, sz = np.moveaxis(np.sin(r), -1, 0)
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
    factor = (extents - 1) * scale / box  # one for both axes: the walk is not distorted
    points = resampled(walk * factor[:, None, None])
    points = points - points.mean(axis=1, keepdims=True)
    reach = np.abs(points).max(axis=(1, 2), keepdims=True)
    points = points * np.minimum(1, centre / reach) + centre  # shrunk where it would leave the canvas
    kernels = splatted(points, size)
    return (kernels / kernels.sum(axis=(1, 2), keepdims=True)).astype(np.float32)


def resampled(walk: np.ndarray) -> np.ndarray:
    """Eight points per step, linearly, so that the time spent at a place becomes its weight."""
    u = np.arange(POINTS_PER_STEP) / POINTS_PER_STEP
    between = walk[:, :-1, None] * (1 - u)[:, None] + walk[:, 1:, None] * u[:, None]
    return np.concatenate([between.reshape(len(walk), -1, 2), walk[:, -1:]], axis=1)


def splatted(points: np.ndarray, size: int) -> np.ndarray:
    """Points (N, P, 2) in pixels -> how many fall on each, shared bilinearly, (N, size, size)."""
    count = len(points)
    corner = np.clip(np.floor(points), 0, size - 2).astype(np.int64)
    fx, fy = np.moveaxis(points - corner, -1, 0)
    cell = np.arange(count)[:, None] * size**2 + corner[..., 1] * size + corner[..., 0]
    weights = np.zeros(count * size**2)
    for dy, wy in ((0, 1 - fy), (1, fy)):
        for dx, wx in ((0, 1 - fx), (1, fx)):
            place = cell + dy * size + dx
            weights += np.bincount(place.ravel(), (wy * wx).ravel(), minlength=weights.size)
    return weights.reshape(count, size, size)


# --------------------------------------------------------------------------------------------------- files
def save_kernels(path: Path) -> None:
    """Write both banks of 71x71 kernels, with what made them, to an .npz file for `read_kernels`."""
    train, held_out = (motion_bank(seed, EXTENT, 1.0) for seed in SEEDS)
    made_by = {"seeds": SEEDS, "extent": EXTENT, "steps": STEPS, "points_per_step": POINTS_PER_STEP}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, train=train, held_out=held_out, parameters=np.array(json.dumps(made_by)))
    write_bytes(path, buffer.getvalue())


@lru_cache(maxsize=2)
def read_kernels(path: str) -> tuple[np.ndarray, np.ndarray]:
    """The banks for training and for held-out images in a file, (N, n, n) and (M, n, n) float32, read-only.

    Read once per process.

    Raises:
        UserError: the file is missing or no .npz, or its arrays are not kernels: odd sides of 3 to 511
            pixels, the same in both, no negative weight, sum 1 within 1e-4.
    """
    expected = f"--data.kernels {path}: expected an .npz with the arrays {' and '.join(PARTS)}"
    plain_file(Path(path), f"{expected}, but it")
    try:
        with zipfile.ZipFile(path) as archive:
            banks = [read_bank(archive, part, f"--data.kernels {path}: {part}") for part in PARTS]
    except UserError:
        raise
    except UNREADABLE as error:
        reason = "not such a file"
        if isinstance(error, OSError) and error.strerror:
            reason = error.strerror
        raise UserError(f"{expected} ({reason})") from error
    train, held_out = banks
    if train.shape[1:] != held_out.shape[1:]:
        raise UserError(
            f"--data.kernels {path}: train {train.shape} and held_out {held_out.shape} differ in size,"
            " expected one for both"
        )
    return rescaled(train, 1.0), rescaled(held_out, 1.0)  # at 1 only the type changes


def read_bank(archive: zipfile.ZipFile, part: str, name: str) -> np.ndarray:
    """An array of kernels in an archive, whose size is looked at before it is read.

    Raises:
        UserError: it is none; the message starts with `name`.
        OSError: it cannot be read; or another of `UNREADABLE`.
    """
    with archive.open(f"{part}.npy") as file:
        version = np.lib.format.read_magic(file)
        read_header = HEADERS[version]
        shape, _, dtype = read_header(file)
    if dtype.hasobject:
        raise ValueError("objects would execute code")
    check_shape(shape, dtype, name)
    with archive.open(f"{part}.npy") as file:
        bank = np.lib.format.read_array(file, allow_pickle=False)
    check_bank(bank, name)
    return bank


def check_shape(shape: tuple[int, ...], dtype: np.dtype, name: str) -> None:
    """Refuse an array by what it says of itself. Raises UserError, which starts with `name`."""
    cubic = len(shape) == 3 and shape[0] > 0 and shape[1] == shape[2]
    if not cubic or shape[2] % 2 == 0 or not 3 <= shape[2] <= LARGEST:
        raise UserError(
            f"{name} is {shape}, expected (N, n, n), n odd and 3 to {LARGEST}, e.g. (1000, 71, 71)"
        )
    size = math.prod(shape) * dtype.itemsize
    if size > MOST:
        raise UserError(f"{name} is {shape}, {size / 2**30:.1f} GiB: give at most {MOST / 2**30:.0f} GiB")


def check_bank(bank: np.ndarray, name: str) -> None:
    """Refuse an array that holds no kernels. Raises UserError, which starts with `name`."""
    if bank.dtype.kind == "f":
        sums = bank.sum(axis=(1, 2), dtype=np.float64)
        if bank.min() >= 0 and np.abs(sums - 1).max() < 1e-4:
            return
    raise UserError(
        f"{name} holds what is no blur kernel, expected weights from 0 on as floats, of sum 1 each"
    )


@lru_cache(maxsize=8)
def kernels_of(path: str, held_out: bool, scale: float) -> np.ndarray:
    """A bank of `read_kernels` for images of another size than 512 pixels."""
    return rescaled(read_kernels(path)[held_out], scale)


def rescaled(bank: np.ndarray, scale: float) -> np.ndarray:
    """Kernels (N, k, k) for another image scale, (N, n, n) with n = scaled_size(k, scale), read-only.

    Each weight moves towards the centre, so the centre of mass stays where it is. It is spread linearly
    over the pixels around its new place, as in `render`.
    """
    k = bank.shape[-1]
    n = scaled_size(k, scale)
    factor = min(scale, (n - 1) / (k - 1))  # shrunk where it would leave the canvas
    at = (np.arange(k) - (k - 1) / 2) * factor + (n - 1) / 2
    distance = np.abs(np.arange(n)[:, None] - at)
    spread = np.clip(1 - distance / max(1, factor), 0, None)
    spread /= spread.sum(axis=0)
    kernels = (spread @ bank.astype(np.float64) @ spread.T).astype(np.float32)
    kernels.setflags(write=False)
    return kernels
