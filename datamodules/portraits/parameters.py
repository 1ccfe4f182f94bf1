"""What a portrait is made of: one scalar per image and name, sampled as a pure function of (seed, index)."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from _runtime import UserError

Parameters = dict[str, Tensor]


@dataclass(frozen=True)
class Range:
    """How one parameter is distributed over [low, high]; `counterfactual` admits these, or `allowed`."""

    low: float
    high: float
    central: bool = False  # values near the middle are more frequent
    absent: float = 0.0  # with this probability the value is `low`
    probability: float | None = None  # either `high`, with this probability, or `low`
    allowed: tuple[float, float] | None = None

    def __call__(self, u: np.ndarray) -> np.ndarray:
        """u uniform in [0, 1) -> values."""
        if self.probability is not None:
            return np.where(u < self.probability, self.high, self.low)
        if self.absent:
            u = np.maximum(u - self.absent, 0.0) / (1.0 - self.absent)
        if self.central:
            v = 2.0 * u - 1.0
            u = 0.5 + 0.5 * v * (0.45 + 0.55 * v * v)
        return self.low + u * (self.high - self.low)


def chance(probability: float) -> Range:
    """0 or 1."""
    return Range(0.0, 1.0, probability=probability)


RANGES: dict[str, Range] = {
    # pose (degrees) and place (fractions of half the picture)
    # positive: the face turns to the right of the picture, looks up, tilts to the right of the picture
    "yaw": Range(-40, 40, central=True, allowed=(-60, 60)),
    "pitch": Range(-20, 20, central=True, allowed=(-30, 30)),
    "roll": Range(-10, 10, central=True, allowed=(-30, 30)),
    "shift_x": Range(-0.04, 0.04),
    "shift_y": Range(-0.03, 0.03),
    "zoom": Range(0.75, 0.84),
    # identity, in half-heights of the head
    "head_width": Range(0.66, 0.77, central=True),
    "jaw": Range(-0.36, 0.18),
    "eye_distance": Range(0.265, 0.315, central=True),
    "eye_width": Range(0.118, 0.150, central=True),
    "eye_height": Range(0.060, 0.086),
    "eye_slant": Range(-0.12, 0.20, central=True),
    "iris_radius": Range(0.056, 0.068),
    "iris_tone": Range(0.0, 1.0),
    "nose_length": Range(0.31, 0.41, central=True),
    "nose_width": Range(0.78, 1.35, central=True),
    "nose_depth": Range(0.15, 0.25),
    "mouth_y": Range(-0.64, -0.57),
    "mouth_width": Range(0.19, 0.26, central=True),
    "lip_upper": Range(0.030, 0.062),
    "lip_lower": Range(0.045, 0.082),
    "brow_height": Range(0.165, 0.225),
    "brow_thickness": Range(0.016, 0.040),
    "brow_arch": Range(0.0, 0.07),
    "ear_size": Range(0.85, 1.2),
    "skin_tone": Range(0.0, 1.0),  # light to dark
    "skin_warmth": Range(-1.0, 1.0),
    "makeup": Range(0.0, 1.0),
    "freckled": Range(0.0, 1.0, absent=0.6),
    "skin_grain": Range(0.0, 1.0),  # which pores
    # expression
    "smile": Range(-1.0, 1.0),
    "mouth_open": Range(0.0, 1.0, absent=0.45),
    "eye_open": Range(0.62, 1.12, central=True, allowed=(0.0, 1.3)),
    "brow_raise": Range(-1.0, 1.0, central=True),
    "frown": Range(0.0, 1.0, absent=0.7),
    # positive: the brow at the right of the picture is the higher one
    "brow_skew": Range(-1.0, 1.0, central=True),
    "squint": Range(0.0, 1.0, absent=0.6),
    # positive: the mouth's corner at the right of the picture is the higher one
    "smirk": Range(-1.0, 1.0, central=True),
    "gaze_x": Range(-1.0, 1.0, central=True),
    "gaze_y": Range(-1.0, 1.0, central=True),
    # age in years
    "age": Range(18, 80, allowed=(10, 95)),
    "greying": Range(0.0, 1.0),  # 0 late .. 1 early
    # hair: length 0 is none, 0.3 ends at the ears, 0.6 at the chin, 1 at the chest
    "hair_length": Range(0.0, 1.0),
    "hair_tone": Range(0.0, 1.0),  # black, browns, blond, red
    "hair_volume": Range(0.05, 0.15, allowed=(0.05, 0.27)),
    "hair_wave": Range(0.0, 1.0, absent=0.3),
    "hair_part": Range(-0.45, 0.45),
    "fringe": Range(0.0, 1.0, absent=0.5),
    "hair_strand": Range(0.0, 1.0),
    # long hair: 0 hangs like a curtain, 1 gathers at the neck; short hair: 0 flat, 1 brushed up
    "hair_taper": Range(0.0, 1.0),
    "beard": Range(0.0, 1.0),
    "moustache": Range(0.0, 1.0),
    # glasses
    "glasses": chance(0.28),
    "sunglasses": chance(0.12),
    "glasses_width": Range(0.185, 0.235),
    "glasses_height": Range(0.105, 0.185),
    "glasses_round": Range(0.25, 1.0),
    "glasses_rim": Range(0.010, 0.024),
    "glasses_tone": Range(0.0, 1.0),
    # light: degrees, and key light against ambient
    "light_azimuth": Range(-65, 65, allowed=(-90, 90)),  # positive: from the right of the picture
    "light_elevation": Range(-5, 55, allowed=(-30, 80)),
    "light_intensity": Range(0.5, 1.0),
    "light_warmth": Range(-1.0, 1.0),
    # clothes
    "cloth_hue": Range(0.0, 1.0),
    "cloth_saturation": Range(0.05, 0.8),
    "cloth_value": Range(0.15, 0.9),
    "cloth_stripes": Range(0.0, 1.0, absent=0.55),
    "cloth_pattern": Range(0.0, 1.0),  # stripes across, along, checks, dots
    "collar": Range(0.0, 1.0),  # none, shirt, jacket
    "neckline": Range(0.0, 1.0),
    # background, fixed to the picture
    "back_kind": Range(0.0, 1.0),  # studio, stripes, bricks, boards, books, window
    "back_focus": Range(0.0, 1.0),  # blurred to sharp
    "back_hue": Range(0.0, 1.0),
    "back_saturation": Range(0.0, 1.0),
    "back_value": Range(0.25, 0.92),
    "back_hue_shift": Range(-0.25, 0.25, central=True),
    "back_angle": Range(-90, 90),
    "back_stripes": Range(0.0, 1.0, absent=0.3),
    "back_period": Range(0.12, 0.55),
    "back_line_1": Range(-1.0, 1.0),
    "back_line_2": Range(-1.0, 1.0),
    "back_line_3": Range(-1.0, 1.0),
    "back_line_angle": Range(-90, 90),
    "back_line_contrast": Range(0.35, 1.0),
    "back_grid": Range(0.0, 1.0, absent=0.72),
    "back_glow_x": Range(-1.0, 1.0),
    "back_glow_y": Range(-1.0, 1.0),
}

ATTRIBUTES: tuple[str, ...] = (
    "yaw",  # degrees, positive to the right of the picture
    "pitch",  # degrees, positive up
    "roll",  # degrees, positive tilts the head to the right of the picture
    "smile",  # -1 sad .. 1
    "age",  # years
    "glasses",  # 0 or 1
    "mouth_open",  # 0 .. 1
    "eye_open",  # 0 closed .. 1
    "hair_length",  # 0 none .. 1 chest
    "fringe",  # 0 .. 1
    "beard",  # 0 .. 1
    "hair_tone",  # 0 black .. 0.5 brown .. 0.8 blond .. 1 red
    "skin_tone",  # 0 light .. 1 dark
    "light_azimuth",  # degrees, positive from the right of the picture
    "light_elevation",  # degrees
)

# Those that change the least of a picture of 64 px, what `_make_plausible` makes of them included
_UNCODED = frozenset(
    {
        "freckled",
        "back_grid",
        "skin_grain",
        "back_stripes",
        "back_line_contrast",
        "lip_upper",
        "iris_radius",
        "back_hue_shift",
        "lip_lower",
        "back_line_angle",
        "back_line_3",
        "iris_tone",
        "ear_size",
        "glasses_round",
        "eye_height",
        "gaze_y",
        "glasses_rim",
        "glasses_width",
        "eye_width",
        "squint",
        "smirk",
        "mouth_width",
        "back_focus",
    }
)
CODED: tuple[str, ...] = tuple(name for name in RANGES if name not in _UNCODED)


def sample_parameters(seed: int, indices: Sequence[int]) -> Parameters:
    """The parameters of the images `indices` of the set `seed`: name -> float32 (B,).

    Every value is a hash of (seed, index, name). So an image does not depend on its batch, and a parameter
    added later leaves the others as they are.

    Raises:
        UserError: a negative seed or index, or no index at all.
    """
    image = _hash(seed, indices)
    values = {name: bounds(_uniform(image, name)) for name, bounds in RANGES.items()}
    _make_plausible(values)
    return {name: torch.from_numpy(value.astype(np.float32)) for name, value in values.items()}


def sample_codes(seed: int, indices: Sequence[int]) -> Tensor:
    """What `sample_parameters` drew for `CODED`, as standard normal numbers: float32 (B, len(CODED)).

    Raises:
        UserError: a negative seed or index, or no index at all.
    """
    image = _hash(seed, indices)
    uniform = np.stack([_uniform(image, name) for name in CODED], axis=1)
    smallest = 2.0**-53
    return torch.special.ndtri(torch.from_numpy(uniform.clip(smallest, 1.0 - smallest))).float()


def counterfactual(parameters: Parameters, **changes: float | Tensor) -> Parameters:
    """The same portraits with other values: `counterfactual(p, yaw=-20.0, smile=1.0)`.

    Args:
        changes: a number each, or one value per image (B,)

    Raises:
        UserError: an unknown name, a value outside the parameter's range or a tensor of another length.
    """
    return parameters | {name: _column(parameters, name, value) for name, value in changes.items()}


def _column(parameters: Parameters, name: str, value: float | Tensor) -> Tensor:
    """The checked values of one parameter (B,)."""
    if name not in RANGES:
        near = difflib.get_close_matches(name, RANGES, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise UserError(f"portraits have no parameter {name!r}{hint}")
    reference = parameters["yaw"]
    column = torch.as_tensor(value, dtype=torch.float32, device=reference.device)
    if column.ndim > 1 or column.numel() not in (1, len(reference)):
        shape = tuple(column.shape)
        raise UserError(f"portraits: {name} needs a number or {len(reference)} values, got shape {shape}")
    low, high = RANGES[name].allowed or (RANGES[name].low, RANGES[name].high)
    if not bool(((column >= low) & (column <= high)).all()):
        first = column.flatten()[:4].tolist()
        raise UserError(f"portraits: {name} must lie in [{low:g}, {high:g}], got {first}")
    return column.expand(len(reference)).clone()


def _make_plausible(values: dict[str, np.ndarray]) -> None:
    """Tie together, in place, what goes together: hair, beard and make-up; old and sad are rarer."""
    years = (values["age"] - 18.0) / 62.0
    values["age"] = 18.0 + 62.0 * years * (0.45 + 0.55 * years)  # more young people than old
    gloom = 1.0 - values["smile"]
    values["smile"] = 1.0 - 0.5 * gloom * gloom  # more smiles than sad faces
    dark = np.clip(2.5 * values["skin_tone"] - 1.0, 0.0, 1.0)
    values["hair_tone"] = values["hair_tone"] * (1.0 - 0.75 * dark)  # dark skin, dark hair
    values["iris_tone"] = values["iris_tone"] * (1.0 - 0.8 * dark)
    style = values["makeup"].copy()  # 0 .. 1 decides on which side of the usual styles a person is
    values["makeup"] = np.maximum(style - 0.55, 0.0) / 0.45
    length = values["hair_length"]
    bulk = (values["hair_volume"] - 0.05) / 0.1
    curly = (style < 0.5) & (values["hair_wave"] > 0.6)
    values["hair_volume"] = 0.05 + 0.1 * bulk + np.where(curly, 0.12 * bulk, 0.0)  # curls stand off
    cropped = np.where(length < 0.14, 0.0, 0.16 + 0.22 * length)
    values["hair_length"] = np.where(style < 0.5, cropped, 0.3 + 0.7 * length)
    bearded = (style < 0.5) & (values["beard"] > 0.5)
    values["beard"] = np.where(bearded, 2.0 * values["beard"] - 1.0, 0.0) * 0.8 + 0.2 * bearded
    values["moustache"] = np.where((style < 0.5) & (values["moustache"] > 0.72), 1.0, values["beard"])
    muted = values["back_saturation"]
    values["back_saturation"] = 0.08 + 0.62 * muted * muted * muted  # mostly muted, some vivid


def _hash(seed: int, indices: Sequence[int]) -> np.ndarray:
    """Of every image, uint64 (B,). Raises `UserError`."""
    rows = np.asarray(indices, dtype=np.int64)
    if seed < 0 or rows.ndim != 1 or rows.size == 0 or rows.min() < 0:
        first = list(indices)[:4]
        raise UserError(
            f"portraits need a seed >= 0 and a list of indices >= 0, got seed {seed} and indices {first}"
        )
    return _mix(_mix(np.full(1, seed, np.uint64) + _GOLDEN) ^ rows.astype(np.uint64))


_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def _mix(x: np.ndarray) -> np.ndarray:
    """The finaliser of splitmix64 (Steele, Lea and Flood, OOPSLA 2014) on uint64, which wraps."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _uniform(image: np.ndarray, name: str) -> np.ndarray:
    """Uniform in [0, 1), the stream `name` of every image's hash."""
    digest = hashlib.blake2b(name.encode(), digest_size=8).digest()
    key = np.uint64(int.from_bytes(digest, "little"))
    bits = _mix(_mix(image ^ key) + _GOLDEN) >> np.uint64(11)
    return bits.astype(np.float64) * 2.0**-53
