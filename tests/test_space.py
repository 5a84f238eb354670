"""Search spaces: what they propose, and the one line that each mistake gets."""

from pathlib import Path
from typing import Any

import optuna
import pytest

from tunekit.baselines import Baseline
from tunekit.errors import RecipeError, SpaceError
from tunekit.paths import find_space
from tunekit.recipe import Recipe
from tunekit.space import SearchSpace, load_space, parse_assignment

CONDITIONAL: dict[str, Any] = {
    "fixed": {"schedule.name": "cosine"},
    "space": {
        # The condition stands before the key that it names: order in the file is free.
        "optim.momentum": {"low": 0.0, "high": 0.99, "when": {"optim.name": ["sgd"]}},
        "optim.name": {"choices": ["sgd", "adam"], "role": "scientific"},
        "optim.lr": {"low": 1e-4, "high": 1.0, "log": True},
        "batch_size": {"low": 16, "high": 64, "step": 16},
    },
}


def propose(space: SearchSpace, seed: int) -> dict[str, Any]:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    return space(study.ask())


def test_proposals_keep_ranges_steps_and_conditions() -> None:
    space = SearchSpace.from_dict(CONDITIONAL).check_recipe_keys()
    seen = [propose(space, seed) for seed in range(60)]
    for params in seen:
        assert 1e-4 <= params["optim.lr"] <= 1.0
        assert params["batch_size"] in (16, 32, 48, 64)
        assert ("optim.momentum" in params) == (params["optim.name"] == "sgd")
        assert "schedule.name" not in params
        assert isinstance(space.recipe(params), Recipe)
    assert {params["optim.name"] for params in seen} == {"sgd", "adam"}
    below = sum(params["optim.lr"] < 1e-2 for params in seen)
    assert 15 <= below <= 45  # half of a log range lies below its geometric middle


def test_whole_number_bounds_make_a_whole_number_range() -> None:
    space = SearchSpace.from_dict({"space": {"batch_size": {"low": 1, "high": 9}}})
    assert isinstance(propose(space, 0)["batch_size"], int)
    space = SearchSpace.from_dict({"space": {"optim.lr": {"low": 1, "high": 9.0}}})
    assert isinstance(propose(space, 0)["optim.lr"], float)


def test_structure_is_checked_without_recipe_keys() -> None:
    space = SearchSpace.from_dict({"space": {"layers": {"low": 1, "high": 5}}})
    assert 1 <= propose(space, 0)["layers"] <= 5
    with pytest.raises(SpaceError, match="unknown recipe key 'layers'"):
        space.check_recipe_keys()


