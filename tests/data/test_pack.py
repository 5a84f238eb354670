from __future__ import annotations

import json
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tunekit.data import pack as pack_module
from tunekit.data.pack import Content, Pack, Part, channel_statistics, ensure_pack
from tunekit.errors import DataError

RANDOM = np.random.default_rng(0)
TRAIN = RANDOM.integers(0, 256, (40, 6, 5, 3), dtype=np.uint8)
TEST = RANDOM.integers(0, 256, (10, 6, 5, 3), dtype=np.uint8)
TRAIN_LABELS, TEST_LABELS = np.arange(40) % 2, np.arange(10) % 2


def content() -> Content:
    train, test = Part.of(TRAIN, TRAIN_LABELS), Part.of(TEST, TEST_LABELS)
    return Content("noise", ("a", "b"), (6, 5, 3), train, test, "a test", "abc")


def not_called() -> Content:
    raise AssertionError("built again")


class Opened:
    """The names of the files that this process opens inside a `with` block."""

    def __init__(self) -> None:
        self._names: list[str] | None = None
        sys.addaudithook(self._hook)  # cannot be taken out again, so one for the whole session

    def _hook(self, event: str, args: tuple[Any, ...]) -> None:
        if event == "open" and self._names is not None:
            self._names.append(str(args[0]))

    def __enter__(self) -> list[str]:
        self._names = []
        return self._names

    def __exit__(self, *_: object) -> None:
        self._names = None


@pytest.fixture(scope="session")
def opened() -> Opened:
    return Opened()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return ensure_pack(tmp_path / "packed" / "noise", content).folder


def test_pack_holds_what_was_put_in(folder: Path) -> None:
    pack = Pack.open(folder)
    assert (pack.name, pack.classes, pack.shape) == ("noise", ("a", "b"), (6, 5, 3))
    assert (pack.train_count, pack.test_count) == (40, 10)
    for (images, labels), expected, expected_labels in (
        (pack.train(), TRAIN, TRAIN_LABELS),
        (pack.open_test(), TEST, TEST_LABELS),
    ):
        assert isinstance(images, np.memmap)
        assert images.dtype == np.uint8
        assert labels.dtype == np.int64
        assert np.array_equal(images, expected)
        assert np.array_equal(labels, expected_labels)
    np.testing.assert_allclose(pack.mean, (TRAIN / 255).mean((0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(pack.std, (TRAIN / 255).std((0, 1, 2)), rtol=1e-12)
    assert pickle.loads(pickle.dumps(pack)) == pack


def test_good_pack_is_used_again_without_a_lock(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pack_module, "FileLock", not_called)  # a read-only data folder serves too
    assert ensure_pack(folder, not_called) == Pack.open(folder)


def test_pack_may_be_moved(folder: Path, tmp_path: Path) -> None:
    moved = folder.rename(tmp_path / "elsewhere")
    assert Pack.open(moved).verify()


def test_writing_to_the_arrays_does_not_reach_the_file(folder: Path) -> None:
    images, _ = Pack.open(folder).train()
    torch.from_numpy(images).zero_()  # no warning either: warnings are errors here
    assert Pack.open(folder).verify()


def test_digest_names_the_training_data(folder: Path, tmp_path: Path) -> None:
    digest = Pack.open(folder).digest
    assert len(digest) == 16
    other_test = Content(
        "other", ("x", "y"), (6, 5, 3), content().train, Part.of(TEST[:5], TEST_LABELS[:5]), "", ""
    )
    assert ensure_pack(tmp_path / "1", lambda: other_test).digest == digest
    other_train = Content("noise", ("a", "b"), (6, 5, 3), content().test, content().test, "", "")
    assert ensure_pack(tmp_path / "2", lambda: other_train).digest != digest


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def _change_a_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def _other_version(path: Path) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 0}))


def _not_json(path: Path) -> None:
    path.write_text("{")


def _key_missing(path: Path) -> None:
    saved = json.loads(path.read_text())
    del saved["mean"]
    path.write_text(json.dumps(saved))


@pytest.mark.parametrize(
    ("file", "damage", "message"),
    [
        ("train_images.npy", _truncate, "train_images.npy is absent or not"),
        ("train_labels.npy", Path.unlink, "train_labels.npy is absent or not"),
        ("test_images.npy", _truncate, "test_images.npy is absent or not"),
        ("pack.json", Path.unlink, "there is no packed data set in"),
        ("pack.json", _not_json, "pack.json is damaged"),
        ("pack.json", _key_missing, "pack.json is damaged"),
        ("pack.json", _other_version, "packed by another version"),
    ],
)
def test_damaged_pack_is_refused_and_built_again(
    folder: Path, file: str, damage: Callable[[Path], None], message: str
) -> None:
    damage(folder / file)
    with pytest.raises(DataError, match=message):
        Pack.open(folder)
    assert np.array_equal(ensure_pack(folder, content).train()[0], TRAIN)
    assert ensure_pack(folder, not_called).open_test()[0].shape == TEST.shape


