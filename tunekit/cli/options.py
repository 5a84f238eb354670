"""Options that several commands share, and the types of their values."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from tunekit.cli.addresses import join_address

_LONGEST_TIME = 10 * 365 * 86400  # seconds
_SMALLEST_SHARE = 0.0001  # Ray knows no smaller ones


class Duration(click.ParamType[float]):
    """`90`, `90s`, `30m`, `2h`, `1h30m`: seconds."""

    name = "duration"
    _UNITS = {"h": 3600, "m": 60, "s": 1}  # noqa: RUF012

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        if re.fullmatch(r"[0-9]+", value):
            value += "s"
        seconds = sum(float(n) * self._UNITS[unit] for n, unit in re.findall(r"([0-9]+)([hms])", value))
        if not re.fullmatch(r"([0-9]+h)?([0-9]+m)?([0-9]+s)?", value) or not 0 < seconds <= _LONGEST_TIME:
            self.fail(f"must be a time above 0 such as 90s, 30m or 1h30m, but got {value!r}", param, ctx)
        return seconds


class GivenPath(click.Path):
    """A path that has a name: an empty one is a variable that was never set, and would mean this folder."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not str(value) or "\0" in str(value):
            self.fail(f"must be a path, but got {value!r}", param, ctx)
        return super().convert(value, param, ctx)


class Share(click.ParamType[float]):
    """Of a CPU or a GPU; whether there are so many is known later."""

    name = "float"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        share = click.FLOAT.convert(value, param, ctx)
        if not math.isfinite(share) or 0 < share < _SMALLEST_SHARE:
            self.fail(f"must be 0, or {_SMALLEST_SHARE} or more, but got {value!r}", param, ctx)
        return float(share)


class GpuShare(Share):
    """Of a GPU, or `auto`: as small a share as pays off, which is measured."""

    name = "float|auto"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "auto":
            return value
        try:
            float(value)
        except ValueError:
            self.fail(f"must be a number or auto, but got {value!r}", param, ctx)
        return super().convert(value, param, ctx)


class Size(click.ParamType[int]):
    """`500MB`, `20GB`, `1.5TB`: bytes, in powers of 1000; `GiB` and the like in powers of 1024."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kMGT])(i?)B?", value, re.IGNORECASE)
        if found is None or float(found[1]) == 0:
            self.fail(f"must be a size above 0 such as 500MB or 20GB, but got {value!r}", param, ctx)
        power = "KMGT".index(found[2].upper()) + 1
        return int(float(found[1]) * (1024 if found[3] else 1000) ** power)


class Samples(click.ParamType[str]):
    """`80`, in all, or `+50`, on top."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if not re.fullmatch(r"\+?[0-9]{1,7}", value):
            self.fail(f"must be a number such as 80, in all, or +50, on top, but got {value!r}", param, ctx)
        return str(value)


def not_empty(_ctx: click.Context, _param: click.Parameter, value: str | None) -> str | None:
    if value == "":
        raise click.BadParameter("must not be empty")
    return value


results_option = click.option(
    "--results-dir",
    type=GivenPath(path_type=Path, file_okay=False),
    default=Path("results"),
    envvar="TUNEKIT_RESULTS_DIR",
    show_envvar=True,
    help="Where searches lie.",
)
data_option = click.option(
    "--data-dir",
    type=GivenPath(path_type=Path, file_okay=False),
    envvar="TUNEKIT_DATA_DIR",
    show_envvar=True,
    help="Where data sets lie or are downloaded to.  [default: the user's cache folder]",
)
tracking_option = click.option(
    "--tracking-uri",
    callback=not_empty,
    envvar="MLFLOW_TRACKING_URI",
    show_envvar=True,
    help="MLflow server.  [default: SQLite in the results folder]",
)
image_size_option = click.option(
    "--image-size",
    type=click.IntRange(max=4096),
    help="Side in pixels to which a folder's images are resized.  [default: 64]",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
quiet_option = click.option("--quiet", "-q", is_flag=True, help="No plan and no progress, only the result.")
budget_option = click.option(
    "--time-budget", type=Duration(), help="Interrupt after this time, e.g. 30m; it can go on later."
)
disk_option = click.option(
    "--disk-budget",
    type=Size(),
    help="Of the search's checkpoints, e.g. 20GB.  [default: what is free]",
)
address_option = click.option(
    "--address",
    envvar="RAY_ADDRESS",
    show_envvar=True,
    callback=lambda ctx, param, value: join_address(value),
    help="Ray cluster to join: auto on one of its nodes, or HOST:PORT; or its job server, http://HOST:8265, "
    "to run there as a job.  [default: a Ray of its own, here]",
)
there_option = click.option(  # for commands that need no Ray: they only run where the search is
    "--address",
    envvar="RAY_ADDRESS",
    show_envvar=True,
    expose_value=False,
    callback=lambda ctx, param, value: ctx.meta.update({"tunekit.address": join_address(value)}),
    help="Job server of the cluster that the search is on, http://HOST:8265.  [default: it is here]",
)
job_server_option = click.option(
    "--address",
    envvar="RAY_ADDRESS",
    show_envvar=True,
    callback=lambda ctx, param, value: join_address(value),
    help="The cluster's job server, http://HOST:8265.",
)
name_argument = click.argument("name", required=False)


def _storage(_ctx: click.Context, _param: click.Parameter, value: str | None) -> str | None:
    if not value:
        return not_empty(_ctx, _param, value)
    from tunekit.tuning.storage import storage_uri

    return storage_uri(value)


def training_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of every command that trains: data, resources, where things go."""
    options = (
        click.option(
            "--name", callback=not_empty, help="Name of the search.  [default: data set, space and time]"
        ),
        click.option("--seed", type=click.IntRange(max=2**32 - 1), default=0, help="Of every random draw."),
        click.option(
            "--repeats",
            type=click.IntRange(max=1000),
            default=1,
            help="Trainings, with other seeds, of a recipe that trained in full.",
        ),
        click.option("--train-limit", type=int, help="Use a stratified part of so many training images."),
        click.option("--val-fraction", type=float, default=0.2, help="Share of them that validates."),
        image_size_option,
        click.option("--cpus-per-trial", type=Share(), help="[default: 1; with GPUs an even share]"),
        click.option(
            "--gpus-per-trial",
            type=GpuShare(),
            help="A fraction shares a GPU; auto: as many on each as pay off.  [default: 1 if there are GPUs]",
        ),
        click.option(
            "--on-oom",
            type=click.Choice(("fail", "retry")),
            default="fail",
            help="A recipe that is out of memory fails, or goes on with smaller parts of a batch at a time.",
        ),
        click.option(
            "--max-failures",
            type=click.IntRange(0, 10),
            default=5,
            help="Stop when more of the last 10 trials failed, or the first 3; 10 never stops.",
        ),
        click.option(
            "--keep-checkpoints",
            type=click.IntRange(max=10**6),
            default=3,
            help="Best trials whose weights are kept.",
        ),
        disk_option,
        click.option(
            "--storage",
            callback=_storage,
            metavar="URI",
            help="Where nodes keep checkpoints if they share no folder: s3://BUCKET/FOLDER, gs://, abfss://, "
            "file:// or a folder.  [default: the results folder]",
        ),
        address_option,
        tracking_option,
        budget_option,
        results_option,
        data_option,
        quiet_option,
    )
    for option in reversed(options):
        command = option(command)
    return command
