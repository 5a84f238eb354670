"""Nodes: what all of a joined cluster must see and have before trials run there, and what their GPUs take."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from tunekit import __version__
from tunekit.data.pack import Pack, copied_pack
from tunekit.errors import DataError, ResourceError, StorageError
from tunekit.paths import SearchPaths
from tunekit.tuning.node_files import remove_private_folder
from tunekit.tuning.packing import MEASURED_WITHIN, Load, Rehearsals, measure, smallest_gpu
from tunekit.tuning.storage import Storage
from tunekit.tuning.stored_search import push_pack

_TIDIES_WITHIN = 10.0  # seconds
_ANSWERS_WITHIN = 120.0  # seconds; a node may have to start a process and read its packages from a slow disk


def prepare_nodes(paths: SearchPaths, pack: Pack, storage: Storage | None = None) -> str | None:
    """Check that every node that is there has this tunekit and sees the folder of the search, or can read
    the storage that stands for it.

    Args:
        paths: of the search.
        pack: the images.
        storage: with the settings of the search in it.
    Returns:
        The folder of a copy of the pack, which every node sees or which lies in the storage, for nodes that
        lack it or may come later; None if all of several have it.
    Raises:
        ResourceError: naming the node and what it lacks.
        DataError: if the copy cannot be written.
        StorageError: likewise.
    """
    answers = _ask_nodes(paths, pack, storage)
    for address, answer in answers.items():
        _check(address, answer)
    if len(answers) > 1 and all(answer["has_pack"] for answer in answers.values()):
        return None
    if storage is not None:
        return push_pack(storage, pack)
    return str(copied_pack(pack.folder, paths.shared_pack(pack.digest)).folder)


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


def _ask_nodes(paths: SearchPaths, pack: Pack, storage: Storage | None) -> dict[str, dict[str, Any]]:
    """What each node says of itself, by its address.

    Raises:
        ResourceError: if one cannot say anything: it is gone, or has no tunekit.
    """
    asked = _on_each_node(_look, paths.settings, pack, storage)
    return {address: _answer(address, answer) for address, answer in asked.items()}


def tidy_nodes(storage: Storage) -> None:
    """Remove what workers copied from the storage to their nodes; what does not answer keeps it."""
    import ray

    asked = list(_on_each_node(remove_private_folder, storage.folder).values())
    ray.wait(asked, num_returns=len(asked), timeout=_TIDIES_WITHIN)


def _on_each_node(function: Callable[..., Any], *arguments: object) -> dict[str, Any]:
    """A call of the function on each node that is there, begun, by the node's address."""
    import ray

    nodes = {node["NodeManagerAddress"]: node["NodeID"] for node in ray.nodes() if node["Alive"]}
    remote = ray.remote(num_cpus=0)(function)
    return {
        address: remote.options(scheduling_strategy=_on(node)).remote(*arguments)
        for address, node in nodes.items()
    }


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


def _look(settings: Path, pack: Pack, storage: Storage | None) -> dict[str, Any]:
    """Runs on a node."""
    try:
        has_pack = Pack.open(pack.folder).files == pack.files
    except DataError:
        has_pack = False
    lacks = _sees(settings) if storage is None else _can_read(storage)
    return {"version": __version__, "lacks": lacks, "has_pack": has_pack}


def _sees(settings: Path) -> str | None:
    """What is wrong with the folder of the search."""
    if settings.is_file():
        return None
    return (
        f"does not see {settings.parent}: trials on several nodes need a folder that all of them share, "
        "given as --results-dir, or a place that all of them reach, given as --storage"
    )


def _can_read(storage: Storage) -> str | None:
    """What is wrong with the storage."""
    with tempfile.TemporaryDirectory() as folder:
        there = replace(storage, root=folder)
        try:
            found = there.pull(SearchPaths(Path(folder)).settings)
        except (StorageError, ImportError) as error:
            return f"cannot use the storage: {error}"
    return None if found else f"does not find in {storage.uri} what the driver wrote there"


def _check(address: str, answer: dict[str, Any]) -> None:
    if answer["version"] != __version__:
        raise ResourceError(f"node {address} has tunekit {answer['version']}, but this is {__version__}")
    if answer["lacks"]:
        raise ResourceError(f"node {address} {answer['lacks']}")
