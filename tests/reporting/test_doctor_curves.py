"""What the training curves and the number of trials say, in searches whose truth is known."""

from collections.abc import Sequence
from pathlib import Path

from tests.reporting.made_up_search import advice, noise, searched
from tunekit.history import Event, History
from tunekit.reporting.doctor import examine_space
from tunekit.reporting.facts import Facts, read_facts
from tunekit.tuning.samplers import suggest_random


def curve(folder: Path, train: Sequence[float], loss: Sequence[float], value: Sequence[float]) -> Facts:
    """Six trials of a search with the same curves."""
    facts = searched(folder, noise, trials=0, epochs=len(value))
    history = History(facts.paths.history)
    for trial in range(6):
        history.append(Event("suggest", trial, params=suggest_random(facts.space, trial)))
        for epoch, (a, b, c) in enumerate(zip(train, loss, value, strict=True), start=1):
            metrics = {"train_loss": a, "val_loss": b}
            history.append(Event("result", trial, epoch=epoch, value=c, metrics=metrics))
        history.append(Event("complete", trial))
    history.close()
    return read_facts(facts.paths)


FALLING = [1 / epoch for epoch in range(1, 17)]


def test_trainings_that_overfit_are_told(tmp_path: Path) -> None:
    rising = [1.0, 0.8, 0.6, *(0.6 + 0.05 * epoch for epoch in range(13))]
    facts = curve(tmp_path, FALLING, rising, [0.5] * 3 + [0.6] * 13)

    assert "Of the 6 trials that trained to the end, 6 overfitted" in advice(facts)[0].text


def test_trainings_that_still_improve_want_more_epochs(tmp_path: Path) -> None:
    facts = curve(tmp_path, FALLING, FALLING, [0.04 * epoch for epoch in range(1, 17)])

    assert [finding.kind for finding in advice(facts)] == ["curves"]
    assert "more epochs" in advice(facts)[0].text


def test_trainings_that_were_done_early_want_fewer_epochs(tmp_path: Path) -> None:
    facts = curve(tmp_path, FALLING, FALLING, [0.2, 0.5] + [0.9] * 14)

    assert "Fewer epochs would do" in advice(facts)[0].text


def test_a_training_that_breaks_late_is_named(tmp_path: Path) -> None:
    facts = curve(tmp_path, FALLING, FALLING, [0.1 + 0.05 * epoch for epoch in range(12)] + [0.1] * 4)

    assert any("broke late" in finding.text for finding in examine_space(facts))


def test_whether_there_were_enough_trials_is_measured_against_the_noise(tmp_path: Path) -> None:
    flat = searched(tmp_path, lambda params: 0.8 + (noise(params) - 0.8) / 1000, seed=1)
    steep = searched(tmp_path, lambda params: 0.9 if noise(params) > 0.815 else 0.5, seed=2)

    assert any("hardly help" in finding.text for finding in examine_space(flat))
    assert any("will probably help" in finding.text for finding in examine_space(steep))
