from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps, PngImagePlugin

from tunekit.data.datasets import open_dataset
from tunekit.data.folder import image_files, read_image, read_images
from tunekit.data.pack import Pack
from tunekit.errors import DataError

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def save(path: Path, image: Image.Image | None = None, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    (image or Image.new("RGB", (20, 16), RED)).save(path, **options)
    return path


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two classes of five images, no `train/` and `test/`."""
    folder = tmp_path / "photos"
    for number in range(5):
        save(folder / "cat" / f"{number}.png", Image.new("RGB", (20, 16), (number, 0, 0)))
        save(folder / "dog" / f"{number}.jpg", Image.new("RGB", (10, 30), (200, number, 0)))
    return folder


def pack_of(folder: Path, image_size: int | None = 8) -> Pack:
    return open_dataset(str(folder), folder.parent / "data", image_size)


def packed_pixels(folder: Path, image: Image.Image, suffix: str = ".png", **options: Any) -> np.ndarray:
    """`image` as it comes out of a pack of 4 x 4 pixels, in the company of colour images."""
    for number in range(2):
        save(folder / "train" / "a" / f"{number}{suffix}", image, **options)
        save(folder / "train" / "b" / f"{number}.png")
    save(folder / "test" / "a" / "0.png")
    save(folder / "test" / "b" / "0.png")
    pixels, labels = pack_of(folder, 4).train()
    assert labels.tolist() == [0, 0, 1, 1]
    return np.asarray(pixels[0])


def test_part_of_each_class_is_held_out(photos: Path) -> None:
    pack = pack_of(photos)
    assert (pack.name, pack.classes, pack.shape) == ("photos", ("cat", "dog"), (8, 8, 3))
    assert (pack.train_count, pack.test_count) == (8, 2)
    assert np.bincount(pack.open_test()[1]).tolist() == [1, 1]
    images, labels = pack.train()
    assert labels.tolist() == [0] * 4 + [1] * 4
    assert (images[labels == 1][..., 0] > 190).all()


def test_held_out_images_are_always_the_same(photos: Path, tmp_path: Path) -> None:
    first = pack_of(photos).open_test()[0].copy()
    again = open_dataset(str(photos), tmp_path / "other", 8).open_test()[0]
    assert np.array_equal(first, again)


def test_default_side_is_64(photos: Path) -> None:
    assert pack_of(photos, None).shape == (64, 64, 3)


def test_train_and_test_folders_are_kept(tmp_path: Path) -> None:
    for part, count in (("train", 2), ("test", 1), ("other", 3)):
        for name, number in ((name, number) for name in ("b", "a") for number in range(count)):
            save(tmp_path / "set" / part / name / f"{number}.png")
    pack = pack_of(tmp_path / "set")
    assert (pack.classes, pack.train_count, pack.test_count) == (("a", "b"), 4, 2)


def test_images_lie_deeper_and_other_files_are_ignored(photos: Path) -> None:
    save(photos / "cat" / "old" / "deep" / "9.WEBP")
    save(photos / "cat" / "9.JPeG")
    save(photos / "cat" / ".hidden.png")
    save(photos / ".thumbnails" / "1.png")
    save(photos / "dog" / ".git" / "1.png")
    (photos / "dog" / "notes.txt").write_text("good dog")
    (photos / "README.md").write_text("photos")
    pack = pack_of(photos)
    assert pack.classes == ("cat", "dog")
    assert pack.train_count + pack.test_count == 12


def test_link_inside_the_folder_is_followed(photos: Path) -> None:
    (photos / "cat" / "link.png").symlink_to("0.png")
    pack = pack_of(photos)
    assert pack.train_count + pack.test_count == 11


def test_all_grey_makes_one_channel(tmp_path: Path) -> None:
    modes = ("L", "1", "I;16", "LA")
    for name, mode in ((name, mode) for name in ("a", "b") for mode in modes):
        save(tmp_path / "set" / name / f"{mode[0]}{len(mode)}.png", Image.new(mode, (9, 9)))
    assert pack_of(tmp_path / "set").shape == (8, 8, 1)
    save(tmp_path / "set" / "b" / "colour.png")
    assert pack_of(tmp_path / "set").shape == (8, 8, 3)


def _palette(transparent: bool) -> Image.Image:
    image = Image.new("P", (6, 6), 1)
    image.putpalette([*RED, *GREEN, *BLUE])
    if transparent:
        image.info["transparency"] = 1
    return image


def _sixteen_bits(value: int) -> Image.Image:
    return Image.fromarray(np.full((6, 6), value, dtype=np.uint16))


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (Image.new("RGB", (6, 6), GREEN), GREEN),
        (Image.new("L", (6, 6), 77), (77, 77, 77)),
        (Image.new("1", (6, 6), 1), (255, 255, 255)),
        (_palette(transparent=False), GREEN),
        (_palette(transparent=True), (255, 255, 255)),
        (Image.new("RGBA", (6, 6), (*BLUE, 0)), (255, 255, 255)),
        (Image.new("RGBA", (6, 6), (*BLUE, 255)), BLUE),
        (Image.new("RGBA", (6, 6), (0, 0, 0, 51)), (204, 204, 204)),
        (Image.new("LA", (6, 6), (0, 51)), (204, 204, 204)),
        (_sixteen_bits(65535), (255, 255, 255)),
        (_sixteen_bits(257 * 100), (100, 100, 100)),
        (_sixteen_bits(300), (1, 1, 1)),
    ],
)
def test_every_mode_becomes_rgb(tmp_path: Path, image: Image.Image, expected: tuple[int, ...]) -> None:
    assert (packed_pixels(tmp_path / "set", image) == expected).all()


def test_grey_with_transparency_stays_grey(tmp_path: Path) -> None:
    for name, number in ((name, number) for name in ("a", "b") for number in range(3)):
        save(tmp_path / "set" / name / f"{number}.png", Image.new("LA", (6, 6), (0, 51)))
    assert (pack_of(tmp_path / "set").train()[0] == 204).all()


def test_cmyk_jpeg_becomes_rgb(tmp_path: Path) -> None:
    cyan = Image.new("CMYK", (16, 16), (255, 0, 0, 0))
    pixels = packed_pixels(tmp_path / "set", cyan, ".jpg", quality=100).astype(int)
    assert np.abs(pixels - (0, 255, 255)).max() < 5


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    lying = Image.new("L", (16, 16))
    lying.paste(255, (0, 0, 8, 16))  # the left half is white
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to see it upright: white is on top
    pixels = packed_pixels(tmp_path / "set", lying, ".jpg", exif=exif, quality=100)
    assert pixels[0].min() > 200
    assert pixels[-1].max() < 50


def test_shorter_side_fits_and_the_centre_is_kept(tmp_path: Path) -> None:
    wide = Image.new("RGB", (48, 8), RED)
    wide.paste(GREEN, (18, 0, 30, 8))
    assert (packed_pixels(tmp_path / "set", wide) == GREEN).all()


@pytest.mark.parametrize("orientation", [1, 6])
def test_a_large_jpeg_is_read_as_if_it_were_decoded_in_full(tmp_path: Path, orientation: int) -> None:
    """It is decoded at a part of its size, which shows in no pixel."""
    noise = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    image = Image.fromarray(noise).resize((1600, 1200), Image.Resampling.BICUBIC)
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(tmp_path / "large.jpg", image, quality=95, exif=exif)
    upright = ImageOps.exif_transpose(Image.open(path))
    expected = np.asarray(ImageOps.fit(upright, (48, 48), Image.Resampling.BILINEAR), dtype=np.int64)
    assert np.abs(read_image(path, 48, 48, 3) - expected).max() <= 3


def test_changed_folder_is_packed_again(photos: Path) -> None:
    first = pack_of(photos)
    assert pack_of(photos) == first
    status = (photos / "cat" / "0.png").stat()
    save(photos / "cat" / "0.png", Image.new("RGB", (20, 16), BLUE))
    os.utime(photos / "cat" / "0.png", ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert pack_of(photos).source_checksum != first.source_checksum
    save(photos / "cat" / "more.png")
    assert pack_of(photos).train_count == 9


def test_each_size_has_its_own_pack(photos: Path) -> None:
    assert pack_of(photos, 8).folder != pack_of(photos, 16).folder
    assert pack_of(photos, 16).shape == (16, 16, 3)


def test_progress_counts_every_image(photos: Path) -> None:
    seen: list[tuple[int, int]] = []
    open_dataset(str(photos), photos.parent / "data", 8, lambda done, total: seen.append((done, total)))
    assert seen == [(done, 10) for done in range(1, 11)]


def test_odd_metadata_gives_no_warning(photos: Path) -> None:
    chunks = PngImagePlugin.PngInfo()
    chunks.add(b"eXIf", b"not exif")
    save(photos / "cat" / "odd.png", pnginfo=chunks)
    assert pack_of(photos).train_count == 9


def _truncated(folder: Path) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    path = save(folder / "dog" / "3.jpg", noise)
    path.write_bytes(path.read_bytes()[:-600])


def _truncated_png(folder: Path) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    path = save(folder / "cat" / "3.png", noise)
    path.write_bytes(path.read_bytes()[:600])


def _damaged_png(folder: Path) -> None:
    data = bytearray((folder / "cat" / "3.png").read_bytes())
    data[data.index(b"IDAT") + 4] ^= 255
    (folder / "cat" / "3.png").write_bytes(data)


def _keep(count: int) -> Callable[[Path], None]:
    def keep(folder: Path) -> None:
        for path in sorted((folder / "dog").iterdir())[count:]:
            path.unlink()

    return keep


def _one_class(folder: Path) -> None:
    (folder / "dog").rename(folder.parent / "dog")


def _no_classes(folder: Path) -> None:
    for name in ("cat", "dog"):
        (folder / name).rename(folder.parent / name)
    save(folder / "1.png")


def _split_differs(folder: Path) -> None:
    (folder / "train").mkdir()
    for name in ("cat", "dog"):
        (folder / name).rename(folder / "train" / name)
    save(folder / "test" / "cat" / "1.png")
    save(folder / "test" / "cow" / "1.png")


def _split_empty(folder: Path) -> None:
    _split_differs(folder)
    (folder / "test" / "cow").rename(folder / "test" / "dog")
    (folder / "test" / "dog" / "1.png").unlink()


def _link_out(folder: Path) -> None:
    (folder / "cat" / "out.png").symlink_to(save(folder.parent / "secret.png"))


def _folder_link_out(folder: Path) -> None:
    (folder / "cow").symlink_to(save(folder.parent / "elsewhere" / "1.png").parent)


def _train_link_out(folder: Path) -> None:
    (folder / "test").mkdir()
    (folder / "train").symlink_to(save(folder.parent / "elsewhere" / "a" / "1.png").parent.parent)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda folder: (folder / "cat" / "3.png").write_bytes(b""),
            "cannot read image .*cat/3.png: it is not",
        ),
        (
            lambda folder: (folder / "cat" / "3.png").write_bytes(b"x" * 99),
            "3.png: it is not a JPEG, PNG or WebP",
        ),
        (_truncated, "cannot read image .*dog/3.jpg: image file is truncated"),
        (_truncated_png, "cannot read image .*cat/3.png: "),
        (_damaged_png, "cannot read image .*cat/3.png: "),
        (
            _keep(1),
            "class folder .*dog has 1 images .*, but at least 3 are needed to train, to validate and to",
        ),
        (_keep(0), "class folder .*dog has 0 images"),
        (_no_classes, "photos has no class folders: put the images of each class in a folder"),
        (_one_class, "photos has only one class folder .'cat'.*, but at least 2"),
        (_split_differs, "photos: train and test have different classes .'cow' is in one only"),
        (_split_empty, "class folder .*test/dog has 0 images .* 1 are needed to test"),
        (_link_out, "cat/out.png is a link that leads out of .*photos"),
        (_folder_link_out, "cow is a link that leads out of .*photos"),
        (_train_link_out, "train is a link that leads out of .*photos"),
        (
            lambda folder: (folder / "cat" / "x.png").symlink_to("nothing"),
            "x.png is a link that leads nowhere",
        ),
        (
            lambda folder: (folder / "cat" / "x").symlink_to(".."),
            "cat/x is a link to a folder that it lies in",
        ),
    ],
)
def test_unusable_folder_is_one_clear_line(
    photos: Path, damage: Callable[[Path], object], message: str
) -> None:
    damage(photos)
    with pytest.raises(DataError, match=message) as error:
        pack_of(photos)
    assert "\n" not in str(error.value)
    packed = photos.parent / "data" / "packed"
    assert not packed.exists() or all(path.name.endswith(".lock") for path in packed.iterdir())


def test_classes_need_two_images_beside_a_test_folder(tmp_path: Path) -> None:
    for part, name in ((part, name) for part in ("train", "test") for name in ("a", "b")):
        save(tmp_path / "set" / part / name / "1.png")
    with pytest.raises(
        DataError, match=r"train/a has 1 images .*, but at least 2 are needed to train and to val"
    ):
        pack_of(tmp_path / "set")


@pytest.mark.parametrize("limit", [300, 100])  # Pillow warns above the limit and refuses above twice of it
def test_too_large_image(photos: Path, monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    save(photos / "cat" / "huge.png", Image.new("RGB", (20, 20)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    for path in [*photos.glob("dog/*"), *photos.glob("cat/[0-9].png")]:
        save(path, Image.new("RGB", (5, 5)))
    with pytest.raises(DataError, match=f"huge.png is too large: it has more than {limit} pixels"):
        pack_of(photos)


def test_odd_image_size(photos: Path) -> None:
    with pytest.raises(DataError, match="image size must be 1 pixel or more, but got 0"):
        pack_of(photos, 0)


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P", "I;16"])
def test_one_image_is_read_as_packing_reads_it(tmp_path: Path, mode: str) -> None:
    values = np.random.default_rng(0).integers(0, 256, (9, 15, 4), dtype=np.uint8)
    if mode == "I;16":
        image = Image.fromarray(values[..., 0].astype(np.uint16) * 257)
    else:
        image = Image.fromarray(values, "RGBA").convert(mode)
    packed = packed_pixels(tmp_path / "set", image)
    found = read_image(tmp_path / "set" / "train" / "a" / "0.png", 4, 4, 3)
    assert found.dtype == np.uint8
    assert np.array_equal(found, packed)


@pytest.mark.parametrize(("channels", "expected"), [(3, [RED, BLUE]), (1, [(76,), (29,)])])
def test_an_image_of_another_shape_than_square(
    tmp_path: Path, channels: int, expected: list[tuple[int, ...]]
) -> None:
    halves = Image.new("RGB", (12, 4), RED)
    halves.paste(BLUE, (6, 0, 12, 4))
    found = read_image(save(tmp_path / "halves.png", halves), 2, 6, channels)
    assert found.shape == (2, 6, channels)
    assert [tuple(found[0, column].tolist()) for column in (0, 5)] == expected


def test_the_images_of_a_folder_are_listed_in_order(tmp_path: Path) -> None:
    for name in ("b.png", "a/deep/2.jpg", "a/1.WEBP", ".hidden.png", "a/.git/3.png"):
        save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no image")
    listed = [path.relative_to(tmp_path).as_posix() for path in image_files(tmp_path)]
    assert listed == ["a/1.WEBP", "a/deep/2.jpg", "b.png"]


def test_an_unreadable_image_does_not_lose_the_others(tmp_path: Path) -> None:
    paths = [
        save(tmp_path / "good.png"),
        tmp_path / "broken.png",
        tmp_path / "absent.png",
        save(tmp_path / "g.jpg"),
    ]
    paths[1].write_bytes(b"no image")
    good, broken, absent, last = read_images(paths, 4, 4, 3)
    assert isinstance(good, np.ndarray) and isinstance(last, np.ndarray)
    assert str(broken) == f"cannot read image {paths[1]}: it is not a JPEG, PNG or WebP image"
    assert isinstance(absent, DataError) and str(paths[2]) in str(absent)
