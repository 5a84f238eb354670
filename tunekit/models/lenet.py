"""LeNet-5 (LeCun et al. 1998, Gradient-based learning applied to document recognition), in today's form.

ReLU and max pooling stand where the paper has a scaled tanh and trainable subsampling, every map of
the second convolution sees all of the first, and a linear head replaces the radial basis functions.
With norm removed and 10 classes it has 61,706 parameters on 28 and 32 px with one channel.
"""

from __future__ import annotations

from torch import nn

from tunekit.models.network import Parts
from tunekit.models.random_weights import initialise

_PADDED_UP_TO = 28  # pixels: MNIST's 28 px are padded to the paper's 32


def lenet5(height: int, width: int, channels: int) -> Parts:
    """A body for images (N, channels, height, width) with sides of at least 12 px; 84 features."""
    padding = 2 if min(height, width) <= _PADDED_UP_TO else 0
    body = nn.Sequential()
    _add_convolution(body, 1, channels, 6, padding)
    _add_convolution(body, 2, 6, 16, 0)
    pixels = _mapped(height, padding) * _mapped(width, padding)
    body.add_module("flat", nn.Flatten())
    for name, inputs, outputs in (("fc1", 16 * pixels, 120), ("fc2", 120, 84)):
        body.add_module(name, nn.Linear(inputs, outputs))
        body.add_module(f"{name}_act", nn.ReLU(inplace=True))
    initialise(body, convolutions="fan_in")
    return Parts(body, 84, {"conv1": 0, "bn1": 0, "conv2": 1, "bn2": 1, "fc1": 2, "fc2": 2})


def _add_convolution(body: nn.Sequential, index: int, inputs: int, outputs: int, padding: int) -> None:
    body.add_module(f"conv{index}", nn.Conv2d(inputs, outputs, 5, padding=padding, bias=False))
    body.add_module(f"bn{index}", nn.BatchNorm2d(outputs))
    body.add_module(f"act{index}", nn.ReLU(inplace=True))
    body.add_module(f"pool{index}", nn.MaxPool2d(2))


def _mapped(side: int, padding: int) -> int:
    """A side of the image after both convolutions and poolings."""
    return ((side + 2 * padding - 4) // 2 - 4) // 2
