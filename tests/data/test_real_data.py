"""On the published files: set TUNEKIT_TEST_DATA to a folder with CIFAR-10 and MNIST, unpacked."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from tunekit.data.datasets import CATALOGUE, dataset_status, open_dataset
from tunekit.errors import DataError

pytestmark = pytest.mark.skipif("TUNEKIT_TEST_DATA" not in os.environ, reason="TUNEKIT_TEST_DATA is not set")


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source files, with a place of its own for packs."""
    source, folder = Path(os.environ["TUNEKIT_TEST_DATA"]).resolve(), tmp_path_factory.mktemp("data")
    for name in ("cifar-10-batches-py", "MNIST"):
        (folder / name).symlink_to(source / name)
    return folder


def test_cifar10(data_dir: Path) -> None:
    pack, info = open_dataset("cifar10", data_dir), CATALOGUE["cifar10"]
    assert (pack.shape, pack.train_count, pack.test_count) == (
        info.shape,
        info.train_images,
        info.test_images,
    )
    assert pack.classes[:3] == ("airplane", "automobile", "bird")
    assert np.bincount(pack.train()[1]).tolist() == [5000] * 10
    assert np.bincount(pack.open_test()[1]).tolist() == [1000] * 10
    np.testing.assert_allclose(pack.mean, (0.4914, 0.4822, 0.4465), atol=1e-4)
    np.testing.assert_allclose(pack.std, (0.2470, 0.2435, 0.2616), atol=1e-4)


def test_mnist(data_dir: Path) -> None:
    pack, info = open_dataset("mnist", data_dir), CATALOGUE["mnist"]
    assert (pack.shape, pack.train_count, pack.test_count) == (
        info.shape,
        info.train_images,
        info.test_images,
    )
    assert pack.train()[1][:5].tolist() == [5, 0, 4, 1, 9]
    assert len(pack.classes) == 10
    np.testing.assert_allclose([*pack.mean, *pack.std], (0.1307, 0.3081), atol=1e-4)


def test_status_knows_them(data_dir: Path) -> None:
    for name in ("cifar10", "mnist"):
        open_dataset(name, data_dir)
    states = {status["name"]: status["state"] for status in dataset_status(data_dir)}
    assert states["cifar10"] == states["mnist"] == "packed"


def test_damaged_file_is_found_by_its_md5(tmp_path: Path, data_dir: Path) -> None:
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for file in (data_dir / "cifar-10-batches-py").resolve().iterdir():
        (folder / file.name).symlink_to(file)
    damaged = bytearray((folder / "batches.meta").read_bytes())
    damaged[-5] ^= 1
    (folder / "batches.meta").unlink()
    (folder / "batches.meta").write_bytes(damaged)
    with pytest.raises(DataError, match=r"batches.meta is damaged"):
        open_dataset("cifar10", tmp_path)
