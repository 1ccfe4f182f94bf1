"""The landmark network against its layers written out by their released names, and its landmarks in NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_modules.networks.hourglass import LandmarkNetwork, coordinates, maxima, resized
from tests.lightning_modules.random_weights import he_normal

State = dict[str, Tensor]
Shapes = dict[str, tuple[int, ...]]


def block(shapes: Shapes, name: str, inputs: int, outputs: int) -> Shapes:
    """With those of a block's tensors, as the released file has them."""
    half, quarter = outputs // 2, outputs // 4
    shapes = dict(shapes)
    for i, (a, b) in enumerate([(inputs, half), (half, quarter), (quarter, quarter)], start=1):
        shapes |= norm(f"{name}.bn{i}", a)
        shapes[f"{name}.conv{i}.weight"] = (b, a, 3, 3)
    if inputs != outputs:
        shapes |= norm(f"{name}.downsample.0", inputs)
        shapes[f"{name}.downsample.2.weight"] = (outputs, inputs, 1, 1)
    return shapes


def norm(name: str, width: int) -> Shapes:
    parts = ("weight", "bias", "running_mean", "running_var")
    return {f"{name}.{part}": (width,) for part in parts} | {f"{name}.num_batches_tracked": ()}


def conv(name: str, inputs: int, outputs: int, kernel: int = 1) -> Shapes:
    return {f"{name}.weight": (outputs, inputs, kernel, kernel), f"{name}.bias": (outputs,)}


def released_shapes() -> Shapes:
    """Every tensor of the released file: an image with coordinates, four hourglasses of four levels."""
    shapes = conv("conv1.conv", 3 + 3, 64, 7) | norm("bn1", 64)
    for name, inputs, outputs in (("conv2", 64, 128), ("conv3", 128, 128), ("conv4", 128, 256)):
        shapes = block(shapes, name, inputs, outputs)
    for i in range(4):
        shapes |= conv(f"m{i}.coordconv.conv", 256 + (3 if i == 0 else 5), 256)
        for level in (4, 3, 2, 1):
            for part in ("b1", "b2", "b3"):
                shapes = block(shapes, f"m{i}.{part}_{level}", 256, 256)
        shapes = block(shapes, f"m{i}.b2_plus_1", 256, 256)
        shapes = block(shapes, f"top_m_{i}", 256, 256)
        shapes |= conv(f"conv_last{i}", 256, 256) | norm(f"bn_end{i}", 256) | conv(f"l{i}", 256, 99)
        if i < 3:
            shapes |= conv(f"bl{i}", 256, 256) | conv(f"al{i}", 99, 256)
    return shapes


@pytest.fixture(scope="module")
@torch.no_grad()
def released() -> State:
    """Tensors of those names that keep the signal's size, so that every layer shows in the output."""
    g = torch.Generator().manual_seed(0)
    state: State = {}
    for name, shape in released_shapes().items():
        if name.endswith("num_batches_tracked"):
            state[name] = torch.tensor(1)
        elif name.endswith("running_var"):
            state[name] = torch.rand(shape, generator=g) + 0.5
        elif len(shape) == 4:
            state[name] = 0.7 * he_normal(torch.Size(shape), g)
        else:
            state[name] = 0.1 * torch.randn(shape, generator=g) + float(".bn" in name and "weight" in name)
    Plain(state, centre=True).heatmaps(an_image())
    return state


def an_image() -> Tensor:
    return torch.rand(2, 3, 256, 256, generator=torch.Generator().manual_seed(1))


