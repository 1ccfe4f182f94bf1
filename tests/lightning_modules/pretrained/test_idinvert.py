"""IDInvert's released encoders: with a prior they become the method, and its export is such a file again."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from _runtime import UserError
from experiments import import_checkpoint
from lightning_modules.idinvert import IDInvert
from lightning_modules.methods import load_method
from lightning_modules.networks.idinvert import DomainEncoder
from lightning_modules.pretrained.idinvert import to_released
from lightning_modules.pretrained.recognition import recognised
from lightning_modules.pretrained.released import export_released, import_released
from tests.experiments.inverters import saved, untrained
from tests.golden.check import Fixture
from tests.lightning_modules.steps import SIZE, STYLEGAN, batch_of, tiny


@pytest.fixture
def released(tmp_path) -> Path:
    torch.manual_seed(0)
    encoder = DomainEncoder(SIZE, 8, STYLEGAN["style_dim"], width=4, width_max=12)
    encoder(torch.randn(8, 3, SIZE, SIZE))  # moves its statistics
    path = tmp_path / "encoder.pth"
    torch.save(to_released(encoder.state_dict()), path)
    return path


def test_the_encoder_and_a_prior_become_the_method(released: Path, tmp_path) -> None:
    prior, output = untrained(tmp_path, "gan_prior"), tmp_path / "ours.ckpt"
    arguments = ["--method", "idinvert", "--source", str(released), "--generator", prior]
    assert import_checkpoint.main([*arguments, "--output", str(output)]) == 0
    method, checkpoint = load_method(output)
    assert isinstance(method, IDInvert)
    imported = checkpoint["suite"]["imported"]
    assert imported["layout"] == "idinvert"
    assert any("fit the generator it was trained with alone" in note for note in imported["notes"])
    assert (method.hparams["encoder_width"], method.hparams["encoder_width_max"]) == (4, 12)
    G_ema = load_method(prior)[0].G_ema
    for name, value in G_ema.state_dict().items():
        assert torch.equal(method.G.state_dict()[name], value), name
    again = export_released(method, "idinvert", "G_ema")
    for name, value in torch.load(released, weights_only=True).items():
        torch.testing.assert_close(again[name], value)
    assert method.double().invert(batch_of(1, SIZE)["target"].double())["w"].shape == (1, 8, 16)


def test_it_is_recognised_and_says_what_is_missing(released: Path, tmp_path) -> None:
    assert recognised(released) == ["idinvert"]
    with pytest.raises(
        UserError, match="an encoder for a generator of 32 px alone: give that, .* --generator"
    ):
        import_released("idinvert", released)
    with pytest.raises(UserError, match="seems to be a file of idinvert, not of hinet"):
        import_released("hinet", released)
    torch.save(Fixture("hinet_wf8").state(), tmp_path / "hinet.pth")
    with pytest.raises(UserError, match="seems to be a file of hinet, not of idinvert"):
        import_released("idinvert", tmp_path / "hinet.pth")


def test_another_generator_is_refused(released: Path, tmp_path) -> None:
    larger = saved(tiny("gan_prior", size=64, augment="off"), tmp_path / "larger.ckpt")
    with pytest.raises(UserError, match="larger.ckpt makes images of 64 px"):
        import_released("idinvert", released, generator=Path(larger))
    wider = saved(tiny("gan_prior", style_dim=8, augment="off"), tmp_path / "wider.ckpt")
    with pytest.raises(UserError, match="encoder.pth: the encoder holds another architecture"):
        import_released("idinvert", released, generator=Path(wider))
    with pytest.raises(UserError, match="--generator .*: hinet takes none"):
        import_released("hinet", released, generator=Path(larger))


def test_its_discriminator_was_not_released() -> None:
    with pytest.raises(UserError, match="no discriminator of IDInvert was released"):
        export_released(tiny("idinvert"), "idinvert", "D")
