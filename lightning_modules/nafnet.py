"""NAFNet: regression with a U-Net that has no nonlinear activations.

Source  Chen, Chu, Zhang, Sun, "Simple Baselines for Image Restoration", arXiv:2204.04676; TLC: Chu et al.,
        arXiv:2112.04491. Loss, optimizer, schedule and clipping as in megvii-research/NAFNet@2b4af71
        (options/train, image_restoration_model.py), with which the released weights were trained; the paper
        words weight decay and schedule differently.
Differs Trains on whole faces at `size`, not on random crops of larger images; flips as in the datamodule, no
transposes.
Shapes  input, target, x_hat (B, 3, H, W) RGB in [-1, 1]; `restore` takes any size; the loss is a mean over B.
Raises  ValueError: block counts of unequal length, or images of another shape.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from lightning_modules.base import Restorer
from lightning_modules.losses.psnr import PSNRLoss
from lightning_modules.networks.nafnet import NAFNetwork
from lightning_modules.optimizers import adam, clip_norm, cosine_decay


class NAFNet(Restorer):
    """min  10 log10( ||x_hat - target||^2 + 1e-8 ), images in [0, 1].

    Published: widths 32 and 64; GoPro and REDS with blocks 1, 1, 1, 28 - 1 - 1, 1, 1, 1; SIDD with 2, 2, 4, 8
        - 12 - 2, 2, 2, 2 and no
    weight decay. Width 32: batch 32, 200,000 iterations; width 64: 64 and 400,000; with smaller batches the
    authors advise lower rates.

    Args:
        size: width and height of the training images in pixels.
        width: channels at full resolution; they double with each level.
        encoder_blocks: blocks per level, from full resolution down.
        middle_blocks: blocks at the lowest resolution.
        decoder_blocks: blocks per level, up to full resolution.
        tlc: test-time local conversion: channel attention sees 1.5 times `size` around each pixel instead of
            the whole image. It has no weights, and changes nothing up to 1.5 times `size`, training included.
        lr: learning rate at the start; it falls along a cosine.
        weight_decay: AdamW's, on all parameters.
    """

    any_size: ClassVar[bool] = True
    strategy: ClassVar[str] = "ddp"
    one_piece = ""
    batch_advice: ClassVar[str] = (
        "its authors: a quarter of the batch needs 4 to 8 times the iterations, and lower rates"
    )
    compiled: ClassVar[tuple[str, ...]] = ("net",)
    BETAS = (0.9, 0.9)
    LR_END = 1e-7
    CLIP = 0.01  # norm of the gradient

    def __init__(
        self,
        *,
        size: int = 256,
        width: int = 32,
        encoder_blocks: tuple[int, ...] = (1, 1, 1, 28),
        middle_blocks: int = 1,
        decoder_blocks: tuple[int, ...] = (1, 1, 1, 1),
        tlc: bool = False,
        lr: float = 1e-3,
        weight_decay: float = 1e-3,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()  # plain values, so the file alone rebuilds the method
        self.size, self.lr, self.weight_decay = size, lr, weight_decay
        self.net = NAFNetwork(
            width, encoder_blocks, middle_blocks, decoder_blocks, local=size if tlc else None
        )
        self.L = PSNRLoss()

    def restore(self, input: Tensor) -> Tensor:
        return 2 * self.net((input + 1) / 2) - 1

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        self.minimise(self._objective, batch)

    def _objective(self, batch: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        x, target = batch["input"] / 2 + 0.5, batch["target"] / 2 + 0.5  # [0, 1]
        loss = self.L(self.net(x), target)
        return loss, {"psnr_loss": loss}

    def lr_factor(self) -> float:
        return cosine_decay(self.progress, self.LR_END / self.lr)

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        options: dict[str, Any] = {"lr": self.lr, "betas": self.BETAS, "weight_decay": self.weight_decay}
        return [clip_norm(adam(self.net.parameters(), torch.optim.AdamW, **options), self.CLIP)]
