"""The sections of a search's report: which figures and tables it has, and how to read each."""

from __future__ import annotations

import base64
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

from tunekit.history import Trial, TrialStatus
from tunekit.paths import SearchPaths
from tunekit.reporting.analysis import Analysis
from tunekit.reporting.charts import (
    OUTCOMES,
    best_by_epochs,
    best_by_time,
    importance_figure,
    learning_curves,
    pair_figure,
    parallel_figure,
    parameter_figures,
    rung_figure,
    scored_trials,
    timeline_figure,
)
from tunekit.reporting.early_stopping import EarlyStopping, RungCorrelation, early_stopping
from tunekit.reporting.effects import KeyEffects, factor_table
from tunekit.reporting.facts import Facts
from tunekit.reporting.importance import ImportanceReport
from tunekit.reporting.report_parts import (
    Cell,
    Drawing,
    Drawings,
    Folded,
    Part,
    Picture,
    Pictures,
    Section,
    Table,
    Words,
    accuracy,
    interval,
    number,
    table,
    word,
)
from tunekit.reporting.retraining_tables import failure_lines, model_lines, opening_line, registration_line
from tunekit.reporting.training_spans import busy_share, nodes_of_lanes, training_spans
from tunekit.retraining.findings import find_result
from tunekit.retraining.test_set import openings
from tunekit.tuning.progress import trial_mark

_PICTURES = {
    "confusion": "Which classes are taken for which",
    "reliability": "Whether the model is as sure as it is right",
    "curves": "The trainings with several seeds",
    "mistakes": "The most confident mistakes",
    "successes": "The most confident successes",
}
_LEAST_SHARE = 0.01  # of importance; less is not worth a row
_LARGEST_PICTURE = 1_500_000  # bytes; the page is to stay small enough to send


def all_sections(facts: Facts, analysis: Analysis) -> list[Section]:
    """Every section that has something to show."""
    sections = [
        _importance_section(analysis.importance),
        _effects_section(analysis.effects),
        _values_section(facts, _keys_by_importance(facts, analysis.importance)),
        _course_section(facts, early_stopping(facts)),
        _known_section(facts),
        _test_section(facts.paths),
        _space_section(facts, analysis),
        _failure_section(facts),
        _trials_section(facts),
        _settings_section(facts),
    ]
    return [section for section in sections if section.parts]


def _importance_section(report: ImportanceReport | None) -> Section:
    parts: list[Part] = []
    if report is not None:
        words = (
            "The longer a bar, the more the choice of that value decides whether a recipe is good. "
            f"Judged at epoch {report.rung} on {report.trials} trials by PED-ANOVA; the bars of one colour "
            "add up to 100 %."
        )
        if not report.reliable:
            words += " Here no bar stands out from chance: read them as a guess."
        parts = [Words(tuple(report.words))] if report.words else []
        parts.append(Drawings((Drawing("importance", importance_figure(report), words=words),)))
        if len(report.by_rung) > 1:
            parts.append(_importance_by_rung(report))
    return Section("importance", "What mattered", parts)


def _importance_by_rung(report: ImportanceReport) -> Table:
    """A column for each rung; rungs are never mixed."""
    shares = {rung: {one.key: one.share for one in ones} for rung, ones in report.by_rung.items()}
    keys = dict.fromkeys(one.key for ones in (report.good, *report.by_rung.values()) for one in ones)
    rows = [
        [Cell(key, key), *(number(shares[rung].get(key), ".0%") for rung in sorted(shares))]
        for key in keys
        if any(share.get(key, 0.0) >= _LEAST_SHARE for share in shares.values())
    ]
    words = (
        "Over all recipes. Each column ranks only the trials that reached that epoch, which are fewer and "
        "better each time; keys that are below 1 % everywhere are left out."
    )
    columns = ["key", *(f"epoch {rung}" for rung in sorted(shares))]
    return table(columns, rows, "Importance at each rung", words)


def _effects_section(effects: Sequence[KeyEffects]) -> Section:
    """A table for each key that the space calls scientific."""
    return Section("choices", "Scientific choices", [_effects_table(one) for one in effects], "Choices")


def _effects_table(effects: KeyEffects) -> Table:
    columns = (
        "value",
        "trials",
        "best",
        "mean of the top",
        "difference",
        "95 % interval",
        "verdict",
    )
    rows = [
        (
            Cell(str(one.value), str(one.value)),
            number(one.trials),
            accuracy(one.best),
            accuracy(one.top_mean),
            number(one.difference, "+.4f"),
            interval(one.low, one.high, "+.4f"),
            Cell(one.words, one.words),
        )
        for one in effects.values
    ]
    words = f"Compared at epoch {effects.rung}, by the mean of the best third of each value's trials."
    return table(columns, rows, effects.key, words)


