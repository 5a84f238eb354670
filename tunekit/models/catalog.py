"""Every family as plain data: where its norm may stand, the smallest images it takes, its stages.

Nothing here imports torch, so that a whole search space is checked before anything heavy starts.
"""

from __future__ import annotations

from dataclasses import dataclass

from tunekit.errors import RecipeError
from tunekit.models.seen_size import Shape, seen_shape
from tunekit.recipe import Recipe

SMALL_STEM_UP_TO = 64  # pixels
TIMM_PREFIX = "timm:"

_PLAIN = ("before_act", "after_act", "none")
_RESIDUAL = (*_PLAIN, "pre_act")


@dataclass(frozen=True)
class Family:
    """What is known of a network without building it.

    Attributes:
        name: the family, one builder each (`tunekit.models.build`).
        placements: the legal values of `model.bn_placement`.
        stages: stages of the body; 0 where the recipe decides.
        smallest: smallest side in pixels, with the stem for small images where there is one.
        smallest_published: smallest side in pixels with the stem as published.
        library: whose published weights `init = "pretrained"` takes; empty if there are none.
    """

    name: str
    placements: tuple[str, ...]
    stages: int
    smallest: int = 1
    smallest_published: int = 1
    library: str = ""


_VGG = Family("vgg", _PLAIN, stages=5, library="torchvision")
_CIFAR_RESNET = Family("cifar_resnet", _RESIDUAL, stages=4)
_TIMM_RESNET = Family("timm_resnet", _RESIDUAL, stages=5, library="timm")
_CONVNEXT = Family("convnext", _PLAIN, stages=5, smallest=16, smallest_published=32, library="timm")

FAMILIES = {
    "lenet5": Family("lenet5", _PLAIN, stages=3, smallest=12, smallest_published=12),
    **dict.fromkeys(("vgg11", "vgg13", "vgg16", "vgg19"), _VGG),
    **dict.fromkeys(("resnet8", "resnet20", "resnet32", "resnet56"), _CIFAR_RESNET),
    **dict.fromkeys(("resnet18", "resnet34", "resnet50", "resnet101"), _TIMM_RESNET),
    "googlenet": Family(
        "googlenet", _PLAIN, stages=4, smallest=2, smallest_published=15, library="torchvision"
    ),
    "minigooglenet": Family("minigooglenet", _PLAIN, stages=4),
    **dict.fromkeys(("convnext_atto", "convnext_tiny", "convnext_small"), _CONVNEXT),
    "scratch": Family("scratch", _PLAIN, stages=0),
}


def wants_small_stem(recipe: Recipe, shape: Shape) -> bool:
    """Whether a new network for inputs of `shape` gets the stem for small images.

    Published weights and those in a file were made with the published stem.
    """
    published = recipe.init == "pretrained" or recipe.init.startswith("file:")
    return min(shape[:2]) <= SMALL_STEM_UP_TO and not published


def check_model(recipe: Recipe, image_shape: Shape) -> None:
    """Refuse a network that cannot be built or cannot see images of `image_shape` (H, W, C).

    For `timm:NAME` this imports timm, which costs seconds, and builds the network without memory.

    Raises:
        RecipeError: says what does not fit, and what does.
    """
    name, shape = recipe.model.name, seen_shape(recipe, image_shape)
    if name.startswith(TIMM_PREFIX):
        from tunekit.models.timm_any import check_timm_model

        stages = check_timm_model(name.removeprefix(TIMM_PREFIX), shape, recipe.model.bn_placement)
    else:
        family = FAMILIES[name]
        _check_placement(name, family, recipe.model.bn_placement)
        _check_side(recipe, family, shape)
        _check_library(recipe, family)
        stages = family.stages or recipe.model.depth + 1
    if recipe.freeze.policy == "first_k_stages":
        check_stages(recipe.freeze.stages, stages)


def check_stages(frozen: int, stages: int) -> None:
    """Refuse `freeze.stages` above the stages that the body has.

    Raises:
        RecipeError: says how many stages there are.
    """
    if frozen > stages:
        raise RecipeError(
            f"freeze.stages must be at most {stages}, the stages of the model, but got {frozen}"
        )


def _check_placement(name: str, family: Family, placement: str) -> None:
    if placement not in family.placements:
        legal = ", ".join(family.placements)
        raise RecipeError(f"model.bn_placement of {name} must be one of {legal}, but got {placement!r}")


def _check_side(recipe: Recipe, family: Family, shape: Shape) -> None:
    smallest = family.smallest if wants_small_stem(recipe, shape) else family.smallest_published
    if min(shape[:2]) < smallest:
        raise too_small(recipe.model.name, smallest, recipe.input.size, shape)


def too_small(name: str, smallest: int, input_size: int, shape: Shape) -> RecipeError:
    """The error of a network that needs `smallest` pixels where it would see `shape`."""
    given = f"input.size gives {input_size}" if input_size else f"the images have {min(shape[:2])}"
    return RecipeError(f"{name} needs images of at least {smallest} px, but {given} (see input.size)")


def _check_library(recipe: Recipe, family: Family) -> None:
    if recipe.init == "pretrained" and not family.library:
        raise RecipeError(
            f"init = 'pretrained' needs a model with published weights, but {recipe.model.name} has none: "
            "use init = 'random', 'file:PATH' or 'search:NAME'"
        )