@pytest.mark.parametrize("file", ["train_images.npy", "train_labels.npy"])
def test_changed_byte_of_training_data_is_found_by_verify(folder: Path, file: str) -> None:
    _change_a_byte(folder / file)
    assert not Pack.open(folder).verify()
    assert ensure_pack(folder, content).verify()


def test_changed_byte_of_test_data_is_found_when_test_is_opened(folder: Path) -> None:
    _change_a_byte(folder / "test_images.npy")
    pack = ensure_pack(folder, not_called)  # nobody looked into it
    with pytest.raises(DataError, match=r"test_images.npy is damaged: delete .*noise and pack again"):
        pack.open_test()


def test_test_files_are_not_opened_before_open_test(folder: Path, opened: Opened) -> None:
    with opened as names:
        ensure_pack(folder, not_called).train()
    assert {Path(name).name for name in names if "packed" in name} == {
        "pack.json",
        "train_images.npy",
        "train_labels.npy",
    }
    with opened as names:
        Pack.open(folder).open_test()
    assert "test_images.npy" in {Path(name).name for name in names}


def test_changed_source_is_packed_again(folder: Path) -> None:
    ensure_pack(folder, not_called, "abc")
    with pytest.raises(AssertionError, match="built again"):
        ensure_pack(folder, not_called, "abd")


def test_running_trials_keep_the_arrays_of_a_replaced_pack(folder: Path) -> None:
    images, _ = Pack.open(folder).train()
    (folder / "pack.json").unlink()
    ensure_pack(folder, content)
    assert np.array_equal(images, TRAIN)


def test_failed_build_leaves_nothing(tmp_path: Path) -> None:
    def fail(out: pack_module.Images) -> None:
        raise DataError("cannot read image 7")

    broken = Content("noise", ("a", "b"), (6, 5, 3), Part(TRAIN_LABELS, fill=fail), content().test, "", "")
    with pytest.raises(DataError, match="image 7"):
        ensure_pack(tmp_path / "noise", lambda: broken)
    assert [path.name for path in tmp_path.iterdir()] in ([], [".noise.lock"])


def test_data_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"cannot write to .*packed: ") as error:
        ensure_pack(tmp_path / "file" / "packed" / "noise", content)
    assert "\n" not in str(error.value)


def test_full_disk_is_one_line(tmp_path: Path) -> None:
    def fail(out: pack_module.Images) -> None:
        raise OSError(28, "No space left on device")

    full = Content("noise", ("a", "b"), (6, 5, 3), Part(TRAIN_LABELS, fill=fail), content().test, "", "")
    with pytest.raises(DataError, match=r"cannot write .*noise: No space left on device"):
        ensure_pack(tmp_path / "noise", lambda: full)


BUILDER = """
import os, sys, time
from pathlib import Path
import numpy as np
from tunekit.data.pack import Content, Part, ensure_pack

def load():
    with open(sys.argv[1] + ".log", "a") as log:
        log.write("built ")
    def fill(out):
        out[:] = 1
        time.sleep(0.3)
        if sys.argv[2] == "die":
            os._exit(9)
    part = Part(np.arange(4) % 2, fill)
    return Content("x", ("a", "b"), (2, 2, 1), part, part, "", "")

print(ensure_pack(Path(sys.argv[1]), load).digest)
"""


def _start(folder: Path, fate: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", BUILDER, folder, fate], stdout=subprocess.PIPE, text=True)


def test_two_processes_build_once(tmp_path: Path) -> None:
    processes = [_start(tmp_path / "x", "live") for _ in range(2)]
    digests = {process.communicate(timeout=60)[0] for process in processes}
    assert digests == {Pack.open(tmp_path / "x").digest + "\n"}
    assert (tmp_path / "x.log").read_text() == "built "


def test_killed_builder_leaves_no_pack_and_its_remains_are_cleared(tmp_path: Path) -> None:
    process = _start(tmp_path / "x", "die")
    process.communicate(timeout=60)
    assert process.returncode == 9
    assert not (tmp_path / "x").exists()
    assert list(tmp_path.glob(".x.building.*"))
    ensure_pack(tmp_path / "x", content)
    assert not list(tmp_path.glob(".x.building.*"))


def test_statistics_of_an_array_counted_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pack_module, "_COUNTED_AT_ONCE", 7)
    mean, std = channel_statistics(TRAIN)
    np.testing.assert_allclose(mean, (TRAIN / 255).mean((0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(std, (TRAIN / 255).std((0, 1, 2)), rtol=1e-12)
