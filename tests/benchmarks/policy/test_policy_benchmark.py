"""The benchmark's own parts: its table on disk, its figures, and the order in which peers are called."""

import dataclasses
import gzip
import json
import math
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from optuna.pruners import HyperbandPruner, NopPruner
from optuna.trial import TrialState
from scipy.stats import spearmanr

from tests.benchmarks.policy import dense, live, small_networks
from tests.benchmarks.policy.__main__ import DENSE_TABLES, SMOOTH_TABLES, TABLES, main
from tests.benchmarks.policy.comparison import (
    Replays,
    epochs_of_means,
    epochs_to,
    interval,
    markdown,
    regret_at,
    regret_of,
)
from tests.benchmarks.policy.cross_validation import rank_correlation
from tests.benchmarks.policy.each_once import EachOnce
from tests.benchmarks.policy.emulated_resnets import EmulatedCurves, emulator_of
from tests.benchmarks.policy.live_resnets import ResnetCurves
from tests.benchmarks.policy.methods import METHODS, installed, method
from tests.benchmarks.policy.peers import OptunaStudy, RayTune
from tests.benchmarks.policy.prior import prior_of
from tests.benchmarks.policy.record import curves_of, read_table, table_of, write_table
from tests.benchmarks.policy.runs import Answers, Task, key_of
from tests.benchmarks.policy.smooth import REFERENCES, CurveModel, SmoothCurves, model_of
from tests.benchmarks.policy.warm_starts import read_warm_starts, warm_starts
from tests.conftest import TEST_DATA, needs_real_images
from tests.search_on_disk import lay_down_search
from tunekit.history import Event, History
from tunekit.paths import find_space
from tunekit.space import SearchSpace, load_space
from tunekit.tuning.policy import SearchPolicy
from tunekit.tuning.prior import read_prior
from tunekit.tuning.replay import Curves, Record, replay

SPACE = SearchSpace.from_dict({"space": {"optim.lr": {"low": 1e-3, "high": 1.0, "log": True}}})
OUTCOME = {"epochs": [5, 20, 30], "regret": [80.0, 10.0, 12.0], "trials": 9, "suggestion_ms": [1.0, 2.0, 3.0]}
HARD = next(table for table in SMOOTH_TABLES if "hard" in table.name)
CURVES = curves_of(read_table(HARD))
IMBALANCED = next(table for table in SMOOTH_TABLES if "imb" in table.name)
RESNETS = TABLES[0]
RISE = np.linspace(0.5, 1, 12)


def rising(count: int, epochs: int) -> Curves:
    """Curves whose last values are 1/count, 2/count, ... 1, the higher the learning rate."""
    records = []
    for place in range(1, count + 1):
        values = [place / count * epoch / epochs for epoch in range(1, epochs + 1)]
        records.append(Record({"optim.lr": 10 ** (3 * place / count - 3)}, values, [1.0] * epochs))
    return Curves(SPACE, epochs, records)


def test_a_table_holds_what_was_recorded(tmp_path: Path) -> None:
    paths = lay_down_search(tmp_path, "curves")
    paths.history.unlink()
    history = History(paths.history)
    for trial, values in enumerate(((0.12344, 0.23456, 0.5), (0.25,))):
        history.append(Event("suggest", trial, params={"optim.lr": 0.2}))
        for epoch, value in enumerate(values, start=1):
            metrics = {"epoch_seconds": 0.12345, "train_loss": 1.0}
            history.append(Event("result", trial, epoch=epoch, value=value, metrics=metrics))
    history.append(Event("complete", 0), Event("fail", 1, epoch=2, reason="diverged"))
    history.append(Event("suggest", 2, params={"optim.lr": 0.1}, default=True))  # is no random draw
    history.append(Event("fail", 2, epoch=1))
    history.close()
    file = tmp_path / "table.json.gz"
    write_table(table_of(paths, "2 cores"), file)
    first = file.read_bytes()
    write_table(table_of(paths, "2 cores"), file)
    assert file.read_bytes() == first
    table = read_table(file)
    assert (table["dataset"], table["epochs"], table["hardware"]) == ("digits", 3, "2 cores")
    curves = curves_of(table)
    assert curves.space.fixed == {"optim.name": "adam"}
    assert curves.records == (
        Record({"optim.lr": 0.2}, [0.1234, 0.2346, 0.5], [0.123, 0.123, 0.123]),
        Record({"optim.lr": 0.2}, [0.25], [0.123], 2, "diverged"),
    )


