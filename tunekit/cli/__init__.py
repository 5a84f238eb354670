"""The command line: parse, call one function, print. Imports click alone until a command runs."""

from __future__ import annotations

import click

from tunekit import __version__
from tunekit.cli import catalogue, control, listings, models, retraining, searching
from tunekit.cli.group import Group


@click.group(
    cls=Group,
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


for _command in (
    *(searching.search, searching.baseline, searching.resume),
    *(control.attach, control.fetch, control.status, control.extend, control.stop),
    *(listings.searches, listings.trials, listings.best, listings.choices, listings.report),
    *(listings.compare, listings.simulate, listings.ui),
    *(retraining.retrain_best, models.predict, models.export),
    *(catalogue.datasets, catalogue.spaces, catalogue.recipe),
):
    main.add_command(_command)
