"""What the trained networks say of the validation images: the ground on which a winner is picked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tunekit.errors import SearchError
from tunekit.retraining.candidates import Candidate
from tunekit.retraining.networks import Judge, Logits
from tunekit.retraining.selection import Right
from tunekit.retraining.trainer import Trainer


@dataclass(frozen=True)
class JudgedRecipe:
    """A recipe's networks, and their answers for the validation images."""

    candidate: Candidate
    ids: list[int]  # of the trainings that left a network
    logits: list[Logits]  # (images, classes) of each
    right: Right  # a row for each, and a row more for each seed that failed before it left one: all wrong
    failures: list[str]  # of seeds that failed, sooner or later

    @property
    def name(self) -> str:
        """Of the candidate."""
        return self.candidate.name


def judge_recipes(
    trainer: Trainer, candidates: Sequence[Candidate], ids: Mapping[str, Sequence[int]], judge: Judge
) -> list[JudgedRecipe]:
    """Ask every network about the validation images.

    A seed that failed before its first epoch ended was wrong everywhere; one that failed later has the
    network of its best epoch.

    Args:
        trainer: has the trainings and their files.
        candidates: what was trained.
        ids: the trainings of each candidate, by its name.
        judge: has the images.
    Returns:
        What became of each candidate, in their order.
    Raises:
        SearchError: if no training left a network.
    """
    judged = [_judge(trainer, candidate, ids[candidate.name], judge) for candidate in candidates]
    if not any(one.ids for one in judged):
        raise SearchError(f"no training left a network ({judged[0].name} {judged[0].failures[0]})")
    return judged


def _judge(trainer: Trainer, candidate: Candidate, ids: Sequence[int], judge: Judge) -> JudgedRecipe:
    trials = [trainer.history.trials[training] for training in ids]
    left = [trial for trial in trials if trainer.files(trial.id).best.is_file()]
    logits = [judge.logits_of(trainer.files(trial.id).best) for trial in left]
    wrong = np.zeros(len(judge.labels), bool)
    rows = [*map(judge.right, logits), *[wrong] * (len(trials) - len(left))]
    return JudgedRecipe(
        candidate=candidate,
        ids=[trial.id for trial in left],
        logits=logits,
        right=np.array(rows, bool),
        failures=[
            f"seed {trainer.planned[trial.id].seed} failed: {trial.reason}"
            for trial in trials
            if trial.status == "failed"
        ],
    )
