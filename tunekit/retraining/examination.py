"""What networks are worth on images that nobody chose them by: every figure of it, and pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tunekit.data.pack import Labels
from tunekit.retraining.metrics import (
    ClassScore,
    ReliabilityBin,
    calibration_error,
    class_scores,
    confusion_matrix,
    cross_entropy,
    reliability_bins,
    softmax,
)
from tunekit.retraining.networks import Judge, Logits
from tunekit.retraining.statistics import (
    Difference,
    Interval,
    accuracy_interval,
    binomial_interval,
    difference,
    seed_interval,
)
from tunekit.tracking.model import Classifier


@dataclass(frozen=True)
class ExaminedRecipe:
    """How a recipe's networks did."""

    name: str
    part: str  # the images that trained them: `train` or `train+val`
    accuracies: tuple[float, ...]  # a seed each; 0 for one that left no network
    mean: float
    over_seeds: Interval | None  # 95 %, for other seeds and these images; None for one seed
    over_both: Interval  # 95 %, for other seeds and other images


@dataclass(frozen=True)
class ExaminedModel:
    """How one network did."""

    accuracy: float
    interval: Interval  # 95 %, binomial: for this network and other images
    cross_entropy: float  # nats
    calibration_error: float  # ECE, 15 bins
    bins: list[ReliabilityBin]
    class_scores: list[ClassScore]
    confusion: list[list[int]]  # a row for each true class
    images_per_second: float
    device: str
    parameters: int


def examine_recipe(
    name: str, part: str, logits: Sequence[Logits], judge: Judge, failed: int = 0
) -> ExaminedRecipe:
    """The accuracy of one recipe over its seeds.

    Args:
        name, part: as in the result.
        logits: (N, classes) of each seed's network on the judge's images.
        judge: has the labels.
        failed: seeds that left no network: wrong everywhere, as when the winner was picked.
    """
    wrong = np.zeros(len(judge.labels), bool)
    right = np.stack([*map(judge.right, logits), *[wrong] * failed])
    accuracies = tuple(right.mean(1).tolist())
    return ExaminedRecipe(
        name, part, accuracies, float(right.mean()), seed_interval(accuracies), accuracy_interval(right)
    )


def examine_model(classifier: Classifier, logits: Logits, judge: Judge) -> ExaminedModel:
    """Everything about one network.

    Args:
        classifier: the network.
        logits: (N, classes), its answers for the judge's images.
        judge: has the images and labels.
    """
    labels, probabilities, predicted = judge.labels, softmax(logits), logits.argmax(1)
    right = judge.right(logits)
    bins = reliability_bins(probabilities, labels)
    return ExaminedModel(
        accuracy=float(right.mean()),
        interval=binomial_interval(int(right.sum()), len(right)),
        cross_entropy=cross_entropy(probabilities, labels),
        calibration_error=calibration_error(bins),
        bins=bins,
        class_scores=class_scores(labels, predicted, classifier.classes),
        confusion=confusion_matrix(labels, predicted, len(classifier.classes)).tolist(),
        images_per_second=judge.images_per_second(classifier),
        device=judge.device_words,
        parameters=parameters(classifier),
    )


def parameters(classifier: Classifier) -> int:
    """How many numbers the network learned."""
    return sum(part.numel() for part in classifier.module.parameters())


def gain(ours: Logits, theirs: Logits, judge: Judge) -> Difference:
    """The accuracy of one network minus that of another on the same images; the interval is for others."""
    return difference(judge.right(ours)[None], judge.right(theirs)[None])


def surest(logits: Logits, labels: Labels, right: bool, most: int) -> list[int]:
    """The images that the network was surest about, wrongly or rightly; surest first."""
    chosen = np.flatnonzero((logits.argmax(1) == labels) == right)
    order = np.argsort(-softmax(logits)[chosen].max(1), kind="stable")
    return [int(place) for place in chosen[order][:most]]


def captions(places: Sequence[int], logits: Logits, labels: Labels, classes: Sequence[str]) -> list[str]:
    """`cat, 98 %`, or of a mistake `cat as dog, 98 %`: what each image is, and what the network said."""
    probabilities, said = softmax(logits), logits.argmax(1)
    return [
        f"{classes[labels[place]]}{f' as {classes[said[place]]}' if said[place] != labels[place] else ''}, "
        f"{100 * probabilities[place].max():.0f} %"
        for place in places
    ]
