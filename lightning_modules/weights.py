"""The pretrained files this suite uses, and where they are looked for; `fetch` alone touches the network.

Search order: the folder in the environment variable `FACE_SUITE_WEIGHTS` (the commands' `--weights_dir` sets
it), then torch's cache. The SHA-256 is compared every time a file is found: torch.hub takes whatever lies in
its cache under the right name.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import socket
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from _runtime import UserError, nearest

if TYPE_CHECKING:
    from torch import Tensor

FOLDER_VARIABLE = "FACE_SUITE_WEIGHTS"
TIMEOUT = 30  # seconds without a single byte


@dataclass(frozen=True)
class Weights:
    """One published file.

    Attributes:
        what: what it is.
        file: its name on disk.
        sha256: the hash or the beginning of it, as published; None where none was.
        licence: as its publisher states it; None where they do not.
        page: where it is published.
        url: direct link; None where it must be fetched by hand.
    """

    what: str
    file: str
    sha256: str | None
    licence: str | None
    page: str
    url: str | None


_TORCH = "https://download.pytorch.org/models/"
_FIDELITY = "https://github.com/toshas/torch-fidelity/releases/"
_GPEN = "https://public-vigen-video.oss-cn-shanghai.aliyuncs.com/robin/models/"
_MOCO = "https://dl.fbaipublicfiles.com/moco/moco_checkpoints/moco_v2_800ep/"
_GFPGAN = "https://github.com/TencentARC/GFPGAN/releases/"
_GFPGAN_LICENCE = "Apache-2.0 (GFPGAN)"
_FACEXLIB = "https://github.com/xinntao/facexlib/releases/"
_YUNET = "https://media.githubusercontent.com/media/opencv/opencv_zoo/main/models/face_detection_yunet/"
_NVIDIA = "NVIDIA Source Code, non-commercial"
_GENFORCE = "https://github.com/genforce/genforce/blob/master/MODEL_ZOO.md ({})"
_E4E = "https://github.com/omertov/encoder4editing (Pretrained Models: {})"
_PSP = "https://github.com/eladrich/pixel2style2pixel (Pretrained Models: {})"
_GFPGAN_MORE = "https://github.com/TencentARC/GFPGAN (Model Zoo: more models)"
_BDINVERT = "https://github.com/kkang831/BDInvert_Release (README: pre-trained base-code encoder)"
_IDINVERT = "https://github.com/genforce/idinvert_pytorch (README: pre-trained models)"
_PARSER = "https://github.com/zllrunning/face-parsing.PyTorch (Pre-trained Model)"
_HFGI = "https://github.com/Tengfei-Wang/HFGI (Pretrained Models: {})"


def _gpen(what: str, file: str) -> Weights:
    licence, page = "academic, non-commercial", "https://github.com/yangxy/GPEN"
    return Weights(what, file, None, licence, page, url=_GPEN + file)


def _gfpgan(what: str, file: str, release: str) -> Weights:
    page, url = f"{_GFPGAN}tag/{release}", f"{_GFPGAN}download/{release}/{file}"
    return Weights(f"GFP-GAN, 512 px, {what}", file, None, _GFPGAN_LICENCE, page, url)


def _by_hand(what: str, file: str, page: str, licence: str | None = "MIT") -> Weights:
    """A file on a drive that asks for a confirmation."""
    return Weights(what, file, None, licence, page, url=None)


# those of lpips, contextual, features, identity, landmarks, niqe, fid/inception and parser/resnet18 are
# loaded by name and fid/ffhq-512 by its path; the others are sources for experiments.import_checkpoint
WEIGHTS: dict[str, Weights] = {
    "lpips/alex": Weights(
        what="AlexNet, trunk of LPIPS",
        file="alexnet-owt-7be5be79.pth",
        sha256="7be5be79",
        licence="BSD-3-Clause (torchvision)",
        page="https://docs.pytorch.org/vision/stable/models/alexnet.html",
        url=f"{_TORCH}alexnet-owt-7be5be79.pth",
    ),
    "lpips/vgg": Weights(
        what="VGG-16, trunk of LPIPS",
        file="vgg16-397923af.pth",
        sha256="397923af",
        licence="BSD-3-Clause (torchvision)",
        page="https://docs.pytorch.org/vision/stable/models/vgg.html",
        url=f"{_TORCH}vgg16-397923af.pth",
    ),
    "contextual/vgg19": Weights(
        what="VGG-19, features of the contextual loss",
        file="vgg19-dcbb9e9d.pth",
        sha256="dcbb9e9d",
        licence="BSD-3-Clause (torchvision)",
        page="https://docs.pytorch.org/vision/stable/models/vgg.html",
        url=f"{_TORCH}vgg19-dcbb9e9d.pth",
    ),
    "features/vgg16": Weights(
        what="VGG-16 of its authors, features of IDInvert's loss",
        file="vgg16_features-amdegroot-88682ab5.pth",
        sha256="88682ab5",
        licence="MIT (amdegroot/ssd.pytorch)",
        page="https://docs.pytorch.org/vision/stable/models/vgg.html",
        url=f"{_TORCH}vgg16_features-amdegroot-88682ab5.pth",
    ),
    "identity/arcface": Weights(
        what="ArcFace IR-SE50, features of the identity loss on faces",
        file="model_ir_se50.pth",
        sha256=None,
        licence="MIT (TreB1eN/InsightFace_Pytorch)",
        page="https://github.com/omertov/encoder4editing (Auxiliary Models: IR-SE50 Model)",
        url=f"{_GPEN}model_ir_se50.pth",  # the one published with GPEN; e4e's lies on Google Drive
    ),
    "identity/arcface-r18": Weights(
        what="ArcFace ResNet-18 on grey levels, features of GFP-GAN's identity loss",
        file="arcface_resnet18.pth",
        sha256=None,
        licence=_GFPGAN_LICENCE,
        page=f"{_GFPGAN}tag/v0.1.0",
        url=f"{_GFPGAN}download/v0.1.0/arcface_resnet18.pth",
    ),
    "identity/moco": Weights(
        what="MoCo-v2 ResNet-50 (800 epochs), features of the identity loss on other images",
        file="moco_v2_800ep_pretrain.pth.tar",
        sha256=None,  # an MD5 is published
        licence="CC-BY-NC-4.0",
        page="https://github.com/facebookresearch/moco",
        url=f"{_MOCO}moco_v2_800ep_pretrain.pth.tar",
    ),
    "parser/resnet18": Weights(
        what="ResNet-18 on ImageNet, from which a parser's training starts",
        file="resnet18-f37072fd.pth",
        sha256="f37072fd",
        licence="BSD-3-Clause (torchvision)",
        page="https://docs.pytorch.org/vision/stable/models/resnet.html",
        url=f"{_TORCH}resnet18-f37072fd.pth",
    ),
    "fid/inception": Weights(
        what="Inception-v3 (TensorFlow, 2015), features of FID",
        file="weights-inception-2015-12-05-6726825d.pth",
        sha256="6726825d",
        licence="Apache-2.0",
        page=f"{_FIDELITY}tag/v0.2.0",
        url=f"{_FIDELITY}download/v0.2.0/weights-inception-2015-12-05-6726825d.pth",
    ),
    "fid/ffhq-512": Weights(
        what="FFHQ's statistics at 512 px (50,000 images), for --metrics.fid_reference",
        file="inception_FFHQ_512-f7b384ab.pth",
        sha256="f7b384ab",
        licence="Apache-2.0 (BasicSR)",
        page="https://github.com/XPixelGroup/BasicSR (docs/ModelZoo.md: inception feature statistics)",
        url=None,  # Google Drive asks for a confirmation
    ),
    "landmarks/yunet": Weights(
        what="YuNet, face detector of experiments.landmarks",
        file="face_detection_yunet_2023mar.onnx",
        sha256="8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4",
        licence="MIT",
        page="https://github.com/opencv/opencv_zoo (models/face_detection_yunet)",
        url=f"{_YUNET}face_detection_yunet_2023mar.onnx",
    ),
    "landmarks/wflw": Weights(
        what="stacked hourglasses for 98 landmarks, of LMD",
        file="alignment_WFLW_4HG.pth",
        sha256=None,
        licence="Apache-2.0 (AdaptiveWingLoss)",
        page=f"{_FACEXLIB}tag/v0.1.0",
        url=f"{_FACEXLIB}download/v0.1.0/alignment_WFLW_4HG.pth",
    ),
    "niqe/pristine": Weights(
        what="statistics of good photographs, of NIQE",
        file="niqe_pris_params.npz",
        sha256=None,
        licence="Apache-2.0 (BasicSR)",
        page="https://github.com/XPixelGroup/BasicSR (basicsr/metrics)",
        url="https://raw.githubusercontent.com/XPixelGroup/BasicSR/master/basicsr/metrics/niqe_pris_params.npz",
    ),
    "gpen/bfr-256": _gpen("GPEN, 256 px", "GPEN-BFR-256.pth"),
    "gpen/bfr-256-d": _gpen("GPEN, 256 px, discriminator", "GPEN-BFR-256-D.pth"),
    "gpen/bfr-512": _gpen("GPEN, 512 px", "GPEN-BFR-512.pth"),
    "gpen/bfr-512-d": _gpen("GPEN, 512 px, discriminator", "GPEN-BFR-512-D.pth"),
    "gfpgan/v1": _gfpgan("original", "GFPGANv1.pth", "v0.1.0"),
    "gfpgan/v1.2": _gfpgan("v1.2, clean", "GFPGANCleanv1-NoCE-C2.pth", "v0.2.0"),
    "gfpgan/v1.3": _gfpgan("v1.3, clean", "GFPGANv1.3.pth", "v1.3.0"),
    "gfpgan/v1.4": _gfpgan("v1.4, clean", "GFPGANv1.4.pth", "v1.3.0"),
    "gfpgan/v1-d": _by_hand("GFP-GAN v1, discriminator", "GFPGANv1_net_d.pth", _GFPGAN_MORE, _GFPGAN_LICENCE),
    "gfpgan/v1-d-left-eye": _by_hand(
        "GFP-GAN v1, discriminator of left eyes", "GFPGANv1_net_d_left_eye.pth", _GFPGAN_MORE, _GFPGAN_LICENCE
    ),
    "gfpgan/v1-d-right-eye": _by_hand(
        "GFP-GAN v1, discriminator of right eyes",
        "GFPGANv1_net_d_right_eye.pth",
        _GFPGAN_MORE,
        _GFPGAN_LICENCE,
    ),
    "gfpgan/v1-d-mouth": _by_hand(
        "GFP-GAN v1, discriminator of mouths", "GFPGANv1_net_d_mouth.pth", _GFPGAN_MORE, _GFPGAN_LICENCE
    ),
    "e4e/ffhq-1024": _by_hand("e4e, FFHQ, 1024 px", "e4e_ffhq_encode.pt", _E4E.format("FFHQ Inversion")),
    "e4e/cars-512": _by_hand("e4e, cars, 512 px", "e4e_cars_encode.pt", _E4E.format("Cars Inversion")),
    "e4e/horse-256": _by_hand("e4e, horses, 256 px", "e4e_horse_encode.pt", _E4E.format("Horse Inversion")),
    "e4e/church-256": _by_hand(
        "e4e, churches, 256 px", "e4e_church_encode.pt", _E4E.format("Church Inversion")
    ),
    "psp/ffhq-1024": _by_hand("pSp, FFHQ, 1024 px", "psp_ffhq_encode.pt", _PSP.format("StyleGAN Inversion")),
    "hfgi/ffhq-1024": _by_hand("HFGI, FFHQ, 1024 px", "ckpt.pt", _HFGI.format("Face Editing"), licence=None),
    "bdinvert/ffhq-1024-16": _by_hand(
        "BDInvert, FFHQ, 1024 px, encoder of 16 px base codes",
        "encoder_stylegan2_ffhq1024_basesize16.pth",
        _BDINVERT,
        licence=None,
    ),
    "parser/celebamask-512": _by_hand("BiSeNet, CelebAMask-HQ, 512 px", "79999_iter.pth", _PARSER),
    "stylegan2/rosinality-1024": Weights(
        what="StyleGAN2, FFHQ 1024 px, rosinality's layout",
        file="stylegan2-ffhq-config-f.pt",
        sha256=None,
        licence=_NVIDIA,  # converted from NVIDIA's own file
        page="https://github.com/omertov/encoder4editing (Auxiliary Models: FFHQ StyleGAN)",
        url=None,  # Google Drive asks for a confirmation
    ),
    "stylegan2/basicsr-512": Weights(
        what="StyleGAN2, FFHQ 512 px, BasicSR's layout",
        file="StyleGAN2_512_Cmul1_FFHQ_B12G4_scratch_800k.pth",
        sha256=None,
        licence=_GFPGAN_LICENCE,
        page=f"{_GFPGAN}tag/v0.1.0",
        url=f"{_GFPGAN}download/v0.1.0/StyleGAN2_512_Cmul1_FFHQ_B12G4_scratch_800k.pth",
    ),
    "stylegan2/genforce-1024": _by_hand(
        "StyleGAN2, FFHQ 1024 px, GenForce's layout",
        "stylegan2_ffhq1024.pth",
        _GENFORCE.format("StyleGAN2 Official: ffhq"),
        licence=_NVIDIA,  # converted from NVIDIA's own file; GenForce states none for weights
    ),
    "stylegan1/genforce-bedroom-256": _by_hand(
        "StyleGAN, LSUN bedroom 256 px, GenForce's layout",
        "stylegan_bedroom256.pth",
        _GENFORCE.format("StyleGAN Official: bedroom"),
        licence="CC BY-NC 4.0 (NVIDIA)",  # converted as well, of NVlabs/stylegan
    ),
    "stylegan1/genforce-tower-256": _by_hand(
        "StyleGAN, LSUN tower 256 px, GenForce's layout",
        "stylegan_tower256.pth",
        _GENFORCE.format("StyleGAN Ours: tower"),
        licence="not stated (GenForce's code: MIT)",
    ),
    "stylegan1/idinvert-ffhq-256": _by_hand(
        "StyleGAN of IDInvert, a w for each layer, FFHQ 256 px",
        "styleganinv_ffhq256_generator.pth",
        _IDINVERT,
        licence=None,
    ),
    "idinvert/ffhq-256": _by_hand(
        "encoder of IDInvert for that generator", "styleganinv_ffhq256_encoder.pth", _IDINVERT, licence=None
    ),
    "stylegan2/nvlabs-1024": Weights(
        what="StyleGAN2, FFHQ 1024 px, NVlabs' pickle",
        file="ffhq.pkl",
        sha256=None,
        licence=_NVIDIA,
        page="https://github.com/NVlabs/stylegan2-ada-pytorch",
        url="https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/ffhq.pkl",
    ),
}


def folders() -> list[Path]:
    """Where files are looked for, in this order; `fetch` writes to the first."""
    import torch

    cache = Path(torch.hub.get_dir()) / "checkpoints"
    chosen = os.environ.get(FOLDER_VARIABLE)
    if not chosen:
        return [cache]
    return [Path(chosen).expanduser(), cache]


def lookup(name: str) -> Weights:
    """The table's entry. `UserError` for an unknown name, with the nearest known one."""
    if name not in WEIGHTS:
        raise UserError(f"unknown weights {name!r}: {nearest(name, WEIGHTS)}")
    return WEIGHTS[name]


