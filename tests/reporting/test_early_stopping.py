"""Whether the rungs foretold the end, and what stopping early saved: on made-up histories."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.reporting.made_up_facts import Made, made_up
from tunekit.reporting.early_stopping import early_stopping, rank_interval
from tunekit.space import Params

PARAMS: Params = {"model.bn_placement": "none", "optim.name": "adam", "optim.lr": 0.1}


def curve(early: float, late: float) -> Made:
    """Trained in full: one value up to the rung at epoch 3, another one after it."""
    return Made(PARAMS, [early] * 3 + [late] * 6)


def stopped(early: float) -> Made:
    return Made(PARAMS, [early] * 3, "stop")


def test_a_rung_that_foretells_the_end_has_a_high_correlation(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    values = np.linspace(0.1, 0.9, 30)
    noisy = values + rng.normal(0, 0.03, 30)
    trials = [curve(early, late) for early, late in zip(noisy.tolist(), values.tolist(), strict=True)]
    found = early_stopping(made_up(tmp_path, trials))
    (one,) = found.correlations
    assert (one.rung, one.final, one.trials) == (3, 9, 30)
    assert one.correlation is not None and one.low is not None and one.high is not None
    assert one.low < one.correlation < one.high
    assert one.low > 0.7
    assert "close" in found.words


def test_ranks_count_and_not_distances(tmp_path: Path) -> None:
    trials = [curve(n / 10, (n / 10) ** 9) for n in range(1, 9)]
    (one,) = early_stopping(made_up(tmp_path, trials)).correlations
    assert one.correlation == pytest.approx(1)
    assert one.low is None


def test_an_early_order_that_says_nothing_is_called_that(tmp_path: Path) -> None:
    late = [0.3, 0.8, 0.5, 0.4, 0.9, 0.2, 0.7, 0.6]
    found = early_stopping(made_up(tmp_path, [curve(n / 10, value) for n, value in enumerate(late)]))
    assert "not told from none" in found.words


def test_that_only_survivors_are_asked_is_said(tmp_path: Path) -> None:
    full = [curve(n / 10, n / 10 + 0.01 * (n % 3)) for n in range(1, 9)]
    assert "chosen at the rungs" not in early_stopping(made_up(tmp_path / "full", full)).words
    found = early_stopping(made_up(tmp_path / "stopped", [*full, stopped(0.05)]))
    assert "chosen at the rungs" in found.words
    assert found.correlations[0].trials == 8


def test_epochs_spent_and_saved(tmp_path: Path) -> None:
    trials = [
        curve(0.5, 0.6),
        stopped(0.1),
        Made(PARAMS, [0.1] * 3, "pause"),
        Made(PARAMS, [0.1], "fail", reason="diverged"),
        Made(PARAMS, [0.1] * 4, "lose", reason="node gone"),
        Made(PARAMS, [0.1] * 2, None),
        Made(PARAMS, [0.1] * 9, repeat_of=0),
    ]
    found = early_stopping(made_up(tmp_path, trials))
    assert found.epochs_spent == 9 + 3 + 3 + 1 + 4 + 2 + 9
    assert found.epochs_without == found.epochs_spent + 6 + 6
    assert "1 of them paused" in found.words


@pytest.mark.parametrize("trials", [[], [Made(PARAMS, [], None)], [Made(PARAMS, [], "fail", reason="x")]])
def test_before_the_first_epoch(tmp_path: Path, trials: list[Made]) -> None:
    found = early_stopping(made_up(tmp_path, trials))
    assert found.epochs_spent == found.epochs_without == 0
    assert found.words.startswith("No epoch was trained yet.")
    assert [one.correlation for one in found.correlations] == [None]


def test_too_few_that_reached_the_end(tmp_path: Path) -> None:
    found = early_stopping(made_up(tmp_path, [curve(n / 10, n / 10) for n in range(4)]))
    assert found.correlations[0].correlation is None
    assert "Too few trials" in found.words


def test_equal_values_have_no_correlation(tmp_path: Path) -> None:
    found = early_stopping(made_up(tmp_path, [curve(0.5, n / 10) for n in range(8)]))
    assert found.correlations[0].correlation is None


def test_a_search_shorter_than_its_first_rung_compares_nothing(tmp_path: Path) -> None:
    found = early_stopping(made_up(tmp_path, [Made(PARAMS, [0.5, 0.6])], epochs=2))
    assert found.correlations == ()
    assert found.words == "No trial was stopped early; 2 epochs were trained."


def test_the_interval_holds_the_true_correlation_in_most_samples() -> None:
    rng = np.random.default_rng(0)
    from scipy.stats import spearmanr

    truth, held = 6 / np.pi * np.arcsin(0.6 / 2), 0  # Spearman's of a normal pair with Pearson's 0.6
    for _ in range(300):
        pairs = rng.multivariate_normal([0, 0], [[1, 0.6], [0.6, 1]], size=15)
        interval = rank_interval(float(spearmanr(pairs[:, 0], pairs[:, 1]).statistic), 15)
        assert interval is not None
        held += interval[0] <= truth <= interval[1]
    assert 0.9 <= held / 300 <= 0.99
