"""The generators that PTI's release writes: modules of NVlabs' in torch files, whose code is not run."""

from __future__ import annotations

import pytest
import torch

from _runtime import UserError
from lightning_modules.networks.stylegan2 import Generator
from lightning_modules.pretrained import names
from lightning_modules.pretrained.released import import_released
from tests.lightning_modules.pretrained import nvlabs


def test_a_tuned_generator_is_imported_as_a_prior(tmp_path) -> None:
    torch.manual_seed(0)
    G = Generator(32, channel_base=128, channel_max=8, style_dim=16, mapping_layers=2)
    state = names.to_released(G.state_dict(), names.NVLABS_GENERATOR)
    path = tmp_path / "model_RUN_face.pt"
    nvlabs.save(nvlabs.network(state), path)
    imported = import_released("gan_prior", path)
    assert imported.layout == "nvlabs"
    for name, value in G.state_dict().items():
        assert torch.equal(imported.method.G_ema.state_dict()[name], value), name


def test_what_else_it_would_call_is_refused(tmp_path) -> None:
    class Hostile:
        def __reduce__(self) -> tuple:
            return print, ("called",)

    network = nvlabs.network({"a.weight": torch.zeros(1)})
    network.more = Hostile()
    nvlabs.save(network, tmp_path / "model.pt")
    with pytest.raises(UserError, match="is refused: to read it would mean to call print"):
        import_released("gan_prior", tmp_path / "model.pt")
