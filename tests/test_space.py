"""Search spaces: what they propose, and the one line that each mistake gets."""

from pathlib import Path
from typing import Any

import optuna
import pytest

from tunekit.errors import RecipeError, SpaceError
from tunekit.paths import find_space, shipped_spaces
from tunekit.recipe import RECIPE_KEYS, Recipe
from tunekit.space import SearchSpace, load_space, parse_assignment

CONDITIONAL: dict[str, Any] = {
    "fixed": {"schedule.name": "cosine"},
    "space": {
        # The condition stands before the key that it names: order in the file is free.
        "optim.momentum": {"low": 0.0, "high": 0.99, "when": {"optim.name": ["sgd"]}},
        "optim.name": {"choices": ["sgd", "adam"], "role": "scientific"},
        "optim.lr": {"low": 1e-4, "high": 1.0, "log": True},
        "batch_size": {"low": 16, "high": 64, "step": 16},
    },
}


def propose(space: SearchSpace, seed: int) -> dict[str, Any]:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    return space(study.ask())


def test_proposals_keep_ranges_steps_and_conditions() -> None:
    space = SearchSpace.from_dict(CONDITIONAL).check_recipe_keys()
    seen = [propose(space, seed) for seed in range(60)]
    for params in seen:
        assert 1e-4 <= params["optim.lr"] <= 1.0
        assert params["batch_size"] in (16, 32, 48, 64)
        assert ("optim.momentum" in params) == (params["optim.name"] == "sgd")
        assert "schedule.name" not in params
        assert isinstance(space.recipe(params), Recipe)
    assert {params["optim.name"] for params in seen} == {"sgd", "adam"}
    below = sum(params["optim.lr"] < 1e-2 for params in seen)
    assert 15 <= below <= 45  # half of a log range lies below its geometric middle


def test_whole_number_bounds_make_a_whole_number_range() -> None:
    space = SearchSpace.from_dict({"space": {"batch_size": {"low": 1, "high": 9}}})
    assert isinstance(propose(space, 0)["batch_size"], int)
    space = SearchSpace.from_dict({"space": {"optim.lr": {"low": 1, "high": 9.0}}})
    assert isinstance(propose(space, 0)["optim.lr"], float)


def test_structure_is_checked_without_recipe_keys() -> None:
    space = SearchSpace.from_dict({"space": {"layers": {"low": 1, "high": 5}}})
    assert 1 <= propose(space, 0)["layers"] <= 5
    with pytest.raises(SpaceError, match="unknown recipe key 'layers'"):
        space.check_recipe_keys()


