"""What a person sees while a search runs."""

import io
from dataclasses import dataclass

import pytest
from rich.console import Console

from tunekit.history import Event, History, Trial
from tunekit.tuning.progress import (
    LiveView,
    PlainView,
    QuietView,
    duration,
    make_view,
    params_text,
    recipe_words,
    tenths,
    trial_name,
)


@dataclass
class Trials:
    """What the view watches."""

    history: History
    trials: int
    epochs: int = 9
    rung: int = 3

    def next_comparison(self, trial: Trial) -> int:
        return self.rung

    def epochs_left(self) -> float:
        return 8.0

    def name(self, trial: Trial) -> str:
        return trial_name(trial)


def told(view: PlainView | LiveView) -> None:
    """Three trials: one completed, one stopped, one failed; a fourth runs."""
    history = History()
    history.subscribe(view.event)
    view.begin(Trials(history, trials=5))
    history.append(Event("suggest", 0, params={"optim.lr": 0.1, "model.name": "resnet8"}))
    history.append(Event("result", 0, epoch=1, value=0.75))
    history.append(Event("complete", 0))
    history.append(Event("suggest", 1, params={"optim.lr": 0.2, "model.name": "resnet8"}))
    history.append(Event("result", 1, epoch=3, value=0.5))
    history.append(Event("stop", 1, epoch=3))
    history.append(Event("suggest", 2, params={"optim.lr": 0.3, "model.name": "resnet8"}))
    history.append(Event("fail", 2, epoch=1, reason="training loss is nan in epoch 1"))
    history.append(Event("suggest", 3, params={"optim.lr": 0.4, "model.name": "resnet20"}))
    history.append(Event("result", 3, epoch=1, value=0.6))


def console(terminal: bool, width: int = 100) -> Console:
    return Console(file=io.StringIO(), force_terminal=terminal, width=width, color_system=None)


def output(of: Console) -> str:
    assert isinstance(of.file, io.StringIO)
    return of.file.getvalue()


def test_a_trial_that_waited_and_then_has_no_hope_is_one_line() -> None:
    to = console(terminal=False)
    view = PlainView(to)
    history = History()
    history.subscribe(view.event)
    view.begin(Trials(history, trials=5))
    history.append(Event("suggest", 0, params={}))
    history.append(Event("result", 0, epoch=3, value=0.5))
    history.append(Event("pause", 0, epoch=3))
    history.append(Event("stop", 0, epoch=3))
    (line,) = output(to).splitlines()
    assert "trial 00 paused at epoch 3 at 0.5000" in line


def test_a_pipe_gets_a_line_for_each_trial_that_ends() -> None:
    to = console(terminal=False)
    view = make_view(quiet=False, console=to)
    assert isinstance(view, PlainView)
    told(view)
    lines = output(to).splitlines()
    assert len(lines) == 3
    assert lines[0].endswith("1/5  trial 00 completed at 0.7500  best 0.7500 (trial 00, epoch 1)")
    assert "2/5  trial 01 stopped early at epoch 3 at 0.5000" in lines[1]
    assert "3/5  trial 02 failed: training loss is nan in epoch 1" in lines[2]


@pytest.mark.parametrize("width", [60, 100, 200])
def test_a_terminal_shows_counts_the_best_and_what_runs(width: int) -> None:
    to = console(terminal=True, width=width)
    view = make_view(quiet=False, console=to)
    assert isinstance(view, LiveView)
    try:
        told(view)
        to.print(view._render())
    finally:
        view.end()
    shown = output(to)
    assert "3/5 trials: 1 running, 1 completed, 1 stopped, 1 failed" in " ".join(shown.split())
    assert "best 0.7500 (trial 00, epoch 1)" in shown
    for heading in ("trial", "epoch", "next rung", "val accuracy"):
        assert heading in shown  # never squeezed, however long the recipes are
    row = next(line for line in shown.splitlines() if "resnet20" in line)
    assert row.split()[:4] == ["03", "1/9", "3", "0.6000"]


def test_quiet_is_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    view = make_view(quiet=True)
    assert isinstance(view, QuietView)
    view.say("nothing")
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 s"), (59.4, "59 s"), (60, "1 min 00 s"), (3599, "59 min 59 s"), (7500, "2 h 05 min")],
)
def test_times_are_said_for_people(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_recipes_are_said_with_the_telling_keys_first() -> None:
    params = {
        "schedule.name": "cosine",
        "optim.lr": 0.123456,
        "augment.policy": "flip",
        "model.name": "resnet8",
    }
    assert params_text(params) == "resnet8 lr=0.12 schedule=cosine augment=flip"


def test_packing_says_each_tenth_once() -> None:
    said: list[str] = []
    progress = tenths(said.append)
    for done in range(1, 251):
        progress(done, 250)
    assert len(said) == 10
    assert said[-1] == "Packing images: 250 of 250"


def test_a_baseline_goes_by_its_name() -> None:
    assert recipe_words("B-mnist-vgg16", {"model.name": "vgg16"}) == "B-mnist-vgg16"
    assert recipe_words(None, {"model.name": "vgg16"}) == "vgg16"


def test_the_default_recipe_and_repeats_are_marked() -> None:
    assert recipe_words(None, {"model.name": "vgg16"}, default=True) == "(default) vgg16"
    assert recipe_words(None, {"model.name": "vgg16"}, warm_start=True) == "(warm start) vgg16"
    assert recipe_words("B-mnist-vgg16", {}, repeat_of=3) == "(repeat of 03) B-mnist-vgg16"


@pytest.mark.parametrize("terminal", [False, True])
def test_paused_trials_and_repeats_are_shown(terminal: bool) -> None:
    to = console(terminal)
    view = make_view(quiet=False, console=to)
    assert isinstance(view, PlainView | LiveView)
    history = History()
    history.subscribe(view.event)
    view.begin(Trials(history, trials=3, rung=9))
    history.append(Event("suggest", 0, params={"optim.lr": 0.1}, default=True))
    history.append(Event("result", 0, epoch=9, value=0.75))
    history.append(Event("complete", 0))
    history.append(Event("suggest", 1, params={"optim.lr": 0.2}))
    history.append(Event("result", 1, epoch=3, value=0.5))
    history.append(Event("pause", 1, epoch=3))
    history.append(Event("suggest", 2, params={"optim.lr": 0.1}, repeat_of=0))
    history.append(Event("result", 2, epoch=9, value=0.25))
    if isinstance(view, LiveView):
        to.print(view._render())
    history.append(Event("complete", 2))
    view.end()
    history.append(Event("stop", 1, epoch=3))  # when the search has ended: no line of its own
    shown = " ".join(output(to).split())
    if terminal:
        assert "2/3 trials: 1 running, 1 paused, 1 completed, 0 stopped, 1 of them repeats" in shown
        assert "02 9/9 9 0.2500 (repeat of 00) lr=0.1" in shown
    else:
        assert "trial 00 (default) completed at 0.7500 best 0.7500 (trial 00, epoch 9)" in shown
        assert "2/3 trial 01 paused at epoch 3 at 0.5000" in shown
        assert "trial 02 (repeat of 00) completed at 0.2500 best 0.5000 (trial 00, mean of 2 tra" in shown
        assert "stopped" not in shown
