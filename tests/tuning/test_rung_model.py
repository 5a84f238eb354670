"""The model over all rungs: made-up values at made-up rungs, no training."""

import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from tests.tuning.made_up import SPACE, drawn, hill, number, search
from tunekit.space import Params
from tunekit.tuning.encoding import SpaceEncoding
from tunekit.tuning.evidence import Evidence, Observation
from tunekit.tuning.gaussian_process import Array
from tunekit.tuning.rung_model import RungModel, suggest_by_model, taught_by

ENCODING = SpaceEncoding(SPACE)


def rows(recipes: Sequence[Params]) -> Array:
    return np.array([ENCODING.encode(params) for params in recipes])


def predicted(model: RungModel, recipes: Sequence[Params]) -> Array:
    return model.predict(rows(recipes))[0]


def agreement(model: RungModel, truth: Callable[[Params], float]) -> float:
    """Correlation of predictions with the truth, on recipes that were not seen."""
    unseen = drawn(100, 99)
    return float(np.corrcoef(predicted(model, unseen), [truth(params) for params in unseen])[0, 1])


def test_where_the_last_rung_contradicts_the_first_it_is_believed() -> None:
    truth = hill(0.9, 0.9)
    evidence = search(drawn(40, 0), (3, 40, lambda params: -truth(params)), (9, 20, truth))
    assert agreement(RungModel(ENCODING, evidence), truth) > 0.9
    best = suggest_by_model(SPACE, evidence, None, seed=0)
    assert truth(best) > -0.05


def test_many_trials_at_the_first_rung_help_where_the_last_has_few() -> None:
    truth = hill(0.7, 0.3)

    def early(params: Params) -> float:
        return 0.5 * truth(params) - 0.1 * number(params, "x") - 1.0

    gains = []
    for seed in range(5):
        recipes = drawn(40, seed)
        both = RungModel(ENCODING, search(recipes, (3, 40, early), (9, 6, truth)))
        last = RungModel(ENCODING, search(recipes, (9, 6, truth)))
        gains.append(agreement(both, truth) - agreement(last, truth))
        assert agreement(both, truth) > 0.9
    assert np.median(gains) > 0.1


def test_a_rung_with_few_trials_waits() -> None:
    recipes = drawn(20, 0)
    first = RungModel(ENCODING, search(recipes, (3, 20, hill(0.5, 0.5))))
    both = RungModel(
        ENCODING, search(recipes, (3, 20, hill(0.5, 0.5)), (9, 3, hill(0, 0)), (27, 0, hill(0, 0)))
    )
    assert predicted(both, recipes) == pytest.approx(predicted(first, recipes))


def fails_beyond(x: float) -> Callable[[Params], float]:
    return lambda params: -math.inf if number(params, "x") > x else 0.5 + 0.1 * number(params, "y")


def test_recipes_that_fail_at_the_first_rung_are_expected_to_fail_again() -> None:
    model = RungModel(ENCODING, search(drawn(40, 0), (3, 40, fails_beyond(0.6))))
    unseen = drawn(100, 1)
    fails = np.array([number(params, "x") > 0.75 for params in unseen])
    fine = np.array([number(params, "x") < 0.45 for params in unseen])
    values = predicted(model, unseen)
    assert np.mean(values[fails]) < np.quantile(values[fine], 0.05)


def test_a_failure_counts_at_the_rung_where_it_happened() -> None:
    good_start = search(drawn(40, 0), (3, 40, lambda params: number(params, "x")), (9, 20, fails_beyond(0.6)))
    unseen = drawn(100, 1)
    x = np.array([number(params, "x") for params in unseen])
    early = predicted(RungModel(ENCODING, Evidence(good_start.trials, (3,))), unseen)
    late = predicted(RungModel(ENCODING, good_start), unseen)
    assert np.mean(early[x > 0.75]) > np.mean(early[x < 0.45])
    assert np.mean(late[x > 0.75]) < np.mean(late[x < 0.45])


