"""What a space's prior says: small files, made-up values, no training."""

import gzip
import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from tests.tuning.made_up import SPACE as MADE_UP
from tests.tuning.made_up import drawn, hill, number, search
from tunekit import cli
from tunekit.errors import SpaceError
from tunekit.paths import find_space, shipped_spaces
from tunekit.recipe import Value
from tunekit.space import SearchSpace, files_of, load_space
from tunekit.tuning.evidence import EarlierSearch
from tunekit.tuning.policy import SearchPolicy
from tunekit.tuning.prior import read_prior, searches_in_words
from tunekit.tuning.remote_job import RemoteCommand, _environment

NAME = "mine.prior.json.gz"
TOML = f"""prior = "{NAME}"
[space]
"optim.name" = {{ choices = ["sgd", "adam"] }}
"optim.momentum" = {{ low = 0.0, high = 0.99, when = {{ "optim.name" = ["sgd"] }} }}
"optim.lr" = {{ low = 1e-3, high = 1.0, log = true }}
"""
SGD: dict[str, Value] = {"optim.name": "sgd", "optim.momentum": 0.5, "optim.lr": 0.1}
ADAM: dict[str, Value] = {"optim.name": "adam", "optim.lr": 0.01}


def trial(params: dict[str, Value], *values: Any) -> dict[str, Any]:
    return {"params": params, "values": values}


def prior(*trials: dict[str, Any], **other: Any) -> dict[str, Any]:
    found = {"dataset": "digits", "conditions": "made up", "epochs": [3, 27], "trials": trials}
    return {"searches": [{**found, **other}]}


def lay_down(folder: Path, content: object) -> SearchSpace:
    (folder / NAME).write_bytes(gzip.compress(json.dumps(content).encode()))
    (folder / "mine.toml").write_text(TOML)
    return load_space(folder / "mine.toml")


def test_a_prior_is_an_earlier_search_of_what_the_space_can_propose(tmp_path: Path) -> None:
    outside = {**ADAM, "optim.lr": 1e-4}
    known = prior(trial(SGD, 0.5, 0.9), trial(outside, 0.9, 1), trial(ADAM, 0.25), trial(ADAM))
    space = lay_down(tmp_path, known)
    (found,) = read_prior(tmp_path, space)
    assert (found.name, found.best, found.evidence.epochs) == ("digits", (), (3, 27))
    assert [dict(seen.params) for seen in found.evidence.trials] == [SGD, ADAM, ADAM]
    assert [dict(seen.values) for seen in found.evidence.trials] == [
        {3: 0.5, 27: 0.9},
        {3: 0.25, 27: -math.inf},  # failed on the way
        {3: -math.inf},
    ]
    assert searches_in_words([found, found]) == "3 trials of digits, 3 of digits"


def test_recipes_with_another_value_for_a_fixed_key_say_nothing(tmp_path: Path) -> None:
    space = lay_down(tmp_path, prior(trial(SGD, 0.5, 0.9), trial(ADAM, 0.25, 0.8)))
    (found,) = read_prior(tmp_path, space.with_fixed({"optim.name": "adam"}))
    assert [dict(seen.params) for seen in found.evidence.trials] == [{"optim.lr": 0.01}]
    assert read_prior(tmp_path, space.with_fixed({"optim.name": "adamw"})) == []
    assert searches_in_words([]) == ""


