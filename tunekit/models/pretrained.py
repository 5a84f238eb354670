"""Where first weights come from: a library, a file, or the best trial of an earlier search."""

from __future__ import annotations

import socket
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tunekit.errors import RecipeError, TunekitError
from tunekit.models.build import build_model, published_parts
from tunekit.models.catalog import FAMILIES, TIMM_PREFIX
from tunekit.models.first_weights import FirstWeights, first_convolution, read_descriptions, read_safetensors
from tunekit.models.seen_size import Shape
from tunekit.recipe import Recipe

_PATIENCE = 5.0  # seconds for a server to answer
# What libraries call their classifiers; a network's own head is always new.
_CLASSIFIERS = ("fc", "classifier", "head", "head_dist", "heads", "last_linear", "aux1", "aux2")
_LIBRARY_SHAPE = (224, 224, 3)
_INNER = ("state_dict", "model")  # keys under which training scripts keep the weights in a torch file


def fetch_weights(recipe: Recipe, source: Path | None, target: Path) -> None:
    """Write the first weights of `recipe` to `target`, once for all trials that begin with them.

    Two recipes begin with the same file if `init` and `model.name` agree, and, for vgg with
    `init = "pretrained"`, whether `model.bn_placement` is "none".

    Args:
        recipe: `init` is anything but "random".
        source: for `init = "search:NAME"` the weights of that search's best trial; else None.
        target: see `first_weights.FirstWeights`.
    Raises:
        RecipeError: if the recipe's model has no such weights, or the file is of another model.
        TunekitError: if weights cannot be had or read: which, why, and what else to do.
    """
    assert recipe.init != "random"
    assert (source is not None) == recipe.init.startswith("search:")
    if recipe.init == "pretrained":
        tensors, described = _published_weights(recipe), dict[str, Any]()
    else:
        tensors, described = read_weights(source or Path(recipe.init.removeprefix("file:")))
    _first_weights(recipe, tensors, described.get("recipe")).write(target)


def check_fits(recipe: Recipe, image_shape: Shape, weights: Path) -> None:
    """Refuse first weights that `build_model` could not use, without building anything in memory.

    Raises:
        RecipeError: names the first tensor that does not fit, with both shapes.
    """
    with torch.device("meta"):
        build_model(recipe, image_shape, 2, weights)


