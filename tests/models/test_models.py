"""Every family: it trains wherever it is legal, and has its published size."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from tunekit.models.build import build_model
from tunekit.models.catalog import FAMILIES
from tunekit.models.network import Network
from tunekit.recipe import Recipe, Value

CIFAR = (32, 32, 3)
IMAGENET = (224, 224, 3)

# A small member of each family, and timm's networks as they are.
MEMBERS = {
    name: FAMILIES[name].placements
    for name in (
        "lenet5",
        "vgg11",
        "resnet8",
        "resnet18",
        "googlenet",
        "minigooglenet",
        "convnext_atto",
        "scratch",
    )
} | {"timm:mobilenetv3_small_050": ("before_act", "after_act", "none")}
PLACED = [(name, placement) for name, placements in MEMBERS.items() for placement in placements]


def recipe(name: str, placement: str = "before_act", **keys: Value) -> Recipe:
    """Keys with a double underscore for the dot."""
    dotted = {key.replace("__", "."): value for key, value in keys.items()}
    return Recipe.from_flat({"model.name": name, "model.bn_placement": placement, **dotted})


def parameters(built: Recipe, shape: tuple[int, int, int] = CIFAR, classes: int = 10) -> int:
    with torch.device("meta"):
        network = build_model(built, shape, classes)
    return sum(parameter.numel() for parameter in network.parameters())


def loss_of(logits: Tensor | tuple[Tensor, ...], labels: Tensor) -> Tensor:
    outputs = logits if isinstance(logits, tuple) else (logits,)
    return torch.stack([functional.cross_entropy(output, labels) for output in outputs]).sum()


@pytest.mark.parametrize("side", [28, 32, 64])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("name", "placement"), PLACED)
def test_every_family_takes_a_training_step(name: str, placement: str, channels: int, side: int) -> None:
    torch.manual_seed(0)
    network = build_model(recipe(name, placement), (side, side, channels), 7).train()
    before = {key: value.detach().clone() for key, value in network.named_parameters()}
    logits = network(torch.randn(2, channels, side, side))
    outputs = logits if isinstance(logits, tuple) else (logits,)
    assert all(output.shape == (2, 7) and output.isfinite().all() for output in outputs)
    loss_of(logits, torch.tensor([0, 1])).backward()  # type: ignore[no-untyped-call]
    assert [key for key, value in network.named_parameters() if value.grad is None] == []
    torch.optim.SGD(network.parameters(), lr=0.1).step()
    changed = {key for key, value in network.named_parameters() if not torch.equal(value, before[key])}
    for part in ("body.", "head.", *(f"aux.{index}." for index in range(len(network.aux)))):
        assert any(key.startswith(part) for key in changed), part
    first = next(iter(before))
    assert first in changed, "the layer next to the images must learn"


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
        # kuangliu/pytorch-cifar VGG16; the others by torchvision's vggK_bn without its classifier
        ("vgg11", 9_225_984 + 5_130),
        ("vgg13", 9_410_880 + 5_130),
        ("vgg16", 14_728_266),
        ("vgg19", 20_035_392 + 5_130),
    ],
)
def test_networks_have_their_published_size(name: str, count: int) -> None:
    assert parameters(recipe(name)) == count


@pytest.mark.parametrize(
    ("name", "count"),
    [  # torchvision and timm, 1000 classes
        ("resnet18", 11_689_512),
        ("googlenet", 13_004_888),
        ("convnext_tiny", 28_589_128),
        ("convnext_small", 50_223_688),
    ],
)
def test_large_images_get_the_published_network(name: str, count: int) -> None:
    assert parameters(recipe(name), IMAGENET, 1000) == count


def test_googlenet_without_auxiliary_heads_has_its_published_size() -> None:
    assert parameters(recipe("googlenet", loss__aux_weight=0.0), IMAGENET, 1000) == 6_624_904


@pytest.mark.parametrize("side", [28, 32])
def test_lenet5_without_norm_has_its_well_known_size(side: int) -> None:
    assert parameters(recipe("lenet5", "none"), (side, side, 1)) == 61_706


def test_vgg16_of_report_d_has_its_reported_size() -> None:
    assert parameters(recipe("vgg16", "none", model__head="fc4096"), (28, 28, 1)) == 33_637_066


def test_minigooglenet_has_the_size_of_its_paper() -> None:
    """Zhang et al. 2017, table 1: 1,649,402 parameters of "Inception (w/o BatchNorm)"."""
    assert parameters(recipe("minigooglenet", "none"), (28, 28, 3)) == 1_649_402


def test_pre_activation_resnet18_has_the_size_of_its_reference() -> None:
    """kuangliu/pytorch-cifar PreActResNet18, and the norm of 512 behind the last block of the paper."""
    assert parameters(recipe("resnet18", "pre_act")) == 11_171_146 + 2 * 512


def test_auxiliary_heads_speak_only_while_training() -> None:
    network = build_model(recipe("googlenet"), (28, 28, 1), 5)
    images = torch.randn(2, 1, 28, 28)
    assert [logits.shape for logits in network.train()(images)] == [(2, 5)] * 3
    assert network.eval()(images).shape == (2, 5)


def test_the_small_stem_keeps_the_resolution() -> None:
    sides: dict[int, int] = {}
    for side in (64, 65):
        network = build_model(recipe("resnet18"), (side, side, 3), 2).eval()
        network.body.get_submodule("layer1").register_forward_pre_hook(
            lambda _module, inputs, side=side: sides.update({side: inputs[0].shape[-1]})
        )
        network(torch.randn(1, 3, side, side))
    assert sides == {64: 64, 65: 17}


def test_input_size_is_what_the_body_sees() -> None:
    network = build_model(recipe("lenet5", input__size=32), (20, 30, 1), 3)
    seen: list[torch.Size] = []
    network.body.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0].shape))
    assert network(torch.randn(2, 1, 20, 30)).shape == (2, 3)
    assert seen == [(2, 1, 32, 48)]


def test_input_size_decides_on_the_stem() -> None:
    assert parameters(recipe("resnet18", input__size=224)) == 11_689_512 - 990 * 513


@pytest.mark.parametrize(("side", "last_pool", "pools"), [(28, 2, 4), (32, 2, 5), (32, 1, 4), (8, 2, 3)])
def test_vgg_leaves_out_poolings_that_do_not_fit(side: int, last_pool: int, pools: int) -> None:
    network = build_model(recipe("vgg11", model__last_pool=last_pool), (side, side, 1), 2)
    poolings = [m for m in network.body.modules() if isinstance(m, torch.nn.MaxPool2d)]
    assert len(poolings) == pools
    assert network(torch.randn(2, 1, side, side)).shape == (2, 2)


def test_scratch_has_the_depth_and_width_of_its_recipe() -> None:
    network = build_model(recipe("scratch", model__depth=4, model__width=8), (12, 20, 1), 2)
    convolutions = [m for m in network.body.modules() if isinstance(m, torch.nn.Conv2d)]
    assert [convolution.out_channels for convolution in convolutions] == [8, 16, 32, 64]
    assert network(torch.randn(2, 1, 12, 20)).shape == (2, 2)


@pytest.mark.parametrize("name", ["resnet8", "resnet18", "googlenet", "minigooglenet"])
def test_conv_bias_gives_every_convolution_one(name: str) -> None:
    def biased(network: Network) -> set[bool]:
        convolutions = [m for m in network.modules() if isinstance(m, torch.nn.Conv2d)]
        return {convolution.bias is not None for convolution in convolutions}

    assert biased(build_model(recipe(name), CIFAR, 2)) == {False}
    assert biased(build_model(recipe(name, model__conv_bias=True), CIFAR, 2)) == {True}


def test_dropout_acts_in_both_heads() -> None:
    for head, layers in (("gap", 1), ("fc4096", 2)):
        built = build_model(recipe("resnet8", model__head=head, model__dropout=0.5), CIFAR, 2)
        dropouts = [m for m in built.head.modules() if isinstance(m, torch.nn.Dropout)]
        assert [dropout.p for dropout in dropouts] == [0.5] * layers


@pytest.mark.parametrize(("name", "placement"), PLACED)
def test_every_tensor_of_a_body_has_a_stage(name: str, placement: str) -> None:
    with torch.device("meta"):
        network = build_model(recipe(name, placement), CIFAR, 2)
    owners = {key.rpartition(".")[0] for key in network.body.state_dict()}
    assert owners <= set(network.stage_of)
    assert set(network.stage_of.values()) == set(range(network.stages))


def test_stages_rise_from_the_images_to_the_head() -> None:
    for name in MEMBERS:
        with torch.device("meta"):
            network = build_model(recipe(name), CIFAR, 2)
        stages = [network.stage_of[key.rpartition(".")[0]] for key, _ in network.body.named_parameters()]
        assert stages == sorted(stages), name


def test_weights_follow_from_the_seed() -> None:
    def weights(seed: int) -> Tensor:
        torch.manual_seed(seed)
        return next(iter(build_model(recipe("resnet8"), CIFAR, 2).parameters()))

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


@pytest.mark.parametrize("name", ["googlenet", "minigooglenet", "vgg19", "scratch"])
def test_signals_keep_their_size_without_norm(name: str) -> None:
    torch.manual_seed(0)
    network = build_model(recipe(name, "none"), CIFAR, 10).eval()
    with torch.no_grad():
        spread = float(network(torch.randn(16, 3, 32, 32)).std())
    assert 0.01 < spread < 10
