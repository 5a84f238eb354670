"""Images: odd ones give the right pixels, broken ones are named, wherever they come from."""

from __future__ import annotations

import io
import os
import pickle
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray
from PIL import Image

from tests.bad_input.foreign import Payload, png_that_claims
from tests.bad_input.refusal import Refusal, contents
from tests.retraining.saved_networks import save_network
from tunekit import cli
from tunekit.data.folder import read_image

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)
NOISE = np.random.default_rng(0).integers(0, 256, (24, 20, 3), dtype=np.uint8)


def encoded(image: Image.Image, format: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def plain(colour: tuple[int, ...] | int, mode: str = "RGB", size: tuple[int, int] = (6, 4)) -> Image.Image:
    return Image.new(mode, size, colour)


def animated(format: str) -> bytes:
    return encoded(plain(RED), format, save_all=True, append_images=[plain(BLUE)], lossless=True)


def png_of_16_bits(values: NDArray[np.uint16]) -> bytes:
    """A PNG of (H, W, 3) 16-bit values; Pillow writes none."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    height, width, _ = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    head = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def palette_with_transparency() -> Image.Image:
    """Left half transparent, right half green."""
    image = Image.new("P", (6, 4), 0)
    image.putpalette([*RED, *GREEN])
    image.paste(1, (3, 0, 6, 4))
    return image


def orientation(number: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = number
    return exif


def grid(left: tuple[int, ...], right: tuple[int, ...]) -> NDArray[np.uint8]:
    """(4, 6, 3): one colour in the left half, another in the right one."""
    return np.array([[left] * 3 + [right] * 3] * 4, dtype=np.uint8)


GREY_16 = np.linspace(0, 65535, 24).reshape(4, 6).astype(np.uint16)
RGB_16 = np.random.default_rng(1).integers(0, 65536, (4, 6, 3), dtype=np.uint16)

ODD: dict[str, tuple[bytes, NDArray[np.uint8], int]] = {  # the file, its pixels, how far they may be off
    "1 x 1": (encoded(plain((7, 8, 9), size=(1, 1)), "PNG"), np.full((4, 6, 3), (7, 8, 9), np.uint8), 0),
    "a strip of 65,535 x 1": (encoded(plain(GREEN, size=(65535, 1)), "PNG"), grid(GREEN, GREEN), 0),
    "a strip of 1 x 65,535": (encoded(plain(GREEN, size=(1, 65535)), "PNG"), grid(GREEN, GREEN), 0),
    "CMYK JPEG": (encoded(plain((0, 255, 255, 0), "CMYK"), "JPEG", quality=100), grid(RED, RED), 3),
    "CMYK JPEG, white": (encoded(plain((0, 0, 0, 0), "CMYK"), "JPEG"), grid((255,) * 3, (255,) * 3), 1),
    "grey JPEG": (encoded(plain(100, "L"), "JPEG"), grid((100,) * 3, (100,) * 3), 1),
    "animated GIF": (animated("GIF"), grid(RED, RED), 0),
    "animated WebP": (animated("WEBP"), grid(RED, RED), 0),
    "animated PNG": (animated("PNG"), grid(RED, RED), 0),
    "black and white": (encoded(plain(1, "1"), "PNG"), grid((255,) * 3, (255,) * 3), 0),
    "16-bit grey": (
        encoded(Image.fromarray(GREY_16), "PNG"),
        np.round(GREY_16 / 257).astype(np.uint8)[..., None].repeat(3, axis=2),
        0,
    ),
    "16-bit RGB": (png_of_16_bits(RGB_16), np.round(RGB_16 / 257).astype(np.uint8), 1),
    "palette": (encoded(palette_with_transparency(), "PNG"), grid(RED, GREEN), 0),
    "palette with transparency": (
        encoded(palette_with_transparency(), "PNG", transparency=0),
        grid((255,) * 3, GREEN),
        0,
    ),
    "half transparent": (encoded(plain((0, 0, 0, 128), "RGBA"), "PNG"), grid((127,) * 3, (127,) * 3), 1),
    "grey and transparent": (encoded(plain((9, 0), "LA"), "PNG"), grid((255,) * 3, (255,) * 3), 0),
    "BMP": (encoded(plain(BLUE), "BMP"), grid(BLUE, BLUE), 0),
    "EXIF that is none": (
        encoded(plain(GREEN), "PNG", exif=b"Exif\0\0no such thing"),
        grid(GREEN, GREEN),
        0,
    ),
    "EXIF cut off": (
        encoded(plain(GREEN), "PNG", exif=orientation(6).tobytes()[:-9]),
        grid(GREEN, GREEN),
        0,
    ),
    "EXIF with a turn that does not exist": (
        encoded(Image.fromarray(grid(RED, BLUE)), "PNG", exif=orientation(99)),
        grid(RED, BLUE),
        0,
    ),
    "EXIF upside down": (
        encoded(Image.fromarray(grid(RED, BLUE)), "PNG", exif=orientation(3)),
        grid(BLUE, RED),
        0,
    ),
}


@pytest.mark.parametrize("suffix", [".png", ".jpg"], ids=["as it is", "misnamed"])
@pytest.mark.parametrize("name", ODD)
def test_an_odd_image_has_the_right_pixels(name: str, suffix: str, tmp_path: Path) -> None:
    content, expected, tolerance = ODD[name]
    (tmp_path / f"odd{suffix}").write_bytes(content)
    pixels = read_image(tmp_path / f"odd{suffix}", 4, 6, 3)
    assert pixels.shape == expected.shape
    assert np.abs(pixels.astype(int) - expected).max() <= tolerance, pixels


def cut(content: bytes) -> bytes:
    return content[: len(content) * 2 // 3]


def text_that_unpacks_to_a_gigabyte() -> bytes:
    good = encoded(plain(RED), "PNG")
    packed = zlib.compressobj(9)
    text = b"note\0\0" + packed.compress(bytes(2**26)) + packed.flush()
    chunk = struct.pack(">I", len(text)) + b"zTXt" + text + struct.pack(">I", zlib.crc32(b"zTXt" + text))
    end = good.index(b"IDAT") - 4
    return good[:end] + chunk + good[end:]


NOISE_PNG = encoded(Image.fromarray(NOISE), "PNG")
NONE_AT_ALL = "it is not a JPEG, PNG or WebP image"
BROKEN: dict[str, tuple[Callable[[], bytes], str]] = {
    "no bytes": (lambda: b"", NONE_AT_ALL),
    "text": (lambda: b"a picture of a cat\n" * 9, NONE_AT_ALL),
    "a web page": (lambda: b"<!DOCTYPE html><html>404</html>", NONE_AT_ALL),
    "a drawing": (lambda: b"<svg xmlns='http://www.w3.org/2000/svg'/>", NONE_AT_ALL),
    "PostScript": (lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", NONE_AT_ALL),
    "TIFF": (lambda: encoded(plain(RED), "TIFF"), NONE_AT_ALL),
    "a head alone": (lambda: b"\x89PNG\r\n\x1a\n", "cannot read image"),
    "PNG cut off": (lambda: cut(NOISE_PNG), "cannot read image"),
    "PNG changed": (lambda: NOISE_PNG.replace(b"IDAT", b"IDAX"), "cannot read image"),
    "JPEG cut off": (lambda: cut(encoded(Image.fromarray(NOISE), "JPEG")), "image file is truncated"),
    "WebP cut off": (
        lambda: cut(encoded(Image.fromarray(NOISE), "WEBP", lossless=True)),
        "cannot read image",
    ),
    "30,000 x 30,000": (lambda: png_that_claims(30_000, 30_000), "has more than 89,478,485 pixels"),
    "10,000 x 10,000": (lambda: png_that_claims(10_000, 10_000), "has more than 89,478,485 pixels"),
    "0 x 9": (lambda: png_that_claims(0, 9), "cannot read image"),
    "as large as can be": (lambda: png_that_claims(2**31 - 1, 2**31 - 1), "image"),
    "a text of 64 MiB in it": (text_that_unpacks_to_a_gigabyte, "cannot read image"),
}


def photos(folder: Path) -> Path:
    """Two classes of four images."""
    for name in ("cat", "dog"):
        (folder / name).mkdir(parents=True)
        for number in range(4):
            plain((number, 0, 0)).save(folder / name / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights that `tunekit predict` takes."""
    file = tmp_path_factory.mktemp("network") / "best.safetensors"
    save_network(file, seed=0)
    return file


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_image_is_named(name: str, refused: Refusal, tmp_path: Path, network: Path) -> None:
    content, words = BROKEN[name]
    broken = photos(tmp_path / "photos") / "dog" / "3.png"
    broken.write_bytes(content())
    refused(["datasets", "prepare", "photos"], [str(broken), words])
    refused(["predict", str(network), "photos/dog/3.png"], ["photos/dog/3.png", words])


def test_a_pickle_is_no_image_and_does_not_run(refused: Refusal, tmp_path: Path, network: Path) -> None:
    broken = photos(tmp_path / "photos") / "dog" / "3.png"
    broken.write_bytes(pickle.dumps(Payload(tmp_path / "ran")))
    refused(["datasets", "prepare", "photos"], NONE_AT_ALL)
    refused(["predict", str(network), str(broken)], NONE_AT_ALL)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nothing.png", "nothing.png"),
        ("pipe.png", "cannot read image pipe.png: it is no file"),
        ("empty", "folder empty has no images (JPEG, PNG or WebP)"),
        ("a" * 300, "File name too long"),
        ("a\x1b[2J.png", r"a\x1b[2J.png"),
        ("circle.png", "circle.png"),
    ],
)
def test_what_is_no_image_file_is_named(
    name: str, words: str, refused: Refusal, tmp_path: Path, network: Path
) -> None:
    os.mkfifo(tmp_path / "pipe.png")  # reading it would never end
    (tmp_path / "empty").mkdir()
    (tmp_path / "circle.png").symlink_to("circle.png")
    refused(["predict", str(network), name], words)


def test_one_broken_image_does_not_lose_the_others(tmp_path: Path, network: Path) -> None:
    folder = photos(tmp_path / "photos")
    (folder / "cat" / "1.png").write_bytes(b"")
    before = contents(tmp_path)
    result = CliRunner().invoke(cli.main, ["predict", str(network), str(folder), "--top", "1"])
    assert result.exit_code == 1
    assert result.stderr.count("Error: ") == 1
    assert result.stdout.count(".png") == 7
    assert contents(tmp_path) == before
