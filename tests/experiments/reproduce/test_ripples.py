"""python -m experiments.reproduce ripples, called in-process with the smoke preset."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from jsonargparse import Namespace
from PIL import Image

from _runtime import UserError
from experiments.fit import main as train
from experiments.reproduce import ripples, turning
from experiments.reproduce.__main__ import main
from experiments.reproduce.ripples import CONTENDERS, F1, F2, LOW, Contender, load_contender
from experiments.reproduce.rows import train_rows
from experiments.reproduce.turning import Measured
from lightning_modules.editing.directions import Direction, load, save
from tests.lightning_modules.steps import tiny


def config_of(**changed: object) -> Namespace:
    """The options that rows depend on."""
    given = {"preset": "smoke", "seeds": [0], "images": None, "prior": None, "parser": None}
    return Namespace({**given, "direction": None, "data": Namespace(root=None), **changed})


def checkpoint(folder: Path, method: str, *options: str) -> str:
    """A method with random weights in a file."""
    argv = ["--method", method, "--preset", "smoke", "--iterations", "0", "--run_dir", str(folder / method)]
    assert train([*argv, *options]) == 0
    return str(folder / method / "checkpoints/last.ckpt")


def test_tables_curves_and_figure(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["ripples", "--preset", "smoke"]) == 0
    output = tmp_path / "runs/ripples-smoke"
    result = json.loads((output / "tables.json").read_text())
    titles = [contender.title for contender in CONTENDERS]
    assert list(result["inversion"]) == titles
    for turn in ("15 degrees", "30 degrees"):
        assert list(result[turn]) == titles
        for title in titles:
            assert {"turned", "moved", "discarded", "error_background", "error_person"} <= set(
                result[turn][title]
            )
        assert len({line["area_stable"] for line in result[turn].values()}) == 1  # the same places for all
    pixels, codes = (result["30 degrees"][title] for title in ("pixels", f"{F2} C1"))
    assert pixels["error_background"] != codes["error_background"]
    tables = (output / "ripples.md").read_text()
    assert tables.count(f"| {F1} C0 |") == 3
    assert "e4e turns faces by" in tables
    assert load(output / "direction.safetensors").vectors.shape == (1, 32)
    assert Image.open(output / "figure.png").height > 1000
    assert Image.open(output / "curves.png").width > 1000
    assert "alike for all rows" in capsys.readouterr().out


def line_of(turned: float, ghost: float) -> dict[str, float]:
    return {"turned": turned, "moved": 0.1, "excess_left": ghost, "excess_came": 0.1, "discarded": 0.0}


def test_a_method_that_hardly_turns_does_not_win() -> None:
    found = {}
    for title, turned, ghost in ((LOW, -30.0, 0.0), ("A", -25.0, 0.3), ("B", -4.0, 0.0), ("C", 28.0, 0.1)):
        found[title] = Measured({}, {"30 degrees": line_of(turned, ghost)}, torch.empty(0))
    table = ripples.turn_table(found, "30 degrees")
    assert [table.competes(i) for i in range(4)] == [False, True, False, False]
    assert table.footnote[0].endswith("out of competition: B; C")
    assert "e4e turns faces by -30.0 degrees" in table.footnote[0]
    del found["B"], found["C"]
    assert "the others at least 50% as far" in ripples.turn_table(found, "30 degrees").footnote[0]


def test_without_a_scorer_the_motion_is_that_of_the_person() -> None:
    found = {}
    for title, moved in ((LOW, 0.1), ("A", 0.01)):
        found[title] = Measured({}, {"strength 3": {"moved": moved, "discarded": 0.0}}, torch.empty(0))
    table = ripples.turn_table(found, "strength 3")
    assert "in e4e's edits a person comes or goes in 10.0% of the pixels" in table.footnote[0]
    assert table.footnote[0].endswith(": A")


def test_settings_of_a_row_are_those_of_the_method(tmp_path: Path) -> None:
    path = Path(checkpoint(tmp_path, "hfgi_sf"))
    for contender in CONTENDERS:
        if contender.trained == F2:
            method = load_contender(contender, path)
            for name, value in contender.settings.items():
                assert getattr(method, name) == value
    with pytest.raises(AssertionError, match="no_such"):
        load_contender(Contender("none", F2, {"no_such": 1}), path)


def test_a_prior_that_is_given_decides_about_sizes(tmp_path: Path) -> None:
    small = ("--model.size", "16", "--data.size", "16", "--model.style_dim", "8")
    config = config_of(prior=checkpoint(tmp_path, "gan_prior", *small))
    (steps,) = train_rows(ripples.rows(config), config).seeds
    assert ripples.STYLEGAN2 not in steps
    for title, stages in steps.items():
        assert stages[-1].resolved["data"]["size"] == 16, title
    model = steps[LOW][-1].resolved["model"]
    assert (model["generator_size"], model["style_dim"], model["size"]) == (16, 8, 16)


def test_photographs_need_a_parser_and_are_trained_on(tmp_path: Path, draw_faces) -> None:
    faces = Namespace(root=str(draw_faces(tmp_path / "faces", 12)))
    with pytest.raises(UserError, match="a parser has no masks to learn from there; give --parser CKPT"):
        ripples.rows(config_of(data=faces))
    parser = checkpoint(tmp_path, "parser")
    config = config_of(data=faces, parser=parser)
    (steps,) = train_rows(ripples.rows(config), config).seeds
    assert ripples.PARSER not in steps
    assert steps[F2][-1].resolved["model"]["parser"] == parser
    for stages in steps.values():
        assert all(stage.resolved["data"]["root"] == faces.root for stage in stages)
    with pytest.raises(UserError, match="--preset paper no scorer finds a pose direction; give --direction"):
        ripples.settle(config_of(data=faces, parser=parser, preset="paper"))


def test_photographs_are_measured_by_what_portraits_trained(tmp_path: Path, draw_faces) -> None:
    faces = Namespace(root=None, test_root=str(draw_faces(tmp_path / "faces", 3)))
    config = config_of(data=faces)
    (steps,) = train_rows(ripples.rows(config), config).seeds
    assert ripples.PARSER in steps
    assert all("root" not in stage.resolved["data"] for stages in steps.values() for stage in stages)
    bench = turning.bench_for(tiny("e4e").eval(), tiny("parser").eval(), tiny("scorer").eval(), config)
    assert len(bench.faces) == 3
    assert all(turn.truth is None and turn.masks is None for turn in bench.turns)
    with pytest.raises(UserError, match="belongs to one generator; give that as --prior CKPT"):
        ripples.settle(config_of(data=faces, direction="pose.pt"))  # which portraits refuse


def test_a_direction_is_one_of_the_prior(tmp_path: Path) -> None:
    """Which is found out before anything is trained."""
    prior = checkpoint(tmp_path, "gan_prior")
    path = str(tmp_path / "pose.safetensors")
    config = config_of(data=Namespace(root="faces"), parser="parser.ckpt", direction=path)
    with pytest.raises(UserError, match="belongs to one generator; give that as --prior CKPT"):
        ripples.settle(config)
    config.prior = prior
    with pytest.raises(UserError, match=r"pose\.safetensors"):
        ripples.settle(config)
    for width in (32, 16):
        save(Direction("pose", "interfacegan", torch.full((1, width), 0.1)), Path(path))
        if width == 32:
            ripples.settle(config)
    with pytest.raises(UserError, match="16 wide, the code 32: it belongs to another generator"):
        ripples.settle(config)


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="one training of each method"):
        main(["ripples", "--preset", "smoke", "--seeds", "[0, 1]"])
    with pytest.raises(UserError, match="--direction pose.pt: portraits are turned by degrees"):
        main(["ripples", "--preset", "smoke", "--direction", "pose.pt"])
    with pytest.raises(UserError, match=r"missing\.ckpt does not exist"):
        main(["ripples", "--preset", "smoke", "--prior", str(tmp_path / "missing.ckpt")])
    parser = checkpoint(tmp_path, "parser")
    with pytest.raises(UserError, match="is a checkpoint of parser, not of gan_prior"):
        main(["ripples", "--preset", "smoke", "--prior", parser])
