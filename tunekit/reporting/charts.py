"""The figures of a search's report, as plain dictionaries in Plotly's words: `data` and `layout`.

A figure holds no theme: the page gives it one, and exchanges its colours for those of `DARK_COLOURS` on a
dark background. Points carry the id of their trial as `customdata`; the page puts the trial's words from
`trial_texts` in its place, so that a recipe is written once and not at each of its epochs. Colours are
those of Okabe and Ito 2008, "Color universal design", which people with any colour vision tell apart.
"""

from __future__ import annotations

import math
import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from tunekit.history import Trial, TrialStatus
from tunekit.recipe import Value
from tunekit.reporting.comparison import best_so_far
from tunekit.reporting.facts import Facts
from tunekit.reporting.importance import ImportanceReport
from tunekit.reporting.training_spans import Span, nodes_of_lanes, training_spans
from tunekit.reporting.value_scale import ValueScale, plain
from tunekit.space import Parameter
from tunekit.tuning.progress import recipe_words, trial_name

Figure = dict[str, Any]
Trace = dict[str, Any]

_BLUE, _ORANGE, _GREEN, _RED, _PINK = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#B5578C"
_GREY, _FAINT = "#8A919C", "#C3C9D2"
_STEPS = ("#B9D3E6", "#7FB2D6", "#3D8BC0", "#00568A", "#002F55")  # from low to high

DARK_COLOURS: Mapping[str, str] = {
    _BLUE: "#56B4E9",
    _ORANGE: "#F0B429",
    _GREEN: "#2CC79C",
    _RED: "#F07B3F",
    _PINK: "#E29BC3",
    _GREY: "#7D8794",
    _FAINT: "#434B57",
    **dict(zip(_STEPS, ("#24445C", "#2F6C94", "#4496C8", "#86C8EE", "#E3F4FF"), strict=True)),
}
"""What stands for each colour of a figure on a dark background."""

OUTCOMES: Mapping[TrialStatus, tuple[str, str, str]] = {
    "stopped": ("stopped early", _GREY, "circle-open"),
    "paused": ("paused", _GREY, "circle-open"),
    "completed": ("completed", _BLUE, "circle"),
    "running": ("unfinished", _GREEN, "triangle-right"),
    "failed": ("failed", _RED, "x"),
    "lost": ("lost to the machine", _PINK, "cross"),
}
"""Words, colour and mark of each outcome, in the order in which they are drawn."""

_MOST_AXES = 10  # of parallel coordinates
_MANY = 60  # lines; more are drawn thinner
_MOST_BARS = 15  # keys whose importance is drawn
_NARROW, _LEAST_VIEW = 0.7, 1e-3  # a nearer view shows less of the whole range, but so much accuracy
_LEAST_SHARE = 0.005  # of importance; a shorter bar cannot be seen
_LINE_LETTERS = 60  # of a trial's words
_MOST_LABELS, _NODE_LETTERS = 24, 24  # of workers, and of a node's name
_BANDS = (("lower half", 0.0, _FAINT), ("upper half", 0.5, _STEPS[2]), ("best tenth", 0.9, _ORANGE))


def trial_texts(facts: Facts) -> dict[str, str]:
    """What a pointer at a trial shows: number, outcome, accuracy and recipe; by the trial's id."""
    return {str(trial.id): _trial_text(trial) for trial in facts.trials}


def learning_curves(facts: Facts) -> Figure:
    """Validation accuracy by epoch: a curve for each trial with a result, a mark where it ended."""
    trials, best = scored_trials(facts), facts.history.best()
    traces: list[Trace] = []
    for status, (words, colour, symbol) in OUTCOMES.items():
        group = [trial for trial in trials if trial.status == status]
        if group:
            line = {"color": colour, "width": 1.5 if status == "completed" else 1}
            traces.append(_curves(group, f"{words} ({len(group)})", line) | {"legendgroup": words})
            ends = _points(group, [t.epoch for t in group], [t.results[-1].value for t in group])
            mark = {"color": colour, "symbol": symbol, "size": 6}
            traces.append(ends | {"marker": mark, "legendgroup": words, "showlegend": False})
    if best is not None:
        traces.append(_curves([best], f"best, {trial_name(best)}", {"color": _ORANGE, "width": 3.5}))
    figure = _figure(traces, {"title": "epoch", "rangemode": "tozero"}, _accuracy_axis(), 460)
    figure["layout"] |= _rung_lines(facts.rungs)
    values = [result.value for trial in trials for result in trial.results]
    return _with_views(figure, values, _best_quarter([t.results[-1].value for t in trials]), near_first=False)


