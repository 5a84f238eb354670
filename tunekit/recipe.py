"""The recipe: the whole configuration of one training, every key set.

Keys are dotted (`optim.lr`) wherever a person writes them: space files, `--set`, MLflow, reports.
In Python they are frozen dataclasses. The rule of each key (unit, range, choices) stands beside
its default; `tunekit recipe` prints them. The number of epochs is not a recipe key: it is the
fidelity at which a recipe is judged.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, get_type_hints

from tunekit.errors import RecipeError, nearest

Value = bool | int | float | str

_TOO_LARGE = 10**300  # no float is much larger

MODELS = (
    "lenet5",
    "vgg11",
    "vgg13",
    "vgg16",
    "vgg19",
    "resnet8",
    "resnet20",
    "resnet32",
    "resnet56",
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "googlenet",
    "minigooglenet",
    "convnext_atto",
    "convnext_tiny",
    "convnext_small",
    "scratch",
)
BN_PLACEMENTS = ("before_act", "after_act", "none", "pre_act")
HEADS = ("gap", "fc4096")
FREEZE_POLICIES = ("none", "head_only", "first_k_stages", "gradual", "bn_frozen")
OPTIMIZERS = ("sgd", "adam", "adamw", "rmsprop", "lamb")
SCHEDULES = ("constant", "cosine", "one_cycle", "step", "plateau", "wsd")
AUGMENTATIONS = (
    "flip",
    "shift_crop",
    "rotation",
    "randaugment",
    "trivialaugment",
    "autoaugment",
    "cutout",
    "random_erasing",
    "mixup",
    "cutmix",
)


@dataclass(frozen=True)
class Rule:
    """What a key may hold: one of `choices`, or a number in `low`..`high` (both ends included)."""

    doc: str
    unit: str = ""
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    prefixes: tuple[str, ...] = ()  # a value may also be one of these with a name behind it: `timm:NAME`
    joined: bool = False  # several choices may be joined by "+", or be "none"

    def text(self) -> str:
        """The rule in words: `0 to 1`, `one of sgd, adam, adamw`."""
        if self.joined:
            return f"none, or one or more of {', '.join(self.choices)} joined by '+'"
        if self.choices:
            return f"one of {', '.join([*self.choices, *(f'{prefix}NAME' for prefix in self.prefixes)])}"
        if self.low is not None:
            return f"{self.low:g} to {self.high:g}"
        return "true or false"

    def allows(self, value: Value) -> bool:
        """Whether `value` (already of the key's type) keeps the rule."""
        if self.joined:
            return value == "none" or _is_joined_in_order(str(value), self.choices)
        if self.choices:
            return value in self.choices or any(
                str(value).startswith(prefix) and len(str(value)) > len(prefix) for prefix in self.prefixes
            )
        if self.low is not None and self.high is not None:
            assert not isinstance(value, str)
            return self.low <= value <= self.high  # never for NaN
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
        "resnet20", "network; timm:NAME is any image model of timm", choices=MODELS, prefixes=("timm:",)
    )
    bn_placement: str = _key(
        "before_act",
        "norm before the activation, after it, none (then convolutions have a bias), pre_act (resnets)",
        choices=BN_PLACEMENTS,
    )
    conv_bias: bool = _key(False, "a bias in every convolution, even where a norm follows")
    head: str = _key(
        "gap",
        "after global pooling: one linear layer (gap), or two hidden ones of 4096 (fc4096)",
        choices=HEADS,
    )
    dropout: float = _key(0.0, "dropout in the head", unit="share of the features", low=0.0, high=0.9)
    last_pool: int = _key(
        2, "side of the last pooling of vgg (left out where it does not fit)", unit="px", low=1, high=2
    )
    depth: int = _key(3, "convolution-pooling stages of scratch", unit="stages", low=1, high=6)
    width: int = _key(32, "channels of the first stage of scratch; each stage doubles them", low=4, high=512)


@dataclass(frozen=True)
class InputRecipe:
    """`input.*`: what the network sees."""

    size: int = _key(
        0,
        "shorter side to which images are resized on the device; 0 leaves them",
        unit="px",
        low=0,
        high=1024,
    )


@dataclass(frozen=True)
class FreezeRecipe:
    """`freeze.*`: which parts of the network do not train."""

    policy: str = _key(
        "none",
        "what does not train; gradual starts with head_only and frees a stage every few epochs",
        choices=FREEZE_POLICIES,
    )
    stages: int = _key(1, "how many stages first_k_stages freezes", unit="stages", low=1, high=100)
    every: int = _key(1, "epochs until gradual lets the next stage train", unit="epochs", low=1, high=1000)


