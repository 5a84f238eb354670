"""Commands as Ray jobs: what is handed over means the same there, and what comes back is all of it."""

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.driver import Driver
from tests.search_on_disk import SPACE, lay_down_search
from tunekit import cli
from tunekit.tuning.parcel import pack
from tunekit.tuning.remote_job import RemoteCommand, entry_point

pytest.importorskip("aiohttp_cors", reason="Ray's job client needs ray[default]: make test-extended")

WORDS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command line sets it."""
    monkeypatch.setenv("RAY_ADDRESS", "")
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def cluster_home(tmp_path: Path) -> Path:
    """A home folder there with a `tunekit` that says where it runs and what it got."""
    program = tmp_path / "home" / "tunekit"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\nprintf "%s\\0" "$PWD" "$@"\nexit 130\n')
    program.chmod(0o755)
    return program.parent


def said_there(command: RemoteCommand, home: Path, sent: Path) -> list[str]:
    """What Ray's `sh -c` makes of a command: working folder and words."""
    done = subprocess.run(
        entry_point(command),
        shell=True,
        cwd=sent,
        env={"HOME": str(home), "PATH": f"{home}:{os.environ['PATH']}"},
        capture_output=True,
    )
    assert done.returncode == 130, done.stderr  # the job's exit code is the command's
    return done.stdout.decode().split("\0")[:-1]


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(words=st.lists(WORDS, max_size=3), arguments=st.lists(WORDS, max_size=2))
@example(words=["--name=$(touch x)`x`; \"'\\\n", "--set=a=b c"], arguments=["-x", "~", "*"])
def test_no_word_means_anything_to_the_shell(
    words: list[str], arguments: list[str], cluster_home: Path, tmp_path: Path
) -> None:
    command = RemoteCommand(("search", *words), tuple(arguments))
    expected = [str(cluster_home), "search", *words, "--", *arguments]
    assert said_there(command, cluster_home, tmp_path) == expected


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(name=WORDS.filter(lambda name: "/" not in name))
@example(name="my 'sp$ace")
def test_a_space_file_is_found_where_it_was_sent(name: str, cluster_home: Path, tmp_path: Path) -> None:
    sent = tmp_path / "sent $HOME"
    sent.mkdir(exist_ok=True)
    command = RemoteCommand(("search",), ("digits",), space_file=Path(f"{name}.toml"))
    space = f"--space={sent}/{name}.toml"
    assert said_there(command, cluster_home, sent) == [str(cluster_home), "search", space, "--", "digits"]


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    dataset=WORDS,
    name=WORDS.filter(bool),
    fixed=st.lists(WORDS, max_size=3),
    budget=st.sampled_from(["90", "1h30m", "5s"]),
    flags=st.lists(st.sampled_from(["-q", "--baselines", "--quiet"]), unique=True),
)
def test_the_cluster_gets_what_was_typed(
    dataset: str, name: str, fixed: list[str], budget: str, flags: list[str]
) -> None:
    typed = ["--space", "resnet", "--name", name, "--address", "http://head:8265", *flags]
    typed += [word for text in fixed for word in ("--set", text)]
    typed += ["--time-budget", budget, "--", dataset]
    here = cli.searching.search.make_context("search", [*typed])
    command = cli.as_job.as_job(here)
    os.environ["RAY_ADDRESS"] = ""  # the command line has set it
    there = cli.searching.search.make_context("search", [*command.words[1:], "--", *command.arguments])
    assert there.params.pop("address") is None
    assert {**there.params, "address": "http://head:8265"} == here.params
    assert command.trains == name
    assert not [word for word in command.words if "head:8265" in word]


def as_job(*typed: str) -> RemoteCommand:
    command: click.Command = cli.main.commands[typed[0]]
    context = command.make_context(typed[0], [*typed[1:], "--address", "http://head:8265"])
    made: RemoteCommand = cli.as_job.as_job(context)
    return made


def test_a_search_without_a_name_gets_one_here() -> None:
    command = as_job("search", "digits", "--space", "resnet")
    assert command.trains
    assert command.trains.startswith("digits-resnet-2")
    assert f"--name={command.trains}" in command.words