def test_fixing_a_key_takes_it_out_of_the_space_and_feeds_conditions() -> None:
    space = SearchSpace.from_dict(CONDITIONAL).with_fixed({"optim.name": "sgd"})
    assert "optim.name" not in space.parameters
    params = propose(space, 0)
    assert "optim.momentum" in params
    assert space.recipe(params).optim.name == "sgd"
    assert "optim.momentum" not in propose(space.with_fixed({"optim.name": "adam"}), 0)


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ({"spaces": {}}, "unknown table 'spaces' (did you mean 'space'?)"),
        ({"space": {"optim.lr": 3}}, "optim.lr: must be { low, high } or { choices }, but got 3"),
        ({"space": {"optim.lr": {"low": 1.0}}}, "optim.lr: needs high (or choices)"),
        ({"space": {"optim.lr": {"low": 1.0, "high": 0.1}}}, "optim.lr: low must be below high"),
        ({"space": {"optim.lr": {"low": 0, "high": 1.0, "log": True}}}, "above 0 on a log scale"),
        ({"space": {"optim.lr": {"low": "1e-4", "high": 1.0}}}, "low must be a number, but got '1e-4'"),
        ({"space": {"optim.lr": {"lo": 1e-4, "high": 1.0}}}, "unknown field 'lo' (did you mean 'low'?)"),
        ({"space": {"optim.lr": {"low": 0.1, "high": float("inf")}}}, "must be finite"),
        ({"space": {"optim.lr": {"low": 0.1, "high": 1.0, "log": True, "step": 0.1}}}, "cannot have a step"),
        ({"space": {"optim.lr": {"low": 0.1, "high": 1.0, "log": "yes"}}}, "log must be true or false"),
        ({"space": {"batch_size": {"low": 1, "high": 9, "step": 0.5}}}, "step of a whole-number range"),
        ({"space": {"optim.name": {"choices": []}}}, "choices must be a list that is not empty"),
        ({"space": {"optim.name": {"choices": ["sgd", "sgd"]}}}, "choices must differ"),
        ({"space": {"optim.name": {"choices": ["sgd"], "low": 1}}}, "has choices, so it cannot have 'low'"),
        ({"space": {"optim.name": {"choices": ["sgd"], "role": "main"}}}, "role must be one of"),
        ({"space": {"optim": {"lr": {"low": 1, "high": 2}}}}, 'write "optim.lr" = { ... }'),
        (
            {"space": {"optim.momentum": {"low": 0.0, "high": 0.9, "when": {"optim.nam": ["sgd"]}}}},
            "when names 'optim.nam', which is not in this space",
        ),
        (
            {
                "space": {
                    "optim.name": {"choices": ["sgd", "adam"]},
                    "optim.momentum": {"low": 0.0, "high": 0.9, "when": {"optim.name": ["sdg"]}},
                }
            },
            "which is none of its choices (did you mean 'sgd'?)",
        ),
        (
            {
                "space": {
                    "a": {"choices": [1, 2], "when": {"b": [1]}},
                    "b": {"choices": [1, 2], "when": {"a": [1]}},
                }
            },
            "its conditions go round in a circle",
        ),
        ({"fixed": {"a": 1}, "space": {"a": {"choices": [1, 2]}}}, "stands in both tables"),
        ({"baseline": [{"recipe": {}}]}, "baseline: needs a name"),
        ({"baseline": [{"name": "x"}]}, "baseline x: needs recipe"),
        ({"baseline": 3}, "must be written as [[baseline]]"),
        ({"baseline": [{"name": "x", "recipe": {}}] * 2}, "baseline x: the name is taken"),
        ({"baseline": [{"name": "x", "epoch": 3}]}, "unknown field 'epoch' (did you mean 'epochs'?)"),
        (
            {"baseline": [{"name": "x", "epochs": "3"}]},
            "baseline x: epochs must be a whole number, but got '3'",
        ),
        ({"baseline": [{"name": "x", "like": "y"}]}, "baseline x: like: no earlier baseline 'y'"),
        ({"baseline": [{"name": "A-mnist-vgg16", "recipe": {}}], "baselines": ["A-*"]}, "of the catalogue"),
        ({"baselines": "A-*"}, "baselines: must be a list of names or patterns"),
        (
            {"baselines": ["B-mnist-vg16"]},
            "no baseline called 'B-mnist-vg16' (did you mean 'B-mnist-vgg16'?)",
        ),
    ],
)
def test_a_broken_rule_is_named_with_file_and_key(tables: dict[str, Any], message: str) -> None:
    with pytest.raises(SpaceError) as error:
        SearchSpace.from_dict(tables, "my.toml")
    assert str(error.value).startswith("my.toml: ")
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            {"optim.lrr": {"low": 0.1, "high": 1.0}},
            "unknown recipe key 'optim.lrr' (did you mean 'optim.lr'?)",
        ),
        ({"optim.lr": {"low": 0.1, "high": 100.0}}, "optim.lr must be 1e-07 to 10, but got 100"),
        ({"optim.name": {"choices": ["sgd", "adan"]}}, "but got 'adan' (did you mean 'adam'?)"),
        ({"epochs": {"low": 1, "high": 9}}, "use --epochs"),
        ({"batch_size": {"low": 1.0, "high": 9.0}}, "batch_size must be a whole number"),
    ],
)
def test_keys_of_a_space_must_be_recipe_keys(spec: dict[str, Any], message: str) -> None:
    with pytest.raises(SpaceError) as error:
        SearchSpace.from_dict({"space": spec}, "my.toml").check_recipe_keys()
    assert message in str(error.value)


