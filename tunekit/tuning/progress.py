"""What a person sees while a search runs: a live view in a terminal, lines elsewhere, or nothing."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from tunekit.history import Event, History, Trial
from tunekit.recipe import Value

_ENDS = ("complete", "stop", "pause", "fail", "lose")
_MOST_RUNNING_ROWS = 16


class Watched(Protocol):
    """Trials that are being run, as a view sees them."""

    @property
    def history(self) -> History:
        """All that happened."""

    @property
    def trials(self) -> int:
        """Trials in all, those that have ended among them, repeats not."""

    @property
    def epochs(self) -> int:
        """Of the longest training."""

    def next_comparison(self, trial: Trial) -> int:
        """The next epoch after which the trial may end."""

    def epochs_left(self) -> float:
        """Epochs that are expected to be trained yet."""

    def name(self, trial: Trial) -> str:
        """What a person calls it."""


class View(Protocol):
    """Told of everything that happens in a search."""

    def say(self, line: str) -> None:
        """Show a line that stays."""

    def begin(self, watched: Watched) -> None:
        """Trials are about to run."""

    def event(self, event: Event) -> None:
        """One more event, already in the history. Must return at once."""

    def end(self) -> None:
        """Nothing more to show: what still happens puts the books in order."""


class QuietView:
    """Shows nothing."""

    def say(self, line: str) -> None: ...
    def begin(self, watched: Watched) -> None: ...
    def event(self, event: Event) -> None: ...
    def end(self) -> None: ...


class PlainView:
    """A line for each trial that ends or pauses: for logs and pipes."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._watched: Watched | None = None
        self._paused: set[int] = set()

    def say(self, line: str) -> None:
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)

    def begin(self, watched: Watched) -> None:
        self._watched = watched
        self._started = time.monotonic()

    def event(self, event: Event) -> None:
        if event.kind not in _ENDS or self._watched is None:
            return
        if event.kind == "pause":
            self._paused.add(event.trial)
        elif event.kind == "stop" and event.trial in self._paused:
            return  # it waited where it was shown, and nothing else was trained since
        elapsed = duration(time.monotonic() - self._started)
        history = self._watched.history
        ended = sum(not other.unfinished for other in history.recipes)
        line = f"{_end_words(self._watched, history.trials[event.trial])}  {_best_words(self._watched)}"
        self.say(f"[{elapsed}] {ended}/{self._watched.trials}  {line}")

    def end(self) -> None:
        self._watched = None


