"""Facial components: where eyes and mouth are, crops of them, and how alike their textures are.

Source  Wang et al., arXiv:2101.04061, section 3.5; TencentARC/GFPGAN@7552a77
        (gfpgan/models/gfpgan_model.py, gfpgan/data/ffhq_degradation_dataset.py); RoIAlign: He et al., "Mask
        R-CNN", arXiv:1703.06870, section 3, as torchvision has it (not `aligned`).
Differs Half lengths made of landmarks are ours: a mouth reaches from corner to corner, an eye is about
        half as long as the eyes are apart. Sizes of crops scale with size / 512, coordinates are pixels of
        the image at hand: the release scales them by whole factors, and has empty crops below 512 px.
Shapes  image (B, 3, S, S); landmarks (B, 5, 2): left eye, right eye, nose, left and right corner of the
        mouth, x and y in pixels, left and right as in the picture; components (B, 3, 3): x, y of the centre
        and half length of left eye, right eye, mouth; boxes (B, 3, 4): left, top, right, bottom.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_modules.losses.perceptual import gram
from lightning_modules.networks.ops import at_least_float32, full_precision

REFERENCE = 512  # pixels that the release's sizes belong to
CROPS = {"left_eye": 80, "right_eye": 80, "mouth": 120}  # pixels of a crop
ENLARGED = (1.4, 1.4, 1.0)  # boxes of the eyes
SMALLEST_CROP = 8  # pixels: the discriminators halve it twice
SMALLEST_HALF = 16  # pixels of a half length
EYE = 0.24  # half an eye, as a share of the distance between the eyes


def components_of(landmarks: Tensor, size: int) -> Tensor:
    """Centres and half lengths (B, 3, 3) from five landmarks (B, 5, 2) in an image of `size` pixels."""
    left, right, _, left_corner, right_corner = landmarks.unbind(1)
    eye = EYE * torch.linalg.vector_norm(right - left, dim=1)
    mouth = torch.linalg.vector_norm(right_corner - left_corner, dim=1) / 2
    centres = torch.stack([left, right, (left_corner + right_corner) / 2], dim=1)
    halves = torch.stack([eye, eye, mouth], dim=1).clamp(min=SMALLEST_HALF * size / REFERENCE)
    return torch.cat([centres, halves[..., None]], dim=2)


def boxes_of(components: Tensor) -> Tensor:
    """Centres and half lengths (B, 3, 3) -> boxes (B, 3, 4), those of the eyes 1.4 times as large."""
    x, y, half = components.unbind(2)
    half = torch.stack([part * share for part, share in zip(half.unbind(1), ENLARGED, strict=True)], dim=1)
    return torch.stack([x - half + 1, y - half + 1, x + half, y + half], dim=2)


def crop_sizes(size: int) -> dict[str, int]:
    """Side of each component's crop of images of `size` pixels: even, and 80, 80 and 120 at 512 px."""
    sides = {}
    for name, side in CROPS.items():
        scaled = side * size / REFERENCE
        sides[name] = max(SMALLEST_CROP, 2 * round(scaled / 2))
    return sides


def crop_components(image: Tensor, boxes: Tensor) -> dict[str, Tensor]:
    """Crops of eyes and mouth by name, (B, 3, h, h) each, h as `crop_sizes` says."""
    crops = {}
    for (name, side), box in zip(crop_sizes(image.shape[-1]).items(), boxes.unbind(1), strict=True):
        crops[name] = roi_align(image, box, side)
    return crops


def roi_align(image: Tensor, box: Tensor, side: int) -> Tensor:
    """One box of each image, (B, C, H, W) and (B, 4) -> (B, C, side, side), by means of bilinear samples.

    Along each axis a pixel of the crop is a weighted sum of the image's pixels, so the crop is a product of
    three matrices: nothing waits for the boxes' values, and gradients are added up in a fixed order.
    """
    with full_precision(image):
        wide, box = at_least_float32(image), at_least_float32(box)
        left, top, right, bottom = box.unbind(1)
        rows = _samples(top, bottom, image.shape[2], side)
        columns = _samples(left, right, image.shape[3], side)
        return (rows[:, None] @ wide @ columns.transpose(1, 2)[:, None]).to(image.dtype)


def _samples(start: Tensor, end: Tensor, pixels: int, side: int) -> Tensor:
    """What each of `pixels` counts in each of `side` means from `start` (B,) to `end`, (B, side, pixels).

    A mean is over ceil(length / side) samples. Beyond the image's edge samples are the edge's, and zero from
    one pixel beyond on.
    """
    length = (end - start).clamp(min=1)[:, None, None]
    count = (length / side).ceil()
    most = max(1, -(-2 * pixels // side))  # samples: of a box that is twice as large as the image
    device = start.device
    cell = torch.arange(side, device=device, dtype=start.dtype)[:, None]
    sample = torch.arange(most, device=device, dtype=start.dtype)
    position = start[:, None, None] + (cell + (sample + 0.5) / count) * length / side
    counts = (sample < count) & (position >= -1) & (position <= pixels)
    position = position.clamp(0, pixels - 1)
    pixel = torch.arange(pixels, device=device, dtype=start.dtype)
    near = (1 - (position[..., None] - pixel).abs()).clamp(min=0)
    return (near * (counts / count)[..., None]).sum(dim=2)


class ComponentStyle(nn.Module):
    """L_1 of Gram matrices of a component discriminator's features, half of it for the finer layer.

    No gradient flows through the target's.
    """

    layers = (0.5, 1.0)

    def forward(self, restored: Sequence[Tensor], target: Sequence[Tensor]) -> Tensor:
        """Features (B, C, h, w) per layer (`ComponentDiscriminator.features`) -> the mean over B."""
        terms = []
        for weight, f_hat, f in zip(self.layers, restored, target, strict=True):
            terms.append(weight * F.l1_loss(gram(f_hat), gram(f.detach())))
        return torch.stack(terms).sum()
