"""The report of a search: one HTML file that needs no network and no server."""

from __future__ import annotations

import base64
import gzip
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from tunekit.paths import SearchPaths, atomic_write
from tunekit.reporting.analysis import Analysis, analyse
from tunekit.reporting.charts import DARK_COLOURS, Figure, trial_texts
from tunekit.reporting.facts import Facts, read_facts
from tunekit.reporting.leaderboard import search_state
from tunekit.reporting.report_parts import Drawings, Section
from tunekit.reporting.report_sections import all_sections, outcome_counts
from tunekit.reporting.summary import summary_sentences
from tunekit.retraining.findings import find_result
from tunekit.retraining.test_set import openings
from tunekit.tracking.runs import Outcome
from tunekit.tracking.writer import Account
from tunekit.tuning.progress import duration, trial_name

if TYPE_CHECKING:
    from pathlib import Path

    from jinja2 import Template


_NAMED = ("tunekit", "torch")  # packages whose versions stand at the head; all of them stand at the end


@dataclass(frozen=True)
class KeyFigure:
    """One number at the head of the page."""

    name: str
    value: str
    note: str = ""


def write_report(paths: SearchPaths) -> Path:
    """Write the report of a search, whatever its state, to `paths.report`; returns that path.

    Raises:
        SearchError: if the search's files are damaged.
    """
    facts = read_facts(paths)
    _write(facts, analyse(facts), search_state(paths, facts.settings, facts.history))
    return paths.report


def tell(paths: SearchPaths, state: Outcome) -> Account:
    """Write the report of a search that ends in `state`, and say what MLflow shows of it.

    Raises:
        SearchError: if the search's files are damaged.
    """
    facts = read_facts(paths)
    analysis = analyse(facts)
    _write(facts, analysis, state)
    note = "\n".join(f"- {sentence}" for sentence in summary_sentences(facts, analysis))
    return Account(note, [paths.report, paths.proposed_space])


def _write(facts: Facts, analysis: Analysis, state: str) -> None:
    """The report, and beside it the space that the doctor proposes; none stays that it no longer does."""
    with atomic_write(facts.paths.report) as temporary:
        temporary.write_text(build_report(facts, analysis, state), encoding="utf-8")
    if analysis.proposed is None:
        facts.paths.proposed_space.unlink(missing_ok=True)
        return
    with atomic_write(facts.paths.proposed_space) as temporary:
        temporary.write_text(analysis.proposed, encoding="utf-8")


def build_report(facts: Facts, analysis: Analysis, state: str) -> str:
    """The report as HTML. Everything that came from people or files is escaped.

    Plotly's script is inside, compressed: the page inflates it with the browser's DecompressionStream.

    Args:
        facts: of the search.
        analysis: of them.
        state: `finished`, `running` ..., for people.
    """
    sections = all_sections(facts, analysis)
    settings = facts.settings
    return _template().render(
        name=facts.paths.name,
        dataset=settings.dataset,
        space=settings.space,
        state=state,
        begun=_date(settings.created),
        length=_length(facts),
        written=_date(time.time()),
        command=settings.command,
        versions=[item for item in settings.versions.items() if item[0] in _NAMED],
        figures_at_the_head=_key_figures(facts),
        outcomes=outcome_counts(facts),
        summary=summary_sentences(facts, analysis),
        sections=sections,
        data={"figures": _figures(sections), "trials": trial_texts(facts), "dark": dict(DARK_COLOURS)},
        plotly=_packed_plotly(),
    )


def _template() -> Template:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("tunekit.reporting", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "allow_nan": False}
    return environment.get_template("report.html.jinja")


def _packed_plotly() -> str:
    """Plotly's script, gzip and base64: a third of its size."""
    script = files("plotly") / "package_data" / "plotly.min.js"
    return base64.b64encode(gzip.compress(script.read_bytes(), 9, mtime=0)).decode("ascii")


def _figures(sections: Sequence[Section]) -> dict[str, Figure]:
    parts: list[Any] = [part for section in sections for part in section.parts]
    return {
        drawing.name: drawing.figure
        for part in parts
        if isinstance(part, Drawings)
        for drawing in part.drawings
    }


def _key_figures(facts: Facts) -> list[KeyFigure]:
    return [_best(facts), _gain(facts), _trials(facts), _epochs(facts), _test(facts)]


def _best(facts: Facts) -> KeyFigure:
    name, best = "best validation accuracy", facts.history.best()
    if best is None or best.best is None:
        return KeyFigure(name, "-", "no result yet")
    trainings = len(facts.history.trainings(best))
    where = f"epoch {best.best.epoch}" if trainings == 1 else f"mean of {trainings} trainings"
    return KeyFigure(name, f"{facts.history.recipe_value(best):.4f}", f"{trial_name(best)}, {where}")


def _gain(facts: Facts) -> KeyFigure:
    name, best, default = "gain over the default", facts.history.best(), facts.default_trial
    if best is None or default is None:
        return KeyFigure(name, "-", "the default recipe was not trained")
    if default.best is None:
        return KeyFigure(name, "-", "the default recipe has no result")
    if best is default:
        return KeyFigure(name, "0", "the default recipe is the best")
    value = facts.history.recipe_value(default)
    return KeyFigure(name, f"{facts.history.recipe_value(best) - value:+.4f}", f"the default has {value:.4f}")


def _trials(facts: Facts) -> KeyFigure:
    repeats = len(facts.trials) - len(facts.history.recipes)
    note = f"of {facts.settings.trials}" + (f", and {repeats} repeats" if repeats else "")
    return KeyFigure("trials", f"{len(facts.history.recipes)}", note)


def _epochs(facts: Facts) -> KeyFigure:
    trained = sum(len(trial.results) for trial in facts.trials)
    in_full = len(facts.trials) * facts.full_epochs
    share = f"{trained / in_full:.0%} of every trial in full" if in_full else ""
    return KeyFigure("epochs trained", f"{trained:,}", share)


def _length(facts: Facts) -> str:
    """From the first event to the last, with waiting and interruptions; empty without events."""
    times = [event.time for event in facts.history.events if event.time]
    return duration(max(times) - min(times)) if times else ""


def _test(facts: Facts) -> KeyFigure:
    name, result = "test accuracy", find_result(facts.paths)
    if result is not None:
        ends = result["model"]["interval"]
        return KeyFigure(
            name, f"{result['model']['accuracy']:.4f}", f"95 %: {ends['low']:.4f} to {ends['high']:.4f}"
        )
    opened = len(openings(facts.paths))
    return KeyFigure(name, "-", f"opened {opened} times, no result" if opened else "the test set is unopened")


def _date(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))
