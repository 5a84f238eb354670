"""What is frozen does not move by a bit in a real step: neither weights nor running statistics."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from tunekit.errors import RecipeError
from tunekit.models.build import build_model
from tunekit.models.freezing import freeze, trainable_parameters
from tunekit.models.network import Network
from tunekit.recipe import FreezeRecipe, Recipe

SHAPE = (16, 16, 3)
NETWORKS = [
    ("resnet8", "before_act"),
    ("resnet8", "after_act"),
    ("resnet8", "pre_act"),
    ("vgg11", "before_act"),
    ("vgg11", "after_act"),
    ("timm:mobilenetv3_small_050", "before_act"),
    ("timm:mobilenetv3_small_050", "after_act"),
]
POLICIES = [
    FreezeRecipe("none"),
    FreezeRecipe("head_only"),
    FreezeRecipe("first_k_stages", stages=2),
    FreezeRecipe("gradual", every=1),
    FreezeRecipe("bn_frozen"),
]


def network_of(name: str, placement: str = "before_act") -> Network:
    torch.manual_seed(0)
    return build_model(Recipe.from_flat({"model.name": name, "model.bn_placement": placement}), SHAPE, 3)


def moved(network: Network, recipe: FreezeRecipe, epoch: int) -> set[str]:
    """The tensors of the network that two training steps change, by name."""
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9, weight_decay=0.1)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    for _ in range(2):
        freeze(network.train(), recipe, epoch)
        outputs = network(torch.randn(4, 3, 16, 16))
        logits = outputs[0] if isinstance(outputs, tuple) else outputs
        optimizer.zero_grad()
        functional.cross_entropy(logits, torch.tensor([0, 1, 2, 0])).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return {name for name, tensor in network.state_dict().items() if not torch.equal(tensor, before[name])}


def stage(network: Network, tensor: str) -> int:
    """The stage of a tensor of the body."""
    return network.stage_of[tensor.removeprefix("body.").rpartition(".")[0]]


def is_of_norm(network: Network, tensor: str) -> bool:
    owner = network.get_submodule(tensor.rpartition(".")[0])
    return isinstance(owner, torch.nn.modules.batchnorm._BatchNorm)


def expected(network: Network, recipe: FreezeRecipe, epoch: int) -> set[str]:
    first = {
        "none": 0,
        "head_only": network.stages,
        "first_k_stages": recipe.stages,
        "gradual": network.stages - (epoch - 1),
        "bn_frozen": 0,
    }[recipe.policy]
    body = {name for name in network.state_dict() if name.startswith("body.")}
    if recipe.policy == "bn_frozen":
        body = {name for name in body if not is_of_norm(network, name)}
    return {name for name in body if stage(network, name) >= first} | {"head.1.weight", "head.1.bias"}


@pytest.mark.parametrize("recipe", POLICIES, ids=lambda recipe: recipe.policy)
@pytest.mark.parametrize(("name", "placement"), NETWORKS)
def test_only_what_is_not_frozen_moves(name: str, placement: str, recipe: FreezeRecipe) -> None:
    network = network_of(name, placement)
    assert moved(network, recipe, epoch=2) == expected(network, recipe, epoch=2)


def test_gradual_frees_a_stage_every_few_epochs() -> None:
    network = network_of("resnet8")
    free: list[int] = []
    for epoch in range(1, 12):
        freeze(network.train(), FreezeRecipe("gradual", every=2), epoch)
        trains = {
            stage(network, f"body.{name}") for name, p in network.body.named_parameters() if p.requires_grad
        }
        free.append(len(trains))
    assert free == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 4]


def test_bn_frozen_covers_layer_norm_too() -> None:
    torch.manual_seed(0)
    network = build_model(Recipe.from_flat({"model.name": "convnext_atto"}), (16, 16, 3), 2)
    freeze(network.train(), FreezeRecipe("bn_frozen"), 1)
    norms = [m for m in network.body.modules() if isinstance(m, torch.nn.LayerNorm)]
    assert norms
    assert not any(parameter.requires_grad for norm in norms for parameter in norm.parameters())


def test_auxiliary_heads_always_train() -> None:
    network = network_of("googlenet")
    freeze(network.train(), FreezeRecipe("head_only"), 1)
    assert not any(parameter.requires_grad for parameter in network.body.parameters())
    assert all(parameter.requires_grad for parameter in network.aux.parameters())
    assert all(module.training for module in network.aux.modules())


def test_freezing_again_changes_nothing_and_none_frees_all() -> None:
    def flags(network: Network) -> list[tuple[bool, bool]]:
        return [
            (module.training, all(p.requires_grad for p in module.parameters()))
            for module in network.modules()
        ]

    network = network_of("resnet8")
    freeze(network.train(), FreezeRecipe("first_k_stages", stages=2), 1)
    once = flags(network)
    freeze(network, FreezeRecipe("first_k_stages", stages=2), 1)
    assert flags(network) == once
    freeze(network.train(), FreezeRecipe("none"), 2)
    assert flags(network) == [(True, True)] * len(once)


def test_more_stages_than_there_are_is_a_mistake() -> None:
    with pytest.raises(RecipeError, match=r"freeze\.stages must be at most 4"):
        freeze(network_of("resnet8"), FreezeRecipe("first_k_stages", stages=5), 1)


def test_the_trainable_parameters_are_counted() -> None:
    network = network_of("resnet8")
    everything = trainable_parameters(network)
    assert everything == sum(parameter.numel() for parameter in network.parameters())
    freeze(network.train(), FreezeRecipe("head_only"), 1)
    assert trainable_parameters(network) == 64 * 3 + 3


def gradients(network: Network) -> list[Tensor | None]:
    return [parameter.grad for parameter in network.body.parameters()]


def test_frozen_parameters_cost_no_gradient() -> None:
    network = network_of("resnet8")
    freeze(network.train(), FreezeRecipe("head_only"), 1)
    network(torch.randn(2, 3, 16, 16)).sum().backward()
    assert all(gradient is None for gradient in gradients(network))
