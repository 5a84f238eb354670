"""The report in a real browser: every figure is drawn, tables sort, nothing is loaded, nothing sticks out."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from tests.benchmarks.report import lay_down_large_search
from tests.reporting.test_report import lay_down_evil_search
from tunekit.reporting.report import write_report

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine to open the report in"),
]

_DRAWN = "document.documentElement.dataset.drawn === 'yes'"
_EMPTY_FIGURES = """[...document.querySelectorAll('.drawing')]
    .filter(place => !place.querySelector('.main-svg')
        || !place.querySelector('.points path, .lines path, .bars path, .js-line'))
    .map(place => place.dataset.figure)"""


@dataclass
class Opened:
    """A page in the browser, and what it said and asked for since."""

    page: Page
    problems: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        # Without the sandbox, which a container that runs as root does not allow.
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(lay_down_large_search(tmp_path_factory.mktemp("results"), 60))


@contextmanager
def opened(browser: Browser, report: Path, width: int = 1280, **options: Any) -> Iterator[Opened]:
    """The report, all figures drawn."""
    context = browser.new_context(viewport={"width": width, "height": 900}, **options)
    found = Opened(context.new_page())
    found.page.on("console", lambda message: found.problems.append(message.text))
    found.page.on("pageerror", lambda error: found.problems.append(str(error)))
    found.page.on("request", lambda request: found.requests.append(request.url))
    found.page.goto(report.as_uri())
    found.page.wait_for_function(_DRAWN, timeout=120_000)
    yield found
    context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_every_figure_is_drawn_and_nothing_is_loaded(
    browser: Browser, report: Path, scheme: str, width: int
) -> None:
    with opened(browser, report, width, color_scheme=scheme) as found:
        assert found.page.evaluate("document.querySelectorAll('.drawing').length") > 15
        assert found.page.evaluate(_EMPTY_FIGURES) == []
        assert found.page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        assert found.page.evaluate("document.documentElement.dataset.theme") == scheme
        assert found.problems == []
        assert all(address.startswith(("file:", "data:", "blob:")) for address in found.requests)


def test_a_table_is_sorted_by_a_click_and_by_the_keyboard(browser: Browser, report: Path) -> None:
    with opened(browser, report) as found:
        table = found.page.locator("#trials table")
        heading = table.locator("th", has_text="optim.lr")
        place = heading.evaluate("heading => [...heading.parentNode.children].indexOf(heading)")

        def column() -> list[float]:
            cells = table.locator(f"tbody tr td:nth-child({place + 1})")
            return [float(text) for text in cells.all_text_contents() if text != "-"]

        heading.locator("button").click()
        assert heading.get_attribute("aria-sort") == "descending"
        assert column() == sorted(column(), reverse=True)
        heading.locator("button").press("Enter")
        assert heading.get_attribute("aria-sort") == "ascending"
        assert column() == sorted(column())


def test_cells_without_a_value_stay_last(browser: Browser, report: Path) -> None:
    with opened(browser, report) as found:
        table = found.page.locator("#trials table")
        heading = table.locator("th", has_text="optim.momentum")
        place = heading.evaluate("heading => [...heading.parentNode.children].indexOf(heading)")
        for _ in range(2):
            heading.locator("button").click()
            texts = table.locator(f"tbody tr td:nth-child({place + 1})").all_text_contents()
            assert "-" in texts
            assert "-" not in texts[: len(texts) - texts.count("-")]


def test_figures_follow_the_theme(browser: Browser, report: Path) -> None:
    with opened(browser, report, color_scheme="light") as found:
        page = found.page
        colour = "document.querySelector('[data-figure=curves]').layout.template.layout.font.color"
        before, curve = page.evaluate(colour), _curve_colours(page)
        page.locator("#theme").click()
        page.wait_for_function(f"{colour} !== {json.dumps(before)}")
        assert page.evaluate("document.documentElement.dataset.theme") == "dark"
        assert _curve_colours(page) != curve
        assert found.problems == []


def _curve_colours(page: Page) -> Any:
    return page.evaluate(
        "document.querySelector('[data-figure=curves]').data.map(trace => trace.line?.color)"
    )


def test_a_view_of_the_best_quarter(browser: Browser, report: Path) -> None:
    with opened(browser, report) as found:
        buttons = found.page.locator("#values .views button")
        assert buttons.all_text_contents() == ["Best quarter", "All"]
        lowest = "document.querySelector('[data-figure=value-0]').layout.yaxis.range[0]"
        near = found.page.evaluate(lowest)
        buttons.nth(1).click()
        assert found.page.evaluate(lowest) < near
        assert buttons.nth(1).get_attribute("aria-pressed") == "true"


def test_a_pointer_at_a_point_shows_its_trial(browser: Browser, report: Path) -> None:
    with opened(browser, report) as found:
        point = found.page.locator("[data-figure=pair] .points path").first
        point.scroll_into_view_if_needed()
        point.hover(force=True)
        label = found.page.locator("[data-figure=pair] .hoverlayer .hovertext")
        label.wait_for()
        assert (label.text_content() or "").startswith("trial ")


def test_the_command_can_be_copied(browser: Browser, report: Path) -> None:
    with opened(browser, report, permissions=["clipboard-read", "clipboard-write"]) as found:
        found.page.locator("[data-copy=command]").click()
        found.page.get_by_text("Copied", exact=True).wait_for()
        assert found.page.evaluate("navigator.clipboard.readText()").startswith("tunekit search digits")


def test_foreign_words_are_shown_and_never_run(browser: Browser, tmp_path: Path) -> None:
    report = write_report(lay_down_evil_search(tmp_path))
    with opened(browser, report) as found:
        dialogs: list[str] = []
        found.page.on("dialog", lambda dialog: dialogs.append(dialog.message))
        found.page.reload()
        found.page.wait_for_function(_DRAWN, timeout=120_000)
        assert found.page.get_by_text("<script>alert(1)</script>").count() >= 4
        assert dialogs == []
        assert found.problems == []


def test_without_scripts_all_words_and_tables_are_there(browser: Browser, report: Path) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(report.as_uri())
    assert "need JavaScript" in page.locator("noscript").inner_html()
    assert page.locator("#trials tbody tr").count() == 60
    context.close()


def test_a_browser_that_cannot_inflate_says_so(browser: Browser, report: Path) -> None:
    context = browser.new_context()
    page = context.new_page()
    page.add_init_script("delete window.DecompressionStream")
    page.goto(report.as_uri())
    page.get_by_text("the figures need a browser of 2023 or later").wait_for()
    context.close()
