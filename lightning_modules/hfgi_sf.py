"""HFGI-SF: HFGI whose edited person is fused with the background of the inversion, by StyleFusion.

Source  HFGI-SF, section 3.1, which joins HFGI (arXiv:2109.06590) and StyleFusion (arXiv:2107.07437); no code
        is public, and the paper leaves losses, weights and schedules open: those here are our own.
Differs What the paper does not say is an option of its own (`variant`, `fusion`, `background_consultation`,
        `mask_from`), and `edited.py` says what each means.
Shapes  x (B, 3, size, size) RGB in [-1, 1]; w (B, L, D); images at the generator's size; points in style
        space as in `networks/stylefusion.py`.
Raises  UserError: HFGI, the parser or the fusion is missing, of another method, or on another generator.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from _runtime import UserError
from lightning_modules.base import Code, Inverter, Outcome
from lightning_modules.edited import Consultation, Edited, Inverted, MaskFrom, Prealign, Renderer, Variant
from lightning_modules.editing.directions import Direction
from lightning_modules.editing.sefa import find_directions
from lightning_modules.fused_parts import (
    background_of,
    check_generator,
    check_size,
    make_hfgi,
    make_seeing,
    names_of,
    read_all,
    tree_of,
)
from lightning_modules.hfgi import HFGI
from lightning_modules.losses.lpips import LPIPS
from lightning_modules.losses.regions import RegionCrossEntropy, RegionError
from lightning_modules.networks.hfgi_sf import image_mask
from lightning_modules.networks.regions import merged, probabilities
from lightning_modules.networks.stylefusion import (
    TREES,
    FusionNet,
    Styles,
    fuse_tree,
    in_order,
    parts_of,
)
from lightning_modules.networks.stylegan2 import Generator
from lightning_modules.optimizers import adam
from lightning_modules.starts import Start
from lightning_modules.stylefusion import widths_of

REGIONS = ("person", "background")
NOBODY = "no person found: edited as by HFGI"
SEFA = 3  # directions of a training that is given none
SAMPLES = 1_000  # codes by which the length of a step is measured
PROBED = 0.5  # share of the reach at which validations edit


class HFGISF(Inverter):
    """min  lambda_loc L_loc + lambda_perc L_perc + lambda_seg L_seg,  of the node that fuses two regions.

    An edit of x: W = E0(x) and D = x - X0 as in HFGI, W_e = W + alpha n. The point of style space of the
    person is that of W_e, of the background that of W, and the common one, which decides about the pose, that
    of W_e; FusionNet makes one of them, and G0 renders it while it consults D region by region.

    For pairs of codes w and w_e, I_f the fused image, I_a and I_b those of w_e and of w, M_0 the person in
    I_a, M_1 what is background in both (what was uncovered is free):
    L_loc = |M_0 (I_f - I_a)|^2 / |M_0| + |M_1 (I_f - I_b)|^2 / |M_1|;  L_perc = LPIPS(M_0 I_f, M_0 I_a) +
    LPIPS(M_1 I_f, M_1 I_b);  L_seg: I_f has the regions of I_a, cross-entropy. Half of the codes w are of the
    training's images, the others of random z; half of the w_e are w + beta n, the others independent codes.
    HFGI, parser and a released tree are frozen; without `two_region` there is nothing to train, and
    `fit --iterations 0` writes the checkpoint.

    Args:
        hfgi: checkpoint of `--method hfgi`. A checkpoint of this method holds the mapping {method,
            hyper_parameters} in its place.
        parser: checkpoint of `--method parser`, likewise.
        stylefusion: checkpoint of `--method stylefusion`, likewise; of `fusion released_tree` only.
        directions: folder with directions of `experiments.directions` (age, smile, yaw) that codes of the
            training are moved along; its names in a checkpoint. Without it they are the three strongest that
            the generator's weights give (SeFa).
        size: width and height of the images, in pixels; HFGI's.
        fusion: `two_region` for a node of person and background, trained here; `released_tree` for a trained
            tree of StyleFusion, whose background alone is that of the inversion; `none` for HFGI's own edit,
            pre-aligned if asked.
        variant: `codes` fuses the points of W and W_e; `reencode` that of the code that E0 gives X_e in the
            place of W_e's, without further details; `pixels` pastes X_e's person over X0, whose own person is
            painted over by the fused image.
        background_consultation: what the background consults: `source` the distortion map as it is (the
            background did not move), `aligned` the map as HFGI aligns it to the inversion, `none` nothing,
            which is the paper's wording.
        mask_from: where the edited person's mask is read: in the `low_rate` edit, which has no ghosts, or in
            HFGI's `result`, unless the two disagree.
        prealign: how D is moved before ADA: `similarity` or `tps`, by landmarks of X0 and its edit that the
            parser sees, or `off`.
        common_layers: of the two-region node: how many layers of each kind look at the common point.
        psi: truncation of the random codes that are trained on.
        reach: largest |beta|, in standard deviations of the generator's codes along a direction.
        lambda_loc: weight of L_loc.
        lambda_perc: weight of L_perc.
        lambda_seg: weight of L_seg.
        warm_up: share of the run without L_seg.
        features: of LPIPS: `pretrained`, `random` (a stand-in for runs without weights) or `off`.
        lr: learning rate; the layers' multiplier makes the steps a hundredth.
        ema_decay: weight of the old average in every iteration; the averages fuse.
    """

    monitor = ("val/fusion_error", "min")
    ema: ClassVar[tuple[str, ...]] = ("nets",)
    starts_from: ClassVar[tuple[str, ...]] = ("hfgi", "parser", "stylefusion", "directions")
    shaped_by_start: ClassVar[tuple[str, ...]] = ("hfgi", "parser", "nets", "nets_ema")
    one_piece = "it draws the codes of all images of a batch together"
    BETAS = (0.0, 0.99)
    nets_ema: nn.ModuleDict
    n: Tensor

    def __init__(
        self,
        hfgi: str | dict[str, Any] | None = None,
        parser: str | dict[str, Any] | None = None,
        stylefusion: str | dict[str, Any] | None = None,
        directions: str | list[str] | None = None,
        *,
        size: int = 256,
        fusion: Literal["two_region", "released_tree", "none"] = "two_region",
        variant: Variant = "codes",
        background_consultation: Consultation = "source",
        mask_from: MaskFrom = "low_rate",
        prealign: Prealign = "off",
        common_layers: int = 5,
        psi: float = 0.7,
        reach: float = 3.0,
        lambda_loc: float = 1.0,
        lambda_perc: float = 0.8,
        lambda_seg: float = 0.1,
        warm_up: float = 2_000 / 60_000,
        features: Literal["pretrained", "random", "off"] = "pretrained",
        lr: float = 2e-3,
        ema_decay: float = 0.999,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()  # plain values, so the file alone rebuilds the method
        self.size, self.fusion, self.variant = size, fusion, variant
        self.background_consultation = background_consultation
        self.mask_from, self.prealign = mask_from, prealign
        self.psi, self.reach, self.warm_up, self.lr, self.decay = psi, reach, warm_up, lr, ema_decay
        self.lambdas = {"loc": lambda_loc, "perc": lambda_perc, "seg": lambda_seg}
        self.hfgi = make_hfgi(hfgi, size)
        self.parser = make_seeing(parser, self.hfgi)
        self.tree_name, self.nets, self.frozen_nets = "person", nn.ModuleDict(), nn.ModuleDict()
        widths = widths_of(self.G)
        if fusion == "two_region":
            self.nets["all"] = FusionNet(widths, max(widths), common_layers=common_layers)
        elif fusion == "released_tree":
            self.tree_name, layers = tree_of(stylefusion)
            for node in in_order(TREES[self.tree_name]):
                self.frozen_nets[node] = FusionNet(widths, max(widths), common_layers=layers)
            self.frozen_nets.requires_grad_(False)
        if stylefusion is not None and fusion != "released_tree":
            raise UserError(f"--model.fusion {fusion} takes no trained tree: leave out --model.stylefusion")
        self.tree = TREES[self.tree_name]
        self.make_ema()
        self.register_buffer("n", self._axes(names_of(directions)))
        self.L_loc, self.L_seg = RegionError(), RegionCrossEntropy()
        self.L_perc = LPIPS("alex", features) if features != "off" and lambda_perc > 0 else None
        self._latest: Inverted | None = None
        self.train()

    @property
    def G(self) -> Generator:
        """G0, the generator of all parts."""
        return self.hfgi.base.G

    def _axes(self, names: list[str] | None) -> Tensor:
        """As many directions (N, L, D) as there are names, until `initialise` reads them."""
        axes = torch.eye(SEFA if names is None else len(names), self.G.style_dim)
        return axes[:, None].repeat(1, self.G.layers, 1)

    # --- what a run starts from ---------------------------------------------------------------------

    @classmethod
    def described(cls, options: dict[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for option in ("hfgi", "parser", "stylefusion"):
            if isinstance(options[option], str):
                start = Start(option, options[option])
                start.check_method(option)
                found[option] = start.description
                if option == "hfgi":
                    check_size(start.options, options["size"], start.name)
        if "stylefusion" in found:  # its prior is HFGI's, and its parser is not asked
            options_of_tree = found["stylefusion"]["hyper_parameters"]
            shape = {name: options_of_tree[name] for name in ("tree", "common_layers")}
            found["stylefusion"] = {"method": "stylefusion", "hyper_parameters": shape}
        if isinstance(options["directions"], str):
            found["directions"] = [direction.name for direction in read_all(options["directions"])]
        return {**options, **found}

    @classmethod
    def without_start(cls, options: dict[str, Any]) -> dict[str, Any]:
        size = options["size"]
        hfgi = HFGI.without_start({"size": size, "base": None})
        stand_ins = {
            "hfgi": {"method": "hfgi", "hyper_parameters": hfgi},
            "parser": {"method": "parser", "hyper_parameters": {"size": size}},
            "directions": None,
        }
        if options["fusion"] == "released_tree":
            stand_ins["stylefusion"] = {"method": "stylefusion", "hyper_parameters": {"tree": "ffhq"}}
        given = {name: options[name] for name in stand_ins if isinstance(options[name], (dict, list))}
        return {**options, **stand_ins, **given}

    def check_start(self) -> None:
        if "directions" in self.sources:
            self._steps(read_all(self.sources["directions"]))

    def initialise(self) -> None:
        if "hfgi" in self.sources:
            Start("hfgi", self.sources["hfgi"]).load(self.hfgi, "")
        else:
            self.G.estimate_w_avg()
        if "parser" in self.sources:
            Start("parser", self.sources["parser"]).load(self.parser, "")
        if "stylefusion" in self.sources:
            start = Start("stylefusion", self.sources["stylefusion"])
            check_generator(start.state, self.G, start.name)
            start.load(self.frozen_nets, "nets_ema.")
        if "directions" in self.sources:
            self.n.copy_(self._steps(read_all(self.sources["directions"])))
        else:
            self.take_strongest()

    def take_strongest(self) -> None:
        """Let the training move codes along the directions that change the generator's styles most."""
        self.n.copy_(self._steps(find_directions(self.G, SEFA)))

    def _steps(self, found: list[Direction]) -> Tensor:
        """The steps along directions, one standard deviation of random codes w each, (N, L, D).

        Raises:
            UserError: one is of another generator.
        """
        w = self.G.w_avg.expand(1, self.G.layers, -1)
        steps = torch.cat([direction.apply(w, 1) - direction.apply(w, 0) for direction in found])
        generator = torch.Generator().manual_seed(0)
        z = torch.randn(SAMPLES, self.G.z_dim, generator=generator).to(w)
        lengths = steps.flatten(1).norm(dim=1)
        along = self.G.mapping(z) @ steps.sum(1).T / lengths
        return steps * (along.std(0) / lengths)[:, None, None]

    # --- inference ----------------------------------------------------------------------------------

    def invert(self, image: Tensor) -> Code:
        """w and `distortion` as of HFGI, and as `source` the w that an edit leaves where it is."""
        code = self.hfgi.invert(image)
        return {**code, "source": code["w"].clone()}

    def synthesize(self, code: Code) -> Tensor:
        """Y, the edited face of a code, at the generator's size."""
        edited = self.edited(code)
        self.remarks = {} if self.fusion == "none" else {NOBODY: ~edited.found}
        return edited.result

    def edited(self, code: Code) -> Edited:
        """The edit of a code that `edit` has moved, with all its intermediate results.

        What belongs to the inversion alone is computed once for codes that were moved from one code, as in a
        sweep of strengths; not where gradients are recorded, whose graph serves once.
        """
        w, distortion = code.get("source"), self.hfgi.map_of(code)
        if w is None:
            raise UserError("the code does not say from which it was edited: invert the image once more")
        latest, renderer = self._latest, self._renderer()
        if latest is None or not latest.is_of(renderer, w, distortion):
            latest = Inverted(renderer, w, distortion)
        self._latest = None if torch.is_grad_enabled() else latest
        return Edited(latest, code["w"])

    def _renderer(self) -> Renderer:
        fuse = None if self.fusion == "none" else self.fuse
        options = (self.variant, self.background_consultation, self.mask_from, self.prealign)
        return Renderer(self.hfgi, self.parser, fuse, *options)

    def _apply(self, *arguments: Any, **options: Any) -> HFGISF:
        self._latest = None  # what it holds is on another device, or of another type
        return super()._apply(*arguments, **options)

    def load_state_dict(self, *arguments: Any, **options: Any) -> Any:
        self._latest = None
        return super().load_state_dict(*arguments, **options)

    def point(self, w: Tensor) -> Styles:
        """The point in style space of w (B, L, D), whose image is that of w."""
        return self.G.synthesis.styles(w)

    def fuse(self, w: Tensor, w_e: Tensor) -> Styles:
        """The point of the background of w and of all else of w_e, both (B, L, D)."""
        own, common = self.point(w), self.point(w_e)
        points = dict.fromkeys(parts_of(self.tree), common)
        points[background_of(self.tree)] = own
        nets = self.nets_ema if self.fusion == "two_region" else self.frozen_nets
        return fuse_tree(dict(nets.items()), self.tree, points)  # type: ignore[arg-type]

    @torch.no_grad()
    def compare(
        self, image: Tensor, direction: Callable[[Tensor, Any], Tensor], strength: float | Tensor
    ) -> dict[str, Tensor]:
        """An edit of images (B, 3, size, size), beside what it is made of.

        Args:
            image: in [-1, 1].
            direction: as `Inverter.edit` takes it, e.g. `Direction.apply`.
            strength: one, or one for each image (B,).

        Returns:
            All (B, 3, size, size), as `seen`: `y` the result; `low` X0e, the low-rate edit; `own` X_e, HFGI's
            edit (pre-aligned where the method is); `source` X0. `p` and `q`, soft masks (B, 1, size, size) of
            the person in the input and after the edit (of the parsing that the fusion goes by); `found` (B,).
        """
        edited = self.edited(self.edit(self.invert(image), direction, strength))
        images = {"y": edited.result, "low": edited.low, "own": edited.own, "source": edited.of.image}
        seen = {name: self.seen(full) for name, full in images.items()}
        p, q = (image_mask(scores, self.size) for scores in (edited.of.input_scores, edited.scores))
        return {**seen, "p": p, "q": q, "found": edited.found}

    # --- training -----------------------------------------------------------------------------------

    def train(self, mode: bool = True) -> HFGISF:
        """What is frozen stays in evaluation mode, or running statistics would move on."""
        super().train(mode)
        self.hfgi.eval()
        self.parser.eval()
        return self

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        with torch.no_grad():
            w, w_e = self._pairs(batch["target"])
        terms = self.objective(w, w_e)
        counted = ["loc", "perc"] if self.progress < self.warm_up else list(self.lambdas)
        weighted = [self.lambdas[name] * terms[name] for name in counted if name in terms]
        (optimizer,) = self.players
        self.descend(optimizer, torch.stack(weighted).sum())
        if self.L_perc is not None:
            terms[self.L_perc.name] = terms.pop("perc")
        self.log_terms(terms)

    def _pairs(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Codes of two images each, w of the background and w_e of the person, (B, L, D) both."""
        count, device, dtype = len(images), self.device, self.G.w_avg.dtype
        codes = self.hfgi.base.invert(images)["w"]
        z = torch.randn((count, 2, self.G.z_dim), device=device, dtype=dtype)
        w, other = (self.G.map(part, self.psi) for part in z.unbind(1))
        coins = torch.rand((count, 2, 1, 1), device=device, dtype=dtype) < 0.5
        real, moved = coins.unbind(1)
        w = torch.where(real, codes, w)
        beta = self.reach * (2 * torch.rand((count, 1, 1), device=device, dtype=dtype) - 1)
        chosen = torch.randint(len(self.n), (count,), device=device)
        return w, torch.where(moved, w + beta * self.n[chosen], other)

    def objective(self, w: Tensor, w_e: Tensor) -> dict[str, Tensor]:
        """The terms of the loss for pairs of codes."""
        s_0, s_1 = self.point(w_e), self.point(w)
        I_f = self._seen(self.nets["all"](s_0, s_1, s_0))
        with torch.no_grad():
            I_a, I_b = self._seen(s_0), self._seen(s_1)
            M_0, M_1 = self._regions(I_a, I_b)
            layout = merged(self.parser.label(I_a), REGIONS)
        terms = {"loc": self.L_loc(I_f, I_a, M_0) + self.L_loc(I_f, I_b, M_1)}
        if self.L_perc is not None:
            terms["perc"] = self.L_perc(M_0 * I_f, M_0 * I_a) + self.L_perc(M_1 * I_f, M_1 * I_b)
        terms["seg"] = self.L_seg(probabilities(self.parser.parse(I_f), REGIONS), layout)
        return terms

    def _regions(self, I_a: Tensor, I_b: Tensor) -> tuple[Tensor, Tensor]:
        """Where the person is in I_a, and where there is background in both, (B, 1, H, W)."""
        person, free = probabilities(self.parser.parse(I_a), REGIONS).split(1, dim=1)
        _, background = probabilities(self.parser.parse(I_b), REGIONS).split(1, dim=1)
        return person, free * background

    def _seen(self, point: Styles) -> Tensor:
        """A point's image at the size of the losses."""
        return self.seen(self.G.synthesis(styles=point, noise="const"))

    def ema_decay(self) -> float:
        return self.decay

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        if not self.nets:
            return []
        return [adam(self.nets.parameters(), lr=self.lr, betas=self.BETAS)]

    # --- validation and pictures --------------------------------------------------------------------

    def choose_monitor(self, measured: Sequence[str]) -> None:
        if self.fusion == "none":  # there is no error of a fusion
            super().choose_monitor(measured)

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> Outcome:
        """The inversion, HFGI's, and how far edited images are from both they are fused of.

        An image's edit is a function of its index.
        """
        code = self.invert(batch["target"])
        inverted = self.edited(code)
        result, hfgi = self.seen(inverted.result), self.seen(inverted.own)
        scores = {}
        if self.fusion != "none":
            scores["fusion_error"] = self.fusion_error(code["w"], self._moved(code["w"], batch["index"]))
        return Outcome(result, {"hfgi": hfgi}, scores=scores)

    def fusion_error(self, w: Tensor, w_e: Tensor) -> Tensor:
        """L_loc of each image, (B,)."""
        I_f, I_a, I_b = (self._seen(point) for point in (self.fuse(w, w_e), self.point(w_e), self.point(w)))
        M_0, M_1 = self._regions(I_a, I_b)
        return self.L_loc(I_f, I_a, M_0, per_image=True) + self.L_loc(I_f, I_b, M_1, per_image=True)

    def _moved(self, w: Tensor, index: Tensor) -> Tensor:
        """Codes (B, L, D) half as far along a direction as training goes, for images of some indices."""
        index = index.to(w.device)
        side = 1 - 2 * (index // len(self.n) % 2)
        strength = PROBED * self.reach * side.to(w.dtype)
        return w + strength[:, None, None] * self.n[index % len(self.n)]

    def pictures(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Images, their low-rate edits, HFGI's, and what the fusion makes of them."""
        target = batch["target"]
        code = self.invert(target)
        moved = self._moved(code["w"], torch.arange(len(target), device=target.device))
        edited = self.edited({**code, "w": moved})
        shown = {"low rate": edited.low, "hfgi": edited.own, "edited": edited.result}
        return {"target": target, **{name: self.seen(image) for name, image in shown.items()}}
