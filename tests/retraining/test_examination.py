"""Every figure of an examination against a slow and plain way to get it."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binomtest, t
from sklearn.metrics import precision_recall_fscore_support

from tests.retraining.saved_networks import CLASSES, IMAGES, answers, judge_of, save_network
from tunekit.retraining.examination import (
    ExaminedModel,
    captions,
    examine_model,
    examine_recipe,
    gain,
    surest,
)
from tunekit.retraining.networks import Judge, Logits
from tunekit.tracking.model import Classifier
from tunekit.tuning.winner import load_winner

TRUE = [0, 1, 2, 0, 1, 2]


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Classifier:
    file: Path = tmp_path_factory.mktemp("trial") / "best.safetensors"
    save_network(file, seed=0)
    return load_winner(file)


@pytest.fixture(scope="module")
def logits(classifier: Classifier) -> Logits:
    return Judge(IMAGES, np.zeros(len(IMAGES), np.int64)).logits(classifier)


@pytest.fixture(scope="module")
def judge(logits: Logits) -> Judge:
    """The network is right about two images of three."""
    labels = logits.argmax(1)
    labels[::3] = (labels[::3] + 1) % 3
    return Judge(IMAGES, labels)


@pytest.fixture(scope="module")
def model(classifier: Classifier, logits: Logits, judge: Judge) -> ExaminedModel:
    return examine_model(classifier, logits, judge)


def plain_softmax(scores: list[float]) -> list[float]:
    powers = [math.exp(score - max(scores)) for score in scores]
    return [power / sum(powers) for power in powers]


# A recipe.


def test_a_recipe_has_an_accuracy_for_each_seed_and_their_mean() -> None:
    judge = judge_of(TRUE)
    said = [TRUE, [0, 1, 2, 0, 1, 0], [1, 1, 1, 1, 1, 1]]
    found = examine_recipe("trial 07", "train+val", [answers(one) for one in said], judge)
    expected = [sum(a == b for a, b in zip(one, TRUE, strict=True)) / 6 for one in said]
    assert (found.name, found.part) == ("trial 07", "train+val")
    assert found.accuracies == pytest.approx(expected)
    assert found.mean == pytest.approx(sum(expected) / 3)


def test_a_recipes_intervals_are_for_other_seeds_and_for_other_images_too() -> None:
    true = (np.arange(300) % 3).tolist()
    rng = np.random.default_rng(0)
    said = [np.where(rng.random(300) < share, true, 0).tolist() for share in (0.8, 0.75, 0.7)]
    right = np.array([[a == b for a, b in zip(one, true, strict=True)] for one in said])
    found = examine_recipe("a", "train", [answers(one) for one in said], judge_of(true))
    by_seed, by_image = right.mean(1).var(ddof=1) / 3, right.mean(0).var(ddof=1) / 300
    half = t.ppf(0.975, 2) * math.sqrt(by_seed)
    assert found.over_seeds is not None
    assert [found.over_seeds.low, found.over_seeds.high] == pytest.approx(
        [found.mean - half, found.mean + half]
    )
    freedom = (by_seed + by_image) ** 2 / (by_seed**2 / 2 + by_image**2 / 299)
    half = t.ppf(0.975, freedom) * math.sqrt(by_seed + by_image)
    assert [found.over_both.low, found.over_both.high] == pytest.approx(
        [found.mean - half, found.mean + half]
    )


def test_one_seed_says_nothing_about_others() -> None:
    found = examine_recipe("a", "train", [answers([0, 1, 2, 0, 1, 0])], judge_of(TRUE))
    expected = binomtest(5, 6).proportion_ci(method="wilson")
    assert found.over_seeds is None
    assert (found.over_both.low, found.over_both.high) == pytest.approx((expected.low, expected.high))


# A model.


def test_a_models_accuracy_and_its_interval(model: ExaminedModel) -> None:
    expected = binomtest(20, 30).proportion_ci(method="wilson")
    assert model.accuracy == pytest.approx(20 / 30)
    assert (model.interval.low, model.interval.high) == pytest.approx((expected.low, expected.high))


def test_a_models_cross_entropy(model: ExaminedModel, logits: Logits, judge: Judge) -> None:
    losses = [
        -math.log(plain_softmax(scores)[label])
        for scores, label in zip(logits.tolist(), judge.labels, strict=True)
    ]
    assert model.cross_entropy == pytest.approx(sum(losses) / 30, rel=1e-5)


def test_a_models_calibration(model: ExaminedModel, logits: Logits, judge: Judge) -> None:
    members: dict[int, list[tuple[float, bool]]] = {}
    for scores, label in zip(logits.tolist(), judge.labels, strict=True):
        probabilities = plain_softmax(scores)
        confidence = max(probabilities)
        right = probabilities.index(confidence) == label
        members.setdefault(math.ceil(confidence * 15), []).append((confidence, right))
    gaps = [abs(sum(right - confidence for confidence, right in group)) for group in members.values()]
    assert model.calibration_error == pytest.approx(sum(gaps) / 30, rel=1e-5)
    assert [part.images for part in model.bins] == [len(members[number]) for number in sorted(members)]


def test_a_models_classes(model: ExaminedModel, logits: Logits, judge: Judge) -> None:
    precision, recall, f1, support = precision_recall_fscore_support(judge.labels, logits.argmax(1))
    assert [one.name for one in model.class_scores] == CLASSES
    assert [one.precision for one in model.class_scores] == pytest.approx(precision.tolist())
    assert [one.recall for one in model.class_scores] == pytest.approx(recall.tolist())
    assert [one.f1 for one in model.class_scores] == pytest.approx(f1.tolist())
    assert [one.support for one in model.class_scores] == support.tolist()
    pairs = list(zip(judge.labels.tolist(), logits.argmax(1).tolist(), strict=True))
    assert model.confusion == [[pairs.count((true, given)) for given in range(3)] for true in range(3)]


def test_a_models_cost(model: ExaminedModel, classifier: Classifier) -> None:
    sizes = [math.prod(part.shape) for part in classifier.module.parameters()]
    assert model.parameters == sum(sizes)
    assert model.images_per_second > 0
    assert model.device


def test_what_one_network_gains_on_another_is_for_other_images() -> None:
    true = [0] * 200
    ours, theirs = answers([0] * 150 + [1] * 50), answers([0] * 100 + [1] * 100)
    found = gain(ours, theirs, judge_of(true))
    differences = np.repeat([0.0, 1.0, 0.0], [100, 50, 50])
    half = t.ppf(0.975, 199) * differences.std(ddof=1) / math.sqrt(200)
    assert found.mean == pytest.approx(0.25)
    assert (found.interval.low, found.interval.high) == pytest.approx((0.25 - half, 0.25 + half))


# Pictures.


def test_the_surest_mistakes_and_successes_come_surest_first() -> None:
    labels = np.array([0, 1, 2, 0, 1, 2])
    said = answers([0, 0, 0, 0, 1, 2]) * np.array([1, 3, 4, 2, 5, 0.5], np.float32)[:, None]
    assert surest(said, labels, right=False, most=9) == [2, 1]
    assert surest(said, labels, right=True, most=9) == [4, 3, 0, 5]
    assert surest(said, labels, right=True, most=2) == [4, 3]
    assert surest(answers(labels.tolist()), labels, right=False, most=9) == []


def test_of_equally_sure_answers_the_first_image_comes_first() -> None:
    labels = np.zeros(6, np.int64)
    assert surest(answers([0] * 6), labels, right=True, most=3) == [0, 1, 2]


def test_a_caption_says_what_it_is_what_was_said_and_how_surely() -> None:
    labels = np.array([0, 1, 2])
    scores = np.log(np.array([[0.98, 0.01, 0.01], [0.7, 0.2, 0.1], [0.25, 0.25, 0.5]], np.float32))
    assert captions([1, 0, 2], scores, labels, CLASSES) == ["dog as cat, 70 %", "cat, 98 %", "bird, 50 %"]
    assert captions([], scores, labels, CLASSES) == []


def test_a_seed_that_left_no_network_was_wrong_everywhere() -> None:
    found = examine_recipe("a", "train", [answers([0, 1, 2, 0, 1, 2])], judge_of(TRUE), failed=1)
    whole = examine_recipe("a", "train", [answers([0, 1, 2, 0, 1, 2])], judge_of(TRUE))
    assert found.accuracies == (*whole.accuracies, 0.0)
    assert found.mean == pytest.approx(whole.mean / 2)
