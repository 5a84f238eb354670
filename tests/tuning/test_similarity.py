"""Which recorded recipe is most like another, on made-up results: no training."""

import math
from collections.abc import Callable

import numpy as np
import pytest

from tunekit.recipe import Value
from tunekit.space import Params, SearchSpace
from tunekit.tuning.samplers import suggest_random
from tunekit.tuning.similarity import RecordedRecipes

SPACE = SearchSpace.from_dict(
    {
        "space": {
            "optim.lr": {"low": 1e-4, "high": 1.0, "log": True},
            "optim.weight_decay": {"low": 0.0, "high": 0.1},
            "optim.clip_norm": {"low": 0.0, "high": 10.0},
            "model.dropout": {"low": 0.0, "high": 0.9},
            "optim.name": {"choices": ["sgd", "adam", "lamb"]},
            "optim.momentum": {"low": 0.0, "high": 0.99, "when": {"optim.name": ["sgd"]}},
        }
    }
)
RECIPES = [suggest_random(SPACE, seed) for seed in range(120)]


def number(params: Params, key: str) -> float:
    value = params[key]
    assert isinstance(value, float)
    return value


def by_lr(params: Params) -> float:
    return -abs(math.log10(number(params, "optim.lr")) + 2)


def by_optimizer(params: Params) -> float:
    return 0.1 + number(params, "optim.momentum") if params["optim.name"] == "sgd" else 0.0


def recorded(result: Callable[[Params], float], count: int = len(RECIPES)) -> RecordedRecipes:
    recipes = RECIPES[:count]
    return RecordedRecipes(SPACE, recipes, np.array([result(params) for params in recipes]))


def test_keys_on_which_nothing_depends_do_not_count() -> None:
    far: dict[str, Value] = {"optim.weight_decay": 0.1, "optim.clip_norm": 0.0, "model.dropout": 0.9}
    recipes = recorded(by_lr)
    for place, params in enumerate(RECIPES[:30]):
        found = RECIPES[recipes.by_likeness({**params, **far, "optim.name": "lamb"})[0]]
        assert abs(math.log10(number(found, "optim.lr") / number(params, "optim.lr"))) < 0.5, place


@pytest.mark.parametrize("count", [1, 2, 9, 120])
def test_a_recorded_recipe_is_most_like_itself(count: int) -> None:
    recipes = recorded(by_lr, count)
    assert [recipes.by_likeness(params)[0] for params in RECIPES[:count]] == list(range(count))


def test_without_a_difference_in_results_all_keys_count_alike() -> None:
    recipes = recorded(lambda params: 0.5)
    near = RECIPES[7]
    assert recipes.by_likeness({**near, "model.dropout": 0.95 * number(near, "model.dropout")})[0] == 7
    assert recipes.rank_correlation() == 0.0


@pytest.mark.parametrize("result", [by_lr, by_optimizer])
def test_the_nearest_tells_what_depends_on_keys(result: Callable[[Params], float]) -> None:
    assert recorded(result).rank_correlation() > 0.75


def test_the_nearest_tells_nothing_of_noise() -> None:
    noise = iter(np.random.default_rng(0).random(len(RECIPES)))
    assert abs(recorded(lambda params: next(noise)).rank_correlation()) < 0.25


def test_the_order_of_results_alone_counts() -> None:
    plain, cubed = recorded(by_lr), recorded(lambda params: by_lr(params) ** 3)
    assert plain.rank_correlation() == pytest.approx(cubed.rank_correlation())
