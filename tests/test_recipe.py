"""Recipes: every key checked, dotted and nested forms equal."""

import pytest

from tunekit.errors import RecipeError
from tunekit.recipe import RECIPE_KEYS, Recipe, check_value, describe, flatten


def test_flat_and_nested_forms_say_the_same() -> None:
    recipe = Recipe.from_flat({"optim.name": "adamw", "optim.lr": 3e-4, "batch_size": 64})
    assert Recipe.from_flat(recipe.to_flat()) == recipe
    assert flatten(recipe.to_dict()) == recipe.to_flat()
    assert recipe.optim.lr == 3e-4
    assert set(recipe.to_flat()) == set(RECIPE_KEYS)


def test_every_default_keeps_its_rule() -> None:
    for key in RECIPE_KEYS.values():
        assert check_value(key.name, key.default) == key.default
        assert key.rule.doc


def test_whole_numbers_are_taken_where_numbers_are_meant() -> None:
    assert check_value("optim.lr", 1) == 1.0
    assert isinstance(check_value("optim.lr", 1), float)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("optim.lrr", 0.1, "unknown recipe key 'optim.lrr' (did you mean 'optim.lr'?)"),
        ("optim.lr", "0.1", "optim.lr must be a number, but got '0.1'"),
        ("optim.lr", True, "optim.lr must be a number, but got True"),
        ("optim.lr", -1.0, "optim.lr must be 1e-07 to 10, but got -1.0"),
        ("optim.lr", float("nan"), "optim.lr must be 1e-07 to 10, but got nan"),
        ("batch_size", 1.5, "batch_size must be a whole number, but got 1.5"),
        ("batch_size", 0, "batch_size must be 1 to 65536, but got 0"),
        ("optim.nesterov", 1, "optim.nesterov must be a true or false, but got 1"),
        ("model.name", "resnet21", "timm:NAME, but got 'resnet21' (did you mean 'resnet"),
        ("augment.policy", "shift_crop+flip", "none, or one or more of flip, shift_crop, rotation"),
        ("augment.policy", "flip+flip", "none, or one or more of"),
    ],
)
def test_bad_values_are_refused_with_their_rule(name: str, value: object, message: str) -> None:
    with pytest.raises(RecipeError) as error:
        check_value(name, value)
    assert message in str(error.value)


def test_augmentations_join_in_one_order() -> None:
    assert check_value("augment.policy", "flip+cutout") == "flip+cutout"


def test_description_names_what_tells_recipes_apart() -> None:
    assert describe(Recipe.from_flat({"optim.lr": 0.123456})) == "resnet20 sgd lr=0.12"