def _values_section(facts: Facts, keys: Sequence[str]) -> Section:
    if not keys or not any(trial.best or trial.status == "failed" for trial in facts.history.recipes):
        return Section("values", "Values that did well")
    figures = parameter_figures(facts, keys)
    small = [Drawing(f"value-{place}", figures[key], key) for place, key in enumerate(keys)]
    reading = (
        "One point a recipe: the value of a key across, the best validation accuracy up. The darker (on a "
        "dark page: the lighter) the point, the further the trial was trained. A crowd at an edge says that "
        "the range may be too narrow; crosses at the bottom are recipes that failed."
    )
    parts: list[Part] = [Words((reading,)), Drawings(tuple(small), "small")]
    wide = []
    if len(keys) > 1:
        first, second = _leading_pair(facts, keys)
        words = (
            "The two most important keys that apply to most recipes: where do good recipes lie together? "
            "Colour is the accuracy that was reached; crosses failed."
        )
        wide.append(Drawing("pair", pair_figure(facts, first, second), f"{first} and {second}", words))
    if scored_trials(facts):
        words = (
            "One line a recipe, from key to key to its accuracy (right). Where the lines of the best tenth "
            "run together, the choice is settled; where they fan out, it does not matter much. A click on a "
            "name above the figure hides or shows its lines; a line is broken where a key does not apply."
        )
        wide.append(Drawing("parallel", parallel_figure(facts, keys), "Whole recipes", words))
    return Section("values", "Values that did well", [*parts, *(Drawings((one,)) for one in wide)], "Values")


def _course_section(facts: Facts, stopping: EarlyStopping | None) -> Section:
    parts: list[Part] = []
    if scored_trials(facts):
        words = (
            "One curve a trial, a mark where it ended. Dotted lines are the rungs, the epochs at which "
            "trials were compared and the weak ones ended."
        )
        parts.append(Drawings((Drawing("curves", learning_curves(facts), "Learning curves", words),)))
        words = "How soon the search found its best. A long flat end says that more trials would gain little."
        cost = Drawing("best-epochs", best_by_epochs(facts), "Best so far, by epochs trained", words)
        words = "The same against the clock: with several workers epochs pass at the same time."
        parts.append(
            Drawings((cost, Drawing("best-time", best_by_time(facts), "Best so far, by time", words)), "half")
        )
    if stopping is not None and parts:
        parts += _stopping_parts(facts, stopping)
    timeline = timeline_figure(facts)
    if timeline is not None:
        spans = training_spans(facts.trials)
        share, nodes = busy_share(spans), len(set(nodes_of_lanes(spans)))
        words = f"Rows are workers, those of each of the {nodes} nodes together. " if nodes > 1 else ""
        words += (
            f"Bars are training, gaps are waiting: the workers trained {share:.0%} of the time between the "
            "first start and the last end."
        )
        parts.append(Drawings((Drawing("timeline", timeline, "Who trained what when", words),)))
    return Section("course", "Course of the search", parts, "Course")


def _stopping_parts(facts: Facts, stopping: EarlyStopping) -> list[Part]:
    """The rungs against the end."""
    drawings = [
        Drawing(
            f"rung-{one.rung}",
            rung_figure(facts, one.rung, one.final),
            f"Epoch {one.rung} against epoch {one.final}",
            _correlation_words(one),
        )
        for one in stopping.correlations
        if one.trials > 1
    ]
    words = Words((stopping.words,))
    return [words, Drawings(tuple(drawings), "half")] if drawings else [words]


def _correlation_words(one: RungCorrelation) -> str:
    if one.correlation is None:
        return f"{one.trials} trials reached both: too few for a correlation."
    between = f" (95 %: {one.low:.2f} to {one.high:.2f})" if one.low is not None and one.high else ""
    return f"Rank correlation {one.correlation:.2f}{between} over the {one.trials} trials that reached both."


def _known_section(facts: Facts) -> Section:
    rows = [
        (
            Cell(row.baseline, row.baseline),
            word(row.varied),
            accuracy(row.reported),
            accuracy(row.reproduced),
            word(row.reproduced_from if row.reproduced is not None else None),
            accuracy(row.best_found),
        )
        for row in factor_table(facts)
    ]
    columns = ("recipe", "varied", "reported (test)", "reproduced", "reproduced from", "best found")
    words = (
        "What each known recipe was reported to reach on its test set, what it reached here, and the best "
        "validation accuracy that the search found."
    )
    return Section("known", "Known recipes", [table(columns, rows, words=words)] if rows else [])


