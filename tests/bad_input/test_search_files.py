"""Every file of a search, damaged: each command that needs it says which file and why."""

from __future__ import annotations

import dataclasses
import json
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from tests.bad_input.foreign import Payload
from tests.bad_input.refusal import Refusal
from tests.search_on_disk import lay_down_search
from tunekit import cli
from tunekit.data.pack import Pack
from tunekit.data.split import Split, make_split
from tunekit.errors import TunekitError
from tunekit.paths import SearchPaths
from tunekit.training.checkpoint import load_checkpoint, save_checkpoint
from tunekit.tuning.settings import SearchSettings

Damage = Callable[[SearchPaths], object]

LISTINGS = ("searches", "trials", "best", "choices", "compare", "report")
ALL = (*LISTINGS, "simulate", "resume", "retrain-best")
ASKED = tuple(command for command in ALL if command != "trials")  # which reads the history alone


@pytest.fixture
def mine(tmp_path: Path, digits: Pack) -> SearchPaths:
    """A search of digits with two trials that ended, which `resume` and `retrain-best` would go on with."""
    paths = lay_down_search(tmp_path / "results", "mine")
    data_dir = str(digits.folder.parent.parent)
    settings = SearchSettings.load(paths)
    dataclasses.replace(settings, data_dir=data_dir, data_digest=digits.digest).save(paths)
    make_split(digits.train()[1], fraction=0.2, seed=0, limit=None).save(paths.split)
    return paths


def arguments(command: str) -> list[str]:
    return {"searches": ["searches"], "compare": ["compare", "mine", "mine"]}.get(command, [command, "mine"])


def put(name: str, content: str | bytes) -> Damage:
    def write(paths: SearchPaths) -> None:
        file = paths.folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content.encode() if isinstance(content, str) else content)

    return write


def settings(**changes: object) -> Damage:
    def change(paths: SearchPaths) -> None:
        saved = {**json.loads(paths.settings.read_text()), **changes}
        kept = {name: value for name, value in saved.items() if value != "absent"}
        paths.settings.write_text(json.dumps(kept))

    return change


def line(text: str, place: int = 3) -> Damage:
    """A line in the middle of the history."""

    def insert(paths: SearchPaths) -> None:
        lines = paths.history.read_text().splitlines()
        paths.history.write_text("\n".join([*lines[:place], text, *lines[place:]]) + "\n")

    return insert


def folder(name: str) -> Damage:
    def make(paths: SearchPaths) -> None:
        (paths.folder / name).unlink(missing_ok=True)
        (paths.folder / name).mkdir()

    return make


def result(**changes: object) -> Damage:
    good = {
        "format": 1,
        "search": "mine",
        "key": "0" * 16,
        "dataset": "digits",
        "winner": "trial 01",
        "request": {},
        "recipe": {},
        "opening": {},
        "model": {},
        "standings": [],
        "verdicts": [],
        "test": [],
        "earlier_openings": [],
        "test_images": 359,
        "registration": None,
    }
    return put("retrain/opening-1/result.json", json.dumps({**good, **changes}))


NOT_SETTINGS = "search.json: not the settings of a search ("
RESULT = '{"kind": "result", "trial": 0, "epoch": 2, "value": 0.5}'
NO_EVENT = "history.jsonl: line 4 is not an event of a history ("
NO_RESULT = "opening-1/result.json: not the result of a retraining ("
NO_OPENINGS = "test_openings.jsonl: not a record of openings ("
OPENING = {"number": 1, "search": "mine", "time": 1.0, "user": "u", "host": "h", "recipes": [], "data": "d"}

