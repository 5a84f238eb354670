"""Folders of known recipes: which recipes go where, and when one is found again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.search_on_disk import lay_down_search
from tunekit.baselines import find_baseline, matching_baselines
from tunekit.data.pack import Content, Part, ensure_pack
from tunekit.data.split import Split
from tunekit.errors import SearchError, SpaceError
from tunekit.paths import SearchPaths, pack_folder
from tunekit.retraining.candidates import choose_candidates
from tunekit.retraining.known_recipes import baselines_by_dataset, folders_of_known
from tunekit.tuning.progress import QuietView
from tunekit.tuning.settings import SearchSettings

LENET = "lecun1998-mnist-lenet5"
VGG = "B-mnist-vgg16"
PRETRAINED = "A-mnist-vgg16-frozen"


def test_recipes_go_to_the_data_set_that_they_were_reported_for() -> None:
    found = baselines_by_dataset([LENET, "C-*", "he2016-cifar10-resnet20"])
    assert list(found) == ["mnist", "cifar10"]
    assert found["mnist"] == [find_baseline(LENET), *matching_baselines("C-mnist-*")]
    assert found["cifar10"] == [*matching_baselines("C-cifar10-*"), find_baseline("he2016-cifar10-resnet20")]


def test_a_recipe_that_two_patterns_name_is_there_once() -> None:
    (found,) = baselines_by_dataset(["C-mnist-vgg16-*", "C-mnist-*", "C-mnist-vgg16-lr0.1"]).values()
    assert len(found) == len(matching_baselines("C-mnist-*")) == 6


def test_a_pattern_that_fits_none_names_the_nearest() -> None:
    with pytest.raises(SpaceError) as raised:
        baselines_by_dataset([VGG, "lecun1998-mnist-lenet"])
    assert str(raised.value) == f"no baseline called 'lecun1998-mnist-lenet' (did you mean '{LENET}'?)"


# Folders. The data sets are small ones, packed by hand under the names of large ones.


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    images = np.random.default_rng(0).integers(0, 256, (40, 32, 32, 1), dtype=np.uint8)
    labels = np.arange(40) % 2
    part = Part.of(images, labels)
    for name in ("mnist", "cifar10"):
        content = Content(name, ("a", "b"), (32, 32, 1), part, part, "a test", "abc")
        ensure_pack(pack_folder(tmp_path / "data", name), lambda content=content: content)  # type: ignore[misc]
    return tmp_path / "data"


@pytest.fixture
def settings(tmp_path: Path, data_dir: Path) -> SearchSettings:
    """As the command line makes them: the rest follows from the recipes."""
    return SearchSettings(
        name="",
        dataset="",
        space="",
        samples=0,
        epochs=1,
        seed=0,
        data_dir=str(data_dir),
        tracking_uri=f"sqlite:///{tmp_path}/mlflow.db",
        train_limit=20,
    )


@pytest.fixture
def results_dir(tmp_path: Path) -> Path:
    return tmp_path / "results"


def folders(settings: SearchSettings, results_dir: Path, *patterns: str) -> list[SearchPaths]:
    return folders_of_known(patterns, settings, results_dir, QuietView())


def test_a_folder_holds_what_a_retraining_needs(settings: SearchSettings, results_dir: Path) -> None:
    (paths,) = folders(settings, results_dir, LENET, VGG)
    assert paths.folder == results_dir / f"baselines-mnist-{LENET}-{VGG}"
    kept = SearchSettings.load(paths)
    assert (kept.dataset, kept.samples, kept.epochs) == ("mnist", 0, 20)
    assert [known.name for known in kept.known_recipes()] == [LENET, VGG]
    assert len(Split.load(paths.split).train) + len(Split.load(paths.split).validation) == 20
    found = choose_candidates(paths, kept, top_k=3, epochs=None)
    assert [(one.name, one.epochs) for one in found] == [(LENET, 20), (VGG, 10)]


def test_each_data_set_has_a_folder(settings: SearchSettings, results_dir: Path) -> None:
    found = folders(settings, results_dir, "C-*-resnet18-lr0.1")
    assert [SearchSettings.load(paths).dataset for paths in found] == ["mnist", "cifar10"]


def test_one_name_for_two_data_sets_is_refused(settings: SearchSettings, results_dir: Path) -> None:
    with pytest.raises(SearchError, match="--name: the recipes are of 2 data sets"):
        folders(replace(settings, name="mine"), results_dir, "C-*-resnet18-lr0.1")
    assert not results_dir.exists()


@pytest.mark.parametrize("name", ["", "mine"])
def test_the_same_command_finds_its_folder_again(
    settings: SearchSettings, results_dir: Path, name: str
) -> None:
    wanted = replace(settings, name=name)
    (first,) = folders(wanted, results_dir, LENET, VGG)
    before = first.settings.read_bytes()
    assert folders(wanted, results_dir, LENET, VGG) == [first]
    assert first.settings.read_bytes() == before


def test_the_same_recipes_are_known_again_in_another_order(
    settings: SearchSettings, results_dir: Path
) -> None:
    wanted = replace(settings, name="mine")
    assert folders(wanted, results_dir, LENET, VGG) == folders(wanted, results_dir, VGG, LENET)


@pytest.mark.parametrize(
    ("changed", "key"),
    [({"train_limit": 30}, "train_limit"), ({"val_fraction": 0.5}, "val_fraction"), ({"seed": 1}, "seed")],
)
def test_other_options_under_the_same_name_are_refused(
    settings: SearchSettings, results_dir: Path, changed: dict[str, Any], key: str
) -> None:
    folders(settings, results_dir, LENET)
    with pytest.raises(SearchError) as raised:
        folders(replace(settings, **changed), results_dir, LENET)
    assert str(raised.value) == (
        f"a search called 'baselines-mnist-{LENET}' is there already with other {key}: choose another --name"
    )


def test_another_data_set_under_the_same_name_is_refused(settings: SearchSettings, results_dir: Path) -> None:
    wanted = replace(settings, name="mine")
    folders(wanted, results_dir, LENET)
    with pytest.raises(
        SearchError, match="'mine' is there already with other dataset: choose another --name"
    ):
        folders(wanted, results_dir, "C-cifar10-resnet18-lr0.1")


@pytest.mark.parametrize(
    ("first", "second"),
    [((LENET,), (VGG,)), ((LENET,), (LENET, VGG)), ((LENET, VGG), (LENET,)), ((LENET,), ("C-mnist-*",))],
)
def test_other_recipes_under_the_same_name_are_refused(
    settings: SearchSettings, results_dir: Path, first: tuple[str, ...], second: tuple[str, ...]
) -> None:
    wanted = replace(settings, name="mine")
    folders(wanted, results_dir, *first)
    with pytest.raises(
        SearchError, match="'mine' is there already with other recipes: choose another --name"
    ):
        folders(wanted, results_dir, *second)


def test_a_recipe_whose_first_weights_could_not_be_had_may_be_absent(
    settings: SearchSettings, results_dir: Path
) -> None:
    # Without a network the first call leaves it out, and says so.
    wanted = replace(settings, name="mine")
    laid_down = folders(wanted, results_dir, LENET)
    assert folders(wanted, results_dir, LENET, PRETRAINED) == laid_down


def test_a_search_of_that_name_is_refused(settings: SearchSettings, results_dir: Path) -> None:
    paths = lay_down_search(results_dir, "mine")
    there = SearchSettings.load(paths)
    replace(there, dataset="mnist", train_limit=20).save(paths)
    with pytest.raises(SearchError, match="a search called 'mine' is there already"):
        folders(replace(settings, name="mine"), results_dir, LENET)


def test_a_search_that_tried_the_same_recipes_first_is_refused(
    settings: SearchSettings, results_dir: Path
) -> None:
    wanted = replace(settings, name="mine")
    (paths,) = folders(wanted, results_dir, LENET)
    replace(SearchSettings.load(paths), samples=8).save(paths)
    with pytest.raises(SearchError, match="a search called 'mine' is there already"):
        folders(wanted, results_dir, LENET)


def test_many_recipes_have_a_name_of_their_own_too(settings: SearchSettings, results_dir: Path) -> None:
    # Their names together are longer than a folder's may be.
    (some,) = folders(settings, results_dir, "B-mnist-vgg*")
    (more,) = folders(settings, results_dir, "B-mnist-vgg*", "B-mnist-resnet18*")
    assert some != more
    assert len(some.name) <= 100
    assert len(SearchSettings.load(more).baselines) > len(SearchSettings.load(some).baselines)
    assert folders(settings, results_dir, "B-mnist-vgg*") == [some]
