"""A trained network as an MLflow model that anybody can load: no pickle, no source code of tunekit."""

from __future__ import annotations

import copy
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tunekit.recipe import Value
from tunekit.tracking.client import silence

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel
    from mlflow.models import ModelSignature


@dataclass(frozen=True)
class Classifier:
    """A network and what is needed to use it."""

    module: nn.Module  # images (N, C, H, W), float32, normalised, to logits (N, classes)
    image_shape: tuple[int, int, int]  # H, W, C
    classes: list[str]
    mean: list[float]  # a channel, of pixels scaled to 0..1
    std: list[float]
    recipes: Sequence[Mapping[str, Value]] = ()  # flat, of each network in it, the best first


class PixelsToProbabilities(nn.Module):
    """The network with its preprocessing inside, so that nobody can forget it."""

    mean: Tensor
    std: Tensor

    def __init__(self, classifier: Classifier) -> None:
        """Takes a copy of the network: float32, on the CPU, in evaluation mode."""
        super().__init__()
        network = copy.deepcopy(classifier.module)
        self.network = network.to("cpu", torch.float32, memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        self.register_buffer("mean", torch.tensor(classifier.mean).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(classifier.std).view(-1, 1, 1))
        self.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        """uint8 images (N, H, W, C), 0 to 255, to float32 class probabilities (N, classes)."""
        scaled = images.permute(0, 3, 1, 2).to(torch.float32) / 255
        logits: Tensor = self.network((scaled - self.mean) / self.std)
        return torch.softmax(logits, dim=1)


def log_model(
    client: MlflowClient,
    run_id: str,
    classifier: Classifier,
    name: str,
    tags: Mapping[str, str] | None = None,
    metadata: Mapping[str, Any] = MappingProxyType({}),
    example: NDArray[np.uint8] | None = None,
) -> str:
    """Log a network as a model of an existing run, whose status and times stay as they are.

    The model takes uint8 images (N, H, W, C) of any N and gives float32 probabilities (N, classes).
    `mlflow.pyfunc.load_model` and `mlflow.pytorch.load_model` load it.

    Args:
        client: of the server or database that has the run.
        run_id: the run that trained the network.
        classifier: the network; it is copied, not changed.
        name: shown in MLflow; characters that MLflow forbids in it become '-'.
        tags: of the model.
        metadata: plain values for the model's MLmodel file, beside classes, mean, std and recipes.
        example: images (at least 2, H, W, C), uint8, that show what goes in; zeros if not given.
    Returns:
        The model's URI, `models:/<id>`.
    """
    # Not mlflow.pytorch.log_model: it needs the process-wide active run, and would open and close ours.
    from mlflow.entities import LoggedModelOutput, LoggedModelStatus

    run = client.get_run(run_id)
    model = client.create_logged_model(
        run.info.experiment_id,
        name=re.sub(r"[/:.%\"']", "-", name),
        source_run_id=run_id,
        tags={"classes": ", ".join(classifier.classes)[:5000], **(tags or {})},
        params=run.data.params,
        model_type="classifier",
    )
    try:
        with tempfile.TemporaryDirectory() as folder:
            _save(classifier, Path(folder) / "model", model, run_id, metadata, example)
            client.log_model_artifacts(model.model_id, str(Path(folder) / "model"))
        client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step=0)])
    except BaseException:
        client.finalize_logged_model(model.model_id, LoggedModelStatus.FAILED)
        raise
    client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)
    return f"models:/{model.model_id}"


def load_exporter() -> None:
    """Import what `log_model` else takes seconds to import."""
    import mlflow.pytorch  # noqa: F401
    import torch._dynamo  # noqa: F401


def _save(
    classifier: Classifier,
    folder: Path,
    model: LoggedModel,
    run_id: str,
    metadata: Mapping[str, Any],
    example: NDArray[np.uint8] | None,
) -> None:
    silence()
    import mlflow.pytorch
    from mlflow.models import Model

    mlflow.pytorch.save_model(
        PixelsToProbabilities(classifier),
        str(folder),
        mlflow_model=Model(
            artifact_path=model.artifact_location,
            run_id=run_id,
            model_uuid=model.model_id,
            model_id=model.model_id,
        ),
        signature=_signature(classifier),
        input_example=_example(classifier, example),
        # Named here, or MLflow would start a process that imports everything to find them out.
        pip_requirements=[f"torch=={torch.__version__.partition('+')[0]}", f"numpy=={np.__version__}"],
        metadata={**metadata, **_description(classifier)},
        serialization_format="pt2",
    )


def _example(classifier: Classifier, example: NDArray[np.uint8] | None) -> NDArray[np.uint8]:
    if example is None:
        return np.zeros((2, *classifier.image_shape), np.uint8)
    # torch.export fixes the batch size of an example of one image for ever.
    assert len(example) >= 2 and example.shape[1:] == classifier.image_shape, example.shape
    assert example.dtype == np.uint8, example.dtype
    return example


def _description(classifier: Classifier) -> dict[str, Any]:
    return {
        "classes": classifier.classes,
        "mean": classifier.mean,
        "std": classifier.std,
        "recipes": [dict(recipe) for recipe in classifier.recipes],
    }


def _signature(classifier: Classifier) -> ModelSignature:
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    images = TensorSpec(np.dtype("uint8"), (-1, *classifier.image_shape))
    probabilities = TensorSpec(np.dtype("float32"), (-1, len(classifier.classes)))
    return ModelSignature(Schema([images]), Schema([probabilities]))
