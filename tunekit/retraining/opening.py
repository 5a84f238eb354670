"""One opening of the test set: what is asked of it, and the result that is kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from tunekit.retraining.examination import ExaminedModel, examine_model, examine_recipe, gain, parameters
from tunekit.retraining.findings import Curves, Result, draw_findings, show_images, write_tables
from tunekit.retraining.handover import HandedOver, Member
from tunekit.retraining.judging import JudgedRecipe
from tunekit.retraining.metrics import calibration_error, cross_entropy, reliability_bins, softmax
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
    members = [_member(trainer, member) for member in examinees.model.members]
    return {
        "opening": asdict(test.opening),
        "test_images": len(judge.labels),
        "test": _recipe_rows(trainer, examinees, judge),
        "model": {
            **asdict(model),
            "members": members,
            "temperature": temperature,
            "calibration_error_before": calibration_error(before) if before else None,
            "ensemble": _ensemble(trainer, examinees.alone, logits, model, judge),
        },
    }


def _recipe_rows(trainer: Trainer, examinees: Examinees, judge: Judge) -> list[Result]:
    asked = [(one.name, "train", one.ids, len(one.right)) for one in examinees.recipes]
    if examinees.refitted:
        seeds = asked[0][3]
        asked.insert(0, (examinees.names[0], "train+val", list(examinees.refitted), seeds))
    rows = []
    for name, part, ids, seeds in asked:
        logits = [judge.logits_of(trainer.files(training).best) for training in ids]
        rows.append(asdict(examine_recipe(name, part, logits, judge, failed=seeds - len(ids))))
    return rows


def _ensemble(
    trainer: Trainer, alone: HandedOver | None, logits: Logits, model: ExaminedModel, judge: Judge
) -> Result | None:
    """What an ensemble gains over the winner's best network, and what it costs."""
    if alone is None:
        return None
    single = alone.load(trainer.paths)
    own = alone.logits(trainer.paths, judge)
    gained = gain(logits, own, judge)
    return {
        "alone": _member(trainer, alone.members[0]),
        "accuracy_alone": float(judge.right(own).mean()),
        "cross_entropy_alone": cross_entropy(softmax(own), judge.labels),
        "gain": gained.mean,
        "gain_interval": asdict(gained.interval),
        "slower": judge.images_per_second(single) / model.images_per_second,
        "larger": model.parameters / parameters(single),
    }


def _member(trainer: Trainer, member: Member) -> Result:
    planned = trainer.planned[member.training]
    return {**asdict(member), "recipe": planned.name, "seed": planned.seed}