def _test_section(paths: SearchPaths) -> Section:
    opened, result = openings(paths), find_result(paths)
    parts: list[Part] = []
    if opened:
        columns = ("opening", "when", "by", "recipes")
        rows = [
            (number(one.number), _moment(one.time), word(f"{one.user} on {one.host}"),
             word(", ".join(one.recipes)))
            for one in opened
        ]  # fmt: skip
        words = "The search itself never reads test images. Every opening is on record:"
        parts.append(table(columns, rows, words=words))
    if result is not None:
        parts = [Words(tuple(_result_sentences(result))), *parts, *_result_tables(result)]
        parts += _pictures(paths, result["opening"]["number"])
    elif opened:
        parts.append(
            Words(("No result of these openings is on disk: the retraining did not come to its end.",))
        )
    return Section("test", "Test set and final model", parts, "Test set")


def _result_sentences(result: Mapping[str, Any]) -> list[str]:
    lines = [opening_line(result), *result["verdicts"], *failure_lines(result), *model_lines(result)]
    if result["registration"] is not None:
        lines.append(f"{registration_line(result, None)}.")
    return lines


def _result_tables(result: Mapping[str, Any]) -> list[Part]:
    return [
        _standings(result["standings"]),
        _tested(result["test"]),
        _classes(result["model"]["class_scores"]),
    ]


def _standings(rows: Sequence[Mapping[str, Any]]) -> Table:
    cells = [
        (
            word(row["name"]),
            number(len(row["accuracies"])),
            accuracy(row["mean"]),
            _between(row["interval"]),
            accuracy(row["behind"]["mean"] if row["behind"] else None),
            _between(row["behind"]["interval"] if row["behind"] else None, "+.4f"),
        )
        for row in rows
    ]
    columns = (
        "recipe",
        "seeds",
        "validation accuracy",
        "95 % interval",
        "behind the winner",
        "95 % interval",
    )
    return table(columns, cells, "Trained again with several seeds")


def _tested(rows: Sequence[Mapping[str, Any]]) -> Table:
    cells = [
        (
            word(row["name"]),
            word(row["part"]),
            number(len(row["accuracies"])),
            accuracy(row["mean"]),
            _between(row["over_seeds"]),
            _between(row["over_both"]),
        )
        for row in rows
    ]
    columns = ("recipe", "trained on", "seeds", "test accuracy", "95 % over seeds", "over seeds and images")
    return table(columns, cells, "On the test images")


def _classes(rows: Sequence[Mapping[str, Any]]) -> Table:
    cells = [
        (
            word(row["name"]),
            *(accuracy(row[score]) for score in ("precision", "recall", "f1")),
            number(row["support"]),
        )
        for row in rows
    ]
    return table(("class", "precision", "recall", "F1", "images"), cells, "By class, on the test images")


def _pictures(paths: SearchPaths, opening: int) -> list[Part]:
    """The retraining's figures; of one that is too large for the page, its place."""
    folder = paths.retraining.opening(opening)
    shown, left = [], []
    for name, title in _PICTURES.items():
        file = folder / f"{name}.png"
        if file.is_file() and file.stat().st_size <= _LARGEST_PICTURE:
            coded = base64.b64encode(file.read_bytes()).decode("ascii")
            shown.append(Picture(title, f"data:image/png;base64,{coded}"))
        elif file.is_file():
            left.append(f"{title}: too large for this page, see {file.relative_to(paths.folder)}.")
    parts: list[Part] = [Pictures(tuple(shown))] if shown else []
    return [*parts, Words(tuple(left))] if left else parts


def _space_section(facts: Facts, analysis: Analysis) -> Section:
    parts: list[Part] = []
    if analysis.findings:
        rows = [(word(one.severity), word(one.key), word(one.text)) for one in analysis.findings]
        words = (
            "What the trials say about the space itself. Advice has evidence behind it, a note is to know."
        )
        parts.append(table(("", "key", "finding"), rows, words=words))
    if analysis.proposed is not None:
        file = facts.paths.proposed_space.name
        go_on = f"tunekit search {facts.settings.dataset} --space {file} --start-from {facts.paths.name}"
        parts.append(
            Words((f"The proposed space lies in the search's folder as {file}; go on with: {go_on}",))
        )
        parts.append(Folded("proposed-space", "The proposed space", analysis.proposed))
    return Section("space", "The search space", parts, "Space")


