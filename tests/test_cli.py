"""The command line as a user meets it: help, listings, and one clear line for each mistake."""

import json
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from tunekit import cli
from tunekit.tuning.policy import SAMPLERS, SCHEDULERS

README = Path(__file__).parent.parent / "README.md"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data_dir: Path) -> Callable[..., Result]:
    """Run `tunekit ...` in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TUNEKIT_DATA_DIR", str(data_dir))

    def invoke(*arguments: str) -> Result:
        return CliRunner().invoke(cli.main, arguments)

    return invoke


def commands(group: click.Group = cli.main, words: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    found = []
    for name, command in group.commands.items():
        found.append((*words, name))
        if isinstance(command, click.Group):
            found += commands(command, (*words, name))
    return found


def command_of(words: tuple[str, ...]) -> click.Command:
    command: click.Command = cli.main
    for word in words:
        assert isinstance(command, click.Group)
        command = command.commands[word]
    return command


def test_help_loads_no_heavy_library() -> None:
    script = (
        "import sys; from tunekit.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {*'torch ray mlflow optuna numpy rich timm sklearn'.split()} & {*sys.modules}\n"
        "print('heavy:', sorted(heavy))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("heavy: []")


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_every_command_has_help_with_an_example_and_a_line_in_readme(
    words: tuple[str, ...], run: Callable[..., Result]
) -> None:
    result = run(*words, "--help")
    assert result.exit_code == 0
    assert f"tunekit {' '.join(words)}" in result.output
    assert f"tunekit {' '.join(words)}" in README.read_text()


def test_options_offer_what_the_policy_knows() -> None:
    options = {option.name: option for option in cli.searching.search.params}
    assert options["sampler"].type.choices == SAMPLERS  # type: ignore[attr-defined]
    assert options["scheduler"].type.choices == SCHEDULERS  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "words",
    [("datasets",), ("spaces",), ("spaces", "show", "resnet"), ("recipe",), ("searches",)],
    ids=" ".join,
)
def test_listings_come_as_tables_and_as_json(words: tuple[str, ...], run: Callable[..., Result]) -> None:
    assert run(*words).exit_code == 0
    result = run(*words, "--json")
    assert result.exit_code == 0
    json.loads(result.output)


def test_a_good_space_file_checks_out(run: Callable[..., Result], tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text('[space]\n"optim.lr" = { low = 1e-4, high = 1.0, log = true }\n')
    result = run("spaces", "check", "mine.toml")
    assert result.exit_code == 0
    assert "1 keys vary" in result.output


SEARCH = ("search", "digits", "--space", "resnet")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("baseline", "A-mnist-vgg16-frozen", "--dataset", "digits"), "no weights of vgg16 from torchvision"),
        (("search", "digits", "--space", "transfer"), "no weights of resnet18 from timm"),
    ],
    ids=["torchvision", "timm"],
)
@pytest.mark.usefixtures("no_network")
def test_weights_that_cannot_be_downloaded_are_named_before_any_trial(
    arguments: tuple[str, ...],
    message: str,
    run: Callable[..., Result],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("TORCH_HOME", "HF_HOME", "HF_HUB_CACHE"):
        monkeypatch.setenv(name, str(tmp_path / "no-weights-here"))
    result = run(*arguments)
    assert result.exit_code == 1
    assert message in result.output
    assert "init = 'file:PATH'" in result.output
    assert not (tmp_path / "results").exists()


def test_a_name_that_is_taken_is_refused(run: Callable[..., Result], tmp_path: Path) -> None:
    (tmp_path / "results" / "mine").mkdir(parents=True)
    (tmp_path / "results" / "mine" / "search.json").write_text("{}")
    result = run(*SEARCH, "--name", "mine")
    assert result.exit_code == 1
    assert "'tunekit resume mine' goes on with it" in result.output


def test_a_port_that_is_taken_is_named_with_one_that_is_free(
    run: Callable[..., Result], tmp_path: Path
) -> None:
    import sqlite3

    (tmp_path / "results").mkdir()
    sqlite3.connect(tmp_path / "results" / "mlflow.db").close()
    (tmp_path / "results" / "mlflow.db").write_bytes(b"")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        result = run("ui", "--port", str(port))
    assert result.exit_code == 1
    assert str(port) in result.output


def test_choices_of_a_search_on_disk(run: Callable[..., Result], tmp_path: Path) -> None:
    from tests.search_on_disk import lay_down_search

    lay_down_search(tmp_path / "results", "mine")
    assert "no key has two values" in run("choices").output  # its space calls nothing scientific
    shown = run("choices", "mine", "--key", "optim.lr").output
    assert re.search(r"0\.5 +1 +0 +0\.7500 +0\.5000", shown)
    assert re.search(r"0\.1 +1 +0 +0\.2500 +0\.2500 +0\.2500 +too few trials to tell", shown)
    assert (
        "optim.lr: 0.5 did best (median 0.5000 at epoch 1, best 0.7500, 1 trial); 0.1 is 0.2500 behind"
        in shown
    )
    (as_json,) = json.loads(run("choices", "--key", "optim.lr", "--json").output)
    assert [choice["value"] for choice in as_json["choices"]] == [0.5, 0.1]
    assert "did you mean 'optim.lr'?" in run("choices", "--key", "optim.lrr").output


FOREIGN = {"--env-manager", "--generate-hashes", "--no-deps", "--universal"}  # of mlflow, uv and pip


def test_every_option_that_readme_names_exists() -> None:
    known = {
        name
        for words in commands()
        for option in command_of(words).params
        for name in (*option.opts, *option.secondary_opts)
    }
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", README.read_text()))
    assert named - known - {"--help"} == FOREIGN


@pytest.mark.parametrize(
    ("text", "size"),
    [("500MB", 5 * 10**8), ("20GB", 2 * 10**10), ("1.5TB", 15 * 10**11), ("2GiB", 2**31), ("3k", 3000)],
)
def test_sizes_are_read(text: str, size: int) -> None:
    assert cli.options.Size().convert(text, None, None) == size


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90s", 90), ("30m", 1800), ("1h30m", 5400), ("2h", 7200)]
)
def test_times_are_read(text: str, seconds: float) -> None:
    assert cli.options.Duration().convert(text, None, None) == seconds


def test_results_of_tables_are_whole_rows_in_a_pipe(run: Callable[..., Result]) -> None:
    rows = run("recipe").output.splitlines()
    assert any(re.match(r"optim\.lr +0\.1 +1e-07 to 10", row) for row in rows)


def test_search_rows_and_best_of_a_search_on_disk(run: Callable[..., Result], tmp_path: Path) -> None:
    from tests.search_on_disk import lay_down_search

    lay_down_search(tmp_path / "results", "mine")
    rows: list[dict[str, Any]] = json.loads(run("searches", "--json").output)
    assert [(row["search"], row["state"], row["ended"]) for row in rows] == [("mine", "interrupted", 2)]
    assert [(row["begun"], row["counts"]) for row in rows] == [
        (3, {"stopped": 1, "completed": 1, "running": 1})
    ]
    best: dict[str, Any] = json.loads(run("best", "--json").output)
    assert list(best) == [
        "search",
        "trial",
        "val_accuracy",
        "epoch",
        "trainings",
        "mean_val_accuracy",
        "baseline",
        "recipe",
        "checkpoint",
    ]
    assert (best["search"], best["trial"], best["val_accuracy"], best["epoch"]) == ("mine", 1, 0.75, 2)
    assert best["recipe"]["optim"]["lr"] == 0.5
    assert best["recipe"]["optim"]["name"] == "adam"  # fixed by --set
    ranked: list[dict[str, Any]] = json.loads(run("trials", "mine", "--json").output)
    assert [(row["trial"], row["outcome"]) for row in ranked] == [
        (1, "completed"),
        (0, "stopped at 1"),
        (2, "running"),
    ]
    for words in (("searches",), ("trials",), ("best",)):
        assert run(*words).exit_code == 0


def test_a_search_that_was_interrupted_before_its_first_trial_says_so(tmp_path: Path) -> None:
    from tests.search_on_disk import lay_down_search
    from tunekit.reporting.leaderboard import summary

    paths = lay_down_search(tmp_path, "mine")
    paths.history.unlink()
    assert summary(paths) == "0 trials."


def test_what_became_of_the_trials_is_said_with_the_commonest_reason(
    run: Callable[..., Result], tmp_path: Path
) -> None:
    from tests.search_on_disk import lay_down_search
    from tunekit.history import Event, History
    from tunekit.reporting.leaderboard import summary

    paths = lay_down_search(tmp_path / "results", "mine")
    history = History.read(paths.history)
    for trial, reason in (
        (2, "out of memory"),
        (3, "loss is nan in epoch 7"),
        (4, "loss is nan in epoch 1.5"),
    ):
        if trial > 2:
            history.append(Event("suggest", trial, params={"optim.lr": trial / 10}))
        history.append(Event("fail", trial, epoch=1, reason=reason))
    history.append(Event("suggest", 5, params={"optim.lr": 0.6}), Event("lose", 5, reason="the node died"))
    history.append(Event("suggest", 6, params={"optim.lr": 0.7}))
    history.append(Event("result", 6, epoch=1, value=0.1), Event("pause", 6, epoch=1))
    history.append(Event("suggest", 7, params={"optim.lr": 0.5}, repeat_of=1))
    history.append(Event("result", 7, epoch=1, value=0.25), Event("complete", 7))
    history.close()
    assert summary(paths) == (
        "7 trials and 1 repeat: 2 completed, 1 stopped early, 1 paused, 3 failed (most often: loss is nan in "
        "epoch 7), 1 lost to the machine (most often: the node died)."
    )
    (row,) = json.loads(run("searches", "--json").output)
    assert (row["state"], row["commonest_failure"]) == ("finished", "loss is nan in epoch 7")
    assert (row["ended"], row["repeats"], row["best_val_accuracy"]) == (6, 1, 0.5)
    ranked = json.loads(run("trials", "--json").output)
    assert [(row["trial"], row["outcome"]) for row in ranked[:2]] == [
        (1, "completed, mean of 2: 0.5000"),
        (7, "completed, mean of 2: 0.5000"),
    ]
    assert "(repeat of 01)" in run("trials").output
    assert "paused at 1" in run("trials").output
    assert "mean of 2 trainings: 0.5000" in run("best").output


def test_a_search_whose_space_ran_out_is_finished_and_says_so(
    run: Callable[..., Result], tmp_path: Path
) -> None:
    from tests.search_on_disk import lay_down_search
    from tunekit.history import Event, History
    from tunekit.reporting.leaderboard import summary

    paths = lay_down_search(tmp_path / "results", "mine")
    paths.space.write_text('[space]\n"optim.lr" = { choices = [0.1, 0.5, 0.2] }\n')
    assert summary(paths) == "3 trials: 1 completed, 1 stopped early, 1 unfinished."
    history = History.read(paths.history)
    history.append(Event("stop", 2, epoch=1))
    history.close()
    assert summary(paths) == (
        "3 trials: 1 completed, 2 stopped early. "
        "The space has no other recipe, so the search ended before 4 trials."
    )
    assert "finished" in run("searches").output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("mine", "--baseline", "B-*"), "give a search or --baseline, not both"),
        (("--train-limit", "100"), "--train-limit goes with --baseline"),
        (("--name", "x"), "--name goes with --baseline"),
    ],
)
def test_retrain_best_says_which_options_go_together(
    arguments: tuple[str, ...], words: str, run: Callable[..., Result]
) -> None:
    result = run("retrain-best", *arguments)
    assert result.exit_code == 2
    assert words in result.output


def test_the_program_ends_with_its_code_and_all_it_said(tmp_path: Path) -> None:
    """It leaves without taking its libraries apart, but not without what was registered for its end."""
    script = (
        "import atexit, sys; from tunekit.cli import run\n"
        "atexit.register(print, 'registered')\n"
        "sys.argv = ['tunekit', *sys.argv[1:]]\n"
        "run()\n"
    )

    def ran(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", script, *words]
        return subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)

    good, wrong, unknown = ran("spaces"), ran("best", "nothing"), ran("bset")
    assert (good.returncode, wrong.returncode, unknown.returncode) == (0, 1, 2)
    assert "resnet" in good.stdout
    assert all(done.stdout.endswith("registered\n") for done in (good, wrong, unknown))
    assert "no search called 'nothing'" in wrong.stderr


def test_who_reads_results_waits_for_no_torch() -> None:
    script = "import sys, tunekit.reporting.report, tunekit.reporting.choices; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
