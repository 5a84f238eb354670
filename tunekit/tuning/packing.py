"""How many trials share a GPU: a rule on plain numbers, and the measurement that it needs.

On a GPU a small network leaves most of it idle, and several trials at once train more images a second
than one. Measured are those of the recipe that takes most memory, so that all others fit too.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from typing import Any, TextIO

from tunekit.errors import TunekitError
from tunekit.recipe import Recipe, Value
from tunekit.space import SearchSpace
from tunekit.tuning.progress import size
from tunekit.tuning.resources import Node

MEASURED_WITHIN = 60.0  # seconds
_WINDOW = 3.0  # seconds in which trials train side by side
_MOST = 8  # trials on a GPU
_GAIN = 1.15  # what twice as many trials must train more at least
_USABLE = 0.9  # of a GPU's memory

# The keys of a recipe that decide how much memory it takes, beside its network.
_MEMORY_KEYS = (
    "batch_size",
    "input.size",
    "model.depth",
    "model.width",
    "model.head",
    "freeze.policy",
    "optim.name",
    "ema.decay",
)
_MOMENTS = {"adam": 2, "adamw": 2, "lamb": 2}  # copies of the weights in an optimizer; others have one


@dataclass(frozen=True)
class Rehearsals:
    """What is to be measured: the heaviest of some recipes, trained as trials would train it."""

    recipes: tuple[Mapping[str, Value], ...]  # dotted keys
    image_shape: tuple[int, int, int]  # H, W, C
    classes: int
    train_images: int
    val_images: int
    cpus: float  # of a trial

    def bytes_of_images(self, gpu_bytes: int) -> int:
        """What a trial's images take of a GPU; a part of them that is too large stays on the machine."""
        height, width, channels = self.image_shape
        parts = [count * height * width * channels for count in (self.train_images, self.val_images)]
        return sum(part for part in parts if part < gpu_bytes / 4)


