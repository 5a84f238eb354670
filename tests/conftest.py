"""What several rooms' tests stand on: small real data, and packs of it made once."""

from __future__ import annotations

import os
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.driver import Driver, end
from tests.small_disk import disk as disk
from tunekit.data.datasets import open_dataset
from tunekit.data.pack import Pack
from tunekit.data.split import Split, make_split

TEST_DATA = os.environ.get("TUNEKIT_TEST_DATA")
needs_real_images = pytest.mark.skipif(
    TEST_DATA is None, reason="TUNEKIT_TEST_DATA names no folder with CIFAR-10 and MNIST"
)


@pytest.fixture(autouse=True)
def _no_settings_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests give every folder and server themselves."""
    for name in ("TUNEKIT_DATA_DIR", "TUNEKIT_RESULTS_DIR", "MLFLOW_TRACKING_URI", "RAY_ADDRESS"):
        monkeypatch.setenv(name, "")  # so that what a test sets is gone behind it
        monkeypatch.delenv(name)


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is behind the proxy that this process and those it starts are to take."""
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setattr(urllib.request, "_opener", None)  # the one that is made now would keep the proxy


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder of this test run."""
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="session")
def digits(data_dir: Path) -> Pack:
    """1,797 real images of digits."""
    return open_dataset("digits", data_dir)


@pytest.fixture
def digits_split(digits: Pack) -> Split:
    """288 of them train and 72 validate, so that an epoch takes a blink."""
    return make_split(digits.train()[1], fraction=0.2, seed=0, limit=360)


@pytest.fixture
def drive(tmp_path: Path) -> Iterator[Callable[..., Driver]]:
    """Starts `tunekit` with arguments in `tmp_path`; what is left of it is ended and looked for."""
    drivers: list[Driver] = []

    def start(*arguments: str) -> Driver:
        drivers.append(Driver(tmp_path, *arguments))
        return drivers[-1]

    yield start
    for driver in drivers:
        end(driver)