DAMAGED: dict[str, tuple[Damage, str, tuple[str, ...]]] = {
    "search.json is no JSON": (put("search.json", "{"), NOT_SETTINGS, ASKED),
    "search.json is empty": (put("search.json", ""), NOT_SETTINGS, ASKED),
    "search.json is binary": (put("search.json", bytes(range(256))), NOT_SETTINGS, ASKED),
    "search.json is a list": (put("search.json", "[]"), NOT_SETTINGS, ASKED),
    "search.json has an unknown field": (settings(colour="red"), "'colour'", ASKED),
    "search.json lacks a field": (settings(samples="absent"), "'samples'", ASKED),
    "space.toml is gone": (lambda paths: paths.space.unlink(), "space.toml: cannot be read", ASKED),
    "space.toml is no TOML": (put("space.toml", "[space"), "space.toml: is not TOML", ASKED),
    "space.toml is a folder": (folder("space.toml"), "space.toml: cannot be read (Is a directory)", ASKED),
    "space.toml breaks a rule": (
        put("space.toml", '[space]\n"optim.lrr" = { low = 1, high = 2 }'),
        "space.toml: unknown recipe key 'optim.lrr' (did you mean 'optim.lr'?)",
        ASKED,
    ),
    "history.jsonl is binary": (put("history.jsonl", bytes(range(256))), "line 1 is not an event", ALL),
    "a line is no JSON": (line('{"kind": "resu'), NO_EVENT, ALL),
    "a line is empty": (line(""), NO_EVENT, ALL),
    "a line is a number": (line("3"), NO_EVENT, ALL),
    "a line has an unknown kind": (line('{"kind": "think", "trial": 0}'), "unknown kind 'think'", ALL),
    "a line has an unknown field": (line('{"kind": "stop", "trial": 0, "mood": 1}'), NO_EVENT, ALL),
    "a line has no trial": (line('{"kind": "stop"}'), NO_EVENT, ALL),
    **{
        f"the history has {text[:60]}": (line(text), f"{NO_EVENT}{why}", ("trials", "report", "resume"))
        for text, why in (
            ('{"kind": "result", "trial": 9, "epoch": 1, "value": 0.5}', "trial 9 has not begun"),
            ('{"kind": "suggest", "trial": 0, "params": {}}', "trial 0 has begun before"),
            ('{"kind": "suggest", "trial": 7}', "trial 7 has begun before, or has no params"),
            (f'{{"kind": "suggest", "trial": {10**30}, "params": {{}}}}', f"trial cannot be {10**30}"),
            ('{"kind": "suggest", "trial": -1, "params": {}}', "trial cannot be -1"),
            (f'{{"kind": "result", "trial": 0, "epoch": {2**31}, "value": 0.5}}', f"epoch cannot be {2**31}"),
            ('{"kind": "suggest", "trial": 7, "params": {}, "repeat_of": 9}', "there is no trial 9"),
            ('{"kind": "suggest", "trial": 7, "params": []}', "params cannot be []"),
            ('{"kind": "suggest", "trial": "7", "params": {}}', "trial cannot be '7'"),
            (
                '{"kind": "result", "trial": 0, "epoch": 1, "value": 0.5}',
                "epoch 1 of trial 0 is out of order",
            ),
            ('{"kind": "result", "trial": 0, "epoch": 1.5, "value": 0.5}', "epoch cannot be 1.5"),
            ('{"kind": "result", "trial": 0, "epoch": 2, "value": NaN}', "epoch 2 of trial 0 has no finite"),
            ('{"kind": "result", "trial": 0, "epoch": 2, "value": "x"}', "value cannot be 'x'"),
            ('{"kind": "stop", "trial": 0, "epoch": 1, "time": "noon"}', "time cannot be 'noon'"),
            (f'{RESULT[:-1]}, "metrics": [1]}}', "metrics cannot be [1]"),
            (f'{RESULT[:-1]}, "metrics": {{"val_loss": "x"}}}}', "must be real number"),
            (f'{RESULT[:-1]}, "metrics": {{"val_loss": 1{"0" * 400}}}}}', "int too large"),
            ('{"kind": "fail", "trial": 0}', "fail of trial 0 has no epoch"),
            ("[" * 100_000, ""),
        )
    },
    **{
        f"search.json has {name} {value!r}": (settings(**{name: value}), why, ("searches", "best", "resume"))
        for name, value, why in (
            ("samples", "x", "samples cannot be 'x'"),
            ("fixed", [1], "fixed cannot be [1]"),
            ("baselines", 3, "baselines cannot be 3"),
            ("baselines", [{"colour": 1}], "'colour'"),
            ("created", "x", "created cannot be 'x'"),
            ("data_dir", 3, "data_dir cannot be 3"),
            ("tracking_uri", None, "tracking_uri cannot be None"),
            ("seed", -1, "--seed must be at least 0, but got -1"),
            ("seed", 10**30, "--seed must be below 2**32"),
            ("cpus_per_trial", float("nan"), "NaN is no number"),
            ("epochs", float("inf"), "Infinity is no number"),
            ("on_oom", "pray", "--on-oom must be 'fail' or 'retry', but got 'pray'"),
        )
    },
    "test_openings.jsonl is no JSON": (
        put("test_openings.jsonl", "{\n"),
        NO_OPENINGS,
        ("searches", "report"),
    ),
    "test_openings.jsonl is binary": (
        put("test_openings.jsonl", b"\xff\xfe\n"),
        NO_OPENINGS,
        ("searches", "report"),
    ),
    "test_openings.jsonl has a list": (
        put("test_openings.jsonl", "[]\n"),
        NO_OPENINGS,
        ("searches", "report"),
    ),
    "an opening lacks its recipes": (
        put("test_openings.jsonl", json.dumps({**OPENING, "recipes": 3})),
        NO_OPENINGS,
        ("searches", "report"),
    ),
    "an opening has a number of words": (
        put("test_openings.jsonl", json.dumps({**OPENING, "number": "one"})),
        NO_OPENINGS,
        ("searches", "report"),
    ),
    "an opening has an unknown field": (
        put("test_openings.jsonl", json.dumps({**OPENING, "mood": "good"})),
        NO_OPENINGS,
        ("searches", "report"),
    ),
    "test_openings.jsonl is lists in lists": (
        put("test_openings.jsonl", "[" * 100_000),
        NO_OPENINGS,
        ("searches", "report"),
    ),
    "result.json is no JSON": (
        put("retrain/opening-1/result.json", "{"),
        NO_RESULT,
        ("report", "compare", "retrain-best"),
    ),
    "result.json is binary": (
        put("retrain/opening-1/result.json", b"\xff\0"),
        NO_RESULT,
        ("report", "compare", "retrain-best"),
    ),
    "result.json is a list": (put("retrain/opening-1/result.json", "[]"), NO_RESULT, ("report", "compare")),
    "result.json is of another version": (
        result(format=99),
        f"{NO_RESULT}of another version)",
        ("report", "compare", "retrain-best"),
    ),
    "result.json has no standings": (
        result(standings=None),
        f"{NO_RESULT}standings is not as it was written)",
        ("report", "compare", "retrain-best"),
    ),
    "result.json has a test of words": (result(test="0.9"), NO_RESULT, ("report", "compare")),
    "result.json has no winner": (result(winner=3), NO_RESULT, ("report", "compare", "retrain-best")),
    "result.json is lists in lists": (
        put("retrain/opening-1/result.json", "[" * 100_000),
        NO_RESULT,
        ("report", "compare"),
    ),
    "trainings.json is no JSON": (
        put("retrain/trainings.json", "["),
        "trainings.json: not the trainings of a search (",
        ("retrain-best",),
    ),
    "trainings.json has other fields": (
        put("retrain/trainings.json", '[{"seed": 1}]'),
        "trainings.json: not the trainings of a search (",
        ("retrain-best",),
    ),
    "split.npz is gone": (
        lambda paths: paths.split.unlink(),
        "split.npz is not a readable split",
        ("retrain-best",),
    ),
    "split.npz is cut off": (
        lambda paths: paths.split.write_bytes(paths.split.read_bytes()[:99]),
        "split.npz is not a readable split",
        ("retrain-best",),
    ),
    "split.npz is no archive": (
        put("split.npz", "words"),
        "split.npz is not a readable split",
        ("retrain-best",),
    ),
    "report.html is a folder": (folder("report.html"), "report.html", ("report",)),
    "the data set is another": (
        settings(data_digest="0" * 16),
        "the images of digits changed",
        ("resume", "retrain-best"),
    ),
    "the data set is gone": (
        settings(dataset="/nowhere/photos"),
        "no data set called '/nowhere/photos'",
        ("resume", "retrain-best"),
    ),
    "the earlier search is gone": (
        settings(start_from=["before"]),
        "before/search.json: not the settings",
        ("resume",),
    ),
    "the earlier search is elsewhere": (
        settings(start_from=["../../other"]),
        "a search name must be letters",
        ("resume",),
    ),
    "the server is of another kind": (
        settings(tracking_uri="ftp://x"),
        "a tracking URI is",
        ("retrain-best",),
    ),
}

