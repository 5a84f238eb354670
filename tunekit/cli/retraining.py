"""retrain-best: from a finished search to a model with a test score."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from tunekit.cli.group import Command
from tunekit.cli.options import (
    GpuShare,
    Share,
    address_option,
    budget_option,
    data_option,
    json_option,
    name_argument,
    not_empty,
    quiet_option,
    results_option,
    tracking_option,
)
from tunekit.cli.places import data_folder, results_flag
from tunekit.cli.printing import print_table


@click.command("retrain-best", cls=Command)
@name_argument
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
    callback=not_empty,
    help="With --baseline: name of the folder.  [default: the recipes']",
)
@click.option("--train-limit", type=int, help="With --baseline: use a part of so many training images.")
@click.option(
    "--val-fraction", type=float, default=0.2, help="With --baseline: share of them that validates."
)
@click.option("--cpus-per-trial", type=Share(), help="[default: the search's]")
@click.option("--gpus-per-trial", type=GpuShare(), help="A number, or auto.  [default: the search's]")
@address_option
@tracking_option
@budget_option
@results_option
@data_option
@quiet_option
@json_option
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
        data_dir=str(data_folder(data_dir)),
        tracking_uri=resolve_uri(results_dir, tracking_uri),
        **own,
    )
    return list(folders_of_known(patterns, settings, results_dir, view))


def _show_retraining(paths: Any, outcome: Any) -> None:
    from tunekit.reporting import retraining_tables as tables
    from tunekit.tuning.progress import duration

    result, where = outcome.result, results_flag(paths.folder.parent)
    if result is None:
        what = f"Interrupted after {duration(outcome.seconds)}: the same command goes on."
        if outcome.lost:
            what = f"The machine failed {len(outcome.lost)} trainings: the same command tries them again."
        click.echo("\n".join(["", *outcome.lost, what]))
        return
    print_table(tables.standings_table(result))
    for line in (*tables.failure_lines(result), *result["verdicts"]):
        click.echo(line)
    click.echo()
    print_table(tables.accuracy_table(result))
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