@dataclass(frozen=True)
class Load:
    """What trials take of a GPU, as far as it could be measured."""

    gpu_bytes: int = 0
    trial_bytes: int = 0  # of the heaviest trial, with its images and CUDA's own
    rates: Mapping[int, float] = field(default_factory=dict)  # images a second of all, by trials at once
    problem: str | None = None  # why nothing was measured, if so

    def fits(self, trials: int) -> bool:
        """Whether so many of the heaviest trials have room at the same time."""
        return trials * self.trial_bytes <= _USABLE * self.gpu_bytes

    def pays_off(self, trials: int) -> bool:
        """Whether so many trials train enough more than half as many."""
        return trials in self.rates and self.rates[trials] >= _GAIN * self.rates[trials // 2]


@dataclass(frozen=True)
class Packing:
    """What was decided."""

    trials: int  # on a GPU at the same time
    why: str

    @property
    def share(self) -> float:
        """Of a GPU, for each trial."""
        return 1 / self.trials

    def words(self) -> str:
        """`4 trials on each GPU (0.25 each): 4 at once are 2.9x as fast as one, ...`."""
        if self.trials == 1:
            return f"1 trial on each GPU: {self.why}"
        return f"{self.trials} trials on each GPU ({self.share:g} each): {self.why}"


def most_on_a_gpu(nodes: Sequence[Node], trials: int, cpus_per_trial: float | None) -> int:
    """How many trials a GPU may get at most: each has its CPUs, and no GPU is idle while others are shared.

    Args:
        nodes: those that are there.
        trials: in all.
        cpus_per_trial: None for one at least.
    """
    with_gpus = [node for node in nodes if node.get("GPU", 0) > 0]
    gpus = sum(node["GPU"] for node in with_gpus)
    cpus = min((node.get("CPU", 0) / node["GPU"] for node in with_gpus), default=0.0)
    return max(1, min(_MOST, int(trials / gpus), int(cpus / (cpus_per_trial or 1)))) if gpus else 1


def next_to_measure(load: Load, most: int) -> int | None:
    """How many trials to measure at once next: one, then twice as many as long as that pays off and they
    have room; None when that is enough."""
    if not load.rates:
        return 1
    count = max(load.rates)
    goes_on = count == 1 or load.pays_off(count)
    return 2 * count if goes_on and 2 * count <= most and load.fits(2 * count) else None


def decide(load: Load, most: int) -> Packing:
    """The most trials on a GPU for which every doubling paid off.

    Args:
        load: as measured.
        most: how many were allowed.
    """
    if most < 2:
        return Packing(1, "there are too few trials or CPUs for more")
    if load.problem or not load.rates:
        return Packing(1, load.problem or f"it could not be measured within {MEASURED_WITHIN:.0f} s")
    trials = 1
    while load.fits(2 * trials) and load.pays_off(2 * trials):
        trials *= 2
    if trials > 1:
        faster = load.rates[trials] / load.rates[1]
        memory = f"memory {size(trials * load.trial_bytes)} of {size(load.gpu_bytes)}"
        return Packing(trials, f"{trials} at once are {faster:.1f}x as fast as one, {memory}")
    return Packing(1, _why_alone(load))


def _why_alone(load: Load) -> str:
    if 2 in load.rates:
        return f"2 at once are only {load.rates[2] / load.rates[1]:.2f}x as fast as one"
    if not load.fits(2):
        return f"2 at once would take {size(2 * load.trial_bytes)} of {size(load.gpu_bytes)}"
    return f"2 at once could not be measured within {MEASURED_WITHIN:.0f} s"


def heaviest_recipes(space: SearchSpace, side: int) -> list[Recipe]:
    """For each network of a space the recipe that takes most memory, as far as its keys tell.

    Args:
        space: may propose them.
        side: of the images, in pixels.
    """
    heaviest: dict[Value, Mapping[str, Value]] = {}
    for values in space.combinations("model.name", *_MEMORY_KEYS):
        known = heaviest.setdefault(values["model.name"], values)
        if _heaviness(values, side) > _heaviness(known, side):
            heaviest[values["model.name"]] = values
    return [space.recipe({**space.default_params(), **values}) for values in heaviest.values()]


def _heaviness(values: Mapping[str, Value], side: int) -> tuple[float, ...]:
    """What is compared first matters most."""
    number = {name: float(values[name]) for name in _MEMORY_KEYS if not isinstance(values[name], str)}
    activations = number["batch_size"] * (number["input.size"] or side) ** 2
    return (
        values["freeze.policy"] in ("none", "gradual"),
        activations * number["model.depth"] * number["model.width"],
        values["model.head"] == "fc4096",
        _MOMENTS.get(str(values["optim.name"]), 1),
        number["ema.decay"] > 0,
    )


class _Process:
    """Rehearses in a process of its own: is told one thing at a time, and answers each with a number.

    It ends when its standard input does, so that none stays behind whoever started it.
    """

    def __init__(self, wanted: Rehearsals, environment: Mapping[str, str] | None = None) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__, json.dumps(asdict(wanted))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
            start_new_session=True,
        )

    def tell(self, order: str, value: float) -> None:
        """`weigh` the recipe of this number, or `train` for so many seconds the one that was weighed last."""
        assert self._process.stdin is not None
        print(json.dumps([order, value]), file=self._process.stdin, flush=True)

    def answer(self, deadline: float) -> Any:
        """The next answer: first of all the bytes of the GPU, None where there is none; then of what it was
        told: bytes or images a second, None if that cannot be trained.

        Raises:
            TimeoutError: if it comes later than `deadline` (of the monotonic clock).
            EOFError: if the process has ended.
        """
        assert self._process.stdout is not None
        left = max(0.0, deadline - time.monotonic())
        if not select.select([self._process.stdout], [], [], left)[0]:
            raise TimeoutError
        line = self._process.stdout.readline()
        if not line:
            raise EOFError
        return json.loads(line)

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()


def smallest_gpu() -> int | None:
    """The memory in bytes of the smallest GPU that this machine lets us see; None if it shows none."""
    # Ray hides the GPUs from who asked for none.
    seen = {name: value for name, value in os.environ.items() if value or name != "CUDA_VISIBLE_DEVICES"}
    with closing(_Process(Rehearsals((), (1, 1, 1), 1, 1, 1, 1.0), seen)) as process:
        found: int | None = process.answer(time.monotonic() + MEASURED_WITHIN)
    return found


