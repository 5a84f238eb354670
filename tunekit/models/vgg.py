"""torchvision's VGG (Simonyan & Zisserman 2015, arXiv:1409.1556), poolings cut to the size of the images."""

from __future__ import annotations

from torch import nn

from tunekit.models.network import Parts
from tunekit.models.random_weights import initialise

_LAYOUTS = {"vgg11": "A", "vgg13": "B", "vgg16": "D", "vgg19": "E"}


def vgg(name: str, channels: int, side: int, last_pool: int) -> Parts:
    """A body for images of `channels` channels; 512 features, globally averaged.

    Modules are called as in torchvision's `vggK_bn`, so that its weights fit. As there, convolutions have
    a bias even though a norm follows.

    Args:
        name: vgg11, vgg13, vgg16 or vgg19.
        channels: of the images.
        side: shorter side of the images in pixels; a pooling that would meet a single pixel is left out.
        last_pool: side of the last pooling; 1 leaves it out.
    """
    from torchvision.models import vgg as published  # costs seconds: only for the recipes that need it

    features = published.make_layers(published.cfgs[_LAYOUTS[name]], batch_norm=True)
    features[0] = nn.Conv2d(channels, 64, 3, padding=1)
    stages = _stages(features)
    _cut_poolings(features, side, last_pool)
    body = nn.Sequential()
    body.add_module("features", features)
    body.add_module("pool", nn.AdaptiveAvgPool2d(1))
    body.add_module("flat", nn.Flatten())
    initialise(body, convolutions="fan_out")
    return Parts(body, 512, stages)


def _poolings(features: nn.Sequential) -> list[int]:
    return [index for index, layer in enumerate(features) if isinstance(layer, nn.MaxPool2d)]


def _stages(features: nn.Sequential) -> dict[str, int]:
    """Each pooling ends a stage."""
    ends = _poolings(features)
    return {f"features.{index}": sum(end < index for end in ends) for index in range(ends[-1])}


def _cut_poolings(features: nn.Sequential, side: int, last_pool: int) -> None:
    # Identity keeps the numbers of the layers behind it, which are part of the weights' names.
    *_, last = poolings = _poolings(features)
    for index in poolings:
        if side == 1 or (index == last and last_pool == 1):
            features[index] = nn.Identity()
        else:
            side //= 2