_NOTED: list[list[str]] = []  # the lists of `noted` that are open


def licence_of(file: str) -> str | None:
    """The licence of a published file of that name; None where the table has none."""
    for weights in WEIGHTS.values():
        if weights.file == file:
            return weights.licence
    return None


def find(name: str) -> Path:
    """The file on disk, its hash checked where one is published. Never touches the network.

    Raises:
        UserError: the file is in none of the folders, cannot be read, or is another file than the published
            one.
    """
    weights = lookup(name)
    path = _locate(weights)
    if path is None:
        way_out = f"put {weights.file} from {weights.page} into {folders()[0]}"
        if weights.url is not None:
            way_out += f", or run: python -m experiments.weights fetch {name}"
        raise UserError(f"weights {name!r} not found: {way_out}")
    if weights.sha256 is not None:
        _check(name, path, sha256(path), f"delete it or put the real file from {weights.page} there")
    for files in _NOTED:
        if weights.file not in files:
            files.append(weights.file)
    return path


@contextlib.contextmanager
def noted() -> Iterator[list[str]]:
    """Gives a list, to which the names of the files are added that are found within the context."""
    files: list[str] = []
    _NOTED.append(files)
    try:
        yield files
    finally:
        _NOTED.remove(files)


def state(name: str) -> str:
    """`found`, `missing`, `wrong hash`, or `found, unchecked` where no hash is published."""
    weights = lookup(name)
    path = _locate(weights)
    if path is None:
        return "missing"
    if weights.sha256 is None:
        return "found, unchecked"
    return "found" if sha256(path).startswith(weights.sha256) else "wrong hash"