def test_a_password_travels_outside_the_words(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"):
        monkeypatch.setenv(name, "")
    uri = "https://me:geheim@mlflow.lab:5000"
    command = as_job("search", "digits", "--space", "resnet", "--tracking-uri", uri)
    assert "--tracking-uri=https://mlflow.lab:5000" in command.words
    assert "geheim" not in entry_point(command)
    assert os.environ["MLFLOW_TRACKING_PASSWORD"] == "geheim"


class JobServer:
    """A stand-in for Ray's: keeps what it is asked, and answers with a log whose connection breaks."""

    def __init__(self) -> None:
        self.jobs: dict[str, dict[str, Any]] = {}
        self.log = ""
        self.breaks = 0  # how often a connection ends in the middle of the log
        self.status, self.code = "SUCCEEDED", 0
        self.answer = 200
        self.deleted: list[str] = []
        self.address = ""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)

    def add(self, job: str, status: str, **more: Any) -> None:
        about = {"type": "SUBMISSION", "submission_id": job, "entrypoint": "x", "status": status}
        self.jobs[job] = {**about, **more}

    def start(self) -> None:
        from aiohttp import web

        app = web.Application()
        app.router.add_get("/api/version", self._version)
        app.router.add_get("/api/jobs/", self._list)
        app.router.add_post("/api/jobs/", self._submit)
        app.router.add_get("/api/jobs/{job}", self._about)
        app.router.add_delete("/api/jobs/{job}", self._delete)
        app.router.add_get("/api/jobs/{job}/logs/tail", self._tail)
        self._runner = web.AppRunner(app)
        self._thread.start()
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        self._do(self._runner.setup())
        self._do(web.TCPSite(self._runner, "127.0.0.1", port).start())
        self.address = f"http://127.0.0.1:{port}"

    def stop(self) -> None:
        self._do(self._runner.cleanup())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _do(self, what: Any) -> None:
        asyncio.run_coroutine_threadsafe(what, self._loop).result(20)

    def _json(self, content: Any) -> Any:
        from aiohttp import web

        return web.json_response(content, status=self.answer)

    async def _version(self, _: Any) -> Any:
        return self._json({"version": "4", "ray_version": "2.60.0", "ray_commit": "x"})

    async def _list(self, _: Any) -> Any:
        return self._json([*self.jobs.values()])

    async def _submit(self, request: Any) -> Any:
        asked = await request.json()
        about = {key: asked[key] for key in ("entrypoint", "metadata", "runtime_env")}
        self.add(asked["submission_id"], self.status, driver_exit_code=self.code, **about)
        return self._json({"submission_id": asked["submission_id"], "job_id": asked["submission_id"]})

    async def _about(self, request: Any) -> Any:
        return self._json(self.jobs[request.match_info["job"]])

    async def _delete(self, request: Any) -> Any:
        self.deleted.append(request.match_info["job"])
        return self._json({"deleted": True})

    async def _tail(self, request: Any) -> Any:
        from aiohttp import web

        job = request.match_info["job"]
        log = f"noise\nRunning entrypoint for job {job}: {self.jobs[job]['entrypoint']}\n{self.log}"
        socket_ = web.WebSocketResponse()
        await socket_.prepare(request)
        self.breaks -= 1
        for start in range(0, len(log), 50):
            if self.breaks >= 0 and start > len(log) / 2:
                request.transport.abort()
                return socket_
            await socket_.send_str(log[start : start + 50])
        return socket_


@pytest.fixture
def server() -> Iterator[JobServer]:
    server = JobServer()
    server.start()
    yield server
    server.stop()


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: CliRunner().invoke(cli.main, arguments)


SEARCH = ("search", "digits", "--space", "resnet", "--name", "s", "--address")


def test_a_command_prints_what_the_job_prints_though_the_connection_breaks(
    server: JobServer, run: Callable[..., Result]
) -> None:
    server.log = "".join(f"line {number}\n" for number in range(50)) + "the end"
    server.breaks = 2
    result = run(*SEARCH, server.address)
    assert result.exit_code == 0, result.output
    assert result.stdout == server.log
    assert f"tunekit fetch s --address {server.address}" in result.stderr
    assert server.jobs["tunekit-s"]["metadata"] == {"tunekit_search": "s"}
    assert "runtime_env" not in server.jobs["tunekit-s"] or not server.jobs["tunekit-s"]["runtime_env"]


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        ("SUCCEEDED", 0, 0),
        *[("FAILED", code, code) for code in (1, 2, 130)],
        *[("FAILED", -9, 137), ("STOPPED", None, 130), ("FAILED", None, 1), ("FAILED", 127, 1)],
    ],
)
def test_the_exit_code_is_that_of_the_job(
    status: str, code: int, expected: int, server: JobServer, run: Callable[..., Result]
) -> None:
    server.status, server.code = status, code
    assert run(*SEARCH, server.address).exit_code == expected


