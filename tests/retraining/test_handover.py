"""Which networks are handed over, and that what is built from their files says what they said."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.retraining.saved_networks import (
    CLASSES,
    IMAGES,
    LABELS,
    SHAPE,
    answers,
    judge_of,
    judged,
    normalised,
    retraining,
)
from tunekit.errors import TunekitError
from tunekit.paths import RetrainingPaths
from tunekit.retraining.handover import HandedOver, Member, best_network, calibrated, ensemble_of
from tunekit.retraining.metrics import cross_entropy, softmax
from tunekit.retraining.networks import Judge
from tunekit.tracking.model import Classifier, PixelsToProbabilities
from tunekit.tuning.winner import load_winner

TRUE = [0, 1, 2, 0, 1, 2, 0, 1]


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> RetrainingPaths:
    return retraining(tmp_path_factory.mktemp("results"), networks=3)


def said(classifier: Classifier) -> torch.Tensor:
    """(N, classes) probabilities of all images."""
    with torch.no_grad():
        return torch.softmax(classifier.module(normalised(IMAGES)), 1)


def alone(paths: RetrainingPaths, training: int) -> torch.Tensor:
    return said(load_winner(paths.trial(training).best))


# Which networks.


def test_the_best_network_is_that_of_the_seed_that_validates_best() -> None:
    judge = judge_of(TRUE)
    one_wrong, two_wrong = [1, *TRUE[1:]], [1, 2, *TRUE[2:]]
    recipe = judged("a", [4, 7, 9], [answers(two_wrong), answers(one_wrong), answers(two_wrong)], judge)
    assert best_network(recipe, judge) == HandedOver([Member(7)])


def test_of_equally_good_seeds_the_first_is_handed_over() -> None:
    judge = judge_of(TRUE)
    recipe = judged("a", [4, 7, 9], [answers([1] * 8), answers(TRUE), answers(TRUE, sure=9)], judge)
    assert best_network(recipe, judge) == HandedOver([Member(7)])


def test_an_ensemble_leaves_out_who_adds_nothing() -> None:
    judge = judge_of(TRUE)
    # Each half is known to another network; a third is sure and wrong.
    first_half, second_half = answers(TRUE), answers(TRUE)
    first_half[4:], second_half[:4] = 0, 0
    wrong = answers([(label + 1) % 3 for label in TRUE])
    recipes = [
        judged("a", [3, 5], [wrong, first_half], judge),
        judged("b", [8], [second_half], judge),
    ]
    model = ensemble_of(recipes, judge)
    assert {member.training for member in model.members} == {5, 8}
    assert sum(member.weight for member in model.members) == pytest.approx(1)
    assert min(member.weight for member in model.members) > 0
    assert model.temperature == 1.0


def test_an_ensembles_first_member_has_most_weight() -> None:
    judge = judge_of(TRUE)
    # One is right about six images and wrong about two, the other knows only those two.
    most, rest = answers([*TRUE[:6], 1, 2]), answers(TRUE)
    rest[:6] = 0
    model = ensemble_of([judged("a", [3], [rest], judge), judged("b", [5], [most], judge)], judge)
    assert [member.training for member in model.members] == [5, 3]
    assert model.members[0].weight > model.members[1].weight


def test_an_ensemble_of_one_good_network_is_that_network() -> None:
    judge = judge_of(TRUE)
    wrong = answers([(label + 1) % 3 for label in TRUE])
    recipe = judged("a", [3, 5], [wrong, answers(TRUE)], judge)
    assert ensemble_of([recipe], judge) == HandedOver([Member(5, 1.0)])


# What is built of them.


def test_one_network_says_what_it_said(paths: RetrainingPaths) -> None:
    classifier = HandedOver([Member(1)]).load(paths)
    torch.testing.assert_close(said(classifier), alone(paths, 1))
    assert not classifier.module.training
    assert (classifier.classes, classifier.image_shape) == (CLASSES, SHAPE)
    assert [recipe["optim.lr"] for recipe in classifier.recipes] == [0.02]


def test_several_networks_say_the_weighted_mean_of_what_each_said(paths: RetrainingPaths) -> None:
    members = [Member(2, 0.5), Member(0, 0.3), Member(1, 0.2)]
    classifier = HandedOver(members).load(paths)
    expected = 0.5 * alone(paths, 2) + 0.3 * alone(paths, 0) + 0.2 * alone(paths, 1)
    torch.testing.assert_close(said(classifier), expected)
    assert not any(module.training for module in classifier.module.modules())
    assert [recipe["optim.lr"] for recipe in classifier.recipes] == [0.03, 0.01, 0.02]
    assert (classifier.classes, classifier.image_shape) == (CLASSES, SHAPE)


@pytest.mark.parametrize("members", [[Member(1)], [Member(1, 0.6), Member(0, 0.4)]], ids=["one", "two"])
@pytest.mark.parametrize("temperature", [0.5, 2.5])
def test_a_temperature_changes_how_sure_it_is_and_not_what_it_names(
    paths: RetrainingPaths, members: list[Member], temperature: float
) -> None:
    plain = said(HandedOver(members).load(paths))
    scaled = HandedOver(members, temperature).load(paths)
    # Dividing logits is raising probabilities to a power.
    powered = plain.double() ** (1 / temperature)
    expected = powered / powered.sum(1, keepdim=True)
    torch.testing.assert_close(said(scaled).double(), expected, rtol=1e-4, atol=1e-6)
    assert torch.equal(said(scaled).argmax(1), plain.argmax(1))
    assert not torch.allclose(said(scaled), plain, atol=1e-3)
    assert not any(module.training for module in scaled.module.modules())


@pytest.mark.parametrize("temperature", [1.0, 2.5])
@pytest.mark.parametrize("members", [[Member(1)], [Member(1, 0.6), Member(0, 0.4)]], ids=["one", "two"])
def test_its_answers_are_those_of_the_network_that_is_built(
    paths: RetrainingPaths, members: list[Member], temperature: float
) -> None:
    model, judge = HandedOver(members, temperature), Judge(IMAGES, LABELS)
    judge.logits_of(paths.trial(1).best)  # known already, which must not change what is said
    found = softmax(model.logits(paths, judge))
    np.testing.assert_allclose(found, said(model.load(paths)).numpy(), rtol=1e-4, atol=1e-5)


def test_what_is_registered_takes_pixels_and_says_the_same(paths: RetrainingPaths) -> None:
    classifier = HandedOver([Member(1, 0.6), Member(0, 0.4)], 1.5).load(paths)
    torch.testing.assert_close(PixelsToProbabilities(classifier)(torch.from_numpy(IMAGES)), said(classifier))


def test_calibration_suits_the_images_it_is_fitted_on(paths: RetrainingPaths) -> None:
    plain = HandedOver([Member(0)])
    logits = Judge(IMAGES, LABELS).logits(plain.load(paths))
    labels = logits.argmax(1)
    labels[::4] = LABELS[::4]  # right about most images
    judge = Judge(IMAGES, labels)
    fitted = calibrated(plain, paths, judge)
    assert fitted.members == plain.members
    losses = [
        cross_entropy(softmax(logits, share * fitted.temperature), labels)
        for share in (1, 0.9, 1.1, 1 / fitted.temperature)
    ]
    assert losses[0] < min(losses[1:])
    found = cross_entropy(softmax(judge.logits(fitted.load(paths))), labels)
    assert found == pytest.approx(losses[0], abs=1e-5)


def test_a_file_that_is_gone_or_damaged_is_named(tmp_path: Path) -> None:
    paths = retraining(tmp_path, networks=2)
    paths.trial(1).best.write_bytes(b"no weights")
    for training in (1, 2):
        with pytest.raises(TunekitError) as raised:
            HandedOver([Member(0, 0.5), Member(training, 0.5)]).load(paths)
        assert str(raised.value).startswith(f"{paths.trial(training).best}: no weights that can be read (")


# The judge that asks them.


def test_a_judge_gives_the_logits_of_a_plain_loop(paths: RetrainingPaths) -> None:
    classifier = load_winner(paths.trial(0).best)
    with torch.no_grad():
        each = [classifier.module(normalised(IMAGES[place : place + 1]))[0] for place in range(len(IMAGES))]
    for found in (
        Judge(IMAGES, LABELS).logits(classifier),
        Judge(IMAGES, LABELS).logits_of(paths.trial(0).best),
    ):
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, torch.stack(each).numpy(), rtol=1e-4, atol=1e-4)


def test_a_judge_asks_about_the_rows_that_it_was_given_and_in_their_order(paths: RetrainingPaths) -> None:
    rows = np.array([7, 3, 12, 29], np.int64)
    every, some = Judge(IMAGES, LABELS), Judge(IMAGES, LABELS, rows)
    logits = every.logits_of(paths.trial(0).best)
    np.testing.assert_allclose(some.logits_of(paths.trial(0).best), logits[rows], rtol=1e-4, atol=1e-4)
    assert some.labels.tolist() == LABELS[rows].tolist()
    assert every.labels.tolist() == LABELS.tolist()


def test_an_answer_is_right_if_its_highest_score_is_that_of_the_label() -> None:
    judge = judge_of([0, 1, 2, 0])
    assert judge.right(answers([0, 1, 0, 2])).tolist() == [True, True, False, False]