def best_by_epochs(facts: Facts) -> Figure:
    """The best validation accuracy so far against epochs trained in all."""
    return _best_curve([(epochs, value) for epochs, _, value in best_so_far(facts)], "epochs trained in all")


def best_by_time(facts: Facts) -> Figure:
    """The best validation accuracy so far against the time since the search began."""
    steps = best_so_far(facts)
    unit, seconds = _time_unit(max((passed for _, passed, _ in steps), default=0.0))
    points = [(passed / seconds, value) for _, passed, value in steps]
    return _best_curve(points, f"{unit} since the search began")


def parameter_figures(facts: Facts, keys: Sequence[str]) -> dict[str, Figure]:
    """For each of these keys of the space: its value against the accuracy that each trial reached."""
    flats = _flat_recipes(facts)
    return {key: _parameter_figure(facts, facts.space.parameters[key], flats) for key in keys}


def pair_figure(facts: Facts, first: str, second: str) -> Figure:
    """Two keys against each other, coloured by the accuracy that was reached; failed recipes crossed."""
    flats = _flat_recipes(facts)
    across, up = (ValueScale(facts.space.parameters[key]) for key in (first, second))
    placed = [t for t in facts.history.recipes if across.shows(flats[t.id]) and up.shows(flats[t.id])]
    good = [trial for trial in placed if _scored(trial)]
    failed = [t for t in placed if t.status == "failed"]
    values = [_best_value(trial) for trial in good]
    traces = []
    for group, name, mark in (
        (good, "accuracy", _coloured_by(values)),
        (failed, "failed", {"color": _RED, "symbol": "x", "size": 8}),
    ):
        if group:
            x, y = across.places(group, flats), up.places(group, flats, up=True)
            traces.append(_points(group, x, y) | {"marker": mark, "name": name, "showlegend": False})
    across_axis = across.axis(across.places(good, flats), plain(first))
    return _figure(traces, across_axis, up.axis(up.places(good, flats), plain(second)), 420)


