"""The places where commands read files: a valid file of each kind, and the call that reads it."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
import yaml
from PIL import Image

from datamodules.degradations.motion import save_kernels
from datamodules.landmarks import COMPONENTS, write_landmarks
from experiments import degrade, export, invert
from lightning_modules import pnorm
from lightning_modules.editing import directions
from lightning_modules.editing.directions import Direction
from lightning_modules.methods import load_method
from tests.experiments.inverters import smoke, untrained
from tests.lightning_modules.steps import STYLEGAN

SMOKE = ("--preset", "smoke", "--iterations", "1", "--run", "@/run")
OFF = ("--metrics.lpips", "off", "--metrics.fid", "off", "--metrics.identity", "off")


@dataclass
class Entry:
    """A place where a command reads a file.

    Attributes:
        kind: what the file is.
        source: a valid one.
        target: where the case has it, in its folder.
        command: of `experiments`.
        argv: its arguments; `@` stands for the case's folder.
        needs: other files, by where the case has them.
    """

    kind: str
    source: Path
    target: str
    command: str
    argv: Sequence[str]
    needs: dict[str, Path]

    @property
    def is_text(self) -> bool:
        """Of text nobody can tell that its end is missing."""
        return self.target.endswith((".txt", ".yaml", ".csv"))

    def build(self, folder: Path, spoil: Callable[[Path], object]) -> None:
        """The case's folder, with the valid file spoilt."""
        for name, path in {**self.needs, self.target: self.source}.items():
            place = folder / name
            place.parent.mkdir(parents=True, exist_ok=True)
            if path.is_dir():
                shutil.copytree(path, place)
            else:
                shutil.copyfile(path, place)
        spoil(folder / self.target)


def material(folder: Path) -> dict[str, Path]:
    """Valid files of all kinds."""
    files = {
        name: Path(untrained(folder, name))
        for name in ("gpen", "e4e", "psp", "gan_prior", "nafnet", "scorer")
    }
    for name in ("gpen", "psp", "nafnet", "gan_prior"):
        files[f"released {name}"] = folder / f"{name}.safetensors"
        export.main(["--checkpoint", str(files[name]), "--output", str(files[f"released {name}"])])
    files["released pickle"] = folder / "nafnet.pth"
    torch.save({"params": safetensors.torch.load_file(files["released nafnet"])}, files["released pickle"])
    files["run"] = Path(smoke(folder, "gpen")).parents[1]
    files["trained"] = files["run"] / "checkpoints/last.ckpt"

    pixels = np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8)
    for suffix in ("png", "jpg", "webp", "bmp", "tiff"):
        files[suffix] = folder / f"face.{suffix}"
        Image.fromarray(pixels).save(files[suffix])
    files["faces"] = folder / "faces"
    files["faces"].mkdir()
    for i in range(12):
        Image.fromarray(np.roll(pixels, i, 0)).save(files["faces"] / f"{i}.png")
    files["zip"] = Path(shutil.make_archive(str(folder / "faces"), "zip", files["faces"]))

    invert.main(
        [
            "--checkpoint",
            str(files["e4e"]),
            "--input",
            str(files["faces"]),
            "--output",
            str(folder / "inverted"),
        ]
    )
    files["codes"] = folder / "inverted"
    files["direction"] = folder / "smile.safetensors"
    G = load_method(files["e4e"])[0].G
    directions.save(Direction("smile", "interfacegan", torch.randn(1, G.style_dim)), files["direction"])
    files["direction.pt"], files["direction.npy"] = folder / "smile.pt", folder / "smile.npy"
    torch.save(torch.randn(1, G.style_dim), files["direction.pt"])
    np.save(files["direction.npy"], np.random.default_rng(0).normal(size=(1, G.style_dim)))

    G = load_method(files["gan_prior"])[0].G_ema
    fitted, files["pnorm"] = pnorm.fit(G, 2000), folder / "pnorm.safetensors"
    pnorm.save(fitted, G, files["pnorm"])
    for name, released in pnorm.RELEASED.items():
        files[released] = folder / f"{released}.npy"
        np.save(files[released], fitted[name].numpy())

    files["labels"] = folder / "labels.csv"
    with files["labels"].open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["name", "smile"])
        writer.writerows([f"{i}.png", i % 2] for i in range(12))
    files["kernels"] = folder / "kernels.npz"
    save_kernels(files["kernels"])
    files["config"] = folder / "config.yaml"
    files["config"].write_text(yaml.safe_dump({"method": "gpen", "iterations": 1, "model": {"lr": 1e-3}}))
    files["split"] = folder / "split.txt"
    files["split"].write_text("0.png\n1.png\n")
    files["landmarks"], files["components"] = folder / "landmarks.csv", folder / "components.pth"
    write_landmarks(files["landmarks"], {f"{i}.png": np.full((5, 2), 20.0) for i in range(12)})
    parts = {part: [256.0, 256.0, 30.0] for part in COMPONENTS}
    torch.save({f"{i:08d}": parts for i in range(12)}, files["components"])
    degrade.main(
        [
            "--output",
            str(folder / "frozen"),
            "--data.size",
            "32",
            "--data.degradation",
            "x4",
            "--data.val_images",
            "4",
        ]
    )
    files["frozen"] = folder / "frozen"
    return files


