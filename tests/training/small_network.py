"""A network of two stages and a head that needs no family: for tests of what stands on any network."""

from torch import nn

from tunekit.models.network import Network


def small_network(aux: bool = False) -> Network:
    """Images (N, 1, 8, 8) to logits (N, 3); `aux` adds a head that has nothing to look at."""
    body = nn.Sequential(
        nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU()),
        nn.Sequential(nn.Conv2d(4, 6, 3, bias=False), nn.BatchNorm2d(6), nn.ReLU()),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )
    stage_of = {"0.0": 0, "0.1": 0, "1.0": 1, "1.1": 1}
    return Network(body, nn.Linear(6, 3), stage_of, aux=[nn.Linear(5, 3)] if aux else [])
