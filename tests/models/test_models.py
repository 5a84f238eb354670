"""Networks: published sizes, and where batch norm stands in the order of execution."""

import pytest
import torch
from torch import Tensor, nn

from tunekit.models.build import build_model
from tunekit.recipe import BN_PLACEMENTS, MODELS, ModelRecipe

CIFAR = (32, 32, 3)


def parameters(name: str, shape: tuple[int, int, int] = CIFAR, placement: str = "before_act") -> int:
    model = build_model(ModelRecipe(name, placement), shape, 10)
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(
    ("name", "count"),
    [  # He et al. 2016, table 6, in thousands for 10 classes: 0.27M, 0.46M, 0.85M
        ("resnet20", 269_722),
        ("resnet32", 464_154),
        ("resnet56", 853_018),
        # kuangliu/pytorch-cifar with the 3x3 stem
        ("resnet18", 11_173_962),
        ("resnet34", 21_282_122),
        ("resnet50", 23_520_842),
        ("resnet101", 42_512_970),
    ],
)
def test_networks_have_their_published_size(name: str, count: int) -> None:
    assert parameters(name) == count


def test_large_images_get_the_published_stem() -> None:
    model = build_model(ModelRecipe("resnet18"), (224, 224, 3), 1000)
    assert sum(parameter.numel() for parameter in model.parameters()) == 11_689_512


@pytest.mark.parametrize("placement", BN_PLACEMENTS)
@pytest.mark.parametrize("name", ["resnet8", "resnet20", "resnet18", "resnet50"])
@pytest.mark.parametrize("shape", [(8, 8, 1), (28, 28, 1), (32, 32, 3)])
def test_networks_run_forward_and_backward(name: str, placement: str, shape: tuple[int, int, int]) -> None:
    model = build_model(ModelRecipe(name, placement), shape, 7)
    height, width, channels = shape
    logits = model(torch.randn(2, channels, height, width))
    assert logits.shape == (2, 7)
    logits.sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def executed(model: nn.Module) -> list[str]:
    """Convolutions, norms and activations in the order in which an image meets them."""
    order: list[str] = []
    words = {nn.Conv2d: "conv", nn.BatchNorm2d: "norm", nn.ReLU: "act"}
    for name, module in model.named_modules():
        word = words.get(type(module))
        if word and "downsample" not in name:

            def hook(_m: nn.Module, _i: object, _o: Tensor, word: str = word) -> None:
                order.append(word)

            module.register_forward_hook(hook)
    model.eval()(torch.randn(1, 3, 32, 32))
    return order


@pytest.mark.parametrize("name", ["resnet8", "resnet18", "resnet50"])
def test_the_executed_order_is_what_the_placement_says(name: str) -> None:
    order = {p: executed(build_model(ModelRecipe(name, p), CIFAR, 10)) for p in BN_PLACEMENTS}
    convolutions = order["none"].count("conv")
    assert order["before_act"] == ["conv", "norm", "act"] * convolutions
    assert order["after_act"] == ["conv", "act", "norm"] * convolutions
    assert order["none"] == ["conv", "act"] * convolutions


@pytest.mark.parametrize("name", [name for name in MODELS if name not in ("resnet34", "resnet101")])
def test_without_norm_every_convolution_has_a_bias(name: str) -> None:
    model = build_model(ModelRecipe(name, "none"), CIFAR, 10)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    assert all(module.bias is not None for module in model.modules() if isinstance(module, nn.Conv2d))


@pytest.mark.parametrize("placement", BN_PLACEMENTS)
def test_signals_keep_their_size_through_depth(placement: str) -> None:
    torch.manual_seed(0)
    model = build_model(ModelRecipe("resnet56", placement), CIFAR, 10).train()
    spread = model(torch.randn(64, 3, 32, 32)).std()
    assert 0.01 < float(spread.detach()) < 10