def test_a_later_job_of_a_search_gets_an_id_of_its_own(server: JobServer, run: Callable[..., Result]) -> None:
    for _ in range(3):
        run(*SEARCH, server.address)
    assert [*server.jobs] == ["tunekit-s", "tunekit-s~2", "tunekit-s~3"]


def test_a_search_whose_job_runs_is_not_started_again(server: JobServer, run: Callable[..., Result]) -> None:
    server.add("tunekit-s~2", "RUNNING", metadata={"tunekit_search": "s"})
    result = run("resume", "s", "--address", server.address)
    assert result.exit_code == 1
    assert f"'tunekit attach s --address {server.address}' follows it" in result.output
    assert [*server.jobs] == ["tunekit-s~2"]


def test_a_login_goes_along_as_environment_and_a_space_as_a_file(
    server: JobServer, run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "geheim")
    (tmp_path / "bad space.toml").write_text("[space]\nx = 1\n")
    result = run("search", "digits", "--space", "bad space.toml", "--address", server.address)
    assert result.exit_code == 1  # found here, before anything is sent
    assert not server.jobs
    run(*SEARCH, server.address)
    job = server.jobs["tunekit-s"]
    assert "geheim" not in job["entrypoint"]
    assert job["runtime_env"]["env_vars"] == {"MLFLOW_TRACKING_PASSWORD": "geheim"}


def test_attach_follows_the_job_that_runs_else_the_latest(
    server: JobServer, run: Callable[..., Result]
) -> None:
    search = {"metadata": {"tunekit_search": "s"}, "driver_exit_code": 3}
    server.add("tunekit-s", "FAILED", start_time=1, **search)
    server.add("tunekit-s~2", "FAILED", start_time=2, entrypoint="later", **{**search, "driver_exit_code": 4})
    server.add("raysubmit_x", "SUCCEEDED", start_time=9)
    server.log = "said\n"
    result = run("attach", "s", "--address", server.address)
    assert (result.exit_code, result.output) == (4, "said\n")
    assert run("attach", "--address", server.address).exit_code == 4
    result = run("attach", "t", "--address", server.address)
    assert result.exit_code == 1
    assert "no job of search 't'" in result.output


def test_fetch_lays_down_what_comes_and_says_what_the_cluster_said(
    server: JobServer, run: Callable[..., Result], tmp_path: Path
) -> None:
    server.log = "\n".join(["a warning", *pack(lay_down_search(tmp_path / "there", "mine")), ""])
    result = run("fetch", "mine", "--address", server.address, "--results-dir", "/shared", "--to", "here")
    assert result.exit_code == 0, result.output
    (job,) = server.jobs.values()
    assert job["entrypoint"].endswith("tunekit fetch --to=- --results-dir=/shared -- mine")
    assert server.deleted == [job["submission_id"]]
    assert json.loads(run("best", "mine", "--results-dir", "here", "--json").output)["trial"] == 1
    server.log = "Error: no search called 'mine' in results\n"
    result = run("fetch", "mine", "--address", server.address)
    assert result.exit_code == 1
    assert "Error: on the cluster: no search called 'mine' in results" in result.output


