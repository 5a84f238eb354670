"""Params as rows of numbers and back: what the models propose is always something the space could."""

from collections.abc import Mapping

import numpy as np
import pytest

from tunekit.paths import shipped_spaces
from tunekit.recipe import Value
from tunekit.space import SearchSpace, load_space
from tunekit.tuning.encoding import SpaceEncoding
from tunekit.tuning.samplers import suggest_random

EVERY_KIND = SearchSpace.from_dict(
    {
        "fixed": {"size": 8},
        "space": {
            "kind": {"choices": ["a", "b", "c"]},
            "flag": {"choices": [False, True], "when": {"kind": ["a", "b"]}},
            "rate": {"low": 1e-4, "high": 1.0, "log": True, "when": {"flag": [True]}},
            "depth": {"low": 1, "high": 4},
            "width": {"low": 8, "high": 512, "log": True, "when": {"depth": [2, 3]}},
            "pool": {"choices": ["max", "mean"], "when": {"depth": [4], "size": [8, 16]}},
            "drop": {"low": 0.1, "high": 0.35, "step": 0.1, "when": {"size": [8]}},
            "never": {"low": 2, "high": 9, "step": 3, "when": {"size": [4]}},
        },
    }
)
# Its steps do not end at `high`, and 0.1 + 2 * 0.1 is more than 0.3.
FINITE = SearchSpace.from_dict(
    {
        "space": {
            "drop": {"low": 0.1, "high": 0.35, "step": 0.1},
            "depth": {"low": 2, "high": 9, "step": 3},
            "kind": {"choices": ["a", "b"], "when": {"depth": [5, 8]}},
        }
    }
)
RANGES = SearchSpace.from_dict({"space": {f"x{i}": {"low": 0.0, "high": 1.0} for i in range(10)}})
SPACES = {
    **{name: load_space(path) for name, path in shipped_spaces().items()},
    "every kind": EVERY_KIND,
    "finite": FINITE,
}


def could_propose(space: SearchSpace, params: Mapping[str, Value]) -> bool:
    """Whether just the active keys have a value, and each a legal one."""
    values = {**space.fixed, **params}
    return all(
        parameter.active(values) and parameter.holds(params[name])
        if name in params
        else not parameter.active(values)
        for name, parameter in space.parameters.items()
    )


@pytest.mark.parametrize("name", SPACES)
def test_params_come_back_from_their_row(name: str) -> None:
    space = SPACES[name]
    encoding = SpaceEncoding(space)
    for seed in range(20):
        params = suggest_random(space, seed)
        back = encoding.decode(encoding.encode(params))
        assert back == pytest.approx(params)
        assert [type(value) for value in back.values()] == [type(value) for value in params.values()]


@pytest.mark.parametrize("name", SPACES)
def test_draws_and_their_neighbours_are_recipes_of_the_space(name: str) -> None:
    space = SPACES[name]
    encoding = SpaceEncoding(space)
    rng = np.random.default_rng(0)
    drawn = encoding.sample(rng, 60)
    for row in (*drawn, *encoding.neighbours(drawn, rng, 60, scale=0.3)):
        params = encoding.decode(row)
        assert could_propose(space, params)
        # The row knows what is active, so that models see the recipe that will be proposed.
        assert [key for key, unit in zip(space.parameters, row, strict=True) if not np.isnan(unit)] == list(
            params
        )


def test_a_column_is_a_place_between_the_ends_on_its_own_scale_or_the_number_of_a_choice() -> None:
    encoding = SpaceEncoding(EVERY_KIND)
    params: dict[str, Value] = {
        "kind": "b",
        "flag": True,
        "rate": 0.01,
        "depth": 2,
        "width": 64,
        "drop": 0.2,
    }
    row = dict(zip(EVERY_KIND.parameters, encoding.encode(params), strict=True))
    assert (row["kind"], row["flag"]) == (1, 1)
    assert [row["rate"], row["depth"], row["width"], row["drop"]] == pytest.approx([0.5, 1 / 3, 0.5, 0.4])
    assert np.isnan([row["pool"], row["never"]]).all()
    choices = dict(zip(EVERY_KIND.parameters, encoding.choice, strict=True))
    assert [name for name, choice in choices.items() if choice] == ["kind", "flag", "pool"]


def test_draws_reach_each_recipe_of_a_finite_space_as_the_space_itself_spells_it() -> None:
    encoding = SpaceEncoding(FINITE)
    rng = np.random.default_rng(0)
    drawn = encoding.sample(rng, 500)
    every = {tuple(params.items()) for params in FINITE.every()}
    assert {tuple(encoding.decode(row).items()) for row in drawn} == every
    near = encoding.neighbours(drawn[:1], rng, 500, scale=0.5)
    assert {tuple(encoding.decode(row).items()) for row in near} <= every


def test_draws_are_even_on_the_scale_of_a_key() -> None:
    drawn = SpaceEncoding(EVERY_KIND).sample(np.random.default_rng(0), 3000)
    columns = dict(zip(EVERY_KIND.parameters, drawn.T, strict=True))
    assert np.bincount(columns["kind"].astype(int)) == pytest.approx(1000, rel=0.1)
    rate = columns["rate"][~np.isnan(columns["rate"])]
    assert len(rate) == pytest.approx(1000, rel=0.1)  # two kinds of three, one flag of two
    assert np.quantile(rate, [0.25, 0.5, 0.75]) == pytest.approx([0.25, 0.5, 0.75], abs=0.05)


@pytest.mark.parametrize("scale", [0.02, 0.2])
def test_neighbours_differ_in_about_two_keys_by_steps_of_the_scale(scale: float) -> None:
    encoding = SpaceEncoding(RANGES)
    rng = np.random.default_rng(0)
    start = np.full((1, 10), 0.5)
    steps = encoding.neighbours(start, rng, 1000, scale) - start
    assert ((steps != 0).sum(axis=1) >= 1).all()
    assert 1.5 < (steps != 0).sum(axis=1).mean() < 3.5
    assert np.median(np.abs(steps[steps != 0])) == pytest.approx(0.67 * scale, rel=0.25)
    assert np.abs(steps).max() <= 0.5


def test_the_generator_decides_every_draw() -> None:
    encoding = SpaceEncoding(EVERY_KIND)

    def draw(seed: int) -> list[str]:
        rng = np.random.default_rng(seed)
        drawn = encoding.sample(rng, 5)
        return [str(row) for row in (*drawn, *encoding.neighbours(drawn, rng, 5, 0.1))]

    assert draw(1) == draw(1) != draw(2)
