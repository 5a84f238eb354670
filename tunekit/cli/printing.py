"""Rows as a table or JSON, messages as one line: what is printed moves no cursor."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import click

_LONGEST_MESSAGE = 600  # characters; what came may be a whole file


def print_rows(rows: Any, as_json: bool, table: Callable[[Any], Any]) -> None:
    if as_json:
        click.echo(json.dumps(rows, indent=2))
    else:
        print_table(table(rows))


def print_table(table: Any) -> None:
    from rich.console import Console
    from rich.segment import Segment, Segments

    # A pipe has no width: lines keep their length, so that grep sees whole rows.
    console = Console() if sys.stdout.isatty() else Console(width=400)
    rows = (Segment(printable(text), style) for text, style, _ in console.render(table))
    console.print(Segments(rows), end="")


def echo_line(line: str) -> None:
    click.echo(printable(line), nl=False)


def note(line: str) -> None:
    click.echo(line, err=True)


def one_line(message: str) -> str:
    """A message as one line that a terminal can show, without the middle of what is endless."""
    line = printable(" ".join(message.split()))
    if len(line) <= _LONGEST_MESSAGE:
        return line
    return f"{line[: _LONGEST_MESSAGE // 2]} ... {line[-_LONGEST_MESSAGE // 2 :]}"


def printable(text: str) -> str:
    """Names and files of others may hold what moves a terminal's cursor or turns its text round."""
    return "".join(char if char.isprintable() or char == "\n" else repr(char)[1:-1] for char in text)
