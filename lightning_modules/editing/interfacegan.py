"""InterFaceGAN: the direction of an attribute is the normal of a linear SVM.

It stands between the codes that score highest and lowest.

Source  Shen et al., "Interpreting the Latent Space of GANs for Semantic Face Editing", arXiv:1907.10786;
        procedure and defaults as in genforce/interfacegan@8da3fc0 (utils/manipulator.py, train_boundary.py).
Differs the split into training and validation comes from a numpy Generator of its own in place of numpy's
        global one, so other codes are held out under the same seed; with split 1 none are, and the result is
        the released one. A ratio and a count are two arguments. Extremes that meet in one score are an error:
        their labels would follow from the order of the samples.
Shapes  codes (N, D), drawn from the generator's own distribution (of z or w; not inverted photographs);
        scores (N,), higher for more of the attribute, best as logits: sigmoids saturate.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from sklearn.svm import SVC
from torch import Tensor

from _runtime import UserError


class Boundary(NamedTuple):
    """What `find_boundary` found.

    Attributes:
        direction: unit normal of the hyperplane, (1, D) float32 on the CPU, towards high scores.
        validation: accuracy in [0, 1] on the extremes that were held out; None where none were (split 1).
        rest: accuracy on all codes between the extremes, labelled by score >= (max + min) / 2; None where
            there are none. The honest one.
    """

    direction: Tensor
    validation: float | None
    rest: float | None


def find_boundary(
    codes: Tensor,
    scores: Tensor,
    *,
    ratio: float = 0.02,
    count: int | None = None,
    split: float = 0.7,
    invalid: float | None = None,
    seed: int = 0,
) -> Boundary:
    """Train the SVM (hinge loss, C = 1, intercept not regularised) on the extremes of `scores`.

    The k highest are positive, the k lowest negative, k = int(ratio N) and at most N // 2; of both,
    int(split k) train and the others validate. N counts the scores that are left when `invalid` ones are
    gone.

    Args:
        codes: (N, D).
        scores: (N,) of the same samples.
        ratio: part of the samples taken at either end, in (0, 0.5]; larger ones count as 0.5.
        count: their number, in place of the ratio.
        split: part of the extremes that trains, in (0, 1].
        invalid: the score that stands for a failed measurement; such samples are left out.
        seed: of the split.

    Raises:
        UserError: a score is not finite, ratio, count or split leave nothing to train on, or the extremes
            meet in one score.
        ValueError: codes are not (N, D), or scores not (N,).
    """
    x, y = _by_falling_score(codes, scores, invalid)
    n = len(y)
    k = min(int(n * ratio) if count is None else count, n // 2)
    train = int(k * split)
    if k < 1 or not 1 <= train <= k:
        chosen = f"ratio {ratio}" if count is None else f"count {count}"
        raise UserError(
            f"{chosen} of {n} scores and split {split} leave no sample to train on: "
            "expected more samples, split in (0, 1]"
        )
    if y[k - 1] == y[-k]:
        raise UserError(
            f"the {k} highest and the {k} lowest of {n} scores meet in {y[-k]:g}: "
            "choose fewer, or score with logits"
        )

    rng = np.random.default_rng(seed)
    positives, negatives = rng.permutation(x[:k]), rng.permutation(x[-k:])
    svm = SVC(kernel="linear")
    svm.fit(np.concatenate([positives[:train], negatives[:train]]), np.repeat([1, 0], train))
    normal = torch.tensor(svm.coef_)  # (1, D), towards label 1
    held_out = np.concatenate([positives[train:], negatives[train:]])
    return Boundary(
        direction=(normal / normal.norm()).float(),
        validation=_accuracy(svm, held_out, np.repeat([1, 0], k - train)),
        rest=_accuracy(svm, x[k:-k], y[k:-k] >= (y[0] + y[-1]) / 2),
    )


def _by_falling_score(codes: Tensor, scores: Tensor, invalid: float | None) -> tuple[np.ndarray, np.ndarray]:
    """Codes and scores in float64, without the invalid ones. Raises as `find_boundary`."""
    if codes.ndim != 2 or scores.shape != codes.shape[:1]:
        got = f"{tuple(codes.shape)} and {tuple(scores.shape)}"
        raise ValueError(f"expected codes as (N, D) and scores as (N,), got {got}")
    x = codes.detach().cpu().double().numpy()
    y = scores.detach().cpu().double().numpy()
    if invalid is not None:
        valid = y != scores.new_tensor(invalid).item()  # rounded as the scores are
        x, y = x[valid], y[valid]
    failed = int((~np.isfinite(y)).sum())
    if failed:
        raise UserError(
            f"{failed} of {len(y)} scores are NaN or infinite: mark failed measurements by `invalid`"
        )
    order = np.argsort(-y, kind="stable")
    return x[order], y[order]


def _accuracy(svm: SVC, x: np.ndarray, label: np.ndarray) -> float | None:
    """The share of codes (N, D) on the right side; None where there are none."""
    if not len(x):
        return None
    return float((svm.predict(x) == label).mean())


def find_boundaries(
    codes: Tensor, scores: Mapping[str, Tensor], *, ratio: float, seed: int
) -> dict[str, Boundary]:
    """The boundary of each attribute between the codes that have a score of it.

    Where an attribute has but two values, all codes with the rarer one train, against as many others; the
    ratio holds for all other attributes.

    Args:
        codes: (N, D).
        scores: attribute -> (N,), NaN where there is none.
        ratio, seed: as in `find_boundary`.

    Raises:
        UserError: as `find_boundary`, with the attribute's name.
    """
    boundaries = {}
    for name, column in scores.items():
        there = ~column.isnan()
        given = column[there]
        values, counts = given.unique(return_counts=True)
        rarer = int(counts.min()) if len(values) == 2 else None
        try:
            boundaries[name] = find_boundary(codes[there], given, ratio=ratio, count=rarer, seed=seed)
        except UserError as error:
            raise UserError(f"{name}: {error}") from error
    return boundaries


def project(direction: Tensor, conditions: Tensor) -> Tensor:
    """Conditional manipulation: the part of a direction (1, D) orthogonal to all conditions (K, D).

    A unit vector (1, D). It is orthogonal to their span, so to all of them at once: to take them off one
    after the other would be wrong where they are not orthogonal to each other. They may be of any length, and
    dependent.

    Raises:
        UserError: nothing is left, the direction lies in their span.
        ValueError: shapes other than these.
    """
    width = direction.shape[-1]
    if direction.shape != (1, width) or conditions.ndim != 2 or conditions.shape[1] != width:
        got = f"{tuple(direction.shape)} and {tuple(conditions.shape)}"
        raise ValueError(f"expected (1, D) and conditions (K, D), got {got}")
    n, c = direction.detach().cpu().double(), conditions.detach().cpu().double()
    rest = n - torch.linalg.lstsq(c.T, n.T, driver="gelsd").solution.T @ c
    if rest.norm() <= 1e-6 * n.norm():
        raise UserError(
            "the direction lies in the span of its conditions: without them nothing of it is left"
        )
    return (rest / rest.norm()).to(direction)
