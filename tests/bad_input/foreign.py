"""Files of a stranger: a pickle that would run code, and a PNG that claims to be huge."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path


class Payload:
    """Whoever unpickles it makes the folder `mark`."""

    def __init__(self, mark: Path) -> None:
        self._mark = mark

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self._mark),)


def png_that_claims(width: int, height: int) -> bytes:
    """A PNG of less than 100 bytes whose head says how large it is."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        checksum = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(b"\0"))
        + chunk(b"IEND", b"")
    )
