"""Portraits: a procedural face data set with exactly known pose, expression, parsing, landmarks and edits.

A face is a row of named scalars, and rendering it is arithmetic per pixel. A ray meets the head and the
shell of hair; what is on them is drawn by signed distances in the coordinates of the head, so a feature
keeps its place when the head turns. The picture is aligned as in FFHQ: eyes near 47 % of the height, the
head filling most of the frame, the background fixed to the frame.

Same bytes  Every step that reaches a pixel is an operation IEEE 754 rounds correctly (+ - * / sqrt,
            comparisons, floor), one per kernel, with no reduction, or a look-up in a fixed table. So an
            image depends on (seed, index) alone: not on its batch or the number of threads.
Detail      Hairs, pores and weave are tables fixed to the head, the clothes or the frame; what is finer
            than a pixel fades (`textures`).
Masks       CelebAMask-HQ's labels. eye_g is the frame, and the lens of sunglasses; through a clear lens
            the eye keeps its label. Beards are skin. A background pixel with no other label beside it is
            bit for bit the same in every edit of the face.
Left, right As in the picture: l_eye is the eye at the left of the picture, and positive yaw turns the face
            to the right of the picture.
"""

from datamodules.portraits.drawing import LABELS, Portraits, render
from datamodules.portraits.parameters import (
    ATTRIBUTES,
    CODED,
    Parameters,
    counterfactual,
    sample_codes,
    sample_parameters,
)

__all__ = [
    "ATTRIBUTES",
    "CODED",
    "LABELS",
    "Parameters",
    "Portraits",
    "counterfactual",
    "render",
    "sample_codes",
    "sample_parameters",
]
