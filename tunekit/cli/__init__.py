"""The command line: parse, call one function, print. Imports click alone until a command runs."""

from __future__ import annotations

import atexit
import os
import sys
import threading
from contextlib import suppress

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


def run() -> None:
    """`tunekit` as a program: `main`, and then an end at once.

    Python would take 2 s to take apart what torch, MLflow and scikit-learn have loaded.
    """
    try:
        main()
    except SystemExit as ended:
        if any(
            not thread.daemon for thread in threading.enumerate() if thread is not threading.main_thread()
        ):
            raise
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):  # nobody reads any more
                stream.flush()
        os._exit(ended.code if isinstance(ended.code, int) else bool(ended.code))


for _command in (
    *(searching.search, searching.baseline, searching.resume),
    *(control.attach, control.fetch, control.status, control.extend, control.stop),
    *(listings.searches, listings.trials, listings.best, listings.choices, listings.report),
    *(listings.compare, listings.simulate, listings.ui),
    *(retraining.retrain_best, models.predict, models.export),
    *(catalogue.datasets, catalogue.spaces, catalogue.recipe),
):
    main.add_command(_command)
