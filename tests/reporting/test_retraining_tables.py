"""What a person reads of a retraining, from results made by hand."""

from __future__ import annotations

import io
import time
from typing import Any

import pytest
from rich.console import Console
from rich.table import Table

from tunekit.reporting import retraining_tables as tables

Row = dict[str, Any]


def interval(low: float, high: float) -> Row:
    return {"low": low, "high": high}


def standing(name: str, accuracies: list[float], behind: Row | None = None, **about: Any) -> Row:
    mean = sum(accuracies) / len(accuracies)
    return {
        "name": name,
        "accuracies": accuracies,
        "mean": mean,
        "interval": interval(mean - 0.02, mean + 0.02),
        "behind": behind,
        "epochs": 10,
        "reported_accuracy": None,
        "reported_epochs": None,
        **about,
    }


def behind(mean: float, low: float, high: float, seeds: int = 3) -> Row:
    return {"mean": mean, "interval": interval(low, high), "seeds": seeds}


def accuracy(name: str, accuracies: list[float], part: str = "train") -> Row:
    mean = sum(accuracies) / len(accuracies)
    return {
        "name": name,
        "part": part,
        "accuracies": accuracies,
        "mean": mean,
        "over_seeds": interval(mean - 0.01, mean + 0.01) if len(accuracies) > 1 else None,
        "over_both": interval(mean - 0.03, mean + 0.03),
    }


def model(**changed: Any) -> Row:
    return {
        "members": [{"training": 4, "recipe": "trial 07", "seed": 90004, "weight": 1.0}],
        "accuracy": 0.9123,
        "interval": interval(0.9, 0.9234),
        "calibration_error": 0.0312,
        "calibration_error_before": None,
        "temperature": 1.0,
        "images_per_second": 12345.6,
        "device": "CPU, 2 threads",
        "ensemble": None,
        **changed,
    }


def result(**changed: Any) -> Row:
    return {"standings": [], "test": [], "test_images": 10_000, "model": model(), **changed}


def cells(table: Table) -> list[list[str]]:
    """The cells of a table as they are printed, its head first."""
    out = io.StringIO()
    Console(file=out, width=300).print(table)
    lines = out.getvalue().splitlines()
    return [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in lines]


# Standings.


def test_standings_of_several_seeds() -> None:
    found = result(
        standings=[
            standing("trial 07", [0.91, 0.92, 0.93]),
            standing("trial 03", [0.9, 0.91, 0.92], behind(0.01, -0.005, 0.025)),
            standing("default recipe", [0.8, 0.8, 0.8], behind(0.12, 0.1, 0.14)),
        ]
    )
    assert cells(tables.standings_table(found)) == [
        ["recipe", "seeds", "val accuracy", "95 % interval", "behind the winner"],
        ["trial 07", "3", "0.9200", "0.9000 to 0.9400", "winner"],
        ["trial 03", "3", "0.9100", "0.8900 to 0.9300", "0.0100 (-0.0050 to +0.0250), within noise"],
        ["default recipe", "3", "0.8000", "0.7800 to 0.8200", "0.1200 (+0.1000 to +0.1400)"],
    ]


def test_one_seed_is_not_said_to_tell_anything() -> None:
    found = result(
        standings=[
            standing("trial 07", [0.92]),
            standing("trial 03", [0.8], behind(0.12, 0.1, 0.14, seeds=1)),
        ]
    )
    assert cells(tables.standings_table(found))[2][-1] == "0.1200 (+0.1000 to +0.1400), one seed cannot tell"


def test_an_interval_that_touches_0_is_within_noise() -> None:
    found = result(standings=[standing("a", [0.9, 0.9]), standing("b", [0.9, 0.9], behind(0.01, 0.0, 0.02))])
    assert cells(tables.standings_table(found))[2][-1].endswith("within noise")


# The test set.


def test_test_accuracy_over_several_seeds() -> None:
    found = result(
        standings=[standing("trial 07", [0.9]), standing("default recipe", [0.8])],
        test=[accuracy("trial 07", [0.91, 0.93]), accuracy("default recipe", [0.8, 0.82])],
    )
    assert cells(tables.accuracy_table(found)) == [
        ["recipe", "trained on", "seeds", "test accuracy", "95 % over seeds", "over seeds and images"],
        ["trial 07", "train", "2", "0.9200", "0.9100 to 0.9300", "0.8900 to 0.9500"],
        ["default recipe", "train", "2", "0.8100", "0.8000 to 0.8200", "0.7800 to 0.8400"],
    ]


def test_one_seed_has_no_interval_over_seeds() -> None:
    found = result(standings=[standing("trial 07", [0.9])], test=[accuracy("trial 07", [0.91])])
    assert cells(tables.accuracy_table(found))[1] == [
        "trial 07",
        "train",
        "1",
        "0.9100",
        "-",
        "0.8800 to 0.9400",
    ]


def test_networks_that_saw_the_validation_images_have_a_row_of_their_own() -> None:
    found = result(
        standings=[standing("trial 07", [0.9])],
        test=[accuracy("trial 07", [0.93, 0.93], "train+val"), accuracy("trial 07", [0.91, 0.91])],
    )
    assert [row[:4] for row in cells(tables.accuracy_table(found))[1:]] == [
        ["trial 07", "train+val", "2", "0.9300"],
        ["trial 07", "train", "2", "0.9100"],
    ]