def _failure_section(facts: Facts) -> Section:
    reasons: dict[tuple[str, str], list[Trial]] = defaultdict(list)
    for trial in facts.trials:
        if trial.status in ("failed", "lost"):
            reasons[OUTCOMES[trial.status][0], trial.reason or "no reason given"].append(trial)
    ranked = sorted(reasons.items(), key=lambda item: -len(item[1]))
    rows = [
        (word(outcome), word(reason), number(len(trials)), word(_numbers(trials)))
        for (outcome, reason), trials in ranked
    ]
    words = (
        "A failed recipe cannot be trained and counts as the worst; a trial lost to the machine says nothing."
    )
    parts = [table(("outcome", "reason", "trials", "which"), rows, words=words)] if rows else []
    return Section("failures", "What failed", parts, "Failures")


def _numbers(trials: Sequence[Trial]) -> str:
    shown = ", ".join(f"{trial.id:02d}" for trial in trials[:12])
    return f"{shown} and {len(trials) - 12} more" if len(trials) > 12 else shown


def _trials_section(facts: Facts) -> Section:
    keys = list(dict.fromkeys(key for trial in facts.trials if not trial.baseline for key in trial.params))
    columns = ["trial", "outcome", "accuracy", "at epoch", "trained", "known as", *keys]
    rows = [
        (*_trial_cells(trial), *(word(None if trial.baseline else trial.params.get(key)) for key in keys))
        for trial in facts.history.ranked()
    ]
    words = "Best first. A click on a heading sorts. A dash stands where a key does not apply."
    return Section("trials", "All trials", [table(columns, rows, words=words)] if rows else [], "Trials")


def _trial_cells(trial: Trial) -> list[Cell]:
    best = trial.best if not trial.seen_validation else None
    mark = trial_mark(trial.default, trial.repeat_of, trial.warm_start).strip("()") or trial.baseline
    return [
        Cell(f"{trial.id:02d}", float(trial.id), True),
        word(OUTCOMES[trial.status][0]),
        accuracy(best.value if best else None),
        number(best.epoch if best else None),
        number(trial.epoch),
        word(mark),
    ]


def _settings_section(facts: Facts) -> Section:
    settings = facts.settings
    asked = {
        "images": f"{settings.train_images:,} to train, {settings.val_images:,} to validate",
        "sampler": settings.sampler,
        "scheduler": settings.scheduler,
        "rungs": ", ".join(map(str, facts.rungs)),
        "seed": settings.seed,
        "trainings of a finished recipe": settings.repeats,
        "started from": ", ".join(settings.start_from) or None,
        "prior": facts.space.prior or None,
        "fixed": ", ".join(f"{key}={value}" for key, value in settings.fixed.items()) or None,
        "data digest": settings.data_digest,
        "commit": " ".join(settings.git.values()) if settings.git else None,
        "versions": ", ".join(f"{name} {version}" for name, version in settings.versions.items()),
    }
    rows = [(Cell(name, name), Cell(str(value), str(value))) for name, value in asked.items() if value]
    parts: list[Part] = [table(("setting", "value"), rows)]
    if facts.paths.space.is_file():
        text = facts.paths.space.read_text(encoding="utf-8")
        parts.append(Folded("own-space", "The space that was searched", text))
    return Section("settings", "How it was run", parts, "Settings")


def _keys_by_importance(facts: Facts, report: ImportanceReport | None) -> list[str]:
    """Every key that varies, the most important first; those that were not ranked as the space has them."""
    ranked = [one.key for one in (*report.good, *report.overall)] if report is not None else []
    known = facts.space.parameters
    return list(dict.fromkeys(key for key in (*ranked, *known) if key in known))


def _leading_pair(facts: Facts, keys: Sequence[str]) -> tuple[str, str]:
    """The first two keys that apply together to at least two thirds of the recipes; else the first two."""
    flats = [recipe.to_flat() for recipe in facts.recipes.values()]
    having = {
        key: {place for place, flat in enumerate(flats) if facts.space.parameters[key].active(flat)}
        for key in keys
    }
    pairs = combinations(keys, 2)
    common = (pair for pair in pairs if 3 * len(having[pair[0]] & having[pair[1]]) >= 2 * len(flats))
    return next(common, (keys[0], keys[1]))


def _between(ends: Mapping[str, float] | None, form: str = ".4f") -> Cell:
    return interval(None, None) if ends is None else interval(ends["low"], ends["high"], form)


def _moment(seconds: float) -> Cell:
    return Cell(time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds)), seconds)


def outcome_counts(facts: Facts) -> list[tuple[str, str, int]]:
    """(words, status, trials) for each outcome that occurs."""
    counts = Counter(trial.status for trial in facts.trials)
    order: tuple[TrialStatus, ...] = ("completed", "stopped", "paused", "running", "failed", "lost")
    return [(OUTCOMES[status][0], status, counts[status]) for status in order if counts[status]]
