"""The spaces that come with tunekit and the catalogue of known recipes: complete, legal, one in the other."""

import optuna
import pytest

from tunekit.baselines import all_baselines, find_baseline
from tunekit.errors import SpaceError
from tunekit.models.catalog import check_model
from tunekit.paths import shipped_spaces
from tunekit.recipe import RECIPE_KEYS, Recipe, Value
from tunekit.space import load_space

# What the five reports give, in % on the test set.
REPORTED = {
    "A-mnist-vgg16-frozen": 97.91,
    "A-mnist-resnet50-frozen": 96.3,
    "A-mnist-vgg16": 99.36,
    "A-mnist-resnet50": 99.4,
    "A-mnist-googlenet": 99.26,
    "A-cifar10-vgg16-frozen": 75.33,
    "A-cifar10-vgg16-up": 93.0,
    "A-cifar10-resnet50-frozen": 64.66,
    "A-cifar10-resnet50-up": 94.66,
    "A-cifar10-googlenet": 81.15,
    "A-cifar10-minigooglenet": 90.04,
    "B-mnist-vgg16": 99.1,
    "B-mnist-vgg11": 99.1,
    "B-mnist-vgg19": 83,
    "B-mnist-vgg16-lr0.01": 98.9,
    "B-mnist-vgg16-sgd": 90.2,
    "B-mnist-vgg16-sgd+momentum": 99.2,
    "B-mnist-vgg16-adam": 98.2,
    "B-mnist-vgg16-bn-after-relu": 9.8,
    "B-mnist-vgg16-aug": 99.3,
    "B-mnist-resnet18": 99.3,
    "B-mnist-resnet101": 99.3,
    "B-mnist-resnet18-lr0.01": 99,
    "B-mnist-resnet18-sgd": 98.4,
    "B-mnist-resnet18-sgd+momentum": 99.3,
    "B-mnist-resnet18-adam": 99.4,
    "B-mnist-resnet18-aug": 99.3,
    "B-mnist-googlenet": 11.4,
    "B-mnist-googlenet-aug": 11.4,
    "B-mnist-googlenet-adam": 99,
    "B-mnist-googlenet-adam+aug": 99.1,
    "B-cifar10-vgg16": 78.6,
    "B-cifar10-vgg11": 73.6,
    "B-cifar10-vgg19": 78.5,
    "B-cifar10-vgg16-lr0.01": 79.2,
    "B-cifar10-vgg16-sgd": 65.6,
    "B-cifar10-vgg16-sgd+momentum": 78.6,
    "B-cifar10-vgg16-adam": 82.7,
    "B-cifar10-vgg16-bn-after-relu": 80.8,
    "B-cifar10-vgg16-aug": 72.5,
    "B-cifar10-vgg16-best": 84.8,
    "B-cifar10-resnet18": 78.9,
    "B-cifar10-resnet101": 77.8,
    "B-cifar10-resnet18-lr0.01": 80.4,
    "B-cifar10-resnet18-sgd": 64.6,
    "B-cifar10-resnet18-sgd+momentum": 78.4,
    "B-cifar10-resnet18-adam": 84.3,
    "B-cifar10-resnet18-aug": 81.2,
    "B-cifar10-resnet18-best": 83.8,
    "B-cifar10-googlenet": 10,
    "B-cifar10-googlenet-adam+aug": 10,
    "C-mnist-vgg16-lr0.1": 9.8,
    "C-mnist-vgg16-lr0.01": 99.5,
    "C-mnist-vgg16-lr0.001": 99.5,
    "C-mnist-resnet18-lr0.1": 99.2,
    "C-mnist-resnet18-lr0.01": 99.4,
    "C-mnist-resnet18-lr0.001": 99.3,
    "C-cifar10-vgg16-lr0.1": 10,
    "C-cifar10-vgg16-lr0.01": 87.1,
    "C-cifar10-vgg16-lr0.001": 89.2,
    "C-cifar10-resnet18-lr0.1": 88.7,
    "C-cifar10-resnet18-lr0.01": 90,
    "C-cifar10-resnet18-lr0.001": 90.1,
    "D-mnist-vgg16": 98.98,
    "D-mnist-resnet50": 98.42,
    "D-cifar10-vgg16": 72.69,
    "E-cifar100-scratch": 36,
    "E-cifar100-convnext": 46,
    "E-cifar100-transfer": 31,
}
# The same data elsewhere.
OUTSIDE_REFERENCES = {
    "kuangliu-cifar10-vgg16": 92.64,
    "kuangliu-cifar10-resnet18": 93.02,
    "kuangliu-cifar10-resnet50": 93.62,
    "kuangliu-cifar10-preactresnet18": 95.11,
    "weiaicunzai-cifar100-resnet18": 75.61,
    "weiaicunzai-cifar100-resnet50": 77.39,
    "weiaicunzai-cifar100-vgg16_bn": 72.93,
    "weiaicunzai-cifar100-seresnet152": 79.34,
    "he2016-cifar10-resnet20": 91.25,
    "lecun1998-mnist-lenet5": 99.05,
}
IMAGES = {"mnist": (28, 28, 1), "cifar10": (32, 32, 3), "cifar100": (32, 32, 3)}
SPACES = {name: load_space(path) for name, path in shipped_spaces().items()}
# Baselines that a space lists as something to compare with, but would never propose itself.
NOT_PROPOSED = {
    "all": {
        "kuangliu-cifar10-preactresnet18",  # one choice of placements for all families leaves pre_act out
        "weiaicunzai-cifar100-seresnet152",  # no model of timm is among its choices
    },
    "timm-any": {"weiaicunzai-cifar100-seresnet152"},  # too large to be searched around
    "transfer": {"A-cifar10-vgg16-up", "A-cifar10-resnet50-up"},  # 224 px cost too much: --set input.size=224
}
# What decides whether a network can be built.
NETWORK_KEYS = ("init", "model.name", "model.bn_placement", "model.last_pool", "input.size", "freeze.policy")


