"""Where norms stand, seen in the operations that run, and what the moves do to weights and numbers."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import timm
import torch
from timm.models.resnet import BasicBlock, Bottleneck, ResNet
from torch import Tensor, nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tunekit.errors import RecipeError
from tunekit.models.build import build_model
from tunekit.models.norm_placement import place_norm
from tunekit.recipe import MODELS, Recipe

CONV_NORM_ACT = [
    "lenet5",
    "scratch",
    "vgg11",
    "resnet8",
    "resnet18",
    "resnet50",
    "googlenet",
    "minigooglenet",
    "mobilenetv3_small_050",
    "regnetx_002",
]
SIDE = 16  # pixels
RESIDUAL = ["resnet8", "resnet18", "resnet50", "regnetx_002"]
MOVED = ["after_act", "none", "pre_act"]

KINDS = {
    "convolution": "conv",
    "addmm": "linear",
    "native_batch_norm": "norm",
    "native_layer_norm": "norm",
    "relu": "act",
    "relu_": "act",
    "gelu": "act",
    "hardswish": "act",
    "hardswish_": "act",
    "add": "add",
    "add_": "add",
    "mean": "pool",
    "max_pool2d_with_indices": "pool",
    "_adaptive_avg_pool2d": "pool",
    "mul": "gate",
    "cat": "cat",
}


@dataclass(eq=False)
class Step:
    """An operation that ran; `takes` are the operations whose results it took."""

    kind: str
    takes: list[Step]

    def origin(self, operand: int = 0) -> str:
        """What gave an operand, seen through views, slices and pads; "image" if nothing did."""
        if operand >= len(self.takes):
            return "image"
        before = self.takes[operand]
        return before.origin() if before.kind == "other" else before.kind


class Executed(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Writes down the ATen operations that run, and which took whose results."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.steps: list[Step] = []
        self._giver: dict[int, Step] = {}
        self._kept: list[Tensor] = []  # so that no other tensor gets the same id

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        takes = [self._giver[id(t)] for t in tree_leaves(args) if id(t) in self._giver]
        given = func(*args, **(kwargs or {}))
        step = Step(KINDS.get(func.overloadpacket.__name__, "other"), takes)
        self.steps.append(step)
        for tensor in tree_leaves(given):
            self._giver[id(tensor)] = step
            self._kept.append(tensor)
        return given

    def of(self, kind: str) -> list[Step]:
        return [step for step in self.steps if step.kind == kind]

    def sums(self) -> list[Step]:
        return [step for step in self.of("add") if len(step.takes) == 2]

    def origins(self, kind: str) -> list[str]:
        return [step.origin() for step in self.of(kind)]


def published(name: str, aux_weight: float = 0.0) -> nn.Module:
    torch.manual_seed(0)
    if name in MODELS:
        recipe = Recipe.from_flat({"model.name": name, "loss.aux_weight": aux_weight})
        return build_model(recipe, (SIDE, SIDE, 3), 10).body
    return timm_network(name)


def timm_network(name: str, **options: float) -> nn.Module:
    body = timm.create_model(name, num_classes=0, **options)
    assert isinstance(body, nn.Module)
    return body


def images() -> Tensor:
    return torch.randn(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))


def weightless(name: str) -> nn.Module:
    """The network on the meta device: its operations run, but compute nothing."""
    with torch.device("meta"):
        return published(name)


def executed(body: nn.Module) -> Executed:
    record = Executed()
    with torch.no_grad(), record:
        body.train()(images().to("meta"))
    return record


def placed(name: str, placement: str) -> Executed:
    return executed(place_norm(weightless(name), placement, fresh=True))


def used(body: nn.Module) -> nn.Module:
    """`body` with norms as after some training: other scales, offsets and statistics in each channel."""
    torch.manual_seed(2)
    for module in body.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.1)
            assert module.running_mean is not None and module.running_var is not None
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return body


def close(a: Tensor, b: Tensor, tolerance: float = 1e-4) -> bool:
    return bool((a - b).abs().max() <= tolerance * b.abs().max())


# The order of execution


@pytest.mark.parametrize("name", CONV_NORM_ACT)
def test_before_act_is_the_published_module_itself(name: str) -> None:
    body = weightless(name)
    assert place_norm(body, "before_act", fresh=True) is body
    assert set(executed(body).origins("norm")) == {"conv"}


@pytest.mark.parametrize("name", CONV_NORM_ACT)
def test_after_act_puts_every_norm_behind_the_activation_that_followed_it(name: str) -> None:
    before, after = executed(weightless(name)), placed(name, "after_act")
    sums_with_activation = before.origins("act").count("add")
    moved = before.origins("act").count("norm") + sums_with_activation
    assert "norm" not in after.origins("act")
    assert after.origins("norm").count("act") == moved
    # What stays: the norms of projections, and of branches whose sum has no activation behind it.
    assert set(after.origins("norm")) <= {"act", "conv"}
    for kind in ("conv", "norm", "act", "add"):
        assert len(after.of(kind)) == len(before.of(kind))


@pytest.mark.parametrize("name", CONV_NORM_ACT)
def test_none_leaves_convolution_and_activation(name: str) -> None:
    before, after = executed(weightless(name)), placed(name, "none")
    assert not after.of("norm")
    assert len(after.of("act")) == len(before.of("act"))
    assert after.origins("act") == [
        "conv" if origin == "norm" else origin for origin in before.origins("act")
    ]


@pytest.mark.parametrize("name", RESIDUAL)
def test_pre_act_norms_and_activates_what_convolutions_take_and_adds_raw_sums(name: str) -> None:
    record = placed(name, "pre_act")
    assert set(record.origins("act")) == {"norm"}
    assert set(record.origins("norm")) == {"conv", "add"}
    assert set(record.origins("conv")) == {"image", "act"}
    assert record.steps[-1].origin() in ("act", "pool")
    assert record.of("pool")[-1].origin() == "act"
    operands = [{step.origin(0), step.origin(1)} for step in record.sums()]
    # The first block splits behind the stem's activation (He et al. 2016b, appendix).
    assert operands[0] <= {"conv", "act"}
    assert all(kinds <= {"conv", "add"} for kinds in operands[1:])


def test_pre_activation_networks_of_the_library_can_be_moved_too() -> None:
    before, after = executed(weightless("resnetv2_18")), placed("resnetv2_18", "after_act")
    assert set(before.origins("act")) == {"norm"}
    assert set(after.origins("norm")) == {"act"}
    assert set(after.origins("act")) == {"conv", "add", "pool"}
    assert not placed("resnetv2_18", "none").of("norm")


def test_convnext_normalises_its_hidden_layer_after_the_activation() -> None:
    after = place_norm(weightless("convnext_atto"), "after_act", fresh=True)
    record = executed(after)
    activations = len(record.of("act"))
    assert record.origins("norm").count("act") == activations > 0
    assert set(record.origins("act")) == {"conv"}  # the 1x1 convolution that is convnext_atto's fc1
    widths = after.state_dict()["stages.0.blocks.0.mlp.fc1.bias"].shape
    assert after.state_dict()["stages.0.blocks.0.norm.weight"].shape == widths
    assert not placed("convnext_atto", "none").of("norm")


@pytest.mark.parametrize("placement", ["after_act", "none"])
def test_auxiliary_heads_and_maps_of_googlenet(placement: str) -> None:
    recipe = Recipe.from_flat({"model.name": "googlenet", "loss.aux_weight": 0.3})
    with torch.device("meta"):
        network = build_model(recipe, (SIDE, SIDE, 3), 10)
    features, *maps = place_norm(network.body, placement, fresh=True)(images().to("meta"))
    assert features.shape == (2, 1024)
    assert [m.shape[1] for m in maps] == [512, 528]
    head = place_norm(network.aux[0], placement, fresh=True)
    record = Executed()
    with torch.no_grad(), record:
        assert head(maps[0].detach()).shape == (2, 10)
    assert record.origins("norm") == ["act"] * (placement == "after_act")


# Numbers


@pytest.mark.parametrize(
    "name", ["vgg11", "resnet8", "resnet50", "googlenet", "mobilenetv3_small_050", "regnetx_002"]
)
def test_without_norm_trained_networks_compute_the_same(name: str) -> None:
    body = used(published(name)).eval()
    with torch.no_grad():
        expected = body(images())
        folded = place_norm(body, "none", fresh=False).eval()
        assert close(folded(images()), expected)
    assert all(parameter.requires_grad for parameter in folded.parameters())


class PreActBlock(nn.Module):
    """A block of He et al. 2016b as a person would write it; BasicBlock or Bottleneck by its convolutions."""

    def __init__(self, block: nn.Module, norms: list[nn.Module]) -> None:
        super().__init__()
        names = [name for name in ("conv1", "conv2", "conv3") if hasattr(block, name)]
        self.convolutions = nn.ModuleList(block.get_submodule(name) for name in names)
        self.norms = nn.ModuleList(norms)
        self.projection: nn.Module | None = None
        if block.downsample is not None:
            self.projection = block.get_submodule("downsample.0")

    def forward(self, x: Tensor, first: bool) -> Tensor:
        y = functional.relu(self.norms[0](x))
        shortcut = self.projection(y) if self.projection is not None else (y if first else x)
        y = self.convolutions[0](y)
        for norm, convolution in zip(list(self.norms)[1:], list(self.convolutions)[1:], strict=True):
            y = convolution(functional.relu(norm(y)))
        total: Tensor = y + shortcut
        return total


class PreActResNet(nn.Module):
    """A pre-activation network of the modules of timm's; a block's last norm is the next one's first."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.conv, norm = net.get_submodule("conv1"), net.get_submodule("bn1")
        blocks = []
        for stage in range(1, 5):
            for block in net.get_submodule(f"layer{stage}").children():
                *inner, last = [module for name, module in block.named_children() if name.startswith("bn")]
                blocks.append(PreActBlock(block, [norm, *inner]))
                norm = last
        self.blocks = nn.ModuleList(blocks)
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        for index, block in enumerate(self.blocks):
            x = block(x, first=index == 0)
        features: Tensor = functional.relu(self.norm(x)).mean((2, 3))
        return features


