"""Space files that break a rule: each is named with the file, the key, the rule and what came."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.bad_input.refusal import Refusal
from tunekit import cli

LR = '[space]\n"optim.lr" = '
NAME = '"optim.name" = { choices = ["sgd", "adam"] }\n'
RECIPE = 'recipe = { "optim.lr" = 0.1 }\n'
MINE = '[[baseline]]\nname = "mine"\n'

BROKEN = {
    "no TOML": ("[space\n", "is not TOML: Expected ']'"),
    "NUL": ("[space]\n\0", "is not TOML"),
    "lists in lists": (f"{LR}{'[' * 5000}", "is not TOML: maximum recursion depth"),
    "tables in tables": (f"{LR}{'{a = ' * 3000}", "is not TOML"),
    "a number of 5,000 digits": (f"{LR}{{ low = {'9' * 5000}, high = 1 }}", "is not TOML: Exceeds the limit"),
    "a number of 400 digits": (f"{LR}{{ low = 1, high = {'9' * 400} }}", "a number of more than 300 digits"),
    "a key twice": (f"{LR}{{ low = 0.1, high = 1 }}\n" * 2, "is not TOML"),
    "unknown table": ("[spaces]\n", "unknown table 'spaces' (did you mean 'space'?)"),
    "no table": ("space = [1]\n", "space: must be a table, but got [1]"),
    "fixed no table": ("fixed = 'x'\n", "fixed: must be a table, but got 'x'"),
    "description no text": ("description = 3\n", "description: must be a string, but got 3"),
    "unknown key": ('[space]\n"optim.lrr" = { low = 1, high = 2 }', "did you mean 'optim.lr'?"),
    "key without quotes": ("[space]\noptim.lr = { low = 1, high = 2 }", "dotted keys need quotes"),
    "key with escape codes": ('[space]\n"\\u001b[31m" = { low = 0, high = 1 }', r"recipe key '\x1b[31m'"),
    "key with a line break": ('[space]\n"a\\nb" = 3', "a b: must be { low, high }"),
    "key turned round": ('[space]\n"\\u202elr" = 3', r"\u202elr: must be"),
    "key of 10,000 characters": (
        f'[space]\n"{"k" * 10_000}" = {{ low = 0, high = 1 }}',
        "unknown recipe key",
    ),
    "1,500 keys": (
        "[space]\n" + "".join(f'"optim.k{n}" = {{ low = 0, high = 1 }}\n' for n in range(1500)),
        "unknown recipe key 'optim.k0' (did you mean 'optim.lr'?)",
    ),
    "epochs": ('[space]\n"epochs" = { low = 1, high = 2 }', "use --epochs"),
    "plain value": (f"{LR}0.1", "optim.lr: must be { low, high } or { choices }, but got 0.1"),
    "nothing said": (f"{LR}{{ }}", "optim.lr: needs low (or choices)"),
    "unknown field": (f"{LR}{{ lo = 1, high = 2 }}", "unknown field 'lo' (did you mean 'low'?)"),
    "no high": (f"{LR}{{ low = 0.1 }}", "optim.lr: needs high"),
    "low a string": (f'{LR}{{ low = "1", high = 2 }}', "optim.lr: low must be a number, but got '1'"),
    "low a boolean": (f"{LR}{{ low = true, high = 2 }}", "low must be a number, but got True"),
    "low a date": (f"{LR}{{ low = 1979-05-27, high = 2 }}", "low must be a number, but got datetime.date"),
    "low above high": (f"{LR}{{ low = 1.0, high = 0.1 }}", "low must be below high, but got low = 1.0"),
    "low is high": (f"{LR}{{ low = 1, high = 1 }}", "low must be below high"),
    "low NaN": (f"{LR}{{ low = nan, high = 1.0 }}", "low must be below high, but got low = nan"),
    "high infinite": (f"{LR}{{ low = 0.1, high = inf }}", "low and high must be finite, but got 0.1, inf"),
    "low infinite": (f"{LR}{{ low = -inf, high = 1.0 }}", "low and high must be finite"),
    "outside the rule": (f"{LR}{{ low = 0.1, high = 100.0 }}", "optim.lr must be 1e-07 to 10, but got 100.0"),
    "log from 0": (
        '[space]\n"optim.momentum" = { low = 0.0, high = 0.9, log = true }',
        "low must be above 0",
    ),
    "log no boolean": (f"{LR}{{ low = 0.1, high = 1.0, log = 1 }}", "log must be true or false, but got 1"),
    "log with step": (f"{LR}{{ low = 0.1, high = 1.0, log = true, step = 0.1 }}", "cannot have a step"),
    "step 0": (f"{LR}{{ low = 0.1, high = 1.0, step = 0 }}", "step must be a number above 0, but got 0"),
    "step NaN": (f"{LR}{{ low = 0.1, high = 1.0, step = nan }}", "step must be a number above 0"),
    "step infinite": (f"{LR}{{ low = 0.1, high = 1.0, step = inf }}", "step must be a number above 0"),
    "step a part": (
        '[space]\n"batch_size" = { low = 1, high = 9, step = 0.5 }',
        "step of a whole-number range",
    ),
    "part of a whole": (
        '[space]\n"batch_size" = { low = 1.5, high = 9 }',
        "must be a whole number, but got 1.5",
    ),
    "no choices": ('[space]\n"optim.name" = { choices = [] }', "choices must be a list that is not empty"),
    "choices a string": ('[space]\n"optim.name" = { choices = "sgd" }', "must be a list that is not empty"),
    "choices twice": ('[space]\n"optim.name" = { choices = ["sgd", "sgd"] }', "choices must differ"),
    "1 and 1.0": (f"{LR}{{ choices = [1, 1.0] }}", "optim.lr: choices must differ, but got [1, 1.0]"),
    "mixed choices": ('[space]\n"optim.name" = { choices = ["sgd", 1] }', "must be a string, but got 1"),
    "choices of lists": ('[space]\n"optim.name" = { choices = [["sgd"]] }', "must be strings, numbers or"),
    "NaN a choice": (f"{LR}{{ choices = [nan] }}", "optim.lr must be 1e-07 to 10, but got nan"),
    "unknown choice": ('[space]\n"optim.name" = { choices = ["adma"] }', "did you mean 'adam'?"),
    "choices and low": (f"{LR}{{ choices = [0.1], low = 0.1 }}", "has choices, so it cannot have 'low'"),
    "unknown role": (
        f'{LR}{{ low = 0.1, high = 1.0, role = "x" }}',
        "role must be one of scientific, nuisance",
    ),
    "role a table": (f"{LR}{{ low = 0.1, high = 1.0, role = {{ }} }}", "role must be one of"),
    "when unknown": (
        f'{LR}{{ low = 0.1, high = 1.0, when = {{ "optim.nam" = ["sgd"] }} }}\n{NAME}',
        "when names 'optim.nam', which is not in this space (did you mean 'optim.name'?)",
    ),
    "when itself": (f'{LR}{{ choices = [0.1], when = {{ "optim.lr" = [0.1] }} }}', "go round in a circle"),
    "when a circle": (
        f'{LR}{{ choices = [0.1], when = {{ "optim.momentum" = [0.5] }} }}\n'
        '"optim.momentum" = { choices = [0.5], when = { "optim.lr" = [0.1] } }',
        "its conditions go round in a circle",
    ),
    "when no choice": (
        f'[space]\n{NAME}"optim.lr" = {{ low = 0.1, high = 1.0, when = {{ "optim.name" = ["sdg"] }} }}',
        "when 'optim.name' = 'sdg', which is none of its choices (did you mean 'sgd'?)",
    ),
    "when outside a range": (
        f'{LR}{{ low = 0.1, high = 1.0, when = {{ "model.depth" = [9] }} }}\n'
        '"model.depth" = { low = 1, high = 3 }',
        "optim.lr: when 'model.depth' = 9, but it lies in 1 to 3",
    ),
    "when a word in a range": (
        f'{LR}{{ low = 0.1, high = 1.0, when = {{ "model.depth" = ["x"] }} }}\n'
        '"model.depth" = { low = 1, high = 3 }',
        "when 'model.depth' = 'x', but it lies in 1 to 3",
    ),
    "when no table": (f"{LR}{{ low = 0.1, high = 1.0, when = 3 }}", 'when must be { "key" = [values] }'),
    "when no list": (
        f'[space]\n{NAME}"optim.lr" = {{ low = 0.1, high = 1.0, when = {{ "optim.name" = "sgd" }} }}',
        "when 'optim.name' needs a list of values, but got 'sgd'",
    ),
    "when a table on a fixed key": (
        f'{LR}{{ low = 0.1, high = 1.0, when = {{ "optim.name" = [{{ }}] }} }}\n'
        '[fixed]\n"optim.name" = "sgd"',
        "when 'optim.name' needs a list of values",
    ),
    "fixed and varying": (
        f'{LR}{{ low = 0.1, high = 1.0 }}\n[fixed]\n"optim.lr" = 0.1',
        "optim.lr: a key is fixed",
    ),
    "fixed unknown": ('[fixed]\n"optim.l" = 1', "did you mean 'optim.lr'?"),
    "fixed of wrong type": ('[fixed]\n"optim.lr" = "x"', "optim.lr must be a number, but got 'x'"),
    "fixed a range": ('[fixed]\n"optim.lr" = { low = 1, high = 2 }', "optim.lr must be a number"),
    "unknown baseline": ('baselines = ["B-mnist-vgg61"]', "baselines: no baseline called 'B-mnist-vgg61'"),
    "baselines no list": ('baselines = "B-*"', "baselines: must be a list of names or patterns"),
    "baseline no array": ('[baseline]\nname = "mine"', "must be written as [[baseline]]"),
    "baseline no name": (f"[[baseline]]\n{RECIPE}", "baseline: needs a name"),
    "baseline empty name": (
        f'[[baseline]]\nname = ""\n{RECIPE}',
        "the name must be words that can be printed",
    ),
    "baseline escape codes": (
        f'[[baseline]]\nname = "\\u001b[31m"\n{RECIPE}',
        r"baseline \x1b[31m: the name",
    ),
    "baseline no recipe": (MINE, "baseline mine: needs recipe"),
    "baseline unknown field": (
        f"{MINE}recipee = {{ }}",
        "baseline mine: unknown field 'recipee' (did you mean",
    ),
    "baseline unknown key": (
        f'{MINE}recipe = {{ "optim.l" = 1 }}',
        "baseline mine: unknown recipe key 'optim.l'",
    ),
    "baseline like nobody": (f'{MINE}like = "yours"', "baseline mine: like: no earlier baseline 'yours'"),
    "baseline twice": (f"{MINE}{RECIPE}" * 2, "baseline mine: the name is taken by an earlier one"),
    "baseline of the catalogue": (
        f'baselines = ["B-mnist-vgg16"]\n[[baseline]]\nname = "B-mnist-vgg16"\n{RECIPE}',
        "baseline B-mnist-vgg16: the name is taken by one of the catalogue",
    ),
    "baseline accuracy a text": (
        f'{MINE}{RECIPE}reported_accuracy = "99"',
        "reported_accuracy must be a number",
    ),
    "baseline accuracy NaN": (f"{MINE}{RECIPE}reported_accuracy = nan", "must be 0 to 100 (%), but got nan"),
    "baseline accuracy below 0": (
        f"{MINE}{RECIPE}reported_accuracy = -5",
        "must be 0 to 100 (%), but got -5",
    ),
    "baseline 0 epochs": (
        f"{MINE}{RECIPE}epochs = 0",
        "baseline mine: epochs must be 1 to 1,000,000, but got 0",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_rule_is_named_with_file_key_and_what_came(
    name: str, refused: Refusal, tmp_path: Path
) -> None:
    content, words = BROKEN[name]
    (tmp_path / "my.toml").write_text(content)
    refused(["spaces", "check", "my.toml"], ["my.toml: ", words])
    refused(["search", "digits", "--space", "my.toml"], ["my.toml: ", words])


def test_a_file_that_is_no_text(refused: Refusal, tmp_path: Path) -> None:
    (tmp_path / "my.toml").write_bytes(b"\xff\xfe[\0s\0p\0")
    refused(["spaces", "show", "my.toml"], "my.toml: is not UTF-8 text")


def test_what_is_called_like_a_space_file_and_is_none(refused: Refusal, tmp_path: Path) -> None:
    (tmp_path / "folder.toml").mkdir()
    os.mkfifo(tmp_path / "pipe.toml")  # reading it would never end
    (tmp_path / "circle.toml").symlink_to("circle.toml")
    (tmp_path / "gone.toml").symlink_to("nothing.toml")
    for name in ("folder.toml", "pipe.toml", "circle.toml", "gone.toml"):
        refused(["spaces", "check", name], f"no search space called {name!r}, and no .toml file there")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(refused: Refusal, tmp_path: Path) -> None:
    (tmp_path / "my.toml").write_text(f"{LR}{{ low = 0.1, high = 1.0 }}")
    (tmp_path / "my.toml").chmod(0)
    refused(["spaces", "check", "my.toml"], "my.toml: cannot be read (Permission denied)")


def test_an_empty_space_has_nothing_to_search(refused: Refusal, tmp_path: Path) -> None:
    (tmp_path / "my.toml").write_text("")
    refused(["search", "digits", "--space", "my.toml"], "nothing is left to vary: [space] is empty")


def test_fixing_all_of_a_space_leaves_nothing_to_search(refused: Refusal, tmp_path: Path) -> None:
    (tmp_path / "my.toml").write_text(f"{LR}{{ low = 0.1, high = 1.0 }}")
    refused(["search", "digits", "--space", "my.toml", "--set", "optim.lr=0.3"], "nothing is left to vary")


def test_the_mark_that_windows_puts_before_a_text_is_no_mistake(tmp_path: Path) -> None:
    (tmp_path / "my.toml").write_text(f"{LR}{{ low = 0.1, high = 1.0 }}", encoding="utf-8-sig")
    result = CliRunner().invoke(cli.main, ["spaces", "check", str(tmp_path / "my.toml")])
    assert (result.exit_code, "1 keys vary" in result.output) == (0, True)
