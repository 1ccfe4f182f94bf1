"""python -m experiments.embed, and what the names it makes stand for, everywhere."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path, PurePath

import pytest
import safetensors.torch
import torch

from _runtime import UserError
from experiments import embed
from experiments.evaluate import run_of
from lightning_modules import embedded
from lightning_modules.checkpoints import read_checkpoint
from lightning_modules.embedded.packing import in_order
from lightning_modules.methods import build, load_method
from lightning_modules.metrics.portraits import PortraitFeatures
from lightning_modules.starts import Start
from tests.experiments.standins import checkpoint, embed_all, networks
from tests.lightning_modules.steps import TINY

ROOT = Path(embed.__file__).parents[1]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory):
    """The stand-ins' methods by name, their files embedded and their checkpoints in the working directory."""
    folder, source = tmp_path_factory.mktemp("embedded"), tmp_path_factory.mktemp("source")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(embedded, "FOLDER", folder)
        patch.chdir(source)
        yield embed_all(source, folder)


@pytest.fixture
def own(made, tmp_path, monkeypatch) -> Path:
    """A copy of the embedded files that a test may change."""
    for file in embedded.FOLDER.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    monkeypatch.setattr(embedded, "FOLDER", tmp_path)
    return tmp_path


def call(name: str, source: str, *more: str) -> int:
    return embed.main(["--name", name, "--checkpoint", source, "--made_by", "a command", *more])


def change(name: str, state: dict[str, torch.Tensor], source: str) -> str:
    """The checkpoint of a stand-in with other tensors."""
    content = torch.load(source, weights_only=True)
    content["state_dict"] |= state
    torch.save(content, Path(source).with_name(f"{name}.ckpt"))
    return str(Path(source).with_name(f"{name}.ckpt"))


def made_scorer():
    return load_method("Scorer.ckpt")[0]


# --- what is stored ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", embedded.NAMES)
def test_a_network_comes_back_whole_in_half_precision(name: str, made) -> None:
    method, content = load_method(name)
    assert content["suite"]["iteration"] == 7
    full = made[name].state_dict()
    for key, value in method.state_dict().items():
        assert value.dtype == full[key].dtype
        if key.startswith("G.") and f"G_ema.{key[2:]}" in full:
            full[key] = full[f"G_ema.{key[2:]}"]
        if name == embedded.GPEN and key.startswith("D."):
            full[key] = made[embedded.PRIOR].state_dict()[key]
        if value.is_floating_point():
            assert torch.allclose(value, full[key], rtol=2**-11, atol=2**-25), key
        else:
            assert torch.equal(value, full[key]), key
        if value.ndim < 2:
            assert torch.equal(value, full[key]), key


def test_what_another_network_holds_is_not_stored_again(made) -> None:
    parts = {}
    for name in embedded.NAMES:
        tensors = safetensors.torch.load_file(embedded.FOLDER / embedded.rows()[name].file)
        parts[name] = {key.partition(".")[0] for key in tensors}
        assert all(value.dtype != torch.float32 or value.ndim < 2 for value in tensors.values())
    assert parts[embedded.PRIOR] >= {"G_ema", "D"}
    assert "G" not in parts[embedded.PRIOR]
    assert parts[embedded.GPEN] == {"G_ema"}
    assert "G" not in parts[embedded.E4E]
    assert parts[embedded.HFGI] == {"A", "C"}


def test_the_table_says_what_the_files_are(made) -> None:
    rows = embedded.rows()
    assert list(rows) == list(embedded.NAMES)
    for row in rows.values():
        data = (embedded.FOLDER / row.file).read_bytes()
        assert (row.sha256, row.bytes) == (hashlib.sha256(data).hexdigest(), len(data))
        assert (row.licence, row.command) == ("MIT", "python -m tests")
        assert row.trained_on == "rendered portraits of 32 px, 28 images"


def test_the_same_checkpoint_gives_the_same_bytes_in_another_process(made, tmp_path) -> None:
    (tmp_path / embedded.TABLE).write_text("{}")
    code = (
        "import sys; from pathlib import Path; from lightning_modules import embedded; "
        "from experiments import embed; "
        "embedded.FOLDER = Path(sys.argv[1]); embed.main(sys.argv[2:])"
    )
    source = str(Path("GANPrior.ckpt").resolve())
    arguments = ["--name", embedded.PRIOR, "--checkpoint", source, "--made_by", "python -m tests"]
    command = [sys.executable, "-c", code, str(tmp_path), *arguments]
    subprocess.run(command, check=True, capture_output=True, cwd=ROOT)
    again, first = tmp_path / "prior.safetensors", embedded.FOLDER / "prior.safetensors"
    assert again.read_bytes() == first.read_bytes()


