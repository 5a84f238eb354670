"""The moving average of the weights, against a plain loop."""

import pytest
import torch
from torch import Tensor

from tests.training.small_network import small_network
from tunekit.training.weight_average import build_average


@pytest.mark.parametrize("decay", [0.3, 0.99])
def test_it_is_that_of_a_plain_loop(decay: float) -> None:
    torch.manual_seed(0)
    network = small_network()
    average = build_average(network, decay)
    expected: dict[str, Tensor] = {}
    for step in range(20):
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
        network(torch.randn(4, 1, 8, 8))  # moves the running statistics
        average.update_parameters(network)
        kept = 0.0 if step == 0 else min(decay, (1 + step) / (10 + step))
        for name, value in network.state_dict().items():
            old = expected.get(name, value)
            counts = not value.is_floating_point()
            expected[name] = value.clone() if counts else kept * old + (1 - kept) * value
    judged = average.module.state_dict()
    assert list(judged) == list(network.state_dict())
    for name, value in expected.items():
        torch.testing.assert_close(judged[name], value)
    assert judged["body.0.1.num_batches_tracked"] == 20


def test_what_never_moves_is_its_own_average_to_the_bit() -> None:
    network = small_network().eval()
    average = build_average(network, 0.9)
    for _ in range(5):
        average.update_parameters(network)
    for name, value in average.module.state_dict().items():
        assert torch.equal(value, network.state_dict()[name])
