"""Augmentation of an image with its mask and landmarks; the only module that knows albumentations."""

from __future__ import annotations

from collections.abc import Sequence

import albumentations as A
import numpy as np

from datamodules.portraits import LABELS

LANDMARK_SWAP = [1, 0, 2, 4, 3]  # left eye, right eye, nose, left and right corner of the mouth


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


class MirrorFace(A.HorizontalFlip):
    """Mirror a face; what is left in a mask or among the five landmarks becomes right."""

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
    ) -> dict:
        """Mirrored or untouched copies of what is given.

        Args:
            seed: numbers that the decision depends on
            image: uint8 (H, W, 3)
            mask: uint8 (H, W), labels as in ``portraits.LABELS``
            landmarks: float32 (5, 2), (x, y) in pixels, 0 being the centre of the first

        Returns:
            ``image`` and, if given, ``mask`` and ``landmarks``
        """
        state = np.random.SeedSequence(list(seed)).generate_state(1)
        self.compose.set_random_seed(int(state[0]))
        given = {"image": image}
        if mask is not None:
            given["mask"] = mask
        if landmarks is not None:
            given["keypoints"] = landmarks
        done = self.compose(**given)
        if landmarks is not None:
            done["landmarks"] = done.pop("keypoints").astype(np.float32)
        return done
