"""A batch in parts that go through the network one after the other, so that it takes less memory.

What a recipe means stays: each batch is augmented and mixed whole, its gradient is that of its mean loss,
and clipping, optimizer, schedule, divergence watch and weight average see batches, not parts. Two things
differ. Dropout draws other masks; and batch norm sees the statistics of a part, not of the batch, and
updates its running ones with each ("ghost batch norm", Hoffer et al. 2017, arXiv:1705.08741, section 4).
Without both, the weights are the same but for rounding.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

# With less, a variance says little, and that of one image on a map of 1 x 1 does not exist.
_SMALLEST_WITH_BATCH_NORM = 4


def smallest_part(network: nn.Module) -> int:
    """Images that a part must have at least: 4 where there is a batch norm, else 1."""
    norms = any(isinstance(module, _BatchNorm) for module in network.modules())
    return _SMALLEST_WITH_BATCH_NORM if norms else 1


def split_batch(images: Tensor, targets: Tensor, parts: int) -> Iterator[tuple[Tensor, Tensor, float]]:
    """The batch in parts whose sizes differ by one image at most.

    Args:
        images: (B, ...).
        targets: (B,) or (B, classes).
        parts: 1 to B.
    Returns:
        Images and targets of each part (views), and its share of the batch.
    """
    for part, its_targets in zip(images.tensor_split(parts), targets.tensor_split(parts), strict=True):
        yield part, its_targets, len(part) / len(images)
