"""MLflow's UI on a search, in a browser: what a reader sees, and that nothing leaves the machine."""

from __future__ import annotations

import http.server
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
from playwright.sync_api import Page, expect, sync_playwright

from tests.tracking.test_writer import Place, Search
from tunekit.errors import TrackingError
from tunekit.tracking.client import open_client
from tunekit.tracking.server import check_reachable

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
SERVE = """
import sys
from pathlib import Path
from tunekit.tracking.server import serve_ui
serve_ui(Path(sys.argv[1]), None, port=int(sys.argv[2]))
"""
REPORT = """<!DOCTYPE html><title>report</title><p id="told"></p>
<script>document.getElementById("told").textContent = "Depth " + "mattered."</script>"""
# What Chromium itself asks of its maker; were it the page that asks, Playwright would say so.
OF_CHROMIUM = (
    *("update.googleapis.com", "content-autofill.googleapis.com", "optimizationguide-pa.googleapis.com"),
    *("accounts.google.com", "clients2.google.com", "android.clients.google.com"),
)
PATIENCE = 60_000  # milliseconds, on a machine that is busy

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine"),
]


class Shown(NamedTuple):
    """A finished search, the page that shows it, and every address elsewhere that the browser asked for."""

    search: Search
    page: Page
    address: str
    elsewhere: list[str]

    def open(self, path: str) -> Page:
        self.page.goto(f"{self.address}/#/experiments/{self.search.parent.info.experiment_id}/runs{path}")
        return self.page


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shown]:
    folder = tmp_path_factory.mktemp("results")
    uri = f"sqlite:///{folder}/mlflow.db"
    search = Search(Place(folder, uri, open_client(uri)), "shown")
    _run(search)
    with _served(folder) as address, _recorder() as (proxy, elsewhere), sync_playwright() as playwright:
        # What does not go to this machine goes through the proxy, whichever part of the browser sends it.
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=["--no-sandbox"],
            proxy={"server": proxy, "bypass": "127.0.0.1"},
        )
        page = browser.new_page(viewport={"width": 2200, "height": 1000})
        page.on("request", lambda request: _note_elsewhere(request.url, address, elsewhere))
        page.set_default_timeout(PATIENCE)
        yield Shown(search, page, address, elsewhere)
        browser.close()
    search.history.close()


def _run(search: Search) -> None:
    """Two trials, the second is better; a report."""
    report = search.paths.folder / "report.html"
    report.write_text(REPORT)
    with search.tracker() as tracker:
        for trial, value in enumerate((0.25, 0.75)):
            search.suggest(trial, **{"optim.lr": 0.1 + trial})
            search.train(trial, value)
            search.happen("complete", trial)
        tracker.finish("finished", note="The best recipe is **ahead** of the default.", files=[report])
        assert tracker.close(60).undelivered == 0


def test_the_table_shows_the_search_and_unfolds_its_trials(shown: Shown) -> None:
    page = shown.open("?workflowType=machine_learning")
    row = page.get_by_role("row").filter(has=page.get_by_role("link", name="shown", exact=True))
    expect(row).to_be_visible(timeout=PATIENCE)
    expect(page.get_by_role("link", name="01 resnet20")).to_have_count(0)
    data_sets = page.get_by_role("gridcell").filter(has_text="digits (")
    expect(data_sets).to_have_count(1)
    row.get_by_role("button").first.click()
    for name in ("00 resnet20", "01 resnet20"):
        expect(page.get_by_role("link", name=name)).to_be_visible(timeout=PATIENCE)
    expect(data_sets).to_have_count(3)


def test_the_saved_view_lists_trials_best_first_with_their_recipes(shown: Shown) -> None:
    page = shown.open("?workflowType=machine_learning")
    page.get_by_role("button", name="Views").click()
    page.get_by_test_id("saved-views-item-tunekit-trials").click()
    links = page.get_by_role("link", name="resnet20")
    expect(links).to_have_text(["01 resnet20", "00 resnet20"], timeout=PATIENCE)
    for column in ("best_val_accuracy", "optim.lr", "outcome"):
        expect(page.get_by_role("columnheader", name=column).first).to_be_visible(timeout=PATIENCE)


def test_the_parent_says_what_came_of_it_and_links_to_the_best_trial(shown: Shown) -> None:
    page = shown.open(f"/{shown.search.parent.info.run_id}?workflowType=machine_learning")
    expect(page.locator("strong", has_text="ahead")).to_be_visible(timeout=PATIENCE)
    expect(page.get_by_text("tunekit retrain-best shown")).to_be_visible()
    best = page.get_by_role("link", name="best trial").get_attribute("href")
    assert best is not None
    page.goto(f"{shown.address}/{best[best.index('#') :]}")
    expect(page.get_by_role("heading", name="01 resnet20")).to_be_visible(timeout=PATIENCE)
    expect(page.get_by_role("link", name="shown", exact=True).first).to_be_visible()


def test_the_report_renders_among_the_artifacts(shown: Shown) -> None:
    page = shown.open(f"/{shown.search.parent.info.run_id}/artifacts/report.html")
    report = page.frame_locator("iframe.mlflow-html-iframe")
    expect(report.get_by_text("Depth mattered.")).to_be_visible(timeout=PATIENCE)


def test_nothing_is_asked_of_another_machine(shown: Shown) -> None:
    """Last, since it speaks of all pages that the tests above opened."""
    shown.open("?workflowType=machine_learning").wait_for_timeout(3000)  # so that timers had their turn
    assert shown.elsewhere == []


def _note_elsewhere(url: str, address: str, elsewhere: list[str]) -> None:
    if not url.startswith((address, "data:", "blob:")):
        elsewhere.append(url)


@contextmanager
def _served(results: Path) -> Iterator[str]:
    """The UI as `tunekit ui` serves it."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    command = [sys.executable, "-c", SERVE, str(results), str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)
    address = f"http://127.0.0.1:{port}"
    try:
        _wait_for(process, address)
        yield address
    finally:
        os.kill(process.pid, signal.SIGTERM)
        process.wait(30)


def _wait_for(process: subprocess.Popen[bytes], address: str) -> None:
    deadline = time.monotonic() + 120
    while True:
        assert process.poll() is None, "the UI ended by itself"
        try:
            check_reachable(address)
            return
        except TrackingError:
            assert time.monotonic() < deadline, "the UI did not start in time"
            time.sleep(0.3)


@contextmanager
def _recorder() -> Iterator[tuple[str, list[str]]]:
    """A proxy that notes what it is asked for and gives nothing."""
    asked: list[str] = []

    class Recorder(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if not self.path.removeprefix("http://").startswith(OF_CHROMIUM):
                asked.append(self.path)
            self.send_error(502)

        do_POST = do_CONNECT = do_HEAD = do_OPTIONS = do_GET  # noqa: N815

        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Recorder) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", asked
        server.shutdown()
