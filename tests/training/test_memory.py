"""Memory that is too small: what counts as that, what it costs, and how a training goes on with less."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, astuple, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tunekit.data.batches import Batches
from tunekit.data.pack import Pack
from tunekit.data.split import Split, make_split
from tunekit.errors import DivergedError, OutOfMemoryFailure, TunekitError
from tunekit.models.network import Network
from tunekit.paths import TrialPaths
from tunekit.recipe import Recipe
from tunekit.training.build import build_training
from tunekit.training.checkpoint import load_checkpoint
from tunekit.training.loop import EpochResult, Training
from tunekit.training.memory import memory_failures, unspoiled
from tunekit.tuning.assignment import Assignment
from tunekit.tuning.trial_run import TrialRun

CPU = torch.device("cpu")
MEGABYTE = 2**20
only_linux = pytest.mark.skipif(
    sys.platform != "linux", reason="no other system keeps to a limit of address space"
)

NO_MEMORY: dict[str, Exception] = {
    "torch": RuntimeError(
        "[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory"
    ),
    "oneDNN": RuntimeError("could not create a primitive"),
    "oneDNN's memory": RuntimeError("could not create a memory object"),
    "a file that is mapped": RuntimeError(
        "unable to mmap 8 bytes from file <last.pt>: Cannot allocate memory (12)"
    ),
    "C++": RuntimeError("std::bad_alloc"),
    "Python": MemoryError(),
    "the system": OSError(errno.ENOMEM, "Cannot allocate memory"),
    "a library": ImportError("libx.so: failed to map segment from shared object"),
}
NO_GPU_MEMORY: dict[str, tuple[Exception, str]] = {
    "torch": (
        torch.OutOfMemoryError(
            "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 8 GiB"
        ),
        "out of GPU memory (tried to allocate 2.00 GiB)",
    ),
    "CUDA": (RuntimeError("CUDA error: out of memory"), "out of GPU memory"),
    "cuBLAS": (
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"),
        "out of GPU memory",
    ),
}
OTHERS: dict[str, Exception] = {
    "a kernel that is not there": RuntimeError("could not create a primitive descriptor for a convolution"),
    "a full disk": OSError(errno.ENOSPC, "No space left on device"),
    "a GPU that broke": RuntimeError("CUDA error: device-side assert triggered"),
    "too many processes": RuntimeError("can't start new thread"),
    "a bug": ValueError("can't allocate memory"),
    "divergence": DivergedError("training loss is nan"),
}


@pytest.mark.parametrize("error", NO_MEMORY.values(), ids=NO_MEMORY)
def test_every_way_to_run_out_of_memory_is_one_failure(error: Exception) -> None:
    with pytest.raises(OutOfMemoryFailure, match=r"^out of memory$"), memory_failures():
        raise error


@pytest.mark.parametrize(("error", "reason"), NO_GPU_MEMORY.values(), ids=NO_GPU_MEMORY)
def test_a_gpu_that_is_full_is_said_in_a_few_words(error: Exception, reason: str) -> None:
    with pytest.raises(OutOfMemoryFailure) as caught, memory_failures("while it was saved"):
        raise error
    assert str(caught.value) == f"{reason} while it was saved"


@pytest.mark.parametrize("error", OTHERS.values(), ids=OTHERS)
def test_nothing_else_is_that_failure(error: Exception) -> None:
    with pytest.raises(type(error)) as caught, memory_failures():
        raise error
    assert caught.value is error


def test_numpy_runs_out_of_memory_too() -> None:
    with pytest.raises(OutOfMemoryFailure), memory_failures():
        np.empty(2**50)


def test_a_reader_that_takes_it_for_damage_is_seen_through() -> None:
    def read() -> None:
        try:
            raise MemoryError
        except Exception:
            raise TunekitError("last.pt: is not a checkpoint") from None

    with pytest.raises(OutOfMemoryFailure), memory_failures():
        read()


def test_what_failed_is_released_while_the_failure_is_still_held() -> None:
    held: list[weakref.ref[Tensor]] = []

    def forward() -> None:
        activations = torch.zeros(10)
        held.append(weakref.ref(activations))
        torch.empty(2**50)

    with pytest.raises(OutOfMemoryFailure) as caught, memory_failures():
        forward()
    assert held[0]() is None
    assert "out of memory" in str(caught.value)


def test_work_moves_to_a_new_thread_only_where_memory_failed() -> None:
    def fail_and_work() -> tuple[int, int]:
        torch.set_num_threads(3)
        before = unspoiled(threading.get_ident)
        assert before == threading.get_ident()
        with contextlib.suppress(OutOfMemoryFailure), memory_failures():
            raise MemoryError
        assert unspoiled(threading.get_ident) != before
        return torch.get_num_threads(), unspoiled(torch.get_num_threads)

    with ThreadPoolExecutor(1) as clean:
        assert clean.submit(fail_and_work).result() == (3, 3)


@pytest.fixture
def full_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    """No bfloat16, whose rounding would hide what differs."""
    monkeypatch.setattr("torch.cpu.get_capabilities", dict)


@pytest.fixture
def double_precision(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Sums in another order, by whatever kernels a processor has, differ by next to nothing."""
    forward = Network.forward
    monkeypatch.setattr(Network, "forward", lambda model, images: forward(model, images.double()))
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