def test_regret_is_zero_for_the_best_recipe_and_100_for_the_median_one() -> None:
    curves = rising(5, epochs=2)
    assert [regret_of(value, curves.final) for value in curves.final] == [200.0, 150.0, 100.0, 50.0, 0.0]


def test_the_incumbent_counts_that_was_there_by_then() -> None:
    assert [regret_at(OUTCOME, epochs) for epochs in (4, 5, 19.9, 20, 1000)] == [
        100.0,
        80.0,
        80.0,
        10.0,
        12.0,
    ]


def test_a_result_is_reached_when_it_is_held_to_the_end() -> None:
    assert epochs_to(OUTCOME, 90.0) == 5
    assert epochs_to(OUTCOME, 12.0) == 20
    assert math.isinf(epochs_to(OUTCOME, 11.0))  # it was there between epochs 20 and 30, by luck


def test_an_interval_holds_the_mean_and_narrows_with_more_seeds() -> None:
    low, high = interval([1.0, 2.0, 3.0, 4.0])
    assert low < 2.5 < high
    low_of_many, high_of_many = interval([1.0, 2.0, 3.0, 4.0] * 10)
    assert high_of_many - low_of_many < high - low


def test_a_mean_regret_is_compared_with_the_final_one_of_the_stock_combination() -> None:
    late = {**OUTCOME, "epochs": [5, 30, 38]}
    stock = {**OUTCOME, "regret": [80.0, 60.0, 40.0]}
    # After 20 epochs the mean is 45; samples of one of the two alone are there after 20 or after 30.
    assert epochs_of_means([OUTCOME, late], [stock, stock], 40) == (30, 20, 30)
    # That the mean was as low once is enough.
    assert epochs_of_means([OUTCOME], [{**stock, "regret": [80.0, 60.0, 11.0]}], 40) == (20, 20, 20)
    never = {**stock, "regret": [80.0, 60.0, 9.0]}
    assert epochs_of_means([OUTCOME], [never], 40) == (math.inf, math.inf, math.inf)


def test_means_are_of_the_tables_and_seeds_that_both_have() -> None:
    better = {**OUTCOME, "regret": [80.0, 5.0, 1.0]}
    outcomes = {"ray": [[OUTCOME, better], []], "random": [[better], [OUTCOME]], "none": [[], [OUTCOME]]}
    rows = markdown(outcomes, {"ray": "Ray", "random": "Random", "none": "None"}, 40).splitlines()[2:]
    assert "| 30 (20 to 30) | 9 |" in rows[0]
    assert "| 20 (20 to 20) | 9 |" in rows[1]
    assert "|  |  | 9 |" in rows[2]


def test_the_table_says_who_never_got_there_and_what_is_not_installed() -> None:
    never = {**OUTCOME, "regret": [80.0, 60.0, 50.0]}
    outcomes: dict[str, Replays] = {"ray": [[OUTCOME] * 3], "random": [[OUTCOME, never, never]], "bohb": [[]]}
    rows = markdown(outcomes, {"ray": "Ray", "random": "Random", "bohb": "BOHB"}, 40).splitlines()[2:]
    assert (
        rows[0] == "| Ray | 80.0 (80.0 to 80.0) | 10.0 (10.0 to 10.0) | 12.0 (12.0 to 12.0) "
        "| 20 | 20 (20 to 20) | 9 | 2.0 ms, 3 ms |"
    )
    assert "| over 40 (2 of 3 never) |" in rows[1]
    assert rows[2] == "| BOHB | not installed | | | | | | |"


