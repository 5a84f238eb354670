"""What trials begin with is made sure of before any trial: sizes, placements, first weights."""

from pathlib import Path

import pytest
import torch

from tests.search_on_disk import lay_down_search
from tunekit.data.pack import Pack
from tunekit.data.split import Split
from tunekit.errors import RecipeError, SearchError, TunekitError
from tunekit.models.build import build_model
from tunekit.recipe import Recipe, Value
from tunekit.space import SearchSpace
from tunekit.training.build import build_training
from tunekit.training.checkpoint import load_best, save_best
from tunekit.tuning.provision import Provision, reachable_networks, weights_key

RESNET: dict[str, Value] = {"model.name": "resnet8", "init": "search:earlier"}


def recipe(**keys: Value) -> Recipe:
    return Recipe.from_flat({**RESNET, **{name.replace("__", "."): value for name, value in keys.items()}})


@pytest.fixture
def results(tmp_path: Path, digits: Pack, digits_split: Split) -> Path:
    """A results folder with the search `earlier`, whose best trial (number 1) is a resnet8 of digits."""
    paths = lay_down_search(tmp_path / "results", "earlier")
    trained = recipe(init="random")
    training = build_training(trained, digits, digits_split, 1, 0, torch.device("cpu"))
    description = {
        "recipe": trained.to_flat(),
        "epoch": 2,
        "val_accuracy": 0.75,
        "classes": list(digits.classes),
        "image_shape": list(digits.shape),
        "mean": list(digits.mean),
        "std": list(digits.std),
    }
    save_best(paths.trial(1).best, training.model, description)
    return tmp_path / "results"


def provision(tmp_path: Path, shape: tuple[int, int, int] = (8, 8, 1)) -> Provision:
    (tmp_path / "weights").mkdir(exist_ok=True)
    return Provision(tmp_path / "weights", tmp_path / "results", shape)


def test_the_best_network_of_an_earlier_search_is_where_trials_begin(tmp_path: Path, results: Path) -> None:
    provision(tmp_path).provide(recipe())
    network = build_model(
        recipe(), (8, 8, 1), 3, tmp_path / "weights" / f"{weights_key(recipe())}.safetensors"
    )
    best = load_best(results / "earlier" / "trials" / "0001" / "best.safetensors").weights
    assert network.head[-1].out_features == 3  # type: ignore[index]
    for name, value in network.body.state_dict().items():
        assert torch.equal(value, best[f"body.{name}"]), name


def test_recipes_that_share_a_network_share_a_file(tmp_path: Path, results: Path) -> None:
    weights = provision(tmp_path)
    for rate in (0.1, 0.2):
        weights.provide(recipe(optim__lr=rate))
    weights.provide(recipe(init="random"))
    assert len(list((tmp_path / "weights").iterdir())) == 1


@pytest.mark.parametrize(
    ("keys", "kind", "message"),
    [
        ({"init": "search:earlyer"}, SearchError, "no search called 'earlyer'.*did you mean 'earlier'"),
        ({"init": "file:none.safetensors"}, TunekitError, r"none\.safetensors"),
        ({"model.name": "resnet20"}, RecipeError, "'search:earlier' has weights of resnet8"),
        ({"model.conv_bias": True, "model.name": "resnet18"}, RecipeError, "has weights of resnet8"),
        ({"init": "pretrained"}, RecipeError, "resnet8 has none: use init"),
        ({"init": "random", "model.name": "convnext_atto"}, RecipeError, "at least 16 px"),
        (
            {"init": "random", "model.name": "vgg11", "model.bn_placement": "pre_act"},
            RecipeError,
            "must be one of",
        ),
    ],
)
def test_what_cannot_be_had_is_refused_in_one_line(
    tmp_path: Path, results: Path, keys: dict[str, Value], kind: type[TunekitError], message: str
) -> None:
    with pytest.raises(kind, match=message) as error:
        provision(tmp_path).provide(Recipe.from_flat({**RESNET, **keys}))
    assert "\n" not in str(error.value)


def test_a_search_without_a_result_has_no_weights(tmp_path: Path) -> None:
    lay_down_search(tmp_path / "results", "earlier")
    with pytest.raises(SearchError, match="search earlier has no weights yet"):
        provision(tmp_path).provide(recipe())


def test_every_kind_of_network_that_a_space_can_propose_is_looked_at() -> None:
    space = SearchSpace.from_dict(
        {
            "fixed": {"input.size": 32},
            "space": {
                "model.name": {"choices": ["vgg11", "resnet8"]},
                "model.bn_placement": {"choices": ["none", "pre_act"], "when": {"model.name": ["resnet8"]}},
                "optim.lr": {"low": 0.1, "high": 1.0},
            },
        }
    )
    found = {(r.model.name, r.model.bn_placement, r.input.size) for r in reachable_networks(space)}
    assert found == {("vgg11", "before_act", 32), ("resnet8", "none", 32), ("resnet8", "pre_act", 32)}
