"""Networks that speak together, and one that was made less sure."""

import pytest
import torch
from torch import Tensor, nn

from tunekit.models.ensemble import Ensemble, Tempered


class Says(nn.Module):
    """The same logits whatever it sees."""

    logits: Tensor

    def __init__(self, *logits: float) -> None:
        super().__init__()
        self.register_buffer("logits", torch.tensor(logits))

    def forward(self, images: Tensor) -> Tensor:
        return self.logits.expand(len(images), -1)


IMAGES = torch.zeros(5, 1, 4, 4)


def small_network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 3)).eval()


def test_temperature_divides_the_logits() -> None:
    torch.testing.assert_close(Tempered(Says(1.0, -4.0), 2.0)(IMAGES), torch.tensor([[0.5, -2.0]] * 5))


def test_members_weigh_as_much_as_they_were_given() -> None:
    sure, torn = Says(0.0, 100.0), Says(0.0, 0.0)
    probabilities = Ensemble([sure, torn], [3.0, 1.0])(IMAGES).softmax(1)
    torch.testing.assert_close(probabilities, torch.tensor([[0.125, 0.875]] * 5))


def test_its_output_is_the_log_of_the_mean_probabilities() -> None:
    members = [small_network(seed) for seed in range(3)]
    images = torch.randn(5, 1, 4, 4)
    weights = torch.tensor([0.5, 0.3, 0.2])
    each = torch.stack([member(images).softmax(1) for member in members])
    mean = (each * weights.view(-1, 1, 1)).sum(0)
    output = Ensemble(members, weights.tolist())(images)
    torch.testing.assert_close(output, mean.log())
    torch.testing.assert_close(output.softmax(1), mean)


def test_very_sure_members_give_no_infinity() -> None:
    # The probability of class 0 is exp(-300), which float32 rounds to 0 and whose log would be -inf.
    output = Ensemble([Says(0.0, 300.0), Says(0.0, 300.0)], [1.0, 1.0])(IMAGES)
    torch.testing.assert_close(output, torch.tensor([[-300.0, 0.0]] * 5))


@pytest.mark.parametrize("size", [1, 7])
def test_it_is_exported_for_any_number_of_images(size: int) -> None:
    model = Ensemble([Tempered(small_network(0), 1.5), small_network(1)], [2.0, 1.0]).eval()
    shapes = [{0: torch.export.Dim.AUTO}]
    exported = torch.export.export(model, (torch.randn(2, 1, 4, 4),), dynamic_shapes=shapes).module()
    images = torch.randn(size, 1, 4, 4)
    torch.testing.assert_close(exported(images), model(images))
