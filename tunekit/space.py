"""Search spaces: which recipe keys vary, and how. Data (TOML), never code.

baselines = ["B-mnist-vgg*"]              # known recipes of the catalogue, by name or pattern

[fixed]                                   # keys that differ from the recipe's default but do not vary
"schedule.name" = "cosine"

[space]                                   # one line a key, in Optuna's words
"optim.lr"       = { low = 1e-4, high = 1.0, log = true }
"optim.momentum" = { low = 0.0, high = 0.99, when = { "optim.name" = ["sgd"] } }
"model.bn_placement" = { choices = ["before_act", "after_act", "none"], role = "scientific" }

[[warm_start]]                            # tried right after the default recipe; what is not said is as there
"optim.lr" = 0.02

[[baseline]]                              # known recipes of one's own: tunekit/baselines.py
name = "..."

A line `prior = "my.prior.json.gz"` above the tables names what recorded trainings showed: tuning/prior.py.
"""

from __future__ import annotations

import dataclasses
import math
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import count
from pathlib import Path
from typing import Any, Protocol

from tunekit.baselines import Baseline as Baseline
from tunekit.baselines import matching_baselines, read_baselines
from tunekit.errors import RecipeError, SpaceError, nearest
from tunekit.paths import find_prior
from tunekit.recipe import RECIPE_KEYS, Recipe, Value, check_value

ROLES = ("scientific", "nuisance")

Params = Mapping[str, Value]
"""What a space proposes: a value for each of its keys that is active."""

_PARAMETER_FIELDS = {"low", "high", "log", "step", "choices", "when", "role"}
_TABLES = {"fixed", "space", "warm_start", "baseline", "baselines", "description", "prior"}
_PRIOR = re.compile(r"\w[\w.-]*\.prior\.json\.gz", re.ASCII)


class Proposer(Protocol):
    """The three methods of an Optuna trial that a space asks for values."""

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = ..., log: bool = ...
    ) -> float: ...
    def suggest_int(self, name: str, low: int, high: int, *, step: int = ..., log: bool = ...) -> int: ...
    def suggest_categorical(self, name: str, choices: Any) -> Any: ...


