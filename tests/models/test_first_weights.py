"""First weights: from a library's file, a torch file or an earlier search into a new network."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from tunekit.errors import RecipeError, TunekitError
from tunekit.models.build import build_model
from tunekit.models.first_weights import FirstWeights
from tunekit.models.network import Network
from tunekit.models.pretrained import check_fits, fetch_weights
from tunekit.recipe import Recipe, Value

SHAPE = (16, 16, 3)


def recipe(name: str, init: str = "random", placement: str = "before_act", **keys: Value) -> Recipe:
    dotted = {key.replace("__", "."): value for key, value in keys.items()}
    return Recipe.from_flat({"model.name": name, "init": init, "model.bn_placement": placement, **dotted})


def trained(built: Recipe, shape: tuple[int, int, int] = SHAPE) -> Network:
    """A network whose running statistics are not those of a new one."""
    torch.manual_seed(1)
    network = build_model(built, shape, 4).train()
    with torch.no_grad():
        for _ in range(2):
            network(torch.randn(4, shape[2], *shape[:2]))
    return network


def best_of_a_search(path: Path, built: Recipe, shape: tuple[int, int, int] = SHAPE) -> Network:
    """A best.safetensors as a search leaves it."""
    network = trained(built, shape)
    tensors = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
    save_file(tensors, path, {"recipe": json.dumps(built.to_flat()), "image_shape": json.dumps(shape)})
    return network


def started(built: Recipe, source: Path | None, folder: Path, shape: tuple[int, int, int] = SHAPE) -> Network:
    target = folder / "first.safetensors"
    fetch_weights(built, source, target)
    check_fits(built, shape, target)
    torch.manual_seed(2)
    return build_model(built, shape, 3, target)


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("name", ["resnet8", "lenet5", "vgg11", "scratch", "resnet18"])
def test_a_search_starts_from_another(name: str, tmp_path: Path) -> None:
    source = best_of_a_search(tmp_path / "best.safetensors", recipe(name))
    network = started(recipe(name, "search:old"), tmp_path / "best.safetensors", tmp_path)
    assert same(network.body.state_dict(), source.body.state_dict())
    assert network.head(source.eval().body(torch.randn(1, 3, 16, 16))).shape == (1, 3)


@pytest.mark.parametrize("placement", ["none", "after_act", "pre_act"])
def test_published_placement_goes_to_every_other(placement: str, tmp_path: Path) -> None:
    source = best_of_a_search(tmp_path / "best.safetensors", recipe("resnet8"))
    network = started(recipe("resnet8", "search:old", placement), tmp_path / "best.safetensors", tmp_path)
    if placement == "none":  # folded: the same function
        images = torch.randn(2, 3, 16, 16)
        torch.testing.assert_close(network.eval().body(images), source.eval().body(images))
    else:
        kept = network.body.state_dict()
        assert all(torch.equal(source.body.state_dict()[name], kept[name]) for name in kept)


@pytest.mark.parametrize("name", ["resnet8", "vgg11"])
@pytest.mark.parametrize("placement", ["none", "after_act"])
def test_other_placements_go_to_their_like_alone(name: str, placement: str, tmp_path: Path) -> None:
    best = tmp_path / "best.safetensors"
    source = best_of_a_search(best, recipe(name, placement=placement))
    network = started(recipe(name, "search:old", placement), best, tmp_path)
    assert same(network.body.state_dict(), source.body.state_dict())
    with pytest.raises(RecipeError, match=f"bn_placement must be '{placement}' as in search:old"):
        started(recipe(name, "search:old"), best, tmp_path)


def test_convolutions_get_the_bias_that_their_weights_lack(tmp_path: Path) -> None:
    best = tmp_path / "best.safetensors"
    source = best_of_a_search(best, recipe("resnet8"))
    network = started(recipe("resnet8", "search:old", model__conv_bias=True), best, tmp_path)
    images = torch.randn(2, 3, 16, 16)
    assert torch.equal(network.eval().body(images), source.eval().body(images))


def test_weights_with_a_small_stem_keep_it_on_large_images(tmp_path: Path) -> None:
    best = tmp_path / "best.safetensors"
    best_of_a_search(best, recipe("resnet18"), (32, 32, 3))
    network = started(recipe("resnet18", "search:old"), best, tmp_path, (96, 96, 3))
    assert network.body.get_parameter("conv1.weight").shape[-1] == 3


@pytest.mark.parametrize("wrapping", ["plain", "state_dict", "model"])
def test_a_torch_file_of_a_library_is_taken(wrapping: str, tmp_path: Path) -> None:
    import timm

    library = timm.create_model("resnet18", num_classes=6)
    weights = {f"module.{name}": tensor for name, tensor in library.state_dict().items()}
    torch.save(weights if wrapping == "plain" else {wrapping: weights, "epoch": 3}, tmp_path / "w.pth")
    network = started(recipe("resnet18", f"file:{tmp_path / 'w.pth'}"), None, tmp_path)
    body = network.body.state_dict()
    assert all(torch.equal(library.state_dict()[name], body[name]) for name in body)
    assert body["conv1.weight"].shape[-1] == 7, "published weights come with the published stem"


@pytest.mark.parametrize("norm", [True, False])
def test_both_published_forms_of_vgg_are_taken(norm: bool, tmp_path: Path) -> None:
    from torchvision.models import vgg

    torch.manual_seed(0)
    library = vgg.make_layers(vgg.cfgs["A"], batch_norm=norm).eval()
    weights = {f"features.{name}": tensor for name, tensor in library.state_dict().items()}
    save_file({**weights, "classifier.0.weight": torch.zeros(2, 2)}, tmp_path / "vgg.safetensors")
    placed = recipe("vgg11", f"file:{tmp_path / 'vgg.safetensors'}", "before_act" if norm else "none")
    network = started(placed, None, tmp_path, (32, 32, 3)).eval()
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(network.body(images), library(images).flatten(1))


def test_a_vgg_whose_norm_was_folded_starts_another(tmp_path: Path) -> None:
    best = tmp_path / "best.safetensors"
    source = best_of_a_search(best, recipe("vgg11"))
    folded = started(recipe("vgg11", "search:old", "none"), best, tmp_path)
    images = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(folded.eval().body(images), source.eval().body(images))
    again = recipe("vgg11", "search:folded", "none")
    save_file(folded.state_dict(), best, {"recipe": json.dumps(again.to_flat())})
    assert same(started(again, best, tmp_path).body.state_dict(), folded.body.state_dict())


@pytest.mark.parametrize(("had", "has"), [(3, 1), (1, 3)])
@pytest.mark.parametrize("name", ["resnet8", "timm:mobilenetv3_small_050"])
def test_grey_images_look_the_same_in_one_channel_and_in_three(
    name: str, had: int, has: int, tmp_path: Path
) -> None:
    best = tmp_path / "best.safetensors"
    source = best_of_a_search(best, recipe(name), (16, 16, had))
    network = started(recipe(name, "search:old"), best, tmp_path, (16, 16, has))
    grey = torch.randn(2, 1, 16, 16)
    before = source.eval().body(grey.expand(-1, had, -1, -1))
    torch.testing.assert_close(network.eval().body(grey.expand(-1, has, -1, -1)), before)


def test_googlenet_starts_with_new_auxiliary_heads(tmp_path: Path) -> None:
    best = tmp_path / "best.safetensors"
    source = best_of_a_search(best, recipe("googlenet"))
    network = started(recipe("googlenet", "search:old"), best, tmp_path)
    assert same(network.body.state_dict(), source.body.state_dict())
    assert len(network.train()(torch.randn(2, 3, 16, 16))) == 3


def test_the_file_says_where_its_weights_come_from(tmp_path: Path) -> None:
    best_of_a_search(tmp_path / "best.safetensors", recipe("resnet8", placement="none"))
    fetch_weights(recipe("resnet8", "search:old", "none"), tmp_path / "best.safetensors", tmp_path / "first")
    first = FirstWeights.read(tmp_path / "first")
    assert (first.model, first.placement, first.small_stem, first.source) == (
        "resnet8",
        "none",
        False,
        "search:old",
    )


def test_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    best_of_a_search(tmp_path / "best.safetensors", recipe("resnet8"))
    with pytest.raises(RecipeError, match=r"has weights of resnet8, but model\.name is 'resnet20'"):
        fetch_weights(recipe("resnet20", "search:old"), tmp_path / "best.safetensors", tmp_path / "first")


def test_the_first_tensor_that_does_not_fit_is_named(tmp_path: Path) -> None:
    best = tmp_path / "best.safetensors"
    best_of_a_search(best, recipe("scratch", model__width=8))
    wrong = recipe("scratch", "search:old", model__width=16)
    with pytest.raises(RecipeError, match=r"stage1\.conv\.weight must be 16x3x3x3 .* is 8x3x3x3"):
        started(wrong, best, tmp_path)


def test_deeper_weights_are_refused(tmp_path: Path) -> None:
    best = tmp_path / "best.safetensors"
    best_of_a_search(best, recipe("resnet20"))
    weights = trained(recipe("resnet20")).body.state_dict()
    torch.save(weights, tmp_path / "deep.pt")
    with pytest.raises(RecipeError, match=r"stages\.1\.conv1\.weight must be 32x16x3x3 .* is 16x16x3x3"):
        started(recipe("resnet8", f"file:{tmp_path / 'deep.pt'}"), None, tmp_path)


@pytest.mark.parametrize("name", ["none.pt", "none.safetensors", "bad.pt", "bad.safetensors", "words.pt"])
def test_files_without_weights_are_refused_in_one_line(name: str, tmp_path: Path) -> None:
    (tmp_path / "bad.pt").write_bytes(b"no weights")
    (tmp_path / "bad.safetensors").write_bytes(b"no weights")
    torch.save({"epoch": 3}, tmp_path / "words.pt")
    with pytest.raises(TunekitError, match=name) as caught:
        fetch_weights(recipe("resnet8", f"file:{tmp_path / name}"), None, tmp_path / "first")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "first").exists()


def test_own_networks_have_no_published_weights(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="no library has weights of lenet5"):
        fetch_weights(recipe("lenet5", "pretrained"), None, tmp_path / "first")


def test_a_model_without_published_weights_is_named_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(TunekitError, match="no weights of timm:darknet21 from timm") as caught:
        fetch_weights(recipe("timm:darknet21", "pretrained"), None, tmp_path / "first")
    assert "init = 'file:PATH'" in str(caught.value)


def test_published_googlenet_keeps_its_function_on_standardised_images() -> None:
    """torchvision's own network rescales its images first; the converted weights need no rescaling."""
    from torchvision.models import GoogLeNet

    from tunekit.models.pretrained import _for_standardised_images

    torch.manual_seed(0)
    library = GoogLeNet(aux_logits=False, transform_input=True, init_weights=False).eval()
    converted = GoogLeNet(aux_logits=False, transform_input=False, init_weights=False).eval()
    converted.load_state_dict(_for_standardised_images(library.state_dict()))
    images = torch.randn(2, 3, 64, 64)
    inner = (slice(None), slice(None), slice(2, -2), slice(2, -2))  # padding has no constant to move
    seen = library.conv1(library._transform_input(images))[inner]
    torch.testing.assert_close(converted.conv1(images)[inner], seen)
