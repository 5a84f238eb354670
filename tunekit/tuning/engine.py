"""Ray Tune drives the trials of one search."""

from __future__ import annotations

import logging
import signal
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tunekit.tuning.adapters import DeskStopper, NoPrinter, PolicyScheduler, PolicySearcher, TrialDesk
from tunekit.tuning.ray_session import nodes_there
from tunekit.tuning.resources import Resources, Room
from tunekit.tuning.trainable import RecipeTrainable


def run_trials(
    desk: TrialDesk,
    resources: Resources,
    folder: Path,
    time_budget: float | None = None,
    trainable: type = RecipeTrainable,
) -> None:
    """Run the desk's trials until all have ended, the desk has a problem, the time is up, or a signal comes.

    Always a fresh Tuner: what a resume needs is in the history and the trials' own checkpoints.

    Args:
        desk: hands out trials and takes results.
        resources: of a trial, and how many run at a time.
        folder: for Ray Tune's own files.
        time_budget: in seconds, or None.
        trainable: Ray's class of a trial.
    """
    from ray.exceptions import OutOfMemoryError

    stopper = DeskStopper(desk, time_budget)
    while True:
        try:
            _fit(desk, stopper, resources, folder, trainable)
            return
        except RuntimeError as error:
            # Where Ray's memory monitor ends a worker in an epoch, Tune gives up; a search does not.
            if not isinstance(error.__cause__, OutOfMemoryError):
                raise
            desk.attempts_lost(f"OutOfMemoryError: {error.__cause__}")


def _fit(desk: TrialDesk, stopper: DeskStopper, resources: Resources, folder: Path, trainable: type) -> None:
    from ray import tune

    room = Room(resources, nodes_there)
    tuner = tune.Tuner(
        tune.with_resources(trainable, {"CPU": resources.cpus_per_trial, "GPU": resources.gpus_per_trial}),
        # No metric: Tune would end the search at the first failed recipe, whose result has none.
        tune_config=tune.TuneConfig(
            search_alg=PolicySearcher(desk, room),
            scheduler=PolicyScheduler(desk, room),
            num_samples=-1,  # the searcher says when it is over
            max_concurrent_trials=resources.most_at_once,
            reuse_actors=True,
            trial_dirname_creator=lambda trial: str(trial.trial_id),
        ),
        run_config=tune.RunConfig(
            name=uuid.uuid4().hex[:8],
            storage_path=str(folder),
            stop=stopper,
            callbacks=[NoPrinter()],
            verbose=0,
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
        ),
    )
    # Its summary at the end would miss the result files that we do not let Ray write.
    logging.getLogger("ray.tune.analysis.experiment_analysis").setLevel(logging.ERROR)
    with _handlers_kept():
        tuner.fit()


@contextmanager
def _handlers_kept() -> Iterator[None]:
    """Tune takes SIGINT and SIGUSR1 and keeps them; behind its end they are the caller's again."""
    kept = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGUSR1)}
    try:
        yield
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)
