"""Out of memory is a result of the recipe, not a crash."""

from __future__ import annotations

import ctypes
import errno
import gc
import re
import threading
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch

from tunekit.errors import OutOfMemoryFailure, RecipeFailure

T = TypeVar("T")

_NO_MEMORY = "out of memory"  # of the machine, not of a GPU
_this_thread = threading.local()  # `spoiled`: memory failed in it

# What libraries say in a RuntimeError or ImportError when the system gives them no memory.
_WORDS = re.compile(
    r"can't allocate memory"  # torch
    r"|not enough memory: you tried to allocate"  # torch elsewhere than on Linux
    r"|Cannot allocate memory"  # the system itself, for example when torch maps a file
    r"|std::bad_alloc"  # C++
    r"|could not create a (primitive|memory object)$"  # oneDNN; one that it does not know is a "descriptor"
    r"|failed to map segment from shared object"  # a library that is loaded on demand
)
_GPU_WORDS = re.compile(r"CUDA error: out of memory|(CUBLAS|CUDNN)_STATUS_ALLOC_FAILED")
_GPU_SIZE = re.compile(r"[Tt]ried to allocate ([\d.]+ \w+)")


@contextmanager
def memory_failures(when: str = "") -> Iterator[None]:
    """Inside the block, or the function so decorated, every kind of it is an `OutOfMemoryFailure`.

    What the failed code held in local variables is released, so that a caller that catches the failure
    has its memory back.

    Args:
        when: the end of the reason, such as "while the network was built".
    """
    try:
        yield
    except RecipeFailure:
        raise
    except Exception as error:  # libraries have no class in common
        # A reader that makes "is damaged" of every error still knows what it was.
        errors = list(_with_causes(error))
        reason = next((found for found in map(_reason, errors) if found), None)
        if reason is None:
            raise
        for one in errors:
            traceback.clear_frames(one.__traceback__)
        if reason == _NO_MEMORY:
            _this_thread.spoiled = True
        raise OutOfMemoryFailure(f"{reason} {when}".rstrip()) from None


def unspoiled(work: Callable[[], T]) -> T:
    """What `work` gives, called in a thread of its own if memory has failed in this one.

    When oneDNN finds no memory for the machine code of a kernel, each new kernel of the same thread fails
    from then on, however much memory there is (seen with torch 2.15 on x86: "could not create a primitive").
    """
    if not getattr(_this_thread, "spoiled", False):
        return work()
    threads = torch.get_num_threads()  # a new thread would have those of the machine
    with ThreadPoolExecutor(1, initializer=torch.set_num_threads, initargs=(threads,)) as fresh:
        return fresh.submit(work).result()


def release_memory() -> None:
    """Give back what nothing refers to any more: to the system, where that is Linux, and on the GPU too."""
    gc.collect()
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
        trim(0)
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.empty_cache()


def _with_causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _reason(error: BaseException) -> str | None:
    """The failure in words, if `error` says that there is not enough memory."""
    text = str(error)
    if isinstance(error, torch.OutOfMemoryError):
        size = _GPU_SIZE.search(text)
        return f"out of GPU memory (tried to allocate {size[1]})" if size else "out of GPU memory"
    if isinstance(error, RuntimeError) and _GPU_WORDS.search(text):
        return "out of GPU memory"
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return _NO_MEMORY
    if isinstance(error, RuntimeError | ImportError) and _WORDS.search(text):
        return _NO_MEMORY
    return None
