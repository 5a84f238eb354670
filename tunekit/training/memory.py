"""Out of memory is a result of the recipe, not a crash."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from tunekit.errors import OutOfMemoryFailure


@contextmanager
def memory_failures() -> Iterator[None]:
    """Inside the block, or the function so decorated, every kind of it is an `OutOfMemoryFailure`."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise OutOfMemoryFailure(f"out of GPU memory: {str(error).splitlines()[0]}") from None
    except RuntimeError as error:
        if "can't allocate memory" not in str(error):
            raise
        raise OutOfMemoryFailure("out of memory") from None
    except MemoryError:
        raise OutOfMemoryFailure("out of memory") from None