@pytest.mark.parametrize(
    "evidence",
    [
        search(drawn(20, 0), (3, 20, lambda params: 0.5), (9, 6, lambda params: 0.5)),
        search(drawn(1, 0), (3, 1, hill(0, 0)), (9, 0, hill(0, 0))),
        search(drawn(1, 0) * 20, (3, 20, lambda params: 0.5), (9, 8, hill(0, 0))),
        search(drawn(20, 0), (3, 20, lambda params: -math.inf)),
        search(drawn(20, 0), (3, 20, hill(0, 0)), (9, 6, lambda params: -math.inf)),
        search(drawn(20, 0), (3, 20, lambda params: 1.0 if params["kind"] == "a" else -math.inf)),
        search([*drawn(19, 0), {"x": 0.5, "y": 0.5, "kind": "b"}], (3, 20, lambda p: float(p["x"] == 0.5))),
    ],
    ids=[
        "all equal",
        "one",
        "same recipe",
        "failures",
        "failures at the last",
        "two values",
        "one stands out",
    ],
)
def test_evidence_that_teaches_little_does_no_harm(evidence: Evidence) -> None:
    unseen = rows(drawn(50, 1))
    for earlier in (None, RungModel(ENCODING, evidence)):
        mean, deviation = RungModel(ENCODING, evidence, earlier).predict(unseen)
        assert np.isfinite(mean).all()
        assert (deviation > 0).all() and np.isfinite(deviation).all()
    for before in ([], [evidence]):
        params = suggest_by_model(SPACE, evidence, taught_by(SPACE, before), seed=0)
        assert all(SPACE.parameters[key].holds(value) for key, value in params.items())


def test_three_trials_are_enough_where_an_earlier_search_was_right() -> None:
    truth = hill(0.8, 0.2)
    for seed in range(5):
        earlier = search(drawn(40, seed), (3, 40, lambda p: truth(p) - 1), (9, 15, truth))
        own = search(drawn(3, seed + 50), (3, 3, lambda p: 0.3 * truth(p) + 0.4), (9, 0, truth))
        assert truth(suggest_by_model(SPACE, own, taught_by(SPACE, [earlier]), seed)) > -0.02


def test_of_two_earlier_searches_the_later_one_corrects_the_first() -> None:
    truth, elsewhere = hill(0.8, 0.2), hill(0.2, 0.8)
    searches = [search(drawn(30, 1), (3, 30, elsewhere)), search(drawn(30, 2), (3, 30, truth))]
    own = search(drawn(3, 50), (3, 3, truth))
    for seed in range(3):
        assert truth(suggest_by_model(SPACE, own, taught_by(SPACE, searches), seed)) > -0.02


def late_best(truth: Callable[[Params], float], earlier: Sequence[Evidence], seed: int) -> float:
    """What the model alone finds from the 15th to the 30th trial, the first three of which are random."""
    recipes, taught = drawn(3, seed + 50), taught_by(SPACE, earlier)
    while len(recipes) < 30:
        own = search(recipes, (3, len(recipes), truth))
        recipes.append(suggest_by_model(SPACE, own, taught, seed + 100 * len(recipes)))
    return max(truth(params) for params in recipes[15:])


def test_an_earlier_search_that_misleads_is_unlearned() -> None:
    truth, elsewhere = hill(0.8, 0.2), hill(0.2, 0.8)
    alone, misled = [], []
    for seed in range(5):
        earlier = search(drawn(40, seed), (3, 40, elsewhere))
        alone.append(late_best(truth, [], seed))
        misled.append(late_best(truth, [earlier], seed))
    assert np.median(misled) > -0.02
    assert np.median(misled) > np.median(alone) - 0.02


def test_a_key_that_counts_in_one_branch_alone_is_tuned_there() -> None:
    def truth(params: Params) -> float:
        return 1 - abs(number(params, "z") - 0.8) if params["kind"] == "a" else 0.3

    evidence = search(drawn(40, 0), (3, 40, truth), (9, 12, truth))
    for seed in range(5):
        params = suggest_by_model(SPACE, evidence, None, seed)
        assert params["kind"] == "a"
        assert number(params, "z") == pytest.approx(0.8, abs=0.1)


def test_trials_that_are_being_trained_push_the_next_proposal_away() -> None:
    def spread(count: int, believe: bool) -> float:
        """The mean distance of four proposals of one seed, each made while the others are being trained."""
        evidence = search(drawn(count, 0), (3, count, hill(0.7, 0.3)))
        found: list[Params] = []
        for _ in range(4):
            running = tuple(Observation(params, {}, training=True) for params in found if believe)
            with_running = Evidence((*evidence.trials, *running), evidence.epochs)
            found.append(suggest_by_model(SPACE, with_running, None, seed=0))
        places = [np.array([number(params, "x"), number(params, "y")]) for params in found]
        return float(np.mean([np.abs(a - b).max() for a in places for b in places]))

    assert spread(6, believe=False) == 0
    assert spread(6, believe=True) > 0.05


def test_the_seed_and_the_evidence_decide_the_proposal() -> None:
    def suggest(seed: int) -> Params:
        return suggest_by_model(SPACE, search(drawn(20, 0), (3, 20, hill(0.7, 0.3))), None, seed)

    assert suggest(1) == suggest(1) != suggest(2)
