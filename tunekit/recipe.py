"""The recipe: the whole configuration of one training, every key set.

Keys are dotted (`optim.lr`) wherever a person writes them: space files, `--set`, MLflow, reports.
In Python they are frozen dataclasses. The rule of each key (unit, range, choices) stands beside
its default; `tunekit recipe` prints them. The number of epochs is not a recipe key: it is the
fidelity at which a recipe is judged.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, get_type_hints

from tunekit.errors import RecipeError, nearest

Value = bool | int | float | str

MODELS = (
    "resnet8",
    "resnet20",
    "resnet32",
    "resnet56",
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
)
BN_PLACEMENTS = ("before_act", "after_act", "none")
OPTIMIZERS = ("sgd", "adam", "adamw")
SCHEDULES = ("constant", "cosine", "one_cycle", "step")
AUGMENTATIONS = ("flip", "shift_crop", "cutout")


@dataclass(frozen=True)
class Rule:
    """What a key may hold: one of `choices`, or a number in `low`..`high` (both ends included)."""

    doc: str
    unit: str = ""
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    joined: bool = False  # several choices may be joined by "+", or be "none"

    def text(self) -> str:
        """The rule in words: `0 to 1`, `one of sgd, adam, adamw`."""
        if self.joined:
            return f"none, or one or more of {', '.join(self.choices)} joined by '+'"
        if self.choices:
            return f"one of {', '.join(self.choices)}"
        if self.low is not None:
            return f"{self.low:g} to {self.high:g}"
        return "true or false"

    def allows(self, value: Value) -> bool:
        """Whether `value` (already of the key's type) keeps the rule."""
        if self.joined:
            return value == "none" or _is_joined_in_order(str(value), self.choices)
        if self.choices:
            return value in self.choices
        if self.low is not None and self.high is not None:
            return math.isfinite(float(value)) and self.low <= float(value) <= self.high
        return True


def _is_joined_in_order(value: str, choices: tuple[str, ...]) -> bool:
    """One spelling for each set of augmentations, so that equal recipes compare equal."""
    parts = value.split("+")
    return parts == [choice for choice in choices if choice in parts]


def _key(default: Value, doc: str, **rule: Any) -> Any:
    return field(default=default, metadata={"rule": Rule(doc, **rule)})


@dataclass(frozen=True)
class ModelRecipe:
    """`model.*`: which network, and where its batch norm stands."""

    name: str = _key(
        "resnet20",
        "resnet8/20/32/56: He et al. 2016, section 4.2; resnet18/34/50/101: timm's, 3x3 stem up to 64 px",
        choices=MODELS,
    )
    bn_placement: str = _key(
        "before_act",
        "batch norm before the activation, after it, or none (then convolutions have a bias)",
        choices=BN_PLACEMENTS,
    )


@dataclass(frozen=True)
class OptimRecipe:
    """`optim.*`: the optimizer and its constants."""

    name: str = _key("sgd", "optimizer", choices=OPTIMIZERS)
    lr: float = _key(0.1, "peak learning rate", low=1e-7, high=10.0)
    momentum: float = _key(0.9, "momentum, for sgd; 0 is plain SGD", low=0.0, high=0.999)
    nesterov: bool = _key(False, "Nesterov momentum, for sgd with momentum above 0")
    weight_decay: float = _key(5e-4, "L2 penalty (sgd, adam) or decoupled decay (adamw)", low=0.0, high=1.0)


@dataclass(frozen=True)
class ScheduleRecipe:
    """`schedule.*`: the learning rate over the maximal number of epochs."""

    name: str = _key("cosine", "shape of the learning rate after warm-up", choices=SCHEDULES)
    warmup: float = _key(
        0.0, "linear warm-up (one_cycle has its own)", unit="fraction of training", low=0.0, high=0.5
    )


@dataclass(frozen=True)
class AugmentRecipe:
    """`augment.*`: random changes to training images, drawn for each image."""

    policy: str = _key("none", "augmentations, in this order", choices=AUGMENTATIONS, joined=True)
    shift: float = _key(0.125, "largest shift of shift_crop", unit="fraction of the side", low=0.0, high=0.5)
    cutout: float = _key(
        0.25, "side of the square that cutout blanks", unit="fraction of the side", low=0.0, high=1.0
    )


@dataclass(frozen=True)
class LossRecipe:
    """`loss.*`: cross-entropy and its smoothing."""

    label_smoothing: float = _key(0.0, "share of the target spread over all classes", low=0.0, high=0.9)


@dataclass(frozen=True)
class Recipe:
    """Everything that one training needs to know, apart from data, epochs and seed."""

    model: ModelRecipe = ModelRecipe()
    optim: OptimRecipe = OptimRecipe()
    schedule: ScheduleRecipe = ScheduleRecipe()
    augment: AugmentRecipe = AugmentRecipe()
    loss: LossRecipe = LossRecipe()
    batch_size: int = _key(128, "images in a training step", unit="images", low=1, high=65536)

    @classmethod
    def from_flat(cls, values: Mapping[str, Value]) -> Recipe:
        """Build a recipe from dotted keys; keys not given keep their default.

        Raises:
            RecipeError: on an unknown key, a wrong type or a value outside its rule.
        """
        checked = {name: check_value(name, value) for name, value in values.items()}
        groups: dict[str, dict[str, Value]] = {}
        top: dict[str, Any] = {}
        for name, value in checked.items():
            group, dot, leaf = name.partition(".")
            if dot:
                groups.setdefault(group, {})[leaf] = value
            else:
                top[name] = value
        default = cls()
        for group, leaves in groups.items():
            top[group] = dataclasses.replace(getattr(default, group), **leaves)
        return cls(**top)

    def to_flat(self) -> dict[str, Value]:
        """Every key with its value, dotted, in the order of the classes above."""
        return flatten(self.to_dict())

    def to_dict(self) -> dict[str, Any]:
        """Every key with its value, nested by group (the form of `tunekit best --json`)."""
        return dataclasses.asdict(self)


def flatten(nested: Mapping[str, Any]) -> dict[str, Value]:
    """The nested form of a recipe with dotted keys."""
    flat: dict[str, Value] = {}
    for name, value in nested.items():
        if isinstance(value, Mapping):
            flat.update({f"{name}.{leaf}": inner for leaf, inner in value.items()})
        else:
            flat[name] = value
    return flat


@dataclass(frozen=True)
class RecipeKey:
    """One key of the recipe, as documentation and checks need it."""

    name: str
    type: type
    default: Value
    rule: Rule


def _collect_keys() -> dict[str, RecipeKey]:
    keys: dict[str, RecipeKey] = {}
    hints = get_type_hints(Recipe)
    for top in dataclasses.fields(Recipe):
        group = hints[top.name]
        if not dataclasses.is_dataclass(group):
            keys[top.name] = RecipeKey(top.name, group, top.default, top.metadata["rule"])  # type: ignore[arg-type]
            continue
        leaf_hints = get_type_hints(group)
        for leaf in dataclasses.fields(group):
            name = f"{top.name}.{leaf.name}"
            keys[name] = RecipeKey(name, leaf_hints[leaf.name], leaf.default, leaf.metadata["rule"])  # type: ignore[arg-type]
    return keys


RECIPE_KEYS: dict[str, RecipeKey] = _collect_keys()


def recipe_key(name: str) -> RecipeKey:
    """The key called `name`.

    Raises:
        RecipeError: if there is none; the message names the nearest.
    """
    if name not in RECIPE_KEYS:
        raise RecipeError(f"unknown recipe key {name!r}{nearest(name, RECIPE_KEYS)}")
    return RECIPE_KEYS[name]


def check_value(name: str, value: object) -> Value:
    """`value` as the type of key `name` (an int is taken where a float is meant).

    Raises:
        RecipeError: if the key is unknown, the type is wrong or the value breaks its rule.
    """
    key = recipe_key(name)
    if key.type is float and type(value) is int:
        value = float(value)
    if type(value) is not key.type:
        raise RecipeError(f"{name} must be a {_type_name(key.type)}, but got {value!r}")
    assert isinstance(value, bool | int | float | str)
    if not key.rule.allows(value):
        hint = nearest(value, key.rule.choices) if isinstance(value, str) and not key.rule.joined else ""
        raise RecipeError(f"{name} must be {key.rule.text()}, but got {value!r}{hint}")
    return value


def _type_name(kind: type) -> str:
    return {float: "number", int: "whole number", str: "string", bool: "true or false"}[kind]


def describe(recipe: Recipe) -> str:
    """A recipe in a few words, for names of trials: `resnet20 sgd lr=0.12`."""
    return f"{recipe.model.name} {recipe.optim.name} lr={recipe.optim.lr:.2g}"
