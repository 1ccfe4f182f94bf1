"""The generator in a method, and what tells generators apart."""

from __future__ import annotations

import hashlib

from _runtime import UserError
from lightning_modules.base import Method
from lightning_modules.networks.stylegan2 import Generator


def generator_of(method: Method) -> Generator:
    """The generator in a method, where there is one its running average. Raises `UserError` where there is none."""
    found = {name: module for name, module in method.named_modules() if isinstance(module, Generator)}
    if not found:
        raise UserError(
            f"--checkpoint: {type(method).__name__} has no generator; give one of a prior or of a method built on one"
        )
    return next((G for name, G in found.items() if "_ema" in name), next(iter(found.values())))


def fingerprint(G: Generator) -> str:
    """12 hexadecimal digits of the SHA-256 of all parameters: equal for a prior and the methods built on it, as its codes are."""
    digest = hashlib.sha256()
    for name, parameter in sorted(G.named_parameters()):
        digest.update(name.encode())
        digest.update(parameter.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:12]
