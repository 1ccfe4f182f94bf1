"""The loss of a class for every pixel, over the hardest of them.

Source  Shrivastava et al., "Training Region-based Object Detectors with Online Hard Example Mining",
        arXiv:1604.03540, as zllrunning/face-parsing.PyTorch@d2e684c (loss.py) has it.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_modules.collectives import mean_over_processes
from lightning_modules.networks.ops import at_least_float32


class HardCrossEntropy(nn.Module):
    """Mean of -log p over the pixels whose true class has a probability p below `likely`.

    It is over the hardest `share` of the batch's pixels at least. Each of several processes chooses among its
    own, as in the release; the mean is over what all have chosen.

    Args:
        likely: the probability from which a pixel is no longer hard.
        share: of a process's pixels.
    """

    def __init__(self, likely: float = 0.7, share: float = 1 / 16) -> None:
        super().__init__()
        self.limit, self.share = -math.log(likely), share

    def forward(self, scores: Tensor, labels: Tensor) -> Tensor:
        """scores (B, C, H, W) before the softmax, labels (B, H, W) -> a scalar."""
        if labels.shape != scores.shape[:1] + scores.shape[2:]:
            sides = f"{tuple(scores.shape)} and {tuple(labels.shape)}"
            raise ValueError(f"expected scores as (B, C, H, W) and labels as (B, H, W), got {sides}")
        # of a list of pixels: a GPU adds up the losses of images in any order
        pixels = at_least_float32(scores).permute(0, 2, 3, 1).flatten(0, 2)
        losses = F.cross_entropy(pixels, labels.flatten().long(), reduction="none")
        losses = losses.sort(descending=True).values
        rank = torch.arange(len(losses), device=losses.device)
        hard = (losses > self.limit) | (rank < int(self.share * len(losses)))
        count = mean_over_processes(hard.sum().to(losses.dtype))
        return torch.where(hard, losses, 0).sum() / count