def read(name: str) -> dict[str, Tensor]:
    """The tensors of a file by name, on the CPU; nothing in the file is executed.

    It is a state_dict, or has one under that name, beside records that are not looked at.

    Raises:
        UserError: see `find`, or the file holds something else.
    """
    from torch import Tensor

    from lightning_modules.formats import foreign, read_torch
    from lightning_modules.schema import Of, Table, check

    path = find(name)
    what = foreign(path)
    if what is not None:
        raise UserError(f"weights {name!r}: {path} is {what}")
    try:
        state = read_torch(path)
    except Exception as error:  # zip, pickle and tensor errors of many types; all mean the same to the user
        what = f"weights {name!r}: {path} cannot be read as tensors ({type(error).__name__})"
        raise UserError(f"{what}: truncated or not weights") from error
    check(state, Table(), f"weights {name!r}: {path}")
    tensors = state.get("state_dict", state)
    check(tensors, Table(Of(Tensor)), f"weights {name!r}: {path}")
    return tensors


def read_arrays(name: str) -> dict[str, Tensor]:
    """The arrays of numbers of an .npz file by name; nothing in the file is executed.

    Raises:
        UserError: see `find`, or the file holds something else.
    """
    from lightning_modules.formats import read_npz

    return read_npz(find(name), f"weights {name!r}")


