"""The network that a retraining hands over, chosen by validation images: one of the winner's, or several."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tunekit.models.ensemble import Ensemble, Tempered
from tunekit.paths import RetrainingPaths
from tunekit.retraining.blend import choose_weights
from tunekit.retraining.judging import JudgedRecipe
from tunekit.retraining.metrics import fit_temperature, softmax
from tunekit.retraining.networks import Judge, Logits
from tunekit.tracking.model import Classifier
from tunekit.tuning.winner import load_winner


@dataclass(frozen=True)
class Member:
    """A trained network that takes part."""

    training: int
    weight: float = 1.0  # all weights sum to 1


@dataclass(frozen=True)
class HandedOver:
    """What is needed to build the network again from the files of its trainings."""

    members: Sequence[Member]  # the one with most weight first
    temperature: float = 1.0

    def load(self, paths: RetrainingPaths) -> Classifier:
        """Build it.

        Raises:
            TunekitError: if a file is absent or damaged.
        """
        networks = [load_winner(paths.trial(member.training).best) for member in self.members]
        classifier = networks[0] if len(networks) == 1 else self._ensemble(networks)
        if self.temperature == 1.0:
            return classifier
        return dataclasses.replace(classifier, module=Tempered(classifier.module, self.temperature).eval())

    def logits(self, paths: RetrainingPaths, judge: Judge) -> Logits:
        """Its answers (N, classes) for the judge's images, who knows those of single networks already."""
        if len(self.members) == 1:
            return judge.logits_of(paths.trial(self.members[0].training).best) / np.float32(self.temperature)
        return judge.logits(self.load(paths))

    def _ensemble(self, networks: Sequence[Classifier]) -> Classifier:
        module = Ensemble(
            [network.module for network in networks], [member.weight for member in self.members]
        )
        recipes = [recipe for network in networks for recipe in network.recipes]
        return dataclasses.replace(networks[0], module=module.eval(), recipes=recipes)


def best_network(recipe: JudgedRecipe, validation: Judge) -> HandedOver:
    """Of a recipe's seeds the one with the best validation accuracy; of equal ones the first."""
    accuracies = [validation.right(logits).mean() for logits in recipe.logits]
    return HandedOver([Member(recipe.ids[int(np.argmax(accuracies))])])


def ensemble_of(recipes: Sequence[JudgedRecipe], validation: Judge) -> HandedOver:
    """The networks of all recipes and seeds, with weights that suit the validation images best."""
    ids = [training for recipe in recipes for training in recipe.ids]
    probabilities = np.stack([softmax(logits) for recipe in recipes for logits in recipe.logits])
    weights = choose_weights(probabilities, validation.labels)
    members = [Member(ids[place], float(weights[place])) for place in np.flatnonzero(weights)]
    return HandedOver(sorted(members, key=lambda member: -member.weight))


def calibrated(model: HandedOver, paths: RetrainingPaths, validation: Judge) -> HandedOver:
    """The same with the temperature that suits the validation images."""
    temperature = fit_temperature(model.logits(paths, validation), validation.labels)
    return dataclasses.replace(model, temperature=temperature)