CASES = [(name, command) for name, (_, _, commands) in DAMAGED.items() for command in commands]


@pytest.mark.parametrize(("name", "command"), CASES)
def test_a_damaged_file_is_named(name: str, command: str, refused: Refusal, mine: SearchPaths) -> None:
    damage, words, _ = DAMAGED[name]
    damage(mine)
    refused(arguments(command), words)


@pytest.mark.parametrize("command", [command for command in ALL if command != "searches"])
def test_a_folder_in_place_of_search_json_is_no_search(
    command: str, refused: Refusal, mine: SearchPaths
) -> None:
    folder("search.json")(mine)
    refused(arguments(command), "no search called 'mine' in results")


@pytest.mark.parametrize("command", ["searches", "best", "report"])
@pytest.mark.parametrize("name", ["tracked.json", "study.journal", "search.log", "retrain/notes.txt"])
def test_what_nobody_needs_may_be_damaged(
    name: str, command: str, refused: Refusal, mine: SearchPaths
) -> None:
    put(name, bytes(range(256)))(mine)
    outcome = CliRunner().invoke(cli.main, arguments(command))
    assert outcome.exit_code == 0, outcome.output


@pytest.mark.parametrize("command", LISTINGS)
def test_a_line_that_a_crash_tore_off_is_passed_over(
    command: str, refused: Refusal, mine: SearchPaths
) -> None:
    whole = mine.history.read_text()
    mine.history.write_text(whole + '{"kind": "resu')
    outcome = CliRunner().invoke(cli.main, arguments(command))
    assert outcome.exit_code == 0, outcome.output
    assert mine.history.read_text() == whole + '{"kind": "resu'  # who only looks leaves it as it is