def test_metadata_are_in_the_order_of_their_names() -> None:
    """Which safetensors leaves to chance."""
    tensor = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
    files = []
    for names in (("a", "b"), ("b", "a")):
        header = json.dumps({"__metadata__": dict.fromkeys(names, "1"), "x": tensor}).encode()
        files.append(in_order(len(header).to_bytes(8, "little") + header + bytes(4)))
    assert files[0] == files[1]
    assert torch.equal(safetensors.torch.load(files[0])["x"], torch.zeros(1))


def test_no_path_of_the_machine_is_left(made) -> None:
    content = read_checkpoint(embedded.E4E)
    assert content["callbacks"]["Metrics"]["scorer"] == embedded.SCORER
    assert b"runs/x" not in (embedded.FOLDER / "e4e.safetensors").read_bytes()


def test_the_difference_of_the_output_is_told(own, capsys) -> None:
    call(embedded.SCORER, "Scorer.ckpt", "--overwrite")
    found = re.search(r"by at most ([\d.]+)% of the largest", capsys.readouterr().out)
    assert found is not None
    assert 0 < float(found[1]) < 1


# --- what is refused --------------------------------------------------------------------------------


def test_a_value_beyond_half_precision_is_refused(own) -> None:
    weight = made_scorer().net.to_attributes.weight.detach()
    source = change("large", {"net.to_attributes.weight": torch.full_like(weight, 7e4)}, "Scorer.ckpt")
    with pytest.raises(
        UserError, match=r"net.to_attributes.weight holds 7e\+04: half precision ends at 65504"
    ):
        call(embedded.SCORER, source, "--overwrite")


def test_values_too_small_for_half_precision_are_refused(own) -> None:
    small = {"net.to_attributes.weight": 1e-7 * made_scorer().net.to_attributes.weight.detach()}
    with pytest.raises(UserError, match=r"net.to_attributes.weight is off by \d.* in half precision"):
        call(embedded.SCORER, change("small", small, "Scorer.ckpt"), "--overwrite")


def test_an_encoder_of_another_prior_is_refused(own) -> None:
    state = torch.load("E4E.ckpt", weights_only=True)["state_dict"]
    key = next(key for key in state if key.startswith("G.") and state[key].ndim > 1)
    with pytest.raises(UserError, match=f"its G is not that of {embedded.PRIOR}"):
        call(embedded.E4E, change("other", {key: 2 * state[key]}, "E4E.ckpt"), "--overwrite")


@pytest.mark.parametrize("data", [{"root": "ffhq.zip"}, {"pairs": "pairs/"}])
def test_photographs_are_refused(data: dict[str, str], own, tmp_path) -> None:
    file = checkpoint(networks()[embedded.SCORER], tmp_path / "seen.ckpt", **data)
    with pytest.raises(UserError, match="was not trained on rendered portraits alone"):
        call(embedded.SCORER, file, "--overwrite")


def test_another_method_is_refused(own) -> None:
    with pytest.raises(UserError, match="is a checkpoint of scorer, portraits/e4e is of e4e"):
        call(embedded.E4E, "Scorer.ckpt", "--overwrite")


def test_nothing_is_replaced_unasked(own) -> None:
    with pytest.raises(UserError, match="is embedded already: give --overwrite"):
        call(embedded.SCORER, "Scorer.ckpt")


def test_more_than_8_mb_is_refused(own) -> None:
    table = json.loads((own / embedded.TABLE).read_text())
    table[embedded.GPEN]["bytes"] = 8_000_000
    (own / embedded.TABLE).write_text(json.dumps(table))
    with pytest.raises(UserError, match="at most 8,000,000"):
        call(embedded.SCORER, "Scorer.ckpt", "--overwrite")


# --- what names stand for ---------------------------------------------------------------------------


def test_names_stand_where_paths_may(made) -> None:
    assert Start("prior", "portraits").method == "gan_prior"
    options = {key: value for key, value in TINY["gpen"].items() if key != "prior"}
    gpen = build("gpen", **options, prior="portraits")
    gpen.check_start()
    gpen.initialise()
    assert torch.equal(gpen.D.from_rgb.weight, load_method(embedded.PRIOR)[0].D.from_rgb.weight)
    hfgi = build("hfgi", **{**TINY["hfgi"], "base": embedded.E4E})
    hfgi.initialise()
    assert hfgi.base._active == 3
    digest = embedded.rows()[embedded.SCORER].sha256[:12]
    assert f"sha256 {digest}" in PortraitFeatures(embedded.SCORER).protocol


