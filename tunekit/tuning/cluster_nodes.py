"""Nodes: what all of a joined cluster must see and have before trials run there, and what their GPUs take."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from tunekit import __version__
from tunekit.data.pack import Pack, copied_pack
from tunekit.errors import DataError, ResourceError
from tunekit.paths import SearchPaths
from tunekit.tuning.packing import MEASURED_WITHIN, Load, Rehearsals, measure, smallest_gpu

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


def measured_on_a_gpu(wanted: Rehearsals, most: int) -> Load:
    """What trials take of a GPU, measured on the node of the running Ray whose GPU has the least memory.

    Args:
        wanted: what trials train.
        most: trials at once.
    """
    import ray
    from ray.exceptions import GetTimeoutError, RayError

    within = MEASURED_WITHIN + _ANSWERS_WITHIN
    task: Any = None
    try:
        task = ray.remote(num_cpus=0, num_gpus=1)(measure)
        task = task.options(scheduling_strategy=_on(_node_to_measure_on())).remote(wanted, most)
        load: Load = ray.get(task, timeout=within)
    except GetTimeoutError:
        ray.cancel(task, force=True)
        return Load(problem=f"no GPU was free to measure on within {within:.0f} s")
    except RayError as error:
        return Load(problem=f"it could not be measured ({str(error).strip().splitlines()[-1]})")
    return load


def _node_to_measure_on() -> str:
    """Of the nodes with a GPU the one whose smallest has the least memory, by its id."""
    import ray

    nodes = [node["NodeID"] for node in ray.nodes() if node["Alive"] and node["Resources"].get("GPU", 0) >= 1]
    if len(nodes) == 1:
        return str(nodes[0])
    look = ray.remote(num_cpus=0)(smallest_gpu)
    asked = [look.options(scheduling_strategy=_on(node)).remote() for node in nodes]
    found = zip(ray.get(asked, timeout=_ANSWERS_WITHIN), nodes, strict=True)
    return str(min(found, key=lambda one: one[0] or math.inf)[1])


def _on(node: str) -> Any:
    """Ray's word for "on this node and no other"."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return NodeAffinitySchedulingStrategy(node, soft=False)


def _ask_nodes(paths: SearchPaths, pack: Pack) -> dict[str, dict[str, Any]]:
    """What each node says of itself, by its address.

    Raises:
        ResourceError: if one cannot say anything: it is gone, or has no tunekit.
    """
    import ray

    nodes = {node["NodeManagerAddress"]: node["NodeID"] for node in ray.nodes() if node["Alive"]}
    look = ray.remote(num_cpus=0)(_look)
    asked = {
        address: look.options(scheduling_strategy=_on(node)).remote(paths.settings, pack)
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
