"""A short form of `python -m tests.chaos`: one search, three deaths, MLflow away meanwhile."""

import signal
from pathlib import Path
from random import Random

import pytest

from tests.chaos.campaign import Row, judge, undisturbed
from tests.chaos.ending_faults import CleanStop, DriverKilled
from tests.chaos.faults import Fault, WorkerKilled
from tests.chaos.search_under_fault import Plan, SearchUnderFault
from tests.chaos.tracking_faults import MlflowServer
from tests.conftest import TEST_DATA, needs_real_images

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.timeout(400)]

PLAN = Plan(samples=6)
RANDOM = Random(0)


@needs_real_images
def test_a_search_that_dies_three_times_while_mlflow_is_away_ends_as_an_undisturbed_one(
    tmp_path: Path,
) -> None:
    assert TEST_DATA is not None
    data_dir = Path(TEST_DATA).resolve()
    server = MlflowServer(tmp_path / "mlflow")
    server.start()
    search = SearchUnderFault(tmp_path / "disturbed", PLAN, data_dir, server.uri)
    try:
        wanted = undisturbed(tmp_path / "undisturbed", PLAN, data_dir)
        server.wait_until_up()
        search.start()
        inject(WorkerKilled(), search, wanted.epochs, 0.1)
        server.stop(signal.SIGKILL)
        at_epoch(search, wanted.epochs, 0.4)
        assert CleanStop(signal.SIGTERM).stop(search) == []
        search.count_lost()

        search.start()  # MLflow is still away
        inject(DriverKilled(), search, wanted.epochs, 0.7)
        search.count_lost()

        server.start()
        server.wait_until_up()
        search.start()
        code, output = search.wait()
        assert code == 0, output
        assert "not in MLflow yet" not in output
        assert judge(search, wanted, Row("three deaths", 1)) == []
        assert search.lost.finished == 0
        assert search.lost.in_flight <= 3
    finally:
        search.end()
        server.stop()


def at_epoch(search: SearchUnderFault, epochs: int, share: float) -> None:
    """Wait until a share of the search's epochs is trained."""
    assert search.wait_until(lambda: search.results_so_far() >= share * epochs), search.output()


def inject(fault: Fault, search: SearchUnderFault, epochs: int, share: float) -> None:
    fault.prepare(search)
    at_epoch(search, epochs, share)
    assert fault.await_moment(search, share, epochs, RANDOM), search.output()
    assert fault.inject(search, RANDOM) == []
