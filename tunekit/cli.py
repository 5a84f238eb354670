"""The command line: parse, call one function, print. Imports click alone until a command runs."""

from __future__ import annotations

import errno
import json
import math
import os
import re
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import click

from tunekit import __version__
from tunekit.errors import ResourceError, StorageError, TunekitError, nearest

_SAMPLERS = ("portfolio", "rung-tpe", "random")
_SCHEDULERS = ("asha-promotion", "asha", "hyperband", "median", "none")
_EXPORT_FORMATS = ("onnx", "torch-export", "state-dict")
_FROM_ENVIRONMENT = click.core.ParameterSource.ENVIRONMENT
_LONGEST_TIME = 10 * 365 * 86400  # seconds
_SMALLEST_SHARE = 0.0001  # Ray knows no smaller ones
_PATIENCE_AT_STOP = 60.0  # seconds; a search writes its report and tells MLflow before it ends
_LONGEST_MESSAGE = 600  # characters; what came may be a whole file
_TRAINING = ("search", "baseline", "resume", "retrain-best")  # as a job they run on after Ctrl-C
# Of files and folders that a person named: not there, not allowed, read-only, full, too long a name ...
_FILE_ERRORS = {
    *(errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP),
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EIO),
}


class _Command(click.Command):
    """A command whose `--address` may be that of a job server: then it runs on that cluster, as a job."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta["tunekit.typed"] = self.make_parser(ctx).parse_args(list(args))[0]
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        address = ctx.params.get("address") or ctx.meta.get("tunekit.address")
        if not _is_job_server(address):
            return super().invoke(ctx)
        from tunekit.tuning.remote_job import run_remotely

        return sys.exit(run_remotely(str(address), _as_job(ctx), _echo_line, _note))


class _Group(click.Group):
    """Says the nearest command on a typing error; turns our errors into one line and exit code 1, and signals
    to end into exit code 130.
    """

    command_class = _Command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if args and self.get_command(ctx, args[0]) is None and not args[0].startswith("-"):
            ctx.fail(f"no command {args[0]!r}{nearest(args[0], self.list_commands(ctx))}")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        for number in (signal.SIGTERM, signal.SIGUSR1):  # as Ctrl-C: what was begun is left in order
            signal.signal(number, signal.default_int_handler)
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            click.echo("Interrupted.", err=True)
            ctx.exit(130)
        except TunekitError as error:
            raise click.ClickException(_one_line(str(error))) from None
        except click.UsageError as error:
            raise click.UsageError(_one_line(error.format_message()), error.ctx) from None
        except OSError as error:
            if error.errno not in _FILE_ERRORS:
                raise
            raise click.ClickException(_one_line(f"{error.filename or 'a file'}: {error.strerror}")) from None


class _Duration(click.ParamType[float]):
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


class _GivenPath(click.Path):
    """A path that has a name: an empty one is a variable that was never set, and would mean this folder."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not str(value) or "\0" in str(value):
            self.fail(f"must be a path, but got {value!r}", param, ctx)
        return super().convert(value, param, ctx)


class _Share(click.ParamType[float]):
    """Of a CPU or a GPU; whether there are so many is known later."""

    name = "float"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        share = click.FLOAT.convert(value, param, ctx)
        if not math.isfinite(share) or 0 < share < _SMALLEST_SHARE:
            self.fail(f"must be 0, or {_SMALLEST_SHARE} or more, but got {value!r}", param, ctx)
        return float(share)


def _given(_ctx: click.Context, _param: click.Parameter, value: str | None) -> str | None:
    if value == "":
        raise click.BadParameter("must not be empty")
    return value


class _Size(click.ParamType[int]):
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


