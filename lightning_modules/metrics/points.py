"""LMD: how far the landmarks of a result lie from those of the truth; lower is better.

Source  VQFR (Gu et al., arXiv:2205.06803) and PMRF: the mean Euclidean distance in pixels of 512, of the 98
        points of WFLW that a stacked hourglass network finds.
Differs Between points that files give, whichever detector found them: no network is part of this suite.
        Figures compare with published ones only where the points are of the same detector.
Shapes  points, truth (N, P, 2) in pixels of images `size` wide;  one value per image (N,).
Raises  ValueError: the shapes differ or are not (N, P, 2).
"""

from __future__ import annotations

from torch import Tensor

SIZE = 512  # pixels of the images that distances are told in
PROTOCOL = (
    "lmd-v1: mean Euclidean distance of landmarks, which files give, in pixels of 512; comparable where one "
    "detector found them; plain mean over images"
)


def landmark_distance(points: Tensor, truth: Tensor, size: int) -> Tensor:
    """Mean over an image's landmarks of their distance.

    >>> import torch
    >>> truth = torch.zeros(1, 2, 2)
    >>> landmark_distance(truth + torch.tensor([3.0, 4.0]), truth, 256)
    tensor([10.])
    """
    if points.ndim != 3 or points.shape[2] != 2 or points.shape != truth.shape:
        got = f"{tuple(points.shape)} and {tuple(truth.shape)}"
        raise ValueError(f"expected points and truth of one shape (N, P, 2), got {got}")
    return (points - truth).norm(dim=2).mean(1) * (SIZE / size)
