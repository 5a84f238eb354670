"""Trials on Ray from the plan that is said before to the end of the progress that is shown."""

from __future__ import annotations

import shutil
from contextlib import closing
from dataclasses import astuple, dataclass, replace

from tunekit.data.pack import Pack
from tunekit.errors import StorageError
from tunekit.paths import FULL, SearchPaths
from tunekit.tracking.server import masked
from tunekit.tuning.assignment import Assignment
from tunekit.tuning.cluster_nodes import measured_on_a_gpu, prepare_nodes, tidy_nodes
from tunekit.tuning.control import Control
from tunekit.tuning.control_file import MOST_SAMPLES
from tunekit.tuning.estimate import Measurement, MeasuringProcess, NetworkCost
from tunekit.tuning.packing import Load, Rehearsals, decide, most_on_a_gpu
from tunekit.tuning.progress import View, duration, size
from tunekit.tuning.ray_session import Machine, nodes_there, plan_resources, ray_session
from tunekit.tuning.resources import Resources, for_more_trials
from tunekit.tuning.settings import SearchSettings
from tunekit.tuning.storage import Storage
from tunekit.tuning.stored_search import push_inputs, storage_of
from tunekit.tuning.trial_policy import Suggestion
from tunekit.tuning.work import Work


def train_on_ray(
    work: Work,
    paths: SearchPaths,
    settings: SearchSettings,
    pack: Pack,
    view: View,
    time_budget: float | None,
    machine: Machine,
    control: Control | None = None,
) -> str | None:
    """Train until the policy has no more, the time is up, a signal comes or going on is of no use.

    Args:
        work: what to train.
        paths: the folder whose log and Ray files are written.
        settings: of the search: resources of a trial, and where MLflow is.
        pack: the images.
        view: shown to a person.
        time_budget: in seconds, or None.
        machine: what Ray may hand out.
        control: carries out what other processes ask meanwhile.
    Raises:
        ResourceError: if there is no cluster, or a node of it lacks something.
        StorageError: if the search's storage cannot be used, or not even one trial fits.
    Returns:
        Why the trials were stopped though there is more to train, if it was no signal and not the time.
    """
    storage = storage_of(settings, paths)
    if storage is not None:
        push_inputs(storage)
    where = (
        f"Joining the Ray cluster at {machine.address}" if machine.address else "Starting Ray on this machine"
    )
    view.say(f"{where} ...")
    try:
        with closing(_measuring(work, settings, pack)) as measuring, ray_session(paths.log, machine):
            joined = machine.address is not None
            shared_pack = prepare_nodes(paths, pack, storage) if joined else None
            costs = measuring.costs()
            gpus = _gpu_share(work, settings, pack, view)
            resources = plan_resources(work.trials, settings.cpus_per_trial, gpus, may_grow=joined)
            _say_plan(work, paths, settings, costs, resources, view)
            if control is not None:
                resources = for_more_trials(nodes_there(), resources, MOST_SAMPLES)
            given = _Given(shared_pack, storage)
            return _run(work, paths, view, time_budget, resources, given, control)
    except KeyboardInterrupt:  # while Ray starts or ends; in between Tune takes it
        return None
    except OSError as error:  # Tune writes beside the search too
        if error.errno not in FULL:
            raise
        return f"{error.filename or paths.folder} cannot be written: {error.strerror}"


def _gpu_share(work: Work, settings: SearchSettings, pack: Pack, view: View) -> float | None:
    """What was asked for, or an automatic share as it is found to pay off; None for as without a wish."""
    if not isinstance(settings.gpus_per_trial, str):
        return settings.gpus_per_trial
    nodes = nodes_there()
    if not any(node.get("GPU", 0) for node in nodes):
        view.say("--gpus-per-trial auto: there is no GPU, so trials train on CPUs")
        return None
    most = most_on_a_gpu(nodes, work.trials, settings.cpus_per_trial)
    load = Load()
    if most > 1:
        view.say("Measuring how many trials at once a GPU takes ...")
        load = measured_on_a_gpu(_rehearsals(work, settings, pack), most)
    packing = decide(load, most)
    view.say(packing.words())
    return packing.share