class Plain:
    """The release's passes, layer by layer, on a state_dict."""

    def __init__(self, state: State, centre: bool = False) -> None:
        self.state = state
        self.centre = centre  # the boundaries' biases, so that about half of a map is visible

    def norm(self, x: Tensor, name: str) -> Tensor:
        s = self.state
        mean, variance = s[f"{name}.running_mean"], s[f"{name}.running_var"]
        return F.batch_norm(x, mean, variance, s[f"{name}.weight"], s[f"{name}.bias"])

    def conv(self, x: Tensor, name: str, **how: int) -> Tensor:
        return F.conv2d(x, self.state[f"{name}.weight"], self.state.get(f"{name}.bias"), **how)

    def block(self, x: Tensor, name: str) -> Tensor:
        parts = []
        y = x
        for i in (1, 2, 3):
            y = self.conv(self.norm(y, f"{name}.bn{i}").relu(), f"{name}.conv{i}", padding=1)
            parts.append(y)
        if f"{name}.downsample.2.weight" in self.state:
            x = self.conv(self.norm(x, f"{name}.downsample.0").relu(), f"{name}.downsample.2")
        return torch.cat(parts, 1) + x

    def places(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        side = x.shape[-1]
        index = torch.arange(side) / (side - 1) * 2 - 1
        rows = index[:, None].expand(side, side).expand(len(x), 1, -1, -1)
        columns = index[None, :].expand(side, side).expand(len(x), 1, -1, -1)
        radius = (rows**2 + columns**2) ** 0.5
        return rows, columns, radius / radius.max()

    def glass(self, x: Tensor, name: str, level: int) -> Tensor:
        up = self.block(x, f"{name}.b1_{level}")
        low = self.block(F.avg_pool2d(x, 2), f"{name}.b2_{level}")
        low = self.glass(low, name, level - 1) if level > 1 else self.block(low, f"{name}.b2_plus_1")
        low = self.block(low, f"{name}.b3_{level}")
        return up + low.repeat_interleave(2, -1).repeat_interleave(2, -2)

    def heatmaps(self, image: Tensor) -> Tensor:
        x = self.conv(torch.cat([image, *self.places(image)], 1), "conv1.conv", stride=2, padding=3)
        x = F.avg_pool2d(self.block(self.norm(x, "bn1").relu(), "conv2"), 2)
        x = self.block(self.block(x, "conv3"), "conv4")
        heat = None
        for i in range(4):
            rows, columns, radius = self.places(x)
            seen = [x, rows, columns, radius]
            if heat is not None:
                edge = heat[:, -1:].clamp(0, 1) > 0.05
                assert 0.05 < edge.float().mean() < 0.95
                seen += [rows * edge, columns * edge]
            y = self.glass(self.conv(torch.cat(seen, 1), f"m{i}.coordconv.conv"), f"m{i}", 4)
            y = self.norm(self.conv(self.block(y, f"top_m_{i}"), f"conv_last{i}"), f"bn_end{i}").relu()
            heat = self.conv(y, f"l{i}")
            if self.centre:
                self.state[f"l{i}.bias"][-1] -= heat[:, -1].median()
                heat = self.conv(y, f"l{i}")
            if i < 3:
                x = x + self.conv(y, f"bl{i}") + self.conv(heat, f"al{i}")
        return heat


@torch.no_grad()
def test_equals_the_released_layers(released: State) -> None:
    network = LandmarkNetwork().eval()
    network.load_state_dict(released, strict=True)
    image = an_image()
    wanted = Plain(released).heatmaps(image)
    torch.testing.assert_close(network.heatmaps(image), wanted, rtol=1e-3, atol=1e-4 * float(wanted.std()))
    points = network(image)
    assert points.shape == (2, 98, 2)
    assert torch.equal(points, maxima(network.heatmaps(resized(image))[:, :-1]) / 64)


def test_landmarks_lie_a_quarter_of_a_pixel_towards_the_larger_neighbour() -> None:
    """As the release computes them, pixel by pixel, where all neighbours are inside."""
    rng = np.random.default_rng(0)
    heat = rng.normal(size=(2, 5, 9, 9))
    heat[:, :, 2:7, 2:7] += 4
    wanted = np.zeros((2, 5, 2))
    for b in range(2):
        for n in range(5):
            y, x = np.unravel_index(heat[b, n].argmax(), (9, 9))
            right, left = heat[b, n, y, x + 1], heat[b, n, y, x - 1]
            below, above = heat[b, n, y + 1, x], heat[b, n, y - 1, x]
            wanted[b, n] = x + 0.25 * np.sign(right - left) + 0.5, y + 0.25 * np.sign(below - above) + 0.5
    np.testing.assert_allclose(maxima(torch.from_numpy(heat)).numpy(), wanted)


def test_landmarks_at_the_border_stay_at_their_pixel() -> None:
    heat = torch.zeros(1, 4, 6, 6)
    for n, (y, x) in enumerate([(0, 0), (5, 5), (0, 3), (3, 5)]):
        heat[0, n, y, x] = 1
    heat[0, 2, 0, 4] = 0.5
    assert maxima(heat)[0].tolist() == [[0.5, 0.5], [5.5, 5.5], [3.75, 0.5], [5.5, 3.5]]


def test_images_are_reduced_as_opencv_reduces_them() -> None:
    cv2 = pytest.importorskip("cv2")
    image = np.random.default_rng(0).integers(0, 256, (512, 512, 3), dtype=np.uint8)
    wanted = cv2.resize(image, (256, 256)).transpose(2, 0, 1) / 255
    found = resized(torch.from_numpy(image).permute(2, 0, 1)[None] / 255)[0]
    np.testing.assert_allclose(found.numpy(), wanted, atol=1e-6)


def test_coordinates() -> None:
    rows, columns, radius = coordinates(torch.zeros(1, 2, 3, 3))[0]
    assert rows.tolist() == [[-1] * 3, [0] * 3, [1] * 3]
    assert torch.equal(columns, rows.T)
    assert radius[1, 1] == 0
    assert radius[0, 0] == 1