def test_each_table_has_a_target_of_its_own() -> None:
    better = {**OUTCOME, "regret": [80.0, 5.0, 1.0]}
    outcomes = {"ray": [[OUTCOME], [better], []], "random": [[OUTCOME], [OUTCOME], []]}
    row = markdown(outcomes, {"ray": "Ray", "random": "Random"}, 40).splitlines()[3]
    assert "| over 40 (1 of 2 never) |" in row  # epoch 20 in the first table, never in the second


def test_methods_are_found_by_name_and_by_parts() -> None:
    assert method("ray") is METHODS["ray"]
    assert method("random+asha@1").title == "tunekit: random, asha, grace period 1"
    for wrong in ("rays", "random+asha@x"):
        with pytest.raises(KeyError):
            method(wrong)


@pytest.mark.parametrize(("command", "place"), [(main, []), (live.main, ["data"])])
def test_a_method_that_there_is_not_is_one_line_with_the_nearest(
    command: Callable[[], None],
    place: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("sys.argv", ["benchmark", *place, "--methods", "tunekit", "rays"])
    with pytest.raises(SystemExit, match="2"):
        command()
    assert "no method 'rays' (did you mean 'ray'?)" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["tunekit", "random", "random+asha", "tpe", "hyperband"])
def test_methods_find_a_good_recipe(name: str) -> None:
    curves = rising(30, epochs=9)
    found = replay(method(name).make(curves, 0), curves, workers=4, budget_epochs=180)
    incumbent = found.incumbent(180)
    assert incumbent is not None and regret_of(curves.final[incumbent], curves.final) < 50


def test_optuna_hears_of_pruned_and_completed_trials() -> None:
    curves = rising(30, epochs=9)
    for pruner in (NopPruner(), HyperbandPruner(1, 9, 3)):
        study = OptunaStudy(SPACE, 9, 0, pruner)
        replay(study, curves, workers=4, budget_epochs=90)
        ended = [trial for trial in study._study.trials if trial.state.is_finished()]
        assert any(trial.state == TrialState.COMPLETE for trial in ended)
        for trial in ended:
            complete = trial.state == TrialState.COMPLETE
            assert complete or trial.state == TrialState.PRUNED
            assert (trial.last_step == 9) is complete


def test_a_small_network_is_trained_as_it_was_recorded(tmp_path: Path) -> None:
    fresh = small_networks.recorded("hard", tmp_path, count=1)[0]
    known = read_table(HARD)["recipes"][0]
    assert fresh["params"] == pytest.approx(known["params"])
    assert np.abs(np.subtract(fresh["values"], known["values"])).mean() < 0.02
    table = small_networks.table_of("hard", [fresh], "2 cores")
    assert {**read_table(HARD), **table}.keys() == table.keys()
    assert SearchSpace.from_dict(tomllib.loads(table["space"])).parameters == CURVES.space.parameters


def test_live_trainings_take_turns_without_disturbing_each_other(tmp_path: Path) -> None:
    samples = small_networks.TASKS["hard"](tmp_path)
    recipes = [small_networks.random_recipe(np.random.default_rng(seed)) for seed in range(2)]
    one_by_one, by_turns = live.LiveCurves(samples, 0), live.LiveCurves(samples, 0)
    for curves in (one_by_one, by_turns):
        assert [curves.nearest(recipe) for recipe in recipes] == [0, 1]
    alone = [[one_by_one.value(place, epoch) for epoch in (1, 2, 3)] for place in (1, 0)]
    in_turn = [[by_turns.value(place, epoch) for place in (1, 0)] for epoch in (1, 2, 3)]
    assert np.array_equal(np.transpose(in_turn), alone)
    assert by_turns.test_accuracy(0) == one_by_one.test_accuracy(0)


def test_a_recipe_that_is_proposed_again_is_trained_again(tmp_path: Path) -> None:
    curves = live.LiveCurves(small_networks.TASKS["hard"](tmp_path), 0)
    recipe = small_networks.random_recipe(np.random.default_rng(0))
    accuracies = [[curves.value(curves.nearest(recipe), 1)] for _ in range(4)]
    assert len(np.unique(accuracies)) > 1


