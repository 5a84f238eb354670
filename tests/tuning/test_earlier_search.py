"""A search that starts from earlier ones: small searches on disk, no training."""

import dataclasses
import gzip
import json
import math
import shutil
import tomllib
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
from click.testing import CliRunner

from tunekit import cli
from tunekit.data.pack import Pack
from tunekit.errors import SearchError
from tunekit.history import Event, History
from tunekit.paths import SearchPaths, list_searches, search_paths
from tunekit.recipe import Value
from tunekit.space import Baseline, SearchSpace, load_space
from tunekit.tracking.server import tracking_uri
from tunekit.tuning.begin import begin_search
from tunekit.tuning.earlier_search import earlier_searches, find_earlier, keep_memory, read_earlier
from tunekit.tuning.evidence import EarlierSearch
from tunekit.tuning.policy import SearchPolicy
from tunekit.tuning.prior import read_prior
from tunekit.tuning.progress import QuietView
from tunekit.tuning.settings import SearchSettings

EARLIER_SPACE = """
[fixed]
"model.name" = "resnet8"
[space]
"optim.name" = { choices = ["sgd", "adam"] }
"optim.momentum" = { low = 0.0, high = 0.99, when = { "optim.name" = ["sgd"] } }
"optim.lr" = { low = 1e-3, high = 1.0, log = true }
"batch_size" = { choices = [32, 64] }
"""
# Varies a part of those keys, one of them in a smaller range, and one that was fixed.
SPACE_TOML = """
[space]
"optim.lr" = { low = 1e-2, high = 1.0, log = true }
"optim.name" = { choices = ["adam", "sgd"] }
"model.name" = { choices = ["resnet8", "resnet20"] }
"""
SPACE = SearchSpace.from_dict(tomllib.loads(SPACE_TOML))
PRIOR = "narrower.prior.json.gz"
Trained = tuple[dict[str, Value], Sequence[float]]
ADAM: dict[str, Value] = {"optim.name": "adam", "optim.lr": 0.1, "batch_size": 32}
TRIALS: list[Trained] = [
    (ADAM, [0.1, 0.2, 0.3, 0.5]),
    ({"optim.name": "sgd", "optim.momentum": 0.5, "optim.lr": 0.5, "batch_size": 64}, [0.2, 0.4, 0.6, 0.8]),
    ({**ADAM, "optim.lr": 0.002}, [0.3, 0.5, 0.7, 0.9]),  # outside of the smaller range
    ({**ADAM, "optim.lr": 0.2}, [0.2, 0.3, 0.35]),  # stopped early
    ({**ADAM, "optim.lr": 0.9}, []),  # failed
]


def lay_down(
    results_dir: Path, name: str, trials: Sequence[Trained] = TRIALS, **settings: Any
) -> SearchPaths:
    """A search of four epochs whose trials were trained to the end, stopped early, or failed at once."""
    paths = search_paths(results_dir, name)
    paths.folder.mkdir(parents=True)
    paths.space.write_text(EARLIER_SPACE)
    SearchSettings(
        name, "digits", "mine.toml", len(trials), 4, 0, "data", "sqlite:///none.db", **settings
    ).save(paths)
    history = History(paths.history)
    for trial, (params, values) in enumerate(trials):
        history.append(Event("suggest", trial, params=params))
        for epoch, value in enumerate(values, start=1):
            history.append(Event("result", trial, epoch=epoch, value=value))
        end = {0: Event("fail", trial, epoch=1), 4: Event("complete", trial)}
        history.append(end.get(len(values), Event("stop", trial, epoch=len(values))))
    history.close()
    return paths


def seen(optimizer: str, lr: float) -> dict[str, Value]:
    """A recipe as `SPACE` sees it."""
    return {"optim.lr": lr, "optim.name": optimizer, "model.name": "resnet8"}


def test_what_lies_in_the_space_is_read_and_nothing_else(tmp_path: Path) -> None:
    found = read_earlier(lay_down(tmp_path, "first"), SPACE)
    assert found.name == "first"
    assert found.evidence.epochs == (3, 4)
    assert [(trial.params, trial.values) for trial in found.evidence.trials] == [
        (seen("adam", 0.1), {3: 0.3, 4: 0.5}),
        (seen("sgd", 0.5), {3: 0.6, 4: 0.8}),
        (seen("adam", 0.2), {3: 0.35}),
        (seen("adam", 0.9), {3: float("-inf")}),
    ]
    assert found.best == (seen("sgd", 0.5), seen("adam", 0.1), seen("adam", 0.2))


