"""The house: imports run one way, and each big library has one door."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "tunekit"

# Each room may import those after it.
ROOMS = [
    "cli",
    "reporting",
    "retraining",
    "tuning",
    "tracking",
    "training",
    "models",
    "data",
    "space",
    "history",
    "learning_curve",
    "baselines",
    "recipe",
    "paths",
    "errors",
]

DOORS = {
    "ray": {"tuning"},
    "optuna": {"reporting", "tuning"},
    "mlflow": {"tracking"},
    "pyarrow": {"tuning"},
    "timm": {"models", "training"},
    "torchvision": {"data", "models"},
    "scipy": {"reporting", "retraining", "tuning"},
    "sklearn": {"data"},
    "PIL": {"data"},
    "rich": {"tuning", "reporting", "cli"},
    "click": {"cli"},
    "jinja2": {"reporting"},
    "matplotlib": {"retraining"},
    "plotly": {"reporting"},
    "tomlkit": {"reporting"},
    "torch": {"retraining", "tuning", "tracking", "training", "models", "data"},
}

# The policy decides on plain numbers; these are the only files of tuning/ that see Ray.
RAY_FILES = {"adapters", "cluster_nodes", "engine", "ray_session", "remote_job", "trainable"}


def room(file: Path) -> str:
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


FILES = [file for file in sorted(PACKAGE.rglob("*.py")) if room(file) not in ("__init__", "__main__")]


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_imports_run_one_way(file: Path) -> None:
    own = ROOMS.index(room(file))
    for module in imports(file):
        if module.startswith("tunekit."):
            assert ROOMS.index(module.split(".")[1]) >= own, f"{file} imports {module}"


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_each_library_has_one_door(file: Path) -> None:
    for module in imports(file):
        library = module.split(".")[0]
        if library in DOORS:
            assert room(file) in DOORS[library], f"{file} imports {module}"
        if library == "ray":
            assert file.stem in RAY_FILES, f"{file} imports {module}"


def test_modules_do_not_import_each_other_in_circles() -> None:
    graph = {
        f"tunekit.{'.'.join(file.relative_to(PACKAGE).with_suffix('').parts)}": {
            module for module in imports(file) if module.startswith("tunekit.")
        }
        for file in FILES
    }
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join((*path, module))
        if module not in done:
            for other in graph.get(module, ()):
                visit(other, (*path, module))
            done.add(module)

    for module in graph:
        visit(module, ())


def test_no_room_is_called_after_nothing() -> None:
    names = {file.stem for file in FILES} | {file.parent.name for file in FILES}
    assert not names & {"utils", "common", "helpers", "misc", "manager", "base", "core"}
