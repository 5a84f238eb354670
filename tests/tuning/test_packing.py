"""How many trials share a GPU: each rule on plain numbers, and the measuring itself on a CPU."""

from collections.abc import Mapping

import pytest

from tunekit.recipe import Recipe, Value
from tunekit.space import SearchSpace
from tunekit.tuning.packing import (
    Load,
    Rehearsals,
    decide,
    heaviest_recipes,
    measure,
    most_on_a_gpu,
    next_to_measure,
)

GB = 10**9
SMALL = Load(80 * GB, GB)  # a trial of 1 GB on a GPU of 80


def rated(*rates: float, trial_bytes: int = GB) -> Load:
    """Images a second of 1, 2, 4, ... trials at once."""
    return Load(80 * GB, trial_bytes, {2**power: rate for power, rate in enumerate(rates)})


@pytest.mark.parametrize(
    ("rates", "trials"),
    [
        ((100,), 1),
        ((100, 114), 1),
        ((100, 115), 2),
        ((100, 190, 290, 300), 4),
        ((100, 190, 290, 340), 8),
        ((100, 110, 400), 1),  # a doubling that does not pay off ends it
    ],
)
def test_trials_share_a_gpu_while_every_doubling_trains_15_percent_more(
    rates: tuple[float, ...], trials: int
) -> None:
    packing = decide(rated(*rates), most=8)
    assert (packing.trials, packing.share) == (trials, 1 / trials)


@pytest.mark.parametrize(("trial_gb", "trials"), [(9, 8), (9.1, 4), (18, 4), (36, 2), (36.1, 1), (79, 1)])
def test_trials_fill_no_more_than_nine_tenths_of_the_memory(trial_gb: float, trials: int) -> None:
    load = rated(100, 200, 400, 800, trial_bytes=int(trial_gb * GB))
    assert decide(load, most=8).trials == trials


def test_the_words_say_what_was_decided_and_why() -> None:
    packed = decide(rated(100, 190, 290, 300, trial_bytes=775_000_000), most=8)
    assert packed.words() == (
        "4 trials on each GPU (0.25 each): 4 at once are 2.9x as fast as one, memory 3.1 GB of 80 GB"
    )
    assert decide(rated(100, 105), most=8).words() == (
        "1 trial on each GPU: 2 at once are only 1.05x as fast as one"
    )
    assert decide(rated(100, trial_bytes=50 * GB), most=8).why == "2 at once would take 100 GB of 80 GB"
    assert decide(rated(100), most=8).why == "2 at once could not be measured within 60 s"
    assert decide(SMALL, most=8).why == "it could not be measured within 60 s"
    assert decide(Load(), most=1).why == "there are too few trials or CPUs for more"
    assert decide(Load(problem="no GPU was free"), most=8).words() == "1 trial on each GPU: no GPU was free"


def test_it_measures_twice_as_many_while_that_pays_off_has_room_and_is_allowed() -> None:
    assert next_to_measure(SMALL, most=8) == 1
    assert next_to_measure(rated(100), most=8) == 2
    assert next_to_measure(rated(100, 150), most=8) == 4
    assert next_to_measure(rated(100, 150), most=3) is None
    assert next_to_measure(rated(100, 110), most=8) is None
    assert next_to_measure(rated(100, 150, trial_bytes=30 * GB), most=8) is None
    assert next_to_measure(rated(100, 150, 250, 400), most=8) is None


@pytest.mark.parametrize(
    ("nodes", "trials", "cpus_per_trial", "most"),
    [
        ([(16, 1)], 100, None, 8),
        ([(4, 1)], 100, None, 4),  # a CPU for each trial
        ([(64, 8)], 100, 4.0, 2),
        ([(64, 4), (4, 2), (32, 0)], 100, None, 2),  # the node with the fewest CPUs a GPU
        ([(64, 4)], 6, None, 1),  # two on each would leave a GPU idle
        ([(64, 4)], 8, None, 2),
        ([(2, 4)], 100, None, 1),
        ([(16, 0)], 100, None, 1),
    ],
)
def test_what_cpus_and_trials_allow(
    nodes: list[tuple[int, int]], trials: int, cpus_per_trial: float | None, most: int
) -> None:
    there = [{"CPU": cpus, "GPU": gpus} for cpus, gpus in nodes]
    assert most_on_a_gpu(there, trials, cpus_per_trial) == most


def test_images_that_would_fill_the_gpu_stay_on_the_machine() -> None:
    wanted = Rehearsals((), (10, 10, 3), 10, train_images=1000, val_images=100, cpus=1)
    assert wanted.bytes_of_images(gpu_bytes=10**9) == 1100 * 300
    assert wanted.bytes_of_images(gpu_bytes=1000 * 300 * 4) == 100 * 300


def test_the_heaviest_recipe_of_each_network_is_measured() -> None:
    space = SearchSpace.from_dict(
        {
            "fixed": {"augment.policy": "flip"},
            "space": {
                "model.name": {"choices": ["resnet8", "scratch"]},
                "model.width": {"low": 4, "high": 64, "when": {"model.name": ["scratch"]}},
                "batch_size": {"choices": [32, 256, 128]},
                "input.size": {"choices": [0, 16]},
                "optim.name": {"choices": ["sgd", "adamw"]},
                "ema.decay": {"choices": [0.0, 0.99]},
                "freeze.policy": {"choices": ["head_only", "none"]},
            },
        }
    )
    small, scratch = heaviest_recipes(space, side=32)
    assert (small.model.name, scratch.model.name, scratch.model.width) == ("resnet8", "scratch", 64)
    for recipe in (small, scratch):
        assert (recipe.batch_size, recipe.input.size) == (256, 0)  # 32 px are more than 16
        assert (recipe.optim.name, recipe.ema.decay, recipe.freeze.policy) == ("adamw", 0.99, "none")
        assert recipe.augment.policy == "flip"


def wanted(*recipes: Mapping[str, Value]) -> Rehearsals:
    flat = tuple(Recipe.from_flat(keys).to_flat() for keys in recipes)
    return Rehearsals(flat, (8, 8, 1), 10, train_images=100, val_images=20, cpus=1)


def test_without_a_gpu_nothing_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")  # on a machine with one too
    load = measure(wanted({"model.name": "resnet8"}), most=8)
    assert load == Load(problem="there is no real GPU to measure on")


@pytest.mark.slow
def test_trials_are_measured_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    too_small_images = {"model.name": "lenet5"}
    recipes = wanted(too_small_images, {"model.name": "resnet8", "batch_size": 32, "augment.policy": "mixup"})
    load = measure(recipes, most=2, seconds=200, gpu_bytes=80 * GB)
    assert set(load.rates) == {1, 2}
    assert min(load.rates.values()) > 0
    assert 0.1 * GB < load.trial_bytes < 10 * GB  # here of main memory


@pytest.mark.slow
def test_what_cannot_be_trained_or_comes_too_late_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert measure(wanted({"model.name": "lenet5"}), most=8, gpu_bytes=GB) == Load()
    assert measure(wanted({"model.name": "resnet8"}), most=8, seconds=0, gpu_bytes=GB) == Load()