def test_known_recipes_stand_beside_what_was_reported_of_them() -> None:
    found = result(
        standings=[
            standing("B-mnist-vgg16", [0.9, 0.9], reported_accuracy=99.1, reported_epochs=10, epochs=2),
            standing("mine", [0.9, 0.9]),
            standing("silent", [0.9, 0.9], reported_accuracy=75.33),
        ],
        test=[accuracy(name, [0.9, 0.9]) for name in ("B-mnist-vgg16", "mine", "silent")],
    )
    head, *body = [row[-3:] for row in cells(tables.accuracy_table(found))]
    assert head == ["reported", "after epochs", "epochs here"]
    assert body == [["0.9910", "10", "2"], ["-", "-", "-"], ["0.7533", "-", "10"]]


# The model.


def test_the_model_says_which_network_it_is_and_what_it_is_worth() -> None:
    assert tables.model_lines(result()) == [
        "The model handed over is trial 07, seed 90004: test accuracy 0.9123 on 10,000 images "
        "(95 %, binomial: 0.9000 to 0.9234), calibration error 0.031, 12,346 images/s on CPU, 2 threads."
    ]


def test_a_calibrated_model_says_what_it_was_before() -> None:
    found = result(model=model(calibration_error_before=0.0876, temperature=1.534))
    assert "calibration error 0.031 (0.088 before temperature 1.53), " in tables.model_lines(found)[0]


@pytest.mark.parametrize(
    ("low", "high", "noise"),
    [(-0.001, 0.005, ", within noise"), (0.001, 0.005, ""), (-0.005, -0.001, "")],
)
def test_an_ensemble_says_what_it_gains_and_costs(low: float, high: float, noise: str) -> None:
    gained = {
        "accuracy_alone": 0.91,
        "gain": (low + high) / 2,
        "gain_interval": interval(low, high),
        "slower": 3.04,
        "larger": 2.96,
    }
    members = [{"training": k, "recipe": "trial 07", "seed": k, "weight": 0.5} for k in range(2)]
    first, second = tables.model_lines(result(model=model(members=members, ensemble=gained)))
    assert first.startswith("The model handed over is an ensemble of 2 networks: test accuracy 0.9123 ")
    assert second == (
        "Against the winner's best network alone (0.9100) it gains "
        f"{(low + high) / 2:+.4f} (95 %: {low:+.4f} to {high:+.4f}{noise}), is 3.0 times as slow "
        "and has 3.0 times the parameters."
    )


def test_an_ensemble_that_came_to_one_network_is_not_called_one() -> None:
    gained = {
        "accuracy_alone": 0.9123,
        "gain": 0.0,
        "gain_interval": interval(-0.0004, 0.0004),
        "slower": 1.0,
        "larger": 1.0,
    }
    first, second = tables.model_lines(result(model=model(ensemble=gained)))
    assert first.startswith(
        "The model handed over is trial 07, seed 90004, which no ensemble beat on the validation images: "
    )
    assert second.startswith("Against the winner's best network alone (0.9123) it gains +0.0000 (")


# Openings and the registry.


def opening(number: int, search: str = "mine", user: str = "ada", seconds: float = 0.0) -> Row:
    return {"number": number, "search": search, "user": user, "time": seconds}


def test_a_first_opening_is_said_to_be_one() -> None:
    found = result(opening=opening(1), earlier_openings=[])
    assert tables.opening_line(found) == "The test set was opened for the first time."


def test_an_opening_after_others_warns_and_names_the_last() -> None:
    when = time.mktime((2025, 3, 14, 15, 9, 0, 0, 0, -1))
    last = opening(3, "other", "bob", when)
    found = result(opening=opening(2), earlier_openings=[opening(1), last])
    assert tables.opening_line(found) == (
        "This test set was opened 2 times before (last on 2025-03-14 15:09 by bob for other); "
        "this is opening 2 of this search. Choosing by what it says makes its accuracy look too good."
    )
    found = result(opening=opening(1), earlier_openings=[last])
    assert tables.opening_line(found).startswith("This test set was opened once before (")


@pytest.mark.parametrize(
    ("best", "reason", "expected"),
    [
        (True, "no version was best before", "alias best: no version was best before"),
        (
            False,
            "version 2 has 0.99 on the same test images",
            "not best: version 2 has 0.99 on the same test images",
        ),
    ],
)
def test_a_registered_model_says_where_it_is_and_why_it_is_best_or_not(
    best: bool, reason: str, expected: str
) -> None:
    registration = {"name": "tunekit-digits", "version": 3, "best": best, "reason": reason}
    line = tables.registration_line(result(registration=registration), None)
    assert line == f"Model: tunekit-digits, version 3 ({expected})"


def test_a_model_that_is_not_registered_says_why_and_how_it_will_be() -> None:
    assert tables.registration_line(result(registration=None), "x does not answer") == (
        "The model is not in MLflow's registry (x does not answer): the same command tries again."
    )
