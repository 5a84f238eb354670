"""The convolutional network that people write first: conv-norm-ReLU-pool a few times, then a hidden layer."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from tunekit.models.network import Parts
from tunekit.models.random_weights import initialise

_HIDDEN = 256


def scratch(height: int, width: int, channels: int, depth: int, first_width: int) -> Parts:
    """A body of `depth` stages and a hidden layer for images (N, channels, height, width); 256 features.

    Args:
        height, width: of the images in pixels; a pooling that would meet a single pixel is left out.
        channels: of the images.
        depth: stages of one 3x3 convolution, norm, ReLU and 2x2 pooling.
        first_width: channels of the first stage; each stage doubles them.
    """
    body = nn.Sequential()
    outputs = first_width
    for index in range(depth):
        pools = min(height, width) > 1
        body.add_module(f"stage{index + 1}", _stage(channels, outputs, pools))
        if pools:
            height, width = height // 2, width // 2
        channels, outputs = outputs, 2 * outputs
    body.add_module("flat", nn.Flatten())
    body.add_module("hidden", nn.Linear(channels * height * width, _HIDDEN))
    body.add_module("hidden_act", nn.ReLU(inplace=True))
    initialise(body, convolutions="fan_in")
    return Parts(body, _HIDDEN, {**{f"stage{index + 1}": index for index in range(depth)}, "hidden": depth})


def _stage(inputs: int, outputs: int, pools: bool) -> nn.Sequential:
    return nn.Sequential(
        OrderedDict(
            conv=nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
            bn=nn.BatchNorm2d(outputs),
            act=nn.ReLU(inplace=True),
            pool=nn.MaxPool2d(2) if pools else nn.Identity(),
        )
    )
