"""What ends a run: its length, a signal, a loss that is no longer a number."""

from __future__ import annotations

import signal
from types import FrameType

import lightning as L
import torch

from _runtime import UserError
from lightning_modules.base import Method

EVERY = 20  # iterations between looks at what would cost a synchronisation


class Guards(L.Callback):
    """Stop after `iterations`, on Ctrl-C or SIGTERM (after the running iteration), and at a non-finite loss.

    Args:
        iterations: length of the whole run, an earlier part that was resumed from included.
    """

    def __init__(self, iterations: int) -> None:
        self.iterations = iterations
        self.signal: int | None = None  # that ended the run

    def on_sanity_check_start(self, trainer: L.Trainer, pl_module: Method) -> None:
        # in place of Lightning's handler, which calls the other processes from within; it puts all handlers back when a run ends
        if trainer.received_sigterm:
            self.signal = signal.SIGTERM
            trainer._signal_connector.received_sigterm = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.signal = number
        signal.signal(number, signal.SIG_DFL)  # a second one ends the process at once

    def on_train_start(self, trainer: L.Trainer, pl_module: Method) -> None:
        # Lightning's counters follow ours, so that validation falls on the same iterations after a resume
        loop = trainer.fit_loop.epoch_loop
        loop.batch_progress.total.ready = loop._batches_that_stepped = pl_module.iteration
        self._end(trainer, pl_module, look=True)

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Method, *args: object) -> None:
        self._end(trainer, pl_module, look=trainer.world_size == 1 or pl_module.iteration % EVERY == 0)
        if trainer.should_stop or pl_module.iteration % EVERY == 0:
            check_loss(trainer, pl_module)

    def _end(self, trainer: L.Trainer, pl_module: Method, look: bool) -> None:
        """Let the run end where it has its length or, if this is an iteration to `look`, where any process got a signal."""
        last = pl_module.iteration >= self.iterations
        stop = (look or last) and trainer.strategy.reduce_boolean_decision(self.signal is not None, all=False)
        if stop:
            trainer.limit_val_batches = 0  # whoever sent the signal will not wait for a validation
        trainer.should_stop = bool(last or stop)

    def on_validation_start(self, trainer: L.Trainer, pl_module: Method) -> None:
        check_loss(trainer, pl_module)


def check_loss(trainer: L.Trainer, pl_module: Method) -> None:
    """Raise `UserError` on every process once any of them has met a non-finite loss; nothing is scored or saved after one."""
    bad = pl_module.first_bad_iteration()
    if trainer.strategy.reduce_boolean_decision(bad > 0, all=False):
        where = f"at iteration {bad}" if bad else "on another process"
        raise UserError(
            f"the loss became infinite or NaN {where}; checkpoints before it are kept. A lower --model.lr, a larger batch "
            "or --trainer.precision 32-true are the usual remedies"
        )


def check_weights(trainer: L.Trainer, pl_module: Method) -> None:
    """Raise `UserError` on every process where weights are no longer numbers, as a gradient can make them while the loss is finite."""
    finite = torch.stack([parameter.isfinite().all() for parameter in pl_module.parameters()]).all()
    if trainer.strategy.reduce_boolean_decision(not bool(finite), all=False):
        raise UserError(f"weights became infinite or NaN before iteration {pl_module.iteration}; the checkpoints before are kept")
