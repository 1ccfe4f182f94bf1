"""Residual blocks of the face recognition networks that inverters are built of.

IR, and with squeeze and excitation IR-SE.

Source  Deng et al., "ArcFace", arXiv:1801.07698, in the form of omertov/encoder4editing@99ea505
        (models/encoders/helpers.py); squeeze and excitation from Hu et al., arXiv:1709.01507. Parameters have
        the released names.
Shapes  x (B, I, H, W) -> (B, O, H / stride, W / stride).
"""

from __future__ import annotations

from torch import Tensor, nn

from lightning_modules.networks.encoders import BatchNorm


class SqueezeExcite(nn.Module):
    """Every channel times a factor in (0, 1) that the means of all channels decide."""

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, channels // reduction, 1, bias=False)
        self.fc2 = nn.Conv2d(channels // reduction, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        squeezed = self.fc1(x.mean(dim=(2, 3), keepdim=True)).relu()
        return x * self.fc2(squeezed).sigmoid()


class IRBlock(nn.Module):
    """x + [BN, conv 3x3, PReLU, conv 3x3 of the stride, BN, SE](x), without an activation at the end.

    The shortcut is the subsampled x, or a 1x1 convolution and BN where the channels change.
    """

    def __init__(self, inputs: int, outputs: int, stride: int = 1, *, squeeze_excite: bool = True) -> None:
        super().__init__()
        if inputs == outputs:
            self.shortcut_layer: nn.Module = nn.MaxPool2d(1, stride)
        else:
            widen = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.shortcut_layer = nn.Sequential(widen, BatchNorm(outputs))
        self.res_layer = nn.Sequential(
            BatchNorm(inputs),
            nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
            nn.PReLU(outputs),
            nn.Conv2d(outputs, outputs, 3, stride, padding=1, bias=False),
            BatchNorm(outputs),
        )
        if squeeze_excite:
            self.res_layer.append(SqueezeExcite(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return self.shortcut_layer(x) + self.res_layer(x)