@dataclass(frozen=True)
class Parameter:
    """One key that varies. Either `choices`, or `low`..`high` with both ends included."""

    name: str
    low: float | int | None = None
    high: float | int | None = None
    log: bool = False
    step: float | int | None = None
    choices: tuple[Value, ...] = ()
    when: Mapping[str, tuple[Value, ...]] = field(default_factory=dict)
    role: str = "nuisance"

    @property
    def integer(self) -> bool:
        """Whether the range is one of whole numbers (both bounds written as integers)."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    def active(self, values: Mapping[str, Value]) -> bool:
        """Whether every condition of `when` holds in `values`; an absent key fails it."""
        return all(name in values and values[name] in allowed for name, allowed in self.when.items())

    def suggest(self, trial: Proposer) -> Value:
        """Ask `trial` for a value of this key."""
        if self.choices:
            value: Value = trial.suggest_categorical(self.name, self.choices)
            return value
        assert self.low is not None and self.high is not None
        if self.integer:
            return trial.suggest_int(
                self.name, int(self.low), int(self.high), step=int(self.step or 1), log=self.log
            )
        return trial.suggest_float(self.name, float(self.low), float(self.high), step=self.step, log=self.log)

    def holds(self, value: Value) -> bool:
        """Whether the range or the choices have `value`; with a step, whether it lies on the grid."""
        if self.choices:
            return value in self.choices
        assert self.low is not None and self.high is not None
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or not self.low <= value <= self.high
        ):
            return False
        step = self.step or (1 if self.integer else None)
        return step is None or math.isclose((steps := (value - self.low) / step), round(steps), abs_tol=1e-8)

    @property
    def default(self) -> Value:
        """The recipe's own default if the range has it, else the first choice or the middle of the range."""
        key = RECIPE_KEYS.get(self.name)
        if key is not None and self.holds(key.default):
            return key.default
        return self.choices[0] if self.choices else self.on_grid(self._at(0.5))

    def values(self) -> Iterator[Value]:
        """Every value of the key, each once; those of a continuous range without end, ever finer."""
        if self.choices:
            yield from self.choices
            return
        assert self.low is not None and self.high is not None
        step = self.step or (1 if self.integer else None)
        if step is None:
            yield from (self._at(share) for share in _shares())
        else:
            steps = int((self.high - self.low) / step + 1e-8)
            yield from (self.on_grid(self.low + number * step) for number in range(steps + 1))

    def _at(self, share: float) -> float:
        """The value a share of the way from low to high, on the range's own scale."""
        assert self.low is not None and self.high is not None
        if self.log:
            return min(self.low * math.pow(self.high / self.low, share), self.high)
        return self.low + share * (self.high - self.low)

    def on_grid(self, value: float) -> float | int:
        """The value of a range with steps that is nearest to `value`; it is the one that Optuna means."""
        assert self.low is not None and self.high is not None
        step = self.step or (1 if self.integer else None)
        if step is None:
            return value
        low, high, width = (Decimal(str(number)) for number in (self.low, self.high, step))
        top = type(step)(high - (high - low) % width)  # decimals, since 0.1 + 2 * 0.1 is more than 0.3
        return min(round((value - self.low) / step) * step + self.low, top)

    def text(self) -> str:
        """The range in words: `0.0001 to 1 (log)`, `sgd | adam`."""
        if self.choices:
            words = " | ".join(str(choice) for choice in self.choices)
        else:
            words = f"{self.low:g} to {self.high:g}"
            words += f" in steps of {self.step:g}" if self.step else ""
            words += " (log)" if self.log else ""
        conditions = ", ".join(
            f"{name} = {' | '.join(map(str, allowed))}" for name, allowed in self.when.items()
        )
        return f"{words}, when {conditions}" if conditions else words