def test_fixing_a_key_takes_it_out_of_the_space_and_feeds_conditions() -> None:
    space = SearchSpace.from_dict(CONDITIONAL).with_fixed({"optim.name": "sgd"})
    assert "optim.name" not in space.parameters
    params = propose(space, 0)
    assert "optim.momentum" in params
    assert space.recipe(params).optim.name == "sgd"
    assert "optim.momentum" not in propose(space.with_fixed({"optim.name": "adam"}), 0)


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ({"spaces": {}}, "unknown table 'spaces' (did you mean 'space'?)"),
        ({"space": {"optim.lr": 3}}, "optim.lr: must be { low, high } or { choices }, but got 3"),
        ({"space": {"optim.lr": {"low": 1.0}}}, "optim.lr: needs high (or choices)"),
        ({"space": {"optim.lr": {"low": 1.0, "high": 0.1}}}, "optim.lr: low must be below high"),
        ({"space": {"optim.lr": {"low": 0, "high": 1.0, "log": True}}}, "above 0 on a log scale"),
        ({"space": {"optim.lr": {"low": "1e-4", "high": 1.0}}}, "low must be a number, but got '1e-4'"),
        ({"space": {"optim.lr": {"lo": 1e-4, "high": 1.0}}}, "unknown field 'lo' (did you mean 'low'?)"),
        ({"space": {"optim.lr": {"low": 0.1, "high": float("inf")}}}, "must be finite"),
        ({"space": {"optim.lr": {"low": 0.1, "high": 1.0, "log": True, "step": 0.1}}}, "cannot have a step"),
        ({"space": {"optim.lr": {"low": 0.1, "high": 1.0, "log": "yes"}}}, "log must be true or false"),
        ({"space": {"batch_size": {"low": 1, "high": 9, "step": 0.5}}}, "step of a whole-number range"),
        ({"space": {"optim.name": {"choices": []}}}, "choices must be a list that is not empty"),
        ({"space": {"optim.name": {"choices": ["sgd", "sgd"]}}}, "choices must differ"),
        ({"space": {"optim.name": {"choices": ["sgd"], "low": 1}}}, "has choices, so it cannot have 'low'"),
        ({"space": {"optim.name": {"choices": ["sgd"], "role": "main"}}}, "role must be one of"),
        ({"space": {"optim": {"lr": {"low": 1, "high": 2}}}}, 'write "optim.lr" = { ... }'),
        (
            {"space": {"optim.momentum": {"low": 0.0, "high": 0.9, "when": {"optim.nam": ["sgd"]}}}},
            "when names 'optim.nam', which is not in this space",
        ),
        (
            {
                "space": {
                    "optim.name": {"choices": ["sgd", "adam"]},
                    "optim.momentum": {"low": 0.0, "high": 0.9, "when": {"optim.name": ["sdg"]}},
                }
            },
            "which is none of its choices (did you mean 'sgd'?)",
        ),
        (
            {
                "space": {
                    "a": {"choices": [1, 2], "when": {"b": [1]}},
                    "b": {"choices": [1, 2], "when": {"a": [1]}},
                }
            },
            "its conditions go round in a circle",
        ),
        ({"fixed": {"a": 1}, "space": {"a": {"choices": [1, 2]}}}, "stands in both tables"),
        ({"baseline": [{"recipe": {}}]}, "baseline: needs a name"),
        ({"baseline": [{"name": "x"}]}, "baseline x: needs recipe"),
    ],
)
def test_a_broken_rule_is_named_with_file_and_key(tables: dict[str, Any], message: str) -> None:
    with pytest.raises(SpaceError) as error:
        SearchSpace.from_dict(tables, "my.toml")
    assert str(error.value).startswith("my.toml: ")
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            {"optim.lrr": {"low": 0.1, "high": 1.0}},
            "unknown recipe key 'optim.lrr' (did you mean 'optim.lr'?)",
        ),
        ({"optim.lr": {"low": 0.1, "high": 100.0}}, "optim.lr must be 1e-07 to 10, but got 100"),
        ({"optim.name": {"choices": ["sgd", "adan"]}}, "but got 'adan' (did you mean 'adam'?)"),
        ({"epochs": {"low": 1, "high": 9}}, "use --epochs"),
        ({"batch_size": {"low": 1.0, "high": 9.0}}, "batch_size must be a whole number"),
    ],
)
def test_keys_of_a_space_must_be_recipe_keys(spec: dict[str, Any], message: str) -> None:
    with pytest.raises(SpaceError) as error:
        SearchSpace.from_dict({"space": spec}, "my.toml").check_recipe_keys()
    assert message in str(error.value)


def test_files_that_are_no_toml_get_one_line(tmp_path: Path) -> None:
    broken = tmp_path / "broken.toml"
    broken.write_text("[space\n")
    with pytest.raises(SpaceError, match="is not TOML"):
        load_space(broken)
    broken.write_bytes(b"\xff\xfe")
    with pytest.raises(SpaceError, match="is not UTF-8"):
        load_space(broken)
    with pytest.raises(SpaceError, match=r"no search space called 'resnt'.*did you mean 'resnet'"):
        find_space("resnt")


@pytest.mark.parametrize("name", list(shipped_spaces()))
def test_shipped_spaces_propose_recipes(name: str) -> None:
    space = load_space(shipped_spaces()[name])
    assert space.description
    for seed in range(20):
        space.recipe(propose(space, seed))
    for baseline in space.baselines:
        Recipe.from_flat(baseline.recipe)


def test_resnet_space_varies_what_it_promises() -> None:
    varied = set(load_space(find_space("resnet")).parameters)
    assert varied >= set(RECIPE_KEYS) - {"augment.shift", "augment.cutout"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("optim.lr=1e-3", ("optim.lr", 1e-3)),
        ("optim.name=sgd", ("optim.name", "sgd")),
        ('optim.name="sgd"', ("optim.name", "sgd")),
        ("optim.nesterov=true", ("optim.nesterov", True)),
        ("augment.policy=flip+cutout", ("augment.policy", "flip+cutout")),
    ],
)
def test_assignments_read_as_toml_or_words(text: str, expected: tuple[str, object]) -> None:
    assert parse_assignment(text) == expected


@pytest.mark.parametrize("text", ["optim.lr", "optim.lr=", "=1", "nope=1", "batch_size=0"])
def test_bad_assignments_are_refused(text: str) -> None:
    with pytest.raises(RecipeError):
        parse_assignment(text)
