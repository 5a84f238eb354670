"""What trained networks answer: logits for images that they did not train on."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from tunekit.data.batches import Batches
from tunekit.data.pack import Images, Labels
from tunekit.tracking.model import Classifier
from tunekit.training.device import pick_device
from tunekit.tuning.winner import load_winner

Logits = NDArray[np.float32]

_TIMED_SECONDS = 1.0  # of repeated passes, so that the figure is not that of one hiccup
_TIMED_IMAGES = 1024


class Judge:
    """Images and their labels, on the best device of this machine, that networks are asked about."""

    def __init__(self, images: Images, labels: Labels, rows: NDArray[np.int64] | None = None) -> None:
        """
        Args:
            images: (N, H, W, C) uint8, perhaps memory-mapped.
            labels: (N,) int64.
            rows: which of them; None for all.
        """
        self._images, self._all_labels = images, labels
        self._rows = np.arange(len(labels)) if rows is None else rows
        self.labels: Labels = np.asarray(labels)[self._rows]
        self.device = pick_device(gpus=1)
        self._known: dict[Path, Logits] = {}

    @property
    def device_words(self) -> str:
        """Where networks answer, for people: `CPU, 2 threads` or the name of the GPU."""
        if self.device.type == "cuda":
            return torch.cuda.get_device_name(self.device)
        return f"CPU, {torch.get_num_threads()} threads"

    def logits_of(self, file: Path) -> Logits:
        """Logits (N, classes) of the network in a file of weights, in float32; asked once, then known."""
        if file not in self._known:
            self._known[file] = self.logits(load_winner(file))
        return self._known[file]

    def logits(self, classifier: Classifier) -> Logits:
        """Logits (N, classes) of a network, in float32; it moves to the judge's device."""
        return self._pass(self._on_device(classifier), self._batches(classifier, len(self._rows)))

    def images_per_second(self, classifier: Classifier) -> float:
        """How fast the network answers here, preprocessing included: the best of some passes."""
        images = min(len(self._rows), _TIMED_IMAGES)
        network, batches = self._on_device(classifier), self._batches(classifier, images)
        passes: list[float] = []
        while not passes or sum(passes) < _TIMED_SECONDS:
            started = time.perf_counter()
            self._pass(network, batches)
            passes.append(time.perf_counter() - started)
        return images / min(passes)

    def right(self, logits: Logits) -> NDArray[np.bool_]:
        """(N,) whether each image got its class."""
        answers: NDArray[np.bool_] = logits.argmax(1) == self.labels
        return answers

    def _on_device(self, classifier: Classifier) -> nn.Module:
        network: nn.Module = classifier.module.eval().to(  # type: ignore[call-overload]
            device=self.device, memory_format=torch.channels_last
        )
        return network

    def _batches(self, classifier: Classifier, count: int) -> Batches:
        """The first `count` images."""
        mean, std = classifier.mean, classifier.std
        return Batches(self._images, self._all_labels, self._rows[:count], mean, std, None, self.device)

    @torch.inference_mode()
    def _pass(self, network: nn.Module, batches: Batches) -> Logits:
        answers = [network(images).float().cpu() for images, _ in batches.in_order()]
        logits: Logits = torch.cat(answers).numpy()
        return logits