class _SideBySide:
    """Processes that rehearse the same recipe beside one another, as many as are asked for.

    Every method raises TimeoutError behind the deadline, and EOFError if a process ended or has not the
    memory that it needs.
    """

    def __init__(self, wanted: Rehearsals, deadline: float) -> None:
        self._wanted, self._deadline = wanted, deadline
        self._recipe = 0  # number of the one that is rehearsed
        self._processes = [_Process(wanted)]

    def gpu_bytes(self) -> int | None:
        """To be asked first. None if there is no GPU."""
        found: int | None = self._processes[0].answer(self._deadline)
        return found

    def weigh(self) -> int:
        """Find the recipe that takes most memory; recipes that cannot be trained at all are passed over."""
        taken = [self._taken(number) for number in range(len(self._wanted.recipes))]
        heaviest = max(taken, default=0)
        self._recipe = taken.index(heaviest) if heaviest else 0
        if not self._taken(self._recipe):
            raise EOFError
        return heaviest

    def images_per_second(self, count: int) -> float:
        """Of `count` at once, all together."""
        new = [_Process(self._wanted) for _ in range(count - len(self._processes))]
        self._processes += new
        for process in new:
            process.answer(self._deadline)
            process.tell("weigh", self._recipe)
        self._answers(new)
        for process in self._processes:
            process.tell("train", _WINDOW)
        return sum(self._answers(self._processes))

    def close(self) -> None:
        """End them all."""
        for process in self._processes:
            process.close()

    def _taken(self, number: int) -> int:
        """Bytes; 0 if the recipe cannot be trained."""
        self._processes[0].tell("weigh", number)
        return self._processes[0].answer(self._deadline) or 0

    def _answers(self, processes: Sequence[_Process]) -> list[float]:
        answers = [process.answer(self._deadline) for process in processes]
        if None in answers:
            raise EOFError
        return answers


def measure(
    wanted: Rehearsals, most: int, seconds: float = MEASURED_WITHIN, gpu_bytes: int | None = None
) -> Load:
    """Measure on the GPU that this process sees first, with processes that are gone afterwards.

    Args:
        wanted: what trials train.
        most: trials at once.
        seconds: that it may take; what was measured until then counts.
        gpu_bytes: to measure where there is no GPU: what it would have.
    """
    load = Load()
    with closing(_SideBySide(wanted, time.monotonic() + seconds)) as rehearsing:
        try:
            gpu_bytes = rehearsing.gpu_bytes() or gpu_bytes
            if gpu_bytes is None:
                return Load(problem="there is no real GPU to measure on")
            load = Load(gpu_bytes, rehearsing.weigh() + wanted.bytes_of_images(gpu_bytes))
            while (count := next_to_measure(load, most)) is not None:
                load = replace(load, rates={**load.rates, count: rehearsing.images_per_second(count)})
        except (OSError, EOFError):  # what is known until here decides
            pass
    return load


def _rehearse(wanted: Rehearsals, answers: TextIO) -> None:
    """The other end of a `_Process`."""
    from tunekit.training.rehearsal import Rehearsal, gpu_bytes, start_anew

    print(json.dumps(gpu_bytes()), file=answers, flush=True)
    shape, counts = wanted.image_shape, (wanted.train_images, wanted.val_images)
    rehearsal: Rehearsal | None = None
    for line in sys.stdin:
        order, value = json.loads(line)
        answer: float | None = None
        try:
            if order == "weigh":
                rehearsal = None
                start_anew()
                recipe = Recipe.from_flat(wanted.recipes[value])
                rehearsal = Rehearsal(recipe, shape, wanted.classes, *counts, wanted.cpus)
                answer = rehearsal.bytes_taken()
            elif rehearsal is not None:
                answer = rehearsal.images_per_second(value)
        except TunekitError:
            pass  # no answer is one too
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)  # what libraries print is no answer
        _rehearse(Rehearsals(**json.loads(sys.argv[1])), answers)
