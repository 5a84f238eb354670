"""Commands that search: search, baseline, resume."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from tunekit.cli.group import Command
from tunekit.cli.options import (
    address_option,
    budget_option,
    disk_option,
    name_argument,
    not_empty,
    quiet_option,
    results_option,
    training_options,
)
from tunekit.cli.places import absolute_if_folder, data_folder, default_name, results_flag
from tunekit.cli.printing import print_table
from tunekit.errors import ResourceError, StorageError

SAMPLERS = ("portfolio", "rung-tpe", "random")
SCHEDULERS = ("asha-promotion", "asha", "hyperband", "median", "none")


@click.command(cls=Command)
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
    type=click.Choice(SAMPLERS),
    default=SAMPLERS[0],
    help="Proposes recipes.",
)
@click.option(
    "--scheduler",
    type=click.Choice(SCHEDULERS),
    default=SCHEDULERS[0],
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
@training_options
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


@click.command(cls=Command)
@click.argument("baseline_id", metavar="ID")
@click.option("--epochs", type=click.IntRange(max=10**6), help="[default: as reported]")
@click.option("--dataset", callback=not_empty, help="[default: the one it was reported for]")
@click.option(
    "--space", callback=not_empty, help="The space that lists it.  [default: the shipped one that does]"
)
@training_options
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
    options["name"] = options["name"] or default_name("", baseline_id)
    _train(dataset, space, [known], samples=0, epochs=epochs, **options)


@click.command(cls=Command)
@name_argument
@budget_option
@disk_option
@address_option
@results_option
@quiet_option
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
        name=name or default_name(dataset, space),
        dataset=absolute_if_folder(dataset),
        space=absolute_if_folder(space),
        data_dir=str(data_folder(data_dir)),
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


def _run(
    paths: Any, view: Any, time_budget: float | None, address: str | None, disk_budget: int | None = None
) -> None:
    from tunekit.tuning.ray_session import Machine
    from tunekit.tuning.search import run_search

    machine = Machine(address=address)
    outcome = run_search(paths, view, time_budget, machine, _tell, disk_budget, _load_for_the_end)
    _show(paths, outcome)


def _tell(paths: Any, outcome: Any) -> Any:
    """The report is made when trials have ended: what it imports would keep them waiting."""
    from tunekit.reporting.report import tell

    return tell(paths, outcome)


def _load_for_the_end() -> None:
    import tunekit.reporting.report
    import tunekit.tuning.winner  # noqa: F401
    from tunekit.tracking.model import load_exporter

    load_exporter()


def _show(paths: Any, outcome: Any) -> None:
    from tunekit.reporting.choices import scientific_comparisons
    from tunekit.reporting.leaderboard import baseline_rows, baseline_table, summary, trial_rows, trial_table
    from tunekit.tuning.progress import duration

    print_table(trial_table(trial_rows(paths), most=10))
    if known := baseline_rows(paths):
        print_table(baseline_table(known))
    comparisons = scientific_comparisons(paths) if outcome.history.best() else []
    for comparison in comparisons:
        click.echo(comparison.verdict())
    how = "finished" if outcome.finished else "stopped" if outcome.problem else "interrupted"
    click.echo(f"\nSearch {paths.name} {how} after {duration(outcome.seconds)}.")
    click.echo(summary(paths))
    where = results_flag(paths.folder.parent)
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
