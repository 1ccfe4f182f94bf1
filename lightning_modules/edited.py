"""HFGI-SF's edited face, step by step: the one place that decides how an edit is rendered.

`invert`, `edit`, `evaluate` and the comparisons all come here.

Source  HFGI-SF, section 3.1 (its steps 1 to 7); what it leaves open is told at each step.
Shapes  w, w_e (B, L, D), of the inversion and of the edit; images (B, 3, S, S) at the generator's size; x and
        maps of distortion (B, 3, size, size); masks and consultations as in `networks/hfgi_sf.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from lightning_modules.hfgi import HFGI
from lightning_modules.networks.hfgi import fusion
from lightning_modules.networks.hfgi_sf import (
    AGREED,
    Maps,
    agreement,
    behind,
    blended,
    image_mask,
    layer_mask,
)
from lightning_modules.networks.prealign import FacePoints, face_points, move_as_plate, move_similarly
from lightning_modules.networks.stylefusion import Styles
from lightning_modules.parser import Parser

Variant = Literal["codes", "reencode", "pixels"]
Consultation = Literal["none", "source", "aligned"]
MaskFrom = Literal["low_rate", "result"]
Prealign = Literal["off", "similarity", "tps"]


@dataclass(frozen=True)
class Renderer:
    """What an edit is rendered with.

    Attributes:
        hfgi: G0, E0, ADA and Ec.
        parser: tells person and background apart.
        fuse: the point of style space with the background of w and the person of w_e; None for HFGI's own
            edit, which is not fused.
        variant, background, mask_from, prealign: options of `HFGISF`.
    """

    hfgi: HFGI
    parser: Parser
    fuse: Callable[[Tensor, Tensor], Styles] | None
    variant: Variant
    background: Consultation
    mask_from: MaskFrom
    prealign: Prealign

    @property
    def side(self) -> int:
        """Of the layer that consults."""
        return self.hfgi.base.G.synthesis.convs[self.hfgi.layer].resolution

    def image(self, w: Tensor, maps: Maps) -> Tensor:
        """HFGI's: G(w | maps)."""
        return self.hfgi.base.G(w, noise="const", modulate=fusion(self.hfgi.layer, *maps))

    def of_point(self, point: Styles, maps: Maps | None = None) -> Tensor:
        """The same of a point in style space."""
        G = self.hfgi.base.G
        modulate = None if maps is None else fusion(self.hfgi.layer, *maps)
        return G.synthesis(styles=point, noise="const", modulate=modulate)


class Inverted:
    """What all edits of an image share; each is computed when it is asked for, once.

    Args:
        renderer: what renders it.
        w: the inversion's code.
        distortion: D = x - X0.
    """

    def __init__(self, renderer: Renderer, w: Tensor, distortion: Tensor) -> None:
        self.renderer, self.w, self.distortion = renderer, w, distortion

    def is_of(self, renderer: Renderer, w: Tensor, distortion: Tensor) -> bool:
        """Whether it was made of these very tensors."""
        return self.w is w and self.distortion is distortion and self.renderer == renderer

    @cached_property
    def image(self) -> Tensor:
        """X0, the low-rate inversion."""
        return self.renderer.hfgi.base.synthesize({"w": self.w})

    @cached_property
    def scores(self) -> Tensor:
        """The parser's, of X0."""
        return self.renderer.parser.scores(self.image)

    @cached_property
    def input_scores(self) -> Tensor:
        """The parser's, of the photograph x = X0 + D: X0 shows a face whatever that shows."""
        return self.renderer.parser.scores(self.renderer.hfgi.looked_at(self.image) + self.distortion)

    @cached_property
    def person(self) -> Tensor:
        """P0 at the consulting layer."""
        return layer_mask(self.scores, self.renderer.side)[0]

    @cached_property
    def found(self) -> Tensor:
        """Whether somebody is seen in the photograph and in X0, (B,)."""
        seen = [layer_mask(scores, self.renderer.side)[1] for scores in (self.input_scores, self.scores)]
        return seen[0] & seen[1]

    @cached_property
    def points(self) -> FacePoints:
        """Where eyes, nose and mouth are in X0."""
        return face_points(self.scores)

    @cached_property
    def maps(self) -> Maps:
        """C_b = Ec(D), of the unaligned map, as the background did not move; or Ec(ADA(D, X0)).

        Ec has learned from what ADA makes of maps, so HFGI's inversion is the latter.
        """
        hfgi, map = self.renderer.hfgi, self.distortion
        if self.renderer.background == "aligned" and hfgi.A is not None:
            map = hfgi.A(map, hfgi.looked_at(self.image))
        return hfgi.C(map)


