"""Features for a Frechet distance of faces without a download: of a scorer trained on the portraits.

Source  Heusel et al., arXiv:1706.08500, with the scorer's embedding (`--method scorer`) in place of
        Inception's pool3.
Shapes  images uint8 (B, 3, H, W) -> features float32 (B, D).
Raises  UserError: the file is not a checkpoint of ours, or not of a scorer.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from torch import Tensor, nn

from _runtime import UserError
from lightning_modules import embedded
from lightning_modules.methods import load_method
from lightning_modules.scorer import Scorer


class PortraitFeatures(nn.Module):
    """A trained scorer's embedding, frozen and always in evaluation mode; what a FID takes for its features.

    Args:
        checkpoint: file of a run of `--method scorer`, or `portraits/scorer`, which comes with the suite.

    Attributes:
        num_features: width D of the features.
        protocol: one line that says what the distance of these features is, and which file they are from.
    """

    def __init__(self, checkpoint: str | Path) -> None:
        super().__init__()
        # the weights drawn only to be replaced leave the run's random state as it is
        with torch.random.fork_rng([]):
            scorer, content = load_method(checkpoint)
        if not isinstance(scorer, Scorer):
            raise UserError(
                f"{checkpoint} is a checkpoint of {content['suite']['method']}, not of scorer: "
                "python -m experiments.fit --method scorer trains one"
            )
        self.network = scorer.net.requires_grad_(False)
        self.num_features = self.network.to_embedding.out_features
        file = embedded.find(checkpoint) if embedded.is_name(checkpoint) else Path(checkpoint)
        digest = hashlib.sha256(file.read_bytes()).hexdigest()[:12]
        self.protocol = (
            f"portraits-v1: fid_portraits is the Frechet distance in the embedding ({self.num_features}) of "
            f"the scorer with sha256 {digest}, 8-bit images brought to {self.network.size} px by an "
            "antialiased bilinear filter; compares with no other scorer's"
        )

    def train(self, mode: bool = True) -> PortraitFeatures:
        """Stays in evaluation mode, whatever its holder does: batches must not change what it measures."""
        return super().train(False)

    def forward(self, images: Tensor) -> Tensor:
        """uint8 (B, 3, H, W) -> (B, D)."""
        return self.network.embed(images / 127.5 - 1)
