"""The stages of timm's networks, by timm's own grouping of their parameters."""

from __future__ import annotations

from torch import nn


def timm_stages(body: nn.Module) -> dict[str, int]:
    """Name of each module of `body` that owns parameters -> its stage, 0 next to the images.

    Networks for which timm has no grouping have a stage for each of their top-level parts.
    """
    names = [name for name, _ in body.named_parameters()]
    stages = _grouped(body) if hasattr(body, "group_matcher") else _by_top_level(names)
    stage_of: dict[str, int] = {}
    for name in names:
        owner = name.rpartition(".")[0]
        stage_of[owner] = min(stages[name], stage_of.get(owner, stages[name]))
    return stage_of


def _grouped(body: nn.Module) -> dict[str, int]:
    from timm.models import group_parameters

    matcher = body.group_matcher(coarse=True)  # type: ignore[operator]
    if isinstance(matcher, dict):
        # In timm's words: what no group takes (a norm behind the last stage) goes to the group before.
        matcher = {**matcher, "rest": [("", (99999,))]}
    stages: dict[str, int] = group_parameters(body, matcher, reverse=True)
    return stages


def _by_top_level(names: list[str]) -> dict[str, int]:
    parts = list(dict.fromkeys(name.partition(".")[0] for name in names))
    return {name: parts.index(name.partition(".")[0]) for name in names}