@dataclass(frozen=True)
class SearchSpace:
    """What varies, what is fixed, and the known recipes. Called with an Optuna trial it proposes."""

    parameters: Mapping[str, Parameter]
    fixed: Mapping[str, Value] = field(default_factory=dict)
    warm_starts: tuple[Params, ...] = ()
    baselines: tuple[Baseline, ...] = ()
    description: str = ""
    prior: str = ""  # name of a file beside the space's or among the shipped ones; or none
    source: str = "<dict>"

    def __call__(self, trial: Proposer) -> dict[str, Value]:
        """Values for the keys that are active, in an order in which conditions come first."""
        values = dict(self.fixed)
        for parameter in self.parameters.values():
            if parameter.active(values):
                values[parameter.name] = parameter.suggest(trial)
        return {name: values[name] for name in self.parameters if name in values}

    def recipe(self, params: Mapping[str, Value]) -> Recipe:
        """The whole recipe of a proposal: defaults, then fixed keys, then `params`."""
        return Recipe.from_flat({**self.fixed, **params})

    def params_of(self, recipe: Recipe) -> dict[str, Value] | None:
        """What this space would have to propose for `recipe`, as far as it varies keys.

        Returns:
            The keys of this space that are active, with the recipe's values; None if one lies outside
            its range or its choices or off its grid. The keys that do not vary may have any value.
        """
        flat = recipe.to_flat()
        params: dict[str, Value] = {}
        for parameter in self.parameters.values():
            if parameter.active({**self.fixed, **params}):
                if not parameter.holds(flat[parameter.name]):
                    return None
                params[parameter.name] = flat[parameter.name]
        return params

    def default_params(self) -> dict[str, Value]:
        """The space's default recipe: the recipe's own defaults wherever the ranges have them."""
        return self._completed({})

    def warm_start_params(self) -> list[dict[str, Value]]:
        """What to propose first: recipes that served on other data (Feurer et al. 2022, "Auto-Sklearn 2.0",
        JMLR 23, call such a list a portfolio).

        What a `[[warm_start]]` does not say is as in the default recipe; keys that were fixed since are
        passed over.
        """
        return [self._completed(given) for given in self.warm_starts]

    def _completed(self, given: Params) -> dict[str, Value]:
        values = dict(self.fixed)
        for parameter in self.parameters.values():
            if parameter.active(values):
                values[parameter.name] = given.get(parameter.name, parameter.default)
        return {name: values[name] for name in self.parameters if name in values}

    def every(self) -> Iterator[dict[str, Value]]:
        """Every proposal that the space can make, each once; without end if a range is continuous."""
        for values in self._completions(dict(self.fixed), list(self.parameters.values())):
            yield {name: values[name] for name in self.parameters if name in values}

    def _completions(self, values: dict[str, Value], left: list[Parameter]) -> Iterator[dict[str, Value]]:
        if not left:
            yield values
            return
        parameter, *rest = left
        if not parameter.active(values):
            yield from self._completions(values, rest)
            return
        for value in parameter.values():
            yield from self._completions({**values, parameter.name: value}, rest)

    def combinations(self, *names: str) -> Iterator[dict[str, Value]]:
        """Every combination of values of the keys `names` that the space can reach, each once.

        Args:
            names: recipe keys. Of a range both ends count, and the values that conditions name; a
                key that does not vary or is not active has its fixed value or the recipe's default.
        """
        reached: list[dict[str, Value]] = [dict(self.fixed)]
        decisive = self._with_conditions(names)
        for parameter in self.parameters.values():
            if parameter.name in decisive:
                reached = [more for values in reached for more in self._extended(values, parameter)]
        found = [{name: values.get(name, RECIPE_KEYS[name].default) for name in names} for values in reached]
        return iter({tuple(values.values()): values for values in found}.values())

    def _with_conditions(self, names: Iterable[str]) -> set[str]:
        """`names` and the keys on which it depends whether they are active."""
        found = set(names)
        for parameter in reversed(list(self.parameters.values())):  # conditions come first, so go back
            if parameter.name in found:
                found |= set(parameter.when)
        return found

    def _extended(self, values: dict[str, Value], parameter: Parameter) -> list[dict[str, Value]]:
        if not parameter.active(values):
            return [values]
        return [{**values, parameter.name: value} for value in self._telling_values(parameter)]

    def _telling_values(self, parameter: Parameter) -> tuple[Value, ...]:
        """The choices; of a range its ends, and the values in it that a condition names."""
        if parameter.choices:
            return parameter.choices
        assert parameter.low is not None and parameter.high is not None
        named = [value for other in self.parameters.values() for value in other.when.get(parameter.name, ())]
        return tuple(dict.fromkeys(filter(parameter.holds, (parameter.low, parameter.high, *named))))

    def with_fixed(self, values: Mapping[str, object]) -> SearchSpace:
        """This space with the keys of `values` fixed (the `--set` of one search).

        Raises:
            RecipeError: if a key does not exist, or its value breaks its rule.
        """
        fixed = {**self.fixed, **{name: check_value(name, value) for name, value in values.items()}}
        left = {name: p for name, p in self.parameters.items() if name not in fixed}
        return dataclasses.replace(self, fixed=fixed, parameters=left)

    @classmethod
    def from_dict(cls, tables: Mapping[str, Any], source: str = "<dict>") -> SearchSpace:
        """Check the structure of a parsed space file. Whether keys are recipe keys is `check_recipe_keys`.

        Args:
            tables: of the file, as `tomllib` gives them.
            source: where it came from, for error messages.
        Raises:
            SpaceError: naming source, key, rule, what came and the nearest valid name.
        """
        reader = _Reader(source)
        reader.check_names(tables, _TABLES, "table")
        if not isinstance(tables.get("description", ""), str):
            raise reader.error("description", f"must be a string, but got {tables['description']!r}")
        space = reader.table(tables, "space")
        fixed = reader.table(tables, "fixed")
        parameters = {name: reader.parameter(name, spec) for name, spec in space.items()}
        both = sorted(set(fixed) & set(parameters))
        if both:
            raise reader.error(both[0], "a key is fixed or varies, but this one stands in both tables")
        baselines = reader.baselines(tables)
        ordered = reader.order(parameters, fixed)
        starts = reader.warm_starts(tables)
        description, prior = tables.get("description", ""), reader.prior(tables)
        found = cls(ordered, dict(fixed), starts, baselines, description, prior, source)
        for number, params in enumerate(found.warm_start_params(), start=1):
            reader.check_warm_start(number, starts[number - 1], params, ordered)
        return found

    def check_recipe_keys(self) -> SearchSpace:
        """Check that every key is a recipe key and that every end of every range is a legal value.

        Raises:
            SpaceError: naming source and key.
        """
        try:
            for parameter in self.parameters.values():
                if parameter.name == "epochs":
                    raise RecipeError("epochs is how long recipes train, not a part of them: use --epochs")
                for value in parameter.choices or (parameter.low, parameter.high):
                    check_value(parameter.name, value)
            Recipe.from_flat(self.fixed)
        except RecipeError as error:
            raise SpaceError(f"{self.source}: {error}") from None
        for number, params in enumerate(self.warm_start_params(), start=1):
            try:
                self.recipe(params)
            except RecipeError as error:
                raise SpaceError(f"{self.source}: warm_start {number}: {error}") from None
        for baseline in self.baselines:
            try:
                Recipe.from_flat(baseline.recipe)
            except RecipeError as error:
                raise SpaceError(f"{self.source}: baseline {baseline.name}: {error}") from None
        return self


