"""Names that are no names: of searches, spaces, data sets, baselines, models and images."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bad_input.refusal import Refusal
from tests.search_on_disk import lay_down_search

SEARCH = ("search", "digits", "--space", "resnet")
RULE = "a search name must be letters, digits, '.', '_' or '-'"

NO_SEARCH_NAMES = [
    *("", " ", "two words", "'quoted'", 'a"b', "a\nb", "name\n", "a\tb", "a\0b", "a\x1b[31mred"),
    *("é", "e\u0301", "\u202eabc", "名前", "\U0001f642", "a\u200bb"),
    *(".", "..", "../away", "a/b", "/absolute", "a\\b", "C:", "~", "~root", "-x", ".hidden", "_x", "*"),
    *("a" * 101, "a" * 300),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A search called mine."""
    lay_down_search(tmp_path / "results", "mine")
    return tmp_path


@pytest.mark.parametrize("name", NO_SEARCH_NAMES, ids=ascii)
def test_a_search_cannot_have_the_name(name: str, refused: Refusal, folder: Path) -> None:
    if name:
        refused([*SEARCH, f"--name={name}"], [RULE, f"but got {name!r}"])
    refused(["best", "--", name], [RULE, f"but got {name!r}"])


@pytest.mark.parametrize(
    "command",
    ["resume", "trials", "best", "report", "compare", "choices", "simulate", "retrain-best"],
)
def test_every_command_keeps_to_the_results_folder_and_names_the_nearest_search(
    command: str, refused: Refusal, folder: Path
) -> None:
    lay_down_search(folder, "outside")
    refused([command, "../outside"], [RULE, "but got '../outside'"])
    refused([command, "min"], "no search called 'min' in results (did you mean 'mine'?)")
    refused([command, "\x1b[2Jmine"], r"but got '\x1b[2Jmine'")


@pytest.mark.parametrize("command", ["resume", "trials", "best", "report", "choices", "simulate"])
def test_without_any_search_the_way_to_one_is_said(command: str, refused: Refusal) -> None:
    refused([command], "no search in results: start one with 'tunekit search")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("search", "", "--space", "resnet"), "no data set called '', and no folder there"),
        (("search", "digit", "--space", "resnet"), "no data set called 'digit'"),
        (("search", "digit", "--space", "resnet"), "did you mean 'digits'?"),
        (("search", "digits\n", "--space", "resnet"), r"no data set called 'digits\n'"),
        (("search", "../digits", "--space", "resnet"), "no data set called '../digits'"),
        (("search", "~nobody-here/x", "--space", "resnet"), "no data set called '~nobody-here/x'"),
        (("search", "\x1b[31m", "--space", "resnet"), r"no data set called '\x1b[31m'"),
        (("search", "http://host/x.zip", "--space", "resnet"), "no data set called 'http://host/x.zip'"),
        (("search", "a" * 300, "--space", "resnet"), "File name too long"),
        (("search", "a\0b", "--space", "resnet"), r"no data set called 'a\x00b'"),
        (("datasets", "prepare", ""), "no data set called ''"),
        (("datasets", "prepare", "cifar"), "did you mean 'cifar10'?"),
        (
            ("datasets", "prepare", "results/mine/search.json"),
            "mine/search.json', and no folder there",
        ),
        (("search", "digits", "--space", ""), "no search space called ''"),
        (("search", "digits", "--space", "resnt"), "did you mean 'resnet'?"),
        (("search", "digits", "--space", "../resnet"), "no search space called '../resnet'"),
        (("search", "digits", "--space", "\u202eresnet"), r"no search space called '\u202eresnet'"),
        (("search", "digits", "--space", "a" * 300), "File name too long"),
        (("spaces", "show", "resnt"), "did you mean 'resnet'?"),
        (("spaces", "show", ".."), "no search space called '..'"),
        (("spaces", "check", "nothing.toml"), "no search space called 'nothing.toml'"),
        (("spaces", "check", "/etc/passwd"), "no search space called '/etc/passwd', and no .toml file there"),
        (("spaces", "check", f"{'a' * 300}.toml"), "File name too long"),
        (("baseline", "B-mnist-vgg"), "no baseline called 'B-mnist-vgg' in the shipped spaces"),
        (("baseline", "B-mnist-vgg16\n"), r"no baseline called 'B-mnist-vgg16\n'"),
        (("baseline", "B-mnist-vgg16", "--space", "resnet"), "'B-mnist-vgg16' in resnet"),
        (("baseline", "B-mnist-vgg16", "--dataset", "digit"), "did you mean 'digits'?"),
        (("baseline", "B-mnist-vgg16", "--dataset", "digits", "--name", "../x"), RULE),
        (("retrain-best", "--baseline", "../x"), "no baseline called '../x'"),
        (("retrain-best", "--baseline", "*\x1b[31m"), r"no baseline called '*\x1b[31m'"),
        (("retrain-best", "--baseline", "B-mnist-vgg16", "--name", "../x"), RULE),
        ((*SEARCH, "--start-from", "min"), "did you mean 'mine'?"),
        ((*SEARCH, "--start-from", "../outside"), RULE),
        ((*SEARCH, "--name", "mine"), "'tunekit resume mine' goes on with it"),
        (("choices", "--key", "optim.lrr"), "unknown recipe key 'optim.lrr' (did you mean 'optim.lr'?)"),
        (("choices", "--key", "\x1b[31m"), r"unknown recipe key '\x1b[31m'"),
        (("predict", "", "x.png"), "no model ''"),
        (("predict", "../x", "x.png"), "no model '../x': nothing is recorded in"),
        (("predict", "a\0b.safetensors", "x.png"), r"no file a\x00b.safetensors"),
        (("predict", "\x1b[31m.safetensors", "x.png"), r"no file \x1b[31m.safetensors"),
        (("predict", "models:/m-0", "x.png"), "no model 'models:/m-0'"),
        (("export", "none.safetensors", "--format", "onnx"), "no file none.safetensors"),
        (("export", "..", "--format", "onnx"), "no model '..'"),
    ],
    ids=lambda value: ascii(" ".join(value))[-60:] if isinstance(value, tuple) else "",
)
def test_a_name_of_nothing_is_said_with_the_nearest(
    arguments: tuple[str, ...], words: str, refused: Refusal, folder: Path
) -> None:
    refused(arguments, words)


def test_a_folder_that_no_search_can_be_called_is_none(refused: Refusal, folder: Path) -> None:
    """Its name would reach the terminal raw in every listing."""
    (folder / "results" / "mine").rename(folder / "results" / "a\x1b[31m")
    refused(["best"], "no search in results")
