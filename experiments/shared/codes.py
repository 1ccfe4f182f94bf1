"""Files of latent codes: written by `experiments.invert`, read by `edit` and `directions`. And which generator codes belong to."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from _runtime import UserError
from datamodules.decode import Filter
from experiments.shared.devices import compute_device
from experiments.shared.photographs import filter_of
from lightning_modules.base import Code, Inverter, method_name
from lightning_modules.generators import fingerprint, generator_of
from lightning_modules.methods import load_method
from lightning_modules.networks.stylegan2 import Generator

FORMAT = "face-gan-suite codes 1"


def load_inverter(path: str) -> tuple[Inverter, Filter]:
    """An inverter from its checkpoint, where the command computes, and how photographs are reduced for it. Raises `UserError`."""
    method, checkpoint = load_method(path)
    if not isinstance(method, Inverter):
        raise UserError(
            f"{path}: {type(method).__name__} does not invert images; give a checkpoint of an inverter"
        )
    return method.to(compute_device()), filter_of(checkpoint)


def write_codes(path: Path, code: Code, names: Sequence[str], method: Inverter) -> None:
    """Write the codes of all images, each tensor with the images along its first axis, and what made them. Raises `UserError`."""
    record = {
        "names": list(names),
        "method": method_name(type(method)),
        "generator": fingerprint(generator_of(method)),
        "size": method.hparams["size"],
    }
    tensors = {name: tensor.cpu().contiguous() for name, tensor in code.items()}
    part = path.with_name(f".{path.name}.part")
    try:
        safetensors.torch.save_file(
            tensors, part, {"format": FORMAT, "codes": json.dumps(record)}
        )  # maps may be many: no copy in memory
        part.replace(path)
    except (OSError, safetensors.SafetensorError) as error:
        part.unlink(missing_ok=True)
        raise UserError(f"{path} could not be written: {' '.join(str(error).split())}") from error


class Codes:
    """What `write_codes` wrote; the tensors stay in the file until they are asked for.

    Attributes:
        names: of the images, in the order of the codes.
        method: by which they were inverted.
        generator: fingerprint of the generator they are codes of.
        size: width and height that the images had.

    Raises:
        UserError: the file is missing, damaged, or holds something else.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise UserError(
                f"--codes {path} does not exist"
                if not path.exists()
                else f"--codes {path} is a folder: give the file"
            )
        try:
            self.file = safetensors.safe_open(path, "pt")
        except (safetensors.SafetensorError, OSError) as error:
            raise UserError(
                f"--codes {path} cannot be read as safetensors: truncated, damaged or of another format"
            ) from error
        metadata = self.file.metadata() or {}
        if metadata.get("format") != FORMAT:
            raise UserError(
                f"--codes {path} holds no codes: its format is {metadata.get('format')!r}, expected {FORMAT!r}"
            )
        self.path = path
        try:
            record = json.loads(metadata["codes"])
            self.names: list[str] = [str(name) for name in record["names"]]
            self.method, self.generator, self.size = (
                str(record["method"]),
                str(record["generator"]),
                int(record["size"]),
            )
            self.shapes = {name: self.file.get_slice(name).get_shape() for name in self.file.keys()}  # noqa: SIM118
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"--codes {path} is damaged: it does not say what its codes are") from error
        if len(self.shapes.get("w", ())) != 3 or {shape[0] for shape in self.shapes.values()} != {
            len(self.names)
        }:
            raise UserError(
                f"--codes {path} is damaged: expected w (B, L, D), and as many codes as the {len(self.names)} names"
            )

    def __len__(self) -> int:
        return len(self.names)

    def read(self, start: int, end: int) -> Code:
        """The codes of images start .. end - 1, on the CPU."""
        return {name: self.file.get_slice(name)[start:end] for name in self.shapes}

    def w(self) -> Tensor:
        """w of all images, (N, L, D), without what else belongs to their codes."""
        return self.file.get_tensor("w")

    def check_generator(self, G: Generator, checkpoint: str) -> None:
        """Refuse codes of another generator."""
        own = fingerprint(G)
        if self.generator != own or self.shapes["w"][1:] != [G.layers, G.style_dim]:
            raise UserError(
                f"--codes {self.path} are of the generator {self.generator}, {checkpoint} has {own}: "
                "give the checkpoint they were made with"
            )

    def check_method(self, method: Inverter, checkpoint: str) -> None:
        """Refuse codes of another generator, method or size of images."""
        self.check_generator(generator_of(method), checkpoint)
        own = method_name(type(method)), method.hparams["size"]
        if (self.method, self.size) != own:
            raise UserError(
                f"--codes {self.path} are by {self.method} at {self.size} px, {checkpoint} is {own[0]} at {own[1]} px: "
                "give the checkpoint they were made with"
            )


def joined(parts: Sequence[Code]) -> Code:
    """Codes of batches as those of all images, on the CPU."""
    return {name: torch.cat([part[name].cpu() for part in parts]) for name in parts[0]}
