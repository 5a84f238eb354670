"""One opening of the test set: what is asked of it, and the result that is kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from tunekit.retraining.examination import ExaminedModel, examine_model, examine_recipe, gain
from tunekit.retraining.findings import Curves, Result, draw_findings, show_images, write_tables
from tunekit.retraining.handover import HandedOver
from tunekit.retraining.judging import JudgedRecipe
from tunekit.retraining.metrics import calibration_error, reliability_bins, softmax
from tunekit.retraining.networks import Judge, Logits
from tunekit.retraining.test_set import OpenedTestSet
from tunekit.retraining.trainer import Trainer


@dataclass(frozen=True)
class Examinees:
    """Who is examined: settled before the test set is opened."""

    recipes: Sequence[JudgedRecipe]  # the winner first
    refitted: Sequence[int]  # trainings of the winner on train+val; may be none
    model: HandedOver
    alone: HandedOver | None  # the winner's best network, to compare an ensemble with

    @property
    def names(self) -> list[str]:
        """Of the recipes."""
        return [recipe.name for recipe in self.recipes]


def examine(trainer: Trainer, test: OpenedTestSet, examinees: Examinees, curves: Curves) -> Result:
    """Everything that the test images say; pictures and tables go into the opening's folder.

    Args:
        trainer: has the networks' files.
        test: the opened test set.
        examinees: who is examined.
        curves: of the trainings, to be drawn.
    """
    judge = Judge(test.images, test.labels)
    classifier = examinees.model.load(trainer.paths)
    logits = examinees.model.logits(trainer.paths, judge)
    model = examine_model(classifier, logits, judge)
    temperature = examinees.model.temperature
    before = reliability_bins(softmax(logits, 1 / temperature), judge.labels) if temperature != 1.0 else None
    folder = trainer.paths.opening(test.opening.number)
    draw_findings(folder, model, before, classifier.classes, curves)
    show_images(folder, test.images, logits, judge, classifier.classes)
    write_tables(folder, model, classifier.classes)
    return {
        "opening": asdict(test.opening),
        "test_images": len(judge.labels),
        "test": _recipe_rows(trainer, examinees, judge),
        "model": {
            **asdict(model),
            "members": [
                _member(trainer, member.training, member.weight) for member in examinees.model.members
            ],
            "temperature": temperature,
            "calibration_error_before": calibration_error(before) if before else None,
            "ensemble": _ensemble(trainer, examinees.alone, logits, model, judge),
        },
    }


def _recipe_rows(trainer: Trainer, examinees: Examinees, judge: Judge) -> list[Result]:
    asked = [(recipe.name, "train", recipe.ids) for recipe in examinees.recipes]
    if examinees.refitted:
        asked.insert(0, (examinees.names[0], "train+val", list(examinees.refitted)))
    return [
        asdict(examine_recipe(name, part, [judge.logits_of(trainer.files(one).best) for one in ids], judge))
        for name, part, ids in asked
    ]


def _ensemble(
    trainer: Trainer, alone: HandedOver | None, logits: Logits, model: ExaminedModel, judge: Judge
) -> Result | None:
    """What an ensemble gains over the winner's best network, and what it costs."""
    if alone is None:
        return None
    own = alone.logits(trainer.paths, judge)
    single = examine_model(alone.load(trainer.paths), own, judge)
    gained = gain(logits, own, judge)
    return {
        "alone": _member(trainer, alone.members[0].training, 1.0),
        "accuracy_alone": single.accuracy,
        "cross_entropy_alone": single.cross_entropy,
        "gain": gained.mean,
        "gain_interval": asdict(gained.interval),
        "slower": single.images_per_second / model.images_per_second,
        "larger": model.parameters / single.parameters,
    }


def _member(trainer: Trainer, training: int, weight: float) -> Result:
    planned = trainer.planned[training]
    return {"training": training, "recipe": planned.name, "seed": planned.seed, "weight": weight}