@dataclass(frozen=True)
class _Reader:
    """Turns parsed TOML into checked objects; holds the source for its error messages."""

    source: str

    def error(self, key: str, rule: str) -> SpaceError:
        return SpaceError(f"{self.source}: {key}: {rule}")

    def check_names(self, given: Mapping[str, Any], known: set[str], what: str, key: str = "") -> None:
        for name in given:
            if name not in known:
                where = f"{key}: " if key else ""
                raise SpaceError(f"{self.source}: {where}unknown {what} {name!r}{nearest(name, known)}")

    def table(self, tables: Mapping[str, Any], name: str) -> Mapping[str, Any]:
        table = tables.get(name, {})
        if not isinstance(table, Mapping):
            raise self.error(name, f"must be a table, but got {table!r}")
        for key, value in table.items():
            if (
                name == "space"
                and isinstance(value, Mapping)
                and not set(value) & _PARAMETER_FIELDS
                and value
            ):
                inner = next(iter(value))
                raise self.error(key, f'dotted keys need quotes: write "{key}.{inner}" = {{ ... }}')
        return table

    def parameter(self, name: str, spec: Any) -> Parameter:
        if not isinstance(spec, Mapping):
            raise self.error(name, f"must be {{ low, high }} or {{ choices }}, but got {spec!r}")
        self.check_names(spec, _PARAMETER_FIELDS, "field", name)
        role = spec.get("role", "nuisance")
        if role not in ROLES:
            raise self.error(name, f"role must be one of {', '.join(ROLES)}, but got {role!r}")
        when = self.conditions(name, spec.get("when", {}))
        if "choices" in spec:
            return Parameter(name, choices=self.choices(name, spec), when=when, role=role)
        low, high, log, step = self.bounds(name, spec)
        return Parameter(name, low, high, log, step, when=when, role=role)

    def choices(self, name: str, spec: Mapping[str, Any]) -> tuple[Value, ...]:
        extra = set(spec) & {"low", "high", "log", "step"}
        if extra:
            raise self.error(name, f"has choices, so it cannot have {sorted(extra)[0]!r}")
        choices = spec["choices"]
        if not isinstance(choices, list | tuple) or not choices:
            raise self.error(name, f"choices must be a list that is not empty, but got {choices!r}")
        if not all(isinstance(choice, bool | int | float | str) for choice in choices):
            raise self.error(name, f"choices must be strings, numbers or booleans, but got {choices!r}")
        if len(set(choices)) < len(choices):  # 1 and 1.0 are one
            raise self.error(name, f"choices must differ, but got {list(choices)!r}")
        return tuple(choices)

    def bounds(
        self, name: str, spec: Mapping[str, Any]
    ) -> tuple[float | int, float | int, bool, float | int | None]:
        for end in ("low", "high"):
            if end not in spec:
                raise self.error(name, f"needs {end} (or choices)")
            if type(spec[end]) not in (int, float):
                raise self.error(name, f"{end} must be a number, but got {spec[end]!r}")
        low, high = spec["low"], spec["high"]
        log, step = spec.get("log", False), spec.get("step")
        if type(log) is not bool:
            raise self.error(name, f"log must be true or false, but got {log!r}")
        if not low < high:
            raise self.error(name, f"low must be below high, but got low = {low!r}, high = {high!r}")
        if not abs(low) + abs(high) < float("inf"):
            raise self.error(name, f"low and high must be finite, but got {low!r}, {high!r}")
        if log and low <= 0:
            raise self.error(name, f"low must be above 0 on a log scale, but got {low!r}")
        if step is not None and (type(step) not in (int, float) or not 0 < step < float("inf")):
            raise self.error(name, f"step must be a number above 0, but got {step!r}")
        if step is not None and log:
            raise self.error(name, "a log scale cannot have a step")
        if type(low) is int and type(high) is int and step is not None and type(step) is not int:
            raise self.error(name, f"step of a whole-number range must be one too, but got {step!r}")
        return low, high, log, step

    def conditions(self, name: str, when: Any) -> dict[str, tuple[Value, ...]]:
        if not isinstance(when, Mapping):
            raise self.error(name, f'when must be {{ "key" = [values] }}, but got {when!r}')
        for key, allowed in when.items():
            values = allowed if isinstance(allowed, list | tuple) else ()
            if not values or not all(isinstance(value, bool | int | float | str) for value in values):
                raise self.error(name, f"when {key!r} needs a list of values, but got {allowed!r}")
        return {key: tuple(allowed) for key, allowed in when.items()}

    def baselines(self, tables: Mapping[str, Any]) -> tuple[Baseline, ...]:
        """Those of the catalogue that `baselines` names, then those that stand in the file."""
        patterns = tables.get("baselines", ())
        if not isinstance(patterns, list | tuple) or not all(isinstance(word, str) for word in patterns):
            raise self.error("baselines", f"must be a list of names or patterns, but got {patterns!r}")
        try:
            chosen = {found.name: found for word in patterns for found in matching_baselines(word)}
        except SpaceError as error:
            raise self.error("baselines", str(error)) from None
        own = read_baselines(tables.get("baseline", ()), self.source)
        for baseline in own:
            if baseline.name in chosen:
                raise self.error(f"baseline {baseline.name}", "the name is taken by one of the catalogue")
        return (*chosen.values(), *own)

    def warm_starts(self, tables: Mapping[str, Any]) -> tuple[Params, ...]:
        given = tables.get("warm_start", ())
        if not isinstance(given, list | tuple) or not all(isinstance(start, Mapping) for start in given):
            raise self.error("warm_start", f"must be written as [[warm_start]], but got {given!r}")
        return tuple(given)

    def prior(self, tables: Mapping[str, Any]) -> str:
        given = tables.get("prior", "")
        if given != "" and not (isinstance(given, str) and _PRIOR.fullmatch(given)):
            rule = "must be the name of a file beside this one that ends in .prior.json.gz"
            raise self.error("prior", f"{rule}, but got {given!r}")
        return str(given)

    def check_warm_start(
        self, number: int, given: Params, params: Params, parameters: Mapping[str, Parameter]
    ) -> None:
        """Check what a warm start says against the whole proposal that it stands for."""
        where = f"warm_start {number}"
        for key, value in given.items():
            if key not in parameters:
                raise self.error(where, f"{key!r} does not vary in this space{nearest(key, parameters)}")
            if key not in params:
                raise self.error(where, f"{key!r} is not active here: its range is {parameters[key].text()}")
            if not parameters[key].holds(value):
                raise self.error(where, f"{key} = {value!r}, but it lies in {parameters[key].text()}")

    def order(self, parameters: dict[str, Parameter], fixed: Mapping[str, Any]) -> dict[str, Parameter]:
        """Parameters such that each comes after those its conditions name."""
        for parameter in parameters.values():
            for key, allowed in parameter.when.items():
                self.check_condition(parameter.name, key, allowed, parameters, fixed)
        ordered: dict[str, Parameter] = {}
        left = dict(parameters)
        while left:
            ready = [n for n, p in left.items() if all(k in ordered or k in fixed for k in p.when)]
            if not ready:
                raise self.error(next(iter(left)), "its conditions go round in a circle")
            for name in ready:
                ordered[name] = left.pop(name)
        return ordered

    def check_condition(
        self,
        name: str,
        key: str,
        allowed: tuple[Value, ...],
        parameters: Mapping[str, Parameter],
        fixed: Mapping[str, Any],
    ) -> None:
        if key not in parameters and key not in fixed:
            known = [*parameters, *fixed]
            raise self.error(name, f"when names {key!r}, which is not in this space{nearest(key, known)}")
        if key in parameters and parameters[key].choices:
            for value in allowed:
                if value not in parameters[key].choices:
                    hint = nearest(str(value), map(str, parameters[key].choices))
                    raise self.error(name, f"when {key!r} = {value!r}, which is none of its choices{hint}")
        elif key in parameters:
            for value in allowed:
                if not parameters[key].holds(value):
                    raise self.error(
                        name, f"when {key!r} = {value!r}, but it lies in {parameters[key].text()}"
                    )