class _Samples(click.ParamType[str]):
    """`80`, in all, or `+50`, on top."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if not re.fullmatch(r"\+?[0-9]{1,7}", value):
            self.fail(f"must be a number such as 80, in all, or +50, on top, but got {value!r}", param, ctx)
        return str(value)


_results_option = click.option(
    "--results-dir",
    type=_GivenPath(path_type=Path, file_okay=False),
    default=Path("results"),
    envvar="TUNEKIT_RESULTS_DIR",
    show_envvar=True,
    help="Where searches lie.",
)
_data_option = click.option(
    "--data-dir",
    type=_GivenPath(path_type=Path, file_okay=False),
    envvar="TUNEKIT_DATA_DIR",
    show_envvar=True,
    help="Where data sets lie or are downloaded to.  [default: the user's cache folder]",
)
_tracking_option = click.option(
    "--tracking-uri",
    callback=_given,
    envvar="MLFLOW_TRACKING_URI",
    show_envvar=True,
    help="MLflow server.  [default: SQLite in the results folder]",
)
_image_size_option = click.option(
    "--image-size",
    type=click.IntRange(max=4096),
    help="Side in pixels to which a folder's images are resized.  [default: 64]",
)
_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_quiet_option = click.option("--quiet", "-q", is_flag=True, help="No plan and no progress, only the result.")
_budget_option = click.option(
    "--time-budget", type=_Duration(), help="Interrupt after this time, e.g. 30m; it can go on later."
)
_disk_option = click.option(
    "--disk-budget",
    type=_Size(),
    help="Of the search's checkpoints, e.g. 20GB.  [default: what is free]",
)
_address_option = click.option(
    "--address",
    envvar="RAY_ADDRESS",
    show_envvar=True,
    callback=lambda ctx, param, value: _join(value),
    help="Ray cluster to join: auto on one of its nodes, or HOST:PORT; or its job server, http://HOST:8265, "
    "to run there as a job.  [default: a Ray of its own, here]",
)
_there_option = click.option(  # for commands that need no Ray: they only run where the search is
    "--address",
    envvar="RAY_ADDRESS",
    show_envvar=True,
    expose_value=False,
    callback=lambda ctx, param, value: ctx.meta.update({"tunekit.address": _join(value)}),
    help="Job server of the cluster that the search is on, http://HOST:8265.  [default: it is here]",
)
_job_server_option = click.option(
    "--address",
    envvar="RAY_ADDRESS",
    show_envvar=True,
    callback=lambda ctx, param, value: _join(value),
    help="The cluster's job server, http://HOST:8265.",
)
_name_argument = click.argument("name", required=False)


def _training_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of every command that trains: data, resources, where things go."""
    options = (
        click.option(
            "--name", callback=_given, help="Name of the search.  [default: data set, space and time]"
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
        _image_size_option,
        click.option("--cpus-per-trial", type=_Share(), help="[default: 1; with GPUs an even share]"),
        click.option(
            "--gpus-per-trial", type=_Share(), help="A fraction shares a GPU.  [default: 1 if there are GPUs]"
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
        _disk_option,
        _address_option,
        _tracking_option,
        _budget_option,
        _results_option,
        _data_option,
        _quiet_option,
    )
    for option in reversed(options):
        command = option(command)
    return command


@click.group(
    cls=_Group,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100, "show_default": True},
)
@click.version_option(__version__, prog_name="tunekit")
def main() -> None:
    """Find the best training recipe for your images, and train the model.

    \b
    tunekit search digits --space resnet     search; needs no network and no GPU
    tunekit report --open                    what was found, and what mattered
    tunekit retrain-best                     a model with an honest test score
    tunekit predict tunekit-digits IMAGE     use it
    tunekit ui                               review every trial in MLflow
    """


@main.command()
@click.argument("dataset")
@click.option("--space", required=True, help="A search space by name ('tunekit spaces') or a .toml file.")
@click.option(
    "--samples",
    type=click.IntRange(max=10**6),
    default=32,
    help="Trials to run; the first is the default recipe.",
)
@click.option("--epochs", type=click.IntRange(max=10**6), default=27, help="Epochs of a full training.")
@click.option(
    "--set", "assignments", multiple=True, metavar="KEY=VALUE", help="Fix a recipe key for this search."
)
@click.option(
    "--sampler",
    type=click.Choice(_SAMPLERS),
    default=_SAMPLERS[0],
    help="Proposes recipes.",
)
@click.option(
    "--scheduler",
    type=click.Choice(_SCHEDULERS),
    default=_SCHEDULERS[0],
    help="Stops trials early (asha, hyperband, median) or pauses them (asha-promotion).",
)
@click.option("--grace-period", type=click.IntRange(max=10**6), default=3, help="First rung, in epochs.")
@click.option(
    "--reduction-factor",
    type=click.IntRange(max=10**6),
    default=3,
    help="One trial in so many goes on at a rung.",
)
@click.option(
    "--baselines", "with_baselines", is_flag=True, help="First train the space's known recipes in full."
)
@click.option(
    "--start-from",
    multiple=True,
    metavar="SEARCH",
    help="An earlier search, on any data: try its best recipes first, and believe it until disproved.",
)
@_training_options
def search(
    dataset: str, space: str, assignments: tuple[str, ...], with_baselines: bool, **options: Any
) -> None:
    """Search for the best recipe on DATASET.

    DATASET is a name from 'tunekit datasets' or a folder of class folders.

    \b
    tunekit search digits --space resnet
    tunekit search cifar10 --space resnet --samples 50 --set optim.name=sgd
    tunekit search mnist --space vgg --baselines
    tunekit search cifar10 --space resnet --start-from mnist-resnet
    tunekit search path/to/photos --space resnet --image-size 64
    """
    from tunekit.paths import find_space
    from tunekit.space import load_space, parse_assignment
    from tunekit.tuning.baseline_choice import baselines_for

    known = load_space(find_space(space)).baselines if with_baselines else ()
    if with_baselines and not known:
        raise click.ClickException(f"--baselines: the space {space} has none")
    fixed = dict(parse_assignment(text) for text in assignments)
    _train(dataset, space, baselines_for(dataset, known), fixed=fixed, **options)


@main.command()
@click.argument("baseline_id", metavar="ID")
@click.option("--epochs", type=click.IntRange(max=10**6), help="[default: as reported]")
@click.option("--dataset", callback=_given, help="[default: the one it was reported for]")
@click.option(
    "--space", callback=_given, help="The space that lists it.  [default: the shipped one that does]"
)
@_training_options
def baseline(
    baseline_id: str, epochs: int | None, dataset: str | None, space: str | None, **options: Any
) -> None:
    """Train the known recipe ID in full, and compare it with its reported accuracy.

    'tunekit spaces show report-b' lists the recipes of a space.

    \b
    tunekit baseline B-mnist-vgg16-bn-after-relu --epochs 3 --train-limit 3000
    """
    from tunekit.tuning.baseline_choice import find_in_spaces

    space, known = find_in_spaces(baseline_id, space)
    dataset, epochs = dataset or known.dataset, known.epochs if epochs is None else epochs
    if epochs is None:
        raise click.UsageError(f"{baseline_id} has no reported number of epochs: give --epochs")
    if not dataset:
        raise click.UsageError(f"{baseline_id} has no data set: give --dataset")
    options["name"] = options["name"] or _default_name("", baseline_id)
    _train(dataset, space, [known], samples=0, epochs=epochs, **options)


@main.command()
@_name_argument
@_budget_option
@_disk_option
@_address_option
@_results_option
@_quiet_option
def resume(
    name: str | None,
    time_budget: float | None,
    disk_budget: int | None,
    address: str | None,
    results_dir: Path,
    quiet: bool,
) -> None:
    """Go on with the search NAME (default: the latest) after Ctrl-C, a time budget or a crash.

    Trials that have ended stay; the others go on from their last checkpoint.

    \b
    tunekit resume
    tunekit resume digits-resnet-20260131-142530 --time-budget 1h
    tunekit resume --disk-budget 50GB
    """
    from tunekit.paths import find_search
    from tunekit.tuning.progress import make_view

    _run(find_search(results_dir, name), make_view(quiet), time_budget, address, disk_budget)


@main.command(cls=click.Command)
@_name_argument
@_job_server_option
def attach(name: str | None, address: str | None) -> None:
    """Follow the job of the search NAME (default: the latest job) on a cluster, from its first line on.

    Ctrl-C leaves it running; else the exit code is that of the job.

    \b
    tunekit attach cifar10-deep --address http://127.0.0.1:8265
    """
    from tunekit.tuning.remote_job import attach as follow

    sys.exit(follow(_job_server(address), name, _echo_line, _note))


@main.command(cls=click.Command)
@click.argument("name")
@_job_server_option
@click.option(
    "--to",
    type=_GivenPath(path_type=Path, file_okay=False),
    default=Path("results"),
    envvar="TUNEKIT_RESULTS_DIR",
    show_envvar=True,
    help="Where searches lie here; - prints it as text.",
)
@click.option(
    "--results-dir", callback=_given, help="Where searches lie on the cluster.  [default: as there]"
)
def fetch(name: str, address: str | None, to: Path, results_dir: str | None) -> None:
    """Bring home what is small and useful of the search NAME on a cluster: 'tunekit best' and such work then.

    That is its history, space, report and the weights of its best trials; the search may still run.

    \b
    tunekit fetch cifar10-deep --address http://127.0.0.1:8265
    """
    from tunekit.tuning.remote_job import RemoteCommand
    from tunekit.tuning.remote_job import fetch as bring

    if to == Path("-"):
        _print_parcel(name, results_dir)
        return
    words = ["fetch", "--to=-", *([f"--results-dir={results_dir}"] if results_dir else [])]
    paths = bring(_job_server(address), RemoteCommand(tuple(words), (name,)), to, name)
    click.echo(f"Search {name} is in {paths.folder}")
    click.echo(f"Best recipe: tunekit best {name}{_results_flag(paths.folder.parent)}")


@main.command()
@_name_argument
@_there_option
@_results_option
@_json_option
def status(name: str | None, results_dir: Path, as_json: bool) -> None:
    """Say where the search NAME (default: the latest) stands: who runs it, its trials, what is left.

    Reads the search's folder alone, so it works while the search runs, here or on another machine.

    \b
    tunekit status
    tunekit status mnist-vgg --json | jq .seconds_left
    watch tunekit status
    """
    from tunekit.paths import find_search
    from tunekit.reporting.status import search_status, status_lines, unfinished_table

    row = search_status(find_search(results_dir, name))
    if as_json:
        click.echo(json.dumps(row, indent=2))
        return
    for line in status_lines(row):
        click.echo(_printable(line))
    if row["unfinished"]:
        click.echo()
        _print_table(unfinished_table(row))


@main.command()
@click.argument("name")
@click.option("--samples", type=_Samples(), help="Samples in all, or +N for N more.")
@click.option("--epochs", hidden=True)
@_there_option
@_results_option
def extend(name: str, samples: str | None, epochs: str | None, results_dir: Path) -> None:
    """Give the search NAME more samples, while it runs or afterwards.

    One that runs, here or on another machine, goes on to them; one that does not goes on with 'tunekit
    resume'. Trials that were stopped stay stopped. Epochs cannot be extended: the learning-rate schedule
    spans them.

    \b
    tunekit extend mnist-vgg --samples +50
    tunekit extend mnist-vgg --samples 80
    """
    from tunekit.paths import find_search
    from tunekit.tuning.control_file import Request

    if epochs is not None:
        raise click.UsageError(
            "epochs cannot be extended: the learning-rate schedule of every trial spans them; "
            f"start a new search with --epochs and --start-from {name}"
        )
    if samples is None:
        raise click.UsageError("give --samples: how many in all, or +N for N more")
    number = int(samples.removeprefix("+"))
    more = samples.startswith("+")
    paths = find_search(results_dir, name)
    answer = _ask(paths, Request("extend", more=number) if more else Request("extend", samples=number))
    if answer is not None and not answer.running:
        click.echo(f"Go on with:  tunekit resume {paths.name}{_results_flag(paths.folder.parent)}")


@main.command()
@click.argument("name")
@click.option("--trial", type=click.IntRange(0, 10**6), help="End this trial alone; the search goes on.")
@_there_option
@_results_option
def stop(name: str, trial: int | None, results_dir: Path) -> None:
    """End the search NAME, which runs in another process, here or on another machine.

    It ends as by Ctrl-C there, and 'tunekit resume' goes on with it. A single trial ends after the epoch
    that it is in, or at once if it is paused, and keeps the values that it has.

    \b
    tunekit stop mnist-vgg
    tunekit stop mnist-vgg --trial 7
    """
    from tunekit.paths import find_search
    from tunekit.tuning.control import wait_for_end
    from tunekit.tuning.control_file import Request

    paths = find_search(results_dir, name)
    if trial is not None:
        _ask(paths, Request("stop_trial", trial=trial))
        return
    answer = _ask(paths, Request("stop"))
    if answer is None:
        return
    if wait_for_end(paths, _PATIENCE_AT_STOP):
        where = _results_flag(paths.folder.parent)
        click.echo(f"It has ended. Go on with:  tunekit resume {paths.name}{where}")
    else:
        click.echo(f"It still writes its report: 'tunekit status {paths.name}' says when it has ended.")


@main.command()
@_results_option
@_json_option
def searches(results_dir: Path, as_json: bool) -> None:
    """List the searches, oldest first.

    \b
    tunekit searches
    tunekit searches --json
    """
    from tunekit.reporting.leaderboard import search_rows, search_table

    rows = search_rows(results_dir)
    if not rows and not as_json:
        click.echo(f"No search in {results_dir} yet: start one with 'tunekit search digits --space resnet'")
        return
    _print(rows, as_json, search_table)


@main.command()
@_name_argument
@_results_option
@_json_option
def trials(name: str | None, results_dir: Path, as_json: bool) -> None:
    """List the trials of the search NAME (default: the latest), best first.

    \b
    tunekit trials
    tunekit trials --json | jq '.[0].params'
    """
    from tunekit.paths import find_search
    from tunekit.reporting.leaderboard import trial_rows, trial_table

    _print(trial_rows(find_search(results_dir, name)), as_json, trial_table)


@main.command()
@_name_argument
@_results_option
@_json_option
def best(name: str | None, results_dir: Path, as_json: bool) -> None:
    """Print the best recipe of the search NAME (default: the latest).

    \b
    tunekit best
    tunekit best --json | jq .recipe
    """
    from tunekit.paths import find_search
    from tunekit.recipe import flatten
    from tunekit.reporting.leaderboard import best_trial, recipe_table

    row = best_trial(find_search(results_dir, name))
    if as_json:
        click.echo(json.dumps(row, indent=2))
        return
    mean = f" (mean of {row['trainings']} trainings: {row['mean_val_accuracy']:.4f})"
    click.echo(
        f"Search {row['search']}: trial {row['trial']:02d} has validation accuracy "
        f"{row['val_accuracy']:.4f} at epoch {row['epoch']}{mean if row['trainings'] > 1 else ''}"
    )
    _print_table(recipe_table(flatten(row["recipe"])))
    click.echo(f"weights: {row['checkpoint']}")


@main.command("retrain-best")
@_name_argument
@click.option("--top-k", type=int, default=3, help="Best recipes to retrain, and the default one.")
@click.option("--seeds", type=int, default=5, help="Trainings of each recipe.")
@click.option("--epochs", type=int, help="Of each training.  [default: the search's; a baseline's own]")
@click.option(
    "--refit-on",
    type=click.Choice(("train", "train+val")),
    default="train",
    help="Train the winner once more, on the validation images too, before it is tested.",
)
@click.option("--ensemble", is_flag=True, help="Hand over an ensemble of all networks; says gain and cost.")
@click.option("--calibrate", is_flag=True, help="Scale the model's temperature on the validation images.")
@click.option(
    "--baseline",
    "patterns",
    multiple=True,
    metavar="ID",
    help="Instead of a search: a known recipe, or several as in 'B-mnist-*'.",
)
@click.option(
    "--name",
    "folder_name",
    callback=_given,
    help="With --baseline: name of the folder.  [default: the recipes']",
)
@click.option("--train-limit", type=int, help="With --baseline: use a part of so many training images.")
@click.option(
    "--val-fraction", type=float, default=0.2, help="With --baseline: share of them that validates."
)
@click.option("--cpus-per-trial", type=_Share(), help="[default: the search's]")
@click.option("--gpus-per-trial", type=_Share(), help="[default: the search's]")
@_address_option
@_tracking_option
@_budget_option
@_results_option
@_data_option
@_quiet_option
@_json_option
def retrain_best(
    name: str | None,
    patterns: tuple[str, ...],
    folder_name: str | None,
    train_limit: int | None,
    val_fraction: float,
    tracking_uri: str | None,
    data_dir: Path | None,
    refit_on: str,
    time_budget: float | None,
    address: str | None,
    results_dir: Path,
    quiet: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Retrain the best recipes of the search NAME (default: the latest), test the winner, hand over a model.

    The best recipes and the default one are trained with several seeds. The best mean validation
    accuracy wins; then the test set is opened, which is recorded, and the model goes into MLflow's
    registry. The same command goes on after an interruption, and shows its result again when it is done.

    \b
    tunekit retrain-best
    tunekit retrain-best --top-k 5 --seeds 3 --refit-on train+val
    tunekit retrain-best --ensemble --calibrate
    tunekit retrain-best --baseline B-mnist-vgg16-bn-after-relu --baseline C-cifar10-*
    """
    from tunekit.paths import find_search
    from tunekit.reporting.report import tell
    from tunekit.retraining.request import Request
    from tunekit.retraining.retrain import retrain
    from tunekit.tuning.progress import make_view
    from tunekit.tuning.ray_session import Machine

    if patterns and name:
        raise click.UsageError("give a search or --baseline, not both")
    view = make_view(quiet)
    if patterns:
        own = {"name": folder_name or "", "train_limit": train_limit, "val_fraction": val_fraction}
        folders = _known_folders(patterns, results_dir, data_dir, tracking_uri, view, **own)
    else:
        _only_with_baselines("folder_name", "train_limit", "val_fraction", "data_dir", "tracking_uri")
        folders = [find_search(results_dir, name)]
    request = Request(refit=refit_on == "train+val", **options)
    machine = Machine(address=address)
    outcomes = [retrain(paths, request, view, time_budget, machine, tell) for paths in folders]
    if as_json:
        click.echo(json.dumps([outcome.result for outcome in outcomes], indent=2))
    for paths, outcome in zip(folders, outcomes, strict=True) if not as_json else ():
        _show_retraining(paths, outcome)
    if any(outcome.result is None for outcome in outcomes):
        sys.exit(1 if any(outcome.lost for outcome in outcomes) else 130)


@main.command()
@_name_argument
@click.option(
    "--key", callback=_given, help="One recipe key.  [default: all that the space calls scientific]"
)
@_results_option
@_json_option
def choices(name: str | None, key: str | None, results_dir: Path, as_json: bool) -> None:
    """Compare the values of a recipe key over the trials of the search NAME (default: the latest).

    A difference that chance explains is called noise.

    \b
    tunekit choices
    tunekit choices mnist-vgg --key model.bn_placement
    """
    from dataclasses import asdict

    from tunekit.paths import find_search
    from tunekit.reporting.choices import choice_table, compare_key, scientific_comparisons

    paths = find_search(results_dir, name)
    found = [compare_key(paths, key)] if key else scientific_comparisons(paths)
    if as_json:
        click.echo(json.dumps([asdict(comparison) for comparison in found], indent=2))
        return
    for comparison in found:
        _print_table(choice_table(comparison))
        click.echo(f"{comparison.verdict()}\n")
    if not found:
        click.echo(f"search {paths.name}: no key has two values with a trial that ended yet")


@main.command()
@_name_argument
@click.option("--open", "open_it", is_flag=True, help="Open it in the browser.")
@_results_option
def report(name: str | None, open_it: bool, results_dir: Path) -> None:
    """Write what the search NAME (default: the latest) found as one HTML file, to be read without network.

    The search may be finished, interrupted or still running.

    \b
    tunekit report
    tunekit report mnist-vgg --open
    """
    from tunekit.paths import find_search
    from tunekit.reporting.report import write_report

    paths = find_search(results_dir, name)
    file = write_report(paths)
    click.echo(f"Report: {file}")
    if paths.proposed_space.is_file():
        click.echo(f"Proposed space: {paths.proposed_space} (use it with --start-from {paths.name})")
    if open_it:
        click.launch(str(file))


@main.command()
@click.argument("names", nargs=-1, required=True, metavar="SEARCH...")
@_results_option
@_json_option
def compare(names: tuple[str, ...], results_dir: Path, as_json: bool) -> None:
    """Compare searches side by side: what they found, and what it cost.

    \b
    tunekit compare mnist-vgg mnist-resnet
    """
    from dataclasses import asdict

    from tunekit.paths import find_search
    from tunekit.reporting.comparison import compare_searches, comparison_table, warnings

    rows = compare_searches([find_search(results_dir, name) for name in names])
    if as_json:
        click.echo(json.dumps([asdict(row) for row in rows], indent=2))
    else:
        _print_table(comparison_table(rows))
    for warning in warnings(rows):
        click.echo(f"Note: {warning}", err=True)


@main.command()
@_name_argument
@click.option("--sampler", "samplers", type=click.Choice(_SAMPLERS), multiple=True, help="[default: all]")
@click.option(
    "--scheduler", "schedulers", type=click.Choice(_SCHEDULERS), multiple=True, help="[default: all]"
)
@click.option(
    "--grace-period", "grace_periods", type=click.IntRange(1, 10**6), multiple=True, help="[default: 1, 3, 9]"
)
@click.option("--seeds", type=click.IntRange(1, 10**4), default=10, help="Replays of each combination.")
@click.option("--workers", type=click.IntRange(1, 10**4), default=4, help="Trials at the same time.")
@_results_option
@_quiet_option
@_json_option
def simulate(
    name: str | None, results_dir: Path, seeds: int, workers: int, quiet: bool, as_json: bool, **ways: Any
) -> None:
    """Replay the learning curves of the search NAME (default: the latest) in other ways.

    Says which sampler, scheduler and grace period would have found its best recipe sooner. Nothing is
    trained: a proposed recipe behaves like the most similar one that was recorded; each replay ends
    when it has found the best recipe, or after as many trials and epochs as the search had. Only trials
    trained in full can be replayed, so record with --scheduler none.

    \b
    tunekit search digits --space resnet --sampler random --scheduler none --samples 60 --name curves
    tunekit simulate curves
    tunekit simulate curves --sampler random --grace-period 1 --grace-period 3 --seeds 20
    """
    from tunekit.paths import find_search
    from tunekit.reporting import simulation

    recording = simulation.recorded(find_search(results_dir, name))
    combinations = simulation.combinations(recording.curves.epochs, **ways)
    say = (lambda line: None) if quiet else partial(click.echo, err=True)
    findings = simulation.simulate(recording, combinations, seeds, workers, say)
    if as_json:
        click.echo(json.dumps(simulation.simulation_json(recording, findings), indent=2))
        return
    click.echo(recording.text())
    _print_table(simulation.simulation_table(findings))


@main.command()
@click.argument("model")
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...", type=_GivenPath(path_type=Path))
@click.option("--top", type=click.IntRange(min=1), default=3, help="Classes named for each image.")
@_tracking_option
@_results_option
@_json_option
def predict(
    model: str, images: tuple[Path, ...], top: int, tracking_uri: str | None, results_dir: Path, as_json: bool
) -> None:
    """Name what each IMAGE shows; folders are searched for images.

    MODEL is a registered model (its version called best, else the latest), NAME@ALIAS, NAME/VERSION,
    models:/ID, or a .safetensors file of a search's weights.

    \b
    tunekit predict tunekit-digits photo.png
    tunekit predict tunekit-photos/3 photos/new --top 1 --json
    tunekit predict results/my-search/trials/0007/best.safetensors photo.png
    """
    from tunekit.reporting.prediction_table import prediction_rows, prediction_table
    from tunekit.retraining.model_source import load_model
    from tunekit.retraining.predict import predict as predict_images

    found = list(predict_images(load_model(model, results_dir, tracking_uri), images))
    rows = prediction_rows([prediction for prediction in found if not prediction.problem], top)
    if rows or as_json:
        _print(rows, as_json, prediction_table)
    problems = [prediction.problem for prediction in found if prediction.problem]
    for problem in problems:
        click.echo(f"Error: {_one_line(problem)}", err=True)
    if problems:
        sys.exit(1)


@main.command()
@click.argument("model")
@click.option("--format", "format_", type=click.Choice(_EXPORT_FORMATS), required=True, help="Of the file.")
@click.option(
    "--output",
    type=_GivenPath(path_type=Path, dir_okay=False),
    help="The file.  [default: here, named after model and format]",
)
@click.option("--force", is_flag=True, help="Replace a file that is there.")
@_tracking_option
@_results_option
def export(
    model: str, format_: str, output: Path | None, force: bool, tracking_uri: str | None, results_dir: Path
) -> None:
    """Write MODEL (as for 'tunekit predict') to a file that other programs read.

    The file takes images as they are, uint8 (N, height, width, channels) of any N, and gives
    probabilities. It is read back and compared with MODEL on random images before it gets its name.

    \b
    tunekit export tunekit-digits --format onnx
    tunekit export tunekit-digits@best --format torch-export --output digits.pt2 --force
    tunekit export results/my-search/trials/0007/best.safetensors --format state-dict
    """
    from tunekit.retraining.export import default_file, export_model
    from tunekit.retraining.model_source import load_model

    loaded = load_model(model, results_dir, tracking_uri)
    path = output or default_file(loaded, format_)
    if path.exists() and not force:
        raise click.ClickException(f"{path} exists: use --force to replace it")
    if path.exists() and path.resolve() == Path(model).resolve():
        raise click.ClickException(f"{path} is the model itself: choose another --output")
    check = export_model(loaded, path, format_)
    click.echo(
        f"{path}: read back, it differs from the model by at most {check.largest_difference:.1e} "
        f"in a probability ({check.images} random images, over which its own vary by {check.spread:.1e})"
    )


@main.group(cls=_Group, invoke_without_command=True)
@_data_option
@_json_option
@click.pass_context
def datasets(ctx: click.Context, data_dir: Path | None, as_json: bool) -> None:
    """List the data sets that are known by name, and whether they are here.

    Any folder of class folders is a data set too: give its path to 'tunekit search'.

    \b
    tunekit datasets
    tunekit datasets prepare cifar10
    """
    if ctx.invoked_subcommand is None:
        from tunekit.data.datasets import dataset_status

        _print(dataset_status(_data_dir(data_dir)), as_json, _dataset_table)


@datasets.command()
@click.argument("dataset")
@_image_size_option
@_data_option
def prepare(dataset: str, image_size: int | None, data_dir: Path | None) -> None:
    """Download (if need be), check and pack DATASET, so that a search can begin at once.

    \b
    tunekit datasets prepare cifar10 --data-dir data
    """
    from tunekit.data.datasets import open_dataset
    from tunekit.tuning.progress import tenths

    say = partial(click.echo, err=True)
    pack = open_dataset(_absolute_if_folder(dataset), _data_dir(data_dir), image_size, progress=tenths(say))
    height, width, channels = pack.shape
    click.echo(
        f"{pack.name}: {pack.train_count:,} training and {pack.test_count:,} test images of "
        f"{height}x{width}x{channels} in {len(pack.classes)} classes, packed in {pack.folder}"
    )


@main.group(cls=_Group, invoke_without_command=True)
@_json_option
@click.pass_context
def spaces(ctx: click.Context, as_json: bool) -> None:
    """List the search spaces that come with tunekit.

    \b
    tunekit spaces
    tunekit spaces show resnet
    tunekit spaces check my.toml
    """
    if ctx.invoked_subcommand is None:
        from tunekit.reporting.space_tables import space_rows, space_table

        _print(space_rows(), as_json, space_table)


@spaces.command()
@click.argument("space")
@_json_option
def show(space: str, as_json: bool) -> None:
    """Show what varies in SPACE (a name or a .toml file), and its baselines.

    \b
    tunekit spaces show resnet
    """
    from tunekit.paths import find_space
    from tunekit.reporting.space_tables import baseline_table, parameter_rows, parameter_table, space_dict
    from tunekit.space import load_space

    loaded = load_space(find_space(space))
    if as_json:
        click.echo(json.dumps(space_dict(loaded), indent=2))
        return
    click.echo(loaded.description or space)
    _print_table(parameter_table(parameter_rows(loaded)))
    if loaded.baselines:
        _print_table(baseline_table(loaded.baselines))


@spaces.command()
@click.argument("file")
def check(file: str) -> None:
    """Check a search space FILE: keys, types, ranges, conditions.

    \b
    tunekit spaces check my.toml
    """
    from tunekit.paths import find_space
    from tunekit.space import load_space

    space = load_space(find_space(file))
    click.echo(
        f"{file}: good: {len(space.parameters)} keys vary, {len(space.fixed)} are fixed, "
        f"{len(space.baselines)} baselines"
    )


@main.command()
@_json_option
def recipe(as_json: bool) -> None:
    """List every recipe key with its default and its rule: what a space may vary and --set may fix.

    \b
    tunekit recipe
    """
    from tunekit.reporting.space_tables import recipe_key_rows, recipe_key_table

    _print(recipe_key_rows(), as_json, recipe_key_table)


@main.command()
@click.option("--port", type=click.IntRange(1, 65535), default=5000)
@click.option("--host", default="127.0.0.1", callback=_given, help="Other addresses let others in.")
@_tracking_option
@_results_option
def ui(port: int, host: str, tracking_uri: str | None, results_dir: Path) -> None:
    """Open the MLflow UI on what was recorded; Ctrl-C ends it.

    \b
    tunekit ui
    tunekit ui --port 5001
    """
    from tunekit.tracking.server import serve_ui

    serve_ui(results_dir, tracking_uri, host, port)


def _train(
    dataset: str,
    space: str,
    baselines: Any,
    *,
    name: str | None,
    results_dir: Path,
    data_dir: Path | None,
    tracking_uri: str | None,
    time_budget: float | None,
    address: str | None,
    quiet: bool,
    **options: Any,
) -> None:
    from tunekit.tracking.server import tracking_uri as resolve_uri
    from tunekit.tuning.begin import begin_search, discard_unbegun
    from tunekit.tuning.progress import make_view
    from tunekit.tuning.ray_session import Machine
    from tunekit.tuning.settings import SearchSettings

    settings = SearchSettings(
        name=name or _default_name(dataset, space),
        dataset=_absolute_if_folder(dataset),
        space=_absolute_if_folder(space),
        data_dir=str(_data_dir(data_dir)),
        tracking_uri=resolve_uri(results_dir, tracking_uri),
        **options,
    )
    view = make_view(quiet)
    paths = begin_search(settings, results_dir, view, Machine(address=address), baselines)
    try:
        _run(paths, view, time_budget, address)
    except (ResourceError, StorageError):
        discard_unbegun(paths)
        raise


def _join(address: str | None) -> str | None:
    """What is joined, or None; told to Ray before it is imported, since a cluster has a token of its own."""
    if address in (None, "", "local"):
        os.environ.pop("RAY_ADDRESS", None)
        return None
    assert address is not None
    os.environ["RAY_ADDRESS"] = address
    return address


def _is_job_server(address: str | None) -> bool:
    return bool(address) and str(address).lower().startswith(("http://", "https://"))


def _job_server(address: str | None) -> str:
    if address is None or not _is_job_server(address):
        raise click.UsageError(f"--address must be that of a job server, http://HOST:8265, but got {address}")
    return address


def _as_job(ctx: click.Context) -> Any:
    """What was typed, as a command for a cluster; a search gets its name here, a space file goes along."""
    from tunekit.tracking.server import tracking_uri
    from tunekit.tuning.remote_job import RemoteCommand

    command, typed = ctx.command.name or "", dict(ctx.meta["tunekit.typed"])
    typed.pop("address", None)
    trains = _trained_search(ctx) if command in _TRAINING else None
    if command in ("search", "baseline"):
        typed["name"] = trains
    space_file = _own_space(ctx.params.get("space"))
    if space_file:
        del typed["space"]
    if str(typed.get("tracking_uri")).startswith(("http://", "https://")):
        typed["tracking_uri"] = tracking_uri(Path(), typed["tracking_uri"])  # a password is not for the words
    for param in ctx.command.params:
        if ctx.get_parameter_source(param.name or "") is _FROM_ENVIRONMENT and param.name != "address":
            _note(f"Note: {param.opts[0]} of the environment here does not go along: give it as an option")
    options, arguments = _words(ctx.command, typed)
    return RemoteCommand((command, *options), tuple(arguments), trains, space_file)


def _words(command: click.Command, typed: dict[str, Any]) -> tuple[list[str], list[str]]:
    """Options and arguments that say again what click's parser made of them."""
    options: list[str] = []
    arguments: list[str] = []
    for param in command.params:
        value = typed.get(param.name or "")
        values: Any = value if isinstance(value, list | tuple) else [value] * isinstance(value, str)
        if isinstance(param, click.Argument):
            arguments += values
        elif value is True:
            options.append(param.opts[0])
        else:
            options += [f"{param.opts[0]}={one}" for one in values]
    return options, arguments


def _trained_search(ctx: click.Context) -> str:
    given = ctx.params
    patterns = given.get("patterns") or [given.get("baseline_id")]
    if name := given.get("name") or given.get("folder_name"):
        return str(name)
    if ctx.command.name == "search":
        return _default_name(given["dataset"], given["space"])
    if patterns[0]:
        return _default_name("", patterns[0])
    raise click.UsageError("give the NAME of the search: only the cluster knows which one is the latest")


def _own_space(space: str | None) -> Path | None:
    """The file of a search space that lies here, checked; None for the name of a space, or a file there."""
    from tunekit.paths import find_space, shipped_spaces
    from tunekit.space import load_space

    if not space or space in shipped_spaces() or not Path(space).is_file():
        return None
    load_space(find_space(space))
    return Path(space)


def _echo_line(line: str) -> None:
    click.echo(_printable(line), nl=False)


def _note(line: str) -> None:
    click.echo(line, err=True)


def _print_parcel(name: str, results_dir: str | None) -> None:
    from tunekit.paths import find_search
    from tunekit.tuning.parcel import pack

    where = results_dir or os.environ.get("TUNEKIT_RESULTS_DIR") or "results"
    for line in pack(find_search(Path(where), name)):
        click.echo(line)


def _run(
    paths: Any, view: Any, time_budget: float | None, address: str | None, disk_budget: int | None = None
) -> None:
    from tunekit.reporting.choices import scientific_comparisons
    from tunekit.reporting.leaderboard import baseline_rows, baseline_table, summary, trial_rows, trial_table
    from tunekit.reporting.report import tell
    from tunekit.tuning.progress import duration
    from tunekit.tuning.ray_session import Machine
    from tunekit.tuning.search import run_search

    outcome = run_search(paths, view, time_budget, Machine(address=address), tell, disk_budget)
    _print_table(trial_table(trial_rows(paths), most=10))
    if known := baseline_rows(paths):
        _print_table(baseline_table(known))
    comparisons = scientific_comparisons(paths) if outcome.history.best() else []
    for comparison in comparisons:
        click.echo(comparison.verdict())
    how = "finished" if outcome.finished else "stopped" if outcome.problem else "interrupted"
    click.echo(f"\nSearch {paths.name} {how} after {duration(outcome.seconds)}.")
    click.echo(summary(paths))
    where = _results_flag(paths.folder.parent)
    if outcome.untracked_events:
        click.echo(
            f"{outcome.untracked_events} events are not in MLflow yet: 'tunekit resume' delivers them."
        )
    if not outcome.finished:
        click.echo(f"Go on with:  tunekit resume {paths.name}{where}")
    if outcome.problem:
        raise click.ClickException(f"search {paths.name} stopped: {outcome.problem}")
    if not outcome.finished:
        sys.exit(130)
    click.echo(f"Best recipe: tunekit best {paths.name}{where}")
    if comparisons:
        click.echo(f"Choices:     tunekit choices {paths.name}{where}")
    click.echo(f"Report:      {paths.report}")
    if paths.proposed_space.is_file():
        click.echo(f"Next space:  {paths.proposed_space}  (with --start-from {paths.name})")
    click.echo(f"Review:      tunekit ui{where}")
    click.echo(f"A model:     tunekit retrain-best {paths.name}{where}")


def _ask(paths: Any, request: Any) -> Any:
    """Ask something of a search and say what came of it; None if it was not answered yet."""
    from tunekit.tuning.control import ask

    answer = ask(paths, request)
    if answer is None:
        click.echo(
            f"Asked, but not answered yet: the process that works on search {paths.name} does it when it "
            "looks, or the next 'tunekit resume' does; 'tunekit status' shows where it stands."
        )
    else:
        click.echo(_one_line(f"{answer.words[:1].upper()}{answer.words[1:]}."))
    return answer


def _only_with_baselines(*names: str) -> None:
    ctx = click.get_current_context()
    for option in ctx.command.params:
        given = ctx.get_parameter_source(option.name or "") is click.core.ParameterSource.COMMANDLINE
        if option.name in names and given:
            raise click.UsageError(f"{option.opts[0]} goes with --baseline: a search has its own")


def _known_folders(
    patterns: tuple[str, ...],
    results_dir: Path,
    data_dir: Path | None,
    tracking_uri: str | None,
    view: Any,
    **own: Any,
) -> list[Any]:
    from tunekit.retraining.known_recipes import folders_of_known
    from tunekit.tracking.server import tracking_uri as resolve_uri
    from tunekit.tuning.settings import SearchSettings

    settings = SearchSettings(
        dataset="",  # it and the space follow from the baselines
        space="",
        samples=0,
        epochs=1,
        seed=0,
        data_dir=str(_data_dir(data_dir)),
        tracking_uri=resolve_uri(results_dir, tracking_uri),
        **own,
    )
    return list(folders_of_known(patterns, settings, results_dir, view))


def _show_retraining(paths: Any, outcome: Any) -> None:
    from tunekit.reporting import retraining_tables as tables
    from tunekit.tuning.progress import duration

    result, where = outcome.result, _results_flag(paths.folder.parent)
    if result is None:
        what = f"Interrupted after {duration(outcome.seconds)}: the same command goes on."
        if outcome.lost:
            what = f"The machine failed {len(outcome.lost)} trainings: the same command tries them again."
        click.echo("\n".join(["", *outcome.lost, what]))
        return
    _print_table(tables.standings_table(result))
    for line in (*tables.failure_lines(result), *result["verdicts"]):
        click.echo(line)
    click.echo()
    _print_table(tables.accuracy_table(result))
    lines = [*tables.model_lines(result), tables.opening_line(result)]
    for line in (*lines, tables.registration_line(result, outcome.problem)):
        click.echo(line)
    how = "was done before: nothing was trained or opened now"
    if not outcome.known:
        how = f"finished after {duration(outcome.seconds)}"
    click.echo(f"\nRetraining of {paths.name} {how}.")
    click.echo(f"Pictures:  {paths.retraining.opening(result['opening']['number'])}")
    if result["registration"]:
        click.echo(f"Use it:    tunekit predict {result['registration']['name']} IMAGE{where}")
    click.echo(f"Report:    {paths.report}")
    click.echo(f"Review:    tunekit ui{where}")


def _results_flag(results_dir: Path) -> str:
    return "" if results_dir == Path("results").resolve() else f" --results-dir {results_dir}"


def _default_name(dataset: str, space: str) -> str:
    words = [Path(dataset).name, Path(space).stem, time.strftime("%Y%m%d-%H%M%S")]
    return re.sub(r"[^A-Za-z0-9._-]+", "-", "-".join(filter(None, words))).lstrip("-._")[:100]


def _absolute_if_folder(name: str) -> str:
    """Paths are recorded whole, so that a resume from another folder finds them; names stay names."""
    path = Path(name)
    is_path = bool(name) and path.exists() and ("/" in name or path.suffix == ".toml" or path.is_dir())
    return str(path.resolve()) if is_path else name


def _data_dir(data_dir: Path | None) -> Path:
    from tunekit.paths import default_data_dir

    return (data_dir or default_data_dir()).resolve()


def _dataset_table(rows: list[dict[str, Any]]) -> Any:
    from tunekit.reporting.space_tables import dataset_table

    return dataset_table(rows)


def _print(rows: Any, as_json: bool, table: Callable[[Any], Any]) -> None:
    if as_json:
        click.echo(json.dumps(rows, indent=2))
    else:
        _print_table(table(rows))


def _print_table(table: Any) -> None:
    from rich.console import Console
    from rich.segment import Segment, Segments

    # A pipe has no width: lines keep their length, so that grep sees whole rows.
    console = Console() if sys.stdout.isatty() else Console(width=400)
    rows = (Segment(_printable(text), style) for text, style, _ in console.render(table))
    console.print(Segments(rows), end="")


def _one_line(message: str) -> str:
    """A message as one line that a terminal can show, without the middle of what is endless."""
    line = _printable(" ".join(message.split()))
    if len(line) <= _LONGEST_MESSAGE:
        return line
    return f"{line[: _LONGEST_MESSAGE // 2]} ... {line[-_LONGEST_MESSAGE // 2 :]}"


def _printable(text: str) -> str:
    """Names and files of others may hold what moves a terminal's cursor or turns its text round."""
    return "".join(char if char.isprintable() or char == "\n" else repr(char)[1:-1] for char in text)


if __name__ == "__main__":
    main()
