"""Commands that show what searches found: searches, trials, best, choices, report, compare, simulate, ui."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import click

from tunekit.cli.group import Command
from tunekit.cli.options import (
    json_option,
    name_argument,
    not_empty,
    quiet_option,
    results_option,
    tracking_option,
)
from tunekit.cli.printing import print_rows, print_table
from tunekit.cli.searching import SAMPLERS, SCHEDULERS


@click.command(cls=Command)
@results_option
@json_option
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
    print_rows(rows, as_json, search_table)


@click.command(cls=Command)
@name_argument
@results_option
@json_option
def trials(name: str | None, results_dir: Path, as_json: bool) -> None:
    """List the trials of the search NAME (default: the latest), best first.

    \b
    tunekit trials
    tunekit trials --json | jq '.[0].params'
    """
    from tunekit.paths import find_search
    from tunekit.reporting.leaderboard import trial_rows, trial_table

    print_rows(trial_rows(find_search(results_dir, name)), as_json, trial_table)


@click.command(cls=Command)
@name_argument
@results_option
@json_option
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
    print_table(recipe_table(flatten(row["recipe"])))
    click.echo(f"weights: {row['checkpoint']}")


@click.command(cls=Command)
@name_argument
@click.option(
    "--key", callback=not_empty, help="One recipe key.  [default: all that the space calls scientific]"
)
@results_option
@json_option
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
        print_table(choice_table(comparison))
        click.echo(f"{comparison.verdict()}\n")
    if not found:
        click.echo(f"search {paths.name}: no key has two values with a trial that ended yet")


@click.command(cls=Command)
@name_argument
@click.option("--open", "open_it", is_flag=True, help="Open it in the browser.")
@results_option
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


@click.command(cls=Command)
@click.argument("names", nargs=-1, required=True, metavar="SEARCH...")
@results_option
@json_option
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
        print_table(comparison_table(rows))
    for warning in warnings(rows):
        click.echo(f"Note: {warning}", err=True)


@click.command(cls=Command)
@name_argument
@click.option("--sampler", "samplers", type=click.Choice(SAMPLERS), multiple=True, help="[default: all]")
@click.option(
    "--scheduler", "schedulers", type=click.Choice(SCHEDULERS), multiple=True, help="[default: all]"
)
@click.option(
    "--grace-period", "grace_periods", type=click.IntRange(1, 10**6), multiple=True, help="[default: 1, 3, 9]"
)
@click.option("--seeds", type=click.IntRange(1, 10**4), default=10, help="Replays of each combination.")
@click.option("--workers", type=click.IntRange(1, 10**4), default=4, help="Trials at the same time.")
@results_option
@quiet_option
@json_option
def simulate(
    name: str | None, results_dir: Path, seeds: int, workers: int, quiet: bool, as_json: bool, **ways: Any
) -> None:
    """Replay the learning curves of the search NAME (default: the latest) in other ways.

    Says which sampler, scheduler and grace period would have found its best recipe sooner. Nothing is
    trained: a proposed recipe behaves like the most similar one that was recorded (how well that tells
    results is printed); each replay ends when it has found the best recipe, or after as many trials and
    epochs as the search had. Only trials trained in full can be replayed, so record with --scheduler none.

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
    print_table(simulation.simulation_table(findings))


@click.command(cls=Command)
@click.option("--port", type=click.IntRange(1, 65535), default=5000)
@click.option("--host", default="127.0.0.1", callback=not_empty, help="Other addresses let others in.")
@tracking_option
@results_option
def ui(port: int, host: str, tracking_uri: str | None, results_dir: Path) -> None:
    """Open the MLflow UI on what was recorded; Ctrl-C ends it.

    \b
    tunekit ui
    tunekit ui --port 5001
    """
    from tunekit.tracking.server import serve_ui

    serve_ui(results_dir, tracking_uri, host, port)