def test_what_tests_an_incumbent_is_not_what_judged_it() -> None:
    rng = np.random.default_rng(0)
    classes = rng.integers(2, size=2000)
    inputs = rng.standard_normal((2000, 5)) + 4 * classes[:, None]
    unseen = np.random.default_rng(0).permutation(2000)[1300:]  # 400 train, 900 judge
    classes[unseen] = 1 - classes[unseen]
    curves = live.LiveCurves((inputs, classes), 0)
    recipe = {"batch_size": 16, "lr": 0.03, "momentum": 0.9, "weight_decay": 1e-5, "layers": 1}
    place = curves.nearest({**recipe, "units": 32, "dropout": 0.0})
    assert curves.value(place, 5) > 0.95
    assert curves.test_accuracy(place) < 0.05


def test_a_dense_table_is_trained_as_it_was_recorded(tmp_path: Path) -> None:
    fresh = dense.recorded("four-synthetic", tmp_path, count=1)
    known = read_table(DENSE_TABLES[1])
    assert fresh[0]["params"] == pytest.approx(known["recipes"][0]["params"])
    assert np.abs(np.subtract(fresh[0]["values"], known["recipes"][0]["values"])).mean() < 0.02
    assert dense.dense_table("four-synthetic", fresh, "2 cores").keys() == known.keys()
    assert len(known["recipes"]) == dense.RECIPES == 2000


@needs_real_images
def test_residual_networks_train_live_as_far_as_they_are_asked_for() -> None:
    curves, again = (ResnetCurves("mnist", Path(str(TEST_DATA)), seed=0) for _ in range(2))
    default = {**curves.space.default_params(), "optim.lr": 0.01}
    first = curves.nearest(default)
    again.nearest(default)
    later = [again.value(0, epoch) for epoch in (1, 2)]  # of the same seed and place
    assert [curves.value(first, epoch) for epoch in (2, 1)] == later[::-1]
    other = curves.nearest(default)
    assert curves.value(other, 2) != curves.value(first, 2)
    diverging = curves.nearest({**default, "optim.lr": 10.0, "optim.name": "sgd", "optim.momentum": 0.95})
    assert curves.failure(first, 2) is None
    failed_at = next(epoch for epoch in range(1, 10) if curves.failure(diverging, epoch))
    assert "loss" in str(curves.failure(diverging, failed_at))
    assert curves.test_accuracy(diverging) == 0.0


def test_emulated_trainings_differ_by_noise_and_answer_like_real_ones() -> None:
    curves, again = (EmulatedCurves("mnist", seed=0) for _ in range(2))
    default = curves.space.default_params()
    places = [curves.nearest(default) for _ in range(30)]
    again.nearest(default)
    ends = [curves.value(place, 27) for place in places]
    assert again.value(0, 27) == ends[0]
    assert 0.002 < np.std(ends) < 0.03
    # Of three seeds that really trained it: 0.836 to 0.839.
    assert np.mean(ends) == pytest.approx(0.837, abs=0.01)
    assert len({curves.test_accuracy(place) for place in places}) == 1
    assert curves.failure(0, 27) is None
    assert min(emulator_of("mnist").correlations) > 0.9


def test_live_searches_are_printed_with_their_regret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tasks = [live.LiveTask(tmp_path, "odd", *search) for search in (("random", 0), ("random", 1))]
    reference = live.LiveTask(tmp_path, "odd", live.REFERENCE, live.REFERENCE_SEED)
    outcome = {"epochs": [5], "trials": 40, "suggestion_ms": [1.0]}
    known = {live.key_of(task): {**outcome, "accuracy": [0.7]} for task in tasks}
    known[live.key_of(reference)] = {"accuracy": [0.5, 0.6, 0.9]}
    out = tmp_path / "known.json"
    out.write_text(json.dumps(known))
    options = ["--methods", "random", "--tasks", "odd", "--seeds", "2", "--out", str(out)]
    monkeypatch.setattr("sys.argv", ["live", str(tmp_path), *options])
    live.main()
    printed = capsys.readouterr().out
    assert "- odd: MNIST, odd or even, 24 principal components. Test accuracy: best 0.900" in printed
    assert "| tunekit: random, none | 66.7 (66.7 to 66.7) |" in printed