class Edited:
    """An edit of an image and all intermediate results, each computed when it is asked for.

    Args:
        of: the inversion.
        w: the edited code, W_e.
    """

    def __init__(self, of: Inverted, w: Tensor) -> None:
        self.of, self.w, self.renderer = of, w, of.renderer

    @cached_property
    def low(self) -> Tensor:
        """X0e, the low-rate edit."""
        return self.renderer.hfgi.base.synthesize({"w": self.w})

    @cached_property
    def low_scores(self) -> Tensor:
        """The parser's, of X0e."""
        return self.renderer.parser.scores(self.low)

    @cached_property
    def moved(self) -> Tensor:
        """D where the face has gone, by landmarks of X0 and X0e; D itself without pre-alignment."""
        if self.renderer.prealign == "off":
            return self.of.distortion
        move = move_similarly if self.renderer.prealign == "similarity" else move_as_plate
        return move(self.of.distortion, self.of.points, face_points(self.low_scores))

    @cached_property
    def maps(self) -> Maps:
        """C_e = Ec(ADA(D, X0e))."""
        hfgi = self.renderer.hfgi
        aligned = self.moved
        if hfgi.A is not None:
            aligned = hfgi.A(aligned, hfgi.looked_at(self.low))
        return hfgi.C(aligned)

    @cached_property
    def own(self) -> Tensor:
        """X_e, HFGI's own edit."""
        return self.renderer.image(self.w, self.maps)

    @cached_property
    def scores(self) -> Tensor:
        """The parsing that masks come from; X0e's where that of X_e, whose ghosts mislead it, differs."""
        if self.renderer.mask_from == "low_rate":
            return self.low_scores
        own = self.renderer.parser.scores(self.own)
        agreed = agreement(own, self.low_scores) >= AGREED
        return torch.where(agreed[:, None, None, None], own, self.low_scores)

    @cached_property
    def found(self) -> Tensor:
        """Whether somebody is seen before and after, (B,); where nobody is the edit is HFGI's."""
        return self.of.found & layer_mask(self.scores, self.renderer.side)[1]

    @cached_property
    def mask(self) -> Tensor:
        """m, the person after the edit; all of an image in which nobody is found."""
        return self._or_all(layer_mask(self.scores, self.renderer.side)[0])

    @cached_property
    def point(self) -> Styles:
        """The fused point; that of W_e in an image in which nobody is found."""
        fuse, styles = self.renderer.fuse, self.renderer.hfgi.base.G.synthesis.styles
        assert fuse is not None
        w = self.w if self.renderer.variant != "reencode" else self._reencoded()
        pairs = zip(fuse(self.of.w, w), styles(self.w), strict=True)
        return [torch.where(self.found[:, None], fused, own) for fused, own in pairs]

    @cached_property
    def consulted(self) -> Maps:
        """C_f. A person whose code was encoded again has its details in the code, and consults nothing."""
        person = self.mask
        if self.renderer.variant == "reencode":
            person = self._or_all(torch.zeros_like(person))
        background = None
        if self.renderer.background != "none":
            background = (behind(self.of.person, self.mask), self.of.maps)
        return blended((person, self.maps), background)

    @cached_property
    def result(self) -> Tensor:
        """Y."""
        if self.renderer.fuse is None:
            return self.own
        if self.renderer.variant == "pixels":
            return self._pasted()
        return self.renderer.of_point(self.point, self.consulted)

    def _reencoded(self) -> Tensor:
        """The code of X_e as the encoder sees it."""
        hfgi = self.renderer.hfgi
        return hfgi.base.invert(hfgi.looked_at(self.own))["w"]

    def _pasted(self) -> Tensor:
        """M X_e + (1 - M) B, where B is X0 with the fused face's image in the place of its person."""
        size = self.own.shape[-1]
        gone = image_mask(self.of.scores, size)
        background = gone * self.renderer.of_point(self.point) + (1 - gone) * self.of.image
        mask = self._or_all(image_mask(self.scores, size))
        return mask * self.own + (1 - mask) * background

    def _or_all(self, mask: Tensor) -> Tensor:
        return torch.where(self.found[:, None, None, None], mask, torch.ones_like(mask))