def test_keys_that_the_earlier_search_had_fixed_with_set_count_as_they_were(tmp_path: Path) -> None:
    paths = lay_down(
        tmp_path, "first", [({"optim.lr": 0.1, "batch_size": 32}, [0.1] * 4)], fixed={"optim.name": "adam"}
    )
    assert read_earlier(paths, SPACE).best == (seen("adam", 0.1),)


def test_at_most_five_recipes_are_handed_on(tmp_path: Path) -> None:
    trials: list[Trained] = [({**ADAM, "optim.lr": 0.1 + n / 20}, [n / 10] * 4) for n in range(9)]
    best = read_earlier(lay_down(tmp_path, "first", trials), SPACE).best
    assert [params["optim.lr"] for params in best] == pytest.approx([0.5, 0.45, 0.4, 0.35, 0.3])


@pytest.mark.parametrize(
    ("trials", "message"),
    [
        (
            [],
            "--start-from first: none of its 0 trials reached epoch 3 with a recipe that lies in this space",
        ),
        (TRIALS[2:3], "none of its 1 trials reached epoch 3"),
        ([(ADAM, [0.1, 0.2])], "none of its 1 trials reached epoch 3"),
    ],
    ids=["nothing tried", "all outside", "too short"],
)
def test_a_search_that_has_nothing_to_say_is_refused_in_one_line(
    trials: Sequence[Trained], message: str, tmp_path: Path
) -> None:
    lay_down(tmp_path, "first", trials)
    with pytest.raises(SearchError) as error:
        find_earlier(tmp_path, ["first"], SPACE)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_search_that_is_named_twice_counts_once(tmp_path: Path) -> None:
    for name in ("first", "second"):
        lay_down(tmp_path, name)
    found = find_earlier(tmp_path, ["second", "first", "second"], SPACE)
    assert [paths.name for paths in found] == ["second", "first"]


def test_the_memory_that_was_kept_needs_the_earlier_search_no_more(tmp_path: Path) -> None:
    first, new = lay_down(tmp_path, "first"), search_paths(tmp_path, "new")
    expected = read_earlier(first, SPACE)
    new.earlier("first").folder.mkdir(parents=True)  # a crash had cut an earlier attempt short
    keep_memory(first, new.earlier("first"))
    shutil.rmtree(first.folder)
    assert earlier_searches(new, ["first"], SPACE) == [expected]


def test_a_search_lies_down_with_the_memory_of_those_it_starts_from(
    tmp_path: Path, data_dir: Path, digits: Pack
) -> None:
    first = lay_down(tmp_path, "first")
    expected = read_earlier(first, SPACE)
    (tmp_path / "narrower.toml").write_text(f'prior = "{PRIOR}"\n{SPACE_TOML}')
    recorded = {"params": seen("adam", 0.1), "values": [0.5]}
    mnist = {"dataset": "mnist", "conditions": "", "epochs": [9], "trials": [recorded]}
    (tmp_path / PRIOR).write_bytes(gzip.compress(json.dumps({"searches": [mnist]}).encode()))
    prior = read_prior(tmp_path, dataclasses.replace(SPACE, prior=PRIOR))
    wanted = dataclasses.replace(
        SearchSettings.load(first),
        name="new",
        space=str(tmp_path / "narrower.toml"),
        data_dir=str(data_dir),
        tracking_uri=tracking_uri(tmp_path, None),
        train_limit=360,
        start_from=["first", "first"],
    )
    paths = begin_search(wanted, tmp_path, QuietView())
    settings = SearchSettings.load(paths)
    shutil.rmtree(first.folder)
    (tmp_path / PRIOR).unlink()
    assert settings.start_from == ["first"]
    assert earlier_searches(paths, settings.start_from, load_space(paths.space)) == [*prior, expected]
    assert [search.name for search in list_searches(tmp_path)] == ["new"]


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ("frist", "no search called 'frist' in {results} (did you mean 'first'?)"),
        ("untried", "--start-from untried: none of its 0 trials reached epoch 3 with a recipe that lies in"),
        ("../away", "a search name must be letters"),
    ],
)
def test_a_search_that_cannot_be_started_from_gets_one_line_and_nothing_is_written(
    named: str, message: str, tmp_path: Path, data_dir: Path
) -> None:
    lay_down(tmp_path, "first")
    lay_down(tmp_path, "untried", [])
    before = sorted(tmp_path.rglob("*"))
    folders = ("--results-dir", str(tmp_path), "--data-dir", str(data_dir))
    done = CliRunner().invoke(
        cli.main,
        ("search", "digits", "--space", "resnet", "--start-from", "first", "--start-from", named, *folders),
    )
    assert done.exit_code == 1, done.output
    (line,) = (line for line in done.output.splitlines() if line.startswith("Error: "))
    assert message.format(results=tmp_path) in line
    assert "Traceback" not in done.output
    assert sorted(tmp_path.rglob("*")) == before


