"""HFGI-SF of its parts' released files, in any order, and in one file; what is missing or wrong is named."""

from __future__ import annotations

import json
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
import torch

from _runtime import UserError
from lightning_modules.hfgi import HFGI
from lightning_modules.hfgi_sf import HFGISF
from lightning_modules.pretrained import names
from lightning_modules.pretrained.e4e import join_all
from lightning_modules.pretrained.recognition import recognised
from lightning_modules.pretrained.released import export_released, import_parts, import_released
from lightning_modules.stylefusion import StyleFusion
from tests.lightning_modules.steps import SIZE, TINY, batch_of, tiny


def inverter() -> HFGI:
    method = tiny("hfgi")
    method.base.G.w_avg.normal_()
    join_all(method.base)
    return method


def joined(**options: Any) -> HFGISF:
    method = tiny("hfgi_sf", **options)
    join_all(method.hfgi.base)
    return method


def tree(name: str = "ffhq") -> StyleFusion:
    method = tiny("stylefusion", tree=name)
    method.G.load_state_dict(inverter().base.G.state_dict())
    return method


def released(folder: Path, **more: Any) -> dict[str, Path]:
    """The three files, of which that of StyleFusion is an index of nodes alone."""
    state = export_released(inverter(), "hfgi", "G_ema")
    torch.save({"latent_avg": state.pop("latent_avg"), "state_dict": state}, folder / "ckpt.pt")
    torch.save(tiny("parser").net.state_dict(), folder / "79999_iter.pth")
    index = {}
    for node in (fusion := tree()).nodes:
        torch.save(fusion.nets_ema[node].state_dict(), folder / f"{node}.pt")
        index[node] = f"{node}.pt"
    (folder / "index.json").write_text(json.dumps({**index, **more}))
    return {"hfgi": folder / "ckpt.pt", "parser": folder / "79999_iter.pth", "tree": folder / "index.json"}


def shift(w: torch.Tensor, strength: float) -> torch.Tensor:
    return w + strength


def same(imported: HFGISF, expected: HFGISF) -> None:
    """Networks, and what they make of an edit, whose parsing the released parser sees at 512 px."""
    own, other = imported.eval().state_dict(), expected.eval().state_dict()
    for key in own.keys() & other.keys():
        if not key.startswith(("hfgi.base.D", "hfgi.base.steps")):
            assert torch.equal(own[key], other[key]), key
    imported.parser.seen_at = expected.parser.seen_at
    x = batch_of(2, SIZE)["target"]
    assert torch.equal(imported.compare(x, shift, 0.5)["y"], expected.compare(x, shift, 0.5)["y"])


def assembled() -> HFGISF:
    """What the three files are of."""
    description = {"method": "stylefusion", "hyper_parameters": {"tree": "ffhq", "common_layers": 5}}
    method = HFGISF(**{**TINY["hfgi_sf"], "stylefusion": description, "fusion": "released_tree"})
    method.hfgi.load_state_dict(inverter().state_dict())
    method.parser.load_state_dict(tiny("parser").state_dict())
    method.frozen_nets.load_state_dict(tree().nets_ema.state_dict())
    method.take_strongest()
    return method


@torch.no_grad()
def test_released_files_in_any_order(tmp_path: Path) -> None:
    files = released(tmp_path)
    for order in permutations(files.values()):
        imported = import_parts("hfgi_sf", order)
        assert imported.arguments["fusion"] == "released_tree"
        assert imported.filter == "bilinear"
        assert any("no generator in the index" in note for note in imported.notes)
    same(imported.method, assembled())