def _rehearsals(work: Work, settings: SearchSettings, pack: Pack) -> Rehearsals:
    return Rehearsals(
        tuple(recipe.to_flat() for recipe in work.heaviest()),
        pack.shape,
        len(pack.classes),
        settings.train_images,
        settings.val_images,
        settings.cpus_per_trial or 1,
    )


def _say_plan(
    work: Work,
    paths: SearchPaths,
    settings: SearchSettings,
    costs: list[NetworkCost] | None,
    resources: Resources,
    view: View,
) -> None:
    view.say(work.plan(resources))
    view.say(f"Writes to {paths.folder}, MLflow at {masked(settings.tracking_uri)}")
    if costs is None:
        view.say("No time estimate: a batch could not be measured")
        return
    view.say(_time_needed(work, costs, resources))
    view.say(_room_needed(work, paths, settings.storage, costs, resources))


@dataclass(frozen=True)
class _Given:
    """Where workers find what they need, the same for all trials."""

    shared_pack: str | None
    storage: Storage | None

    def to(self, assignment: Assignment) -> Assignment:
        assignment = replace(assignment, shared_pack=self.shared_pack)
        if self.storage is None:
            return assignment
        uri, folder, root = astuple(self.storage)
        return replace(assignment, storage=uri, storage_folder=folder, storage_root=root)


def _run(
    work: Work,
    paths: SearchPaths,
    view: View,
    time_budget: float | None,
    resources: Resources,
    given: _Given,
    control: Control | None,
) -> str | None:
    from tunekit.tuning.adapters import TrialDesk
    from tunekit.tuning.engine import run_trials

    def assign(suggestion: Suggestion) -> Assignment:
        return given.to(work.assignment(suggestion, resources))

    view.begin(work)
    desk = TrialDesk(work.policy, work.trials, assign, work.problem, control, work.idle)
    try:
        run_trials(desk, resources, paths.ray, time_budget)
    finally:
        view.end()
    if given.storage is not None:
        tidy_nodes(given.storage)
    return desk.problem


def _measuring(work: Work, settings: SearchSettings, pack: Pack) -> MeasuringProcess:
    measurement = Measurement(
        tuple(recipe.to_flat() for recipe in work.measured()),
        pack.shape,
        len(pack.classes),
        settings.cpus_per_trial or 1,
        None if isinstance(settings.gpus_per_trial, str) else settings.gpus_per_trial,
    )
    return MeasuringProcess(measurement)


def _time_needed(work: Work, costs: list[NetworkCost], resources: Resources) -> str:
    seconds = work.estimate([cost.seconds for cost in costs], resources)
    stops = seconds.at_most > seconds.expected
    at_most = f", and {duration(seconds.at_most)} if no trial stops early" if stops else ""
    return (
        f"Training should take about {duration(seconds.expected)}{at_most} "
        f"(from a batch each of {len(costs)} recipes)"
    )


def _room_needed(
    work: Work, paths: SearchPaths, storage: str | None, costs: list[NetworkCost], resources: Resources
) -> str:
    """What checkpoints will take, and of what.

    Raises:
        StorageError: if not even one trial fits.
    """
    need = work.disk_need([cost.weights for cost in costs], resources)
    if storage is not None:
        return f"Checkpoints should take at most {size(need.at_most)} of {storage}"
    free = shutil.disk_usage(paths.folder).free
    room, of = free, f"{size(free)} that are free"
    if work.disk_budget is not None and work.disk_budget < free:
        room, of = work.disk_budget, f"the disk budget of {size(work.disk_budget)}"
    if need.at_least > room:
        raise StorageError(f"a trial's checkpoints need {size(need.at_least)}, which do not fit in {of}")
    words = f"Checkpoints should take at most {size(need.at_most)} of {of}"
    return (
        f"{words}: if they take more than that, the search stops and can go on later"
        if need.at_most > room
        else words
    )
