"""Latent codes in files: written by `experiments.invert`, read by `edit` and `directions`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import safetensors
import safetensors.torch
import torch
from jsonargparse import Namespace
from torch import Tensor

from _runtime import UserError, plain_file, write_bytes
from datamodules.decode import Filter
from experiments.shared.devices import compute_device
from experiments.shared.outputs import make_folder
from experiments.shared.photographs import filter_of
from experiments.shared.recipes import recipe
from experiments.shared.trained import tell_photographs
from lightning_modules.base import TUNED, Code, Inverter, method_name
from lightning_modules.checkpoints import read_checkpoint
from lightning_modules.formats import read_torch
from lightning_modules.generators import LatentGenerator, fingerprint, generator_of
from lightning_modules.methods import build, find_method, load_method
from lightning_modules.on_prior import PRIOR
from lightning_modules.schema import CODE, NAMES, ORIGIN, check, check_options
from lightning_modules.starts import Start

FOLDER = "codes"  # of an output of `invert`, with a file for each image: codes/NAME.safetensors
SUFFIX = ".safetensors"
FORMAT = "face-gan-suite code 2"  # of one image's file
PIVOT = "0.pt"  # of one image, in a folder of its name, as PTI's release writes it
FILE_OF_ALL = "codes.safetensors"  # in such an output of earlier versions, with the codes of all images
FORMAT_OF_ALL = "face-gan-suite codes 1"


def chosen_inverter(config: Namespace) -> tuple[Inverter, Filter, str]:
    """What the options of `add_inverter_options` name, how it reduces photographs, and its file.

    The networks that it measures with while it inverts are there as well.

    Raises:
        UserError: a file is missing or another, or see `untrained_inverter`.
    """
    if config.checkpoint is not None:
        method, checkpoint = read_inverter(config.checkpoint)
        filter, source = filter_of(checkpoint), config.checkpoint
    else:
        method = untrained_inverter(config.method, config.generator, config.model or {})
        filter, source = "area", config.generator
        checkpoint = read_checkpoint(source)
    if config.input is not None:
        tell_photographs(checkpoint, source, config.input)
    if method.optimises:
        method.build_losses()
    return method, filter, source


def load_inverter(path: str) -> tuple[Inverter, Filter]:
    """An inverter, where the command computes, and how photographs are reduced for it.

    Raises:
        UserError: the checkpoint cannot be read, or is of another kind of method.
    """
    method, checkpoint = read_inverter(path)
    return method, filter_of(checkpoint)


def read_inverter(path: str) -> tuple[Inverter, dict[str, Any]]:
    """An inverter, where the command computes, and its checkpoint; raises as `load_inverter`."""
    method, checkpoint = load_method(path)
    if not isinstance(method, Inverter):
        what = f"{type(method).__name__} does not invert images"
        raise UserError(f"{path}: {what}; give a checkpoint of an inverter")
    return method.to(compute_device()), checkpoint


def untrained_inverter(name: str, generator: str, options: dict[str, Any]) -> Inverter:
    """A method that is not trained, on the generator of a prior, where the command computes.

    Args:
        name: of the method.
        generator: checkpoint of `--method gan_prior`.
        options: of the method's constructor.

    Raises:
        UserError: the method is unknown or has to be trained, an option is, or the prior cannot be read.
    """
    cls = find_method(name)
    if not issubclass(cls, Inverter) or recipe(name, "paper")["iterations"] > 0:
        raise UserError(f"--method {name} is trained: give its checkpoint with --checkpoint")
    check_options(cls, options, "--model")
    try:
        prior = Start("prior", generator)
        size = {"size": prior.options["size"]} if prior.method == PRIOR else {}
        method = build(name, **{**options, **size, "prior": generator})
        method.check_start()
        method.initialise()
    except UserError as error:
        raise UserError(str(error).replace("--model.prior", "--generator")) from error
    assert isinstance(method, Inverter)
    return method.eval().to(compute_device())


@dataclass(frozen=True)
class Origin:
    """What made codes.

    Attributes:
        method: its name.
        generator: fingerprint of the generator they are codes of.
        size: width of the images that were inverted.
    """

    method: str
    generator: str
    size: int

    @classmethod
    def of(cls, method: Inverter) -> Origin:
        return cls(method_name(type(method)), fingerprint(generator_of(method)), method.size)

    @classmethod
    def read(cls, record: dict[str, Any]) -> Origin:
        """From a file's record. Raises `UserError` where it is none."""
        check(record, ORIGIN, "its record")
        return cls(record["method"], record["generator"], record["size"])


def code_path(folder: Path, name: str) -> Path:
    """The file of an image's code in an output folder of `invert`."""
    return folder / FOLDER / f"{name}{SUFFIX}"


