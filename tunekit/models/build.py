"""The one door to every network."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from tunekit.errors import RecipeError
from tunekit.models.catalog import FAMILIES, TIMM_PREFIX, wants_small_stem
from tunekit.models.cifar_resnet import cifar_resnet
from tunekit.models.convnext import convnext
from tunekit.models.first_weights import FirstWeights
from tunekit.models.googlenet import googlenet
from tunekit.models.lenet import lenet5
from tunekit.models.minigooglenet import minigooglenet
from tunekit.models.network import Network, Parts
from tunekit.models.norm_placement import place_norm
from tunekit.models.scratch import scratch
from tunekit.models.seen_size import Shape, seen_shape
from tunekit.models.timm_any import timm_any
from tunekit.models.timm_resnet import timm_resnet
from tunekit.models.vgg import vgg
from tunekit.recipe import ModelRecipe, Recipe

_HIDDEN = 4096  # of the head fc4096


def build_model(recipe: Recipe, image_shape: Shape, classes: int, weights: Path | None = None) -> Network:
    """The network of a recipe that `catalog.check_model` accepts.

    Random weights come from torch's global generator; heads are always random.

    Args:
        recipe: the whole configuration.
        image_shape: (H, W, C) of the images, before `input.size`.
        classes: number of outputs.
        weights: the file of first weights of the body (`pretrained.fetch_weights`); given unless
            `recipe.init` is "random".
    Raises:
        RecipeError: if the first weights do not fit the recipe.
    """
    assert (weights is None) == (recipe.init == "random"), recipe.init
    first = FirstWeights.read(weights) if weights else None
    shape = seen_shape(recipe, image_shape)
    parts = published_parts(
        recipe,
        shape,
        classes,
        small_stem=first.small_stem if first else wants_small_stem(recipe, shape),
    )
    body, aux = _finished_body(parts, recipe.model, first), _finished_aux(parts, recipe.model)
    head = build_head(recipe.model, parts.features, classes)
    return Network(body, head, _stage_of(body, parts.stages), recipe.input.size, aux)


def published_parts(recipe: Recipe, shape: Shape, classes: int, small_stem: bool) -> Parts:
    """The recipe's family as it is published, with random weights.

    Args:
        recipe: the whole configuration.
        shape: (H, W, C) of what the body sees.
        classes: outputs of auxiliary heads.
        small_stem: whether the stem is the one for small images, where the family has two.
    """
    model, (height, width, channels) = recipe.model, shape
    if model.name.startswith(TIMM_PREFIX):
        return timm_any(model.name.removeprefix(TIMM_PREFIX), height, width, channels)
    match FAMILIES[model.name].name:
        case "lenet5":
            return lenet5(height, width, channels)
        case "vgg":
            return vgg(model.name, channels, min(height, width), model.last_pool)
        case "cifar_resnet":
            return cifar_resnet(model.name, channels)
        case "timm_resnet":
            return timm_resnet(model.name, channels, small_stem)
        case "googlenet":
            return googlenet(channels, small_stem, classes if recipe.loss.aux_weight else 0)
        case "minigooglenet":
            return minigooglenet(channels)
        case "convnext":
            return convnext(model.name, channels, small_stem)
        case family:
            assert family == "scratch", family
            return scratch(height, width, channels, model.depth, model.width)


def build_head(model: ModelRecipe, features: int, classes: int) -> nn.Sequential:
    """Features (N, `features`) to logits (N, `classes`), by `model.head` and `model.dropout`."""
    if model.head == "gap":
        return nn.Sequential(nn.Dropout(model.dropout), nn.Linear(features, classes))
    return nn.Sequential(
        nn.Linear(features, _HIDDEN),
        nn.ReLU(inplace=True),
        nn.Dropout(model.dropout),
        nn.Linear(_HIDDEN, _HIDDEN),
        nn.ReLU(inplace=True),
        nn.Dropout(model.dropout),
        nn.Linear(_HIDDEN, classes),
    )


def _finished_body(parts: Parts, model: ModelRecipe, first: FirstWeights | None) -> nn.Module:
    """Weights that were made with another placement than the published one fit only behind the move."""
    added = _add_biases(parts.body) if model.conv_bias else {}
    if first is None:
        return place_norm(parts.body, model.bn_placement, fresh=True)
    if first.placement == "before_act":
        first.load(parts.body, added)
        return place_norm(parts.body, model.bn_placement, fresh=False)
    if first.placement != model.bn_placement:
        raise RecipeError(
            f"model.bn_placement must be {first.placement!r} as in {first.source}, "
            f"but got {model.bn_placement!r}"
        )
    body = place_norm(parts.body, model.bn_placement, fresh=True)
    first.load(body, added)
    return body


def _finished_aux(parts: Parts, model: ModelRecipe) -> list[nn.Module]:
    for head in parts.aux if model.conv_bias else ():
        _add_biases(head)
    return [place_norm(head, model.bn_placement, fresh=True) for head in parts.aux]


def _add_biases(module: nn.Module) -> dict[str, Tensor]:
    """Give every convolution a bias of zero; the new ones by name."""
    added: dict[str, Tensor] = {}
    for name, part in module.named_modules():
        if isinstance(part, nn.Conv2d) and part.bias is None:
            part.bias = nn.Parameter(part.weight.new_zeros(part.out_channels))
            added[f"{name}.bias"] = part.bias.detach()
    return added


def _stage_of(body: nn.Module, stages: Mapping[str, int]) -> dict[str, int]:
    """The stage of each module that owns parameters or buffers: its own, or that of what it is inside."""
    known = {"": 0, **stages}
    found: dict[str, int] = {}
    for owner, module in body.named_modules():
        if any(True for _ in (*module.parameters(recurse=False), *module.buffers(recurse=False))):
            name = owner
            while name not in known:
                name = name.rpartition(".")[0]
            found[owner] = known[name]
    return found