def small_resnet(block: type[nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    net: nn.Module = ResNet(block, (2, 1, 1, 1), num_classes=0, channels=(8, 16, 24, 32), stem_width=8)
    net.maxpool = nn.Identity()
    return net


def gradients(net: nn.Module) -> dict[str, Tensor]:
    net.zero_grad()
    net.train()(images()).square().sum().backward()
    return {name: p.grad.clone() for name, p in net.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("block", [BasicBlock, Bottleneck])
def test_pre_act_computes_what_a_hand_written_network_does(block: type[nn.Module]) -> None:
    net = used(small_resnet(block))
    by_hand = PreActResNet(copy.deepcopy(net))
    rewritten = place_norm(net, "pre_act", fresh=False)
    for training in (True, False):
        assert close(rewritten.train(training)(images()), by_hand.train(training)(images()), 1e-5)
    assert close(gradients(rewritten)["conv1.weight"], gradients(by_hand)["conv.weight"])


def test_pre_act_has_the_parameters_of_the_published_network() -> None:
    with torch.device("meta"):
        recipe = Recipe.from_flat({"model.name": "resnet18", "model.bn_placement": "pre_act"})
        network = build_model(recipe, (32, 32, 3), 10)
    # kuangliu/pytorch-cifar has 11,171,146 without the paper's norm behind the last sum.
    assert sum(parameter.numel() for parameter in network.parameters()) == 11_171_146 + 2 * 512


@pytest.mark.parametrize("placement", MOVED)
@pytest.mark.parametrize("name", ["resnet8", "regnetx_002", "resnetv2_18"])
def test_working_in_place_changes_nothing(name: str, placement: str) -> None:
    if (name, placement) == ("resnetv2_18", "pre_act"):
        return
    body = place_norm(used(published(name)), placement, fresh=False)
    out_of_place = copy.deepcopy(body)
    for module in out_of_place.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False
    expected = gradients(out_of_place)
    assert all(close(gradient, expected[name], 1e-3) for name, gradient in gradients(body).items())
    assert body(images()).equal(out_of_place(images()))


@pytest.mark.parametrize("placement", ["before_act", *MOVED])
def test_signals_keep_their_size_through_depth(placement: str) -> None:
    body = place_norm(published("resnet56"), placement, fresh=True)
    logits = nn.Linear(64, 10)(body.train()(images()))
    assert 0.01 < logits.std() < 10


# Weights


@pytest.mark.parametrize("name", ["resnet8", "resnet18", "googlenet", "mobilenetv3_small_050"])
def test_moving_keeps_names_and_trained_weights(name: str) -> None:
    body = used(published(name))
    before = {key: tensor.clone() for key, tensor in body.state_dict().items()}
    after = place_norm(body, "after_act", fresh=False).state_dict()
    assert after.keys() == before.keys()
    assert all(after[key].equal(before[key]) for key in before)


def test_pre_act_loses_only_the_norms_of_projections() -> None:
    before = published("resnet18").state_dict()
    after = place_norm(published("resnet18"), "pre_act", fresh=False).state_dict()
    assert {key.rpartition(".")[0] for key in before.keys() - after.keys()} == {
        f"layer{stage}.0.downsample.1" for stage in (2, 3, 4)
    }
    assert all(after[key].equal(before[key]) for key in after)


def test_convnext_keeps_trained_weights_that_fit() -> None:
    before = published("convnext_atto").state_dict()
    after = place_norm(published("convnext_atto"), "after_act", fresh=False).state_dict()
    assert after.keys() == before.keys()
    changed = {key for key in before if not after[key].equal(before[key])}
    assert changed == {key for key in before if ".blocks." in key and ".norm." in key}


@pytest.mark.parametrize("placement", ["after_act", "pre_act"])
def test_scales_that_start_at_zero_become_one_only_in_new_networks(placement: str) -> None:
    for fresh in (True, False):
        scales = place_norm(published("resnet18"), placement, fresh).state_dict()["layer1.0.bn2.weight"]
        assert scales.eq(1 if fresh else 0).all()


def test_a_new_network_without_norm_begins_as_the_identity() -> None:
    before = published("resnet18").state_dict()
    after = place_norm(published("resnet18"), "none", fresh=True)
    for name, module in after.named_modules():
        if isinstance(module, nn.Conv2d):
            kept = torch.zeros(1) if name.endswith("conv2") else before[f"{name}.weight"]
            assert module.weight.equal(kept.expand_as(module.weight))
            assert module.bias is not None and not module.bias.any()


# The network as a module


@pytest.mark.parametrize("placement", MOVED)
def test_copies_are_their_own(placement: str) -> None:
    body = place_norm(published("resnet8"), placement, fresh=True)
    twin = copy.deepcopy(body)
    expected = body.eval()(images())
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.zero_()
    assert body(images()).equal(expected)


@pytest.mark.parametrize("placement", MOVED)
def test_the_network_is_exported(placement: str) -> None:
    body = place_norm(used(published("resnet8")), placement, fresh=False).eval()
    exported = torch.export.export(body, (images(),)).module()
    assert close(exported(images()), body(images()), 1e-5)


@pytest.mark.parametrize("placement", MOVED)
def test_the_network_runs_in_bf16_and_channels_last(placement: str) -> None:
    body = place_norm(published("resnet8"), placement, fresh=True).to(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        features = body(images().to(memory_format=torch.channels_last))
    features.float().sum().backward()
    assert all(parameter.grad is not None for parameter in body.parameters())


@pytest.mark.parametrize("placement", MOVED)
def test_statistics_move_in_training_alone(placement: str) -> None:
    body = place_norm(published("resnet8"), placement, fresh=True)

    def moves(training: bool) -> bool:
        before = copy.deepcopy(body.state_dict())
        body.train(training)(images())
        return any(not before[key].equal(tensor) for key, tensor in body.state_dict().items())

    assert moves(training=True) == (placement != "none")
    assert not moves(training=False)


def test_stochastic_depth_stays_stochastic_in_training_alone() -> None:
    body = place_norm(used(timm_network("resnet18", drop_path_rate=0.5)), "pre_act", fresh=False)
    for training in (True, False):
        first, second = (body.train(training)(images()) for _ in range(2))
        assert first.equal(second) != training


# Refusals


class Untraceable(nn.Sequential):
    def forward(self, x: Tensor) -> Tensor:
        return self[0](x) if x.sum() > 0 else x


class DropsByItself(nn.Sequential):
    def forward(self, x: Tensor) -> Tensor:
        return functional.dropout(self[0](x), training=self.training)


@pytest.mark.parametrize(
    ("make", "placement", "words"),
    [
        (lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), "after_act", "needs norms"),
        (lambda: published("lenet5"), "pre_act", "needs residual blocks"),
        (lambda: Untraceable(nn.BatchNorm2d(3)), "none", "can trace"),
        (lambda: DropsByItself(nn.BatchNorm2d(3)), "none", "training and eval mode"),
    ],
)
def test_what_cannot_be_moved_is_refused(make: Callable[[], nn.Module], placement: str, words: str) -> None:
    with pytest.raises(RecipeError, match=words) as error:
        place_norm(make(), placement, fresh=True)
    assert "model.bn_placement" in str(error.value)
    assert "\n" not in str(error.value)
