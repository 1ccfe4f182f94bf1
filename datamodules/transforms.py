"""Augmentation of an image with its mask and landmarks; the only module that knows albumentations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import albumentations as A
import numpy as np

from datamodules.portraits import LABELS

LANDMARK_SWAP = [1, 0, 2, 4, 3]  # left eye, right eye, nose, left and right corner of the mouth
COMPONENT_SWAP = [1, 0, 2]  # left eye, right eye, mouth


def _swapped(labels: Sequence[str]) -> np.ndarray:
    """Label value -> label value with l_x and r_x exchanged where both exist (l_lip is the lower lip)."""
    table = np.arange(len(labels), dtype=np.uint8)
    for value, name in enumerate(labels):
        other = "r_" + name.removeprefix("l_")
        if name.startswith("l_") and other in labels:
            table[value] = labels.index(other)
            table[labels.index(other)] = value
    return table


LABEL_SWAP = _swapped(LABELS)


def mirror_components(components: np.ndarray, width: int) -> np.ndarray:
    """Centre and half length of left eye, right eye and mouth (3, 3) in the mirrored image.

    In a copy, and with `width` - x as GFP-GAN has it.
    """
    mirrored = components[COMPONENT_SWAP].copy()
    mirrored[:, 0] = width - mirrored[:, 0]
    return mirrored


class MirrorFace(A.HorizontalFlip):
    """Mirror a face; what is left in a mask, among the five landmarks or the components becomes right."""

    @property
    def targets(self) -> dict[str, Any]:
        return {**super().targets, "components": self.apply_to_components}

    def apply_to_components(self, components: np.ndarray, **params) -> np.ndarray:
        return mirror_components(components, params["shape"][1])

    def apply_to_mask(self, mask: np.ndarray, *args, **params) -> np.ndarray:
        return LABEL_SWAP[super().apply_to_mask(mask, *args, **params)]

    def apply_to_keypoints(self, keypoints: np.ndarray, **params) -> np.ndarray:
        return super().apply_to_keypoints(keypoints, **params)[LANDMARK_SWAP]


class Flip:
    """Mirror one face in two, decided by a seed alone."""

    def __init__(self) -> None:
        self.compose = A.Compose(
            [MirrorFace(p=0.5)], keypoint_params=A.KeypointParams(format="xy", remove_invisible=False)
        )

    def __call__(
        self,
        seed: Sequence[int],
        image: np.ndarray,
        mask: np.ndarray | None = None,
        landmarks: np.ndarray | None = None,
        components: np.ndarray | None = None,
    ) -> dict:
        """Mirrored or untouched copies of what is given.

        Args:
            seed: numbers that the decision depends on
            image: uint8 (H, W, 3)
            mask: uint8 (H, W), labels as in ``portraits.LABELS``
            landmarks: float32 (5, 2), (x, y) in pixels, 0 being the centre of the first
            components: float32 (3, 3), centre and half length of left eye, right eye and mouth in pixels

        Returns:
            ``image`` and, if given, ``mask``, ``landmarks`` and ``components``
        """
        state = np.random.SeedSequence(list(seed)).generate_state(1)
        self.compose.set_random_seed(int(state[0]))
        given = {"image": image}
        if mask is not None:
            given["mask"] = mask
        if landmarks is not None:
            given["keypoints"] = landmarks
        if components is not None:
            given["components"] = components
        done = self.compose(**given)
        if landmarks is not None:
            done["landmarks"] = done.pop("keypoints").astype(np.float32)
        return done
