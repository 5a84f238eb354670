"""Commands on what a search may use: data sets, search spaces, recipe keys."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import click

from tunekit.cli.group import Command, Group
from tunekit.cli.options import data_option, image_size_option, json_option
from tunekit.cli.places import absolute_if_folder, data_folder
from tunekit.cli.printing import print_rows, print_table


@click.group(cls=Group, invoke_without_command=True)
@data_option
@json_option
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

        print_rows(dataset_status(data_folder(data_dir)), as_json, _dataset_table)


@datasets.command()
@click.argument("dataset")
@image_size_option
@data_option
def prepare(dataset: str, image_size: int | None, data_dir: Path | None) -> None:
    """Download (if need be), check and pack DATASET, so that a search can begin at once.

    \b
    tunekit datasets prepare cifar10 --data-dir data
    """
    from tunekit.data.datasets import open_dataset
    from tunekit.tuning.progress import tenths

    say = partial(click.echo, err=True)
    pack = open_dataset(absolute_if_folder(dataset), data_folder(data_dir), image_size, progress=tenths(say))
    height, width, channels = pack.shape
    click.echo(
        f"{pack.name}: {pack.train_count:,} training and {pack.test_count:,} test images of "
        f"{height}x{width}x{channels} in {len(pack.classes)} classes, packed in {pack.folder}"
    )


@click.group(cls=Group, invoke_without_command=True)
@json_option
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

        print_rows(space_rows(), as_json, space_table)


@spaces.command()
@click.argument("space")
@json_option
def show(space: str, as_json: bool) -> None:
    """Show what varies in SPACE (a name or a .toml file), its prior, warm starts and baselines.

    \b
    tunekit spaces show resnet
    """
    from tunekit.paths import find_space
    from tunekit.reporting.space_tables import (
        baseline_table,
        parameter_rows,
        parameter_table,
        space_dict,
        warm_start_table,
    )
    from tunekit.space import load_space
    from tunekit.tuning.prior import read_prior, searches_in_words

    loaded = load_space(find_space(space))
    if as_json:
        click.echo(json.dumps(space_dict(loaded), indent=2))
        return
    click.echo(loaded.description or space)
    print_table(parameter_table(parameter_rows(loaded)))
    if prior := read_prior(find_space(space).parent, loaded):
        click.echo(f"Prior: {searches_in_words(prior)}")
    if loaded.warm_starts:
        print_table(warm_start_table(loaded))
    if loaded.baselines:
        print_table(baseline_table(loaded.baselines))


@spaces.command()
@click.argument("file")
def check(file: str) -> None:
    """Check a search space FILE: keys, types, ranges, conditions.

    \b
    tunekit spaces check my.toml
    """
    from tunekit.paths import find_space
    from tunekit.space import load_space
    from tunekit.tuning.prior import read_prior, searches_in_words

    space = load_space(find_space(file))
    prior = searches_in_words(read_prior(find_space(file).parent, space))
    click.echo(
        f"{file}: good: {len(space.parameters)} keys vary, {len(space.fixed)} are fixed, "
        f"{len(space.warm_starts)} warm starts, {len(space.baselines)} baselines"
        f"{f', a prior of {prior}' if prior else ''}"
    )


@click.command(cls=Command)
@json_option
def recipe(as_json: bool) -> None:
    """List every recipe key with its default and its rule: what a space may vary and --set may fix.

    \b
    tunekit recipe
    """
    from tunekit.reporting.space_tables import recipe_key_rows, recipe_key_table

    print_rows(recipe_key_rows(), as_json, recipe_key_table)


def _dataset_table(rows: list[dict[str, Any]]) -> Any:
    from tunekit.reporting.space_tables import dataset_table

    return dataset_table(rows)
