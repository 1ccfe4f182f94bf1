"""HINet: regression with two U-Nets in sequence and half instance normalisation.

Source  Chen, Lu, Zhang, Chu, Chen, "HINet: Half Instance Normalization Network for Image Restoration",
        arXiv:2105.06086. Loss weights, optimizer, schedules and clipping as in megvii-model/HINet@4e72315
        (options/train, image_restoration_model.py), with which the released weights were trained.
Differs Trains on whole faces at `size`, not on random crops of larger images; flips as in the datamodule, no
        transposes. Restores the whole image, not tiles of 256 pixels: an image's own statistics are part of
        the result, so the two are different functions.
Shapes  input, target, x_hat (B, 3, H, W) RGB in [-1, 1]; `restore` takes any size; every loss is a mean over
        B.
Raises  ValueError: wf, depth or hin make no network, or images of another shape.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from lightning_modules.base import Restorer
from lightning_modules.losses.psnr import PSNRLoss
from lightning_modules.networks.hinet import HINetwork
from lightning_modules.optimizers import adam, clip_norm, cosine_decay


class HINet(Restorer):
    """min  L(out_1, target) + L(out_2, target), images in [0, 1].

    Out_s the image of stage s, L half the PSNR loss, or L1.

    Published: GoPro and REDS with the defaults; Rain13k with hin 0..4 and a warm-up of 10,000; SIDD with hin
        0..4, loss l1, beta2 0.999
    and lr_end 1e-6, at wf 64 and 32 (0.5x). All with batch 64 and 400,000 iterations; with smaller ones the
    authors advise lower rates.

    Args:
        size: width and height of the training images in pixels.
        wf: channels at full resolution; they double with each level.
        depth: number of levels.
        hin: first and last level with half instance normalisation.
        loss: `psnr` or `l1`.
        lr: learning rate at the start; it falls along a cosine to `lr_end`.
        lr_end: learning rate at the end of the run.
        warm_up: iterations in which the rate rises linearly to `lr`; the cosine goes on from what it has
            reached.
        beta2: Adam's beta2.
    """

    any_size: ClassVar[bool] = True
    strategy: ClassVar[str] = "ddp"
    one_piece = ""  # it normalises each image by itself
    batch_advice: ClassVar[str] = "its authors: lower rates with smaller batches"
    compiled: ClassVar[tuple[str, ...]] = ("net",)
    BETA1 = 0.9
    CLIP = 0.01  # norm of the gradient
    LOSSES: ClassVar[dict[str, tuple[float, type[nn.Module]]]] = {  # weight at each stage
        "psnr": (0.5, PSNRLoss),
        "l1": (1.0, nn.L1Loss),
    }

    def __init__(
        self,
        *,
        size: int = 256,
        wf: int = 64,
        depth: int = 5,
        hin: tuple[int, int] = (3, 4),
        loss: Literal["psnr", "l1"] = "psnr",
        lr: float = 2e-4,
        lr_end: float = 1e-7,
        warm_up: int = 0,
        beta2: float = 0.99,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()  # plain values, so the file alone rebuilds the method
        self.size, self.loss = size, loss
        self.lr, self.lr_end, self.warm_up, self.beta2 = lr, lr_end, warm_up, beta2
        self.net = HINetwork(wf, depth, hin)
        self.weight, kind = self.LOSSES[loss]
        self.L = kind()

    def restore(self, input: Tensor) -> Tensor:
        return 2 * self.net((input + 1) / 2)[1] - 1

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        self.minimise(self._objective, batch)

    def _objective(self, batch: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        x, target = batch["input"] / 2 + 0.5, batch["target"] / 2 + 0.5  # [0, 1]
        outputs = self.net(x)
        terms = {
            f"{self.loss}_loss_{stage}": self.L(out, target) for stage, out in enumerate(outputs, start=1)
        }
        return self.weight * torch.stack(list(terms.values())).sum(), terms

    def lr_factor(self) -> float:
        end, warm_up = self.lr_end / self.lr, self.warm_up
        if self.iteration < warm_up:
            return self.iteration / warm_up
        cosine = cosine_decay(self.progress, end)
        if warm_up < 2 or self.total_iterations is None:
            return cosine
        # the release's cosine multiplies the rate before: it knows nothing of the rate that a run without
        # warm-up would have
        reached = (warm_up - 1) / warm_up
        replaced = cosine_decay((warm_up - 2) / self.total_iterations, end)
        return end + (cosine - end) * (reached - end) / (replaced - end)

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        optimizer = adam(self.net.parameters(), lr=self.lr, betas=(self.BETA1, self.beta2))
        return [clip_norm(optimizer, self.CLIP)]
