"""Trials on Ray from the plan that is said before to the end of the progress that is shown."""

from __future__ import annotations

from contextlib import closing

from tunekit.data.pack import Pack
from tunekit.paths import SearchPaths
from tunekit.tracking.server import masked
from tunekit.tuning.estimate import Measurement, MeasuringProcess
from tunekit.tuning.progress import View, duration
from tunekit.tuning.ray_session import Machine, Resources, plan_resources, ray_session
from tunekit.tuning.settings import SearchSettings
from tunekit.tuning.work import Work


def train_on_ray(
    work: Work,
    paths: SearchPaths,
    settings: SearchSettings,
    pack: Pack,
    view: View,
    time_budget: float | None,
    machine: Machine,
) -> None:
    """Train until the policy has no more, the time is up, or SIGINT or SIGUSR1 comes.

    Args:
        work: what to train.
        paths: the folder whose log and Ray files are written.
        settings: of the search: resources of a trial, and where MLflow is.
        pack: the images.
        view: shown to a person.
        time_budget: in seconds, or None.
        machine: what Ray may hand out.
    """
    view.say("Starting Ray on this machine ...")
    with closing(_measuring(work, settings, pack)) as measuring, ray_session(paths.log, machine):
        resources = plan_resources(work.trials, settings.cpus_per_trial, settings.gpus_per_trial)
        view.say(work.plan(resources))
        view.say(f"Writes to {paths.folder}, MLflow at {masked(settings.tracking_uri)}")
        view.say(_time_needed(work, measuring.seconds_per_image(), resources))
        from tunekit.tuning.adapters import TrialDesk
        from tunekit.tuning.engine import run_trials

        view.begin(work)
        desk = TrialDesk(work.policy, work.trials, lambda suggestion: work.assignment(suggestion, resources))
        try:
            run_trials(desk, resources, paths.ray, time_budget)
        finally:
            view.end()


def _measuring(work: Work, settings: SearchSettings, pack: Pack) -> MeasuringProcess:
    measurement = Measurement(
        tuple(recipe.to_flat() for recipe in work.measured()),
        pack.shape,
        len(pack.classes),
        settings.cpus_per_trial or 1,
        settings.gpus_per_trial,
    )
    return MeasuringProcess(measurement)


def _time_needed(work: Work, seconds_per_image: list[float] | None, resources: Resources) -> str:
    if seconds_per_image is None:
        return "No time estimate: a batch could not be measured"
    seconds = work.estimate(seconds_per_image, resources)
    stops = seconds.at_most > seconds.expected
    at_most = f", and {duration(seconds.at_most)} if no trial stops early" if stops else ""
    return (
        f"Training should take about {duration(seconds.expected)}{at_most} "
        f"(from a batch each of {len(seconds_per_image)} recipes)"
    )