@pytest.mark.parametrize("table", [HARD, RESNETS])
def test_smooth_curves_follow_the_recorded_ones(table: Path) -> None:
    recorded, smooth = curves_of(read_table(table)), SmoothCurves(model_of(table))
    places = [smooth.nearest(record.params) for record in recorded.records]
    assert spearmanr(smooth.final[places], recorded.final).statistic > 0.9
    assert np.abs(smooth.values[places] - recorded.values).mean() < 0.02


def test_smooth_curves_know_choices_and_keys_that_are_not_always_active() -> None:
    smooth = SmoothCurves(model_of(RESNETS))
    recipe = dict(next(record.params for record in smooth.records if "augment.shift" in record.params))
    without = {name: value for name, value in recipe.items() if not name.startswith("augment.")}
    others = [recipe, {**recipe, "augment.shift": 0.0501}, {**without, "augment.policy": "none"}]
    places = [smooth.nearest(other) for other in others]
    assert len(set(smooth.final[places])) == 3
    assert not np.isnan(smooth.values).any()


def test_smooth_curves_know_every_recipe_and_move_little_with_it() -> None:
    smooth = SmoothCurves(model_of(HARD))
    recipe = dict(CURVES.records[0].params)
    first, again = smooth.nearest(recipe), smooth.nearest(recipe)
    nearby = smooth.nearest({**recipe, "lr": 1.001 * float(recipe["lr"])})
    assert (smooth.values[first] == smooth.values[again]).all()
    assert 0 < abs(smooth.final[first] - smooth.final[nearby]) < 0.001
    assert ((smooth.values > 0) & (smooth.values < 1)).all()


def test_a_model_takes_a_recipe_that_failed_for_the_worst() -> None:
    curves = rising(20, epochs=12)  # the higher the learning rate the better, but for those that fail
    failed = [Record({"optim.lr": 10 ** (-0.5 * n / 20)}, [0.9], [1.0], 2, "diverged") for n in range(20)]
    model = CurveModel(Curves(SPACE, 12, [*curves.records, *failed]))
    codes = np.array([model.encoding.encode({"optim.lr": lr}) for lr in (0.9, 0.1)])
    assert model.curves(codes)[0, -1] < model.curves(codes)[1, -1]


def test_a_replay_in_smooth_curves_is_measured_by_random_recipes() -> None:
    smooth = SmoothCurves(model_of(HARD))
    references = smooth.final
    found = replay(method("random+asha").make(smooth, 0), smooth, workers=4, budget_epochs=520)
    incumbent = found.incumbent(520)
    assert incumbent is not None and incumbent >= len(references) == REFERENCES
    assert regret_of(smooth.final[incumbent], references) < 60
    assert len(smooth.records) == REFERENCES + found.trials


def test_a_model_ranks_what_it_was_fitted_on_better_than_what_was_left_out() -> None:
    found = rank_correlation(CURVES, model_of(HARD), folds=2)
    assert 0.3 < found.left_out < 0.9 < found.fitted
    assert 0.3 < found.nearest < found.fitted


def test_tables_of_as_many_epochs_are_compared_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tables = [HARD, IMBALANCED, RESNETS]
    keys = [key_of(Task(table, "random", seed, "smooth")) for table in tables for seed in range(20)]
    out = tmp_path / "known.json"
    out.write_text(json.dumps(dict.fromkeys(keys, OUTCOME)))
    options = ["--smooth", "--methods", "random", "--out", str(out), "--tables", *map(str, tables)]
    monkeypatch.setattr("sys.argv", ["policy", *options])
    main()
    printed = capsys.readouterr().out
    assert "(2080 epochs), 10 seeds for each table." in printed
    assert "(1080 epochs), 20 seeds." in printed
    assert printed.count("| tunekit: random, none |") == 2


def test_what_answers_differently_is_cached_apart() -> None:
    assert len({key_of(Task(HARD, "random", 0, answers)) for answers in get_args(Answers)}) == 3


