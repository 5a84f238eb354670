"""The HTML report, from made-up searches: what it says, that it is whole, that it runs nothing foreign."""

from __future__ import annotations

import base64
import gzip
import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from tests.benchmarks.report import lay_down_large_search
from tests.reporting.test_retraining_tables import accuracy, behind, model, result, standing
from tests.search_on_disk import lay_down_search
from tunekit.history import Event, History
from tunekit.paths import SearchPaths
from tunekit.reporting.analysis import analyse
from tunekit.reporting.facts import read_facts
from tunekit.reporting.leaderboard import search_state
from tunekit.reporting.report import build_report, write_report

EVIL = "<script>alert(1)</script>"


class Page(HTMLParser):
    """The elements of a page, the text of each by the tags around it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.scripts: list[tuple[str | None, str]] = []  # (id, text)
        self._inside = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append((dict(attrs).get("id"), ""))
        self._inside = tag

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            self.scripts[-1] = (self.scripts[-1][0], self.scripts[-1][1] + data)
        elif self._inside != "style" and data.strip():
            self.words.append(data.strip())

    @property
    def text(self) -> str:
        return "\n".join(self.words)

    @property
    def data(self) -> Any:
        return json.loads(dict(self.scripts)["data"])

    def named(self, name: str) -> bool:
        return any(attrs.get("id") == name for _, attrs in self.elements)


def page_of(paths: SearchPaths) -> Page:
    facts = read_facts(paths)
    state = search_state(paths, facts.settings, facts.history)
    return Page(build_report(facts, analyse(facts), state))


def lay_down_result(paths: SearchPaths, **changed: Any) -> None:
    """An opening of the test set, its result and one picture."""
    opening = {"number": 1, "search": paths.name, "time": 1e9, "user": "ann", "host": "box"}
    opening |= {"recipes": ["trial 01"], "data": "abc"}
    paths.test_openings.write_text(json.dumps(opening) + "\n")
    score = {"name": "cat", "precision": 0.91, "recall": 0.92, "f1": 0.93, "support": 10}
    found = result(
        key="k",
        winner="trial 01",
        standings=[
            standing("trial 01", [0.91, 0.93], failures=[], default=False),
            standing("trial 00", [0.9], behind(0.02, 0, 0.04), failures=[], default=False),
        ],
        test=[accuracy("trial 01", [0.8765, 0.8765])],
        model=model(class_scores=[score]),
        verdicts=["trial 01 is within noise of the default recipe."],
        format=1,
        opening=opening,
        earlier_openings=[],
        registration=None,
        **changed,
    )
    folder = paths.retraining.opening(1)
    folder.mkdir(parents=True)
    (folder / "result.json").write_text(json.dumps(found))
    (folder / "confusion.png").write_bytes(b"a picture")


# One file that needs nothing else.


def test_the_page_loads_nothing(tmp_path: Path) -> None:
    page = page_of(lay_down_large_search(tmp_path, 30))
    addresses = [
        attrs[name]
        for _, attrs in page.elements
        for name in ("src", "href", "srcset", "data")
        if name in attrs
    ]
    assert addresses
    assert all(address and address.startswith(("#", "data:")) for address in addresses)


def test_the_page_holds_plotly(tmp_path: Path) -> None:
    page = page_of(lay_down_search(tmp_path, "s"))
    script = gzip.decompress(base64.b64decode(dict(page.scripts)["plotly"]))
    assert b"plotly.js v" in script[:200]


def test_every_place_of_a_figure_has_one(tmp_path: Path) -> None:
    page = page_of(lay_down_large_search(tmp_path, 30))
    places = [attrs["data-figure"] for _, attrs in page.elements if "data-figure" in attrs]
    assert len(places) == len(set(places))
    assert set(places) == set(page.data["figures"])
    assert {"importance", "curves", "best-epochs", "best-time", "parallel", "pair", "timeline"} <= set(places)


def test_links_lead_to_sections_that_are_there(tmp_path: Path) -> None:
    page = page_of(lay_down_large_search(tmp_path, 30))
    links = [attrs["href"] for tag, attrs in page.elements if tag == "a"]
    assert all(link and page.named(link.removeprefix("#")) for link in links)


def test_the_report_lies_in_the_folder_of_the_search(tmp_path: Path) -> None:
    paths = lay_down_search(tmp_path, "s")
    assert write_report(paths) == paths.report == paths.folder / "report.html"
    assert [file.name for file in paths.folder.glob("*report*")] == ["report.html"]  # nothing half done
    assert not list(paths.folder.glob(".report*"))
    assert paths.report.stat().st_mode == paths.settings.stat().st_mode
    assert paths.report.read_text(encoding="utf-8").lstrip().startswith("<!DOCTYPE html>")


# Any search.


def test_head_of_an_interrupted_search(tmp_path: Path) -> None:
    page = page_of(lay_down_search(tmp_path, "half-done"))
    for words in ("half-done", "digits", "interrupted", "0.7500", "trial 01, epoch 2", "1 completed"):
        assert words in page.text
    assert "the test set is unopened" in page.text


def test_gain_over_the_default(tmp_path: Path) -> None:
    page = page_of(lay_down_search(tmp_path, "s"))  # trial 0 has the recipe's own learning rate
    assert "+0.5000" in page.text
    assert "the default has 0.2500" in page.text


def test_no_gain_is_named_if_the_default_was_not_trained(tmp_path: Path) -> None:
    paths = lay_down_search(tmp_path, "s")
    paths.history.write_text(paths.history.read_text().replace('"optim.lr": 0.1}', '"optim.lr": 0.11}'))
    assert "the default recipe was not trained" in page_of(paths).text


@pytest.mark.parametrize("events", [0, 1, 2])
def test_searches_that_have_hardly_begun(tmp_path: Path, events: int) -> None:
    paths = lay_down_search(tmp_path, "s")
    lines = paths.history.read_text().splitlines(keepends=True)
    paths.history.write_text("".join(lines[:events]))
    page = page_of(paths)
    assert "In short" in page.text
    assert page.named("trials") == (events > 0)
    assert page.named("course") == (events > 1)


def test_a_search_in_which_all_failed(tmp_path: Path) -> None:
    paths = lay_down_search(tmp_path, "s")
    paths.history.unlink()
    history = History(paths.history)
    for number in range(3):
        history.append(Event("suggest", number, params={"optim.lr": 1.0}))
        history.append(Event("fail", number, epoch=1, reason="the loss is not finite"))
    history.close()
    page = page_of(paths)
    assert "the loss is not finite" in page.text
    assert "00, 01, 02" in page.text
    assert "no result yet" in page.text


# Tables.


def test_all_trials_best_first_with_their_params(tmp_path: Path) -> None:
    page = page_of(lay_down_search(tmp_path, "s"))
    table = page.text[page.text.index("Best first.") :]
    assert table.index("01\ncompleted\n0.7500\n2\n3\n-\n0.5") < table.index("00\nstopped early\n0.2500")
    assert "02\nunfinished\n-\n-\n0\n-\n0.2" in table


def test_cells_are_sorted_by_what_they_mean(tmp_path: Path) -> None:
    """A dash has no order, so that it stays last; a moment is sorted by time, not by words."""
    paths = lay_down_search(tmp_path, "s")
    lay_down_result(paths)
    page = page_of(paths)
    orders = [attrs["data-order"] for tag, attrs in page.elements if tag == "td" and "data-order" in attrs]
    assert "" in orders
    assert str(1e9) in orders


def test_a_proposed_space_can_be_copied(tmp_path: Path) -> None:
    """The best 15 of 60 trials lie at the upper end of the range."""
    paths = lay_down_search(tmp_path, "s")
    paths.history.unlink()
    history = History(paths.history)
    for number in range(60):
        share = number / 59
        history.append(Event("suggest", number, params={"optim.lr": 10 ** (3 * share - 3)}))
        for epoch in (1, 2, 3):
            history.append(Event("result", number, epoch=epoch, value=0.2 + 0.7 * share))
        history.append(Event("complete", number))
    history.close()
    page = page_of(paths)
    assert "tunekit search digits --space proposed.toml --start-from s" in page.text
    assert page.named("proposed-space")
    assert "proposed-space" in [attrs.get("data-copy") for _, attrs in page.elements]


# The test set.


def test_result_of_a_retraining_with_its_picture(tmp_path: Path) -> None:
    paths = lay_down_search(tmp_path, "s")
    lay_down_result(paths)
    page = page_of(paths)
    for words in ("0.9123", "0.8765", "ann on box", "trial 01 is within noise of the default recipe.", "cat"):
        assert words in page.text
    picture = base64.b64encode(b"a picture").decode()
    assert ("img", f"data:image/png;base64,{picture}") in [
        (tag, attrs.get("src")) for tag, attrs in page.elements
    ]


def test_an_opening_that_came_to_nothing_is_shown(tmp_path: Path) -> None:
    paths = lay_down_search(tmp_path, "s")
    lay_down_result(paths)
    (paths.retraining.opening(1) / "result.json").unlink()
    page = page_of(paths)
    assert "opened 1 times, no result" in page.text
    assert "ann on box" in page.text


def test_a_picture_that_is_too_large_is_named_instead(tmp_path: Path) -> None:
    paths = lay_down_search(tmp_path, "s")
    lay_down_result(paths)
    (paths.retraining.opening(1) / "confusion.png").write_bytes(b"x" * 2_000_000)
    page = page_of(paths)
    assert "see retrain/opening-1/confusion.png" in page.text
    assert not any(tag == "img" for tag, _ in page.elements)


# Nothing foreign runs.


def lay_down_evil_search(results_dir: Path) -> SearchPaths:
    paths = lay_down_search(results_dir, "evil")
    settings = json.loads(paths.settings.read_text())
    baseline = {"name": EVIL, "recipe": {"optim.lr": 0.3}, "reported_accuracy": 99.0, "source": EVIL}
    settings |= {"command": EVIL, "dataset": EVIL, "space": EVIL, "baselines": [baseline]}
    paths.settings.write_text(json.dumps(settings | {"versions": {"tunekit": EVIL}, "start_from": [EVIL]}))
    paths.space.write_text(f"description = '{EVIL}'\n" + paths.space.read_text())
    history = History.read(paths.history)
    history.append(Event("suggest", 3, params={"optim.lr": 0.3}, baseline=EVIL))
    history.append(Event("result", 3, epoch=1, value=0.9, worker=EVIL), Event("complete", 3))
    history.append(Event("suggest", 4, params={"optim.lr": 0.9}), Event("fail", 4, epoch=1, reason=EVIL))
    history.close()
    lay_down_result(paths)
    file = paths.retraining.result(1)
    file.write_text(file.read_text().replace("cat", EVIL.replace("/", "\\/")))
    return paths


def test_words_of_people_and_files_are_shown_and_never_run(tmp_path: Path) -> None:
    facts = read_facts(lay_down_evil_search(tmp_path))
    text = build_report(facts, analyse(facts), "finished")
    page = Page(text)
    assert EVIL not in text
    assert text.count("alert(1)") >= 8  # escaped, all of them are there to be read
    assert all("alert" not in script for name, script in page.scripts if name != "data")
    assert "&lt;script&gt;alert(1)" in page.data["trials"]["3"]  # Plotly reads HTML too
    assert f"reason: {EVIL}".replace("<", "&lt;").replace(">", "&gt;") in page.data["trials"]["4"]


def test_a_large_search_has_a_page_that_can_be_sent(tmp_path: Path) -> None:
    assert write_report(lay_down_large_search(tmp_path, 100)).stat().st_size < 3_500_000
