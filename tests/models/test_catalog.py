"""What no network can be is refused in one line, and the table of families tells the truth."""

import warnings

import pytest
import torch

from tunekit.errors import RecipeError
from tunekit.models.build import build_model, published_parts
from tunekit.models.catalog import FAMILIES, check_model
from tunekit.recipe import MODELS, Recipe, Value

REPRESENTATIVES = ("lenet5", "vgg11", "resnet8", "resnet18", "googlenet", "minigooglenet", "convnext_atto")


def runs(name: str, side: int, small_stem: bool) -> bool:
    recipe = Recipe.from_flat({"model.name": name, "loss.aux_weight": 0.0})
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of weights without elements
        try:
            parts = published_parts(recipe, (side, side, 3), 2, small_stem)
            return bool(parts.body(torch.empty(2, 3, side, side)).shape == (2, parts.features))
        except RuntimeError:
            return False


@pytest.mark.parametrize("small_stem", [True, False])
@pytest.mark.parametrize("name", REPRESENTATIVES)
def test_the_smallest_sides_of_the_table_are_true(name: str, small_stem: bool) -> None:
    smallest = FAMILIES[name].smallest if small_stem else FAMILIES[name].smallest_published
    assert runs(name, smallest, small_stem)
    assert smallest == 1 or not runs(name, smallest - 1, small_stem)


@pytest.mark.parametrize("depth", [1, 6])
def test_scratch_takes_a_single_pixel(depth: int) -> None:
    recipe = Recipe.from_flat({"model.name": "scratch", "model.depth": depth})
    assert build_model(recipe, (1, 1, 3), 2)(torch.randn(2, 3, 1, 1)).shape == (2, 2)


@pytest.mark.parametrize("name", MODELS)
def test_the_stages_of_the_table_are_true(name: str) -> None:
    recipe = Recipe.from_flat({"model.name": name, "model.depth": 5})
    with torch.device("meta"):
        network = build_model(recipe, (32, 32, 3), 2)
    assert network.stages == (FAMILIES[name].stages or 5 + 1)


@pytest.mark.parametrize("name", MODELS)
def test_every_model_is_accepted_where_its_family_allows(name: str) -> None:
    for placement in FAMILIES[name].placements:
        check_model(Recipe.from_flat({"model.name": name, "model.bn_placement": placement}), (28, 28, 1))


@pytest.mark.parametrize(
    ("keys", "side", "message"),
    [
        (
            {"model.name": "convnext_tiny", "input.size": 8},
            32,
            "convnext_tiny needs images of at least 16 px, but input.size gives 8",
        ),
        ({"model.name": "convnext_tiny"}, 8, "at least 16 px, but the images have 8"),
        ({"model.name": "convnext_tiny", "init": "pretrained"}, 28, "at least 32 px"),
        ({"model.name": "lenet5"}, 8, "lenet5 needs images of at least 12 px"),
        (
            {"model.name": "vgg16", "model.bn_placement": "pre_act"},
            32,
            "bn_placement of vgg16 must be one of before_act, after_act, none, but got 'pre_act'",
        ),
        (
            {"model.name": "resnet20", "freeze.policy": "first_k_stages", "freeze.stages": 9},
            32,
            "freeze.stages must be at most 4, the stages of the model, but got 9",
        ),
        (
            {"model.name": "scratch", "freeze.policy": "first_k_stages", "freeze.stages": 5},
            32,
            "at most 4",
        ),
        ({"model.name": "resnet20", "init": "pretrained"}, 32, "resnet20 has none"),
        ({"model.name": "timm:resnte18"}, 32, "timm has no model 'resnte18' (did you mean 'resnet18'?)"),
        ({"model.name": "timm:resnet18.no"}, 32, "timm has no weights 'resnet18.no'"),
        ({"model.name": "timm:vgg11"}, 28, "timm:vgg11 needs images of 32 px"),
        ({"model.name": "timm:vit_tiny_patch16_224"}, 8, "needs images of 16 px, but would see 8x8"),
        (
            {"model.name": "timm:regnetx_002", "freeze.policy": "first_k_stages", "freeze.stages": 50},
            32,
            "freeze.stages must be at most",
        ),
    ],
)
def test_mistakes_are_said_in_one_line(keys: dict[str, Value], side: int, message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        check_model(Recipe.from_flat(keys), (side, side, 3))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "regnetx_002", "efficientnet_b0.ra_in1k"])
def test_models_of_timm_are_built_for_the_size_of_the_images(name: str) -> None:
    recipe = Recipe.from_flat({"model.name": f"timm:{name}"})
    check_model(recipe, (32, 48, 1))
    with torch.device("meta"):
        network = build_model(recipe, (32, 48, 1), 5)
        assert network(torch.empty(2, 1, 32, 48)).shape == (2, 5)
    assert network.stages > 2
