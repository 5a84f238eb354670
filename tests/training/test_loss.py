"""What is minimised and what counts as right, on plain logits."""

import torch
from torch.nn import functional

from tunekit.training.loss import number_right, training_loss

LOGITS = torch.tensor([[2.0, 0.0, -1.0], [0.0, 1.0, 3.0], [0.5, 0.4, 0.3], [0.0, 5.0, 0.0]])
LABELS = torch.tensor([0, 1, 0, 1])


def test_one_head_is_plain_cross_entropy_with_smoothing() -> None:
    expected = functional.cross_entropy(LOGITS, LABELS, label_smoothing=0.1)
    assert torch.equal(training_loss(LOGITS, LABELS, 0.1, aux_weight=0.3), expected)


def test_certain_probabilities_are_labels() -> None:
    certain = functional.one_hot(LABELS, 3).float()
    for smoothing in (0.0, 0.2):
        torch.testing.assert_close(
            training_loss(LOGITS, certain, smoothing), training_loss(LOGITS, LABELS, smoothing)
        )
    assert number_right(LOGITS, certain) == number_right(LOGITS, LABELS) == 3


def test_auxiliary_heads_add_their_share() -> None:
    aux = (LOGITS.flip(1), LOGITS * 2)
    alone = [functional.cross_entropy(logits, LABELS) for logits in (LOGITS, *aux)]
    loss = training_loss((LOGITS, *aux), LABELS, aux_weight=0.3)
    torch.testing.assert_close(loss, alone[0] + 0.3 * (alone[1] + alone[2]))
    assert number_right((LOGITS, *aux), LABELS) == 3


def test_a_mixed_image_is_right_where_the_larger_share_is_guessed() -> None:
    targets = torch.tensor([[0.6, 0.4, 0.0], [0.0, 0.6, 0.4], [0.3, 0.7, 0.0], [0.1, 0.9, 0.0]])
    assert number_right(LOGITS, targets) == 2


def test_low_precision_logits_give_a_full_precision_loss() -> None:
    assert training_loss(LOGITS.bfloat16(), LABELS).dtype == torch.float32
