"""Which stages of a network train, epoch by epoch."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from tunekit.models.catalog import check_stages
from tunekit.models.network import Network
from tunekit.recipe import FreezeRecipe

_NORMS = (_BatchNorm, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)


def freeze(network: Network, recipe: FreezeRecipe, epoch: int) -> None:
    """Set what trains in `epoch`: frozen parameters get no gradient, frozen norms keep their statistics.

    Called at the start of each epoch, after `network.train()`. Heads always train.

    Args:
        network: in training mode; its batch norms of frozen stages are put into evaluation mode.
        recipe: `freeze.*`. "gradual" begins with the head and frees the last stage that is still frozen
            every `recipe.every` epochs (Howard & Ruder 2018, arXiv:1801.06146).
        epoch: 1 is the first.
    Raises:
        RecipeError: if more stages are to be frozen than there are.
    """
    frozen_stages = _frozen_stages(recipe, network.stages, epoch)
    network.requires_grad_(True)
    for name, module in _owners(network):
        norm = isinstance(module, _NORMS)
        if network.stage_of[name] < frozen_stages or (recipe.policy == "bn_frozen" and norm):
            for parameter in module.parameters(recurse=False):
                parameter.requires_grad = False
            if norm:
                module.eval()


def trainable_parameters(network: nn.Module) -> int:
    """How many numbers an optimizer step may change now."""
    return sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)


def _frozen_stages(recipe: FreezeRecipe, stages: int, epoch: int) -> int:
    """How many stages, from the images on, do not train."""
    assert epoch >= 1, epoch
    if recipe.policy == "first_k_stages":
        check_stages(recipe.stages, stages)
        return recipe.stages
    if recipe.policy == "gradual":
        return max(0, stages - (epoch - 1) // recipe.every)
    return stages if recipe.policy == "head_only" else 0


def _owners(network: Network) -> Iterator[tuple[str, nn.Module]]:
    return ((name, module) for name, module in network.body.named_modules() if name in network.stage_of)
