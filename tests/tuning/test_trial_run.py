"""A trial on a worker, stepped in this process: no Ray."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.small_disk import fill
from tunekit.data.pack import Pack
from tunekit.data.split import Split
from tunekit.models.pretrained import fetch_weights
from tunekit.paths import TrialPaths
from tunekit.recipe import Recipe
from tunekit.training.checkpoint import load_best, load_checkpoint
from tunekit.tuning.assignment import Assignment
from tunekit.tuning.trial_run import TrialRun

TIMES = ("epoch_seconds", "images_per_second")


@pytest.fixture
def assignment(digits: Pack, digits_split: Split, tmp_path: Path) -> Assignment:
    digits_split.save(tmp_path / "split.npz")
    recipe = Recipe.from_flat({"model.name": "resnet8", "batch_size": 32, "optim.lr": 0.05})
    return Assignment(
        trial_id=0,
        recipe=recipe.to_flat(),
        seed=3,
        epochs=4,
        reported=0,
        pack=str(digits.folder),
        split=str(tmp_path / "split.npz"),
        folder=str(tmp_path / "trial"),
    )


def steps(run: TrialRun, count: int) -> list[dict[str, Any]]:
    results = [run.step() for _ in range(count)]
    return [{name: value for name, value in result.items() if name not in TIMES} for result in results]


def test_a_trial_goes_on_from_its_checkpoint(assignment: Assignment, tmp_path: Path) -> None:
    straight = steps(TrialRun(replace(assignment, folder=str(tmp_path / "straight"))), 4)
    first = steps(TrialRun(assignment), 2)
    rest = steps(TrialRun(replace(assignment, reported=2)), 2)
    assert first + rest == straight


@pytest.mark.parametrize("damage", [b"", b"not a checkpoint", "half"])
def test_a_damaged_checkpoint_costs_epochs_but_changes_none(
    damage: bytes | str, assignment: Assignment, tmp_path: Path
) -> None:
    straight = steps(TrialRun(replace(assignment, folder=str(tmp_path / "straight"))), 3)
    steps(TrialRun(assignment), 2)
    last = TrialPaths(Path(assignment.folder)).last
    whole = last.read_bytes()
    last.write_bytes(damage if isinstance(damage, bytes) else whole[: len(whole) // 2])
    assert steps(TrialRun(replace(assignment, reported=2)), 3) == straight


def test_a_worker_that_was_cut_off_spoils_nothing_when_it_comes_back(
    assignment: Assignment, tmp_path: Path
) -> None:
    straight = steps(TrialRun(replace(assignment, folder=str(tmp_path / "straight"))), 4)
    cut_off = TrialRun(assignment)
    assert steps(cut_off, 2) == straight[:2]
    second = TrialRun(replace(assignment, attempt=2, reported=2))
    assert steps(second, 1) == straight[2:3]
    trial = TrialPaths(Path(assignment.folder))
    written = {file: file.read_bytes() for file in trial.attempt(2).checkpoints()}
    steps(cut_off, 2)
    for file in trial.attempt(1).checkpoints():
        file.write_bytes(b"whatever it writes")
    assert {file: file.read_bytes() for file in written} == written

    third = TrialRun(replace(assignment, attempt=3, reported=3))
    assert steps(third, 1) == straight[3:]
    best = load_best(trial.best).weights
    assert all(
        torch.equal(best[name], w)
        for name, w in load_best(TrialPaths(tmp_path / "straight").best).weights.items()
    )
    trial.settle()
    assert [file.name for file in trial.checkpoints()] == ["best.safetensors"]
    trial.attempt(1).folder.mkdir()
    trial.attempt(1).best.write_bytes(b"later still")
    assert load_best(trial.best).weights.keys() == best.keys()


def test_an_attempt_leaves_the_states_before_it_only_until_it_has_its_own(assignment: Assignment) -> None:
    steps(TrialRun(assignment), 1)
    trial = TrialPaths(Path(assignment.folder))
    second = TrialRun(replace(assignment, attempt=2, reported=1))
    assert list(trial.attempts()) == [1]
    steps(second, 1)
    assert list(trial.attempts()) == [2]
    assert trial.last == trial.attempt(2).last
    assert trial.best == trial.attempt(2).best


def test_a_trial_of_a_tunekit_without_attempts_goes_on(assignment: Assignment, tmp_path: Path) -> None:
    straight = steps(TrialRun(replace(assignment, folder=str(tmp_path / "straight"))), 3)
    steps(TrialRun(assignment), 2)
    trial = TrialPaths(Path(assignment.folder))
    for file in trial.attempt(1).checkpoints():
        file.rename(trial.folder / file.name)
    trial.attempt(1).folder.rmdir()
    assert steps(TrialRun(replace(assignment, attempt=2, reported=2)), 1) == straight[2:]
    assert trial.best == trial.attempt(2).best


def test_a_full_disk_is_said_and_leaves_the_checkpoint_before(assignment: Assignment, disk: Path) -> None:
    there = replace(assignment, folder=str(disk / "trial"))
    first = steps(TrialRun(there), 1)
    paths = TrialPaths(disk / "trial")
    before = {file.name: file.read_bytes() for file in paths.checkpoints()}
    fill(disk, leave=100_000)  # less than a checkpoint
    result = TrialRun(replace(there, reported=1)).step()
    assert list(result) == ["problem"]
    assert re.fullmatch(r".*/trial/.* cannot be written: No space left on device", result["problem"])
    assert {file.name: file.read_bytes() for file in paths.checkpoints()} == before
    assert not list(paths.attempt(1).folder.glob(".*"))
    (disk / "ballast").unlink()
    assert steps(TrialRun(replace(there, reported=1)), 1)[0]["epoch"] == first[0]["epoch"] + 1


def test_results_that_never_arrived_are_given_again_without_training(
    assignment: Assignment,
) -> None:
    first = steps(TrialRun(assignment), 3)
    # The driver died after epoch 1 reached it, with epochs 2 and 3 trained and saved.
    again = TrialRun(replace(assignment, reported=1))
    assert steps(again, 2) == first[1:]
    assert again.step()["epoch"] == 4


def test_best_weights_are_those_of_the_best_epoch(assignment: Assignment) -> None:
    results = steps(TrialRun(assignment), 4)
    best = load_best(TrialPaths(Path(assignment.folder)).best)
    top = max(results, key=lambda result: (result["val_accuracy"], -result["epoch"]))
    assert (best.epoch, best.val_accuracy) == (top["epoch"], top["val_accuracy"])
    assert best.recipe == dict(assignment.recipe)


def test_a_recipe_that_diverges_is_a_result_before_its_epoch_ends(assignment: Assignment) -> None:
    # Each step multiplies the weights by 1 - 10 * 0.5, whatever the images and the processor.
    keys = {"optim.lr": 10.0, "optim.momentum": 0.95, "optim.weight_decay": 0.5, "batch_size": 8}
    recipe = Recipe.from_flat({**assignment.recipe, **keys})
    result = TrialRun(replace(assignment, recipe=recipe.to_flat())).step()
    assert result["epoch"] == 1
    step = re.fullmatch(r"training loss is nan at step (\d+), epoch 1", result["failure"])
    assert step is not None
    assert int(step[1]) <= 20  # of 36
    assert not TrialPaths(Path(assignment.folder)).last.exists()


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        ({"model.name": "lenet5"}, "lenet5 needs images of at least 12 px"),
        ({"model.name": "vgg11", "model.bn_placement": "pre_act"}, "model.bn_placement of vgg11 must be"),
        ({"model.name": "resnet8", "freeze.policy": "first_k_stages", "freeze.stages": 9}, "freeze.stages"),
    ],
)
def test_a_network_that_cannot_be_built_is_a_result(
    assignment: Assignment, keys: dict[str, Any], reason: str
) -> None:
    run = TrialRun(replace(assignment, recipe=Recipe.from_flat(keys).to_flat()))
    result = run.step()
    assert reason in result["failure"]
    assert result["epoch"] == 1


def test_what_is_kept_is_the_average_of_the_weights(assignment: Assignment) -> None:
    TrialRun(replace(assignment, recipe={**assignment.recipe, "ema.decay": 0.9})).step()
    paths = TrialPaths(Path(assignment.folder))
    kept, state = load_best(paths.best).weights, load_checkpoint(paths.last)
    assert state is not None
    assert set(kept) == set(state["model"])
    assert all(torch.equal(value, state["average"][f"module.{name}"]) for name, value in kept.items())
    assert not torch.equal(kept["head.1.weight"], state["model"]["head.1.weight"])


def test_a_trial_begins_with_the_weights_that_it_is_given(assignment: Assignment, tmp_path: Path) -> None:
    steps(TrialRun(replace(assignment, folder=str(tmp_path / "earlier"))), 4)
    recipe = Recipe.from_flat(
        {
            **assignment.recipe,
            "init": f"file:{TrialPaths(tmp_path / 'earlier').best}",
            "freeze.policy": "head_only",
        }
    )
    fetch_weights(recipe, None, tmp_path / "first.safetensors")
    given = replace(assignment, recipe=recipe.to_flat(), weights=str(tmp_path / "first.safetensors"))
    steps(TrialRun(given), 1)
    earlier = load_best(TrialPaths(tmp_path / "earlier").best).weights
    later = load_best(TrialPaths(Path(assignment.folder)).best).weights
    same = {name for name in later if torch.equal(later[name], earlier[name])}
    assert same == {name for name in later if name.startswith("body.")}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {
            "optim.name": "adamw",
            "optim.clip_norm": 1.0,
            "ema.decay": 0.9,
            "augment.policy": "flip+shift_crop+rotation",
            "schedule.name": "one_cycle",
            "loss.label_smoothing": 0.1,
        },
    ],
)
def test_a_trial_does_not_import_what_it_does_not_need(
    changes: dict[str, Any], assignment: Assignment
) -> None:
    import json
    import subprocess
    import sys
    from dataclasses import asdict

    script = (
        "import json, sys\n"
        "from tunekit.tuning.assignment import Assignment\n"
        "from tunekit.tuning.trial_run import TrialRun\n"
        "TrialRun(Assignment(**json.loads(sys.argv[1]))).step()\n"
        "heavy = {'torchvision', 'timm', 'sklearn', 'mlflow', 'optuna', 'torch._dynamo'}\n"
        "print(sorted(heavy & {*sys.modules}))\n"
    )
    assignment = replace(assignment, recipe={**assignment.recipe, **changes})
    command = [sys.executable, "-c", script, json.dumps(asdict(assignment))]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