def entries(files: dict[str, Path]) -> list[Entry]:
    """Every place where a command reads a file."""
    found: list[Entry] = []

    def add(kind: str, source: str, target: str, command: str, *argv: str, **needs: str) -> None:
        others = {name.replace("__", "/").replace("_dot_", "."): files[path] for name, path in needs.items()}
        found.append(Entry(kind, files[source], target, command, argv, others))

    image = {"face_dot_png": "png"}
    out = ("--output", "@/out")
    add(
        "checkpoint, restore",
        "gpen",
        "c.ckpt",
        "restore",
        "--checkpoint",
        "c.ckpt",
        "--input",
        "face.png",
        *out,
        **image,
    )
    add(
        "checkpoint, invert",
        "e4e",
        "c.ckpt",
        "invert",
        "--checkpoint",
        "c.ckpt",
        "--input",
        "face.png",
        *out,
        **image,
    )
    add("checkpoint, sample", "gan_prior", "c.ckpt", "sample", "--checkpoint", "c.ckpt", "--count", "2", *out)
    add(
        "checkpoint, export",
        "gpen",
        "c.ckpt",
        "export",
        "--checkpoint",
        "c.ckpt",
        "--output",
        "@/o.safetensors",
    )
    add("checkpoint, evaluate", "trained", "c.ckpt", "evaluate", "--checkpoint", "c.ckpt", *out)
    add("checkpoint, resume", "trained", "c.ckpt", "fit", "--method", "gpen", *SMOKE, "--resume", "c.ckpt")
    add(
        "checkpoint, init_from",
        "trained",
        "c.ckpt",
        "fit",
        "--method",
        "gpen",
        *SMOKE,
        "--init_from",
        "c.ckpt",
    )
    shape = [f"--model.{name}={value}" for name, value in {**STYLEGAN, "noise": "add"}.items()]
    prior = ("--method", "gpen", *SMOKE, *shape, "--model.prior", "c.ckpt")
    add("checkpoint, prior", "gan_prior", "c.ckpt", "fit", *prior)
    add("checkpoint, base", "e4e", "c.ckpt", "fit", "--method", "hfgi", *SMOKE, "--model.base", "c.ckpt")
    regressor = ("--method", "gan_prior_restoration", *SMOKE, "--model.regressor", "c.ckpt")
    add("checkpoint, regressor", "nafnet", "c.ckpt", "fit", *regressor)
    add(
        "checkpoint, scorer",
        "scorer",
        "c.ckpt",
        "fit",
        "--method",
        "gpen",
        *SMOKE,
        "--metrics.scorer",
        "c.ckpt",
    )
    for method in ("gpen", "psp", "nafnet", "gan_prior"):
        call = ("--method", method, "--source", "r.safetensors", "--output", "@/o.ckpt")
        add(f"released file, {method}", f"released {method}", "r.safetensors", "import_checkpoint", *call)
    call = ("--method", "nafnet", "--source", "r.pth", "--output", "@/o.ckpt")
    add("released file, pickle", "released pickle", "r.pth", "import_checkpoint", *call)
    add("configuration", "config", "c.yaml", "fit", "--config", "c.yaml", *SMOKE)
    for suffix in ("png", "jpg", "webp", "bmp", "tiff"):
        call = ("--checkpoint", "c.ckpt", "--input", f"face.{suffix}", *out)
        add(f"picture, {suffix}", suffix, f"face.{suffix}", "restore", *call, c_dot_ckpt="gpen")
    data = ("--method", "nafnet", *SMOKE, "--data.val_images", "2", *OFF)
    add("zip of pictures", "zip", "faces.zip", "fit", *data, "--data.root", "faces.zip")
    add("zip, prepare", "zip", "faces.zip", "prepare", "--input", "faces.zip", "--size", "32", *out)
    split = ("--data.root", "faces", "--data.val_split", "split.txt")
    add("split list", "split", "split.txt", "fit", "--method", "nafnet", *SMOKE, *OFF, *split, faces="faces")
    for kind, target in (("landmarks", "landmarks.csv"), ("components", "components.pth")):
        call = (*data, "--data.root", "faces", "--data.landmarks", target)
        add(f"landmarks, {target}", kind, target, "fit", *call, faces="faces")
    call = ("--input", "face.png", "--model.features", "random", "--model.steps", "2", *out)
    add(
        "generator",
        "gan_prior",
        "g.ckpt",
        "invert",
        "--method",
        "i2s",
        "--generator",
        "g.ckpt",
        *call,
        **image,
    )
    call = ("--method", "ii2s", "--generator", "g.ckpt", *call, "--model.pnorm")
    with_prior = {"g_dot_ckpt": "gan_prior", **image}
    add("P-norm fit", "pnorm", "p.safetensors", "invert", *call, "p.safetensors", **with_prior)
    others = {"p__mean_latent_dot_npy": "mean_latent", "p__eigen_vectors_dot_npy": "eigen_vectors"}
    add("P-norm array", "eigen_values", "p/eigen_values.npy", "invert", *call, "p", **with_prior, **others)
    edit = ("--checkpoint", "c.ckpt", "--strength", "1", *out)
    add("direction, ours", "direction", "d.safetensors", "edit", *edit, "--input", "face.png", "--direction",
        "d.safetensors", c_dot_ckpt="e4e", **image)  # fmt: skip
    for suffix in ("pt", "npy"):
        name = f"d.{suffix}"
        call = (*edit, "--input", "face.png", "--direction", name)
        add(f"direction, {suffix}", f"direction.{suffix}", name, "edit", *call, c_dot_ckpt="e4e", **image)
    motion = ("--method", "nafnet", *SMOKE, "--data.degradation", "motion71", "--data.kernels", "k.npz")
    add("kernels", "kernels", "k.npz", "fit", *motion)
    labels = (
        "--find",
        "boundary",
        "--checkpoint",
        "c.ckpt",
        "--codes",
        "codes",
        "--labels",
        "l.csv",
        *out,
        "--ratio",
        "0.5",
    )
    add("labels", "labels", "l.csv", "directions", *labels, c_dot_ckpt="e4e", codes="codes")
    return found