def write_code(path: Path, code: Code, name: str, origin: Origin) -> None:
    """Write the code of one image, each tensor (1, ...), and what made it. Raises `UserError`."""
    record = {"name": name, "method": origin.method, "generator": origin.generator, "size": origin.size}
    tensors = {key: tensor.cpu().contiguous() for key, tensor in code.items()}
    make_folder(path.parent)
    write_bytes(path, safetensors.torch.save(tensors, {"format": FORMAT, "code": json.dumps(record)}))


def one_by_one(code: Code) -> Iterator[Code]:
    """The codes of the images of a batch."""
    for i in range(len(code["w"])):
        yield {key: tensor[i : i + 1] for key, tensor in code.items()}


def joined(codes: Sequence[Code]) -> Code:
    """Codes of one shape as those of a batch."""
    return {key: torch.cat([code[key] for code in codes]) for key in codes[0]}


def batches_of(codes: Sequence[Code]) -> Iterator[list[int]]:
    """The numbers of codes that can be taken together, in their order.

    Tensors of other shapes, and weights that were tuned for one image, keep codes apart.
    """
    together: list[int] = []
    for number, code in enumerate(codes):
        if together and not alike(codes[together[0]], code):
            yield together
            together = []
        together.append(number)
    if together:
        yield together


def alike(a: Code, b: Code) -> bool:
    """Whether two codes can be taken together."""
    if any(key.startswith(TUNED) for key in (*a, *b)):
        return False
    return {key: tensor.shape for key, tensor in a.items()} == {
        key: tensor.shape for key, tensor in b.items()
    }


class Codes:
    """The codes of several images, read when they are asked for.

    Attributes:
        path: where they lie.
        names: of the images.
        origin: what made them.
        code_shape: of one image's w, (L, D).
    """

    path: Path
    names: list[str]
    origin: Origin
    code_shape: tuple[int, int]

    def __len__(self) -> int:
        return len(self.names)

    def read(self, i: int, keys: Sequence[str] = ()) -> Code:
        """The code of image number i, or those of its tensors that are named, on the CPU."""
        raise NotImplementedError

    def w(self, rows: Sequence[int]) -> Tensor:
        """w of some images, (N, L, D), without what else belongs to their codes."""
        return torch.cat([self.read(i, ["w"])["w"] for i in rows])

    def check_generator(self, G: LatentGenerator, checkpoint: str) -> None:
        """Raise `UserError` where they are codes of another generator."""
        own = fingerprint(G)
        if self.origin.generator != own or self.code_shape != (G.layers, G.style_dim):
            what = f"--codes {self.path} are of the generator {self.origin.generator}, {checkpoint} has {own}"
            raise UserError(f"{what}: give the checkpoint they were made with")

    def check_method(self, method: Inverter, checkpoint: str) -> None:
        """Raise `UserError` where they are of another generator, method or size of images."""
        self.check_generator(generator_of(method), checkpoint)
        own, theirs = Origin.of(method), self.origin
        if theirs != own:
            what = f"--codes {self.path} are by {theirs.method} at {theirs.size} px"
            here = f"{checkpoint} is {own.method} at {own.size} px"
            raise UserError(f"{what}, {here}: give the checkpoint they were made with")


class FolderOfCodes(Codes):
    """What `invert` writes: a file for each image."""

    def __init__(self, path: Path) -> None:
        inside = path / FOLDER
        self.path = path
        self.folder = inside if inside.is_dir() else path
        files = sorted(self.folder.rglob(f"*{SUFFIX}"))
        if not files:
            raise UserError(f"--codes {path} holds no codes: give the output folder of experiments.invert")
        self.names = [file.relative_to(self.folder).as_posix().removesuffix(SUFFIX) for file in files]
        first = open_codes_file(files[0])
        self.origin = origin_of(first, files[0], FORMAT)
        self.code_shape = shape_of_w(first, files[0])

    def read(self, i: int, keys: Sequence[str] = ()) -> Code:
        path = self.folder / f"{self.names[i]}{SUFFIX}"
        file = open_codes_file(path)
        if origin_of(file, path, FORMAT) != self.origin:
            raise UserError(
                f"--codes {path} was made by another method or generator than the first code there"
            )
        if shape_of_w(file, path) != self.code_shape:
            raise UserError(f"--codes {path} has another number of layers than the first code there")
        code = {key: file.get_tensor(key) for key in keys or file.keys()}
        check(code, CODE, f"--codes {path}")
        return code


