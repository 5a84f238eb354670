"""What holds for every space, recipe, history, name and address: hypothesis draws, always the same."""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import Any

import optuna
import pytest
import tomlkit
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from tunekit.errors import RecipeError, SearchError, SpaceError, TrackingError
from tunekit.history import Event, EventKind, History
from tunekit.paths import search_paths
from tunekit.recipe import RECIPE_KEYS, Recipe, RecipeKey, Value
from tunekit.space import SearchSpace, load_space, parse_assignment
from tunekit.tracking.server import masked, tracking_uri

always_the_same = settings(
    derandomize=True,
    max_examples=200,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)

NUMBERS = [key for key in RECIPE_KEYS.values() if key.type in (int, float)]
WORDS = [key for key in RECIPE_KEYS.values() if key.rule.choices and not key.rule.joined]
FLAGS = [key for key in RECIPE_KEYS.values() if key.type is bool]
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.datetimes(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


def legal(key: RecipeKey) -> st.SearchStrategy[Value]:
    """Any value that the key's rule allows."""
    rule = key.rule
    if rule.joined:
        return st.sets(st.sampled_from(rule.choices)).map(
            lambda chosen: "+".join(name for name in rule.choices if name in chosen) or "none"
        )
    if rule.choices:
        named = [st.text(min_size=1, max_size=9).map(prefix.__add__) for prefix in rule.prefixes]
        return st.one_of(st.sampled_from(rule.choices), *named)
    if key.type is bool:
        return st.booleans()
    assert rule.low is not None and rule.high is not None
    if key.type is int:
        return st.integers(int(rule.low), int(rule.high))
    return st.floats(rule.low, rule.high)


def illegal(key: RecipeKey) -> st.SearchStrategy[Any]:
    """Values of the key's own type outside its rule, and values of other types."""
    rule = key.rule
    others: list[st.SearchStrategy[Any]] = [st.none(), st.lists(st.integers(), max_size=2)]
    others.append(st.one_of(st.integers(), st.text()) if key.type is bool else st.booleans())
    if key.type is not str:
        others.append(st.text())
    if rule.low is not None and rule.high is not None:
        others.append(st.sampled_from([math.nan, math.inf, -math.inf, 10**400, -(10**400)]))
        below, above = math.ceil(rule.low) - 1, math.floor(rule.high) + 1
        beyond = st.one_of(st.integers(below - 10**9, below), st.integers(above, above + 10**9))
        others.append(beyond if key.type is int else beyond.map(float))
    if key.type is int:
        others.append(st.floats())
    if rule.choices:
        others.append(
            st.sampled_from(["", "timm", "timm:", "file:", "x", "NONE", "flip+", "cutmix+flip", "flip+flip"])
        )
    return st.one_of(others)


RECIPES = st.fixed_dictionaries({}, optional={name: legal(key) for name, key in RECIPE_KEYS.items()})


@st.composite
def ranges(draw: st.DrawFn, key: RecipeKey) -> dict[str, Any]:
    """Two bounds within the key's rule, perhaps on a log scale or in steps."""
    low, high = sorted((draw(legal(key)), draw(legal(key))), key=float)
    assume(float(low) < float(high) and float(high) - float(low) > 1e-9)
    spec: dict[str, Any] = {"low": low, "high": high}
    kind = draw(st.sampled_from(["plain", "log", "step"]))
    if kind == "log" and float(low) > 0:
        spec["log"] = True
    elif kind == "step":
        width = (float(high) - float(low)) / draw(st.integers(1, 9))
        spec["step"] = max(1, int(width)) if key.type is int else width
    return spec


@st.composite
def choices(draw: st.DrawFn, key: RecipeKey) -> dict[str, Any]:
    return {"choices": draw(st.lists(legal(key), min_size=1, max_size=4, unique=True))}


@st.composite
def spaces(draw: st.DrawFn) -> dict[str, Any]:
    """Any space file that follows the rules: some keys vary, others are fixed, some depend on a choice."""
    keys = draw(st.lists(st.sampled_from([*NUMBERS, *WORDS, *FLAGS]), min_size=1, max_size=6, unique=True))
    space: dict[str, dict[str, Any]] = {}
    for key in keys:
        numeric = key.type in (int, float) and draw(st.booleans())
        spec = draw(ranges(key) if numeric else choices(key))
        deciding = [name for name, other in space.items() if "choices" in other]
        depends = draw(st.booleans())
        if deciding and depends:
            on: str = draw(st.sampled_from(deciding))
            offered: list[Value] = space[on]["choices"]
            values = draw(st.lists(st.sampled_from(offered), min_size=1, unique=True))
            spec["when"] = {on: values}
        if draw(st.booleans()):
            spec["role"] = draw(st.sampled_from(["scientific", "nuisance"]))
        space[key.name] = spec
    free = [key for key in RECIPE_KEYS.values() if key.name not in space]
    fixed = {
        key.name: draw(legal(key)) for key in draw(st.lists(st.sampled_from(free), max_size=3, unique=True))
    }
    order = draw(st.permutations(list(space)))  # a condition may stand before what it depends on
    return {"fixed": fixed, "space": {name: space[name] for name in order}}


def write(path: Path, tables: dict[str, Any]) -> Path:
    path.write_text(tomlkit.dumps(tables), encoding="utf-8")
    return path


# Spaces.


@always_the_same
@given(tables=spaces(), seed=st.integers(0, 1000))
def test_a_space_proposes_valid_recipes_within_its_ranges(
    tables: dict[str, Any], seed: int, tmp_path: Path
) -> None:
    space = load_space(write(tmp_path / "s.toml", tables))
    assert space == SearchSpace.from_dict(tables, space.source)  # what was written is what is read
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    with warnings.catch_warnings():
        # Of Optuna: the last step of a range may end before its upper bound.
        warnings.filterwarnings("ignore", "The distribution is specified by", UserWarning)
        proposed = [space(study.ask()) for _ in range(3)]
    for params in (*proposed, space.default_params()):
        recipe = space.recipe(params)
        assert space.params_of(recipe) == params
        known = {**space.fixed, **params}
        for name, parameter in space.parameters.items():
            allowed = tables["space"][name].get("when", {})
            assert (name in params) == all(known.get(key) in values for key, values in allowed.items())
            if name in params:
                assert parameter.holds(params[name])


BROKEN: dict[str, Any] = {
    "field": {"lo": 1},
    "no range": {},
    "no high": {"low": 0.1},
    "turned round": {"low": 0.5, "high": 0.1},
    "same": {"low": 0.5, "high": 0.5},
    "NaN": {"low": math.nan, "high": 0.5},
    "infinite": {"low": 0.1, "high": math.inf},
    "text": {"low": "0.1", "high": 0.5},
    "flag": {"low": False, "high": 0.5},
    "log": {"low": 0.0, "high": 0.5, "log": True},
    "log is a word": {"low": 0.1, "high": 0.5, "log": "yes"},
    "step of a log": {"low": 0.1, "high": 0.5, "log": True, "step": 0.1},
    "step": {"low": 0.1, "high": 0.5, "step": -0.1},
    "no choices": {"choices": []},
    "twice": {"choices": [0.1, 0.1]},
    "both": {"choices": [0.1], "low": 0.1},
    "a list": [0.1, 0.5],
    "role": {"low": 0.1, "high": 0.5, "role": "main"},
    "on nothing": {"low": 0.1, "high": 0.5, "when": {"optim.nane": ["sgd"]}},
    "on itself": {"low": 0.1, "high": 0.5, "when": {"optim.clip_norm": [0.1]}},
    "no values": {"low": 0.1, "high": 0.5, "when": {"optim.clip_norm": []}},
    "beyond its rule": {"low": 0.1, "high": 1000.5},
    "choice beyond its rule": {"choices": [0.1, -1.0]},
}


@pytest.mark.parametrize("name", BROKEN)
@settings(always_the_same, max_examples=10)
@given(tables=spaces())
def test_one_broken_rule_is_named_with_its_key(name: str, tables: dict[str, Any]) -> None:
    key = "optim.clip_norm"
    tables["fixed"].pop(key, None)
    tables["space"][key] = BROKEN[name]
    assume(not any(key in spec.get("when", {}) for other, spec in tables["space"].items() if other != key))
    with pytest.raises(SpaceError) as caught:
        SearchSpace.from_dict(tables, "s.toml").check_recipe_keys()
    assert str(caught.value).startswith("s.toml: ")
    assert key in str(caught.value)
    assert "\n" not in str(caught.value)


@always_the_same
@given(tables=st.dictionaries(st.sampled_from(["fixed", "space", "baseline", "baselines", "x"]), ANYTHING))
def test_whatever_a_space_holds_it_is_read_or_refused(tables: dict[str, Any]) -> None:
    try:
        SearchSpace.from_dict(tables).check_recipe_keys()
    except SpaceError:
        return


@always_the_same
@given(
    spec=st.dictionaries(st.sampled_from(["low", "high", "log", "step", "choices", "when", "role"]), ANYTHING)
)
def test_whatever_a_key_of_a_space_holds_it_is_read_or_refused(spec: dict[str, Any]) -> None:
    try:
        space = SearchSpace.from_dict({"space": {"optim.lr": spec}}).check_recipe_keys()
    except SpaceError:
        return
    assert space.recipe(space.default_params())


# Recipes.


@always_the_same
@given(flat=RECIPES)
def test_a_recipe_and_its_flat_form_say_the_same(flat: dict[str, Value]) -> None:
    recipe = Recipe.from_flat(flat)
    whole = recipe.to_flat()
    assert Recipe.from_flat(whole) == recipe
    assert list(whole) == list(RECIPE_KEYS)
    assert {name: whole[name] for name in flat} == flat


@pytest.mark.parametrize("key", RECIPE_KEYS.values(), ids=lambda key: key.name)
@settings(always_the_same, max_examples=20)
@given(data=st.data())
def test_values_outside_a_rule_are_refused(key: RecipeKey, data: st.DataObject) -> None:
    value = data.draw(illegal(key))
    with pytest.raises(RecipeError) as caught:
        Recipe.from_flat({key.name: value})
    assert key.name in str(caught.value)


@always_the_same
@given(values=st.dictionaries(st.sampled_from(list(RECIPE_KEYS)) | st.text(), ANYTHING, max_size=3))
def test_whatever_a_recipe_holds_it_is_built_or_refused(values: dict[str, Any]) -> None:
    try:
        Recipe.from_flat(values)
    except RecipeError:
        return


@always_the_same
@given(data=st.data(), key=st.sampled_from([*NUMBERS, *FLAGS, RECIPE_KEYS["augment.policy"]]))
def test_set_reads_what_a_space_file_writes(data: st.DataObject, key: RecipeKey) -> None:
    value = data.draw(legal(key))
    written = str(value).lower() if isinstance(value, bool) else str(value)
    assert parse_assignment(f" {key.name} = {written}") == (key.name, value)


@always_the_same
@given(text=st.text() | st.builds("{}={}".format, st.sampled_from(list(RECIPE_KEYS)), st.text()))
def test_whatever_set_is_given_it_is_read_or_refused(text: str) -> None:
    try:
        name, value = parse_assignment(text)
    except RecipeError:
        return
    assert Recipe.from_flat({name: value}).to_flat()[name] == value


# History.


@st.composite
def histories(draw: st.DrawFn) -> list[Event]:
    """Events as a policy makes them: trials begin, train epoch by epoch, pause and go on, and end."""
    ends: tuple[EventKind, ...] = ("complete", "stop", "fail", "lose")
    kinds: tuple[EventKind, ...] = ("suggest", "result", "result", "result", "pause", *ends)
    events: list[Event] = []
    epochs: dict[int, int] = {}
    paused: set[int] = set()
    values, reasons = st.floats(0, 1), st.text(max_size=9)
    for time in range(draw(st.integers(1, 25))):
        when = 1.7e9 + time
        step = draw(st.sampled_from(kinds))
        if step == "suggest" or not epochs:
            trial = len({event.trial for event in events})
            events.append(Event("suggest", trial, when, params={"optim.lr": draw(st.floats(1e-7, 10))}))
            epochs[trial] = 0
            continue
        trial = draw(st.sampled_from(sorted(epochs)))
        if trial in paused:
            paused.remove(trial)
            events.append(Event("resume", trial, when))
        elif step == "result":
            epochs[trial] += 1
            events.append(Event("result", trial, when, epoch=epochs[trial], value=draw(values), worker="é:1"))
        elif step == "pause":
            paused.add(trial)
            events.append(Event("pause", trial, when, epoch=epochs[trial]))
        else:
            reason = draw(reasons) if step in ("fail", "lose") else None
            events.append(Event(step, trial, when, epoch=epochs.pop(trial), reason=reason))
    return events


@always_the_same
@given(events=histories(), share=st.floats(0, 1))
def test_a_history_torn_anywhere_is_its_whole_lines(
    events: list[Event], share: float, tmp_path: Path
) -> None:
    file = tmp_path / "history.jsonl"
    file.unlink(missing_ok=True)
    history = History(file)
    history.append(*events)
    history.close()
    assert History.read(file).trials == history.trials
    content = file.read_bytes()
    torn = content[: round(share * len(content))]
    file.write_bytes(torn)
    left = events[: torn.count(b"\n")]
    read = History.read(file)
    assert list(read.events) == left
    assert read.trials == History(events=left).trials
    # What is written next begins a line of its own.
    again = History.read(file)
    again.append(Event("suggest", 999, 1.8e9, params={}))
    again.close()
    assert History.read(file).events[:-1] == left


# Names and addresses.


@always_the_same
@given(name=st.text() | st.text("a.-_/\\~\0\n ", max_size=6))
def test_an_accepted_search_name_stays_in_the_results_folder(name: str, tmp_path: Path) -> None:
    try:
        folder = search_paths(tmp_path, name).folder
    except SearchError:
        return
    assert folder.parent == tmp_path.resolve()
    assert folder.name == name
    assert folder.resolve() == folder


def refusal(uri: str) -> str | None:
    with pytest.MonkeyPatch.context() as environment:
        for name in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"):
            environment.setenv(name, "")  # what the login leaves in there goes with it
        try:
            tracking_uri(Path(), uri)
        except TrackingError as error:
            return str(error)
    return None


SECRETS = st.text(st.characters(exclude_categories=["Cs", "Zs", "Zl", "Zp", "Cc"]), min_size=1).map(
    lambda text: f"sec{text}ret"
)


@always_the_same
@given(user=st.text("ab.@%-", max_size=6), secret=SECRETS, words=st.text("ab c\n", max_size=6))
def test_no_password_survives_masking(user: str, secret: str, words: str) -> None:
    uri = f"https://{user}:{secret}@host:1/x"
    said = refusal(uri)
    if said is not None:  # before it is shown anywhere
        assert secret not in said
        return
    shown = masked(f"{words} {uri} {words}")
    assert secret not in shown
    assert shown == f"{words} https://{user}:***@host:1/x {words}"
