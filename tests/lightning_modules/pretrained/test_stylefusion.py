"""Released StyleFusion trees: an index of files, and all in one; wrong ones are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from _runtime import UserError
from lightning_modules.networks.stylefusion import TREES
from lightning_modules.pretrained import names
from lightning_modules.pretrained.recognition import recognised
from lightning_modules.pretrained.released import export_released, import_released
from lightning_modules.stylefusion import StyleFusion
from tests.lightning_modules.steps import TINY, tiny


def made(tree: str) -> StyleFusion:
    method = tiny("stylefusion", tree=tree)
    method.G.w_avg.copy_(torch.randn(16))
    for average in method.nets_ema.parameters():  # what is exported is the average
        average.add_(0.1 * torch.randn_like(average))
    return method.eval()


def index_of(method: StyleFusion, folder: Path, **more: Any) -> Path:
    """The files of a release, and the index that names them."""
    index = {}
    for number, node in enumerate(method.nodes):
        state = method.nets_ema[node].state_dict()
        torch.save({"state_dict": state} if number % 2 else state, folder / f"{node}.pt")
        index[node] = f"{node}.pt"
    generator = names.to_released(method.G.state_dict(), names.ROSINALITY_GENERATOR)
    torch.save({"g_ema": generator, "latent_avg": method.G.w_avg}, folder / "generator.pt")
    torch.save(method.parser.net.state_dict(), folder / "parser.pth")
    index |= {"stylegan2": "generator.pt", "parser": "parser.pth"}
    path = folder / "index.json"
    path.write_text(json.dumps({name: place for name, place in {**index, **more}.items() if place}))
    return path


@torch.no_grad()
@pytest.mark.parametrize("tree", ["ffhq", "car", "church"])
def test_a_released_index(tree: str, tmp_path: Path) -> None:
    method = made(tree)
    path = index_of(method, tmp_path)
    assert recognised(path) == ["stylefusion"]
    imported = import_released("stylefusion", path).method.eval()
    assert imported.hparams["tree"] == tree
    w = torch.randn(2, len(method.parts), method.G.layers, 16)
    assert torch.equal(imported(w), method(w))
    images = torch.rand(1, 3, 32, 32) * 2 - 1
    imported.parser.seen_at = method.parser.seen_at
    assert torch.equal(imported.parser.parse(images), method.parser.parse(images))


@torch.no_grad()
@pytest.mark.parametrize("tree", TREES)
def test_there_and_back_in_one_file(tree: str, tmp_path: Path) -> None:
    method = made(tree)
    torch.save(export_released(method, "stylefusion", "G_ema"), tmp_path / "tree.pt")
    imported = import_released("stylefusion", tmp_path / "tree.pt").method.eval()
    assert imported.hparams["tree"] == tree
    w = torch.randn(1, len(method.parts), method.G.layers, 16)
    assert torch.equal(imported(w), method(w))


def test_an_index_without_a_parser_fuses_alone(tmp_path: Path) -> None:
    imported = import_released("stylefusion", index_of(made("ffhq"), tmp_path, parser=None))
    assert any("cannot be trained or validated" in note for note in imported.notes)
    with pytest.raises(UserError, match=r"give --model\.parser PATH"):
        imported.method.check_start()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"stylegan2": None}, r'it names no generator: add "stylegan2"'),
        ({"face": None}, "are those of no tree"),
        ({"face": "missing.pt"}, r"missing\.pt"),
        ({"face": "index.json"}, "'face' names no released file"),
        ({"face": "parser.pth"}, r"blender_segments\.disentangle_net\.4\.weight"),
    ],
)
def test_indices_that_do_not_fit(more: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = index_of(made("ffhq"), tmp_path, **more)
    with pytest.raises(UserError, match=message) as error:
        import_released("stylefusion", path)
    assert "\n" not in str(error.value)


def test_nodes_of_another_width_are_refused(tmp_path: Path) -> None:
    path = index_of(made("ffhq"), tmp_path)
    wider = {**TINY["stylefusion"], "tree": "ffhq"}
    prior = wider["prior"]["hyper_parameters"]
    wider["prior"] = {"method": "gan_prior", "hyper_parameters": {**prior, "channel_max": 16}}
    state = StyleFusion(**wider).nets["face"].state_dict()
    torch.save(state, tmp_path / "face.pt")
    with pytest.raises(UserError, match="its nodes fuse 16 channels, its generator has 8"):
        import_released("stylefusion", path)


def test_what_the_layout_cannot_say_is_not_written() -> None:
    method = tiny("stylefusion", common_layers=2)
    with pytest.raises(UserError, match="2 layers look at the common code, in this layout 5 do"):
        export_released(method, "stylefusion", "G_ema")


def test_what_is_no_index_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "index.json"
    for text in ("{", "[]", "{}"):
        path.write_text(text)
        with pytest.raises(UserError, match=r"index\.json"):
            import_released("stylefusion", path)
