"""Augmentation of an image together with its mask and landmarks; the only module that knows albumentations."""

from __future__ import annotations

from collections.abc import Sequence

import albumentations as A
import numpy as np

from datamodules.portraits import LABELS

LANDMARK_SWAP = [1, 0, 2, 4, 3]  # left eye, right eye, nose, left and right corner of the mouth


def _swapped(labels: Sequence[str]) -> np.ndarray:
    """Label value -> label value with l_x and r_x exchanged where both exist (l_lip is the lower lip)."""
    other = {"l": "r", "r": "l"}
    mirrored = [other.get(name[0], "") + name[1:] if name[1:2] == "_" else name for name in labels]
    return np.array(
        [labels.index(name) if name in labels else i for i, name in enumerate(mirrored)], np.uint8
    )


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
        self.compose.set_random_seed(int(np.random.SeedSequence(list(seed)).generate_state(1)[0]))
        given = {"mask": mask, "keypoints": landmarks}
        done = self.compose(image=image, **{key: value for key, value in given.items() if value is not None})
        if landmarks is not None:
            done["landmarks"] = done.pop("keypoints").astype(np.float32)
        return done
