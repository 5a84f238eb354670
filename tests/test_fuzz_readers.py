"""Readers of foreign bytes on files with seeded damage; `python -m tests.fuzz` looks further."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.fuzz.readers import READERS, Reader, refused

_CHANGES = 200  # of each reader


def damaged(sample: bytes, count: int, seed: int) -> Iterator[bytes]:
    """Copies with a few other bytes, with an end cut off, or with bytes put in between."""
    generator = np.random.default_rng(seed)
    for number in range(count):
        content = bytearray(sample)
        place = int(generator.integers(len(content)))
        if number % 4 < 2:
            for flipped in generator.integers(len(content), size=1 + number % 5):
                content[flipped] = generator.integers(256)
        elif number % 4 == 2:
            del content[place:]
        else:
            content[place:place] = generator.bytes(1 + number % 9)
        yield bytes(content)


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.name)
def test_damage_is_refused_or_does_no_harm(reader: Reader, tmp_path: Path) -> None:
    samples = reader.samples(tmp_path)
    for seed, sample in enumerate(samples):
        assert refused(reader, tmp_path, sample) == reader.by_checksum
        for content in damaged(sample, _CHANGES // len(samples), seed):
            refused(reader, tmp_path, content)


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.name)
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0",
        b"null",
        b"[]",
        b"{}",
        b"[{}]",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"\xff\xfe{",
        b"a = " + b"[" * 9999,
    ],
    ids=[
        "empty",
        "zero",
        "null",
        "list",
        "table",
        "list of a table",
        "nested lists",
        "nested tables",
        "utf-16",
        "toml",
    ],
)
def test_what_is_no_such_file_at_all_is_refused(reader: Reader, content: bytes, tmp_path: Path) -> None:
    reader.samples(tmp_path)
    refused(reader, tmp_path, content)