def test_a_space_without_a_prior_reads_no_file(tmp_path: Path) -> None:
    assert read_prior(tmp_path, MADE_UP) == []


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        ([], "a table is wanted, but '[]' came"),
        ({}, "searches must be a list, but is 'None'"),
        ({"searches": [3]}, "a table is wanted, but '3' came"),
        (prior(dataset=3), "dataset must be a str, but is '3'"),
        (prior(epochs=[]), "epochs must be whole numbers that rise, but are []"),
        (prior(epochs=[27, 3]), "epochs must be whole numbers that rise, but are [27, 3]"),
        (prior(epochs=[3, 3]), "epochs must be whole numbers that rise, but are [3, 3]"),
        (prior(epochs=[0.5]), "epochs must be whole numbers that rise, but are [0.5]"),
        (prior(trials={}), "trials must be a list, but is '{}'"),
        (prior(trial({"optim.lrr": 0.1}, 0.5)), "unknown recipe key 'optim.lrr'"),
        (prior(trial({**SGD, "optim.lr": -1}, 0.5)), "optim.lr"),
        (prior(trial(SGD, 0.1, 0.2, 0.3)), "values must be accuracies from 0 to 1, at most 2, but are"),
        (prior(trial(SGD, 1.5)), "values must be accuracies from 0 to 1"),
        (prior(trial(SGD, math.nan)), "values must be accuracies from 0 to 1"),
        (prior(trial(SGD, True)), "values must be accuracies from 0 to 1"),
        (prior(trial(SGD, "high")), "values must be accuracies from 0 to 1"),
    ],
)
def test_a_broken_rule_is_named_with_the_file(content: object, rule: str, tmp_path: Path) -> None:
    space = lay_down(tmp_path, content)
    with pytest.raises(SpaceError) as caught:
        read_prior(tmp_path, space)
    assert str(caught.value).startswith(f"{tmp_path / NAME}: is not a prior: ")
    assert rule in str(caught.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    space = lay_down(tmp_path, prior())
    file = tmp_path / NAME
    whole = file.read_bytes()
    for content, rule in ((whole[:-9], "is damaged"), (b"text", "cannot be read"), (None, "cannot be read")):
        file.unlink()
        if content is not None:
            file.write_bytes(content)
        with pytest.raises(SpaceError, match=rule) as caught:
            read_prior(tmp_path, space)
        assert str(caught.value).startswith(f"{file}: ")
        file.touch()


@pytest.mark.parametrize(
    "name", ["../a.prior.json.gz", "/a.prior.json.gz", ".prior.json.gz", "a.json.gz", "a.prior.json.gz\n", 3]
)
def test_a_prior_is_a_file_beside_the_space(name: object) -> None:
    with pytest.raises(SpaceError, match=r"^my\.toml: prior: must be the name of a file beside this one"):
        SearchSpace.from_dict({"prior": name, "space": {"x": {"low": 0, "high": 1}}}, "my.toml")


def test_the_files_of_a_space_go_together(tmp_path: Path) -> None:
    lay_down(tmp_path, prior())
    assert files_of(tmp_path / "mine.toml") == [tmp_path / "mine.toml", tmp_path / NAME]
    without = shipped_spaces()["vgg"]
    assert files_of(without) == [without]


def test_a_copy_of_a_shipped_space_finds_its_prior_and_one_beside_it_wins(tmp_path: Path) -> None:
    copy = tmp_path / "mine.toml"
    shutil.copyfile(find_space("resnet"), copy)
    space = load_space(copy)
    shipped = read_prior(find_space("resnet").parent, space)
    assert read_prior(tmp_path, space) == shipped != []
    assert files_of(copy) == [copy, find_space("resnet").with_name(space.prior)]
    own = tmp_path / space.prior
    own.write_bytes(gzip.compress(json.dumps(prior()).encode()))
    assert read_prior(tmp_path, space) == []
    assert files_of(copy) == [copy, own]


def test_a_job_on_a_cluster_takes_the_prior_along(tmp_path: Path) -> None:
    lay_down(tmp_path, prior())
    with _environment(RemoteCommand(("search",), ("digits",), space_file=tmp_path / "mine.toml")) as sent:
        there = Path(sent["working_dir"])
        assert sorted(file.name for file in there.iterdir()) == [NAME, "mine.toml"]
        assert read_prior(there, load_space(there / "mine.toml")) == []


def test_a_prior_that_is_right_makes_early_proposals_good_and_chance_ignores_it() -> None:
    truth = hill(0.7, 0.3)
    taught = EarlierSearch("other", (), search(drawn(60, 1), (3, 60, truth), (27, 60, truth)))

    def proposals(sampler: str, *earlier: EarlierSearch) -> list[dict[str, Value]]:
        policy = SearchPolicy(MADE_UP, max_epochs=27, sampler=sampler, earlier=earlier)
        for _ in range(4):
            suggestion = policy.next()
            policy.report(suggestion.trial_id, 3, 1 + truth(suggestion.params))
        return [dict(policy.next().params) for _ in range(8)]

    near = [
        abs(number(p, "x") - 0.7) + abs(number(p, "y") - 0.3) < 0.25 for p in proposals("portfolio", taught)
    ]
    assert sum(near) >= 5
    assert proposals("portfolio", taught) != proposals("portfolio")
    assert proposals("random", taught) == proposals("random")


def test_the_command_line_says_what_a_prior_holds(tmp_path: Path) -> None:
    lay_down(tmp_path, prior(trial(SGD, 0.5, 0.9)))
    file = str(tmp_path / "mine.toml")
    for command, words in (
        ("show", "Prior: 1 trial of digits"),
        ("check", ", a prior of 1 trial of digits"),
    ):
        result = CliRunner().invoke(cli.main, ["spaces", command, file])
        assert result.exit_code == 0, result.output
        assert words in result.output
    (tmp_path / NAME).unlink()
    result = CliRunner().invoke(cli.main, ["spaces", "check", file])
    assert result.exit_code == 1
    assert f"{tmp_path / NAME}: cannot be read" in result.output


def test_the_priors_that_come_with_tunekit_can_be_read() -> None:
    for name in shipped_spaces():
        space = load_space(find_space(name))
        searches = read_prior(find_space(name).parent, space)
        assert bool(searches) == bool(space.prior)
        for found in searches:
            every = replace(found.evidence, epochs=found.evidence.epochs[-1:])
            assert len(every.at(every.epochs[0])) >= 100
