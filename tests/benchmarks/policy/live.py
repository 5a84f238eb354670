"""Searches whose trials really train: small fully connected networks on eight tasks, judged by a test set.

    python -m tests.benchmarks.policy.live DATA_DIR

DATA_DIR holds CIFAR-10 and MNIST as torchvision unpacks them. Space, networks and epochs are those of
small_networks.py. Nothing is interpolated: values have the noise of real trainings, and a recipe that is
proposed again answers with another curve. Of each task 400 samples train, 900 judge every epoch, which is
all that a method sees, and 5,000 others test its incumbents, each trained to its end for that. Every epoch
takes one simulated second. No constant of tunekit was chosen on these tasks.

The space `resnet` can be searched in the same way (live_resnets.py), five to ten minutes a search. Its
shipped prior and warm starts know the same data sets, so give it those that the others choose:

    python -m tests.benchmarks.policy.live DATA_DIR --tasks resnet-mnist --methods tunekit ray \\
        --prior others.prior.json.gz --warm-starts others.toml

Instead of `resnet-mnist`, `emulated-resnet-mnist` answers in seconds (emulated_resnets.py): for first trials
of an idea, not for what is said of the policy.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import tomllib
import warnings
from collections.abc import Callable, Iterable, Mapping
from contextlib import redirect_stdout
from dataclasses import replace
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torchvision
from numpy.typing import NDArray
from sklearn.datasets import make_classification
from sklearn.decomposition import PCA

from tests.benchmarks.policy import runs, small_networks, trained_on_demand
from tests.benchmarks.policy.comparison import Outcome, markdown, regret_of
from tests.benchmarks.policy.methods import METHODS, installed, method, method_name, sources
from tests.benchmarks.policy.runs import TRAININGS, WORKERS, course, incumbents, remembered
from tests.benchmarks.policy.small_networks import (
    EPOCHS,
    SPACE,
    Samples,
    Training,
    parts_of,
    random_recipe,
)
from tests.benchmarks.policy.trained_on_demand import TrainedOnDemand
from tests.benchmarks.policy.warm_starts import read_warm_starts
from tunekit.recipe import Value
from tunekit.space import SearchSpace
from tunekit.tuning.replay import replay

_TRAIN, _JUDGE, _TEST = 400, 900, 5000  # samples
_SAMPLES = _TRAIN + _JUDGE + _TEST
_REFERENCES = 100  # random recipes of each task, trained in full: regret is measured by them
REFERENCE, REFERENCE_SEED = "random recipes", 1000  # in place of a method's name and seed


def _digits(data_dir: Path) -> Samples:
    """MNIST, ten classes, 32 principal components."""
    return _components(*_mnist(data_dir), 32, seed=1)


def _odd(data_dir: Path) -> Samples:
    """MNIST, odd or even, 24 principal components."""
    images, labels = _mnist(data_dir)
    return _components(images, labels % 2, 24, seed=2)


def _photographs(data_dir: Path) -> Samples:
    """CIFAR-10, ten classes, 48 principal components."""
    return _components(*_cifar(data_dir), 48, seed=3)


def _vehicles(data_dir: Path) -> Samples:
    """CIFAR-10, vehicles or animals, 32 principal components."""
    images, labels = _cifar(data_dir)
    return _components(images, np.isin(labels, (0, 1, 8, 9)).astype(int), 32, seed=4)


def _five(data_dir: Path) -> Samples:
    """CIFAR-10, the first five classes, 40 principal components."""
    images, labels = _cifar(data_dir)
    return _components(images[labels < 5], labels[labels < 5], 40, seed=5)


def _three_synthetic(data_dir: Path) -> Samples:
    """Three classes of three clusters each in 40 dimensions."""
    return _clusters(
        n_features=40, n_informative=10, n_redundant=10, n_classes=3, n_clusters_per_class=3, seed=6
    )


def _four_synthetic(data_dir: Path) -> Samples:
    """Four classes of four clusters each in 30 dimensions; a tenth of the labels are drawn at random."""
    return _clusters(n_features=30, n_informative=8, n_classes=4, n_clusters_per_class=4, flip_y=0.1, seed=7)


def _six_synthetic(data_dir: Path) -> Samples:
    """Six classes of two clusters each in 20 dimensions."""
    return _clusters(n_features=20, n_informative=12, n_classes=6, n_clusters_per_class=2, seed=8)


TASKS: dict[str, Callable[[Path], Samples]] = {
    "digits": _digits,
    "odd": _odd,
    "photographs": _photographs,
    "vehicles": _vehicles,
    "five": _five,
    "three-synthetic": _three_synthetic,
    "four-synthetic": _four_synthetic,
    "six-synthetic": _six_synthetic,
}


RESNET_TASKS = {"resnet-mnist": "mnist", "resnet-cifar10": "cifar10"}
"""Tasks of live_resnets.py, with their data sets."""
EMULATED_TASKS = {"emulated-resnet-mnist": "mnist"}
"""Tasks of emulated_resnets.py, likewise."""
RESNET_EPOCHS = 27


class LiveCurves(TrainedOnDemand):
    """Trainings of small networks."""

    def __init__(self, samples: Samples, seed: int) -> None:
        """
        Args:
            samples: at least 1,301; 400 train, 900 judge, up to 5,000 test.
            seed: of all trainings.
        """
        super().__init__(SearchSpace.from_dict(tomllib.loads(SPACE)), EPOCHS, seed)
        tests = min(len(samples[1]) - _TRAIN - _JUDGE, _TEST)
        self._train, self._judge, self._test = parts_of(samples, _TRAIN, _JUDGE, tests)
        self._classes = int(samples[1].max()) + 1
        self._trainings: list[Training] = []

    def _begin(self, params: Mapping[str, Value], rng: np.random.Generator) -> None:
        seed = int(rng.integers(2**31))
        self._trainings.append(Training(params, self._train, self._classes, seed))

    def value(self, record: int, epoch: int) -> float:
        """Validation accuracy after the epoch; the epochs of a training are asked for in order."""
        return self._trained(record, epoch).accuracy(self._judge)

    def references(self, seed: int) -> list[dict[str, Value]]:
        """Random recipes, by which regret is measured."""
        rng = np.random.default_rng(seed)
        return [random_recipe(rng) for _ in range(_REFERENCES)]

    def test_accuracy(self, record: int) -> float:
        """After the last epoch, up to which it is trained for that."""
        return self._trained(record, EPOCHS).accuracy(self._test)

    def _trained(self, record: int, epoch: int) -> Training:
        training = self._trainings[record]
        while training.epoch < epoch:
            training.train_epoch()
        assert training.epoch == epoch, "no training goes back"
        return training


class LiveTask(NamedTuple):
    """One search."""

    data_dir: Path
    task: str
    method: str
    seed: int
    prior: Path | None = None
    warm_starts: Path | None = None


def _curves(task: LiveTask) -> TrainedOnDemand:
    if task.task in RESNET_TASKS:
        # It needs all of tunekit, which is not there in Syne Tune's environment.
        from tests.benchmarks.policy.live_resnets import ResnetCurves

        return ResnetCurves(RESNET_TASKS[task.task], task.data_dir, task.seed)
    if task.task in EMULATED_TASKS:
        from tests.benchmarks.policy.emulated_resnets import EmulatedCurves

        return EmulatedCurves(EMULATED_TASKS[task.task], task.seed)
    return LiveCurves(_samples(task.task, task.data_dir), task.seed)


def live_outcome(task: LiveTask) -> Outcome:
    """Search, then test: as an outcome of a replay, with test accuracies in place of regret."""
    _prepare()
    curves = _curves(task)
    warm_starts, prior = read_warm_starts(task.warm_starts), str(task.prior or "")
    curves.space = replace(curves.space, warm_starts=warm_starts, prior=prior)
    with redirect_stdout(sys.stderr):
        policy = method(task.method).make(curves, task.seed)
        found = replay(policy, curves, WORKERS, TRAININGS * curves.epochs)
    return {"accuracy": [curves.test_accuracy(step.record) for step in incumbents(found)], **course(found)}


def references_of(task: LiveTask) -> Outcome:
    """Test accuracies of random recipes of the task, each trained in full."""
    _prepare()
    curves = _curves(task)
    recipes = curves.references(task.seed)
    return {"accuracy": [curves.test_accuracy(curves.nearest(recipe)) for recipe in recipes]}


def _prepare() -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # of the libraries that are compared


@cache
def _samples(task: str, data_dir: Path) -> Samples:
    return TASKS[task](data_dir)


def key_of(task: LiveTask) -> str:
    """Names a search; a digest of all that decides its outcome is a part of it."""
    modules = (sys.modules[__name__], trained_on_demand, small_networks, runs)
    files = [*(Path(str(module.__file__)) for module in modules), *_files_of(task.task)]
    files += sources(task.method) if task.method != REFERENCE else []
    if task.method != REFERENCE and method(task.method).library == "tunekit":
        files += filter(None, (task.prior, task.warm_starts))
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:12]
    return f"live {task.task} {task.method} {task.seed} {digest}"


def _files_of(task: str) -> list[Path]:
    """What answers in a task of residual networks: modules, and the tables that were learned from."""
    here = Path(__file__).parent
    if task in RESNET_TASKS:
        return [here / "live_resnets.py"]
    if task in EMULATED_TASKS:
        from tests.benchmarks.policy.emulated_resnets import learned_from

        tables = learned_from(EMULATED_TASKS[task])
        return [here / "emulated_resnets.py", here / "smooth.py", *tables]
    return []


def _mnist(data_dir: Path) -> tuple[NDArray[Any], NDArray[Any]]:
    digits = torchvision.datasets.MNIST(data_dir)
    return digits.data.numpy(), digits.targets.numpy()


def _cifar(data_dir: Path) -> tuple[NDArray[Any], NDArray[Any]]:
    photographs = torchvision.datasets.CIFAR10(data_dir)
    return photographs.data, np.array(photographs.targets)


def _components(images: NDArray[Any], labels: NDArray[Any], count: int, seed: int) -> Samples:
    """Principal components of some images."""
    chosen = np.random.default_rng(seed).choice(len(images), _SAMPLES, replace=False)
    pixels = images[chosen].reshape(_SAMPLES, -1) / 255.0
    return PCA(count, random_state=0).fit_transform(pixels), labels[chosen]


def _clusters(seed: int, **settings: Any) -> Samples:
    samples: Samples = make_classification(_SAMPLES, **settings, random_state=seed)
    return samples


def _with_regret(outcome: Outcome, references: Outcome) -> Outcome:
    tested = np.array(references["accuracy"])
    return {**outcome, "regret": [regret_of(accuracy, tested) for accuracy in outcome["accuracy"]]}


def main() -> None:
    """Search what was not searched yet, then print."""
    arguments = _arguments()
    references = {
        name: LiveTask(arguments.data_dir, name, REFERENCE, REFERENCE_SEED) for name in arguments.tasks
    }
    rows = product(arguments.methods, arguments.tasks, range(arguments.seeds))
    known_before = (arguments.prior, arguments.warm_starts)
    searches = [LiveTask(arguments.data_dir, task, name, seed, *known_before) for name, task, seed in rows]

    def run(function: Callable[[LiveTask], Outcome], tasks: Iterable[LiveTask]) -> dict[str, Outcome]:
        by_key = {key_of(task): task for task in tasks}
        return remembered(function, by_key, arguments.out, arguments.processes)

    run(references_of, references.values())
    known = run(live_outcome, [task for task in searches if installed(task.method)])
    outcomes: dict[str, list[list[Outcome]]] = {name: [] for name in arguments.methods}
    for name, (task, reference) in product(arguments.methods, references.items()):
        found = [key_of(each) for each in searches if (each.method, each.task) == (name, task)]
        outcomes[name].append(
            [_with_regret(known[key], known[key_of(reference)]) for key in found if key in known]
        )
    for task, reference in references.items():
        tested = np.array(known[key_of(reference)]["accuracy"])
        what = (TASKS[task].__doc__ or "").removesuffix(".") if task in TASKS else "residual networks at 8 px"
        print(f"- {task}: {what}. Test accuracy: best {tested.max():.3f}, median {np.median(tested):.3f}.")
    titles = {name: method(name).title for name in outcomes}
    epochs = EPOCHS if arguments.tasks[0] in TASKS else RESNET_EPOCHS
    print(f"\n{arguments.seeds} seeds.\n\n{markdown(outcomes, titles, TRAININGS * epochs)}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    usual = [name for name, row in METHODS.items() if row.usual]
    parser.add_argument("data_dir", type=Path, help="where torchvision finds CIFAR10 and MNIST")
    parser.add_argument(
        "--methods", nargs="+", type=method_name, default=usual, help=f"default: {' '.join(usual)}"
    )
    tasks = [*TASKS, *RESNET_TASKS, *EMULATED_TASKS]
    parser.add_argument(
        "--tasks", nargs="+", default=list(TASKS), choices=tasks, help="default: those of small networks"
    )
    parser.add_argument("--prior", type=Path, metavar="FILE", help="that tunekit learns from; see prior.py")
    parser.add_argument(
        "--warm-starts", type=Path, metavar="FILE", help="that tunekit tries first; see warm_starts.py"
    )
    parser.add_argument("--seeds", type=int, default=2, help="searches of each method and task (default: 2)")
    parser.add_argument("--processes", type=int, default=2, help="that search (default: 2)")
    parser.add_argument("--out", type=Path, default=Path("results/live-benchmark.json"))
    arguments = parser.parse_args()
    if len({task in TASKS for task in arguments.tasks}) > 1:
        parser.error("tasks of small networks and of residual networks have other budgets: name one kind")
    return arguments


if __name__ == "__main__":
    main()