@torch.no_grad()
@pytest.mark.parametrize("fusion", ["two_region", "released_tree", "none"])
def test_there_and_back_in_one_file(fusion: str, tmp_path: Path) -> None:
    method = assembled() if fusion == "released_tree" else joined(fusion=fusion)
    for average in method.nets_ema.parameters():  # what is exported is the average
        average.add_(0.1 * torch.randn_like(average))
    torch.save(export_released(method, "hfgi_sf", "G_ema"), tmp_path / "all.pt")
    assert recognised(tmp_path / "all.pt") == ["hfgi_sf"]
    imported = import_released("hfgi_sf", tmp_path / "all.pt").method
    assert imported.fusion == fusion
    averages = {key: value for key, value in imported.state_dict().items() if key.startswith("nets_ema")}
    trained = {key.replace("_ema", ""): value for key, value in averages.items()}
    assert all(torch.equal(value, imported.state_dict()[key]) for key, value in trained.items())
    assert bool(averages) is (fusion == "two_region")
    method.nets.load_state_dict(method.nets_ema.state_dict())
    method.take_strongest()
    same(imported, method)


def test_an_index_may_bring_the_parser_and_must_bring_hfgis_generator(tmp_path: Path) -> None:
    files = released(tmp_path, parser="79999_iter.pth", stylegan2="generator.pt")
    state = names.to_released(inverter().base.G.state_dict(), names.ROSINALITY_GENERATOR)
    torch.save({"g_ema": state}, tmp_path / "generator.pt")
    imported = import_parts("hfgi_sf", [files["tree"], files["hfgi"]])
    assert not any("no generator" in note for note in imported.notes)
    state["input.input"] = state["input.input"] + 1
    torch.save({"g_ema": state}, tmp_path / "generator.pt")
    with pytest.raises(UserError, match="the generator under 'stylegan2' is another than HFGI's"):
        import_parts("hfgi_sf", list(files.values()))


def test_what_is_missing_or_wrong_is_named(tmp_path: Path) -> None:
    files = released(tmp_path)
    words = {"hfgi": "no file of hfgi: give HFGI's ckpt.pt", "parser": "no file of parser: give the parser's"}
    words["tree"] = "no file of stylefusion: give StyleFusion's index.json with --source, too"
    for part, expected in words.items():
        with pytest.raises(UserError, match=expected):
            import_parts("hfgi_sf", [file for name, file in files.items() if name != part])
    with pytest.raises(UserError, match="there is no file of parser"):
        import_released("hfgi_sf", files["hfgi"])
    copy = tmp_path / "copy.pth"
    copy.write_bytes(files["parser"].read_bytes())
    with pytest.raises(UserError, match="copy.pth is of parser, as another file: give one of each part"):
        import_parts("hfgi_sf", [*files.values(), copy])
    torch.save({"g_ema": {"input.input": torch.zeros(1, 8, 4, 4)}}, tmp_path / "generator.pt")
    with pytest.raises(UserError, match="generator.pt is no file of a part of HFGI-SF: give HFGI's ckpt.pt"):
        import_parts("hfgi_sf", [*files.values(), tmp_path / "generator.pt"])
    with pytest.raises(UserError, match="e4e takes one file"):
        import_parts("e4e", list(files.values()))


def test_parsers_of_other_classes_and_narrower_nodes_are_refused(tmp_path: Path) -> None:
    files = released(tmp_path)
    state = tiny("parser").net.state_dict()
    fewer = {key: value[:11] if "conv_out.weight" in key else value for key, value in state.items()}
    torch.save(fewer, files["parser"])
    with pytest.raises(UserError, match="tells 11 classes, a parser of faces the 19"):
        import_parts("hfgi_sf", list(files.values()))
    files = released(tmp_path)
    wider = {**TINY["stylefusion"]["prior"]["hyper_parameters"], "channel_base": 512, "channel_max": 16}
    fusion = tiny("stylefusion", tree="ffhq", prior={"method": "gan_prior", "hyper_parameters": wider})
    for node in fusion.nodes:
        torch.save(fusion.nets_ema[node].state_dict(), tmp_path / f"{node}.pt")
    with pytest.raises(UserError, match="its nodes fuse 16 channels, its generator has 8"):
        import_parts("hfgi_sf", list(files.values()))


def test_nodes_that_look_elsewhere_are_not_written() -> None:
    with pytest.raises(UserError, match="2 layers look at the common code, in this layout 5 do"):
        export_released(joined(common_layers=2), "hfgi_sf", "G_ema")
