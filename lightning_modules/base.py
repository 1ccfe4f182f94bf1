"""What all methods share: an iteration counter, a way to step an optimizer, logging, EMA copies, checkpoints.

A method subclasses `Method` (or `Restorer`, or `Inverter`), is constructed from plain numbers and strings,
and writes its own `training_step` and `configure_optimizers`. One batch is one iteration, however many
optimizers step in it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, ClassVar

import lightning as L
import numpy as np
import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor, nn

from lightning_modules.checkpoints import FORMAT_VERSION
from lightning_modules.losses.frozen import Frozen
from lightning_modules.networks.ops import area_means, full_precision
from lightning_modules.optimisation import Optimised
from lightning_modules.parts import means, split, unsynchronised
from lightning_modules.watch import LossWatch

Objective = Callable[[dict[str, Any]], tuple[Tensor, dict[str, Tensor]]]


@dataclass
class Outcome:
    """What a method makes of held-out images; `callbacks/metrics.py` and `experiments.evaluate` score it.

    Attributes:
        result: its images (B, 3, H, W) in [-1, 1], nominally; None of a method that makes none.
        parts: named images that the result is made of, or has to beat; scored beside it.
        scores: the method's own values per image, name -> (B,).
        labels: of a method that finds classes: those it gives each pixel and the true ones, both (B, H, W).
        classes: how many there are.
    """

    result: Tensor | None = None
    parts: dict[str, Tensor] = field(default_factory=dict)
    scores: dict[str, Tensor] = field(default_factory=dict)
    labels: tuple[Tensor, Tensor] | None = None
    classes: int = 0


class Method(L.LightningModule):
    """A trainable method.

    Class attributes a method sets:
        scored: what can be measured of a validation's images: `pairs` where each has its target, `sets` where
            their distribution has.
        monitor: metric name and "max" or "min" by which the best checkpoint is chosen; None keeps the last
            one only.
        strategy: Lightning's strategy when a run has several processes.
        ema: names of the modules that have a running average beside them, `G` -> `G_ema`.
        starts_from: options whose file has a part's shapes; the constructor takes a description in its place.
        shaped_by_start: names of the modules whose shapes are in those files.
        compiled: names of the modules whose passes `--compile` compiles.
        one_piece: why the images of an iteration have to be there at once; empty where `training_step` is a
            `minimise`, which takes them in parts.
        needs_masks: whether it learns from masks, which portraits have, and photographs by an option.
        batch_advice: what the authors say about batches smaller than theirs, one sentence.

    Attributes a constructor sets:
        size: width, and mostly height, of the images it works on, in pixels.
        needs_landmarks: whether training batches must have `landmarks` or `components`.

    Attributes the fit command sets before training:
        accumulate: in how many parts `minimise` takes a batch.
        run_seed: every random number of a training step is a function of (run_seed, iteration, rank).
        total_iterations: length of the run, for schedules.
    """

    scored: ClassVar[tuple[str, ...]] = ()
    monitor: tuple[str, str] | None = None
    ema: ClassVar[tuple[str, ...]] = ()
    starts_from: ClassVar[tuple[str, ...]] = ()
    shaped_by_start: ClassVar[tuple[str, ...]] = ()
    compiled: ClassVar[tuple[str, ...]] = ()
    one_piece: str = "its training step sees all images of a batch together"
    needs_masks: ClassVar[bool] = False
    batch_advice: ClassVar[str] = ""
    # two players: every backward pass touches the parameters of one of them only, which plain DDP refuses
    strategy: ClassVar[str] = "ddp_find_unused_parameters_true"
    size: int

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.needs_landmarks = False
        self.iteration = 0  # finished or running ones; the only counter, and part of the checkpoint
        self.images_seen = 0
        self.total_iterations: int | None = None
        self.run_seed = 0
        self.accumulate = 1
        self.sources: dict[str, str] = {}  # the files that options of `starts_from` named, of a new run
        self.released: list[str] = []  # names of others' published files that its weights began with
        self.terms: dict[str, Tensor] = {}  # of the newest iteration, detached; callbacks/logs.py writes them
        self.watch = LossWatch()

    @property
    def image_shape(self) -> tuple[int, int]:
        """Height and width of the images it works on."""
        return self.size, self.size

    # --- what a run starts from ---------------------------------------------------------------------

    @classmethod
    def described(cls, options: dict[str, Any]) -> dict[str, Any]:
        """The constructor's options, with descriptions in place of the files that `starts_from` names.

        Raises:
            UserError: such a file is missing, or not what the method takes.
        """
        return options

    @classmethod
    def without_start(cls, options: dict[str, Any]) -> dict[str, Any]:
        """The constructor's options with stand-ins for those files.

        What `--dry_run` builds where one is missing.
        """
        return options

    def initialise(self) -> None:
        """Load what a new run starts from; not called when a run is resumed or a file is loaded."""

    def check_start(self) -> None:
        """Raise `UserError` where `initialise` could not succeed, before any long work."""

    def build_losses(self) -> None:
        """Build the networks that losses measure with, where they will be needed.

        Raises:
            UserError: a file of theirs is missing.
        """
        for module in self.modules():
            if isinstance(module, Frozen):
                module.network.to(self.device)

    def choose_monitor(self, measured: Sequence[str]) -> None:
        """Set `monitor` where it depends on what the run measures (names of `metrics/judge.py`)."""

    def check_batch(self, images: int) -> None:
        """Raise `UserError` where a training batch of so many images per process cannot work."""

    # --- running averages ---------------------------------------------------------------------------

    def make_ema(self) -> None:
        """Create the frozen running averages named in `ema`; the last line of a method's constructor."""
        for name in self.ema:
            average = copy.deepcopy(getattr(self, name)).requires_grad_(False).eval()
            setattr(self, f"{name}_ema", average)

    def reset_ema(self) -> None:
        """Let the averages start from the present weights, after `initialise` has changed them."""
        for name in self.ema:
            getattr(self, f"{name}_ema").load_state_dict(getattr(self, name).state_dict())

    def ema_decay(self) -> float:
        """Weight of the old average in this iteration's update."""
        raise NotImplementedError(
            f"{type(self).__name__} names running averages in `ema`, but not their decay"
        )

    # --- training -----------------------------------------------------------------------------------

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        """The method's own optimizers, with this run's options; none where there is nothing to train.

        Called more than once, so it keeps no state.
        """
        return []

    @property
    def progress(self) -> float:
        """Share of the run that lies behind, in [0, 1)."""
        return (self.iteration - 1) / self.total_iterations if self.total_iterations else 0.0

    def lr_factor(self) -> float:
        """What every learning rate is multiplied with in this iteration."""
        return 1.0

    def due(self, every: int) -> bool:
        """Whether what happens every `every` iterations happens in this one (lazy regularisation)."""
        return self.iteration % every == 0

    @property
    def players(self) -> list[LightningOptimizer]:
        """The optimizers of `configure_optimizers`, as a list also where there is one."""
        optimizers = self.optimizers()
        return optimizers if isinstance(optimizers, list) else [optimizers]  # type: ignore[list-item]

    @contextmanager
    def frozen(self, network: nn.Module) -> Iterator[None]:
        """Within it, the weights of `network`, all of which train otherwise, get no gradients."""
        network.requires_grad_(False)
        try:
            yield
        finally:
            network.requires_grad_(True)

    def descend(self, optimizer: LightningOptimizer, loss: Tensor) -> None:
        """One step of `optimizer` along `loss`.

        What is wrong with a loss is noted on the device and reported later, without a wait. A parameter that
        has moved before and that this loss does not reach (the last bias of D under R1) takes part with a
        gradient of zero, as in the official trainers: Adam's moments and counter move on, and so does the
        weight.
        """
        self.watch.see_loss(loss, self.iteration)
        optimizer.zero_grad(set_to_none=True)
        self._add_gradient(loss)
        self._step(optimizer)

    def minimise(self, objective: Objective, batch: dict[str, Any]) -> None:
        """One step of the only optimizer along `objective`: batch -> (loss, its terms), which are logged.

        All are means over images, and no image has a say in what another contributes: so the batch may come
        in `accumulate` parts, with the same gradient, and only one part's activations are kept at a time.
        """
        (optimizer,) = self.players
        if self.accumulate == 1:
            loss, terms = objective(batch)
            self.descend(optimizer, loss)
            self.log_terms(terms)
            return
        parts = split(batch, self.accumulate)
        terms_of_parts = []
        optimizer.zero_grad(set_to_none=True)
        for number, part in enumerate(parts, start=1):
            loss, terms = objective(part)
            share = loss / len(parts)
            self.watch.see_loss(share, self.iteration)
            with nullcontext() if number == len(parts) else unsynchronised(self.trainer):
                self._add_gradient(share)
            terms_of_parts.append(terms)
        self._step(optimizer)
        self.log_terms(means(terms_of_parts))

    def _add_gradient(self, loss: Tensor) -> None:
        with full_precision(loss):  # or the second derivatives of R1 and path length would leave float32
            self.manual_backward(loss)

    def _step(self, optimizer: LightningOptimizer) -> None:
        # the state of the plain optimizer: Lightning's wrapper may hold an earlier one
        moved = getattr(optimizer, "optimizer", optimizer).state
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None and parameter in moved:
                    parameter.grad = torch.zeros_like(parameter)
        optimizer.step()

    def log_terms(self, terms: Mapping[str, Tensor]) -> None:
        """Keep the loss terms of this iteration as `train/<term>`.

        They are read only when they are written.
        """
        named = {f"train/{name}": value.detach() for name, value in terms.items()}
        self.watch.see_terms(named, self.iteration)
        self.terms.update(named)

    def read_terms(self) -> dict[str, float]:
        """The newest loss terms as numbers. Waits for the device, once."""
        if not self.terms:
            return {}
        values = torch.stack([value.to(self.device, torch.float64) for value in self.terms.values()])
        return dict(zip(self.terms, values.tolist(), strict=True))

    def shared_generator(self) -> torch.Generator:
        """Random numbers on the host that all processes draw alike, a function of (run_seed, iteration)."""
        # a key of its own: without one this would be the first rank's sequence
        sequence = np.random.SeedSequence((self.run_seed, self.iteration), spawn_key=(1,))
        return torch.Generator().manual_seed(_seed(sequence))

    def on_fit_start(self) -> None:
        self.build_losses()  # on the device that the method has by now

    def on_train_start(self) -> None:
        # a resumed optimizer brings back the rates it was saved with; those of this run's options count
        for optimizer, fresh in zip(self.trainer.optimizers, self.configure_optimizers(), strict=True):
            for group, options in zip(optimizer.param_groups, fresh.param_groups, strict=True):
                group.update({name: value for name, value in options.items() if name != "params"})
                group["initial_lr"] = options["lr"]

    def on_train_batch_start(self, batch: dict[str, Any], batch_idx: int) -> None:
        self.iteration += 1
        self.images_seen += self.trainer.world_size * len(batch["target"])
        # so that a resumed run draws the very numbers an uninterrupted one would
        torch.manual_seed(_seed(np.random.SeedSequence((self.run_seed, self.iteration, self.global_rank))))
        factor = self.lr_factor()
        for optimizer in self.trainer.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = factor * group["initial_lr"]

    # --- validation and pictures --------------------------------------------------------------------

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> Outcome:
        """What the method makes of held-out images."""
        raise NotImplementedError(f"{type(self).__name__} has no validation_step")

    def test_step(self, batch: dict[str, Any], batch_idx: int) -> Outcome:
        return self.validation_step(batch, batch_idx)

    def predict_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """What the method makes of a batch: the images that are its result."""
        result = self.validation_step(batch, batch_idx).result
        assert result is not None
        return result

    def pictures(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Named rows of images (B, 3, H, W) in [-1, 1] for the picture grid; only the weights change them."""
        return {}

    # --- checkpoints --------------------------------------------------------------------------------

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["suite"] = {
            "format": FORMAT_VERSION,
            "method": method_name(type(self)),
            "iteration": self.iteration,
            "images_seen": self.images_seen,
            "total_iterations": self.total_iterations,
        }
        if self.released:
            checkpoint["suite"]["released"] = list(self.released)
        checkpoint["terms"] = self.read_terms()  # not yet written to metrics.csv
        # Lightning's counters count optimizer steps and start again at a resume: fit sets them from
        # `iteration`
        checkpoint.pop("loops", None)
        checkpoint.update(epoch=0, global_step=self.iteration)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.iteration = checkpoint["suite"]["iteration"]
        self.images_seen = checkpoint["suite"]["images_seen"]
        self.released = list(checkpoint["suite"].get("released", []))
        self.terms = {name: torch.tensor(value) for name, value in checkpoint.get("terms", {}).items()}


def _seed(sequence: np.random.SeedSequence) -> int:
    """63 bits, which is what torch takes without a sign."""
    return int(sequence.generate_state(1, np.uint64)[0] >> 1)


class Restorer(Method):
    """A degraded face in, a clean face out.

    Class attributes a method sets:
        any_size: whether `restore` takes images of every size, not of `size` only.
    """

    any_size: ClassVar[bool] = False
    scored: ClassVar[tuple[str, ...]] = ("pairs", "sets")
    monitor = ("val/psnr", "max")

    def restore(self, input: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1] -> restored (B, 3, H, W), nominally in [-1, 1] and not clamped."""
        raise NotImplementedError

    def forward(self, input: Tensor) -> Tensor:
        return self.restore(input)

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> Outcome:
        return Outcome(self.restore(batch["input"]))

    def predict_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """The restored images; of data without degradation the images themselves are what is restored."""
        return self.restore(batch.get("input", batch["target"]))

    def pictures(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        restored = self.restore(batch["input"])
        return {"input": batch["input"], "restored": restored, "target": batch["target"]}


# Of inverted images: always `w` (B, L, D), and what else the method needs, each (B, ...). Names that begin
# with TUNED are weights of the generator that were tuned for the image, which is alone in its batch then.
Code = dict[str, Tensor]
TUNED = "weights."


class Inverter(Method):
    """A face in, a latent code out; an edited face back.

    Class attributes a method sets:
        optimises: whether `invert` optimises, and so needs the networks of its losses.

    Attributes:
        optimised: of a method that does: what the newest call came to, and what it cost.
        report: called by such a method with the number of steps done; a command's progress bar.
        keep_every: steps between two codes of its trajectory (`optimised`); 0 keeps none.
        remarks: what is to be said of images of the newest `synthesize`: a line -> which of the batch, (B,).
    """

    scored: ClassVar[tuple[str, ...]] = ("pairs", "sets", "inversion")
    optimises: ClassVar[bool] = False
    optimised: Optimised | None = None
    report: Callable[[int], None] | None = None
    keep_every: int = 0
    remarks: Mapping[str, Tensor] = MappingProxyType({})

    @classmethod
    def shows_way(cls, options: Mapping[str, Any]) -> bool:
        """Whether there is a trajectory to keep, with these options of the constructor."""
        return cls.optimises

    def invert(self, image: Tensor) -> Code:
        """(B, 3, H, W) in [-1, 1] -> its code."""
        raise NotImplementedError

    def synthesize(self, code: Code) -> Tensor:
        """The image of a code, at the generator's size; nominally in [-1, 1] and not clamped."""
        raise NotImplementedError

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1] -> the image of its code, in its shape; not clamped."""
        return self.seen(self.synthesize(self.invert(image)))

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> Outcome:
        return Outcome(self(batch["target"]))

    def predict_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        return self(batch["target"])

    def seen(self, image: Tensor) -> Tensor:
        """A synthesised image in the shape of those that `invert` takes, by means over areas.

        This is what losses and metrics compare.
        """
        return self.crop(area_means(image, self.image_shape[1]))

    def crop(self, image: Tensor) -> Tensor:
        """Of a square image (..., S, S) the middle rows in the proportions of `image_shape`: (..., H, S)."""
        height, width = self.image_shape
        rows = image.shape[-2] * height // width
        top = (image.shape[-2] - rows) // 2
        return image[..., top : top + rows, :]

    def edit(self, code: Code, direction: Callable[[Tensor, Any], Tensor], strength: float | Tensor) -> Code:
        """The code moved along a direction of `editing/`, which maps (w, strength) to w.

        What else is in it stays.
        """
        return {**code, "w": direction(code["w"], strength)}

    def choose_monitor(self, measured: Sequence[str]) -> None:
        self.monitor = ("val/lpips", "min") if "lpips" in measured else ("val/psnr", "max")

    def pictures(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        return {"target": batch["target"], "inverted": self(batch["target"])}


def method_name(cls: type[Method]) -> str:
    """The flag a method goes by: the name of its file."""
    return cls.__module__.rpartition(".")[2]
