"""Any image model of timm, as it is: `model.name = "timm:NAME"`."""

from __future__ import annotations

import functools
import warnings

import torch

from tunekit.errors import RecipeError, nearest
from tunekit.models.network import Parts
from tunekit.models.norm_placement import place_norm
from tunekit.models.timm_stages import timm_stages


def timm_any(name: str, height: int, width: int, channels: int) -> Parts:
    """The body of timm's `name` (a tag is allowed), with random weights.

    Args:
        name: as in timm.list_models().
        height, width: of the images in pixels; models whose weights depend on it (ViT) are built for it.
        channels: of the images.
    """
    return _parts(name, channels, _built_for(name, height, width))


def _built_for(name: str, height: int, width: int) -> tuple[int, int] | None:
    """The size that the model has to be built for; None if one model takes every size."""
    import timm  # costs seconds (it imports torchvision): only for the recipes that need it

    return (height, width) if timm.models.get_pretrained_cfg(name).fixed_input_size else None


def _parts(name: str, channels: int, size: tuple[int, int] | None) -> Parts:
    import timm

    fixed = {"img_size": size} if size else {}
    body = timm.create_model(name, in_chans=channels, num_classes=0, **fixed)
    return Parts(body, getattr(body, "head_hidden_size", None) or body.num_features, timm_stages(body))


@functools.lru_cache(maxsize=1)
def _parts_without_memory(name: str, channels: int, size: tuple[int, int] | None) -> Parts:
    with torch.device("meta"):
        return _parts(name, channels, size)


@functools.cache  # a search asks for every recipe
def check_timm_model(name: str, shape: tuple[int, int, int], placement: str) -> int:
    """Refuse a model of timm that cannot see images of `shape` (H, W, C) or have its norm at `placement`.

    The model is built and run on torch's meta device, which takes no memory and little time.

    Returns:
        The stages of the body.
    Raises:
        RecipeError: names the nearest valid name, a side that works, or the placement.
    """
    _check_name(name)
    if not _runs(name, *shape):
        raise RecipeError(_unfit(name, shape))
    with torch.device("meta"):
        parts = timm_any(name, *shape)
        place_norm(parts.body, placement, fresh=True)
    return 1 + max(parts.stages.values())


def _check_name(name: str) -> None:
    import timm

    if not timm.is_model(name):
        raise RecipeError(f"model.name: timm has no model {name!r}{nearest(name, timm.list_models())}")
    try:
        timm.models.get_pretrained_cfg(name)
    except RuntimeError:
        tagged = timm.list_pretrained(f"{name.partition('.')[0]}.*")
        raise RecipeError(f"model.name: timm has no weights {name!r}{nearest(name, tagged)}") from None


def _runs(name: str, height: int, width: int, channels: int) -> bool:
    """Whether the model gives features (N, F) for images of this size and these channels."""
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of weights without elements, where images are too small
        try:
            parts = _parts_without_memory(name, channels, _built_for(name, height, width))
            features = parts.body(torch.empty(2, channels, height, width, device="meta"))
        except Exception:  # each model has its own class of error for a size that does not fit
            return False
    return isinstance(features, torch.Tensor) and features.shape == (2, parts.features)


def _unfit(name: str, shape: tuple[int, int, int]) -> str:
    """One line that says which size the model would take: by bisection up to the size it was made for."""
    import timm

    height, width, channels = shape
    fails, works = min(height, width), max(timm.models.get_pretrained_cfg(name).input_size[1:])
    if not _runs(name, works, works, channels):
        return f"model.name: timm:{name} does not give features of images with {channels} channels"
    while works - fails > 1:
        middle = (fails + works) // 2
        fails, works = (fails, middle) if _runs(name, middle, middle, channels) else (middle, works)
    return f"timm:{name} needs images of {works} px, but would see {width}x{height} (see input.size)"