def read_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors of a file, and what tunekit wrote beside them (nothing in files of others).

    Torch files may hold the weights below "state_dict" or "model", and names that begin with "module.".

    Args:
        path: a safetensors file, or a torch file of tensors and plain values.
    Raises:
        TunekitError: if the file is absent, damaged, or holds no tensors.
    """
    if path.suffix == ".safetensors":
        tensors, metadata = read_safetensors(path)
        return tensors, _our_description(path, metadata) if "recipe" in metadata else {}
    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises a different class for each kind of damage
        raise TunekitError(f"{path}: no weights that can be read ({type(error).__name__})") from None
    for key in _INNER:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise TunekitError(f"{path}: must hold a state dict, names and tensors, but has something else")
    return {str(name).removeprefix("module."): tensor for name, tensor in content.items()}, {}


def _our_description(path: Path, metadata: Mapping[str, str]) -> dict[str, Any]:
    try:
        described = read_descriptions(metadata)
        if not {"model.name", "model.bn_placement"} <= set(described["recipe"]):
            raise ValueError("its recipe names no model")
    except (TypeError, ValueError, RecursionError) as error:
        raise TunekitError(f"{path}: what stands beside the weights cannot be read ({error})") from None
    return described


def _first_weights(
    recipe: Recipe, tensors: dict[str, Tensor], origin: Mapping[str, Any] | None
) -> FirstWeights:
    """What is known of weights: by the (flat) recipe of their network, else by their names and shapes."""
    model = recipe.model.name
    if origin and origin["model.name"] != model:
        name = origin["model.name"]
        raise RecipeError(f"init = {recipe.init!r} has weights of {name}, but model.name is {model!r}")
    with torch.device("meta"):
        body = published_parts(recipe, _LIBRARY_SHAPE, 2, small_stem=False).body
    if origin:
        placement, inside = origin["model.bn_placement"], _part(tensors, "body.")
    elif _is_vgg_without_norm(model, tensors):
        placement, inside = "none", _numbered_as_with_norm(_part(tensors, "features."), body)
    else:
        placement, inside = "before_act", _without_classifier(tensors, body.state_dict())
    return FirstWeights(inside, model, placement, _has_small_stem(inside, body), recipe.init)


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _without_classifier(tensors: Mapping[str, Tensor], body: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {
        name: tensor
        for name, tensor in tensors.items()
        if name in body or name.partition(".")[0] not in _CLASSIFIERS
    }


def _is_vgg_without_norm(model: str, tensors: Mapping[str, Tensor]) -> bool:
    """VGG is published with and without norm."""
    is_vgg = model in FAMILIES and FAMILIES[model].name == "vgg"
    return is_vgg and not any(name.endswith("running_mean") for name in tensors)


def _numbered_as_with_norm(features: Mapping[str, Tensor], body: nn.Module) -> dict[str, Tensor]:
    """Layers of a VGG without norm by their number -> the same by their name in one with norm."""
    old = sorted({int(number) for name in features if (number := name.partition(".")[0]).isdecimal()})
    new = [name for name, module in body.named_modules() if isinstance(module, nn.Conv2d)]
    names = {str(number): name for number, name in zip(old, new, strict=False)}
    renamed = {name: name.partition(".") for name in features}
    return {f"{names.get(n, n)}.{leaf}": features[name] for name, (n, _, leaf) in renamed.items()}


def _has_small_stem(tensors: Mapping[str, Tensor], published: nn.Module) -> bool:
    """Small stems are told by the kernel of the first convolution."""
    name = first_convolution(published)
    if name not in tensors:
        return False
    return tensors[name].shape[2:] != published.get_parameter(name).shape[2:]


def _published_weights(recipe: Recipe) -> dict[str, Tensor]:
    name = recipe.model.name
    library = "timm" if name.startswith(TIMM_PREFIX) else FAMILIES[name].library
    if not library:
        raise RecipeError(f"init = 'pretrained': no library has weights of {name}")
    try:
        if library == "timm":
            return _timm_weights(name.removeprefix(TIMM_PREFIX))
        return _torchvision_weights(name, norm=recipe.model.bn_placement != "none")
    except Exception as error:  # hub, servers and files fail with a class of their own each
        why = str(error).strip().partition("\n")[0]
        raise TunekitError(
            f"init = 'pretrained': no weights of {name} from {library} ({why}); download them elsewhere and "
            "use init = 'file:PATH', or start from a search of your own with init = 'search:NAME'"
        ) from None


def _timm_weights(name: str) -> dict[str, Tensor]:
    import timm

    with _one_attempt():
        weights: dict[str, Tensor] = timm.create_model(name, pretrained=True, num_classes=0).state_dict()
    return weights


def _torchvision_weights(name: str, norm: bool) -> dict[str, Tensor]:
    from torchvision.models import get_model_weights

    published = get_model_weights(f"{name}_bn" if name.startswith("vgg") and norm else name).DEFAULT
    with _limited_wait():
        weights: dict[str, Tensor] = published.get_state_dict(progress=False, check_hash=True)
    return _for_standardised_images(weights) if name == "googlenet" else weights


def _for_standardised_images(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """torchvision's GoogLeNet rescales its images first (`transform_input`): put that into the first layer.

    It sees a channel x as x * std / 0.5 + (mean - 0.5) / 0.5. The factor moves into the convolution,
    the sum over a kernel of the constants into the running mean behind it; exact but for the padding.
    """
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    kernel = weights["conv1.conv.weight"]
    shift = (kernel * ((mean - 0.5) / 0.5).view(1, 3, 1, 1)).sum((1, 2, 3))
    return {
        **weights,
        "conv1.conv.weight": kernel * (std / 0.5).view(1, 3, 1, 1),
        "conv1.bn.running_mean": weights["conv1.bn.running_mean"] - shift,
    }


@contextmanager
def _one_attempt() -> Iterator[None]:
    """Without network, the hub of timm's weights asks for a minute: let it look at its cache alone."""
    from huggingface_hub import constants

    was = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = was or not _answers(constants.ENDPOINT)
    try:
        with _limited_wait():
            yield
    except OSError as error:
        if constants.HF_HUB_OFFLINE:
            raise ConnectionError(f"{constants.ENDPOINT} cannot be reached") from error
        raise
    finally:
        constants.HF_HUB_OFFLINE = was


def _answers(address: str) -> bool:
    try:
        urllib.request.urlopen(address, timeout=_PATIENCE).close()
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True


@contextmanager
def _limited_wait() -> Iterator[None]:
    """Downloads by torch.hub would wait for a silent server for ever."""
    was = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_PATIENCE)
    try:
        yield
    finally:
        socket.setdefaulttimeout(was)
