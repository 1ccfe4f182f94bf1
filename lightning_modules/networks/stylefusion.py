"""StyleFusion: several points of style space in one, channel by channel, so that each controls a region.

Source  Kafri, Patashnik, Alaluf, Cohen-Or, "StyleFusion: A Generative Model for Disentangling Spatial
        Segments", arXiv:2107.07437; networks and trees as in OmerKafri/StyleFusion@c1aa572 (fusion_net.py,
        sf_hierarchy.py). Parameters have its names.
Differs Whole batches, and all layers of a point in one pass; the release takes a layer of an image at a time.
Shapes  a point in style space is what `Synthesis.styles` gives: L - 1 vectors (B, C_i) for the convolutions,
        then L / 2 for the RGB layers. Inside, a vector is brought to the width S by repeating each value, and
        back by the maximum over the repeated.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from lightning_modules.networks.ops import EqualLinear, at_least_float32, full_precision

Styles = list[Tensor]
Tree = Mapping[str, tuple[str, str]]  # node -> its children, of which the first is s_0

TREES: dict[str, Tree] = {
    "person": {"all": ("person", "background")},  # of two regions, for HFGI-SF
    "ffhq": {
        "all": ("face", "bg_hair_clothes"),
        "face": ("skin_mouth", "eyes"),
        "skin_mouth": ("mouth", "skin"),
        "bg_hair_clothes": ("bg_clothes", "hair"),
        "bg_clothes": ("clothes", "bg"),
    },
    "car": {
        "all": ("car", "background"),
        "car": ("car_body", "wheels"),
        "background": ("background_top", "background_bottom"),
    },
    "church": {"all": ("church", "background")},
}
PLACES = 19  # of the indicator: a layer's index, and at the end whether it is an RGB layer's
RGB = PLACES - 1
DEPTH = 5  # linear layers of a blender
LR_MUL = 0.01


class LatentBlender(nn.Module):
    """a + q (b - a) with q in (0, 1) per channel, which a network reads off both and the layer's index.

    Its last layer has an activation too, so that q below a half is reached slowly.

    Args:
        size: width S of what is blended.
        index_bits: how often the indicator is repeated.
        extras: how many more vectors it looks at.
    """

    def __init__(self, size: int = 512, index_bits: int = 10, extras: int = 0) -> None:
        super().__init__()
        self.index_bits = index_bits
        hidden = 5 * size
        widths = [(2 + extras) * size + index_bits * PLACES, hidden, hidden, hidden, size, size]
        self.disentangle_net = nn.ModuleList(
            EqualLinear(widths[i], widths[i + 1], lr_mul=LR_MUL, activate=True) for i in range(DEPTH)
        )

    def share(self, a: Tensor, b: Tensor, indicator: Tensor, extra: Tensor | None = None) -> Tensor:
        """q (N, S), of a, b and, where it looks at one more, extra (N, S), and indicator (N, 19)."""
        parts = [a, b] if extra is None else [a, b, extra]
        x = torch.cat([*parts, indicator.repeat(1, self.index_bits)], dim=1)
        for layer in self.disentangle_net:
            x = layer(x)
        return x.sigmoid()

    def forward(self, a: Tensor, b: Tensor, indicator: Tensor, extra: Tensor | None = None) -> Tensor:
        return a + self.share(a, b, indicator, extra) * (b - a)


class FusionNet(nn.Module):
    """A node of a tree: two regions' points, aligned to a common one, in a point that has both regions.

    The common point decides about pose and layout, which are in the first layers: s_0 and s_1 are blended
    with it there (`blender_common`), then with each other everywhere (`blender_segments`).

    Args:
        widths: C_i of all vectors.
        size: S, a multiple of each.
        index_bits: of both blenders.
        common_layers: how many layers of each kind look at the common point.
    """

    conv_index: Tensor
    rgb_index: Tensor

    def __init__(
        self, widths: Sequence[int], size: int = 512, index_bits: int = 10, common_layers: int = 5
    ) -> None:
        super().__init__()
        convs = 2 * (len(widths) + 1) // 3 - 1  # L - 1, of L - 1 + L / 2
        wrong = [width for width in widths if size % width]
        if wrong or convs > RGB:
            raise ValueError(f"a fusion of {size} channels fits at most {RGB} layers, of {size} / n channels")
        self.widths, self.size, self.common_layers = tuple(widths), size, common_layers
        places = [*range(convs), *range(len(widths) - convs)]
        self.convs = convs
        self.early = (min(common_layers, convs), min(common_layers, len(widths) - convs))  # of each kind
        self.blender_segments = LatentBlender(size, index_bits, extras=1)
        self.blender_common = LatentBlender(size, index_bits)
        indicators = torch.eye(PLACES)[places]
        self.register_buffer("conv_index", indicators, persistent=False)
        flags = torch.zeros_like(indicators)
        flags[convs:, RGB] = 1
        self.register_buffer("rgb_index", indicators + flags, persistent=False)

    def forward(self, s_0: Styles, s_1: Styles, common: Styles) -> Styles:
        """The fused point."""
        return self.fuse(s_0, s_1, common)[0]

    def fuse(self, s_0: Styles, s_1: Styles, common: Styles) -> tuple[Styles, Styles, Styles, Tensor]:
        """The fused point, both regions' aligned ones, and the common one's mean share in these."""
        with full_precision(common[0]):
            a, c = self._wide(s_0), self._wide(common)
            b = self._wide(s_1)
            a, share_a = self._aligned(a, c, self.conv_index)
            b, share_b = self._aligned(b, c, self.conv_index)
            extra = self._with_early(torch.zeros_like(c), self._early(c))
            fused = self._narrow(self._segments(a, b, extra))
            return fused, self._narrow(a), self._narrow(b), (share_a.mean() + share_b.mean()) / 2

    def align(self, s: Styles, common: Styles) -> Styles:
        """One point with the pose and the layout of another."""
        with full_precision(common[0]):
            return self._narrow(self._aligned(self._wide(s), self._wide(common), self.rgb_index)[0])

    def combine(self, s_0: Styles, s_1: Styles) -> Styles:
        """Two points in one, without a common one."""
        with full_precision(s_0[0]):
            a, b = self._wide(s_0), self._wide(s_1)
            return self._narrow(self._segments(a, b, torch.zeros_like(a)))

    def _aligned(self, s: Tensor, common: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        """Both (B, N, S) -> s with its early layers blended, and the common one's share there."""
        a, c = self._early(s), self._early(common)
        rows = self._early(index[None]).repeat(len(s), 1, 1)
        share = self.blender_common.share(a.flatten(0, 1), c.flatten(0, 1), rows.flatten(0, 1))
        blended = a + share.view_as(a) * (c - a)
        return self._wide(self._narrow(self._with_early(s, blended))), share

    def _early(self, x: Tensor) -> Tensor:
        """Of (B, N, ...) the layers that look at the common point, convolutions first."""
        convs, rgbs = self.early
        return torch.cat([x[:, :convs], x[:, self.convs : self.convs + rgbs]], dim=1)

    def _with_early(self, x: Tensor, early: Tensor) -> Tensor:
        """x (B, N, ...) with those layers exchanged."""
        convs, rgbs = self.early
        late = x[:, convs : self.convs], x[:, self.convs + rgbs :]
        return torch.cat([early[:, :convs], late[0], early[:, convs:], late[1]], dim=1)

    def _segments(self, a: Tensor, b: Tensor, extra: Tensor) -> Tensor:
        """Both (B, N, S) -> their blend."""
        index = self.conv_index.repeat(len(a), 1)
        flat = self.blender_segments(a.flatten(0, 1), b.flatten(0, 1), index, extra.flatten(0, 1))
        return flat.unflatten(0, a.shape[:2])

    def _wide(self, styles: Styles) -> Tensor:
        """Every vector repeated to the same width: (B, N, S)."""
        found = [style.shape[-1] for style in styles]
        if found != list(self.widths):
            raise ValueError(f"expected style vectors of {list(self.widths)} channels, got {found}")
        wide = []
        for style in styles:
            wide.append(at_least_float32(style).repeat_interleave(self.size // style.shape[-1], dim=1))
        return torch.stack(wide, dim=1)

    def _narrow(self, wide: Tensor) -> Styles:
        """Every vector at its own width: the largest of the values that stand for a channel."""
        styles = []
        for width, layer in zip(self.widths, wide.unbind(1), strict=True):
            styles.append(layer.unflatten(1, (width, self.size // width)).amax(2))
        return styles


def parts_of(tree: Tree) -> list[str]:
    """All nodes and leaves, each node before its children."""
    parts = ["all"]
    for part in parts:  # grows on the way
        parts += tree.get(part, ())
    return parts


def in_order(tree: Tree) -> list[str]:
    """The nodes with children, children before parents."""
    return [part for part in reversed(parts_of(tree)) if part in tree]


def fuse_tree(
    nets: Mapping[str, FusionNet], tree: Tree, points: Mapping[str, Styles], node: str = "all"
) -> Styles:
    """The point of a node: its children's, fused under its own as the common one.

    A node without a network, or one of whose children has no point, is its own point.
    """
    children = tree.get(node, ())
    if node not in nets or not children or not points.keys() >= set(children):
        return points[node]
    first, second = (fuse_tree(nets, tree, points, child) for child in children)
    return nets[node](first, second, points[node])


# What is taken together, of whatever tree, as the release has it; in this order, so `mouth` goes over `face`
TAKEN: dict[str, tuple[str, ...]] = {
    "hair": ("bg_hair_clothes", "hair"),
    "face": ("face", "eyes", "skin_mouth", "mouth", "skin"),
    "background": ("background", "background_top", "background_bottom", "bg"),
    "all": ("all",),
    "mouth": ("skin_mouth", "face"),
    "eyes": ("eyes", "face"),
    "car": ("car", "wheels", "car_body"),
}


def regions_of(tree: Tree) -> list[str]:
    """What can be taken from another code: what the release takes together, then single parts."""
    parts = parts_of(tree)
    together = [region for region, taken in TAKEN.items() if not set(taken).isdisjoint(parts)]
    return list(dict.fromkeys([*together, *parts]))


def taken_parts(tree: Tree, region: str) -> list[str]:
    """The parts of a tree whose codes are another's where a region is; empty for an unknown region."""
    parts = parts_of(tree)
    return [part for part in TAKEN.get(region, (region,)) if part in parts]
