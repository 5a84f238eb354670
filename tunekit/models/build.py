"""The one door to every network."""

from __future__ import annotations

from torch import nn

from tunekit.models.cifar_resnet import CifarResNet
from tunekit.models.norm_placement import place_norm
from tunekit.models.timm_resnet import build_timm_resnet
from tunekit.recipe import ModelRecipe

_CIFAR_BLOCKS = {"resnet8": 1, "resnet20": 3, "resnet32": 5, "resnet56": 9}


def build_model(recipe: ModelRecipe, image_shape: tuple[int, int, int], classes: int) -> nn.Module:
    """The network of a recipe, with random weights from torch's global generator.

    Args:
        recipe: `model.*` of the recipe.
        image_shape: (H, W, C) of the images.
        classes: number of outputs.
    Returns:
        A module from images (N, C, H, W) to logits (N, classes).
    """
    height, width, channels = image_shape
    if recipe.name in _CIFAR_BLOCKS:
        model: nn.Module = CifarResNet(_CIFAR_BLOCKS[recipe.name], channels, classes)
    else:
        model = build_timm_resnet(recipe.name, channels, min(height, width), classes)
    return place_norm(model, recipe.bn_placement)
