"""Which sampler proposes what, and from what: made-up evidence, no training."""

import math
from collections.abc import Callable

import numpy as np
import pytest

from tests.tuning.made_up import SPACE, drawn, hill, number, search
from tests.tuning.test_policy import Simulation, policy, rebuilt_from, rising
from tunekit.recipe import Value
from tunekit.space import Params
from tunekit.tuning.evidence import Evidence, Observation
from tunekit.tuning.policy import Suggestion
from tunekit.tuning.proposals import SAMPLERS, propose
from tunekit.tuning.rung_model import taught_by

TRUTH = hill(0.7, 0.3)
ENOUGH = search(drawn(24, 0), (3, 24, lambda params: 0.5 * TRUTH(params)), (9, 17, TRUTH), (27, 5, TRUTH))


def proposals(
    sampler: str, evidence: Evidence, *earlier: Evidence, seeds: int = 40
) -> list[dict[str, Value]]:
    taught = taught_by(SPACE, earlier)
    return [propose(sampler, SPACE, evidence, taught, (seed, 7)) for seed in range(seeds)]


def worst(params: Params) -> float:
    return -TRUTH(params)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_arguments_decide_the_proposal(sampler: str) -> None:
    first = proposals(sampler, ENOUGH, seeds=10)
    assert proposals(sampler, ENOUGH, seeds=10) == first
    assert len({str(params) for params in first}) == 10


@pytest.mark.parametrize(("sampler", "enough"), [("portfolio", 12), ("rung-tpe", 16)])
def test_nothing_is_learned_before_enough_trials_were_compared(sampler: str, enough: int) -> None:
    def learns(trials: int) -> bool:
        recipes = drawn(trials, 0)
        like, unlike = (search(recipes, (3, trials, value)) for value in (TRUTH, worst))
        return proposals(sampler, like, seeds=10) != proposals(sampler, unlike, seeds=10)

    assert not learns(enough - 1)
    assert learns(enough)


@pytest.mark.parametrize(("others", "learns"), [(5, False), (10, False), (11, True), (20, True)])
def test_the_default_recipe_teaches_nothing_before_enough_others_were_compared(
    others: int, learns: bool
) -> None:
    drawn_ones = search(drawn(others, 0), (3, others, TRUTH), (27, 4, TRUTH))
    earlier = search(drawn(60, 1), (27, 60, TRUTH))
    params = drawn(1, 5)[0]

    def with_default(value: float) -> list[dict[str, Value]]:
        known = Observation(params, {3: value, 27: value}, default=True)
        return proposals("portfolio", Evidence((known, *drawn_ones.trials), drawn_ones.epochs), earlier)

    assert (with_default(1.0) != with_default(-1.0)) == learns
    assert learns or with_default(1.0) == proposals("portfolio", drawn_ones, earlier)


def test_a_random_sampler_never_learns() -> None:
    assert proposals("random", ENOUGH) == proposals("random", search([], (3, 0, TRUTH)))


def test_the_portfolio_asks_two_samplers_by_turns() -> None:
    # TPE looks at one rung; what changes with the values at another one comes from the model of all.
    flipped = search(drawn(24, 0), (3, 24, worst), (9, 17, TRUTH), (27, 5, TRUTH))
    pairs = zip(proposals("portfolio", ENOUGH), proposals("portfolio", flipped), strict=True)
    by_model = {seed for seed, (one, other) in enumerate(pairs) if one != other}
    pairs = zip(proposals("portfolio", ENOUGH), proposals("rung-tpe", ENOUGH), strict=True)
    as_rung_tpe = {seed for seed, (one, other) in enumerate(pairs) if one == other}
    assert len(by_model) >= 8
    assert len(as_rung_tpe) >= 8
    assert not by_model & as_rung_tpe


@pytest.mark.parametrize("sampler", ["portfolio", "rung-tpe"])
def test_most_proposals_are_near_the_good_trials_and_a_few_are_random(sampler: str) -> None:
    late = search(drawn(60, 0), (3, 60, TRUTH), (9, 20, TRUTH))
    blind = proposals("random", late)
    informed = proposals(sampler, late)
    qualities = [TRUTH(params) for params in informed]
    assert np.median(qualities) > np.median([TRUTH(params) for params in blind]) / 3  # they are negative
    same = sum(one == other for one, other in zip(informed, blind, strict=True))
    assert 0 < same < 14


def test_trials_that_are_being_trained_change_what_each_sampler_proposes() -> None:
    for sampler in ("portfolio", "rung-tpe"):
        before = proposals(sampler, ENOUGH, seeds=10)
        running = tuple(Observation(params, {}, training=True) for params in before)
        after = proposals(sampler, Evidence((*ENOUGH.trials, *running), ENOUGH.epochs), seeds=10)
        assert sum(one != other for one, other in zip(before, after, strict=True)) >= 5


def test_a_policy_says_which_trials_are_being_trained() -> None:
    search = policy(scheduler="asha-promotion")
    for _ in range(4):
        search.next()
    for epoch in (1, 2, 3):
        search.report(1, epoch, 0.5)
    search.fail(2, 1, "diverged")
    search.lose(3, "the node went away")
    search.next()
    evidence = search.evidence()
    assert [trial.training for trial in evidence.trials] == [True, False, False, False, True]
    assert evidence.pending(3) == [search.history.trials[trial].params for trial in (0, 4)]


def fails(where: Callable[[Params], bool]) -> Evidence:
    """The larger x the better, but for those that fail."""

    def value(params: Params) -> float:
        return -math.inf if where(params) else number(params, "x")

    return search(drawn(60, 0), (3, 60, value), (9, 0, value))


def test_where_recipes_fail_few_are_proposed_though_the_best_are_beside_them() -> None:
    evidence = fails(lambda params: number(params, "x") > 0.5)
    for sampler in ("portfolio", "rung-tpe"):
        risky = [number(params, "x") > 0.5 for params in proposals(sampler, evidence)]
        assert np.mean(risky) < 0.35


def test_where_everything_failed_something_is_still_proposed() -> None:
    for sampler in SAMPLERS:
        assert len({str(params) for params in proposals(sampler, fails(lambda params: True), seeds=5)}) == 5


@pytest.mark.parametrize("sampler", ["portfolio", "rung-tpe"])
def test_an_earlier_search_is_asked_from_the_third_trial_on_until_tpe_has_enough(sampler: str) -> None:
    earlier = search(drawn(40, 1), (3, 40, TRUTH))
    two, three = (search(drawn(trials, 2), (3, trials, TRUTH)) for trials in (2, 3))
    assert proposals(sampler, two, earlier) == proposals(sampler, two)
    informed = [TRUTH(params) > -0.03 for params in proposals(sampler, three, earlier, seeds=20)]
    assert np.mean(informed) > 0.6


def test_a_suggestion_depends_on_the_history_and_the_seed_alone() -> None:
    options = {"sampler": "portfolio", "scheduler": "asha-promotion", "grace_period": 1}
    compared = []

    def look(simulation: Simulation) -> None:
        if len(simulation.search.history.trials) % 3 == 0:
            predicted.append(
                (len(simulation.steps), simulation.ask(rebuilt_from(simulation.search, **options)))
            )

    predicted: list[tuple[int, Suggestion | str]] = []
    simulation = Simulation(policy(**options), 45, rising)
    simulation.run(watch=look)
    for step, answer in predicted:
        assert simulation.steps[step] == answer
        compared.append(isinstance(answer, Suggestion) and not answer.resumes)
    assert sum(compared) > 10
