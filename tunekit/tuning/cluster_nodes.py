"""Nodes of a cluster that is joined: what all of them must see and have before trials run there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tunekit import __version__
from tunekit.data.pack import Pack, copied_pack
from tunekit.errors import DataError, ResourceError
from tunekit.paths import SearchPaths

_ANSWERS_WITHIN = 120.0  # seconds; a node may have to start a process and read its packages from a slow disk


def prepare_nodes(paths: SearchPaths, pack: Pack) -> Path | None:
    """Check that every node that is there has this tunekit and sees the folder of the search.

    Args:
        paths: of the search.
        pack: the images.
    Returns:
        A copy of the pack that every node sees, for nodes that lack it or may come later; None if all
        of several have it.
    Raises:
        ResourceError: naming the node and what it lacks.
        DataError: if the copy cannot be written.
    """
    answers = _ask_nodes(paths, pack)
    for address, answer in answers.items():
        _check(address, answer, paths)
    if len(answers) > 1 and all(answer["has_pack"] for answer in answers.values()):
        return None
    return copied_pack(pack.folder, paths.shared_pack(pack.digest)).folder


def _ask_nodes(paths: SearchPaths, pack: Pack) -> dict[str, dict[str, Any]]:
    """What each node says of itself, by its address.

    Raises:
        ResourceError: if one cannot say anything: it is gone, or has no tunekit.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    nodes = {node["NodeManagerAddress"]: node["NodeID"] for node in ray.nodes() if node["Alive"]}
    look = ray.remote(num_cpus=0)(_look)
    asked = {
        address: look.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote(
            paths.settings, pack
        )
        for address, node in nodes.items()
    }
    return {address: _answer(address, answer) for address, answer in asked.items()}


def _answer(address: str, asked: Any) -> dict[str, Any]:
    import ray
    from ray.exceptions import GetTimeoutError, RayError

    try:
        answer: dict[str, Any] = ray.get(asked, timeout=_ANSWERS_WITHIN)
    except GetTimeoutError:
        raise ResourceError(f"node {address} does not answer within {_ANSWERS_WITHIN:.0f} s") from None
    except RayError as error:
        reason = str(error).strip().splitlines()[-1]
        raise ResourceError(f"node {address} cannot run tunekit: {reason}") from None
    return answer


def _look(settings: Path, pack: Pack) -> dict[str, Any]:
    """Runs on a node."""
    try:
        has_pack = Pack.open(pack.folder).files == pack.files
    except DataError:
        has_pack = False
    return {"version": __version__, "sees": settings.is_file(), "has_pack": has_pack}


def _check(address: str, answer: dict[str, Any], paths: SearchPaths) -> None:
    if answer["version"] != __version__:
        raise ResourceError(f"node {address} has tunekit {answer['version']}, but this is {__version__}")
    if not answer["sees"]:
        raise ResourceError(
            f"node {address} does not see {paths.folder}: trials on several nodes need a folder that all of "
            "them share; give it as --results-dir"
        )
