"""timm's ConvNeXt (Liu et al. 2022, arXiv:2201.03545), with smaller patches for small images."""

from __future__ import annotations

from typing import cast

from torch import nn

from tunekit.models.network import Parts
from tunekit.models.timm_stages import timm_stages


def convnext(name: str, channels: int, small_stem: bool) -> Parts:
    """The body of timm's `name`, with random weights.

    Args:
        name: convnext_atto, convnext_tiny or convnext_small.
        channels: channels of the images.
        small_stem: patches of 2x2 instead of 4x4 pixels, so that 32 px end in 2x2 features. (timm's own
            patch_size=2 gives the first stage a stride of 2, which takes the gain back.)
    """
    import timm  # costs seconds (it imports torchvision): only for the recipes that need it

    body = timm.create_model(name, in_chans=channels, num_classes=0)
    if small_stem:
        old = cast(nn.Conv2d, body.stem[0])
        body.stem[0] = nn.Conv2d(channels, old.out_channels, 2, stride=2)
        nn.init.trunc_normal_(body.stem[0].weight, std=0.02)  # as timm and the paper do
        nn.init.zeros_(body.stem[0].bias)
    return Parts(body, body.num_features, timm_stages(body))