def test_the_catalogue_has_every_reported_result() -> None:
    accuracies = {baseline.name: baseline.reported_accuracy for baseline in all_baselines()}
    assert accuracies == {**REPORTED, **OUTSIDE_REFERENCES}


@pytest.mark.parametrize("name", [*REPORTED, *OUTSIDE_REFERENCES])
def test_a_baseline_is_a_recipe_for_its_data_set(name: str) -> None:
    baseline = find_baseline(name)
    assert baseline.dataset == name.split("-")[1]
    assert baseline.source and baseline.epochs
    explicit = {"model.name", "model.bn_placement", "model.head", "model.dropout", "init", "input.size"}
    explicit |= {"freeze.policy", "augment.policy", "schedule.name", "batch_size"}
    explicit |= {"optim.name", "optim.lr", "optim.momentum", "optim.weight_decay"}
    assert set(baseline.recipe) >= explicit
    recipe = Recipe.from_flat(baseline.recipe)
    if not recipe.model.name.startswith("timm:"):  # which cost seconds to import
        check_model(recipe, IMAGES[baseline.dataset])


def test_each_row_differs_from_its_neighbours_in_what_the_report_varied() -> None:
    varied: dict[str, dict[str, Value]] = {
        "B-mnist-vgg16-lr0.01": {"optim.lr": 0.01},
        "B-mnist-vgg16-sgd": {"optim.momentum": 0.0},
        "B-mnist-vgg16-adam": {"optim.name": "adam"},
        "B-mnist-vgg16-bn-after-relu": {"model.bn_placement": "after_act"},
        "B-mnist-vgg19": {"model.name": "vgg19"},
    }
    base = find_baseline("B-mnist-vgg16").recipe
    for name, changes in varied.items():
        assert find_baseline(name).recipe == {**base, **changes}


def test_an_unknown_baseline_gets_the_nearest_name() -> None:
    with pytest.raises(SpaceError, match="did you mean 'D-mnist-vgg16'"):
        find_baseline("D-mnist-vg16")


def test_the_catalogue_is_no_space_and_every_row_is_in_one() -> None:
    assert "baselines" not in SPACES
    listed = {baseline.name for space in SPACES.values() for baseline in space.baselines}
    assert listed == {baseline.name for baseline in all_baselines()}


def test_the_spaces_that_are_promised_are_there() -> None:
    families = {"lenet", "vgg", "resnet", "resnet-deep", "googlenet", "scratch", "convnext"}
    assert set(SPACES) == families | {"transfer", "timm-any", "all"} | {f"report-{x}" for x in "abcde"}
    for letter in "abcde":
        own = {name for name in REPORTED if name.startswith(letter.upper())}
        assert {baseline.name for baseline in SPACES[f"report-{letter}"].baselines} == own


@pytest.mark.parametrize("name", SPACES)
def test_a_space_says_what_it_is_and_how_to_run_it(name: str) -> None:
    comment = shipped_spaces()[name].read_text().partition("\n\n")[0]
    assert "#   tunekit search " in comment and f"--space {name}" in comment
    assert SPACES[name].description


@pytest.mark.parametrize("name", SPACES)
def test_a_space_proposes_recipes(name: str) -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    space = SPACES[name]
    for _ in range(50):
        params = space(study.ask())
        recipe = space.recipe(params)
        assert space.params_of(recipe) == params


@pytest.mark.parametrize("name", SPACES)
def test_the_default_recipe_of_a_space_is_one_that_it_can_propose(name: str) -> None:
    space = SPACES[name]
    params = space.default_params()
    assert space.params_of(space.recipe(params)) == params


@pytest.mark.parametrize("name", SPACES)
def test_every_network_that_a_space_reaches_is_legal(name: str) -> None:
    space = SPACES[name]
    shapes = {IMAGES["cifar10"], *(IMAGES[baseline.dataset] for baseline in space.baselines)}
    for values in space.combinations(*NETWORK_KEYS):
        for shape in shapes:
            if not str(values["model.name"]).startswith("timm:"):
                check_model(space.recipe(values), shape)


@pytest.mark.slow
def test_every_network_of_timm_that_a_space_reaches_is_legal() -> None:
    for values in SPACES["timm-any"].combinations("model.name"):
        check_model(Recipe.from_flat(values), IMAGES["mnist"])


@pytest.mark.parametrize("name", SPACES)
def test_a_space_contains_its_baselines(name: str) -> None:
    space = SPACES[name]
    outside = {b.name for b in space.baselines if space.params_of(Recipe.from_flat(b.recipe)) is None}
    assert outside == NOT_PROPOSED.get(name, set())


@pytest.mark.parametrize("name", [name for name in SPACES if name.startswith("report-")])
def test_the_space_of_a_report_can_propose_each_of_its_baselines_exactly(name: str) -> None:
    space = SPACES[name]
    for baseline in space.baselines:
        recipe = Recipe.from_flat(baseline.recipe)
        params = space.params_of(recipe)
        assert params is not None
        proposed, reported = space.recipe(params).to_flat(), recipe.to_flat()
        differing = {key for key in RECIPE_KEYS if proposed[key] != reported[key]}
        assert not differing, f"{baseline.name}: {differing}"


def test_spaces_of_random_weights_list_no_baseline_that_needs_published_ones() -> None:
    for name in ("lenet", "vgg", "resnet", "resnet-deep", "googlenet", "scratch", "all"):
        assert {Recipe.from_flat(b.recipe).init for b in SPACES[name].baselines} == {"random"}