def fetch(name: str) -> Path:
    """Download a file to the first folder; one that is found already stays as it is.

    It is complete and checked, or not there at all.

    Raises:
        UserError: there is no direct link, the download or the writing fails, or the hash is not the
            published one.
    """
    weights = lookup(name)
    if _locate(weights) is not None:
        return find(name)
    by_hand = f"put {weights.file} from {weights.page} into {folders()[0]} by hand"
    if weights.url is None:
        raise UserError(f"weights {name!r} have no direct link: {by_hand}")
    path = folders()[0] / weights.file
    part = path.with_name(f".{path.name}.{os.getpid()}.part")  # of this process: two may fetch the same file
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{path.parent} cannot be created: {error.strerror}") from error
    try:
        _download(weights.url, part)
        if weights.sha256 is not None:
            _check(name, weights.url, sha256(part), "nothing was kept")
        part.replace(path)
    except (OSError, http.client.HTTPException) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        failed = f"weights {name!r} could not be fetched from {weights.url} ({reason})"
        raise UserError(f"{failed}: {by_hand}") from error
    finally:
        with contextlib.suppress(OSError):  # on a disk that cannot be written
            part.unlink(missing_ok=True)
    return path


def _download(url: str, path: Path) -> None:
    """Write what `url` gives to `path`.

    Raises:
        OSError: the connection fails, stalls, or ends before the whole file is there.
    """
    import torch

    expected = _announced(url)
    timeout = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT)  # torch's download has none
    try:
        torch.hub.download_url_to_file(url, str(path), progress=sys.stderr.isatty())
    finally:
        socket.setdefaulttimeout(timeout)
    size = path.stat().st_size
    if expected is not None and size != expected:  # a dropped connection looks like the end of the file
        raise OSError(f"the connection ended after {size} of {expected} bytes")


def _announced(url: str) -> int | None:
    """How many bytes a file has, as its server says; torch's download does not compare."""
    with urllib.request.urlopen(url, timeout=TIMEOUT) as response:
        length = response.headers.get("Content-Length")
    return int(length) if length else None


def _locate(weights: Weights) -> Path | None:
    """The first file of that name, None where there is none."""
    for folder in folders():
        path = folder / weights.file
        if path.is_file():
            return path
    return None


def sha256(path: Path) -> str:
    """Of a file, in hexadecimal; `UserError` if it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error


def _check(name: str, source: Path | str, found: str, way_out: str) -> None:
    """`UserError` if `found`, the hash of what `source` holds, is not the published one."""
    expected = WEIGHTS[name].sha256 or ""
    if not found.startswith(expected):
        got = f"{source} has sha256 {found[: len(expected)]}, expected {expected}"
        raise UserError(f"weights {name!r}: {got}: {way_out}")