SAME_RECIPES: dict[str, dict[str, Any]] = {
    "sgd": {"model.name": "resnet8"},
    "clipped": {"model.name": "scratch", "model.depth": 2, "optim.clip_norm": 0.5, "ema.decay": 0.9},
    "mixup_smoothed": {"model.name": "resnet8", "augment.policy": "mixup", "loss.label_smoothing": 0.1},
    "cutmix": {"model.name": "resnet8", "augment.policy": "flip+cutmix"},
    "auxiliary_heads": {"model.name": "googlenet", "optim.lr": 0.001},
    "lenet": {"model.name": "lenet5", "input.size": 16},
    "frozen": {"model.name": "resnet8", "freeze.policy": "gradual"},
    "adamw": {"model.name": "resnet8", "optim.name": "adamw", "optim.lr": 1e-3},
}


def training(digits: Pack, split: Split, keys: dict[str, Any], epochs: int = 2, parts: int = 1) -> Training:
    recipe = Recipe.from_flat({"model.name": "resnet8", "batch_size": 37, "optim.lr": 0.01, **keys})
    return build_training(recipe, digits, split, epochs, 0, CPU, micro_batches=parts)


def timeless(results: list[EpochResult]) -> list[tuple[float, ...]]:
    return [astuple(replace(result, epoch_seconds=0, images_per_second=0)) for result in results]


@pytest.fixture
def few(digits: Pack) -> Split:
    return make_split(digits.train()[1], fraction=0.2, seed=0, limit=120)


@pytest.mark.usefixtures("full_precision", "double_precision")
@pytest.mark.parametrize("parts", [2, 8])
@pytest.mark.parametrize("keys", SAME_RECIPES.values(), ids=SAME_RECIPES)
def test_parts_of_a_batch_give_what_the_batch_gives(
    digits: Pack, few: Split, keys: dict[str, Any], parts: int
) -> None:
    keys = {**keys, "model.bn_placement": "none"}
    whole, divided = training(digits, few, keys), training(digits, few, keys, parts=parts)
    for module in (*whole.model.modules(), *divided.model.modules()):
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0  # its masks differ
    first = {name: value.clone() for name, value in whole.model.state_dict().items()}
    list(whole.run()), list(divided.run())
    for name, value in whole.model.state_dict().items():
        moved = (value - first[name]).abs().max().item()
        error = (divided.model.state_dict()[name] - value).abs().max().item()
        assert error <= 1e-4 * moved + 1e-10, name
    for one, other in zip(whole.results, divided.results, strict=True):
        assert other.train_loss == pytest.approx(one.train_loss, rel=1e-4)
        assert other.val_loss == pytest.approx(one.val_loss, rel=1e-4)
        assert other.train_accuracy == one.train_accuracy
    assert {result.micro_batches for result in divided.results} == {parts}


@pytest.mark.usefixtures("full_precision")
def test_a_batch_that_all_images_do_not_fill_is_divided_too(digits: Pack, few: Split) -> None:
    keys = {"batch_size": 1000, "model.bn_placement": "none"}
    whole, divided = training(digits, few, keys), training(digits, few, keys, parts=16)
    list(whole.run()), list(divided.run())
    assert divided.results[-1].val_loss == pytest.approx(whole.results[-1].val_loss, rel=1e-4)
    assert divided.images_at_once == 7  # of 100


