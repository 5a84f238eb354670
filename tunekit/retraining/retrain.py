"""From a search to one model: several seeds, a winner by validation, the test set once, the registry."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from tunekit.data.pack import Pack
from tunekit.data.split import Split
from tunekit.errors import SearchError
from tunekit.paths import SearchPaths
from tunekit.retraining.candidates import Candidate, choose_candidates
from tunekit.retraining.findings import FORMAT, Curves, Result, curves_of, find_result, save_result
from tunekit.retraining.handover import HandedOver, Member, best_network, calibrated, ensemble_of
from tunekit.retraining.judging import JudgedRecipe, judge_recipes
from tunekit.retraining.networks import Judge
from tunekit.retraining.opening import Examinees, examine
from tunekit.retraining.publication import publish
from tunekit.retraining.request import Request
from tunekit.retraining.selection import Standing, standings, verdicts
from tunekit.retraining.test_set import open_test_set, openings_of_data
from tunekit.retraining.trainer import Trainer
from tunekit.retraining.trainings import Part, plan, seeds_of
from tunekit.tracking.server import check_reachable
from tunekit.tracking.writer import Teller
from tunekit.tuning.progress import View
from tunekit.tuning.ray_session import Machine, check_shares
from tunekit.tuning.reopening import locked, same_data
from tunekit.tuning.settings import SearchSettings


@dataclass(frozen=True)
class RetrainingOutcome:
    """How a call of `tunekit retrain-best` ended."""

    result: Result | None  # None: interrupted, or trainings were lost; the same call goes on
    known: bool  # the result is that of an earlier call: nothing was trained or opened
    seconds: float
    untracked_events: int  # not yet in MLflow
    lost: list[str]  # trainings that the machine failed, and why
    problem: str | None  # why the model is not in MLflow's registry, if it is not


def retrain(
    paths: SearchPaths,
    request: Request,
    view: View,
    time_budget: float | None = None,
    machine: Machine | None = None,
    tell: Teller | None = None,
) -> RetrainingOutcome:
    """Do all of it. What an earlier call trained is not trained again; what it found is found again.

    Args:
        paths: of the search.
        request: what is wanted.
        view: shown to a person.
        time_budget: in seconds, for the trainings; the same call goes on later.
        machine: what Ray may hand out.
        tell: gives an account of the search with what the test set said, for MLflow.
    Raises:
        TunekitError: in one line, for a user's mistake.
    """
    request.check()
    started, machine = time.monotonic(), machine or Machine()
    with locked(paths):
        settings = _settings(paths, request, machine)
        pack = same_data(settings)
        Split.load(paths.split)  # what judges the networks must be there before hours of training
        candidates = choose_candidates(paths, settings, request.top_k, request.epochs)
        known = find_result(paths, request.key(candidates))
        result, untracked, lost, problem = known, 0, [], None
        if known is None:
            with Trainer(paths, settings, pack, view, time_budget, machine) as trainer:
                result = _Retraining(paths, settings, request, pack, candidates, trainer, view).run()
                untracked, lost = trainer.finish(result is not None), trainer.lost
        if result is not None:
            result, problem = publish(paths, settings, pack, result, view.say, tell)
        seconds = time.monotonic() - started
        return RetrainingOutcome(result, known is not None, seconds, untracked, lost, problem)


@dataclass(frozen=True)
class _Retraining:
    """One request on its way to a result."""

    paths: SearchPaths
    settings: SearchSettings
    request: Request
    pack: Pack
    candidates: list[Candidate]
    trainer: Trainer
    view: View

    def run(self) -> Result | None:
        """The result, kept on disk; None if the trainings were interrupted."""
        ids = self._train(self.candidates, "train")
        if ids is None:
            return None
        validation = self._validation()
        self.view.say(f"Judging the networks by {len(validation.labels):,} validation images ...")
        judged = judge_recipes(self.trainer, self.candidates, ids, validation)
        ordered = standings({recipe.name: recipe.right for recipe in judged})
        by_name = {recipe.name: recipe for recipe in judged}
        winner = by_name[ordered[0].name]
        refitted = self._refit(winner.candidate)
        if refitted is None:
            return None
        alone = best_network(winner, validation)
        examinees = Examinees(
            recipes=[winner, *self._beside(winner, judged)],
            refitted=refitted,
            model=self._model(alone, refitted, judged, validation),
            alone=alone if self.request.ensemble else None,
        )
        every = [training for group in ids.values() for training in group]
        curves = curves_of(self.trainer.planned, self.trainer.history, every)
        result = {**self._choice(ordered, by_name), **self._open(examinees, curves), "registration": None}
        return save_result(self.trainer.paths, result)

    def _train(self, candidates: Sequence[Candidate], part: Part) -> dict[str, list[int]] | None:
        """The trainings of each candidate, by its name; the first seed of every candidate comes first."""
        seeds = seeds_of(self.settings, self.request.seeds)
        ids = self.trainer.train([plan(candidate, seed, part) for seed in seeds for candidate in candidates])
        if ids is None:
            return None
        return {candidate.name: ids[place :: len(candidates)] for place, candidate in enumerate(candidates)}

    def _refit(self, winner: Candidate) -> list[int] | None:
        """Trainings of the winner on all images; none if they are not wanted, None if interrupted."""
        if not self.request.refit:
            return []
        ids = self._train([winner], "train+val")
        if ids is None:
            return None
        trials = [self.trainer.history.trials[training] for training in ids[winner.name]]
        completed = [trial.id for trial in trials if trial.status == "completed"]
        if not completed:
            raise SearchError(f"{winner.name} cannot be trained on train+val: {trials[0].reason}")
        return completed

    def _validation(self) -> Judge:
        return Judge(*self.pack.train(), Split.load(self.paths.split).validation)

    def _beside(self, winner: JudgedRecipe, judged: Sequence[JudgedRecipe]) -> list[JudgedRecipe]:
        """What is tested beside the winner: the default recipe; of known recipes, all."""
        others = [recipe for recipe in judged if recipe is not winner]
        return [recipe for recipe in others if recipe.candidate.default or self.settings.samples == 0]

    def _model(
        self, alone: HandedOver, refitted: list[int], judged: Sequence[JudgedRecipe], validation: Judge
    ) -> HandedOver:
        """What is handed over. Of refitted networks the first: no image is left to choose by."""
        if refitted:
            return HandedOver([Member(refitted[0])])
        model = ensemble_of(judged, validation) if self.request.ensemble else alone
        return calibrated(model, self.trainer.paths, validation) if self.request.calibrate else model

    def _choice(self, ordered: list[Standing], judged: Mapping[str, JudgedRecipe]) -> Result:
        """Who won, and how sure that is."""
        winner = judged[ordered[0].name].candidate
        default = next((name for name, recipe in judged.items() if recipe.candidate.default), None)
        return {
            "format": FORMAT,
            "search": self.paths.name,
            "key": self.request.key(self.candidates),
            "request": asdict(self.request),
            "dataset": self.settings.dataset,
            "data": self.pack.name,
            "classes": list(self.pack.classes),
            "validation_images": self.settings.val_images,
            "standings": [{**asdict(one), **_about(judged[one.name])} for one in ordered],
            "winner": winner.name,
            "recipe": winner.recipe.to_dict(),
            "verdicts": verdicts(ordered, default),
            "versions": dict(self.settings.versions),
        }

    def _open(self, examinees: Examinees, curves: Curves) -> Result:
        """Open the test set, which is recorded, and ask it."""
        results_dir = self.paths.folder.parent
        before = openings_of_data(results_dir, self.pack.test_digest)
        test = open_test_set(self.paths, self.pack, examinees.names)
        self.view.say(
            f"Opening the test set of {len(test.labels):,} images for {', '.join(examinees.names)} ..."
        )
        found = examine(self.trainer, test, examinees, curves)
        return {**found, "earlier_openings": [asdict(opening) for opening in before]}


def _about(recipe: JudgedRecipe) -> Result:
    candidate = recipe.candidate
    return {
        "epochs": candidate.epochs,
        "default": candidate.default,
        "baseline": candidate.baseline,
        "reported_accuracy": candidate.reported_accuracy,
        "reported_epochs": candidate.reported_epochs,
        "params": dict(candidate.params),
        "failures": recipe.failures,
    }


def _settings(paths: SearchPaths, request: Request, machine: Machine) -> SearchSettings:
    """The search's settings with the resources that this request asks for, checked against the machine."""
    settings = SearchSettings.load(paths)
    cpus, gpus = request.cpus_per_trial, request.gpus_per_trial
    settings = dataclasses.replace(
        settings,
        cpus_per_trial=settings.cpus_per_trial if cpus is None else cpus,
        gpus_per_trial=settings.gpus_per_trial if gpus is None else gpus,
    )
    check_shares(settings.cpus_per_trial, settings.gpus_per_trial, machine)
    check_reachable(settings.tracking_uri)
    return settings
