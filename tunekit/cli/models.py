"""Commands on a model that was handed over: predict, export."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from tunekit.cli.group import Command
from tunekit.cli.options import GivenPath, json_option, results_option, tracking_option
from tunekit.cli.printing import one_line, print_rows

_EXPORT_FORMATS = ("onnx", "torch-export", "state-dict")


@click.command(cls=Command)
@click.argument("model")
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...", type=GivenPath(path_type=Path))
@click.option("--top", type=click.IntRange(min=1), default=3, help="Classes named for each image.")
@tracking_option
@results_option
@json_option
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
        print_rows(rows, as_json, prediction_table)
    problems = [prediction.problem for prediction in found if prediction.problem]
    for problem in problems:
        click.echo(f"Error: {one_line(problem)}", err=True)
    if problems:
        sys.exit(1)


@click.command(cls=Command)
@click.argument("model")
@click.option("--format", "format_", type=click.Choice(_EXPORT_FORMATS), required=True, help="Of the file.")
@click.option(
    "--output",
    type=GivenPath(path_type=Path, dir_okay=False),
    help="The file.  [default: here, named after model and format]",
)
@click.option("--force", is_flag=True, help="Replace a file that is there.")
@tracking_option
@results_option
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
