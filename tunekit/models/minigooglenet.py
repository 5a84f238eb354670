"""MiniGoogLeNet: the small Inception of Zhang et al. 2017 (arXiv:1611.03530), figure 3, for CIFAR.

Convolutions are followed by norm and ReLU; an inception module joins a 1x1 and a 3x3 branch; a
downsample module joins a 3x3 convolution and a pooling, both with stride 2. Both are padded, which
gives the paper's maps of 28, 14 and 7 px. Needs torch alone.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn

from tunekit.models.network import Parts
from tunekit.models.random_weights import initialise

# Channels of the 1x1 and 3x3 branch of each inception module; a downsample module ends a stage.
_STAGES = (
    ((32, 32), (32, 48)),
    ((112, 48), (96, 64), (80, 80), (48, 96)),
    ((176, 160), (176, 160)),
)
_DOWNSAMPLED = (80, 96)  # channels of the 3x3 convolution of each downsample module


class Inception(nn.Module):
    """(N, inputs, h, w) -> (N, narrow + wide, h, w)."""

    def __init__(self, inputs: int, narrow: int, wide: int) -> None:
        super().__init__()
        self.branch1 = _convolution(inputs, narrow, 1)
        self.branch3 = _convolution(inputs, wide, 3)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat((self.branch1(x), self.branch3(x)), 1)


class Downsample(nn.Module):
    """(N, inputs, h, w) -> (N, inputs + added, h / 2, w / 2), rounded up."""

    def __init__(self, inputs: int, added: int) -> None:
        super().__init__()
        self.branch3 = _convolution(inputs, added, 3, stride=2)
        self.pool = nn.MaxPool2d(3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat((self.branch3(x), self.pool(x)), 1)


def minigooglenet(channels: int) -> Parts:
    """A body for images of `channels` channels; 336 features, globally averaged."""
    body = nn.Sequential(OrderedDict(stem=_convolution(channels, 96, 3)))
    width = 96
    for index, modules in enumerate(_STAGES):
        stage, width = _stage(width, modules)
        if index < len(_DOWNSAMPLED):
            stage.append(Downsample(width, _DOWNSAMPLED[index]))
            width += _DOWNSAMPLED[index]
        body.add_module(f"stage{index + 1}", stage)
    body.add_module("pool", nn.AdaptiveAvgPool2d(1))
    body.add_module("flat", nn.Flatten())
    initialise(body, convolutions="fan_in")
    return Parts(body, width, {"stem": 0, "stage1": 1, "stage2": 2, "stage3": 3})


def _stage(inputs: int, modules: tuple[tuple[int, int], ...]) -> tuple[nn.Sequential, int]:
    stage = nn.Sequential()
    for narrow, wide in modules:
        stage.append(Inception(inputs, narrow, wide))
        inputs = narrow + wide
    return stage, inputs


def _convolution(inputs: int, outputs: int, side: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        OrderedDict(
            conv=nn.Conv2d(inputs, outputs, side, stride, padding=side // 2, bias=False),
            bn=nn.BatchNorm2d(outputs),
            act=nn.ReLU(inplace=True),
        )
    )
