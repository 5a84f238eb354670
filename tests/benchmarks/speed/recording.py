"""What recording costs: seconds a result of the tuning loop without a record, with ours, with Ray's callback.

Trials train nothing, so the loop is all there is. Ours is the history on the disk, each line with fsync, and
MLflow behind a thread; Ray's is MLflowLoggerCallback. Both write to SQLite.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from tests.benchmarks.scale import no_op
from tests.benchmarks.speed.figures import Part, wait_until_idle
from tunekit.history import Event, History
from tunekit.paths import SearchPaths, find_space, tracking_artifacts, tracking_database
from tunekit.space import load_space
from tunekit.tracking.writer import Tracker
from tunekit.tuning.policy import SearchPolicy, Suggestion
from tunekit.tuning.progress import trial_name
from tunekit.tuning.ray_session import Machine, plan_resources, ray_session
from tunekit.tuning.settings import SearchSettings

_TRIALS, _REPORTS = 20, 15
_EPOCH = 1.0  # seconds: that an epoch of a small network on a CPU takes
_AT_ONCE = 2


def measure(_data: Path, runs: int) -> Part:
    """Each kind of record in a process of its own, in turn."""
    part = Part(
        "Recording",
        f"{_TRIALS} trials of {_REPORTS} results, one at a time, that train nothing: seconds between "
        "the first and the last result, divided by the results. SQLite.",
    )
    if not wait_until_idle():
        part.notes.append("The machine was not idle: throw these figures away.")
    found: dict[str, list[float]] = {kind: [] for kind in _KINDS}
    for _ in range(runs):
        for kind in _KINDS:
            found[kind].append(1000 * _seconds_a_result(kind))
    medians = {kind: part.add(kind, "ms a result", values).median for kind, values in found.items()}
    ours = medians["tunekit"] - medians["tunekit, nothing recorded"]
    theirs = medians["Ray Tune, MLflowLoggerCallback"] - medians["Ray Tune, nothing recorded"]
    part.compare("what Ray's callback costs / what ours costs", theirs / max(ours, 1e-6))
    lost = ours / 1000 * _AT_ONCE / _EPOCH
    part.add(f"share of the loop's time, {_AT_ONCE} trials with epochs of {_EPOCH:g} s", "%", [100 * lost])
    part.compare("2 % / that share", 0.02 / max(lost, 1e-9), 1.0)
    return part


def _seconds_a_result(kind: str) -> float:
    done = subprocess.run([sys.executable, "-m", __name__, kind], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{kind}: {done.stderr}")
    return float(json.loads(done.stdout.splitlines()[-1]))


def _ours(recorded: bool) -> float:
    """Seconds a result of a search without training."""
    from tunekit.tuning.adapters import TrialDesk
    from tunekit.tuning.assignment import Assignment
    from tunekit.tuning.engine import run_trials

    with tempfile.TemporaryDirectory() as temporary:
        results = Path(temporary)
        paths = SearchPaths(results / "recording")
        paths.folder.mkdir(parents=True)
        uri = f"sqlite:///{tracking_database(results)}"
        settings = SearchSettings("recording", "none", "resnet", _TRIALS, _REPORTS, 0, str(results), uri)
        history = History(paths.history if recorded else None)
        policy = SearchPolicy(
            load_space(find_space("resnet")),
            max_epochs=_REPORTS,
            sampler="random",
            scheduler="none",
            history=history,
        )
        tracker = Tracker(paths, history, asdict(settings), uri, tracking_artifacts(results), trial_name)
        if recorded:
            history.subscribe(tracker.record)
            tracker.start()
        times: list[float] = []
        history.subscribe(lambda event: _note(event, times))

        def assign(suggestion: Suggestion) -> Assignment:
            return Assignment(suggestion.trial_id, {}, 0, _REPORTS, 0, "", "", "")

        with ray_session(paths.folder / "log", Machine(cpus=1)):
            resources = plan_resources(_TRIALS, 1.0, 0.0, may_grow=False)
            run_trials(TrialDesk(policy, _TRIALS, assign), resources, paths.ray, trainable=no_op())
        if recorded:
            assert tracker.close(60).undelivered == 0
        return (times[-1] - times[0]) / (len(times) - 1)


def _note(event: Event, times: list[float]) -> None:
    if event.kind == "result":
        times.append(time.perf_counter())


def _rays(recorded: bool) -> float:
    """Seconds a result of Ray Tune's own loop."""
    from ray import tune
    from ray.air.integrations.mlflow import MLflowLoggerCallback

    times: list[float] = []

    class Clock(tune.Callback):  # type: ignore[misc]
        def on_trial_result(self, *_: object, **__: object) -> None:
            times.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        uri = f"sqlite:///{folder}/mlflow.db"
        record = [MLflowLoggerCallback(tracking_uri=uri, experiment_name="r")] if recorded else []
        with ray_session(folder / "log", Machine(cpus=1)):
            tune.Tuner(
                no_op(),
                param_space={"reported": 0, "trial_id": tune.randint(0, 10), "lr": tune.uniform(0, 1)},
                tune_config=tune.TuneConfig(num_samples=_TRIALS, reuse_actors=True),
                run_config=tune.RunConfig(
                    storage_path=str(folder),
                    callbacks=[*record, Clock()],
                    stop={"epoch": _REPORTS},
                    verbose=0,
                ),
            ).fit()
    return (times[-1] - times[0]) / (len(times) - 1)


_KINDS: dict[str, Callable[[], float]] = {
    "Ray Tune, nothing recorded": lambda: _rays(recorded=False),
    "Ray Tune, MLflowLoggerCallback": lambda: _rays(recorded=True),
    "tunekit, nothing recorded": lambda: _ours(recorded=False),
    "tunekit": lambda: _ours(recorded=True),
}

if __name__ == "__main__":
    print(json.dumps(_KINDS[sys.argv[1]]()))
