"""Where batch norm stands: one mechanism for every family whose modules are called `bnK` and `actK`.

before_act   conv -> norm -> act      as published
after_act    conv -> act -> norm      the norm that precedes an addition moves behind the
                                      activation that follows the addition
none         conv with bias -> act    the last convolution of each residual branch starts at
                                      zero, so that the network begins as the identity
                                      (Zhang et al. 2019, Fixup, arXiv:1901.09321, section 3)
"""

from __future__ import annotations

from torch import nn


def place_norm(model: nn.Module, placement: str) -> nn.Module:
    """Move or remove the batch norms of `model`, in place, and return it.

    Args:
        model: a network as published, norm before activation.
        placement: one of `tunekit.recipe.BN_PLACEMENTS`.
    """
    if placement == "after_act":
        for module in list(model.modules()):
            _swap(module)
    elif placement == "none":
        for module in list(model.modules()):
            _zero_last_convolution(module)
        _remove_norms(model)
    else:
        assert placement == "before_act", placement
    return model


def _swap(module: nn.Module) -> None:
    for index in (1, 2, 3):
        norm, act = getattr(module, f"bn{index}", None), getattr(module, f"act{index}", None)
        if isinstance(norm, nn.BatchNorm2d) and isinstance(act, nn.Module):
            # Residual branches may start with a scale of 0; behind the addition that would
            # silence the whole network.
            nn.init.ones_(norm.weight)
            setattr(module, f"bn{index}", nn.Identity())
            setattr(module, f"act{index}", nn.Sequential(act, norm))


def _zero_last_convolution(module: nn.Module) -> None:
    if not hasattr(module, "conv2"):
        return
    last = module.conv3 if hasattr(module, "conv3") else module.conv2
    assert isinstance(last, nn.Conv2d)
    nn.init.zeros_(last.weight)


def _remove_norms(model: nn.Module) -> None:
    for name, child in list(model.named_children()):
        if isinstance(child, nn.BatchNorm2d):
            setattr(model, name, nn.Identity())
        elif isinstance(child, nn.Conv2d) and child.bias is None:
            bias = nn.Parameter(child.weight.new_zeros(child.out_channels))
            child.register_parameter("bias", bias)
        else:
            _remove_norms(child)
