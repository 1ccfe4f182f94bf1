"""e4e: an encoder whose codes stay close to W, so that they can be edited.

Source  Tov et al., "Designing an Encoder for StyleGAN Image Manipulation", arXiv:2102.02766; coefficients,
        schedule and pools as in omertov/encoder4editing@99ea505 (training/coach.py, README).
Differs One pass of the encoder serves the latent discriminator's step and the encoder's own (the release runs
        two, so its running statistics move twice as fast). When offsets join is a share of the run: of
        300,000 iterations, those of the release. R1 falls on iterations 16, 32, ...; the release begins with
        the first.
Shapes  as pSp; w_0 (B, D) the code of the first layer, Delta_i = w_i - w_0 the offset of layer i.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor, nn

from _runtime import UserError
from lightning_modules.collectives import from_all_processes, of_this_process
from lightning_modules.losses.codes import DeltaNorm
from lightning_modules.losses.gan import R1, NonSaturating
from lightning_modules.networks.e4e import LatentDiscriminator
from lightning_modules.optimizers import Ranger, adam
from lightning_modules.psp import PSP


class CodePool(nn.Module):
    """Past codes for the discriminator.

    Once full, half of the codes that come in are exchanged for older ones.

    Source  Shrivastava et al., arXiv:1612.07828, section 2.3, as e4e uses it. The pool is part of the
            checkpoint. It takes the codes of all processes, which so keep one and the same pool.
    """

    codes: Tensor
    filled: Tensor

    def __init__(self, size: int, style_dim: int) -> None:
        super().__init__()
        self.register_buffer("codes", torch.zeros(size, style_dim))
        self.register_buffer("filled", torch.zeros((), dtype=torch.long))
        self._filled = 0  # what the host knows of it without asking the device

    @torch.no_grad()
    def forward(self, w: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """w (B, D) -> as many codes, without gradients.

        `generator` of the host draws the same on all processes.
        """
        chosen, size = from_all_processes(w.detach()).clone(), len(self.codes)
        for i in range(len(chosen)):
            if self._filled < size:
                self.codes[self._filled] = chosen[i]
                self._filled += 1
            elif torch.rand((), generator=generator) < 0.5:
                k = int(torch.randint(size, (), generator=generator))
                old = self.codes[k].clone()
                self.codes[k] = chosen[i]
                chosen[i] = old
        self.filled.fill_(self._filled)
        return of_this_process(chosen)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._filled = int(self.filled)
        if not 0 <= self._filled <= len(self.codes):
            raise UserError(f"the weights are damaged: {self._filled} of {len(self.codes)} codes in a pool")


class E4E(PSP):
    """An encoder and a latent discriminator, over the layers i that are active.

    min_E  distortion as pSp + lambda_delta sum_i ||Delta_i|| + lambda_adv mean_i softplus(-D(w_i));
    max_D  log D(mapping(z)) + log(1 - D(w_i)) - R1.

    Args:
        lambda_delta: weight of L_d-reg, the norms of the offsets.
        lambda_adv: weight of the encoder's adversarial term.
        delta_from: share of the run after which the first offset joins; before it all layers share w_0.
        delta_every: share of the run between two offsets; 0 lets all join at once.
        pool: size of the discriminator's pools; 0 shows it the present codes of the first layer only.
        r1: weight gamma of the latent discriminator's R1 penalty, taken every 16 iterations; 0 turns it off.
        lr_d: learning rate of the latent discriminator.
        psp: the options of pSp.
    """

    family: ClassVar[Literal["psp", "e4e"]] = "e4e"
    R1_EVERY = 16
    active: Tensor

    def __init__(
        self,
        prior: str | None = None,
        *,
        lambda_delta: float = 2e-4,
        lambda_adv: float = 0.1,
        delta_from: float = 20_000 / 300_000,
        delta_every: float = 2_000 / 300_000,
        pool: int = 50,
        r1: float = 10.0,
        lr_d: float = 2e-5,
        **psp: Any,
    ) -> None:
        super().__init__(prior, **psp)  # keeps our options as well
        self.lambda_delta, self.lambda_adv, self.lr_d = lambda_delta, lambda_adv, lr_d
        self.delta_from, self.delta_every = delta_from, delta_every
        style_dim = self.G.style_dim
        self.register_buffer("active", torch.zeros((), dtype=torch.long))  # offsets that have joined
        self._active = 0  # what the host knows of it without asking the device
        self.D = LatentDiscriminator(style_dim, style_dim) if lambda_adv > 0 else None
        self.pools = None
        if lambda_adv > 0 and pool > 0:
            self.pools = nn.ModuleList(CodePool(pool, style_dim) for _ in ("real", "fake"))
        self.L_delta = DeltaNorm()
        self.adversary, self.r1 = NonSaturating(), R1(gamma=r1)

    # --- inference ----------------------------------------------------------------------------------

    def encode(self, image: Tensor) -> Tensor:
        return self.E(image, active=self._active)

    def join(self, offsets: int) -> None:
        """From now on so many offsets take part."""
        self._active = offsets
        self.active.fill_(offsets)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._active = int(self.active)
        if not 0 <= self._active < self.G.layers:
            raise UserError(f"the weights are damaged: {self._active} of {self.G.layers - 1} offsets joined")

    # --- training -----------------------------------------------------------------------------------

    def stage(self) -> int:
        """How many offsets are active in this iteration."""
        total = self.total_iterations or 0
        # in whole iterations: shares of a run do not add up exactly
        late = self.iteration - 1 - round(self.delta_from * total)
        if late < 0:
            return 0
        last = self.G.layers - 1
        if self.delta_every == 0:
            return last
        return min(last, 1 + late // max(1, round(self.delta_every * total)))

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        opt_e, *opt_d = self.players
        x, active = batch["target"], self.stage()
        self.join(active)
        w = self.invert(x)["w"]

        terms: dict[str, Tensor] = {}
        if self.D is not None:
            with self.toggled_optimizer(opt_d[0]):
                terms |= self._discriminate(self.D, opt_d[0], w.detach())

        loss, distortion = self.distortion(self.seen(self.G(w)), x)
        terms |= distortion
        if active > 0:
            terms["delta"] = self.L_delta(w[:, : active + 1])
            loss = loss + self.lambda_delta * terms["delta"]
        if self.D is not None:
            with self.frozen(self.D):
                terms["adv"] = self.adversary.g(self.D(w[:, : active + 1].flatten(0, 1)))
            loss = loss + self.lambda_adv * terms["adv"]
        self.descend(opt_e, loss)
        self.log_terms(terms)

    def _discriminate(
        self, D: LatentDiscriminator, optimizer: LightningOptimizer, w: Tensor
    ) -> dict[str, Tensor]:
        """A step of D: codes that mapping makes of noise against one active layer's code of each image."""
        with torch.no_grad():
            real = self.G.map(torch.randn(len(w), self.G.z_dim, device=w.device))[:, 0]
        fake = w[:, 0]
        if self.pools is not None:
            layer = torch.randint(self._active + 1, (len(w),), device=w.device)
            fake = w[torch.arange(len(w), device=w.device), layer]
            generator = self.shared_generator()
            real_pool, fake_pool = self.pools
            real, fake = real_pool(real, generator), fake_pool(fake, generator)
        real_score, fake_score = D(real), D(fake)
        terms = {
            "d": self.adversary.d(real_score, fake_score),
            "real_score": real_score.mean(),
            "fake_score": fake_score.mean(),
        }
        self.descend(optimizer, terms["d"])
        if self.r1.gamma > 0 and self.due(self.R1_EVERY):  # lazily, in a step of its own
            terms["r1"] = self.r1(D.forward, real)
            self.descend(optimizer, self.R1_EVERY * terms["r1"])
        return terms

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        optimizers: list[torch.optim.Optimizer] = [Ranger(self.E.parameters(), lr=self.lr)]
        if self.D is not None:
            optimizers.append(adam(self.D.parameters(), lr=self.lr_d))
        return optimizers