def test_each_recorded_recipe_answers_once_until_all_have() -> None:
    recorded = rising(6, 5)
    once, best = EachOnce(recorded), recorded.records[-1].params
    assert [once.nearest(best) for _ in recorded.records] == [5, 4, 3, 2, 1, 0]
    assert once.nearest(best) == 5
    found = replay(
        method("random").make(EachOnce(recorded), 0), EachOnce(recorded), workers=1, budget_epochs=30
    )
    assert found.trials == 6 and found.incumbent(30) == 5


@pytest.mark.slow
def test_ray_tells_optuna_that_a_stopped_trial_is_complete_with_the_value_that_it_had() -> None:
    curves = rising(30, epochs=9)
    tune = RayTune(SPACE, 9, 0, 1, 3)
    replay(tune, curves, workers=4, budget_epochs=90)
    ended = [trial for trial in tune._searcher._ot_study.trials if trial.state.is_finished()]
    assert {trial.state for trial in ended} == {TrialState.COMPLETE}
    stopped = [trial for trial in ended if not trial.intermediate_values]
    assert stopped, "the result that stops a trial at its first epoch is no intermediate value"
    assert all(trial.value is not None for trial in stopped)


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in METHODS if n.endswith("-default") and installed(n)])
def test_a_peer_that_is_told_the_default_recipe_tries_it_first(name: str) -> None:
    space = load_space(find_space("resnet"))
    default = space.default_params()
    peer = method(name).make(Curves(space, 9, [Record(default, [0.5] * 9, [1.0] * 9)]), 0)
    assert peer.next().params == default
    assert peer.next().params != default


def test_warm_starts_are_those_that_serve_all_tables_best(tmp_path: Path) -> None:
    files, log_lrs = [tmp_path / "low.json.gz", tmp_path / "high.json.gz"], np.linspace(-3, 0, 31)
    for file, peak, drawn in zip(files, (-2.0, -1.0), (log_lrs[::2], log_lrs[1::2]), strict=True):
        recipes = [
            {
                "params": {"optim.lr": 10**log_lr},
                "values": list((0.9 - (log_lr - peak) ** 2 / 8) * RISE),
                "seconds": [1] * len(RISE),
            }
            for log_lr in drawn
        ]
        space = '[space]\n"optim.lr" = { low = 1e-3, high = 1.0, log = true }'
        write_table({"space": space, "fixed": {}, "epochs": len(RISE), "recipes": recipes}, file)

    found = [math.log10(float(params["optim.lr"])) for params in warm_starts(files, count=3)]

    assert found == pytest.approx([-1.5, -1.5, -1.5], abs=0.35)


def test_warm_starts_change_what_is_replayed_for_tunekit_alone(tmp_path: Path) -> None:
    file = tmp_path / "warm.toml"
    file.write_text('[[warm_start]]\n"optim.lr" = 0.5\n')
    assert read_warm_starts(file) == ({"optim.lr": 0.5},)
    for name in ("tunekit", "ray"):
        same = key_of(Task(RESNETS, name, 0, warm_starts=file)) == key_of(Task(RESNETS, name, 0))
        assert same == (name == "ray")


def test_a_prior_changes_what_is_replayed_for_tunekit_alone(tmp_path: Path) -> None:
    file = tmp_path / "others.prior.json.gz"
    file.write_bytes(gzip.compress(json.dumps(prior_of([TABLES[1]])).encode()))
    for name in ("tunekit", "ray"):
        same = key_of(Task(RESNETS, name, 0, prior=file)) == key_of(Task(RESNETS, name, 0))
        assert same == (name == "ray")
    curves = curves_of(read_table(RESNETS))
    space = dataclasses.replace(curves.space, prior=str(file))
    (taught,) = read_prior(Path(), space)
    assert len(taught.evidence.trials) == 300
    curves.space = space
    policies = [method(name).make(curves, 0) for name in ("tunekit", "from-scratch")]
    assert [bool(policy.teachers) for policy in policies if isinstance(policy, SearchPolicy)] == [True, False]


def test_the_prior_that_comes_with_the_space_is_that_of_the_tables() -> None:
    shipped = find_space("resnet").with_name(load_space(find_space("resnet")).prior)
    known = json.loads(gzip.decompress(shipped.read_bytes()))
    assert known == json.loads(json.dumps(prior_of(TABLES)))
