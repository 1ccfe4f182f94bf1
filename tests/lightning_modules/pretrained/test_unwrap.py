"""Which weights of a file are taken, whatever is wrapped around them and whatever the method."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from _runtime import UserError
from lightning_modules.pretrained.released import export_released, import_released
from tests.lightning_modules.steps import tiny

METHODS = ("gan_prior", "gpen", "nafnet", "hinet", "psp", "e4e")
State = dict[str, Tensor]


@pytest.fixture(scope="module")
def released() -> dict[str, State]:
    """A bare state_dict of every method, as our export writes it."""
    states = {}
    for name in METHODS:
        method = tiny(name).eval()
        if name == "e4e":
            method.join(method.G.layers - 1)
        layout = {"gan_prior": "rosinality"}.get(name, name)
        states[name] = export_released(method, layout, "G_ema")
    return states


def other(state: State) -> State:
    """Another network of the same shape."""
    kept = ("kernel", "latent_avg", "num_batches_tracked", "running_var")
    return {name: value if name.endswith(kept) else value + 1 for name, value in state.items()}


def prefixed(state: State, prefix: str) -> State:
    return {f"{prefix}{name}": value for name, value in state.items()}


WRAPPINGS = {
    "bare": lambda best, raw: best,
    "module.": lambda best, raw: prefixed(best, "module."),
    "module.module.": lambda best, raw: prefixed(best, "module.module."),
    "_orig_mod.": lambda best, raw: prefixed(best, "_orig_mod."),
    "state_dict": lambda best, raw: {"state_dict": best, "epoch": 3},
    "state_dict of netG.": lambda best, raw: {"state_dict": prefixed(best, "netG.")},
    "model of module.": lambda best, raw: {"model": prefixed(best, "module.")},
    "model of state_dict": lambda best, raw: {"model": {"state_dict": best}},
    "net": lambda best, raw: {"net": best},
    "params": lambda best, raw: {"params": best},
    "params_ema alone": lambda best, raw: {"params_ema": best},
    "params and params_ema": lambda best, raw: {"params": raw, "params_ema": best},
    "g and g_ema": lambda best, raw: {"g": raw, "g_ema": best},
    "generator_smooth": lambda best, raw: {"generator": raw, "generator_smooth": best},
    "ema beside model": lambda best, raw: {"model": raw, "ema": best, "step": 3},
    "ema.shadow": lambda best, raw: {"net": raw, "ema": {"decay": 0.999, "shadow": best}},
    "ema as a number": lambda best, raw: {"params": best, "ema": 0.999},
    "both in one state_dict": lambda best, raw: {
        "state_dict": prefixed(raw, "generator.") | prefixed(best, "generator_ema.")
    },
    "ema_pytorch": lambda best, raw: prefixed(raw, "online_model.") | prefixed(best, "ema_model."),
    "AveragedModel": lambda best, raw: {"n_averaged": torch.tensor(3), **prefixed(best, "module.")},
}


BOTH = (
    "params and params_ema",
    "g and g_ema",
    "generator_smooth",
    "ema beside model",
    "ema.shadow",
    "both in one state_dict",
    "ema_pytorch",
)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_the_average_is_taken_out_of_every_wrapping(
    wrapping: str, name: str, released: dict[str, State], tmp_path: Path
) -> None:
    best = released[name]
    raw = other(best)
    torch.save(WRAPPINGS[wrapping](best, raw), tmp_path / "file.pth")
    imported = import_released(name, tmp_path / "file.pth")
    again = export_released(imported.method, imported.layout, "G_ema")
    assert again.keys() == best.keys()
    for key, value in best.items():
        torch.testing.assert_close(again[key], value, rtol=0, atol=0)
    if name in ("gan_prior", "gpen"):  # which have both
        G, average = imported.method.G.state_dict(), imported.method.G_ema.state_dict()
        assert all(torch.equal(G[key], average[key]) for key in G) == (wrapping not in BOTH)


@pytest.mark.parametrize("name", ["nafnet", "psp"])
def test_a_choice_is_told(name: str, released: dict[str, State], tmp_path: Path) -> None:
    best = released[name]
    torch.save({"params": other(best), "params_ema": best}, tmp_path / "file.pth")
    told = "of its networks the average, params_ema, is taken"
    assert told in import_released(name, tmp_path / "file.pth").notes
    torch.save({"params": best}, tmp_path / "file.pth")
    assert not any("average" in note for note in import_released(name, tmp_path / "file.pth").notes)


def test_the_mean_latent_and_options_are_found_at_every_level(
    released: dict[str, State], tmp_path: Path
) -> None:
    state = dict(released["psp"])
    mean = state.pop("latent_avg")
    options = {"encoder_type": "GradualStyleEncoder", "start_from_latent_avg": True}
    inner: dict[str, Any] = {"state_dict": prefixed(state, "module."), "latent_avg": mean, "opts": options}
    for content in (inner, {"model": inner}, {**prefixed(state, "module."), "latent_avg": mean}):
        torch.save(content, tmp_path / "file.pt")
        method = import_released("psp", tmp_path / "file.pt").method
        assert torch.equal(method.G.w_avg, mean[0])


def test_wrappers_without_end(tmp_path: Path) -> None:
    content: dict[str, Any] = {}
    content["model"] = content
    torch.save(content, tmp_path / "file.pth")
    with pytest.raises(UserError, match="expected tensors only|unknown network"):
        import_released("nafnet", tmp_path / "file.pth")


def test_tensors_larger_than_the_file_within_wrappers(tmp_path: Path) -> None:
    huge = torch.zeros(1).expand(10**6, 10**6)
    for content in ({"model": {"state_dict": {"params_ema": {"a": huge}}}}, {"netG.module.a": huge}):
        torch.save(content, tmp_path / "file.pth")
        with pytest.raises(UserError, match="declares more numbers than it holds"):
            import_released("nafnet", tmp_path / "file.pth")


def test_a_checkpoint_of_ours_is_no_released_file(tmp_path: Path) -> None:
    torch.save({"suite": {"format": 1}, "state_dict": {}}, tmp_path / "ours.ckpt")
    with pytest.raises(UserError, match="is a checkpoint of this suite already: give it as it is"):
        import_released("gpen", tmp_path / "ours.ckpt")
