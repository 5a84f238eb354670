"""`--address`: a Ray cluster to join, or a job server to run on."""

from __future__ import annotations

import os

import click


def join_address(address: str | None) -> str | None:
    """What is joined, or None; told to Ray before it is imported, since a cluster has a token of its own."""
    if address in (None, "", "local"):
        os.environ.pop("RAY_ADDRESS", None)
        return None
    assert address is not None
    os.environ["RAY_ADDRESS"] = address
    return address


def is_job_server(address: str | None) -> bool:
    return bool(address) and str(address).lower().startswith(("http://", "https://"))


def job_server(address: str | None) -> str:
    if address is None or not is_job_server(address):
        raise click.UsageError(f"--address must be that of a job server, http://HOST:8265, but got {address}")
    return address
