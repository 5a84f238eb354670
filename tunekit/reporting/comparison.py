"""Searches side by side: what each was given, what it found, and when."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from rich.table import Table

from tunekit.history import History, Trial
from tunekit.paths import SearchPaths
from tunekit.recipe import Value
from tunekit.reporting.facts import Facts, read_facts
from tunekit.retraining.findings import find_result

_AS_GOOD = 0.001  # of accuracy: a search is as good as its best once it is so near

DataKey = tuple[str, int | None, int, int, float]
"""Digest of the data, `--train-limit`, validation images, seed of the split, `--val-fraction`."""


@dataclass(frozen=True)
class Row:
    """One search. Accuracies are 0 to 1; None where there is none yet."""

    search: str
    dataset: str
    data_key: DataKey  # equal for searches that were judged by the same images
    space: str
    sampler: str
    scheduler: str
    trials: int  # that began, repeats among them
    epochs: int  # trained in all, by all trials
    full_epochs: int  # of a full training
    hours: float  # of training and validation, added up over all trials
    best: (
        float | None
    )  # validation accuracy of the best recipe at its best epoch, the mean over its trainings
    default: float | None  # the same of the space's default recipe
    epochs_to_best: int | None  # trained in all until a trial was within 0.001 of the highest value of any
    test: float | None  # test accuracy of the retrained winner, the mean over its seeds
    recipe: Mapping[str, Value] | None  # the best, every key
    differs: Mapping[str, Value]  # of it, the keys in which the best recipes of the searches differ

    @property
    def gain(self) -> float | None:
        """What the best recipe is ahead of the default one."""
        return None if self.best is None or self.default is None else self.best - self.default


def best_so_far(facts: Facts) -> list[tuple[int, float, float]]:
    """How the best value rose, a point after each finished epoch of any trial, in the order they came.

    Returns:
        (epochs trained so far over all trials, seconds since the search began, best validation accuracy
        so far, 0 to 1), without trainings that saw the validation images. The clock ran on while the
        search was interrupted.
    """
    return list(_points(facts))


def _points(facts: Facts) -> Iterator[tuple[int, float, float]]:
    began = min((event.time for event in facts.history.events), default=0.0)
    best = 0.0
    trained = 0
    for event in facts.history.events:
        if event.kind == "result" and event.value is not None:
            if not facts.history.trials[event.trial].seen_validation:
                best = max(best, event.value)
            trained += 1
            yield trained, event.time - began, best


def compare_searches(searches: Sequence[SearchPaths]) -> list[Row]:
    """A row for each search, in the order given; a search without a result has one too.

    Raises:
        SearchError: if the files of a search are damaged.
        SpaceError: if its space file is.
    """
    all_facts = [read_facts(paths) for paths in searches]
    recipes = [_best_recipe(facts) for facts in all_facts]
    differing = _differing_keys([recipe for recipe in recipes if recipe is not None])
    return [
        _row(facts, recipe, {key: recipe[key] for key in differing} if recipe else {})
        for facts, recipe in zip(all_facts, recipes, strict=True)
    ]


def warnings(rows: Sequence[Row]) -> list[str]:
    """Why accuracies of some rows cannot be compared, in sentences; empty if all can."""
    found = []
    for row in rows[1:]:
        first = rows[0]
        if row.data_key != first.data_key:
            found.append(
                f"{row.search} and {first.search} were judged by different validation images "
                f"({_difference(first.data_key, row.data_key)}): their accuracies cannot be compared."
            )
        elif row.full_epochs != first.full_epochs:
            found.append(
                f"{row.search} trains for up to {row.full_epochs} epochs, {first.search} for up to "
                f"{first.full_epochs}: their accuracies differ for that alone."
            )
    return found


def comparison_table(rows: Sequence[Row]) -> Table:
    """The searches for a terminal, a column each; below, the keys in which their best recipes differ."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("search", no_wrap=True)
    for row in rows:
        table.add_column(row.search, overflow="fold")
    for label, cells in _lines(rows):
        table.add_row(label, *cells)
    for key in dict.fromkeys(key for row in rows for key in row.differs):
        table.add_row(key, *(_value(row.differs.get(key)) for row in rows))
    return table


def _lines(rows: Sequence[Row]) -> list[tuple[str, list[str]]]:
    return [
        ("dataset", [row.dataset for row in rows]),
        ("space", [row.space for row in rows]),
        ("sampler", [row.sampler for row in rows]),
        ("scheduler", [row.scheduler for row in rows]),
        ("trials", [f"{row.trials:,}" for row in rows]),
        ("epochs of a full training", [f"{row.full_epochs:,}" for row in rows]),
        ("epochs trained", [f"{row.epochs:,}" for row in rows]),
        ("hours of training", [f"{row.hours:.2f}" for row in rows]),
        ("best val accuracy", [_value(row.best, 4) for row in rows]),
        ("default recipe's", [_value(row.default, 4) for row in rows]),
        ("gain", [_value(row.gain, 4) for row in rows]),
        (f"epochs until within {_AS_GOOD:g}", [_value(row.epochs_to_best) for row in rows]),
        ("test accuracy", [_value(row.test, 4) for row in rows]),
    ]


def _value(value: Value | None, digits: int | None = None) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4g}" if digits is None else f"{value:.{digits}f}"
    return str(value)


def _row(facts: Facts, recipe: Mapping[str, Value] | None, differs: Mapping[str, Value]) -> Row:
    settings, history = facts.settings, facts.history
    results = [result for trial in facts.trials for result in trial.results]
    return Row(
        search=facts.paths.name,
        dataset=settings.dataset,
        data_key=_data_key(facts),
        space=settings.space,
        sampler=settings.sampler,
        scheduler=settings.scheduler,
        trials=len(facts.trials),
        epochs=len(results),
        full_epochs=settings.epochs,
        hours=sum(result.metrics.get("epoch_seconds", 0.0) for result in results) / 3600,
        best=_accuracy(history, history.best()),
        default=_accuracy(history, facts.default_trial),
        epochs_to_best=_epochs_to_best(facts),
        test=_test_accuracy(facts.paths),
        recipe=recipe,
        differs=differs,
    )


def _data_key(facts: Facts) -> DataKey:
    settings = facts.settings
    digest = settings.data_digest or settings.dataset
    return digest, settings.train_limit, settings.val_images, settings.seed, settings.val_fraction


def _difference(first: DataKey, second: DataKey) -> str:
    names = ("data", "--train-limit", "number of images", "seed of the split", "--val-fraction")
    return ", ".join(name for name, a, b in zip(names, first, second, strict=True) if a != b)


def _best_recipe(facts: Facts) -> dict[str, Value] | None:
    best = facts.history.best()
    return facts.recipes[best.id].to_flat() if best else None


def _differing_keys(recipes: Sequence[dict[str, Value]]) -> list[str]:
    return [key for key in recipes[0] if len({recipe[key] for recipe in recipes}) > 1] if recipes else []


def _accuracy(history: History, trial: Trial | None) -> float | None:
    return history.recipe_value(trial) if trial and trial.best else None


def _epochs_to_best(facts: Facts) -> int | None:
    points = best_so_far(facts)
    return next((trained for trained, _, best in points if best >= points[-1][2] - _AS_GOOD), None)


def _test_accuracy(paths: SearchPaths) -> float | None:
    result = find_result(paths)
    if result is None:
        return None
    accuracies = (float(row["mean"]) for row in result["test"] if row["name"] == result["winner"])
    return next(accuracies, None)
