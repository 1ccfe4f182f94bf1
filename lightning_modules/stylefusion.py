"""StyleFusion: a generator's image from several codes, each of which controls a region.

Source  Kafri, Patashnik, Alaluf, Cohen-Or, "StyleFusion", arXiv:2107.07437; networks as in
        OmerKafri/StyleFusion@c1aa572.
Differs How the release was trained is not public: losses, weights and rates are a recipe of our own. Codes of
        W+ drive the RGB layers as they drive the generator's; with `rgb released` as the release has it.
Shapes  w (B, L, D), a code for each part of the tree; points in style space as in `networks/stylefusion.py`;
        images (B, 3, S, S) at the generator's size, those that losses see at `size`.
Raises  UserError: the prior is missing, of another method or with other noise; the parser is, in training.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from _runtime import UserError
from lightning_modules.base import Method, Outcome
from lightning_modules.losses.lpips import LPIPS
from lightning_modules.losses.regions import RegionCrossEntropy, RegionError
from lightning_modules.methods import rebuild
from lightning_modules.networks.ops import area_means
from lightning_modules.networks.regions import REGIONS, UNIONS, merged, probabilities
from lightning_modules.networks.stylefusion import TREES, FusionNet, Styles, fuse_tree, in_order, parts_of
from lightning_modules.networks.stylegan2 import Generator
from lightning_modules.optimizers import adam
from lightning_modules.parser import Parser
from lightning_modules.starts import Description, Start

NO_PRIOR = (
    "stylefusion needs a trained GAN prior: give --model.prior PATH (python -m experiments.reproduce prior "
    "trains one on portraits, python -m experiments.fit --method gan_prior --model.noise add on your data)"
)
NO_PARSER = (
    "stylefusion learns from the regions that a parser sees: give --model.parser PATH (python -m "
    "experiments.fit --method parser trains one)"
)
SMALLEST = 1e-4  # mean change of an image by which another is divided


class StyleFusion(Method):
    """min  lambda_loc L_loc + lambda_perc L_perc + lambda_seg L_seg + lambda_geo L_geo + lambda_app L_app.

    For a node of the tree with regions 0 and 1, random points s_0, s_1 and a common one c: a and b are s_0
    and s_1 aligned to c, f all three fused; I = G(.), and M_0, M_1 where the parser sees region 0 in I_a and
    region 1 in I_b.

    L_loc = |M_0 (I_f - I_a)|^2 / |M_0| + |M_1 (I_f - I_b)|^2 / |M_1|;  L_perc = LPIPS(M_0 I_f, M_0 I_a) +
    LPIPS(M_1 I_f, M_1 I_b);  L_seg: I_f has the regions of I_c, cross-entropy;  L_geo: I_a and I_b have;
    L_app: the mean share of c in a and b, or copying c would do.

    Each node has its share of the run, children before their parents, which see what these make. Validated is
    how much of a change of the second region stays in it (`locality`), and how well the regions of the result
    fit those of the common code's image (`alignment`, IoU). Of a tree with several nodes no checkpoint is the
    best: the last one alone has them all trained.

    Args:
        prior: checkpoint of `--method gan_prior --model.noise add`. A checkpoint of this method holds the
            mapping {method, hyper_parameters} in its place.
        parser: checkpoint of `--method parser`, likewise; needed for training and validation.
        size: width and height, in pixels, at which losses compare the generator's images.
        tree: the regions: `person` and background; of the release `ffhq`, `car` or `church`, of which the
            last two cannot be trained.
        common_layers: how many layers of each kind look at the common code.
        rgb: which layer's code drives an RGB layer: `right` for the generator's own, `released` for the one
            before, as in the release.
        psi: truncation of the codes that are trained on.
        lambda_loc: weight of L_loc.
        lambda_perc: weight of L_perc.
        lambda_seg: weight of L_seg.
        lambda_geo: weight of L_geo.
        lambda_app: weight of L_app.
        warm_up: share of a node's iterations with L_loc and L_perc alone.
        features: of LPIPS: `pretrained`, `random` (a stand-in for runs without weights) or `off`.
        lr: learning rate; the layers' multiplier makes the steps a hundredth.
        ema_decay: weight of the old average in every iteration; the averages fuse.
    """

    monitor: tuple[str, str] | None = ("val/locality", "max")
    ema: ClassVar[tuple[str, ...]] = ("nets",)
    starts_from: ClassVar[tuple[str, ...]] = ("prior", "parser")
    shaped_by_start: ClassVar[tuple[str, ...]] = ("G", "parser", "nets", "nets_ema")
    one_piece = "it draws the codes of all images of a batch together"
    BETAS = (0.0, 0.99)
    nets_ema: nn.ModuleDict

    def __init__(
        self,
        prior: str | dict[str, Any] | None = None,
        parser: str | dict[str, Any] | None = None,
        *,
        size: int = 256,
        tree: Literal["person", "ffhq", "car", "church"] = "person",
        common_layers: int = 5,
        rgb: Literal["right", "released"] = "right",
        psi: float = 0.7,
        lambda_loc: float = 1.0,
        lambda_perc: float = 0.8,
        lambda_seg: float = 0.1,
        lambda_geo: float = 0.1,
        lambda_app: float = 0.01,
        warm_up: float = 2_000 / 60_000,
        features: Literal["pretrained", "random", "off"] = "pretrained",
        lr: float = 2e-3,
        ema_decay: float = 0.999,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()  # plain values, so the file alone rebuilds the method
        self.size, self.rgb, self.psi, self.warm_up, self.lr = size, rgb, psi, warm_up, lr
        self.decay = ema_decay
        self.lambdas = {"loc": lambda_loc, "perc": lambda_perc, "seg": lambda_seg}
        self.lambdas |= {"geo": lambda_geo, "app": lambda_app}
        self.tree, self.nodes, self.parts = TREES[tree], in_order(TREES[tree]), parts_of(TREES[tree])
        self.G = make_generator(prior).requires_grad_(False)
        self.parser = make_parser(parser)
        widths = widths_of(self.G)
        nets = {node: FusionNet(widths, max(widths), common_layers=common_layers) for node in self.nodes}
        self.nets = nn.ModuleDict(nets)
        self.make_ema()
        self.L_loc, self.L_seg = RegionError(), RegionCrossEntropy()
        self.L_perc = LPIPS("alex", features) if features != "off" and lambda_perc > 0 else None
        self.train()

    # --- what a run starts from ---------------------------------------------------------------------

    @classmethod
    def described(cls, options: dict[str, Any]) -> dict[str, Any]:
        found = {}
        for option, method in (("prior", "gan_prior"), ("parser", "parser")):
            if isinstance(options[option], str):
                start = Start(option, options[option])
                start.check_method(method)
                if option == "prior":
                    start.check_added_noise()
                found[option] = start.description
        return {**options, **found}

    @classmethod
    def without_start(cls, options: dict[str, Any]) -> dict[str, Any]:
        size = options["size"]
        prior = {"method": "gan_prior", "hyper_parameters": {"size": size}}
        parser = {"method": "parser", "hyper_parameters": {"size": size}}
        return {**options, "prior": options["prior"] or prior, "parser": options["parser"] or parser}

    def check_start(self) -> None:
        if self.parser is None:
            raise UserError(NO_PARSER)
        self._regions("all")

    def initialise(self) -> None:
        if "prior" in self.sources:
            Start("prior", self.sources["prior"]).load(self.G, "G_ema.")
        else:
            self.G.estimate_w_avg()
        if self.parser is not None and "parser" in self.sources:
            Start("parser", self.sources["parser"]).load(self.parser, "")

    # --- inference ----------------------------------------------------------------------------------

    def point(self, w: Tensor) -> Styles:
        """The point in style space of w (B, L, D)."""
        return self.G.synthesis.styles(w, lagging=self.rgb == "released")

    def fuse(self, codes: Mapping[str, Tensor]) -> Styles:
        """The fused point of codes w (B, L, D) by the names of the tree's parts.

        A node's own code is the common one of its children. A node whose children have no codes is a leaf.

        Raises:
            ValueError: there is none for `all`, or one for what is no part of the tree.
        """
        if "all" not in codes or not set(codes) <= set(self.parts):
            expected = f"expected codes of all and of others among {', '.join(self.parts)}"
            raise ValueError(f"{expected}, got {', '.join(codes)}")
        points = {part: self.point(w) for part, w in codes.items()}
        return fuse_tree(self._averaged(), self.tree, points)

    def synthesize(self, point: Styles) -> Tensor:
        """The image of a point, at the generator's size; with stored noise, so it depends on nothing else."""
        return self.G.synthesis(styles=point, noise="const")

    def forward(self, w: Tensor) -> Tensor:
        """w (B, P, L, D), a code for each of the tree's `parts` -> the fused image (B, 3, S, S)."""
        if w.ndim != 4 or w.shape[1] != len(self.parts):
            raise ValueError(f"expected w as (B, {len(self.parts)}, L, D), got {tuple(w.shape)}")
        return self.synthesize(self.fuse(dict(zip(self.parts, w.unbind(1), strict=True))))

    def seen(self, point: Styles) -> Tensor:
        """Its image at the size of the losses."""
        image = self.synthesize(point)
        return image if image.shape[-1] == self.size else area_means(image, self.size)

    def _averaged(self) -> dict[str, FusionNet]:
        return dict(self.nets_ema.items())  # type: ignore[arg-type]

    # --- training -----------------------------------------------------------------------------------

    def train(self, mode: bool = True) -> StyleFusion:
        """What is frozen stays in evaluation mode, or the parser's running statistics would move on."""
        super().train(mode)
        self.G.eval()
        if self.parser is not None:
            self.parser.eval()
        return self

    def turn(self) -> int:
        """Whose turn it is in this iteration, counted as in `nodes`."""
        return min(int(self.progress * len(self.nodes)), len(self.nodes) - 1)

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        images, turn = batch["target"], self.turn()
        if images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(f"expected images in [-1, 1] as (B, 3, H, W), got {tuple(images.shape)}")
        with torch.no_grad():
            shape = (len(images), len(self.parts), self.G.z_dim)
            points = self._draw(torch.randn(shape, device=self.device, dtype=self.G.w_avg.dtype))
        terms = self.objective(self.nodes[turn], points)
        done = self.progress * len(self.nodes) - turn  # share of the node's iterations
        counted = ["loc", "perc"] if done < self.warm_up else list(self.lambdas)
        weighted = [self.lambdas[name] * terms[name] for name in counted if name in terms]
        self.descend(self.players[turn], torch.stack(weighted).sum())
        if self.L_perc is not None:
            terms[self.L_perc.name] = terms.pop("perc")
        self.log_terms(terms)

    def objective(self, node: str, points: Mapping[str, Styles]) -> dict[str, Tensor]:
        """The terms of a node's loss for points of all parts."""
        regions = self._regions(node)
        with torch.no_grad():
            s_0, s_1 = (fuse_tree(self._averaged(), self.tree, points, child) for child in self.tree[node])
        net = self.nets[node]
        assert isinstance(net, FusionNet)
        fused, a, b, share = net.fuse(s_0, s_1, points[node])
        I_f, I_a, I_b = (self.seen(point) for point in (fused, a, b))
        shares = [self._see(image, regions) for image in (I_f, I_a, I_b)]
        with torch.no_grad():
            layout = merged(self._label(self.seen(points[node])), regions)
        M_0, M_1 = shares[1][:, :1].detach(), shares[2][:, 1:].detach()
        terms = {"loc": self.L_loc(I_f, I_a, M_0) + self.L_loc(I_f, I_b, M_1)}
        if self.L_perc is not None:
            terms["perc"] = self.L_perc(M_0 * I_f, M_0 * I_a) + self.L_perc(M_1 * I_f, M_1 * I_b)
        terms["seg"] = self.L_seg(shares[0], layout)
        terms["geo"] = self.L_seg(shares[1], layout) + self.L_seg(shares[2], layout)
        terms["app"] = share
        return terms

    def _draw(self, z: Tensor) -> dict[str, Styles]:
        """z (B, P, Z) -> a point of W for each part."""
        points = {}
        for part, own in zip(self.parts, z.unbind(1), strict=True):
            points[part] = self.point(self.G.map(own, self.psi))
        return points

    def _regions(self, node: str) -> tuple[str, str]:
        """The regions of a node's children. Raises `UserError` where a parser of faces does not know them."""
        regions = self.tree[node]
        unknown = [region for region in regions if region not in (*REGIONS, *UNIONS)]
        if unknown:
            what = f"a parser of faces knows no {unknown[0]}"
            raise UserError(f"--model.tree {self.hparams['tree']}: {what}; train person or ffhq")
        return regions

    def _label(self, image: Tensor) -> Tensor:
        assert self.parser is not None
        return self.parser.label(image)

    def _see(self, image: Tensor, regions: tuple[str, str]) -> Tensor:
        """The probability of both regions, (B, 2, H, W)."""
        if self.parser is None:
            raise UserError(NO_PARSER)
        return probabilities(self.parser.parse(image), regions)

    def ema_decay(self) -> float:
        return self.decay

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        """One for each node, in the order of their turns."""
        return [adam(self.nets[node].parameters(), lr=self.lr, betas=self.BETAS) for node in self.nodes]

    # --- validation and pictures --------------------------------------------------------------------

    def choose_monitor(self, measured: Sequence[str]) -> None:
        if len(self.nodes) > 1:  # they are trained one after another: only the last checkpoint has them all
            self.monitor = None

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> Outcome:
        """Codes of the root's parts are a function of each held-out image's index."""
        regions = self._regions("all")
        points = self._draw(self._codes_of(batch["index"]))
        others = self._draw(self._codes_of(-1 - batch["index"]))
        below = parts_below(self.tree, self.tree["all"][1])
        nets = self._averaged()
        before = self.seen(fuse_tree(nets, self.tree, points))
        changed = {**points, **{part: others[part] for part in below}}
        after = self.seen(fuse_tree(nets, self.tree, changed))
        shares = self._see(after, regions)  # also says that there is no parser
        found, layout = (merged(self._label(image), regions) for image in (before, self.seen(points["all"])))
        scores = {
            "locality": locality(before, after, (shares.argmax(1) == 1) & (shares.sum(1) > 0.5)),
            "alignment": overlap(found, layout, len(regions)),
        }
        return Outcome(scores=scores)

    def _codes_of(self, index: Tensor) -> Tensor:
        """z (B, P, Z) for images of some indices, alike on every device."""
        codes = []
        for seed in index.tolist():
            generator = torch.Generator().manual_seed(seed % 2**63)
            shape = len(self.parts), self.G.z_dim
            codes.append(torch.randn(shape, generator=generator, dtype=self.G.w_avg.dtype))
        return torch.stack(codes).to(self.device)

    def predict_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """Fused images of random codes, one for each image."""
        points = self._draw(self._codes_of(batch["index"]))
        return self.synthesize(fuse_tree(self._averaged(), self.tree, points))

    def pictures(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Images of both regions' points and of the common one, and what they are fused to."""
        points = self._draw(self._codes_of(torch.arange(len(batch["target"]))))
        nets = self._averaged()
        rows = {}
        for child in self.tree["all"]:
            rows[child] = self.seen(fuse_tree(nets, self.tree, points, child))
        rows["common"] = self.seen(points["all"])
        rows["fused"] = self.seen(fuse_tree(nets, self.tree, points))
        return rows


def make_generator(description: str | Description | None) -> Generator:
    """The generator of a described prior, with random weights. Raises `UserError` where it is none."""
    if description is None:
        raise UserError(NO_PRIOR)
    if not isinstance(description, dict):
        raise UserError(f"prior {description}: expected a description; `methods.build` reads files")
    if description["method"] != "gan_prior":
        raise UserError(f"--model.prior is of {description['method']}: expected gan_prior")
    prior = rebuild("gan_prior", {"noise": "add", **description["hyper_parameters"]}, "--model.prior")
    if prior.hparams["noise"] != "add":
        raise UserError(f"--model.prior has noise {prior.hparams['noise']}: expected add")
    generator = prior.G_ema
    assert isinstance(generator, Generator)
    return generator


def make_parser(description: str | Description | None) -> Parser | None:
    """A described parser, frozen, with random weights. Raises `UserError` where it is none."""
    if description is None:
        return None
    if not isinstance(description, dict):
        raise UserError(f"parser {description}: expected a description; `methods.build` reads files")
    if description["method"] != "parser":
        raise UserError(f"--model.parser is of {description['method']}: expected parser")
    parser = rebuild("parser", description["hyper_parameters"], "--model.parser").requires_grad_(False)
    assert isinstance(parser, Parser)
    return parser


def widths_of(G: Generator) -> list[int]:
    """Channels of all vectors of a point in its style space."""
    convs = [conv.weight.shape[1] for conv in G.synthesis.convs]
    return convs + [rgb.weight.shape[1] for rgb in G.synthesis.rgbs]


def parts_below(tree: Mapping[str, tuple[str, str]], part: str) -> list[str]:
    """A part of the tree, and all that it is made of."""
    found = [part]
    for one in found:  # grows on the way
        found += tree.get(one, ())
    return found


def locality(before: Tensor, after: Tensor, region: Tensor) -> Tensor:
    """How many times as much images have changed in a region (B, H, W) as outside, (B,)."""
    change = (after - before).abs().mean(1)
    inside = region.to(change.dtype)
    changes = []
    for mask in (inside, 1 - inside):
        changes.append((mask * change).mean((1, 2)) / mask.mean((1, 2)).clamp(min=SMALLEST))
    return changes[0] / changes[1].clamp(min=SMALLEST)


def overlap(found: Tensor, true: Tensor, regions: int) -> Tensor:
    """Mean over the regions that one of two images has, labels (B, H, W), of their IoU, (B,)."""
    shares, there = [], []
    for region in range(regions):
        both = ((found == region) & (true == region)).sum((1, 2))
        either = ((found == region) | (true == region)).sum((1, 2))
        shares.append(both / either.clamp(min=1))
        there.append(either > 0)
    counted = torch.stack(there).sum(0).clamp(min=1)
    return torch.stack(shares).sum(0) / counted
