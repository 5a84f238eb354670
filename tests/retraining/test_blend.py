"""Which networks a blend takes, on answers whose best blend is plain to see."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from tunekit.retraining.blend import choose_weights
from tunekit.retraining.metrics import cross_entropy, softmax

Array = NDArray[np.float64]
LABELS = np.arange(60) % 3


def network(seed: int, signal: float, strange: NDArray[np.bool_] | None = None) -> Array:
    """(60, 3) probabilities: noise, plus `signal` for the true class except for `strange` images."""
    known = np.ones(60) if strange is None else ~strange
    scores = (
        np.random.default_rng(seed).standard_normal((60, 3)) + signal * np.eye(3)[LABELS] * known[:, None]
    )
    return softmax(scores)


def blended(weights: Array, probabilities: Array) -> float:
    return cross_entropy(np.tensordot(weights, probabilities, 1), LABELS)


def test_a_complementary_pair_beats_each_alone() -> None:
    first_half = np.arange(60) < 30
    pair = np.stack([network(0, 5.0, first_half), network(1, 5.0, ~first_half)])
    weights = choose_weights(pair, LABELS)
    assert weights == pytest.approx([0.5, 0.5], abs=0.1)
    assert blended(weights, pair) < min(cross_entropy(member, LABELS) for member in pair) - 0.1


def test_useless_members_get_nothing() -> None:
    wrong = np.roll(network(2, 6.0), 1, axis=1)
    guess = np.full((60, 3), 1 / 3)
    members = np.stack([guess, network(0, 5.0), wrong, network(1, 5.0)])
    weights = choose_weights(members, LABELS)
    assert weights[[0, 2]].tolist() == [0, 0]
    assert weights.sum() == pytest.approx(1)


def test_one_network_is_the_blend() -> None:
    assert choose_weights(network(0, 1.0)[None], LABELS).tolist() == [1.0]


def test_of_equal_networks_the_first_is_taken() -> None:
    twin = network(0, 2.0)
    assert choose_weights(np.stack([network(1, 0.0), twin, twin]), LABELS).tolist() == [0, 1, 0]


@pytest.mark.parametrize("rounds", [0, 1, 50])
def test_a_blend_is_never_worse_than_its_best_member_where_it_was_chosen(rounds: int) -> None:
    for seed in range(20):
        members = np.stack([network(10 * seed + k, 0.3 * k) for k in range(6)])
        weights = choose_weights(members, LABELS, rounds)
        losses = [cross_entropy(member, LABELS) for member in members]
        assert blended(weights, members) <= min(losses) + 1e-9
        assert np.count_nonzero(weights) <= rounds + 1
        assert weights.sum() == pytest.approx(1)
        if rounds == 0:
            assert weights[int(np.argmin(losses))] == 1


@pytest.mark.parametrize("rounds", [2, 50])
def test_each_round_is_the_best_single_addition_until_none_helps(rounds: int) -> None:
    members = np.stack([network(seed, 1.5) for seed in range(8)])
    chosen: list[int] = []
    loss = np.inf
    for _ in range(rounds + 1):
        losses = [cross_entropy(members[[*chosen, k]].mean(0), LABELS) for k in range(8)]
        if min(losses) >= loss:
            break
        loss = min(losses)
        chosen.append(int(np.argmin(losses)))
    assert (len(chosen) == rounds + 1) == (rounds == 2)
    expected = np.bincount(chosen, minlength=8) / len(chosen)
    assert choose_weights(members, LABELS, rounds) == pytest.approx(expected)


def test_a_probability_of_0_for_the_truth_is_no_end() -> None:
    sure_but_once_wrong = np.eye(3, dtype=np.float32)[LABELS]
    sure_but_once_wrong[0] = [0, 0, 1]
    weights = choose_weights(np.stack([sure_but_once_wrong, network(0, 3.0).astype(np.float32)]), LABELS)
    assert np.isfinite(weights).all()
    assert weights[0] > 0
