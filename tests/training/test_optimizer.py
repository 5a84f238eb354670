"""Which parameters an optimizer moves, how fast, and which it leaves alone."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch

from tests.training.small_network import small_network
from tunekit.models.network import Network
from tunekit.recipe import OPTIMIZERS, OptimRecipe
from tunekit.training.optimizer import build_optimizer, parameter_groups, set_learning_rate


def names_by(network: Network, groups: list[dict[str, Any]], key: str) -> dict[float, set[str]]:
    names = {parameter: name for name, parameter in network.named_parameters()}
    return {group[key]: {names[parameter] for parameter in group["params"]} for group in groups}


def train_step(network: Network, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    network(torch.randn(4, 1, 8, 8)).square().sum().backward()
    optimizer.step()


def test_parameters_that_are_alike_share_one_group() -> None:
    network = small_network()
    (group,) = parameter_groups(OptimRecipe(), network)
    assert group["params"] == list(network.parameters())
    assert (group["lr"], group["weight_decay"]) == (0.1, 5e-4)


def test_each_stage_further_from_the_head_learns_more_slowly() -> None:
    network = small_network(aux=True)
    groups = parameter_groups(OptimRecipe(lr=1.0, layer_decay=0.5), network)
    assert names_by(network, groups, "lr") == {
        0.25: {"body.0.0.weight", "body.0.0.bias", "body.0.1.weight", "body.0.1.bias"},
        0.5: {"body.1.0.weight", "body.1.1.weight", "body.1.1.bias"},
        1.0: {"head.weight", "head.bias", "aux.0.weight", "aux.0.bias"},
    }


def test_weight_decay_leaves_out_norms_and_biases_where_the_recipe_says_so() -> None:
    network = small_network()
    groups = parameter_groups(OptimRecipe(weight_decay=0.1, decay_norms_and_biases=False), network)
    assert names_by(network, groups, "weight_decay")[0.1] == {
        "body.0.0.weight",
        "body.1.0.weight",
        "head.weight",
    }
    assert sum(len(group["params"]) for group in groups) == len(list(network.parameters()))


def test_stages_keep_their_proportions_along_a_schedule() -> None:
    optimizer = build_optimizer(OptimRecipe(lr=1.0, layer_decay=0.5), small_network())
    set_learning_rate(optimizer, 0.5)
    set_learning_rate(optimizer, 0.1)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.025, 0.05, 0.1])


TORCHS_OWN: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "sgd": lambda groups: torch.optim.SGD(groups, momentum=0.9, nesterov=True, fused=True),
    "rmsprop": lambda groups: torch.optim.RMSprop(groups, alpha=0.99),
    "adam": lambda groups: torch.optim.Adam(groups, fused=True),
    "adamw": lambda groups: torch.optim.AdamW(groups, fused=True),
}


@pytest.mark.parametrize("name", TORCHS_OWN)
def test_steps_are_those_of_torchs_own_optimizer(name: str) -> None:
    recipe = OptimRecipe(name=name, lr=0.01, momentum=0.9, nesterov=True, weight_decay=0.1)
    one, other = small_network(), small_network()
    other.load_state_dict(one.state_dict())
    ours, torchs = build_optimizer(recipe, one), TORCHS_OWN[name](parameter_groups(recipe, other))
    for seed in range(4):
        if seed == 2:
            ours.load_state_dict(copy.deepcopy(ours.state_dict()))
        for network, optimizer in ((one, ours), (other, torchs)):
            torch.manual_seed(seed)
            train_step(network, optimizer)
    for mine, its in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.equal(mine, its)
        assert mine.requires_grad and mine.is_leaf
    assert isinstance(ours, type(torchs))
    assert ours.state_dict()["param_groups"] == torchs.state_dict()["param_groups"]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_moves_every_parameter(name: str) -> None:
    network = small_network()
    before = copy.deepcopy(network)
    train_step(network, build_optimizer(OptimRecipe(name=name, lr=0.01), network))
    moved = zip(network.parameters(), before.parameters(), strict=True)
    # a bias in front of a norm has no gradient
    assert all(not torch.equal(now, old) for now, old in moved if now.ndim > 1)


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("layer_decay", [1.0, 0.5])
def test_what_is_frozen_does_not_move_and_what_is_freed_does(name: str, layer_decay: float) -> None:
    network = small_network()
    recipe = OptimRecipe(name=name, lr=0.01, weight_decay=0.1, layer_decay=layer_decay)
    optimizer = build_optimizer(recipe, network)
    stage = network.body.get_submodule("0")
    # Free at first, so that there is momentum which could move what is frozen later.
    for frozen in (False, True, True, False):
        stage.requires_grad_(not frozen)
        before = [parameter.detach().clone() for parameter in stage.parameters()]
        train_step(network, optimizer)
        same = [torch.equal(*pair) for pair in zip(before, stage.parameters(), strict=True)]
        assert all(same) if frozen else not same[0]


def test_weight_decay_of_norms_follows_the_option() -> None:
    for option in (True, False):
        network = small_network()
        recipe = OptimRecipe(lr=0.1, momentum=0.0, weight_decay=0.5, decay_norms_and_biases=option)
        optimizer = build_optimizer(recipe, network)
        for parameter in network.parameters():
            parameter.grad = torch.zeros_like(parameter)
        before = copy.deepcopy(network)
        optimizer.step()
        decayed = 1 - 0.1 * 0.5
        for now, old in zip(network.parameters(), before.parameters(), strict=True):
            torch.testing.assert_close(now, old * (decayed if option or now.ndim > 1 else 1))