@pytest.mark.parametrize("command", ["searches", "report"])
def test_a_lock_that_is_a_folder_is_no_lock(command: str, refused: Refusal, mine: SearchPaths) -> None:
    mine.lock.mkdir()
    assert CliRunner().invoke(cli.main, arguments(command)).exit_code == 0


def test_a_reason_with_escape_codes_does_not_reach_the_terminal(refused: Refusal, mine: SearchPaths) -> None:
    line('{"kind": "fail", "trial": 0, "epoch": 1, "reason": "\\u001b[2J\\u202egone"}')(mine)
    outcome = CliRunner().invoke(cli.main, ["trials", "mine"], color=True)
    assert r"\x1b[2J\u202egone" in outcome.output
    assert "\x1b[2J" not in outcome.output


# ---- files that commands reach only through trainings


def arrays(**changes: object) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        good = {"train": [0, 1], "validation": [2], "seed": 0, "fraction": 0.2, "limit": -1}
        with open(path, "wb") as file:
            np.savez(file, allow_pickle=True, **{k: np.asarray(v) for k, v in {**good, **changes}.items()})

    return write


@pytest.mark.parametrize(
    "damage",
    [
        arrays(train=[0.5, 1.5]),
        arrays(train=[[0, 1]]),
        arrays(train=[-1, 1]),
        arrays(train=np.array([], np.int64)),
        arrays(validation=["a"]),
        arrays(seed="x"),
        arrays(limit=[1, 2]),
        lambda path: path.write_bytes(b"PK\x03\x04" + bytes(99)),
    ],
)
def test_a_split_of_other_things_than_positions(damage: Callable[[Path], None], tmp_path: Path) -> None:
    damage(tmp_path / "split.npz")
    with pytest.raises(TunekitError, match=r"split\.npz is not a readable split: "):
        Split.load(tmp_path / "split.npz")


def test_a_pickle_in_a_split_does_not_run(tmp_path: Path) -> None:
    arrays(train=np.array([Payload(tmp_path / "ran")], dtype=object))(tmp_path / "split.npz")
    with pytest.raises(TunekitError, match="is not a readable split"):
        Split.load(tmp_path / "split.npz")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "content",
    [b"", b"words", b"PK\x03\x04" + bytes(99), pickle.dumps({"format": 1}), pickle.dumps([1, 2, 3])],
    ids=["empty", "text", "half an archive", "an old pickle", "a pickled list"],
)
def test_a_checkpoint_that_cannot_be_read(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "last.pt").write_bytes(content)
    with pytest.raises(TunekitError, match=r"last\.pt: is not a checkpoint of this version"):
        load_checkpoint(tmp_path / "last.pt")


@pytest.mark.parametrize("state", [{"format": 99}, {}, [1], 3, {"format": torch.zeros(3)}], ids=str)
def test_a_checkpoint_of_another_version(state: object, tmp_path: Path) -> None:
    torch.save(state, tmp_path / "last.pt")
    with pytest.raises(TunekitError, match=r"last\.pt: is not a checkpoint of this version"):
        load_checkpoint(tmp_path / "last.pt")


def test_a_checkpoint_that_is_cut_off(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "last.pt", {"weights": torch.zeros(1000)})
    (tmp_path / "last.pt").write_bytes((tmp_path / "last.pt").read_bytes()[:-200])
    with pytest.raises(TunekitError, match=r"last\.pt: is not a checkpoint of this version"):
        load_checkpoint(tmp_path / "last.pt")


def test_a_pickle_in_a_checkpoint_does_not_run(tmp_path: Path) -> None:
    torch.save({"format": 3, "x": Payload(tmp_path / "ran")}, tmp_path / "last.pt")
    with pytest.raises(TunekitError, match=r"last\.pt: is not a checkpoint of this version"):
        load_checkpoint(tmp_path / "last.pt")
    assert not (tmp_path / "ran").exists()
