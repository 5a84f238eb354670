"""Places for a search's storage: a folder, and a bucket of a real S3 server on this machine."""

from __future__ import annotations

import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


def on_server(address: str) -> str:
    """A folder in the bucket of an S3 server at HOST:PORT; `login` sets the keys."""
    return f"s3://bucket/searches?endpoint_override={address}&scheme=http&region=us-east-1"


NOBODY = on_server("127.0.0.1:9")


class S3Server:
    """Has a bucket, which is there again when it starts again."""

    def __init__(self) -> None:
        self._port = 0
        self.start()

    @property
    def uri(self) -> str:
        """Of a folder in the bucket."""
        return on_server(f"127.0.0.1:{self._port}")

    def start(self) -> None:
        """Answer, at the same port as before."""
        from moto.server import ThreadedMotoServer

        self._server = ThreadedMotoServer(ip_address="127.0.0.1", port=self._port, verbose=False)
        self._server.start()
        _, self._port = self._server.get_host_and_port()
        made = urllib.request.Request(f"http://127.0.0.1:{self._port}/bucket", method="PUT")
        urllib.request.urlopen(made, timeout=10).close()

    def stop(self) -> None:
        """Answer nobody any more."""
        self._server.stop()


@contextmanager
def s3_server() -> Iterator[str]:
    """A server for as long as the block lasts; gives its URI."""
    server = S3Server()
    try:
        yield server.uri
    finally:
        server.stop()


def login(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys as every node has them: in the environment."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


def own_temporary_folder(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """As on another node: nothing there of what was copied before."""
    folder.mkdir(exist_ok=True)
    monkeypatch.setattr("tempfile.tempdir", str(folder))
