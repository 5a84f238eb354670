"""Commands on a search that runs here or on a cluster: attach, fetch, status, extend, stop."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import click

from tunekit.cli.addresses import job_server
from tunekit.cli.group import Command
from tunekit.cli.options import (
    GivenPath,
    Samples,
    job_server_option,
    json_option,
    name_argument,
    not_empty,
    results_option,
    there_option,
)
from tunekit.cli.places import results_flag
from tunekit.cli.printing import echo_line, note, one_line, print_table, printable

_PATIENCE_AT_STOP = 60.0  # seconds; a search writes its report and tells MLflow before it ends


@click.command()
@name_argument
@job_server_option
def attach(name: str | None, address: str | None) -> None:
    """Follow the job of the search NAME (default: the latest job) on a cluster, from its first line on.

    Ctrl-C leaves it running; else the exit code is that of the job.

    \b
    tunekit attach cifar10-deep --address http://127.0.0.1:8265
    """
    from tunekit.tuning.remote_job import attach as follow

    sys.exit(follow(job_server(address), name, echo_line, note))


@click.command()
@click.argument("name")
@job_server_option
@click.option(
    "--to",
    type=GivenPath(path_type=Path, file_okay=False),
    default=Path("results"),
    envvar="TUNEKIT_RESULTS_DIR",
    show_envvar=True,
    help="Where searches lie here; - prints it as text.",
)
@click.option(
    "--results-dir", callback=not_empty, help="Where searches lie on the cluster.  [default: as there]"
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
    paths = bring(job_server(address), RemoteCommand(tuple(words), (name,)), to, name)
    click.echo(f"Search {name} is in {paths.folder}")
    click.echo(f"Best recipe: tunekit best {name}{results_flag(paths.folder.parent)}")


@click.command(cls=Command)
@name_argument
@there_option
@results_option
@json_option
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
        click.echo(printable(line))
    if row["unfinished"]:
        click.echo()
        print_table(unfinished_table(row))


@click.command(cls=Command)
@click.argument("name")
@click.option("--samples", type=Samples(), help="Samples in all, or +N for N more.")
@click.option("--epochs", hidden=True)
@there_option
@results_option
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
        click.echo(f"Go on with:  tunekit resume {paths.name}{results_flag(paths.folder.parent)}")


@click.command(cls=Command)
@click.argument("name")
@click.option("--trial", type=click.IntRange(0, 10**6), help="End this trial alone; the search goes on.")
@there_option
@results_option
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
        where = results_flag(paths.folder.parent)
        click.echo(f"It has ended. Go on with:  tunekit resume {paths.name}{where}")
    else:
        click.echo(f"It still writes its report: 'tunekit status {paths.name}' says when it has ended.")


def _print_parcel(name: str, results_dir: str | None) -> None:
    from tunekit.paths import find_search
    from tunekit.tuning.parcel import pack

    where = results_dir or os.environ.get("TUNEKIT_RESULTS_DIR") or "results"
    for line in pack(find_search(Path(where), name)):
        click.echo(line)


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
        click.echo(one_line(f"{answer.words[:1].upper()}{answer.words[1:]}."))
    return answer