class LiveView:
    """A table that renews itself: best so far, running trials and their rungs, counts, time."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live: Live | None = None

    def say(self, line: str) -> None:
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)

    def begin(self, watched: Watched) -> None:
        self._watched = watched
        self._epochs_before = sum(trial.epoch for trial in watched.history.trials.values())
        self._started = time.monotonic()
        self._live = Live(
            console=self._console, get_renderable=self._render, refresh_per_second=4, transient=True
        )
        self._live.start()

    def event(self, event: Event) -> None:
        """Nothing: the view draws the history four times a second."""

    def end(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _render(self) -> RenderableType:
        # The tuning loop changes the history while this thread draws it: draw a copy.
        trials = list(self._watched.history.trials.values())
        ended = sum(not trial.unfinished for trial in trials if trial.repeat_of is None)
        bar = Table.grid()
        bar.add_row(ProgressBar(total=self._watched.trials, completed=ended, width=60))
        return Group(
            Text(self._head(trials, ended), style="bold"),
            bar,
            Text(_best_words(self._watched) or "no result yet"),
            self._running(trials),
        )

    def _head(self, trials: list[Trial], ended: int) -> str:
        elapsed = time.monotonic() - self._started
        counts = Counter(trial.status for trial in trials)
        words = [
            f"{counts[status]} {status}"
            for status in ("running", "paused", "completed", "stopped", "failed", "lost")
            if counts[status] or status in ("running", "completed", "stopped")
        ]
        repeats = sum(trial.repeat_of is not None for trial in trials)
        words += [f"{repeats} of them repeats"] if repeats else []
        epochs = sum(trial.epoch for trial in trials) - self._epochs_before
        pace = elapsed / epochs if epochs > 0 else None
        left = f", about {duration(pace * self._watched.epochs_left())} left" if pace is not None else ""
        return f"{ended}/{self._watched.trials} trials: {', '.join(words)}  ({duration(elapsed)}{left})"

    def _running(self, trials: list[Trial]) -> Table:
        table = Table(box=None, pad_edge=False, header_style="dim", expand=True)
        for name in ("trial", "epoch", "next rung", "val accuracy"):
            table.add_column(name, justify="right", no_wrap=True, min_width=len(name))
        table.add_column("recipe", no_wrap=True, overflow="ellipsis", ratio=1)
        running = [trial for trial in trials if trial.status == "running"]
        for trial in running[:_MOST_RUNNING_ROWS]:
            value = f"{trial.results[-1].value:.4f}" if trial.results and not trial.seen_validation else "-"
            table.add_row(
                self._watched.name(trial).removeprefix("trial "),
                f"{trial.epoch}/{self._watched.epochs}",
                str(self._watched.next_comparison(trial)),
                value,
                recipe_words(
                    trial.baseline, dict(trial.params), trial.default, trial.repeat_of, trial.warm_start
                ),
            )
        if len(running) > _MOST_RUNNING_ROWS:
            table.add_row("", "", "", "", f"and {len(running) - _MOST_RUNNING_ROWS} more")
        return table


def make_view(quiet: bool, console: Console | None = None) -> View:
    """The view that suits where the output goes; progress goes to standard error."""
    if quiet:
        return QuietView()
    console = console or Console(stderr=True)
    return LiveView(console) if console.is_terminal else PlainView(console)


def tenths(say: Callable[[str], None]) -> Callable[[int, int], None]:
    """Progress of packing images as lines, one for each tenth that is done."""

    def progress(done: int, total: int) -> None:
        if done * 10 // total > (done - 1) * 10 // total:
            say(f"Packing images: {done:,} of {total:,}")

    return progress


def trial_name(trial: Trial) -> str:
    """What a trial of a search is called."""
    return f"trial {trial.id:02d}"


def _end_words(watched: Watched, trial: Trial) -> str:
    """How a trial ended."""
    best = f" at {trial.best.value:.4f}" if trial.best is not None and not trial.seen_validation else ""
    how = {
        "completed": f"completed{best}",
        "stopped": f"stopped early at epoch {trial.rung}{best}",
        "paused": f"paused at epoch {trial.rung}{best}",
        "failed": f"failed: {trial.reason}",
        "lost": f"lost: {trial.reason}",
    }
    mark = trial_mark(trial.default, trial.repeat_of, trial.warm_start)
    name = f"{watched.name(trial)} {mark}".rstrip()
    return f"{name} {how.get(trial.status, trial.status)}"


def _best_words(watched: Watched) -> str:
    """The best so far; empty before the first result."""
    history = watched.history
    best = history.best()
    if best is None or best.best is None:
        return ""
    trainings = len(history.trainings(best))
    where = f"epoch {best.best.epoch}" if trainings == 1 else f"mean of {trainings} trainings"
    return f"best {history.recipe_value(best):.4f} ({watched.name(best)}, {where})"


def recipe_words(
    baseline: str | None,
    params: dict[str, Value],
    default: bool = False,
    repeat_of: int | None = None,
    warm_start: bool = False,
) -> str:
    """What a trial trains, on one line: the name of a baseline (which sets many keys), else its params."""
    return " ".join(
        filter(None, (trial_mark(default, repeat_of, warm_start), baseline or params_text(params)))
    )


def trial_mark(default: bool, repeat_of: int | None, warm_start: bool) -> str:
    """What is special about a trial: `(default)`, `(warm start)`, `(repeat of 03)`, or nothing."""
    if repeat_of is not None:
        return f"(repeat of {repeat_of:02d})"
    return "(default)" if default else "(warm start)" if warm_start else ""


def params_text(params: dict[str, Value] | object) -> str:
    """Params on one line, most telling first: names without their group, numbers short."""
    assert isinstance(params, dict)
    first = [key for key in ("model.name", "optim.name", "optim.lr") if key in params]
    words = [_short(key, params[key]) for key in [*first, *(key for key in params if key not in first)]]
    return " ".join(words)


def _short(key: str, value: Value) -> str:
    group, _, leaf = key.rpartition(".")
    if leaf in ("name", "policy"):  # `schedule=cosine` says more than `name=cosine`
        leaf = group
    if isinstance(value, float):
        return f"{leaf}={value:.2g}"
    return str(value) if key in ("model.name", "optim.name") else f"{leaf}={value}"


def duration(seconds: float) -> str:
    """Seconds for people: `42 s`, `3 min 20 s`, `2 h 05 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def size(count: int) -> str:
    """Bytes for people, in powers of 1000: `640 kB`, `1.2 GB`."""
    value, units = float(count), ["bytes", "kB", "MB", "GB", "TB"]
    while value >= 1000 and len(units) > 1:
        value, units = value / 1000, units[1:]
    return f"{value:.3g} {units[0]}"
