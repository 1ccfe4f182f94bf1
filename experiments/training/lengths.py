"""The length of a run and its intervals, in iterations or in images seen.

And what another batch than the recipe's is for them.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence

from jsonargparse import Namespace
from lightning.pytorch.cli import LightningArgumentParser

from _runtime import UserError
from datamodules.faces import FaceData
from experiments.shared.recipes import recipe
from lightning_modules.base import Method

ITERATIONS = 100_000  # length of a run whose recipe names none
IN_IMAGES = {"images": "iterations", "validate_images": "validate_every", "save_images": "save_every"}


def add_image_options(parser: LightningArgumentParser) -> None:
    """The lengths in images; iterations follow from --data.batch_size, the total over all processes."""
    helps = {
        "images": "length of the whole run in training images, instead of --iterations",
        "validate_images": "images between validations, instead of --validate_every",
        "save_images": "images between saves of last.ckpt, instead of --save_every",
    }
    for name, words in helps.items():
        parser.add_argument(f"--{name}", type=int | None, help=words)


def settle_lengths(config: Namespace, argv: Sequence[str]) -> Namespace:
    """The options with every length that is given in images as iterations too.

    A flag counts over a configuration file, whichever of the two it names. A file that has both was written
    by a run, and its images are what was asked for.

    Raises:
        UserError: both flags are given, or fewer than one image.
    """
    for images, iterations in IN_IMAGES.items():
        if _given(iterations, argv):
            if _given(images, argv):
                raise UserError(f"--{images} and --{iterations} say one thing in two units: give one of them")
            config[images] = None
        if config[images] is None:
            continue
        if config[images] < 1:
            raise UserError(f"--{images} must be at least 1, got {config[images]}")
        config[iterations] = -(-config[images] // max(1, config.data.batch_size))
    return config


def _given(name: str, argv: Sequence[str]) -> bool:
    return any(argument == f"--{name}" or argument.startswith(f"--{name}=") for argument in argv)


def rescaling(config: Namespace, advice: str = "") -> str | None:
    """Words about the recipe's length where the batch is another than the recipe's, None where it is not.

    Args:
        advice: what the method's authors say about smaller batches.
    """
    if config.trainer.fast_dev_run:
        return None  # its length is no choice
    options = recipe(config.method, config.preset)
    default = inspect.signature(FaceData).parameters["batch_size"].default
    usual_batch, batch = options.get("data.batch_size", default), config.data.batch_size
    if batch == usual_batch:
        return None
    usual_length, length = options.get("iterations", ITERATIONS), config.iterations
    images = usual_batch * usual_length
    matching = -(-images // batch)
    words = f"batch of {batch} instead of the recipe's {usual_batch}: "
    if length == matching:
        words += f"{matching:,} iterations see as many images as the recipe's {usual_length:,}, {images:,}"
    else:
        words += (
            f"the recipe's {usual_length:,} iterations see {images:,} images, "
            f"this run's {length:,} see {batch * length:,}; "
            f"as many would be --images {images} or --iterations {matching}"
        )
    if advice and batch < usual_batch:
        words += f" ({advice})"
    return words


def parts_of_batch(config: Namespace, method: Method, images: int) -> int:
    """In how many parts a method takes the `images` that a process has of a batch.

    Raises:
        UserError: it takes a batch in one piece only, or the images do not divide.
    """
    parts = config.data.accumulate
    if parts == 1:
        return 1
    if method.one_piece:
        why = f"{config.method} needs a batch in one piece, since {method.one_piece}"
        ways = "use a smaller --data.batch_size, more --trainer.devices or --trainer.precision bf16-mixed"
        raise UserError(f"--data.accumulate {parts}: {why}; {ways}")
    if images % parts:
        what = f"--data.accumulate {parts} does not divide the {images} images that a process has of a batch"
        fitting = [str(n) for n in range(2, images + 1) if images % n == 0]
        if not fitting:
            raise UserError(f"{what}: leave it out")
        raise UserError(f"{what}: choose {', '.join(fitting)}")
    return parts
