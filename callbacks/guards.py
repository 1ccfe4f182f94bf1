"""What ends a run: its length, a signal, a loss that is no longer a number or has exploded."""

from __future__ import annotations

import signal
from types import FrameType

import lightning as L
import torch

from _runtime import UserError
from lightning_modules.base import Method

WARNING: int | None = getattr(signal, "SIGUSR1", None)  # Windows, which has no SLURM, knows no such signal
SIGNALS = [number for number in (signal.SIGINT, signal.SIGTERM, WARNING) if number is not None]


class Guards(L.Callback):
    """Stop a run after `iterations`, on a signal, and at a loss that has gone wrong.

    Signals are Ctrl-C, SIGTERM and SIGUSR1, which SLURM is asked to send some time before it ends a job; the
    running iteration is finished.

    Args:
        iterations: length of the whole run, an earlier part that was resumed from included.
        every: iterations between looks at what costs a wait: the losses, and with several processes the
            signals of the others.
        stop_at: iteration to end at before that, as if by a signal.
    """

    def __init__(self, iterations: int, every: int, stop_at: int | None = None) -> None:
        self.iterations, self.every, self.stop_at = iterations, every, stop_at
        self.signal: int | None = None  # that ended the run; the same on all processes once it has

    def on_sanity_check_start(self, trainer: L.Trainer, pl_module: Method) -> None:
        # in place of Lightning's handler, which calls the other processes from within;
        # it puts all handlers back when a run ends
        if trainer.received_sigterm:
            self.signal = signal.SIGTERM
            trainer._signal_connector.received_sigterm = False
        for number in SIGNALS:
            signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.signal = self.signal or number
        signal.signal(number, signal.SIG_DFL)  # a second one ends the process at once

    def on_train_start(self, trainer: L.Trainer, pl_module: Method) -> None:
        # Lightning's counters follow ours, so that validation falls on the same iterations after a resume
        loop = trainer.fit_loop.epoch_loop
        loop.batch_progress.total.ready = loop._batches_that_stepped = pl_module.iteration
        self._end(trainer, pl_module, look=True)

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Method, *args: object) -> None:
        look = pl_module.iteration % self.every == 0
        self._end(trainer, pl_module, look=look or trainer.world_size == 1)
        if look or trainer.should_stop:
            check_loss(trainer, pl_module)

    def _end(self, trainer: L.Trainer, pl_module: Method, look: bool) -> None:
        """Let the run end where it has its length, or where any process got a signal.

        Signals are found out about where this is an iteration to `look`, and at the end.
        """
        last = pl_module.iteration >= self.iterations
        paused = not last and self.stop_at is not None and pl_module.iteration >= self.stop_at
        stopped = False
        if look or last:
            stopped = trainer.strategy.reduce_boolean_decision(self.signal is not None, all=False)
        if stopped:
            self.signal = self._agreed(trainer)
        if stopped or paused:
            trainer.limit_val_batches = 0  # whoever sent the signal will not wait for a validation
        trainer.should_stop = bool(last or stopped or paused)

    def _agreed(self, trainer: L.Trainer) -> int:
        """A signal that any process got: a cluster may send it to some of them only."""
        mine = torch.tensor(self.signal or 0, device=trainer.strategy.root_device)
        return int(trainer.strategy.reduce(mine, reduce_op="max"))

    def on_validation_start(self, trainer: L.Trainer, pl_module: Method) -> None:
        check_loss(trainer, pl_module)


def check_loss(trainer: L.Trainer, pl_module: Method) -> None:
    """Let a run end once a loss of any process has gone wrong; nothing is scored or saved after one.

    Raises:
        UserError: one has; on every process.
    """
    complaint = pl_module.watch.complaint()
    if trainer.strategy.reduce_boolean_decision(complaint is not None, all=False):
        raise UserError(
            f"{complaint or 'a loss went wrong on another process'}; checkpoints before it are kept. "
            f"Go on from the last one with --run_dir {trainer.default_root_dir} --resume auto and a lower "
            "--model.lr; a larger batch or --trainer.precision 32-true are the other usual remedies"
        )


def check_weights(trainer: L.Trainer, pl_module: Method) -> None:
    """Let a run end where weights are no longer numbers; a gradient can do that while the loss is finite.

    Raises:
        UserError: they are not, on any process; on every process.
    """
    finite = torch.stack([parameter.isfinite().all() for parameter in pl_module.parameters()]).all()
    if trainer.strategy.reduce_boolean_decision(not bool(finite), all=False):
        broken = f"weights became infinite or NaN before iteration {pl_module.iteration}"
        raise UserError(f"{broken}; the checkpoints before are kept")
