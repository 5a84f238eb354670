"""How well what answers in replays ranks recipes: models behind smooth curves, and the nearest recipe.

python -m tests.benchmarks.policy.cross_validation
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import spearmanr

from tests.benchmarks.policy.__main__ import DENSE_TABLES, SMOOTH_TABLES, TABLES
from tests.benchmarks.policy.record import curves_of, read_table
from tests.benchmarks.policy.smooth import CurveModel, model_of
from tunekit.tuning.replay import Curves, Floats


@dataclass(frozen=True)
class RankCorrelation:
    """Spearman's, of predicted last values with recorded ones."""

    fitted: float  # on the recipes that the model was fitted on
    left_out: float  # on recipes that it was not fitted on, each predicted once
    better_half: float  # the same, among those whose recorded value is above the median
    nearest: float  # of the recorded recipe nearest to each, when it is left out itself


def rank_correlation(recorded: Curves, model: CurveModel, folds: int = 5) -> RankCorrelation:
    """Of `model`, fitted on all of `recorded`, and of `folds` models that leave out a random part each.

    Args:
        recorded: every recipe trained in full.
        model: of these curves.
        folds: at least 2.
    """
    fold = np.random.default_rng(0).permutation(len(recorded.records)) % folds
    rows = np.array([model.encoding.encode(record.params) for record in recorded.records])
    left_out = np.empty(len(rows))
    for part in range(folds):
        others = [record for record, place in zip(recorded.records, fold, strict=True) if place != part]
        of_others = CurveModel(Curves(recorded.space, recorded.epochs, others))
        left_out[fold == part] = of_others.curves(rows[fold == part])[:, -1]
    better = recorded.final > np.median(recorded.final)
    return RankCorrelation(
        _correlation(model.curves(rows)[:, -1], recorded.final),
        _correlation(left_out, recorded.final),
        _correlation(left_out[better], recorded.final[better]),
        recorded.rank_correlation(),
    )


def _correlation(predicted: Floats, recorded: Floats) -> float:
    return float(spearmanr(predicted, recorded).statistic)


def main() -> None:
    """Print a row for each table."""
    print(
        "| table | fitted on | left out (5-fold) | left out, the better half | nearest recorded, left out |"
    )
    print("|---|---|---|---|---|")
    for table in (*SMOOTH_TABLES, *TABLES, *DENSE_TABLES):
        found = rank_correlation(curves_of(read_table(table)), model_of(table))
        cells = (found.fitted, found.left_out, found.better_half, found.nearest)
        print(f"| {table.name.split('.')[0]} | {' | '.join(f'{cell:.2f}' for cell in cells)} |")


if __name__ == "__main__":
    main()
