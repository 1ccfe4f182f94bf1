"""Scorer.

A small network that reads the portraits' attributes off a picture, and the feature space in which portraits
are compared.

Source  A recipe of our own; the network is timm's ResNet-10-T.
Differs Narrow, and without the stem's pooling: at 64 px a mouth is a dozen pixels wide. Normalised over the
        batch and not over each image, since a distance has to see brightness and contrast; no augmentation,
        since it has to see colour and blur.
Shapes  images (B, 3, H, W) RGB in [-1, 1], reduced or enlarged to the scorer's size; attributes (B, A), A =
        len(ATTRIBUTES); embedding (B, D); the loss is a mean over B and A.
Raises  ValueError: a size that is no power of two from 16 on, a width below 4, images of another shape.
        UserError: no attributes.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from _runtime import UserError
from lightning_modules.base import Method, Outcome
from lightning_modules.collectives import mean_over_processes
from lightning_modules.optimizers import adam, cosine_decay

# In the order and units of a batch's "attributes": what counts as -1 and as 1
ATTRIBUTES: dict[str, tuple[float, float]] = {
    "yaw": (-40, 40),
    "pitch": (-20, 20),
    "roll": (-10, 10),
    "smile": (-1, 1),
    "age": (18, 80),
    "glasses": (0, 1),
    "mouth_open": (0, 1),
    "eye_open": (0.62, 1.12),
    "hair_length": (0, 1),
    "fringe": (0, 1),
    "beard": (0, 1),
    "hair_tone": (0, 1),
    "skin_tone": (0, 1),
    "light_azimuth": (-65, 65),
    "light_elevation": (-5, 55),
}
BINARY = ("glasses",)  # predicted as a probability
WARM_UP = 100  # iterations


class Scorer(Method):
    """min  mean over attributes of (a_hat - a)^2, each standardised to [-1, 1].

    Cross-entropy for the binary ones.

    Trains on rendered portraits only: photographs have no attributes.

    Args:
        size: width and height in pixels, a power of two, at which pictures are looked at.
        width: channels at the first of four resolutions; they double with each.
        embedding: width D of the embedding, low so that a few hundred images give a distance.
        lr: highest learning rate, after the warm-up and before it falls to zero along a cosine.
    """

    monitor = ("val/attribute_error", "min")
    strategy: ClassVar[str] = "ddp"
    one_piece = "it normalises over all images of a batch"
    compiled: ClassVar[tuple[str, ...]] = ("net",)

    def __init__(self, *, size: int = 64, width: int = 16, embedding: int = 64, lr: float = 8e-3) -> None:
        super().__init__()
        self.save_hyperparameters()  # plain values, so the file alone rebuilds the method
        self.size, self.lr = size, lr
        self.net = AttributeNetwork(size, width, embedding)

    def check_batch(self, images: int) -> None:
        if images < 2:
            few = "--data.batch_size leaves 1 image per process"
            raise UserError(f"{few}: the scorer normalises over them, choose at least 2 for each")

    def embed(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1] -> embedding (B, D)."""
        return self.net.embed(images)

    def predict(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1] -> attributes (B, A), as in ATTRIBUTES; binary ones as probabilities."""
        return self.net.natural(self.net(images))

    def forward(self, images: Tensor) -> Tensor:
        return self.predict(images)

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        predicted, true = self.net(batch["target"]), attributes_of(batch)
        squares = (predicted - self.net.standardised(true)).square()
        cross_entropy = F.binary_cross_entropy_with_logits(predicted, true, reduction="none")
        terms = {
            "mse": torch.where(self.net.binary, 0, squares).mean(),
            "bce": torch.where(self.net.binary, cross_entropy, 0).mean(),
        }
        (optimizer,) = self.players
        self.descend(optimizer, terms["mse"] + terms["bce"])
        for name, statistic in self.net.named_buffers():  # each process has seen images of its own
            if "running" in name:
                statistic.copy_(mean_over_processes(statistic))
        self.log_terms(terms)

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> Outcome:
        return Outcome(scores=errors(self.predict(batch["target"]), attributes_of(batch)))

    def predict_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """The attributes (B, A), as `predict`."""
        return self.predict(batch["target"])

    def lr_factor(self) -> float:
        return min(1.0, self.iteration / WARM_UP) * cosine_decay(self.progress)

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        return [adam(self.net.parameters(), torch.optim.AdamW, lr=self.lr, weight_decay=0.05)]

    def pictures(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """The images, and below each the one of the others whose embedding is nearest."""
        embedded = self.embed(batch["target"])
        apart = torch.cdist(embedded, embedded).fill_diagonal_(torch.inf)
        return {"image": batch["target"], "nearest": batch["target"][apart.argmin(1)]}


class AttributeNetwork(nn.Module):
    """images (B, 3, H, W) in [-1, 1] -> attributes (B, A), standardised, or where binary as logits.

    The embedding is linear in the last features; a nonlinearity between it and the attributes leaves no
    direction of it without a use.
    """

    low: Tensor
    high: Tensor
    binary: Tensor

    def __init__(self, size: int, width: int, embedding: int) -> None:
        super().__init__()
        if size < 16 or size & (size - 1):
            raise ValueError(f"size {size}: expected a power of two from 16 on, e.g. 64")
        if width < 4 or embedding < 1:
            raise ValueError(f"width {width}, embedding {embedding}: expected at least 4 and 1")
        import timm  # takes a second or two, for which the other methods' commands need not wait

        self.size = size
        # the features are averaged in a grid of 2 x 2 cells: where something is, is half of a pose
        self.cells = min(2, size // 16)
        channels = tuple(width * 2**i for i in range(4))
        self.backbone = timm.create_model(
            "resnet10t",
            num_classes=0,
            global_pool="",
            stem_width=width,
            channels=channels,
            zero_init_last=False,
        )
        self.backbone.maxpool = nn.Identity()
        self.to_embedding = nn.Linear(channels[-1] * self.cells**2, embedding)
        self.to_attributes = nn.Linear(embedding, len(ATTRIBUTES))
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # a third faster on a processor
        low, high = torch.tensor(list(ATTRIBUTES.values())).unbind(1)
        self.register_buffer("low", low)  # part of a checkpoint, as the weights are of these units
        self.register_buffer("high", high)
        self.register_buffer("binary", torch.tensor([name in BINARY for name in ATTRIBUTES]))

    def embed(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1], of any size -> embedding (B, D)."""
        if images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(f"expected images in [-1, 1] as (B, 3, H, W), got {tuple(images.shape)}")
        if images.shape[2:] != (self.size, self.size):
            images = F.interpolate(images, (self.size, self.size), mode="bilinear", antialias=True)
        features = self.backbone(images.contiguous(memory_format=torch.channels_last))
        features = F.avg_pool2d(features, features.shape[-1] // self.cells)
        return self.to_embedding(features.flatten(1))

    def forward(self, images: Tensor) -> Tensor:
        return self.to_attributes(F.gelu(self.embed(images)))

    def standardised(self, attributes: Tensor) -> Tensor:
        """(B, A) in natural units -> the same in units of half their ranges, 0 in the middle."""
        return (attributes - self.low) / (self.high - self.low) * 2 - 1

    def natural(self, predicted: Tensor) -> Tensor:
        """What `forward` gives -> (B, A) in natural units, binary ones as probabilities."""
        linear = self.low + (predicted + 1) / 2 * (self.high - self.low)
        return torch.where(self.binary, predicted.sigmoid(), linear)


def attributes_of(batch: dict[str, Any]) -> Tensor:
    """The batch's attributes (B, A); `UserError` where the data have none."""
    if "attributes" not in batch:
        what = "scorer learns the attributes of rendered portraits, photographs have none"
        raise UserError(f"{what}: leave out --data.root and --data.val_root")
    return batch["attributes"]


def errors(predicted: Tensor, true: Tensor) -> dict[str, Tensor]:
    """Two (B, A) in natural units -> per image (B,) `mae_<attribute>` and `attribute_error`.

    The latter is their mean in shares of their ranges.
    """
    apart = (predicted - true).abs()
    ranges = apart.new_tensor([high - low for low, high in ATTRIBUTES.values()])
    scores = {"attribute_error": (apart / ranges).mean(1)}
    for name, column in zip(ATTRIBUTES, apart.T, strict=True):
        scores[f"mae_{name}"] = column
    return scores