def _shares() -> Iterator[float]:
    """0, 1, 1/2, 1/4, 3/4, 1/8 ...: ever finer, each once."""
    yield from (0.0, 1.0)
    for depth in count(1):
        yield from (odd / 2**depth for odd in range(1, 2**depth, 2))


def load_space(path: Path) -> SearchSpace:
    """Read and check a space file.

    Raises:
        SpaceError: if it cannot be read, is not TOML, or breaks a rule.
    """
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8-sig"))  # editors on Windows begin with a mark
    except OSError as error:
        raise SpaceError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise SpaceError(f"{path}: is not UTF-8 text") from None
    except (ValueError, RecursionError) as error:  # also a number of 5,000 digits, 1,000 lists in lists
        raise SpaceError(f"{path}: is not TOML: {error}") from None
    return SearchSpace.from_dict(tables, str(path)).check_recipe_keys()


def files_of(path: Path) -> list[Path]:
    """A space file and its prior, if it has one; together they can lie elsewhere.

    Raises:
        SpaceError: as `load_space`.
    """
    prior = load_space(path).prior
    return [path, find_prior(path.parent, prior)] if prior else [path]


def parse_assignment(text: str) -> tuple[str, Value]:
    """Split `key=value` of `--set`; the value is read as TOML, else as a plain string.

    Raises:
        RecipeError: if there is no `=` or the key is unknown or the value breaks its rule.
    """
    name, equals, raw = text.partition("=")
    name = name.strip()
    if not equals:
        raise RecipeError(f"--set takes key=value, but got {text!r}")
    try:
        read = tomllib.loads(f"value = {raw}")
    except (ValueError, RecursionError):
        read = {}
    # More than one key: the text went on after a line break, as no value does.
    value: object = read["value"] if read.keys() == {"value"} else raw.strip()
    return name, check_value(name, value)


assert "epochs" not in RECIPE_KEYS