@dataclass(frozen=True)
class OptimRecipe:
    """`optim.*`: the optimizer and its constants."""

    name: str = _key("sgd", "optimizer", choices=OPTIMIZERS)
    lr: float = _key(0.1, "peak learning rate", low=1e-7, high=10.0)
    momentum: float = _key(0.9, "momentum, for sgd; 0 is plain SGD", low=0.0, high=0.999)
    nesterov: bool = _key(False, "Nesterov momentum, for sgd with momentum above 0")
    weight_decay: float = _key(
        5e-4, "L2 penalty (sgd, adam, rmsprop) or decoupled decay (adamw, lamb)", low=0.0, high=1.0
    )
    decay_norms_and_biases: bool = _key(True, "whether weight decay acts on norms and biases too")
    layer_decay: float = _key(
        1.0, "factor of the learning rate for each stage further from the head", low=0.1, high=1.0
    )
    clip_norm: float = _key(0.0, "largest norm of the gradient; 0 does not clip", low=0.0, high=1000.0)


@dataclass(frozen=True)
class ScheduleRecipe:
    """`schedule.*`: the learning rate over the maximal number of epochs."""

    name: str = _key("cosine", "shape of the learning rate after warm-up", choices=SCHEDULES)
    warmup: float = _key(
        0.0, "linear warm-up (one_cycle has its own)", unit="fraction of training", low=0.0, high=0.5
    )
    patience: int = _key(
        3,
        "epochs without a better validation loss before plateau takes a tenth",
        unit="epochs",
        low=1,
        high=100,
    )
    decay: float = _key(0.2, "final decay of wsd", unit="fraction of training", low=0.0, high=1.0)


@dataclass(frozen=True)
class AugmentRecipe:
    """`augment.*`: random changes to training images, drawn for each image."""

    policy: str = _key("none", "augmentations, in this order", choices=AUGMENTATIONS, joined=True)
    shift: float = _key(0.125, "largest shift of shift_crop", unit="fraction of the side", low=0.0, high=0.5)
    rotation: float = _key(15.0, "largest angle of rotation", unit="degrees", low=0.0, high=180.0)
    randaugment: int = _key(9, "magnitude of randaugment", unit="of 30", low=0, high=30)
    randaugment_ops: int = _key(2, "changes that randaugment makes to an image", low=1, high=8)
    trivialaugment: float = _key(1.0, "share of images that trivialaugment changes", low=0.0, high=1.0)
    autoaugment: float = _key(1.0, "share of images that autoaugment changes", low=0.0, high=1.0)
    cutout: float = _key(
        0.25, "side of the square that cutout blanks", unit="fraction of the side", low=0.0, high=1.0
    )
    random_erasing: float = _key(0.25, "share of images that random_erasing changes", low=0.0, high=1.0)
    mixup: float = _key(0.2, "alpha of mixup: how evenly two images mix", low=0.0, high=10.0)
    cutmix: float = _key(1.0, "alpha of cutmix: how evenly areas spread", low=0.0, high=10.0)


@dataclass(frozen=True)
class LossRecipe:
    """`loss.*`: cross-entropy and its smoothing."""

    label_smoothing: float = _key(0.0, "share of the target spread over all classes", low=0.0, high=0.9)
    aux_weight: float = _key(
        0.3,
        "weight of the loss of googlenet's two auxiliary classifiers; 0 leaves them out",
        low=0.0,
        high=1.0,
    )


@dataclass(frozen=True)
class EmaRecipe:
    """`ema.*`: the exponential moving average of the weights, which is then what is judged and kept."""

    decay: float = _key(0.0, "share of the average that a step keeps; 0 is no average", low=0.0, high=0.99999)


@dataclass(frozen=True)
class Recipe:
    """Everything that one training needs to know, apart from data, epochs and seed."""

    model: ModelRecipe = ModelRecipe()
    init: str = _key(
        "random",
        "first weights: random, pretrained (of the library), a file, or the best of an earlier search",
        choices=("random", "pretrained"),
        prefixes=("file:", "search:"),
    )
    input: InputRecipe = InputRecipe()
    freeze: FreezeRecipe = FreezeRecipe()
    optim: OptimRecipe = OptimRecipe()
    schedule: ScheduleRecipe = ScheduleRecipe()
    augment: AugmentRecipe = AugmentRecipe()
    loss: LossRecipe = LossRecipe()
    ema: EmaRecipe = EmaRecipe()
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
    if key.type is float and type(value) is int and abs(value) < _TOO_LARGE:
        value = float(value)
    if type(value) is not key.type:
        raise RecipeError(f"{name} must be a {_type_name(key.type)}, but got {_shown(value)}")
    assert isinstance(value, bool | int | float | str)
    if not key.rule.allows(value):
        hint = nearest(value, key.rule.choices) if isinstance(value, str) and not key.rule.joined else ""
        raise RecipeError(f"{name} must be {key.rule.text()}, but got {_shown(value)}{hint}")
    return value


def _type_name(kind: type) -> str:
    return {float: "number", int: "whole number", str: "string", bool: "true or false"}[kind]


def _shown(value: object) -> str:
    """Python refuses to write whole numbers of thousands of digits."""
    too_large = type(value) is int and abs(value) >= _TOO_LARGE
    return "a number of more than 300 digits" if too_large else repr(value)


def describe(recipe: Recipe) -> str:
    """A recipe in a few words, for names of trials: `resnet20 sgd lr=0.12`."""
    return f"{recipe.model.name} {recipe.optim.name} lr={recipe.optim.lr:.2g}"
