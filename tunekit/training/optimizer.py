"""From recipe to optimizer: which parameters move, how fast, and with how much decay."""

from __future__ import annotations

import inspect
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from tunekit.models.network import Network
from tunekit.recipe import OptimRecipe

_RMSPROP_MEMORY = 0.99  # share of the mean square that a step keeps: torch's default


def build_optimizer(recipe: OptimRecipe, network: Network) -> Optimizer:
    """The optimizer of a recipe over all parameters of `network`, with torch's fused kernels.

    Parameters that are frozen now are in it too, as they may be freed later; a parameter without a
    gradient is left as it is, by weight decay and momentum too.

    Source: LAMB: You et al. 2020, arXiv:1904.00962. It clips no gradient unless `optim.clip_norm` asks.
    """
    groups = parameter_groups(recipe, network)
    if recipe.name == "sgd":
        return _sgd(recipe, groups)
    if recipe.name == "rmsprop":
        return _without_dynamo(torch.optim.RMSprop)(groups, alpha=_RMSPROP_MEMORY)
    if recipe.name == "lamb":
        from timm.optim.lamb import Lamb  # seconds to import, and few recipes need it

        return _without_dynamo(Lamb)(groups, max_grad_norm=None)
    kinds: dict[str, type[torch.optim.Adam]] = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
    return _without_dynamo(kinds[recipe.name])(groups, fused=True)


def _sgd(recipe: OptimRecipe, groups: list[dict[str, Any]]) -> Optimizer:
    nesterov = recipe.nesterov and recipe.momentum > 0
    sgd = _without_dynamo(torch.optim.SGD)
    optimizer = sgd(groups, momentum=recipe.momentum, nesterov=nesterov, fused=True)
    # The fused kernel fails when some parameters have a momentum and others, freed just now, have none yet.
    # A momentum of zero gives the same first step.
    for group in groups if recipe.momentum else ():
        for parameter in group["params"]:
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return optimizer


def _without_dynamo(kind: type[Optimizer]) -> Callable[..., Optimizer]:
    """The same optimizer without the wrappers that keep torch.compile out of it.

    They import `torch._dynamo` at the first call, which costs each process a second and tens of MB, and
    nothing is compiled here. `step` has one more task, to record no gradients.
    """
    wrapped = ("add_param_group", "load_state_dict", "state_dict", "zero_grad")
    methods: dict[str, Any] = {name: inspect.unwrap(getattr(kind, name)) for name in wrapped}
    methods["step"] = torch.no_grad()(inspect.unwrap(kind.step))
    return type(kind.__name__, (kind,), methods)


def parameter_groups(recipe: OptimRecipe, network: Network) -> list[dict[str, Any]]:
    """The parameters of `network`, together where they share a learning rate and a weight decay.

    The learning rate of a stage is `lr * layer_decay ** (stages - stage)`; heads have `lr` itself.

    Returns:
        Groups with `params`, `lr`, `peak_lr` (what a schedule's factor multiplies) and `weight_decay`;
        a single one if all parameters are alike, which is the fastest.
    Source: learning rates by stage: Howard & Ruder 2018, arXiv:1801.06146, section 3.2. No decay of
        norms and biases: He et al. 2019, arXiv:1812.01187, section 3.1.
    """
    groups: defaultdict[tuple[float, float], list[nn.Parameter]] = defaultdict(list)
    for parameter, distance in _with_distance(network):
        lr = recipe.lr * recipe.layer_decay**distance
        decays = recipe.decay_norms_and_biases or parameter.ndim > 1
        groups[lr, recipe.weight_decay if decays else 0.0].append(parameter)
    return [
        {"params": parameters, "lr": lr, "peak_lr": lr, "weight_decay": weight_decay}
        for (lr, weight_decay), parameters in groups.items()
    ]


def set_learning_rate(optimizer: Optimizer, factor: float) -> None:
    """Give every group `factor` times its peak, for the next step."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak_lr"] * factor


def _with_distance(network: Network) -> Iterator[tuple[nn.Parameter, int]]:
    """Every parameter with its distance from the heads in stages; 0 for those of the heads."""
    for name, parameter in network.body.named_parameters():
        owner = name.rpartition(".")[0]
        yield parameter, network.stages - network.stage_of[owner]
    for parameter in (*network.head.parameters(), *network.aux.parameters()):
        yield parameter, 0
