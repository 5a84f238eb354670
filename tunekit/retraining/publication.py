"""A result into MLflow: figures and pictures on the retraining's run, the model into the registry."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import NamedTuple

from tunekit.data.pack import Pack
from tunekit.data.split import Split
from tunekit.paths import SearchPaths
from tunekit.retraining.findings import Result, save_result
from tunekit.retraining.handover import HandedOver, Member
from tunekit.tracking.registry import registered_name
from tunekit.tracking.retraining_run import HandedModel, RetrainingRun, problem
from tunekit.tracking.writer import Teller
from tunekit.tuning.settings import SearchSettings

_EXAMPLES = 2  # images that come with the model; one alone would fix the batch size


class Publication(NamedTuple):
    """A result, and why MLflow does not have it, if so."""

    result: Result
    problem: str | None


def publish(
    paths: SearchPaths,
    settings: SearchSettings,
    pack: Pack,
    result: Result,
    say: Callable[[str], None],
    tell: Teller | None = None,
) -> Publication:
    """Bring a result into MLflow, once; the next call tries again what MLflow did not take."""
    if result["registration"] is not None:
        return Publication(result, None)
    say("Handing the model over to MLflow ...")
    number = result["opening"]["number"]
    try:
        run = RetrainingRun(paths, settings.tracking_uri)
        run.record(number, _metrics(result), _tags(result), paths.retraining.opening(number))
        registration = run.hand_over(_model(paths, pack, result))
        result = save_result(paths.retraining, {**result, "registration": asdict(registration)})
        if tell is not None:
            account = tell(paths, "finished")
            alias = "@best" if registration.best else f"/{registration.version}"
            run.describe(_description(result), account.note, registration.name + alias, account.files)
    except Exception as error:  # whatever MLflow raises: the result is on disk, and this can be done again
        return Publication(result, problem(error, settings.tracking_uri))
    return Publication(result, None)


def _metrics(result: Result) -> dict[str, float]:
    model, tested = result["model"], result["test"][0]
    metrics = {
        "test_accuracy": tested["mean"],
        "test_accuracy_low": tested["over_both"]["low"],
        "test_accuracy_high": tested["over_both"]["high"],
        "val_accuracy": result["standings"][0]["mean"],
        "model_test_accuracy": model["accuracy"],
        "model_test_cross_entropy": model["cross_entropy"],
        "model_test_calibration_error": model["calibration_error"],
        "model_images_per_second": model["images_per_second"],
    }
    if model["ensemble"]:
        metrics |= {
            "ensemble_gain": model["ensemble"]["gain"],
            "ensemble_slower": model["ensemble"]["slower"],
        }
    return metrics


def _tags(result: Result) -> dict[str, str]:
    return {"winner": result["winner"]}


def _model(paths: SearchPaths, pack: Pack, result: Result) -> HandedModel:
    model, opening = result["model"], result["opening"]
    members = [Member(one["training"], one["weight"]) for one in model["members"]]
    images, _ = pack.train()
    shown = Split.load(paths.split).validation[:_EXAMPLES]
    return HandedModel(
        name=registered_name(result["dataset"]),
        classifier=HandedOver(members, model["temperature"]).load(paths.retraining),
        example=images[shown],
        metadata={
            "search": result["search"],
            "temperature": model["temperature"],
            "weights": [member.weight for member in members],
            "test_accuracy": model["accuracy"],
            "trained_on": result["test"][0]["part"],
        },
        tags={
            "search": result["search"],
            "recipe": ", ".join(sorted({one["recipe"] for one in model["members"]})),
            "test_accuracy": f"{model['accuracy']:.6f}",
            "test_images": str(result["test_images"]),
            "test_digest": opening["data"],
            "test_opening": str(opening["number"]),
        },
        description=_description(result),
    )


def _description(result: Result) -> str:
    model, tested = result["model"], result["test"][0]
    seeds = tested["over_seeds"]
    spread = f" ({seeds['low']:.4f} to {seeds['high']:.4f} over seeds, 95 %)" if seeds else ""
    return (
        f"From search {result['search']} on {result['data']}: {result['winner']}. "
        f"Accuracy of this model on {result['test_images']:,} test images: {model['accuracy']:.4f} "
        f"(95 %: {model['interval']['low']:.4f} to {model['interval']['high']:.4f}); "
        f"mean of {len(tested['accuracies'])} seeds of its recipe: {tested['mean']:.4f}{spread}. "
        f"The test set was opened by this search for time {result['opening']['number']}.\n\n"
        + " ".join(result["verdicts"])
        + "\n\nTakes uint8 images (N, H, W, C), gives probabilities (N, classes); "
        f"classes, in order: {', '.join(result['classes'])[:2000]}."
    )
