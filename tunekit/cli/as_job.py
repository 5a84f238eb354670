"""A typed command as a job for a cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from tunekit.cli.places import default_name
from tunekit.cli.printing import note

_FROM_ENVIRONMENT = click.core.ParameterSource.ENVIRONMENT
_TRAINING = ("search", "baseline", "resume", "retrain-best")  # as a job they run on after Ctrl-C


def as_job(ctx: click.Context) -> Any:
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
            note(f"Note: {param.opts[0]} of the environment here does not go along: give it as an option")
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
        return default_name(given["dataset"], given["space"])
    if patterns[0]:
        return default_name("", patterns[0])
    raise click.UsageError("give the NAME of the search: only the cluster knows which one is the latest")


def _own_space(space: str | None) -> Path | None:
    """The file of a search space that lies here, checked; None for the name of a space, or a file there."""
    from tunekit.paths import find_space, shipped_spaces
    from tunekit.space import load_space
    from tunekit.tuning.prior import read_prior

    if not space or space in shipped_spaces() or not Path(space).is_file():
        return None
    read_prior(Path(space).parent, load_space(find_space(space)))
    return Path(space)