def test_each_part_has_its_own_batch_norm(digits: Pack, few: Split) -> None:
    run = training(digits, few, {}, parts=8)
    sizes: list[int] = []
    run.model.register_forward_pre_hook(lambda model, images: sizes.append(len(images[0])))
    run.model.train()
    run._train_epoch(1)
    assert sizes == 2 * [5, 5, 5, 5, 5, 4, 4, 4]
    assert run.model.state_dict()["body.bn1.num_batches_tracked"] == len(sizes)


@pytest.mark.parametrize(("norm", "smallest"), [("before_act", 4), ("none", 1)])
def test_parts_have_four_images_where_there_is_a_batch_norm(
    digits: Pack, few: Split, norm: str, smallest: int
) -> None:
    parts = 1
    while training(
        digits, few, {"batch_size": 32, "model.bn_placement": norm}, parts=parts
    ).can_take_less_memory:
        parts *= 2
    assert parts == 32 // smallest


def test_a_resumed_training_keeps_its_parts(digits: Pack, few: Split) -> None:
    straight = training(digits, few, {}, epochs=4, parts=4)
    list(straight.run())
    before = training(digits, few, {}, epochs=4, parts=4)
    run = before.run()
    next(run), next(run)
    after = training(digits, few, {}, epochs=4)
    after.load_state(before.state())
    list(after.run())
    assert timeless(after.results) == timeless(straight.results)
    assert same(after.model.state_dict(), straight.model.state_dict())


def test_validation_in_parts_judges_the_same_images(digits: Pack) -> None:
    images, labels = digits.train()
    batches = Batches(images, labels, np.arange(100), digits.mean, digits.std, None, CPU)
    (whole,) = batches.in_order()
    parts = list(batches.in_order(parts=8))
    assert [len(part) for part, _ in parts] == [13] * 7 + [9]
    assert torch.equal(torch.cat([part for part, _ in parts]), whole[0])
    assert len(list(batches.in_order(batches.most_parts))) == 100


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return all(torch.equal(value, other[name]) for name, value in one.items())


Assign = Callable[..., Assignment]


@pytest.fixture
def assign(digits: Pack, tmp_path: Path) -> Assign:
    """Assignments of a network with few and large maps: 256 images take more than 200 MB.

    What fails is then a large piece of memory. Where it is a small one, oneDNN may end the whole process.
    """
    make_split(digits.train()[1], fraction=0.2, seed=0, limit=1000).save(tmp_path / "split.npz")

    def make(name: str, keys: dict[str, Any], **fields: Any) -> Assignment:
        given: dict[str, Any] = {"model.name": "scratch", "model.depth": 2, "model.width": 16}
        given |= {"input.size": 64, "optim.name": "adamw", "optim.lr": 0.003, "batch_size": 256}
        return Assignment(
            trial_id=0,
            recipe=Recipe.from_flat({**given, **keys}).to_flat(),
            seed=0,
            reported=0,
            pack=str(digits.folder),
            folder=str(tmp_path / name),
            **{"epochs": 4, "split": str(tmp_path / "split.npz"), **fields},
        )

    return make


def train_in_a_process_of_its_own(*trials: tuple[Assignment, dict[str, int]]) -> list[Any]:
    """What each trial gives; `short_of_memory` says what the numbers are."""
    plan = [{"assignment": asdict(assignment), **numbers} for assignment, numbers in trials]
    command = [sys.executable, "-X", "faulthandler", "-m", "tests.training.short_of_memory", json.dumps(plan)]
    root = Path(__file__).parents[2]
    # Else glibc reserves 64 MB of addresses for each new thread, and the limit says little about memory.
    one_arena = {**os.environ, "MALLOC_ARENA_MAX": "1"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=root, env=one_arena, check=False)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


TIMES = ("epoch_seconds", "images_per_second")


def without(names: tuple[str, ...], results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in one.items() if name not in names} for one in results]


def with_enough_memory(assignment: Assignment, parts: list[int]) -> Training:
    """Trained with so many parts in each epoch."""

    def build(number: int) -> Training:
        recipe, pack = Recipe.from_flat(assignment.recipe), Pack.open(Path(assignment.pack))
        split = Split.load(Path(assignment.split))
        return build_training(recipe, pack, split, assignment.epochs, 0, CPU, micro_batches=number)

    run = build(parts[0])
    for number in parts:
        if number != run.micro_batches:
            more = build(number)
            more.load_state(run.state())
            run = more
        next(run.run())
    return run


