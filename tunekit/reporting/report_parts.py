"""What a section of the report is made of: words, figures, tables, pictures, text to copy."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from tunekit.reporting.charts import Figure

_NOTHING = "-"


@dataclass(frozen=True)
class Cell:
    """One field of a table: what is read, and what it is sorted by."""

    text: str
    order: float | str = ""  # a number, a word, or "" for nothing, which stays last
    number: bool = False


@dataclass(frozen=True)
class Words:
    """Sentences, each a paragraph."""

    kind: ClassVar[str] = "words"
    sentences: tuple[str, ...]


@dataclass(frozen=True)
class Drawing:
    """A figure with its name in the page, a heading and what one sees and how to read it."""

    name: str
    figure: Figure
    title: str = ""
    words: str = ""


@dataclass(frozen=True)
class Drawings:
    """Figures side by side as far as there is room."""

    kind: ClassVar[str] = "drawings"
    drawings: tuple[Drawing, ...]
    size: str = "whole"  # of each: "whole", "half" or "small"


@dataclass(frozen=True)
class Table:
    """A table that can be sorted."""

    kind: ClassVar[str] = "table"
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    title: str = ""
    words: str = ""

    @property
    def numbers(self) -> tuple[bool, ...]:
        """Which columns hold numbers; they stand to the right."""
        return tuple(any(cell.number for cell in column) for column in zip(*self.rows, strict=True))


@dataclass(frozen=True)
class Picture:
    """An image inside the page."""

    name: str
    address: str  # a data URI


@dataclass(frozen=True)
class Pictures:
    """Images below each other, or side by side as far as there is room."""

    kind: ClassVar[str] = "pictures"
    pictures: tuple[Picture, ...]


@dataclass(frozen=True)
class Folded:
    """A text that opens on a click, and can be copied."""

    kind: ClassVar[str] = "folded"
    name: str
    title: str
    text: str


Part = Words | Drawings | Table | Pictures | Folded


@dataclass(frozen=True)
class Section:
    """A part of the page with a heading, which the navigation leads to."""

    name: str
    title: str
    parts: Sequence[Part] = ()
    link: str = ""  # shorter words for the navigation


def number(value: float | None, form: str = "") -> Cell:
    """A number, in Python's format `form`; None is shown as a dash."""
    return Cell(_NOTHING, "", True) if value is None else Cell(format(value, form), float(value), True)


def accuracy(value: float | None) -> Cell:
    """An accuracy, 0 to 1, with four digits."""
    return number(value, ".4f")


def word(value: object) -> Cell:
    """A word, a number of a recipe or nothing, shown as people write it."""
    if value is None or value == "":
        return Cell(_NOTHING)
    if isinstance(value, float):
        return number(value, ".4g")
    if isinstance(value, int) and not isinstance(value, bool):
        return number(value)
    return Cell(str(value), str(value))


def interval(low: float | None, high: float | None, form: str = ".4f") -> Cell:
    """`0.9012 to 0.9134`, sorted by its lower end."""
    if low is None or high is None:
        return Cell(_NOTHING, "", True)
    return Cell(f"{low:{form}} to {high:{form}}", float(low), True)


def table(columns: Iterable[str], rows: Iterable[Iterable[Cell]], title: str = "", words: str = "") -> Table:
    """A table from rows of cells."""
    made = Table(tuple(columns), tuple(tuple(row) for row in rows), title, words)
    assert all(len(row) == len(made.columns) for row in made.rows)
    return made
