"""timm's residual networks, with a stem that keeps the resolution of small images."""

from __future__ import annotations

from typing import cast

from torch import nn

from tunekit.models.network import Parts
from tunekit.models.timm_stages import timm_stages


def timm_resnet(name: str, channels: int, small_stem: bool) -> Parts:
    """The body of timm's `name`, with random weights.

    Args:
        name: resnet18, resnet34, resnet50 or resnet101.
        channels: channels of the images.
        small_stem: one 3x3 convolution with stride 1 instead of the 7x7 with stride 2 and its pooling,
            which were made for 224 px, as in kuangliu/pytorch-cifar.
    """
    import timm  # costs seconds (it imports torchvision): only for the recipes that need it

    body = timm.create_model(name, in_chans=channels, num_classes=0)
    if small_stem:
        old = cast(nn.Conv2d, body.conv1)
        body.conv1 = nn.Conv2d(channels, old.out_channels, 3, padding=1, bias=False)
        nn.init.kaiming_normal_(body.conv1.weight, mode="fan_out", nonlinearity="relu")
        body.maxpool = nn.Identity()
    return Parts(body, body.num_features, timm_stages(body))