def test_keys_of_a_baseline_must_be_recipe_keys() -> None:
    tables = {"baseline": [{"name": "x", "recipe": {"optim.lrr": 0.1}}]}
    with pytest.raises(SpaceError, match=r"my.toml: baseline x: unknown recipe key 'optim.lrr'"):
        SearchSpace.from_dict(tables, "my.toml").check_recipe_keys()


def test_files_that_are_no_toml_get_one_line(tmp_path: Path) -> None:
    broken = tmp_path / "broken.toml"
    broken.write_text("[space\n")
    with pytest.raises(SpaceError, match="is not TOML"):
        load_space(broken)
    broken.write_bytes(b"\xff\xfe")
    with pytest.raises(SpaceError, match="is not UTF-8"):
        load_space(broken)
    with pytest.raises(SpaceError, match=r"no search space called 'resnt'.*did you mean 'resnet'"):
        find_space("resnt")


LEARNED = Recipe.from_flat({"optim.lr": 0.01, "optim.momentum": 0.9, "batch_size": 32})


def test_a_recipe_inside_the_space_has_params_in_it() -> None:
    space = SearchSpace.from_dict(CONDITIONAL)
    params = {"optim.name": "sgd", "optim.lr": 0.01, "optim.momentum": 0.9, "batch_size": 32}
    assert space.params_of(LEARNED) == params


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("optim.lr", 2.0),
        ("optim.name", "adamw"),
        ("batch_size", 40),
        ("batch_size", 80),
        ("optim.momentum", 0.995),
    ],
)
def test_a_recipe_outside_of_a_range_a_choice_or_a_grid_has_none(key: str, value: Any) -> None:
    outside = Recipe.from_flat({**LEARNED.to_flat(), key: value})
    assert SearchSpace.from_dict(CONDITIONAL).params_of(outside) is None


def test_what_is_not_active_or_does_not_vary_may_have_any_value() -> None:
    space = SearchSpace.from_dict(CONDITIONAL)
    adam = {**LEARNED.to_flat(), "optim.name": "adam", "optim.momentum": 0.995, "schedule.name": "step"}
    assert space.params_of(Recipe.from_flat(adam)) == {
        "optim.name": "adam",
        "optim.lr": 0.01,
        "batch_size": 32,
    }
    assert space.with_fixed({"optim.name": "adam"}).params_of(LEARNED) == {"optim.lr": 0.01, "batch_size": 32}


def test_params_of_a_proposal_are_the_proposal() -> None:
    grid = {
        "optim.momentum": {"low": 0.0, "high": 0.9, "step": 0.1},
        "model.depth": {"low": 1, "high": 5, "step": 2},
    }
    space = SearchSpace.from_dict({"space": {**grid, "optim.lr": {"low": 1e-4, "high": 1.0, "log": True}}})
    for seed in range(30):
        params = propose(space, seed)
        assert space.params_of(space.recipe(params)) == params


NETWORKS = SearchSpace.from_dict(
    {
        "fixed": {"init": "pretrained"},
        "space": {
            "model.name": {"choices": ["scratch", "vgg11", "googlenet"]},
            "model.bn_placement": {
                "choices": ["before_act", "none"],
                "when": {"model.name": ["scratch", "vgg11"]},
            },
            "model.depth": {"low": 2, "high": 6, "when": {"model.name": ["scratch"]}},
            "model.head": {"choices": ["gap", "fc4096"], "when": {"model.bn_placement": ["none"]}},
            "model.width": {"choices": [16, 32], "when": {"model.depth": [4]}},
            "optim.lr": {"low": 1e-3, "high": 1.0},
        },
    }
)


def test_default_params_are_the_recipe_s_own_where_the_space_has_them() -> None:
    space = SearchSpace.from_dict(CONDITIONAL).check_recipe_keys()
    default = Recipe()
    params = space.default_params()
    assert params["optim.name"] == default.optim.name
    assert params["optim.lr"] == default.optim.lr
    assert space.params_of(space.recipe(params)) == params
    without = space.with_fixed({"optim.name": "adam"}).default_params()
    assert set(without) == {"optim.lr", "batch_size"}