class FileOfCodes(Codes):
    """The codes of all images in one file, as earlier versions wrote them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.file = open_codes_file(path)
        self.origin = origin_of(self.file, path, FORMAT_OF_ALL)
        record = json.loads(self.file.metadata()["codes"])  # which has just been read
        check(record, NAMES, f"--codes {path}")
        self.names = record["names"]
        self.code_shape = shape_of_w(self.file, path)
        shapes = [self.file.get_slice(key).get_shape() for key in self.file.keys()]  # noqa: SIM118
        lengths = {shape[0] if shape else 0 for shape in shapes}
        if lengths != {len(self.names)}:
            raise UserError(
                f"--codes {path} is damaged: expected as many codes as the {len(self.names)} names"
            )
        for name in self.names:
            check_name(name, path)

    def read(self, i: int, keys: Sequence[str] = ()) -> Code:
        code = {key: self.file.get_slice(key)[i : i + 1] for key in keys or self.file.keys()}
        check(code, CODE, f"--codes {self.path}")
        return code


class Pivots(Codes):
    """The codes w (1, L, D) that PTI's release saves, as NAME/0.pt: nothing in them says what made them.

    Source  danielroich/PTI@da94d59 (training/coaches: `torch.save(w_pivot, .../NAME/0.pt)`).
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.files = sorted(path.rglob(PIVOT)) if path.is_dir() else [path]
        self.names = [self._name(file) for file in self.files]
        for name in self.names:
            check_name(name, path)
        self.code_shape = tuple(self._w(0).shape[1:])  # type: ignore[assignment]

    def _name(self, file: Path) -> str:
        """The folder's, where the file's own is every one's."""
        if file.name != PIVOT:
            return file.stem
        within = file.parent.relative_to(self.path) if self.path.is_dir() else Path(file.parent.name)
        return within.as_posix() if within.name else self.path.name

    def _w(self, i: int) -> Tensor:
        file = self.files[i]
        plain_file(file, f"--codes {file}")
        try:
            w = read_torch(file)
        except (
            Exception
        ) as error:  # zip, pickle and tensor errors of many types; all mean the same to the user
            raise UserError(
                f"--codes {file} cannot be read as a tensor: damaged, or of another format"
            ) from error
        check({"w": w}, CODE, f"--codes {file}")
        return w.float()

    def read(self, i: int, keys: Sequence[str] = ()) -> Code:
        w = self._w(i)
        if w.shape[1:] != self.code_shape:
            raise UserError(f"--codes {self.files[i]} has another number of layers than the first code there")
        return {"w": w}

    def check_generator(self, G: LatentGenerator, checkpoint: str) -> None:
        """Raise `UserError` where the generator takes codes of another shape: more they do not tell."""
        if self.code_shape != (G.layers, G.style_dim):
            theirs, own = (
                f"{layers} x {width}" for layers, width in (self.code_shape, (G.layers, G.style_dim))
            )
            what = f"--codes {self.path} hold {theirs} numbers, {checkpoint} takes {own}"
            raise UserError(f"{what}: give the generator that was tuned there")

    def check_method(self, method: Inverter, checkpoint: str) -> None:
        self.check_generator(generator_of(method), checkpoint)


def read_codes(path: Path) -> Codes:
    """What `invert` wrote, now or in earlier versions, or pivots that PTI's release saved.

    Raises:
        UserError: it is missing, damaged, or holds something else.
    """
    if path.suffix == ".pt" or (path.is_dir() and not (path / FOLDER).is_dir() and any(path.rglob(PIVOT))):
        return Pivots(path)
    if (path / FILE_OF_ALL).is_file() and not (path / FOLDER).is_dir():
        path = path / FILE_OF_ALL
    if path.is_dir():
        return FolderOfCodes(path)
    return FileOfCodes(path)


def open_codes_file(path: Path) -> Any:
    """A safetensors file whose tensors are read when they are asked for. Raises `UserError`."""
    plain_file(path, f"--codes {path}")
    try:
        return safetensors.safe_open(path, "pt")
    except (safetensors.SafetensorError, OSError) as error:
        raise UserError(
            f"--codes {path} cannot be read as safetensors: truncated, damaged or of another format"
        ) from error


def origin_of(file: Any, path: Path, expected: str) -> Origin:
    """What made the codes of a file. Raises `UserError` where it is of another format than `expected`."""
    metadata = file.metadata() or {}
    found = metadata.get("format")
    if found != expected:
        raise UserError(f"--codes {path} holds no codes: its format is {found!r}, expected {expected!r}")
    try:
        return Origin.read(json.loads(metadata["code" if expected == FORMAT else "codes"]))
    except (KeyError, ValueError, RecursionError) as error:
        raise UserError(f"--codes {path} is damaged: it does not say what its codes are") from error


def shape_of_w(file: Any, path: Path) -> tuple[int, int]:
    """(L, D) of a file's w (B, L, D). Raises `UserError` where it has none."""
    shape = file.get_slice("w").get_shape() if "w" in file.keys() else []  # noqa: SIM118
    if len(shape) != 3:
        raise UserError(f"--codes {path} is damaged: expected w (B, L, D)")
    return shape[1], shape[2]


def check_name(name: str, path: Path) -> None:
    """Raise `UserError` for an image's name that leads out of the folder where its edits are written."""
    pure = PurePosixPath(name)
    drive = re.match("[A-Za-z]:/", name)
    if pure.is_absolute() or ".." in pure.parts or not pure.name or "\0" in name or "\\" in name or drive:
        raise UserError(f"--codes {path} is damaged: {name!r} cannot be the name of an image")
