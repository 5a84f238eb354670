"""The space file of a search with what the advice changes, and all else as it was."""

from __future__ import annotations

import textwrap
import tomllib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from tunekit.reporting.facts import Facts
from tunekit.reporting.space_findings import Change, Finding
from tunekit.space import Parameter, SearchSpace


def propose_space(facts: Facts, findings: Sequence[Finding]) -> str | None:
    """The search's space file with what the advice changes, and a comment above each change.

    Keys that `--set` fixed are fixed in it, so that `tunekit search DATASET --space FILE --start-from SEARCH`
    goes on from this search.

    Returns:
        A valid space file as text; None if no advice changes the space.
    """
    changes, comments = _by_key(findings)
    if not changes:
        return None
    document = _parsed(facts.paths.space.read_text(encoding="utf-8"))
    _fix(document, facts)
    dropped = _leave_out(document["space"], changes, facts.space)
    for key in changes.keys() - dropped:
        _move_ends(document["space"][key], facts.space.parameters[key], changes[key])
    document["space"] = _with_comments(document["space"], comments)
    for others in ("warm_start", "prior"):  # the search itself knows better, and they may lie outside now
        document.pop(others, None)
    name, was = facts.paths.name, facts.space.description or facts.settings.space
    document["description"] = f"{was}: changed after search {name}"
    text = (
        f"# The space of search {name}, changed where its trials said so: the comments say why.\n#\n"
        f"#   tunekit search {facts.settings.dataset} --space FILE --start-from {name}\n#\n"
        f"{document.as_string()}"
    )
    SearchSpace.from_dict(tomllib.loads(text), "the proposed space").check_recipe_keys()
    return text


def _by_key(findings: Sequence[Finding]) -> tuple[dict[str, Change], dict[str, list[str]]]:
    """What is to change of each key, and why."""
    changes: dict[str, list[Change]] = defaultdict(list)
    comments: dict[str, list[str]] = defaultdict(list)
    for finding in findings:
        if finding.key is not None and finding.change is not None:
            changes[finding.key].append(finding.change)
            comments[finding.key].append(finding.text)
    return {key: _merged(of_key) for key, of_key in changes.items()}, comments


def _merged(changes: Sequence[Change]) -> Change:
    """All changes of one key; where two speak of one end, the one that cuts off more wins."""
    lows = (change.low for change in changes if change.low is not None)
    highs = (change.high for change in changes if change.high is not None)
    without = tuple(choice for change in changes for choice in change.without)
    return Change(max(lows, default=None), min(highs, default=None), without)


def _parsed(text: str) -> Any:
    """The space file as a document whose [space] is one table; it may stand in pieces, or in dotted keys."""
    import tomlkit
    from tomlkit.items import Table

    document: Any = tomlkit.parse(text)
    table = document["space"]
    if not isinstance(table, Table):
        pieces = table.unwrap()
        document.remove("space")
        document.add("space", tomlkit.item(pieces))
    return document


def _fix(document: Any, facts: Facts) -> None:
    """Move the keys that `--set` fixed from what varies to what is fixed."""
    import tomlkit

    for key, value in facts.settings.fixed.items():
        document["space"].pop(key, None)
        if "fixed" not in document:
            document.add("fixed", tomlkit.table())
        document["fixed"][key] = value
        document["fixed"][key].comment(f"by --set in search {facts.paths.name}")


def _leave_out(table: Any, changes: Mapping[str, Change], space: SearchSpace) -> set[str]:
    """Leave out choices and the conditions that name them; returns the keys that are never active then."""
    for key, change in changes.items():
        for choice in change.without:
            table[key]["choices"].remove(choice)
    dropped: set[str] = set()
    for parameter in space.parameters.values():  # conditions come first
        for name, allowed in parameter.when.items():
            gone = changes[name].without if name in changes else ()
            left = [value for value in allowed if value not in gone]
            if name in dropped or not left:
                dropped.add(parameter.name)
            elif len(left) < len(allowed):
                table[parameter.name]["when"][name] = left
    for key in dropped:
        table.pop(key)
    return dropped


def _move_ends(item: Any, parameter: Parameter, change: Change) -> None:
    number = int if parameter.integer else float
    if change.low is not None:
        item["low"] = number(change.low)
    if change.high is not None:
        item["high"] = number(change.high)


def _with_comments(table: Any, comments: Mapping[str, Sequence[str]]) -> Any:
    """The same table with a comment above each key that has one."""
    import tomlkit
    from tomlkit.items import Comment, Whitespace

    commented = tomlkit.table()
    for key, item in table.value.body:
        for text in comments.get(key.key, ()) if key else ():
            for line in textwrap.wrap(text, 100):
                commented.add(tomlkit.comment(line))
        if key is not None:
            commented.append(key, item)
        elif isinstance(item, Comment | Whitespace):  # not what a removed key has left
            commented.add(item)
    return commented