def parallel_figure(facts: Facts, keys: Sequence[str]) -> Figure:
    """Recipes as lines over the axes of the first ten `keys` and of the accuracy, in three bands.

    A line has a gap where a key does not apply, which Plotly's own parallel coordinates cannot show.
    """
    flats, keys = _flat_recipes(facts), keys[:_MOST_AXES]
    scales = [ValueScale(facts.space.parameters[key]) for key in keys]
    ranked = sorted(_scored_recipes(facts), key=_best_value)
    values = [_best_value(trial) for trial in ranked]
    low, high = (values[len(values) // 4], values[-1]) if values else (0.0, 1.0)
    traces = []
    for place, (name, start, colour) in enumerate(_BANDS):
        end = _BANDS[place + 1][1] if place + 1 < len(_BANDS) else 1.0
        group = ranked[math.floor(start * len(ranked)) : math.floor(end * len(ranked))]
        lines = [[scale.share(flats[trial.id], trial.id) for scale in scales] for trial in group]
        ends = [_accuracy(min(max((_best_value(t) - low) / ((high - low) or 1), 0), 1)) for t in group]
        points = [[*line, end] for line, end in zip(lines, ends, strict=True)]
        if group:
            width = (1 + place * 0.6) * (1 if len(ranked) <= _MANY else 0.7)
            style = {"name": name, "line": {"color": colour, "width": width}}
            traces.append(_joined(group, [range(len(points[0]))] * len(group), points) | style)
    return _parallel_layout(traces, scales, (low, high))


def timeline_figure(facts: Facts) -> Figure | None:
    """Which worker trained which trial when, on which node if there are several; None if no result says
    when it came."""
    spans = training_spans(facts.trials)
    if not spans:
        return None
    begun = min(span.start for span in spans)
    unit, seconds = _time_unit(max(span.end for span in spans) - begun)
    traces = []
    for status, (words, colour, _) in OUTCOMES.items():
        group = [span for span in spans if facts.history.trials[span.trial].status == status]
        if group:
            traces.append(_bars(group, begun, seconds) | {"name": words, "marker": {"color": colour}})
    nodes = nodes_of_lanes(spans)
    lanes = len(nodes)
    y = {"autorange": "reversed", "showgrid": False, "zeroline": False, **_worker_labels(nodes)}
    height = 130 + min(max(lanes, 2) * 26, 700)
    figure = _figure(traces, {"title": f"{unit} since the first training began"}, y, height)
    figure["layout"] |= {"barmode": "overlay", "bargap": 0.25}
    return figure


def rung_figure(facts: Facts, rung: int, final: int) -> Figure:
    """The value at a rung against the final value, of the trials that came to the end."""
    pairs = [(t, t.value_at(rung), t.value_at(final)) for t in _scored_recipes(facts)]
    both = [(trial, x, y) for trial, x, y in pairs if x is not None and y is not None]
    points = _points([t for t, _, _ in both], [_accuracy(x) for _, x, _ in both], [y for _, _, y in both])
    points |= {"marker": {"color": _BLUE, "size": 8, "opacity": 0.8}, "showlegend": False}
    x = _accuracy_axis() | {"title": f"accuracy at epoch {rung}"}
    return _figure([points], x, _accuracy_axis() | {"title": f"at epoch {final}"}, 280)


def importance_figure(report: ImportanceReport) -> Figure:
    """Each key's share of importance: among the good recipes, and over all of them; none below 0.5 %."""
    good = {one.key: one.share for one in report.good}
    overall = {one.key: one.share for one in report.overall}
    largest = {key: max(good.get(key, 0.0), overall.get(key, 0.0)) for key in (*overall, *good)}
    keys = sorted(largest, key=lambda key: (good.get(key, 0.0), largest[key]))
    keys = [key for key in keys if largest[key] >= _LEAST_SHARE][-_MOST_BARS:]
    traces = [
        {
            "type": "bar",
            "orientation": "h",
            "name": name,
            "y": [plain(key) for key in keys],
            "x": [round(shares.get(key, 0.0), 4) for key in keys],
            "marker": {"color": colour},
            "hovertemplate": "%{y}: %{x:.1%}<extra>" + name + "</extra>",
        }
        for name, shares, colour in (
            ("over all recipes", overall, _FAINT),
            ("among the good recipes", good, _BLUE),
        )
        if shares
    ]
    x = {"title": "share of importance", "tickformat": ".0%", "rangemode": "tozero"}
    figure = _figure(traces, x, {"automargin": True, "showgrid": False}, 120 + 34 * max(len(keys), 2))
    figure["layout"] |= {"barmode": "group", "bargap": 0.3, "bargroupgap": 0.05}
    figure["layout"]["legend"] |= {"traceorder": "reversed"}
    return figure


def scored_trials(facts: Facts) -> list[Trial]:
    """The trials with a result that says something, repeats among them."""
    return [trial for trial in facts.trials if trial.results and not trial.seen_validation]


def _worker_labels(nodes: Sequence[str]) -> dict[str, Any]:
    """A label for each lane, given the node of each; of many lanes only where a node begins."""
    counts: Counter[str] = Counter()
    labels: dict[int, str] = {}
    for lane, node in enumerate(nodes):
        counts[node] += 1
        worker = f"worker {counts[node]}"
        if len(set(nodes)) == 1:
            labels[lane] = worker
        elif counts[node] == 1 or len(nodes) <= _MOST_LABELS:
            labels[lane] = f"{plain(_host_name(node))}, {worker}" if node else worker
    if len(labels) > _MOST_LABELS:
        return {}
    return {"tickvals": list(labels), "ticktext": list(labels.values())}


def _host_name(node: str) -> str:
    """Without its domain; of a long one the end, which is where those of a cluster differ."""
    name = node if node.replace(".", "").isdigit() else node.partition(".")[0]
    return name if len(name) <= _NODE_LETTERS else f"…{name[1 - _NODE_LETTERS :]}"


def _bars(spans: Sequence[Span], begun: float, seconds: float) -> Trace:
    return {
        "type": "bar",
        "orientation": "h",
        "y": [span.lane for span in spans],
        "base": [_short((span.start - begun) / seconds) for span in spans],
        "x": [_short((span.end - span.start) / seconds) for span in spans],
        "customdata": [span.trial for span in spans],
        "hovertemplate": "%{text}<extra></extra>",
        "textposition": "none",
    }


def _parameter_figure(facts: Facts, parameter: Parameter, flats: Mapping[int, Mapping[str, Value]]) -> Figure:
    """A trace for each rung that was reached; recipes that failed stand at the edge, on no scale."""
    scale = ValueScale(parameter)
    shown = [trial for trial in facts.history.recipes if scale.shows(flats[trial.id])]
    good = [trial for trial in shown if _scored(trial)]
    traces = []
    for place, rung in enumerate(facts.rungs):
        group = [trial for trial in good if _rung_reached(facts.rungs, trial) == rung]
        mark = {"color": _step_colour(place, len(facts.rungs)), "size": 7, "opacity": 0.9}
        if group:
            points = _points(group, scale.places(group, flats), [_best_value(trial) for trial in group])
            traces.append(points | {"marker": mark, "name": f"reached epoch {rung}"})
    failed = [trial for trial in shown if trial.status == "failed"]
    if failed:
        mark = {"color": _RED, "symbol": "x", "size": 6}
        points = _points(failed, scale.places(failed, flats), [0.03] * len(failed))
        traces.append(points | {"marker": mark, "name": "failed", "yaxis": "y2"})
    figure = _figure(traces, scale.axis(scale.places(shown, flats)), _score_axis(), 220, legend=False)
    figure["layout"]["yaxis2"] = {"overlaying": "y", "range": [0, 1], "visible": False, "fixedrange": True}
    values = [_best_value(trial) for trial in _scored_recipes(facts)]
    if scale.wordy:
        return _with_views(_turned(figure), values, _best_quarter(values), near_first=True, axis="xaxis")
    return _with_views(figure, values, _best_quarter(values), near_first=True)


def _score_axis() -> dict[str, Any]:
    return {"zeroline": False, "nticks": 5}


def _turned(figure: Figure) -> Figure:
    """The figure with its axes exchanged, so that long names stand at the side."""
    for trace in figure["data"]:
        trace["x"], trace["y"] = trace["y"], trace["x"]
        if trace.pop("yaxis", None):
            trace["xaxis"] = "x2"
    layout = figure["layout"]
    layout["xaxis"], layout["yaxis"] = layout["yaxis"], layout["xaxis"] | {"autorange": "reversed"}
    layout["xaxis2"] = layout.pop("yaxis2") | {"overlaying": "x"}
    return figure


def _parallel_layout(traces: list[Trace], scales: Sequence[ValueScale], ends: tuple[float, float]) -> Figure:
    """Axes side by side, each with its own words at its values."""
    names = [_broken(scale.parameter.name) for scale in scales]
    ticks = {"tickvals": list(range(len(names) + 1)), "ticktext": [*names, "accuracy"], "tickangle": 0}
    x = {"side": "top", "showgrid": False, "zeroline": False, "range": [-0.35, len(names) + 0.95], **ticks}
    y = {"visible": False, "range": [-0.08, 1.08]}
    figure = _figure(traces, x, y, 440)
    labels = [scale.ticks() for scale in scales]
    labels.append([(0.0, f"{ends[0]:.4f}"), (1.0, f"{ends[1]:.4f}")])
    figure["layout"]["shapes"] = [
        {"type": "line", "x0": place, "x1": place, "y0": 0, "y1": 1, "line": {"color": _GREY, "width": 1}}
        for place in range(len(labels))
    ]
    figure["layout"]["annotations"] = [
        {"x": place, "y": share, "text": plain(words), "showarrow": False, "xanchor": "left", "xshift": 4}
        | {"font": {"size": 11}}
        for place, texts in enumerate(labels)
        for share, words in texts
    ]
    figure["layout"]["legend"] |= {"y": 0, "yanchor": "top"}  # the names of the axes are above
    figure["layout"]["meta"] = {"least_width": 105 * len(labels)}
    return figure


def _best_curve(points: Sequence[tuple[float, float]], title: str) -> Figure:
    after_a_tenth = points[len(points) // 10][1] if points else 0.0
    first, last = points[:1], points[-1:]
    points = [*first, *(point for before, point in pairwise(points) if point[1] > before[1]), *last]
    trace = {
        "type": "scatter",
        "mode": "lines",
        "line": {"color": _BLUE, "width": 2.5, "shape": "hv"},
        "x": [_short(x) for x, _ in points],
        "y": [_accuracy(value) for _, value in points],
        "hovertemplate": "best so far %{y:.4f}<extra></extra>",
        "showlegend": False,
    }
    figure = _figure([trace], {"title": title, "rangemode": "tozero"}, _accuracy_axis(), 300)
    values = [value for _, value in points]
    return _with_views(figure, values, ("After a tenth", after_a_tenth), near_first=True)


def _figure(
    traces: list[Trace], x: Mapping[str, Any], y: Mapping[str, Any], height: int, legend: bool = True
) -> Figure:
    titles = [axis | {"title": {"text": axis.get("title", "")}} for axis in (dict(x), dict(y))]
    layout: dict[str, Any] = {
        "xaxis": {"automargin": True, **titles[0]},
        "yaxis": {"automargin": True, **titles[1]},
        "height": height,
        "margin": {"l": 12, "r": 12, "t": 12, "b": 12},
        "showlegend": legend,
        "hovermode": "closest",
    }
    layout["legend"] = {"orientation": "h", "x": 0, "xanchor": "left", "y": 1.02, "yanchor": "bottom"}
    return {"data": traces, "layout": layout}


def _accuracy_axis() -> dict[str, Any]:
    return {"title": "validation accuracy", "zeroline": False}


def _points(trials: Sequence[Trial], x: Sequence[float], y: Sequence[float]) -> Trace:
    return {
        "type": "scatter",
        "mode": "markers",
        "x": list(x),
        "y": [_accuracy(value) for value in y],
        "customdata": [trial.id for trial in trials],
        "hovertemplate": "%{text}<extra></extra>",
    }


def _curves(trials: Sequence[Trial], name: str, line: Mapping[str, Any]) -> Trace:
    """The learning curves of some trials as one trace: a trace each would be slow to draw."""
    epochs = [[result.epoch for result in trial.results] for trial in trials]
    values = [[_accuracy(result.value) for result in trial.results] for trial in trials]
    return _joined(trials, epochs, values) | {
        "name": name,
        "line": dict(line),
        "opacity": 0.75 if len(trials) > 1 else 1,
        "hovertemplate": "epoch %{x}: %{y:.4f}<br>%{text}<extra></extra>",
    }


def _joined(
    trials: Sequence[Trial], xs: Sequence[Sequence[float]], ys: Sequence[Sequence[float | None]]
) -> Trace:
    """Lines in one trace, None between them."""
    return {
        "type": "scatter",
        "mode": "lines",
        "x": [value for line in xs for value in (*line, None)],
        "y": [value for line in ys for value in (*line, None)],
        "customdata": [trial.id for trial, line in zip(trials, xs, strict=True) for _ in (*line, None)],
        "hovertemplate": "%{text}<extra></extra>",
    }


def _coloured_by(values: Sequence[float]) -> dict[str, Any]:
    """Points coloured by accuracy; the scale begins at the lower quarter, so that the good differ."""
    low = sorted(values)[len(values) // 4] if values else 0.0
    scale = [[place / (len(_STEPS) - 1), colour] for place, colour in enumerate(_STEPS)]
    bar = {"thickness": 12, "outlinewidth": 0, "title": {"text": "accuracy", "side": "right"}, "nticks": 5}
    shown = {"showscale": bool(values), "colorbar": bar, "cmin": _accuracy(low)}
    shown["cmax"] = _accuracy(max(values, default=1.0))
    return {"color": [_accuracy(value) for value in values], "colorscale": scale, "size": 10, **shown}


def _with_views(
    figure: Figure, values: Sequence[float], near: tuple[str, float], near_first: bool, axis: str = "yaxis"
) -> Figure:
    """Two ranges of accuracy that the page offers: of all `values`, and a nearer one if it shows much less.

    Args:
        figure: gets the views.
        values: every accuracy that is drawn.
        near: name and lowest accuracy of the nearer range.
        near_first: whether the page begins with it.
        axis: of the accuracies.
    """
    if not values or min(values) == max(values):
        return figure
    top, lows = max(values), {"All": min(values)}
    if _LEAST_VIEW <= top - near[1] < _NARROW * (top - min(values)):
        lows[near[0]] = near[1]
    views = [
        {"name": name, "range": [_accuracy(low - 0.06 * (top - low)), _accuracy(top + 0.06 * (top - low))]}
        for name, low in lows.items()
    ]
    figure["layout"]["meta"] = {"views": views[::-1] if near_first else views, "axis": axis}
    return figure


def _best_quarter(values: Sequence[float]) -> tuple[str, float]:
    """The nearer range of figures that show trials."""
    return "Best quarter", sorted(values)[3 * len(values) // 4] if values else 0.0


def _rung_lines(rungs: Sequence[int]) -> dict[str, Any]:
    """A dotted line with a word at each epoch at which trials were compared."""
    line = {"color": _GREY, "width": 1, "dash": "dot"}
    return {
        "shapes": [
            {"type": "line", "x0": rung, "x1": rung, "yref": "paper", "y0": 0, "y1": 1, "line": line}
            for rung in rungs[:-1]
        ],
        "annotations": [
            {"x": rung, "y": 0, "yref": "paper", "text": f"rung {rung}", "showarrow": False}
            | {"xanchor": "left", "yanchor": "bottom", "xshift": 3, "font": {"size": 11}}
            for rung in rungs[:-1]
        ],
    }


def _trial_text(trial: Trial) -> str:
    words = OUTCOMES[trial.status][0]
    head = f"{trial_name(trial)}, {words}"
    if trial.best is not None and not trial.seen_validation:
        head += f", best {trial.best.value:.4f} at epoch {trial.best.epoch}"
    recipe = recipe_words(
        trial.baseline, dict(trial.params), trial.default, trial.repeat_of, trial.warm_start
    )
    reason = [f"reason: {trial.reason}"] if trial.reason else []
    lines = [line for text in (head, recipe, *reason) for line in textwrap.wrap(text, _LINE_LETTERS)]
    return "<br>".join(plain(line) for line in lines)


def _scored(trial: Trial) -> bool:
    return trial.best is not None and not trial.seen_validation and trial.status != "failed"


def _scored_recipes(facts: Facts) -> list[Trial]:
    return [trial for trial in facts.history.recipes if _scored(trial)]


def _best_value(trial: Trial) -> float:
    assert trial.best is not None
    return trial.best.value


def _flat_recipes(facts: Facts) -> dict[int, Mapping[str, Value]]:
    return {trial: recipe.to_flat() for trial, recipe in facts.recipes.items()}


def _rung_reached(rungs: Sequence[int], trial: Trial) -> int:
    """The highest rung that the trial reached; the lowest if it reached none."""
    return max((rung for rung in rungs if rung <= trial.epoch), default=rungs[0])


def _step_colour(place: int, count: int) -> str:
    """The darkest colour for the last of `count`."""
    return _STEPS[max(len(_STEPS) - 1 - (count - 1 - place), 0)]


def _time_unit(seconds: float) -> tuple[str, float]:
    """The unit that suits a length of time, and its seconds."""
    if seconds < 300:
        return "seconds", 1.0
    return ("minutes", 60.0) if seconds < 3 * 3600 else ("hours", 3600.0)


def _accuracy(value: float) -> float:
    return round(value, 4)


def _short(value: float) -> float:
    return float(f"{value:.5g}")


def _broken(key: str) -> str:
    """A key on two lines: group, then name."""
    return plain(key).replace(".", ".<br>").replace("_and_", "_and<br>_")
