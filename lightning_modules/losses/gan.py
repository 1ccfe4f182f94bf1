"""The losses of a GAN: two games, R1, path length, and feature matching in the discriminator.

Source  Goodfellow et al., arXiv:1406.2661 (non-saturating loss); Mescheder et al., arXiv:1801.04406 (R1);
        Huang et al., arXiv:2501.05441 (relativistic pairing, R2);
        Karras et al., arXiv:1912.04958, section 3.2 and appendix B (path length, lazy regularisation);
        Yang et al., arXiv:2105.06070 (feature matching of GPEN).

The weight stands outside, except R1's gamma / 2, which is part of its definition. R1 and path length run in
float32 or better also under autocast, and need the networks as they are: compiled ones cannot be
differentiated twice.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_modules.collectives import mean_over_processes
from lightning_modules.networks.ops import at_least_float32, full_precision


class NonSaturating(nn.Module):
    """D minimises softplus(-D(x)) + softplus(D(G(z))), G minimises softplus(-D(G(z))).

    Logits are of any shape, the losses means over all.
    """

    def d(self, real: Tensor, fake: Tensor) -> Tensor:
        return F.softplus(-real).mean() + F.softplus(fake).mean()

    def g(self, fake: Tensor) -> Tensor:
        return F.softplus(-fake).mean()


class RelativisticPairing(nn.Module):
    """D minimises softplus(D(G(z)) - D(x)), G softplus(D(x) - D(G(z))): which of a pair is the real one?

    Pairs are of one place in the batch. The source takes R1 and R2 with it (section 2, equations 2 to 4).
    """

    def d(self, real: Tensor, fake: Tensor) -> Tensor:
        return F.softplus(fake - real).mean()

    def g(self, real: Tensor, fake: Tensor) -> Tensor:
        return F.softplus(real - fake).mean()


class R1(nn.Module):
    """gamma / 2 * E ||grad_x D(x)||^2 on real images; R2 on samples, which it is given in their place."""

    def __init__(self, gamma: float = 10.0) -> None:
        super().__init__()
        self.gamma = gamma

    def forward(self, D: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        with full_precision(x):
            x = at_least_float32(x).detach().requires_grad_()
            (gradient,) = torch.autograd.grad(D(x).sum(), x, create_graph=True)
        return self.gamma / 2 * gradient.square().flatten(1).sum(dim=1).mean()


class PathLength(nn.Module):
    """E (|J_w^T y| - a)^2: a step in w of fixed length should change the image by a fixed amount.

    a is the running mean of the lengths, y is N(0, I) / sqrt(H W) in image space. The length of an image is
    the root of the mean over layers of ||J||^2. The mean is a buffer, so a resumed run continues with it; it
    is that of all processes, and gradients flow through its newest part.
    """

    mean: Tensor

    def __init__(self, decay: float = 0.01) -> None:
        super().__init__()
        self.decay = decay
        self.register_buffer("mean", torch.zeros(()))

    def forward(
        self, synthesize: Callable[[Tensor], Tensor], w: Tensor, noise: Tensor | None = None
    ) -> Tensor:
        """The penalty.

        Args:
            synthesize: w -> image (B, 3, H, W).
            w: (B, L, D).
            noise: like the image, drawn if not given.
        """
        with full_precision(w):
            w = at_least_float32(w)
            if not w.requires_grad:
                w = w.detach().requires_grad_()
            image = synthesize(w)
            if noise is None:
                noise = torch.randn_like(image)
            y = noise / math.sqrt(image.shape[2] * image.shape[3])
            (gradient,) = torch.autograd.grad((image * y).sum(), w, create_graph=True)
            lengths = gradient.square().sum(dim=2).mean(dim=1).sqrt()
            mean = torch.lerp(self.mean, mean_over_processes(lengths.mean()), self.decay)
            self.mean.copy_(mean.detach())
            return (lengths - mean).square().mean()


class FeatureMatching(nn.Module):
    """L_F of GPEN: sum over layers of ||D_i(y) - D_i(G(x))||_2.

    Each norm is the root mean square over one image's elements. The paper leaves T, the layers and the scale
    of the norm open; all residual blocks and the root *mean* square keep the term independent of resolution
    and width.
    """

    def forward(self, fake: Sequence[Tensor], real: Sequence[Tensor]) -> Tensor:
        """Features (B, C, H, W) per layer (`Discriminator.features`); no gradient flows through `real`."""
        layers = []
        for f, r in zip(fake, real, strict=True):
            norm = torch.linalg.vector_norm((f - r.detach()).flatten(1), dim=1)
            layers.append(norm.mean() / math.sqrt(f[0].numel()))
        return sum(layers)
