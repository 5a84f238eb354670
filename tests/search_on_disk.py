"""A small search laid down by hand: for tests of what reads searches."""

from pathlib import Path
from typing import Any

from tunekit.history import Event, History
from tunekit.paths import SearchPaths, search_paths
from tunekit.tuning.settings import SearchSettings

SPACE = '[space]\n"optim.lr" = { low = 1e-3, high = 1.0, log = true }\n'


def lay_down_search(results_dir: Path, name: str, **changes: Any) -> SearchPaths:
    """Three of four trials: one stopped, one completed with 0.75 at epoch 2, one unfinished."""
    paths = search_paths(results_dir, name)
    paths.folder.mkdir(parents=True)
    paths.space.write_text(SPACE)
    SearchSettings(
        name=name,
        dataset="digits",
        space="mine.toml",
        samples=4,
        epochs=3,
        seed=0,
        data_dir=str(results_dir),
        tracking_uri=f"sqlite:///{results_dir}/mlflow.db",
        fixed={"optim.name": "adam"},
        **changes,
    ).save(paths)
    history = History(paths.history)
    for event in (
        Event("suggest", 0, params={"optim.lr": 0.1}),
        Event("result", 0, epoch=1, value=0.25),
        Event("stop", 0, epoch=1),
        Event("suggest", 1, params={"optim.lr": 0.5}),
        Event("result", 1, epoch=1, value=0.5),
        Event("result", 1, epoch=2, value=0.75),
        Event("result", 1, epoch=3, value=0.75),
        Event("complete", 1),
        Event("suggest", 2, params={"optim.lr": 0.2}),
    ):
        history.append(event)
    history.close()
    return paths
