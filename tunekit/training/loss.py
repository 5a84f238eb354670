"""What training minimises, and which guesses are right; targets are whole numbers or probabilities."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

Outputs = Tensor | tuple[Tensor, ...]  # logits, or logits and those of each auxiliary head


def training_loss(
    outputs: Outputs, targets: Tensor, label_smoothing: float = 0.0, aux_weight: float = 0.0
) -> Tensor:
    """Mean cross-entropy of the logits, plus `aux_weight` times that of each auxiliary head.

    Args:
        outputs: of a `Network`; logits are (B, classes), any float dtype.
        targets: int64 (B,), or float32 (B, classes) probabilities.
        label_smoothing: share of the target that is spread over all classes, 0 to 1.
        aux_weight: 0 to 1.
    Returns:
        A float32 scalar.
    Source: auxiliary heads: Szegedy et al. 2015, arXiv:1409.4842, section 5.
    """
    logits, *aux = _each(outputs)
    loss = functional.cross_entropy(logits.float(), targets, label_smoothing=label_smoothing)
    for seen in aux:
        extra = functional.cross_entropy(seen.float(), targets, label_smoothing=label_smoothing)
        loss = loss + aux_weight * extra
    return loss


def number_right(outputs: Outputs, targets: Tensor) -> Tensor:
    """How many images have their highest logit at the target, or where its probability is highest.

    Args:
        outputs: of a `Network`; auxiliary heads do not count.
        targets: int64 (B,), or float32 (B, classes) probabilities.
    Returns:
        An int64 scalar on the device of `outputs`.
    """
    truth = targets.argmax(1) if targets.is_floating_point() else targets
    return (_each(outputs)[0].argmax(1) == truth).sum()


def _each(outputs: Outputs) -> tuple[Tensor, ...]:
    return outputs if isinstance(outputs, tuple) else (outputs,)