@pytest.mark.parametrize("answer", [401, 403])
def test_a_token_that_is_refused_is_named(answer: int, server: JobServer, run: Callable[..., Result]) -> None:
    server.answer = answer
    result = run(*SEARCH, server.address)
    assert result.exit_code == 1
    assert "wants another token: set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN" in result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((*SEARCH, "http://127.0.0.1:1"), "no job server answers there"),
        ((*SEARCH, "http://"), "is http://HOST:PORT, but got 'http://'"),
        ((*SEARCH, "http://me:secret@head:1"), "is http://HOST:PORT"),
        ((*SEARCH, "http://head:99999"), "is http://HOST:PORT"),
        ((*SEARCH[:-1], "--name", "../x", "--address", "http://head:1"), "a search name must be"),
        (("resume", "--address", "http://head:1"), "give the NAME of the search"),
        (("attach", "s", "--address", "head:1"), "must be that of a job server"),
        (("fetch", "s"), "must be that of a job server"),
    ],
)
def test_mistakes_are_one_line(
    arguments: tuple[str, ...], message: str, run: Callable[..., Result], tmp_path: Path
) -> None:
    result = run(*arguments)
    assert result.exit_code in (1, 2)
    assert message in result.output
    assert "Traceback" not in result.output
    assert not [*tmp_path.iterdir()]


def test_without_rays_client_the_extra_is_named(
    run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray.job_submission", None)
    result = run(*SEARCH, "http://127.0.0.1:1")
    assert result.exit_code == 1
    assert "install 'tunekit[cluster]'" in result.output


@pytest.fixture
def head(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    """The job server of a Ray of our own, with a token; its home folder is `there`."""
    folder = Path(tempfile.mkdtemp(prefix="tk-", dir="/tmp"))  # Ray's sockets want short paths
    ports = []
    for _ in range(3):
        with socket.create_server(("127.0.0.1", 0)) as free:
            ports.append(free.getsockname()[1])
    (tmp_path / "there").mkdir()
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", os.urandom(32).hex())
    monkeypatch.delenv("RAY_ADDRESS")
    bin_ = Path(sys.executable).parent
    own = {"HOME": str(tmp_path / "there"), "PATH": f"{bin_}:{os.environ['PATH']}"}
    command = [
        *(str(bin_ / "ray"), "start", "--head", "--block", "--num-cpus=2", "--disable-usage-stats"),
        *(f"--port={ports[0]}", f"--dashboard-port={ports[1]}", f"--ray-client-server-port={ports[2]}"),
        *("--dashboard-host=127.0.0.1", "--min-worker-port=0", "--max-worker-port=0"),
        f"--temp-dir={folder}/ray",
    ]
    with open(folder / "log", "w") as log:
        process = subprocess.Popen(
            command, env={**os.environ, **own}, stdout=log, stderr=log, start_new_session=True
        )
    try:
        _wait_for("Ray runtime started", folder / "log", process)
        yield f"http://127.0.0.1:{ports[1]}"
    finally:
        process.terminate()  # never `ray stop`: it would end every Ray of this user
        process.wait(60)
        shutil.rmtree(folder, ignore_errors=True)


def _wait_for(words: str, file: Path, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 90
    while words not in file.read_text():
        assert process.poll() is None and time.monotonic() < deadline, file.read_text()
        time.sleep(0.2)


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.extended
def test_a_search_is_left_found_again_and_brought_home(
    drive: Callable[..., Driver], head: str, tmp_path: Path
) -> None:
    (tmp_path / "my space's.toml").write_text(SPACE)
    search = ("search", "digits", "--space", "my space's.toml", "--name", "s", "--address", head)
    there = ("--samples", "2", "--epochs", "2", "--train-limit", "200", "--data-dir", str(tmp_path / "data"))

    left = drive(*search, *there)
    assert left.process.stdout
    first = left.process.stdout.readline()
    assert "Runs as job tunekit-s" in first
    left.process.send_signal(signal.SIGINT)
    code, output = left.wait()
    assert code == 130
    assert "Job tunekit-s runs on" in output and f"tunekit attach s --address {head}" in output

    code, output = drive(*search, *there).wait()
    assert code == 1 and "follows it" in output

    code, output = drive("attach", "s", "--address", head).wait()
    assert code == 0, output
    assert "Search s finished" in output and output.index("2 at a time") < output.index("2/2")
    assert (tmp_path / "there" / "results" / "s" / "search.json").is_file()

    code, output = drive("fetch", "s", "--address", head).wait()
    assert code == 0, output
    code, output = drive("best", "s", "--json").wait()
    assert code == 0 and Path(json.loads(output)["checkpoint"]).is_relative_to(tmp_path / "results")

    code, output = drive("resume", "none", "--address", head).wait()
    assert code == 1 and "no search called 'none' in results" in output