def test_a_file_of_that_name_is_given_with_its_folder(own, monkeypatch) -> None:
    (own / "portraits").mkdir()
    made_here = checkpoint(networks()[embedded.SCORER], own / "portraits/e4e")
    monkeypatch.chdir(own)
    assert made_here
    assert load_method(embedded.E4E)[1]["suite"]["method"] == "e4e"
    assert load_method("./portraits/e4e")[1]["suite"]["method"] == "scorer"
    (own / "portraits/mine").write_bytes(b"")
    with pytest.raises(UserError, match="the file is given as ./portraits/mine"):
        read_checkpoint("portraits/mine")


def test_results_lie_beside_other_runs_where_nothing_else_is_said() -> None:
    """Not in a folder `portraits` that nobody has asked for."""
    assert run_of(Path("portraits/gpen")) == Path("runs/portraits-gpen")
    assert run_of(Path("runs/x/checkpoints/best.ckpt")) == Path("runs/x")


@pytest.mark.parametrize("wrong", ["portraits/e4", "portrait/e4e", "portraits/e4e.ckpt", "Portraits/e4e"])
def test_a_wrong_name_is_answered_with_the_nearest(wrong: str, made) -> None:
    with pytest.raises(UserError, match="did you mean 'portraits/e4e'\\?$"):
        read_checkpoint(wrong)


def test_other_paths_are_files() -> None:
    with pytest.raises(UserError, match=r"^checkpoint runs/best.ckpt does not exist$"):
        read_checkpoint("runs/best.ckpt")
    assert not any(map(embedded.is_name, ("portraits/a/b", "portraits/x.ckpt", "portraits/", "faces/e4e")))


def test_a_damaged_file_is_told(own) -> None:
    file = own / "e4e.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    for name in (embedded.E4E, embedded.HFGI):  # which has it for its base
        with pytest.raises(UserError, match=r"^portraits/e4e is damaged .*: install the suite again$"):
            read_checkpoint(name)
    assert embedded.state(embedded.E4E) == "wrong hash"
    file.unlink()
    with pytest.raises(UserError, match=r"portraits/e4e is missing from this installation"):
        read_checkpoint(embedded.E4E)


def test_a_base_that_was_replaced_is_told(own, capsys) -> None:
    other = networks()[embedded.E4E]
    other.G.load_state_dict(load_method(embedded.PRIOR)[0].G_ema.state_dict())
    with torch.no_grad():
        next(other.E.parameters()).add_(1)
    call(embedded.E4E, checkpoint(other, own / "again.ckpt"), "--overwrite")
    assert (
        "portraits/hfgi was made beside the portraits/e4e before: embed it again" in capsys.readouterr().out
    )
    with pytest.raises(UserError, match="portraits/hfgi was made beside another portraits/e4e"):
        read_checkpoint(embedded.HFGI)


def test_what_this_version_does_not_have_is_told(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(embedded, "FOLDER", tmp_path)
    (tmp_path / embedded.TABLE).write_text("{}")
    line = (
        "portraits/prior is not shipped with this version: python -m experiments.reproduce prior trains one"
    )
    with pytest.raises(UserError, match=f"^{line}"):
        read_checkpoint("portraits")
    (tmp_path / embedded.TABLE).write_text("{")
    with pytest.raises(UserError, match=r"embedded.json is damaged: install the suite again$"):
        read_checkpoint("portraits")


def test_an_installation_has_the_table_and_the_files(made) -> None:
    """As pyproject.toml says; without one of these patterns names would work in a clone only."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    patterns = project["tool"]["setuptools"]["package-data"]["lightning_modules"]
    for name in [embedded.TABLE, *(row.file for row in embedded.rows().values())]:
        assert any(PurePath("embedded", name).match(pattern) for pattern in patterns), name


def test_the_installed_table_and_files_are_whole() -> None:
    """Of the version as it is, whatever it has."""
    for name in embedded.rows():
        assert embedded.state(name) == "embedded"
        assert load_method(name)[1]["suite"]["method"] == embedded.NAMES[name].method
    assert sum(row.bytes for row in embedded.rows().values()) <= embed.MOST_BYTES
