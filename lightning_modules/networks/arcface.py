"""The network that recognises a face's identity: ArcFace on IR-SE50.

Source  Deng et al., "ArcFace", arXiv:1801.07698, as trained by TreB1eN/InsightFace_Pytorch and used in
        omertov/encoder4editing@99ea505 (models/encoders/model_irse.py, criteria/id_loss.py). Parameters have
        the released names.
Shapes  images (B, 3, S, S) RGB in [-1, 1], faces aligned as in FFHQ -> embeddings (B, 512) of length 1.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from lightning_modules.networks.e4e import IRSE
from lightning_modules.networks.encoders import BatchNorm
from lightning_modules.networks.ops import area_means

FACE = 112  # pixels
ROWS, COLUMNS = (35, 223), (32, 220)  # of a 256-pixel image


class ArcFace(IRSE):
    """IR-SE50 on the inner face, then BatchNorm, dropout, a linear layer and BatchNorm."""

    def __init__(self) -> None:
        super().__init__()
        side = FACE // 16
        self.output_layer = nn.Sequential(
            BatchNorm(512), nn.Dropout(0.6), nn.Flatten(), nn.Linear(512 * side**2, 512), nn.BatchNorm1d(512)
        )

    def embed(self, face: Tensor) -> Tensor:
        """A face alone, (B, 3, 112, 112) -> (B, 512)."""
        return F.normalize(self.output_layer(self.features(face)[-1]))

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, S, S) -> (B, 512)."""
        return self.embed(crop_face(x))


def crop_face(x: Tensor) -> Tensor:
    """The inner face of FFHQ-aligned images, (B, 3, S, S) -> (B, 3, 112, 112).

    Rows 35..222, columns 32..219 at 256 pixels.

    Raises:
        ValueError: the images are not square.
    """
    size = x.shape[-1]
    if x.ndim != 4 or x.shape[2] != size:
        raise ValueError(f"expected aligned faces (B, 3, S, S), got {tuple(x.shape)}")
    top, bottom = (round(edge * size / 256) for edge in ROWS)
    left, right = (round(edge * size / 256) for edge in COLUMNS)
    return area_means(x[:, :, top:bottom, left:right], FACE)