@pytest.mark.parametrize(
    ("spec", "value"),
    [
        ({"choices": ["b", "a"]}, "b"),
        ({"low": 0.0, "high": 3.0}, 1.5),
        ({"low": 1e-4, "high": 1.0, "log": True}, 1e-2),
        ({"low": 1, "high": 4}, 3),
        ({"low": 1, "high": 100, "log": True}, 10),
        ({"low": 0.1, "high": 0.35, "step": 0.1}, 0.2),
        ({"low": 0, "high": 7, "step": 5}, 5),
    ],
)
def test_the_default_of_a_key_without_one_is_its_first_choice_or_its_middle(spec: Any, value: Any) -> None:
    (parameter,) = SearchSpace.from_dict({"space": {"no_recipe_key": spec}}).parameters.values()
    assert parameter.default == pytest.approx(value) if isinstance(value, float) else value
    assert parameter.holds(parameter.default)


def with_warm_starts(*starts: Any) -> SearchSpace:
    return SearchSpace.from_dict({**CONDITIONAL, "warm_start": list(starts)}).check_recipe_keys()


def test_a_warm_start_says_only_what_differs_from_the_default_recipe() -> None:
    space = with_warm_starts({"batch_size": 32}, {"optim.name": "adam", "optim.lr": 0.5})
    default = space.default_params()
    adam = {"optim.name": "adam", "optim.lr": 0.5, "batch_size": default["batch_size"]}
    assert space.warm_start_params() == [{**default, "batch_size": 32}, adam]


def test_what_is_fixed_later_is_passed_over_in_a_warm_start() -> None:
    space = with_warm_starts({"optim.momentum": 0.5, "optim.lr": 0.5}).with_fixed({"optim.name": "adam"})
    assert space.warm_start_params() == [
        {"optim.lr": 0.5, "batch_size": space.default_params()["batch_size"]}
    ]


@pytest.mark.parametrize(
    ("starts", "message"),
    [
        ({"optim.lr": 0.1}, "warm_start: must be written as [[warm_start]], but got {'optim.lr': 0.1}"),
        ([3], "warm_start: must be written as [[warm_start]], but got [3]"),
        (
            [{}, {"optm.lr": 0.1}],
            "warm_start 2: 'optm.lr' does not vary in this space (did you mean 'optim.lr'?)",
        ),
        ([{"schedule.name": "step"}], "warm_start 1: 'schedule.name' does not vary in this space"),
        ([{"optim.lr": 2.0}], "warm_start 1: optim.lr = 2.0, but it lies in 0.0001 to 1 (log)"),
        ([{"optim.lr": True}], "warm_start 1: optim.lr = True, but it lies in 0.0001 to 1 (log)"),
        ([{"optim.lr": [0.1]}], "warm_start 1: optim.lr = [0.1], but it lies in 0.0001 to 1 (log)"),
        ([{"batch_size": 33}], "warm_start 1: batch_size = 33, but it lies in 16 to 64 in steps of 16"),
        ([{"optim.name": "lion"}], "warm_start 1: optim.name = 'lion', but it lies in sgd | adam"),
        (
            [{"optim.name": "adam", "optim.momentum": 0.5}],
            "warm_start 1: 'optim.momentum' is not active here: its range is 0 to 0.99, when optim",
        ),
    ],
)
def test_a_warm_start_lies_in_the_space(starts: Any, message: str) -> None:
    with pytest.raises(SpaceError) as caught:
        SearchSpace.from_dict({**CONDITIONAL, "warm_start": starts}, "my.toml")
    assert str(caught.value).startswith(f"my.toml: {message}")


def test_every_proposal_of_a_finite_space_comes_once_and_optuna_makes_the_same() -> None:
    space = SearchSpace.from_dict(
        {
            "space": {
                "kind": {"choices": ["a", "b"]},
                "rate": {"low": 0.1, "high": 0.35, "step": 0.1, "when": {"kind": ["a"]}},
                "depth": {"low": 2, "high": 9, "step": 3, "when": {"kind": ["b"]}},
            }
        }
    )
    every = {tuple(params.items()) for params in space.every()}
    assert len(every) == len(list(space.every())) == 6
    with pytest.warns(UserWarning, match="not divisible"):
        assert {tuple(propose(space, seed).items()) for seed in range(60)} == every


