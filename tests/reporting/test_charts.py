"""The figures of a report, from made-up searches: what is drawn, and that Plotly can draw it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import plotly.graph_objects
import pytest

from tests.benchmarks.report import lay_down_large_search
from tests.search_on_disk import lay_down_search
from tunekit.history import Event, History
from tunekit.reporting import charts
from tunekit.reporting.charts import Figure
from tunekit.reporting.facts import Facts, read_facts
from tunekit.reporting.importance import Importance, ImportanceReport
from tunekit.reporting.training_spans import busy_share, training_spans

SPACE = """
[space]
"optim.lr" = { low = 1e-3, high = 1.0, log = true }
"optim.name" = { choices = ["sgd", "adam"] }
"optim.momentum" = { low = 0.0, high = 0.99, when = { "optim.name" = ["sgd"] } }
"""


@pytest.fixture
def large(tmp_path: Path) -> Facts:
    return read_facts(lay_down_large_search(tmp_path, 40))


def small(tmp_path: Path, *events: Event) -> Facts:
    """A search of `SPACE` with these events."""
    paths = lay_down_search(tmp_path, "small")
    settings = json.loads(paths.settings.read_text())
    paths.settings.write_text(json.dumps({**settings, "fixed": {}, "epochs": 9}))
    paths.space.write_text(SPACE)
    paths.history.unlink()
    history = History(paths.history)
    history.append(*events)
    history.close()
    return read_facts(paths)


def trial(number: int, params: dict[str, Any], *values: float, end: Event | None = None) -> list[Event]:
    results = [Event("result", number, 100 + epoch, epoch, value) for epoch, value in enumerate(values, 1)]
    return [Event("suggest", number, 100, params=params), *results, *([end] if end else [])]


SGD: dict[str, Any] = {"optim.lr": 0.1, "optim.name": "sgd", "optim.momentum": 0.9}
ADAM: dict[str, Any] = {"optim.lr": 0.001, "optim.name": "adam"}


def every_figure(facts: Facts) -> list[Figure]:
    keys = list(facts.space.parameters)
    timeline = charts.timeline_figure(facts)
    ones = [Importance(key, 1 / len(keys), 10) for key in keys]
    report = ImportanceReport(3, 10, tuple(ones), tuple(ones), {}, True, ())
    return [
        charts.learning_curves(facts),
        charts.best_by_epochs(facts),
        charts.best_by_time(facts),
        *charts.parameter_figures(facts, keys).values(),
        charts.pair_figure(facts, keys[0], keys[-1]),
        charts.parallel_figure(facts, keys),
        charts.rung_figure(facts, facts.rungs[0], facts.rungs[-1]),
        charts.importance_figure(report),
        *([timeline] if timeline else []),
    ]


def named(figure: Figure, name: str) -> dict[str, Any]:
    (found,) = [trace for trace in figure["data"] if trace.get("name", "").startswith(name)]
    return dict(found)


# All figures.


def test_plotly_knows_every_word_of_every_figure(large: Facts) -> None:
    for figure in every_figure(large):
        text = json.dumps(figure, allow_nan=False)  # no number that JSON cannot hold
        plotly.graph_objects.Figure(json.loads(text))


def test_every_colour_has_one_for_a_dark_page(large: Facts) -> None:
    colours = set(re.findall(r"#[0-9A-Fa-f]{6}", json.dumps(every_figure(large))))
    assert colours
    assert colours <= set(charts.DARK_COLOURS)


def test_searches_without_a_result_have_figures_too(tmp_path: Path) -> None:
    facts = small(tmp_path, *trial(0, SGD))
    for figure in every_figure(facts):
        plotly.graph_objects.Figure(json.loads(json.dumps(figure, allow_nan=False)))
    assert charts.timeline_figure(facts) is None


def test_values_are_rounded_so_that_the_page_stays_small(large: Facts) -> None:
    for figure in every_figure(large):
        assert not re.search(r"\d\.\d{9,}", json.dumps(figure["data"]))


# Learning curves.


def test_curves_of_an_outcome_are_one_trace_with_gaps(tmp_path: Path) -> None:
    facts = small(
        tmp_path,
        *trial(0, SGD, 0.1, 0.2, 0.3, end=Event("stop", 0, epoch=3)),
        *trial(1, ADAM, 0.2, 0.3, 0.4, end=Event("stop", 1, epoch=3)),
    )
    figure = charts.learning_curves(facts)
    curves, ends = (trace for trace in figure["data"] if trace.get("legendgroup") == "stopped early")
    assert curves["x"] == [1, 2, 3, None, 1, 2, 3, None]
    assert curves["y"] == [0.1, 0.2, 0.3, None, 0.2, 0.3, 0.4, None]
    assert curves["customdata"] == [0, 0, 0, 0, 1, 1, 1, 1]
    assert (ends["x"], ends["y"]) == ([3, 3], [0.3, 0.4])
    assert named(figure, "best, trial 01")["y"] == [0.2, 0.3, 0.4, None]


def test_rungs_are_drawn_but_not_the_last_epoch(large: Facts) -> None:
    layout = charts.learning_curves(large)["layout"]
    assert [shape["x0"] for shape in layout["shapes"]] == [3, 9]
    assert [note["text"] for note in layout["annotations"]] == ["rung 3", "rung 9"]


def test_values_that_saw_the_validation_images_are_not_drawn(tmp_path: Path) -> None:
    seen = Event("suggest", 1, 100, params=ADAM, seen_validation=True)
    facts = small(tmp_path, *trial(0, SGD, 0.5), seen, Event("result", 1, 101, 1, 0.9876))
    assert "0.987" not in json.dumps([*every_figure(facts), charts.trial_texts(facts)])


# Best so far.


def test_the_best_so_far_rises_in_steps(tmp_path: Path) -> None:
    facts = small(tmp_path, *trial(0, SGD, 0.3, 0.2, 0.5, 0.4))
    (trace,) = charts.best_by_epochs(facts)["data"]
    assert trace["x"][0] >= 1
    assert trace["x"][-1] == 4
    assert trace["y"] == sorted(trace["y"])
    assert trace["y"][-1] == 0.5


# Parameters.


def test_an_axis_is_logarithmic_where_the_space_is(tmp_path: Path) -> None:
    facts = small(tmp_path, *trial(0, SGD, 0.5), *trial(1, ADAM, 0.4))
    figures = charts.parameter_figures(facts, ["optim.lr", "optim.momentum"])
    assert figures["optim.lr"]["layout"]["xaxis"]["type"] == "log"
    assert "type" not in figures["optim.momentum"]["layout"]["xaxis"]
    low, high = figures["optim.lr"]["layout"]["xaxis"]["range"]  # powers of ten
    assert low < -3 < 0 < high


def test_a_key_shows_only_the_recipes_to_which_it_applies(tmp_path: Path) -> None:
    facts = small(tmp_path, *trial(0, SGD, 0.5), *trial(1, ADAM, 0.4))
    (trace,) = charts.parameter_figures(facts, ["optim.momentum"])["optim.momentum"]["data"]
    assert (trace["x"], trace["y"], trace["customdata"]) == ([0.9], [0.5], [0])


def test_failed_recipes_stand_at_the_bottom_whatever_the_scale(tmp_path: Path) -> None:
    end = Event("fail", 1, epoch=1, reason="diverged")
    facts = small(tmp_path, *trial(0, SGD, 0.5), *trial(1, ADAM, end=end))
    failed = named(charts.parameter_figures(facts, ["optim.lr"])["optim.lr"], "failed")
    assert failed["x"] == [0.001]
    assert failed["yaxis"] == "y2"
    assert named(charts.pair_figure(facts, "optim.lr", "optim.name"), "failed")["x"] == [0.001]


def test_recipes_are_told_apart_by_the_rung_they_reached(tmp_path: Path) -> None:
    facts = small(tmp_path, *trial(0, SGD, *[0.5] * 3), *trial(1, ADAM, *[0.6] * 9))
    figure = charts.parameter_figures(facts, ["optim.lr"])["optim.lr"]
    first, last = named(figure, "reached epoch 3"), named(figure, "reached epoch 9")
    assert (first["customdata"], last["customdata"]) == ([0], [1])
    assert first["marker"]["color"] != last["marker"]["color"]


def test_choices_with_long_names_stand_at_the_side(large: Facts) -> None:
    figure = charts.parameter_figures(large, ["augment.policy"])["augment.policy"]
    assert "flip+shift_crop" in figure["layout"]["yaxis"]["ticktext"]
    assert figure["layout"]["meta"]["axis"] == "xaxis"  # the one of accuracy


# Whole recipes.


def test_a_line_is_broken_where_a_key_does_not_apply(tmp_path: Path) -> None:
    facts = small(tmp_path, *trial(0, ADAM, 0.4))
    (trace,) = charts.parallel_figure(facts, ["optim.lr", "optim.momentum"])["data"]
    assert trace["y"][0] == pytest.approx(0, abs=0.03)  # 0.001 is the lowest learning rate
    assert trace["y"][1] is None


def test_the_best_tenth_is_drawn_last(large: Facts) -> None:
    figure = charts.parallel_figure(large, list(large.space.parameters))
    assert [trace["name"] for trace in figure["data"]] == ["lower half", "upper half", "best tenth"]
    best = large.history.best()
    assert best is not None
    assert best.id in figure["data"][-1]["customdata"]


# Who trained what when.


def result(number: int, when: float, epoch: int, worker: str | None = None) -> Event:
    return Event("result", number, when, epoch, 0.5, metrics={"epoch_seconds": 10.0}, worker=worker)


def spans_of(*events: Event) -> list[tuple[int, int, float, float]]:
    suggested = {event.trial: Event("suggest", event.trial, 1, params={}) for event in events}
    trials = History(events=[*suggested.values(), *events]).trials.values()
    return [(span.lane, span.trial, span.start, span.end) for span in training_spans(trials)]


def test_epochs_in_a_row_are_one_bar_and_a_pause_parts_them() -> None:
    events = [result(0, 110, 1, "a"), result(0, 120, 2, "a"), result(0, 200, 3, "a")]
    assert spans_of(*events) == [(0, 0, 100, 120), (0, 0, 190, 200)]


def test_each_worker_has_a_lane_of_its_own() -> None:
    events = [result(0, 110, 1, "a"), result(1, 111, 1, "b"), result(2, 130, 1, "a")]
    assert [(lane, trial) for lane, trial, _, _ in spans_of(*events)] == [(0, 0), (1, 1), (0, 2)]


def test_without_names_of_workers_trials_share_lanes() -> None:
    events = [result(0, 110, 1), result(1, 111, 1), result(2, 125, 1)]
    assert [(lane, trial) for lane, trial, _, _ in spans_of(*events)] == [(0, 0), (1, 1), (0, 2)]


def test_a_result_that_came_a_little_late_needs_no_lane_of_its_own() -> None:
    assert spans_of(result(0, 110, 1), result(1, 119.5, 1)) == [(0, 0, 100, 110), (0, 1, 110, 119.5)]


def test_the_workers_of_a_node_have_neighbouring_lanes() -> None:
    events = [
        result(0, 110, 1, "one:17"),
        result(1, 111, 1, "two:17"),
        result(2, 112, 1, "one:18"),
        result(1, 121, 2, "one:17"),  # it went on elsewhere
    ]
    suggested = [Event("suggest", number, 1, params={}) for number in range(3)]
    spans = training_spans(History(events=[*suggested, *events]).trials.values())
    assert [(span.lane, span.trial, span.node) for span in spans] == [
        (0, 0, "one"),
        (2, 1, "two"),
        (1, 2, "one"),
        (0, 1, "one"),
    ]


def labels_of(tmp_path: Path, *workers: str | None) -> list[str]:
    events = [result(0, 10 * number, number, worker) for number, worker in enumerate(workers, start=2)]
    figure = charts.timeline_figure(small(tmp_path, Event("suggest", 0, 1, params=SGD), *events))
    assert figure is not None
    return list(figure["layout"]["yaxis"].get("ticktext", []))


def test_workers_are_named_after_their_nodes_where_there_are_several(tmp_path: Path) -> None:
    one = [f"one:{number}" for number in range(2)]
    assert labels_of(tmp_path / "1", *one) == ["worker 1", "worker 2"]
    assert labels_of(tmp_path / "2", *one, "two.lab:7") == [
        "one, worker 1",
        "one, worker 2",
        "two, worker 1",
    ]
    assert labels_of(tmp_path / "3", None, "10.0.0.7:1", f"{'x' * 30}-a<b>:1") == [
        "worker 1",
        "10.0.0.7, worker 1",
        f"…{'x' * 18}-a&lt;b&gt;, worker 1",
    ]


def test_of_many_workers_only_the_first_of_each_node_is_named(tmp_path: Path) -> None:
    many = [f"{node}:{number}" for node in ("one", "two") for number in range(20)]
    assert labels_of(tmp_path / "1", *many) == ["one, worker 1", "two, worker 1"]
    assert labels_of(tmp_path / "2", *many[:20], *(f"one:{number}" for number in range(20, 30))) == []


def test_the_share_of_time_in_which_workers_trained() -> None:
    trials = History(
        events=[
            Event("suggest", 0, 1, params={}),
            result(0, 110, 1, "a"),
            Event("suggest", 1, 1, params={}),
            result(1, 130, 1, "a"),
        ]
    ).trials.values()
    assert busy_share(training_spans(trials)) == pytest.approx(20 / 30)


def test_bars_start_where_the_training_did(tmp_path: Path) -> None:
    facts = small(
        tmp_path, Event("suggest", 0, 90, params=SGD), result(0, 110, 1, "a"), result(0, 400, 2, "a")
    )
    figure = charts.timeline_figure(facts)
    assert figure is not None
    (trace,) = figure["data"]
    assert trace["base"] == [0.0, pytest.approx(290 / 60, rel=1e-3)]  # minutes
    assert trace["x"] == [pytest.approx(10 / 60, rel=1e-3)] * 2


# Words.


def test_texts_of_trials_are_shown_as_they_are(tmp_path: Path) -> None:
    end = Event("fail", 0, epoch=1, reason="<b>loss</b> & more")
    text = charts.trial_texts(small(tmp_path, *trial(0, SGD, end=end)))["0"]
    assert "trial 00, failed" in text
    assert "&lt;b&gt;loss&lt;/b&gt; &amp; more" in text
    assert "<b>" not in text