@pytest.mark.slow
@only_linux
@pytest.mark.parametrize(("free_steps", "accuracy"), [(0, 0.5), (2, 0.2)])
def test_a_training_that_runs_out_of_memory_goes_on_with_smaller_parts(
    assign: Assign, free_steps: int, accuracy: float
) -> None:
    trial = assign("short", {"batch_size": 800}, on_oom="retry", epochs=12)
    # Far more than the small pieces for which oneDNN may end the process; the whole batch takes 700 MB.
    numbers = {"free_steps": free_steps, "steps": 12, "spare": 350 * MEGABYTE}
    (given,) = train_in_a_process_of_its_own((trial, numbers))
    results = given["results"]
    assert "failure" not in results[-1], results[-1]
    parts = [result["micro_batches"] for result in results]
    assert parts[:free_steps] == [1] * free_steps
    assert parts[free_steps] > 1
    assert results[-1]["val_accuracy"] > accuracy

    same_parts = with_enough_memory(trial, parts)
    rounded = (*TIMES, "val_loss")  # how many images are judged at once may differ
    assert without(rounded, results) == without(rounded, [asdict(result) for result in same_parts.results])
    state = load_checkpoint(TrialPaths(Path(trial.folder)).last)
    assert state is not None
    assert state["micro_batches"] == parts[-1]
    assert same(state["model"], dict(same_parts.model.state_dict()))


@pytest.mark.slow
@only_linux
def test_a_recipe_without_memory_is_a_result_and_the_process_is_as_good_as_new(assign: Assign) -> None:
    short, shorter = {"steps": 1, "spare": 160 * MEGABYTE}, {"steps": 1, "spare": 30 * MEGABYTE}
    last = assign("last", {"optim.name": "sgd", "batch_size": 32})
    given = train_in_a_process_of_its_own(
        (assign("batch", {"batch_size": 800}), short),
        (assign("network", {"model.head": "fc4096"}, on_oom="retry"), shorter),
        (
            assign("image", {"model.name": "resnet8", "input.size": 512, "batch_size": 8}, on_oom="retry"),
            short,
        ),
        (last, {"steps": 3}),
    )
    reasons = [one["results"][-1].get("failure") for one in given]
    assert reasons == [
        "out of memory",
        "out of memory while the training was built",
        "out of memory, even with micro-batches of 4 images",
        None,
    ]
    assert given[-1]["memory_before"] < given[0]["memory_before"] + 50 * MEGABYTE

    fresh = TrialRun(replace(last, folder=f"{last.folder}-fresh"))
    assert without(TIMES, given[-1]["results"]) == without(TIMES, [fresh.step() for _ in range(3)])


@pytest.mark.slow
@only_linux
def test_validation_takes_no_more_memory_than_there_is(assign: Assign, tmp_path: Path) -> None:
    Split(np.arange(40), np.arange(40, 440), seed=0, fraction=0.9, limit=None).save(tmp_path / "few.npz")
    trial = assign("short", {"input.size": 64, "batch_size": 4}, split=str(tmp_path / "few.npz"))
    (given,) = train_in_a_process_of_its_own((trial, {"steps": 1, "spare": 100 * MEGABYTE}))
    expected = TrialRun(replace(trial, folder=f"{trial.folder}-enough")).step()
    assert given["results"][0]["val_loss"] == pytest.approx(expected["val_loss"], rel=0.01)
    state = load_checkpoint(TrialPaths(Path(trial.folder)).last)
    assert state is not None
    assert state["validation_parts"] > 1
    assert state["micro_batches"] == 1


KERNEL_AFTER_KERNEL = """
import resource
from pathlib import Path
import torch
from tunekit.errors import OutOfMemoryFailure
from tunekit.training.memory import memory_failures, unspoiled

def convolve(images):
    return torch.nn.Conv2d(3, 16, 3)(torch.zeros(images, 3, 32, 32)).shape

convolve(1)
addressed = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (addressed + 2**18, resource.RLIM_INFINITY))
try:
    with memory_failures():
        print("not short of memory", convolve(4))
except OutOfMemoryFailure as failure:
    print(failure)
resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
print(tuple(unspoiled(lambda: convolve(5))))
"""


@pytest.mark.slow
@only_linux
def test_kernels_can_be_made_again_once_there_is_memory() -> None:
    done = subprocess.run(
        [sys.executable, "-c", KERNEL_AFTER_KERNEL], capture_output=True, text=True, check=False
    )
    assert done.stdout.splitlines() == ["out of memory", "(5, 16, 30, 30)"], done.stderr
