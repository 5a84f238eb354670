"""Ray Tune drives the trials of one search."""

from __future__ import annotations

import logging
import uuid
from pathlib import Path

from tunekit.tuning.adapters import PolicyScheduler, PolicySearcher, TrialDesk
from tunekit.tuning.ray_session import Resources
from tunekit.tuning.trainable import RecipeTrainable


def run_trials(desk: TrialDesk, resources: Resources, folder: Path, time_budget: float | None) -> None:
    """Run the desk's trials until all have ended, the time is up, or SIGINT or SIGUSR1 comes.

    Always a fresh Tuner: what a resume needs is in the history and the trials' own checkpoints.

    Args:
        desk: hands out trials and takes results.
        resources: of a trial, and how many run at a time.
        folder: for Ray Tune's own files.
        time_budget: in seconds, or None.
    """
    from ray import tune

    trainable = tune.with_resources(
        RecipeTrainable, {"CPU": resources.cpus_per_trial, "GPU": resources.gpus_per_trial}
    )
    tuner = tune.Tuner(
        trainable,
        tune_config=tune.TuneConfig(
            metric="val_accuracy",
            mode="max",
            search_alg=PolicySearcher(desk),
            scheduler=PolicyScheduler(desk),
            num_samples=-1,  # the searcher says when it is over
            max_concurrent_trials=resources.slots,
            reuse_actors=True,
            time_budget_s=time_budget,
            trial_dirname_creator=lambda trial: str(trial.trial_id),
        ),
        run_config=tune.RunConfig(
            name=uuid.uuid4().hex[:8],
            storage_path=str(folder),
            verbose=0,
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
        ),
    )
    # Its summary at the end would miss the result files that we do not let Ray write.
    logging.getLogger("ray.tune.analysis.experiment_analysis").setLevel(logging.ERROR)
    tuner.fit()