def test_a_continuous_range_has_no_end_of_proposals() -> None:
    space = SearchSpace.from_dict({"space": {"x": {"low": 1.0, "high": 16.0, "log": True}}})
    values = [params["x"] for params, _ in zip(space.every(), range(200), strict=False)]
    assert values[:5] == pytest.approx([1, 16, 4, 2, 8])
    assert len(set(values)) == 200


def test_combinations_are_what_the_space_can_reach() -> None:
    assert list(NETWORKS.combinations("model.name", "model.bn_placement", "init", "input.size")) == [
        {"model.name": name, "model.bn_placement": placement, "init": "pretrained", "input.size": 0}
        for name, placement in [
            ("scratch", "before_act"),
            ("scratch", "none"),
            ("vgg11", "before_act"),
            ("vgg11", "none"),
            ("googlenet", "before_act"),
        ]
    ]


def test_conditions_of_conditions_decide_and_nothing_comes_twice() -> None:
    assert [c["model.head"] for c in NETWORKS.combinations("model.head")] == ["gap", "fc4096"]
    with_heads = list(NETWORKS.with_fixed({"model.name": "googlenet"}).combinations("model.head"))
    assert with_heads == [{"model.head": "gap"}]


def test_a_range_gives_its_ends_and_what_conditions_name() -> None:
    scratch = NETWORKS.with_fixed({"model.name": "scratch", "model.bn_placement": "none"})
    assert {c["model.depth"] for c in scratch.combinations("model.depth")} == {2, 4, 6}
    widths = {
        (c["model.depth"], c["model.width"]) for c in scratch.combinations("model.depth", "model.width")
    }
    assert widths == {(2, 32), (6, 32), (4, 16), (4, 32)}


def test_a_space_names_baselines_of_the_catalogue_and_has_its_own() -> None:
    own = {"name": "mine", "recipe": {"optim.lr": 0.2}}
    tables = {"baselines": ["B-mnist-vgg1?", "D-mnist-vgg16", "B-mnist-vgg*"], "baseline": [own]}
    names = [baseline.name for baseline in SearchSpace.from_dict(tables).baselines]
    assert names[:4] == ["B-mnist-vgg16", "B-mnist-vgg11", "B-mnist-vgg19", "D-mnist-vgg16"]
    assert names[-1] == "mine"
    assert len(set(names)) == len(names) > 5


def test_a_baseline_like_another_says_only_what_differs() -> None:
    first = {
        "name": "a",
        "recipe": {"optim.lr": 0.2, "batch_size": 8},
        "dataset": "mnist",
        "reported_accuracy": 9.5,
    }
    second = {"name": "b", "like": "a", "recipe": {"optim.lr": 0.1}, "epochs": 3}
    _, read = SearchSpace.from_dict({"baseline": [first, second]}).baselines
    assert read == Baseline("b", {"optim.lr": 0.1, "batch_size": 8}, "mnist", None, 3)


def test_a_space_needs_nothing_that_varies_to_hold_baselines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "space.toml").write_text('baselines = ["A-mnist-*"]\n')
    monkeypatch.chdir(tmp_path)  # the catalogue is found from anywhere
    space = load_space(Path("space.toml"))
    assert len(space.baselines) == 5
    assert list(space.combinations("model.name")) == [{"model.name": "resnet20"}]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("optim.lr=1e-3", ("optim.lr", 1e-3)),
        ("optim.name=sgd", ("optim.name", "sgd")),
        ('optim.name="sgd"', ("optim.name", "sgd")),
        ("optim.nesterov=true", ("optim.nesterov", True)),
        ("augment.policy=flip+cutout", ("augment.policy", "flip+cutout")),
    ],
)
def test_assignments_read_as_toml_or_words(text: str, expected: tuple[str, object]) -> None:
    assert parse_assignment(text) == expected


@pytest.mark.parametrize("text", ["optim.lr", "optim.lr=", "=1", "nope=1", "batch_size=0"])
def test_bad_assignments_are_refused(text: str) -> None:
    with pytest.raises(RecipeError):
        parse_assignment(text)