def policy(earlier: Sequence[EarlierSearch], **options: Any) -> SearchPolicy:
    return SearchPolicy(SPACE, max_epochs=4, earlier=earlier, **options)


def params_of_next(search: SearchPolicy, count: int) -> list[dict[str, Value]]:
    return [dict(search.next().params) for _ in range(count)]


def test_baselines_and_the_default_come_first_then_the_best_of_earlier_searches_each_once(
    tmp_path: Path,
) -> None:
    known = Baseline("known", seen("adam", 0.1))  # the earlier search found it too
    more: list[Trained] = [({**ADAM, "optim.lr": 0.5}, [0.7] * 4), TRIALS[1]]
    earlier = [
        read_earlier(lay_down(tmp_path, "first"), SPACE),
        read_earlier(lay_down(tmp_path, "second", more), SPACE),
    ]
    space = dataclasses.replace(SPACE, warm_starts=(seen("sgd", 0.5), seen("sgd", 0.9)))
    search = SearchPolicy(space, max_epochs=4, earlier=earlier, baselines=(known,))
    baseline, default, *best = params_of_next(search, 6)
    assert baseline == known.recipe
    assert default == SPACE.default_params()
    assert best == [seen("sgd", 0.5), seen("adam", 0.2), seen("adam", 0.5), seen("sgd", 0.9)]
    proposed = params_of_next(search, 10)
    assert all(params not in [*best, default] for params in proposed)
    trials = search.history.trials.values()
    assert [trial.in_full for trial in trials] == [True] * 5 + [False] * 11  # three of the best among them


def test_the_best_of_earlier_searches_come_before_proposals_after_a_resume_too(tmp_path: Path) -> None:
    earlier = [read_earlier(lay_down(tmp_path, "first"), SPACE)]
    straight = policy(earlier)
    straight.next()
    straight.complete(0)
    for best in earlier[0].best:
        again = policy(earlier, history=History(events=list(straight.history.events)))
        assert again.next() == straight.next()
        assert dict(straight.history.recipes[-1].params) == best
        straight.complete(len(straight.history.trials) - 1)


def test_the_earlier_search_teaches_the_sampler_from_the_third_result_on(tmp_path: Path) -> None:
    trials: list[Trained] = [
        ({**ADAM, "optim.lr": 10 ** (-2 + n / 10)}, [1 - abs(n - 15) / 20] * 4) for n in range(20)
    ]
    earlier = [read_earlier(lay_down(tmp_path, "first", trials), SPACE)]

    def off(learnt: list[EarlierSearch], seed: int) -> float:
        """How far the first proposals of the sampler are from the best learning rate, in decades."""
        search = policy(learnt, scheduler="none", seed=seed)
        known = 1 + sum(len(search.best) for search in learnt)
        for _ in range(known + 6):
            trial = search.next()
            distance = abs(math.log10(float(trial.params["optim.lr"])) + 0.5)
            for epoch in range(1, 5):
                search.report(trial.trial_id, epoch, 1 - distance / 2)
        proposed = [trial.params for trial in search.history.recipes][known:]
        return fmean(abs(math.log10(float(params["optim.lr"])) + 0.5) for params in proposed)

    seeds = range(4)
    assert fmean(off(earlier, seed) for seed in seeds) < 0.8 * fmean(off([], seed) for seed in seeds)
