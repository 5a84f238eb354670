"""timm's residual networks, with a stem that keeps the resolution of small images."""

from __future__ import annotations

from typing import cast

from torch import nn

SMALL_STEM_UP_TO = 64  # pixels


def build_timm_resnet(name: str, channels: int, side: int, classes: int) -> nn.Module:
    """timm's `name` without pretrained weights.

    Up to 64 px the 7x7 stem with stride 2 and its pooling, made for 224 px, become one 3x3
    convolution with stride 1, as in the CIFAR networks of kuangliu/pytorch-cifar.

    Args:
        name: resnet18, resnet34, resnet50 or resnet101.
        channels: channels of the images.
        side: the shorter side of the images in pixels.
        classes: number of outputs.
    """
    import timm  # costs seconds (it imports torchvision): only for the recipes that need it

    model = cast(nn.Module, timm.create_model(name, pretrained=False, in_chans=channels, num_classes=classes))
    if side <= SMALL_STEM_UP_TO:
        old = cast(nn.Conv2d, model.conv1)
        model.conv1 = nn.Conv2d(channels, old.out_channels, 3, padding=1, bias=False)
        nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")
        model.maxpool = nn.Identity()
    return model
