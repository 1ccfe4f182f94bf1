"""Parser: the parts of a face, a class for every pixel.

Source  Yu et al., "BiSeNet", arXiv:1808.00897; classes of CelebAMask-HQ, Lee et al., arXiv:1907.11922; loss,
        optimizer, rates and length as in zllrunning/face-parsing.PyTorch@d2e684c (train.py, optimizer.py).
Differs Trains on whole faces: no crops of 448 pixels, no random scales, no changes of colour. Mirrored faces
        have their left and right parts exchanged, which the release does not do. Several processes average
        their running statistics, and count their hard pixels together.
Shapes  images (B, 3, H, W) RGB in [-1, 1], brought to `seen_at` px; mask, labels (B, H, W), indices of
        `networks/regions.LABELS`; scores (B, C, H, W) at the images' size.
Raises  ValueError: images of another shape, sizes that the network cannot take.
        UserError: no masks.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from _runtime import UserError
from lightning_modules import weights
from lightning_modules.base import Method, Outcome
from lightning_modules.checkpoints import load_weights
from lightning_modules.collectives import mean_over_processes
from lightning_modules.losses.segmentation import HardCrossEntropy
from lightning_modules.networks.bisenet import LEAST, BiSeNet
from lightning_modules.networks.ops import area_means
from lightning_modules.networks.regions import LABELS

BACKBONE = "parser/resnet18"
TERMS = ("ce", "ce_16", "ce_32")  # the losses of the network's scores
COLOURS = (  # of the classes in pictures, RGB of 8 bits; left and right alike
    (32, 32, 32), (240, 190, 150), (120, 70, 30), (120, 70, 30), (40, 120, 255), (40, 120, 255),
    (0, 220, 220), (220, 120, 160), (220, 120, 160), (255, 215, 0), (255, 150, 80), (110, 0, 40),
    (230, 60, 60), (200, 30, 90), (190, 150, 110), (255, 170, 220), (90, 160, 70), (140, 60, 190),
    (250, 250, 120),
)  # fmt: skip


class Parser(Method):
    """min  L(scores, mask) + L(scores_16, mask) + L(scores_32, mask), cross-entropy over the hard pixels.

    The release was trained with the defaults: batch 16, 80,000 iterations, images of 512 px.

    Args:
        size: width and height of the images, in pixels.
        seen_at: width and height at which the network sees them, a multiple of 32; it decides in eighths of
            these pixels, so small images are enlarged.
        width: channels of the network's first stage; 64 as released.
        start: of the ResNet: `imagenet`, or `scratch` for random weights.
        lr: highest learning rate of the context path; the heads' is ten times as high.
        lr_start: learning rate of the first iteration, from which it rises geometrically.
        warm_up: iterations until it is `lr`; then it falls to 0 by a power of 0.9.
    """

    monitor = ("val/miou", "max")
    strategy: ClassVar[str] = "ddp"
    one_piece = "it normalises over all images of a batch, and chooses the hardest of their pixels"
    needs_masks: ClassVar[bool] = True
    compiled: ClassVar[tuple[str, ...]] = ("net",)
    MOMENTUM, WEIGHT_DECAY = 0.9, 5e-4
    POWER = 0.9
    HEADS = 10  # times as fast
    colours: Tensor

    def __init__(
        self,
        *,
        size: int = 512,
        seen_at: int = 512,
        width: int = 64,
        start: Literal["imagenet", "scratch"] = "imagenet",
        lr: float = 1e-2,
        lr_start: float = 1e-5,
        warm_up: int = 1000,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()  # plain values, so the file alone rebuilds the method
        if seen_at < LEAST or seen_at % LEAST:
            raise ValueError(f"seen_at {seen_at}: expected a multiple of {LEAST}, e.g. 512")
        self.size, self.seen_at, self.width, self.start = size, seen_at, width, start
        self.lr, self.lr_start, self.warm_up = lr, lr_start, warm_up
        self.net = BiSeNet(len(LABELS), width)
        self.L = HardCrossEntropy()
        colours = torch.tensor(COLOURS) / 127.5 - 1
        self.register_buffer("colours", colours, persistent=False)

    # --- what a run starts from ---------------------------------------------------------------------

    def check_start(self) -> None:
        if self.start == "scratch":
            return
        if self.width != 64:
            what = f"--model.start imagenet has 64 channels, --model.width is {self.width}"
            raise UserError(f"{what}: give --model.start scratch")
        weights.find(BACKBONE)

    def initialise(self) -> None:
        if self.start == "scratch":
            return
        state = weights.read(BACKBONE)
        trunk = {name: value for name, value in state.items() if not name.startswith("fc.")}
        load_weights(self.net.cp.resnet, trunk, f"--model.start imagenet: weights {BACKBONE!r}")

    def check_batch(self, images: int) -> None:
        if images < 2:
            few = "--data.batch_size leaves 1 image per process"
            raise UserError(f"{few}: the parser normalises over them, choose at least 2 for each")

    # --- inference ----------------------------------------------------------------------------------

    def parse(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1], of any size -> scores of the classes (B, C, H, W), before the softmax."""
        return self._heads(images, auxiliary=False)[0]

    def label(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1] -> each pixel's class (B, H, W)."""
        return self.parse(images).argmax(1)

    def scores(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1] -> scores (B, C, S, S) at the size at which the network sees them."""
        return self.net(self._looked_at(images), auxiliary=False)[0]

    def forward(self, images: Tensor) -> Tensor:
        return self.parse(images)

    def _looked_at(self, images: Tensor) -> Tensor:
        """Images in [0, 1] at the network's size."""
        if images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(f"expected images in [-1, 1] as (B, 3, H, W), got {tuple(images.shape)}")
        seen, side = images / 2 + 0.5, self.seen_at
        if seen.shape[2:] == (side, side):
            return seen
        if min(seen.shape[2:]) > side:
            return area_means(seen, side)
        return F.interpolate(seen, (side, side), mode="bilinear")

    def _heads(self, images: Tensor, *, auxiliary: bool) -> tuple[Tensor, ...]:
        """The network's scores at the size of the images, the auxiliary ones after the result."""
        seen = self._looked_at(images)
        height, width = images.shape[2:]
        means_at = width if height == width < self.seen_at else None
        heads = self.net(seen, means_at, auxiliary=auxiliary)
        if heads[0].shape[2:] == (height, width):
            return heads
        return tuple(F.interpolate(scores, (height, width), mode="bilinear") for scores in heads)

    # --- training -----------------------------------------------------------------------------------

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        images, mask = batch["target"], mask_of(batch)
        heads = self._heads(images, auxiliary=True)
        terms = {name: self.L(scores, mask) for name, scores in zip(TERMS, heads, strict=True)}
        (optimizer,) = self.players
        self.descend(optimizer, torch.stack(list(terms.values())).sum())
        for name, statistic in self.net.named_buffers():  # each process has seen images of its own
            if "running" in name:
                statistic.copy_(mean_over_processes(statistic))
        self.log_terms(terms)

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> Outcome:
        """The classes, and the share of the pixels of each image that they are right for."""
        true, found = mask_of(batch).long(), self.label(batch["target"])
        right = (found == true).flatten(1).to(batch["target"].dtype).mean(1)
        return Outcome(scores={"pixel_accuracy": right}, labels=(found, true), classes=len(LABELS))

    def predict_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """The scores (B, C, H, W), as `parse`."""
        return self.parse(batch["target"])

    def lr_factor(self) -> float:
        done, total = self.iteration - 1, self.total_iterations
        if done <= self.warm_up:
            begin = self.lr_start / self.lr
            return begin ** (1 - done / self.warm_up) if self.warm_up else 1.0
        if total is None or total <= self.warm_up:
            return 1.0
        return max(0.0, 1 - (done - self.warm_up) / (total - self.warm_up)) ** self.POWER

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        """SGD. Biases and the weights of normalisations do not decay."""
        heads = [parameter for head in self.net.heads() for parameter in head.parameters()]
        groups = []
        for parameters, lr in ((list(self.net.cp.parameters()), self.lr), (heads, self.HEADS * self.lr)):
            kernels = [parameter for parameter in parameters if parameter.ndim == 4]
            others = [parameter for parameter in parameters if parameter.ndim != 4]
            groups.append({"params": kernels, "lr": lr, "weight_decay": self.WEIGHT_DECAY})
            groups.append({"params": others, "lr": lr, "weight_decay": 0.0})
        return [torch.optim.SGD(groups, lr=self.lr, momentum=self.MOMENTUM)]

    def pictures(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """The images, their parsing, and where it is known the true one."""
        rows = {"image": batch["target"], "parsed": self.coloured(self.label(batch["target"]))}
        if "mask" in batch:
            rows["mask"] = self.coloured(batch["mask"])
        return rows

    def coloured(self, labels: Tensor) -> Tensor:
        """Labels (B, H, W) -> a picture of them, (B, 3, H, W) in [-1, 1]."""
        return self.colours[labels.long()].permute(0, 3, 1, 2)


def mask_of(batch: dict[str, Any]) -> Tensor:
    """The batch's masks (B, H, W); `UserError` where the data have none."""
    if "mask" not in batch:
        what = "the parser learns from masks, which these photographs come without"
        raise UserError(f"{what}: give --data.masks DIR_OR_ZIP, or leave out --data.root for portraits")
    return batch["mask"]
