"""The snippets of docs/api.md run as they are written, one after the other, beside tiny checkpoints.

Of the other pages every command and option is one that there is, and every link leads somewhere.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from lightning_modules.editing import directions
from lightning_modules.methods import METHODS
from tests.experiments.inverters import untrained
from tests.lightning_modules.steps import SIZE, tiny

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
# of SLURM, torchrun and what a shell script of ours reads
FOREIGN = {"--gpus-per-node", "--signal", "--nproc_per_node", "--array", "--constraint", "--editable"}
PACKAGES = ("callbacks", "datamodules", "experiments", "lightning_modules")


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The names that the snippets leave behind, and as `folder` where they ran."""
    folder = tmp_path_factory.mktemp("docs")
    methods = {
        "gpen": "gpen",
        "e4e": "e4e",
        "stylefusion": "stylefusion",
        "hfgi_sf": "hfgi_sf",
        "gan_prior": "prior",
    }
    for method, name in methods.items():
        Path(untrained(folder, method)).rename(folder / f"{name}.ckpt")
    style_dim = tiny("e4e").G.style_dim
    smile = directions.Direction(
        "smile", "interfacegan", torch.nn.functional.normalize(torch.ones(1, style_dim))
    )
    directions.save(smile, folder / "smile.safetensors")
    draw = torch.rand(48, 40, 3, generator=torch.Generator().manual_seed(0)).mul(255).byte().numpy()
    Image.fromarray(draw).save(folder / "face.png")
    names: dict[str, Any] = {"__name__": "snippets"}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for line, code in snippets(ROOT / "docs/api.md"):
            exec(
                compile("\n" * line + code, "docs/api.md", "exec"), names
            )  # an error names its line in the page
    return {**names, "folder": folder}


def snippets(page: Path) -> list[tuple[int, str]]:
    """Line before the first, and code, of every Python block."""
    text = page.read_text()
    return [
        (text[: found.start(1)].count("\n"), found[1])
        for found in re.finditer(r"^```python\n(.*?)^```$", text, re.M | re.S)
    ]


def test_pictures_are_restored_inverted_and_edited(said) -> None:
    assert (
        said["x"].shape
        == said["restored"].shape
        == said["inverted"].shape
        == said["edited"].shape
        == (1, 3, SIZE, SIZE)
    )
    assert (said["folder"] / "restored.png").exists()
    assert not torch.equal(said["edited"], said["inverted"])


def test_faces_are_fused(said) -> None:
    assert said["fused"].shape == (1, 3, SIZE, SIZE)
    assert said["where"].mask.shape == (1, 1, SIZE, SIZE)


def test_edits_come_with_what_they_are_made_of(said) -> None:
    assert said["parts"]["y"].shape == said["parts"]["own"].shape == (1, 3, SIZE, SIZE)


def test_generators_draw(said) -> None:
    assert said["images"].shape == (2, 3, 64, 64)
    assert said["logits"].shape[0] == 2
    assert said["samples"].shape == (4, 3, SIZE, SIZE)


def test_data_and_scores_are_there(said) -> None:
    assert torch.cat(said["held_out"]).shape == (6, 3, 64, 64)
    assert 0 < said["ssim"].compute() < 1
    assert said["scores"]["val/psnr"] == said["tested"]["test/psnr"]
    assert said["restorations"].shape == (6, 3, SIZE, SIZE)


def test_trainings_leave_checkpoints(said) -> None:
    assert (said["folder"] / "runs/mine/checkpoints/last.ckpt").exists()
    assert said["mine"].iteration == 20
    assert all(
        torch.equal(value, said["mine"].state_dict()[name])
        for name, value in said["method"].state_dict().items()
    )


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_say_that_they_are_typed(package: str) -> None:
    assert (ROOT / package / "py.typed").exists()


def commands(page: Path) -> Iterator[list[str]]:
    """The words of every command of ours in a page's shell blocks, from its module on."""
    for found in re.finditer(r"^```sh\n(.*?)^```$", page.read_text(), re.M | re.S):
        for line in found[1].replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            modules = [i for i, word in enumerate(words) if word.startswith("experiments.")]
            if modules:
                yield words[modules[0] :]
            elif "sbatch" in words:
                script = next(i for i, word in enumerate(words) if word.endswith(".sh"))
                yield ["experiments.fit", *words[script + 1 :]]


@cache
def options_of(module: str, *first: str) -> frozenset[str]:
    """The options that a command's help lists, after the words that choose what it is about."""
    name = "experiments." + module.removeprefix("experiments.")
    package = importlib.import_module(name)
    if not hasattr(package, "main"):
        package = importlib.import_module(f"{name}.__main__")
    text = io.StringIO()
    with contextlib.redirect_stdout(text), pytest.raises(SystemExit) as ended:
        package.main([*first, "--help"])
    assert ended.value.code in (0, None)
    return frozenset(re.findall(r"--[a-z][\w.]*", text.getvalue()))


def options_for(words: list[str]) -> frozenset[str]:
    """Those of a command as it is written: of its method, its table, what it measures."""
    module, *rest = words
    first = []
    if rest and not rest[0].startswith("-") and module in ("experiments.reproduce", "experiments.benchmark"):
        first = rest[:1]
    if module in ("experiments.fit", "experiments.invert"):
        first = ["--method", rest[rest.index("--method") + 1] if "--method" in rest else "nafnet"]
        if module == "experiments.invert" and "--method" not in rest:
            first = []
    return options_of(module, *first)


@every_page
def test_commands_have_the_options_that_are_shown(page: Path) -> None:
    for words in commands(page):
        given = {word.partition("=")[0] for word in words if word.startswith("--")}
        assert not given - options_for(words), " ".join(words)


@every_page
def test_options_in_sentences_are_there(page: Path) -> None:
    """In some command, of some method."""
    known = set(FOREIGN)
    for path in sorted((ROOT / "experiments").glob("*.py")):
        if path.stem not in ("__init__", "fit"):
            known |= options_of(path.stem)
    for method in METHODS:
        known |= options_of("fit", "--method", method)
    for table in ("table1", "inversion", "ripples", "published", "natural_scenes", "out_of_range"):
        known |= options_of("reproduce", table)
    for package in ("compare", "benchmark"):
        known |= options_of(package)
    sentences = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.M | re.S)
    named = set()
    for code in re.findall(r"`([^`]+)`", sentences):
        named |= set(re.findall(r"(?<![\w-])--[a-z][\w.-]*", code))
    assert not named - known


@every_page
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", page.read_text()):
        assert (page.parent / target).exists(), target
