from __future__ import annotations

import hashlib
import io
import pickle
import shutil
import subprocess
import sys
import tarfile
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest

from tunekit.data.datasets import CATALOGUE, dataset_status, open_dataset
from tunekit.data.pack import Pack
from tunekit.errors import DataAbsentError, DataError
from tunekit.paths import pack_folder


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise urllib.error.URLError("no network in tests")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)


def state(name: str, data_dir: Path) -> str:
    (status,) = (status for status in dataset_status(data_dir) if status["name"] == name)
    return str(status["state"])


@pytest.fixture(scope="module")
def digits_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data_dir = tmp_path_factory.mktemp("data")
    open_dataset("digits", data_dir)
    return data_dir


def test_digits_are_as_the_catalogue_says(digits_dir: Path) -> None:
    pack, info = open_dataset("digits", digits_dir), CATALOGUE["digits"]
    assert (pack.train_count, pack.test_count) == (info.train_images, info.test_images)
    assert (pack.shape, len(pack.classes)) == (info.shape, info.classes)
    (images, labels), (_, test_labels) = pack.train(), pack.open_test()
    assert images.max() == 255
    assert set(np.unique(images)) <= {round(value * 255 / 16) for value in range(17)}
    counts, test_counts = np.bincount(labels), np.bincount(test_labels)
    assert np.abs(test_counts / (counts + test_counts) - 0.2).max() < 0.005


def test_digits_are_always_divided_the_same_way(digits_dir: Path, tmp_path: Path) -> None:
    again = open_dataset("digits", tmp_path)
    assert again.digest == open_dataset("digits", digits_dir).digest == "ccbd804813dd8f76"


def test_search_works_on_a_pack_whose_test_part_is_ruined(digits_dir: Path, tmp_path: Path) -> None:
    shutil.copytree(digits_dir, tmp_path, dirs_exist_ok=True)
    file = pack_folder(tmp_path, "digits") / "test_images.npy"
    file.write_bytes(bytes(file.stat().st_size))
    before = file.stat().st_mtime_ns
    images, _ = open_dataset("digits", tmp_path).train()
    assert images.shape == (1438, 8, 8, 1)
    assert file.stat().st_mtime_ns == before  # nobody noticed, so nobody read it


def test_damaged_training_part_is_packed_again(digits_dir: Path, tmp_path: Path) -> None:
    shutil.copytree(digits_dir, tmp_path, dirs_exist_ok=True)
    file = pack_folder(tmp_path, "digits") / "train_images.npy"
    good = file.read_bytes()
    file.write_bytes(bytes(len(good)))
    open_dataset("digits", tmp_path)
    assert file.read_bytes() == good


def test_unknown_name_says_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no data set called 'cifr10'.* \(did you mean 'cifar10'\?\)"):
        open_dataset("cifr10", tmp_path)


def test_named_data_sets_keep_their_size(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="digits keeps its own size"):
        open_dataset("digits", tmp_path, image_size=16)


def test_name_wins_over_a_folder(digits_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "digits").mkdir()
    monkeypatch.chdir(tmp_path)
    assert open_dataset("digits", digits_dir).train_count == 1438


def test_status_of_an_empty_data_folder(tmp_path: Path, digits_dir: Path) -> None:
    states = {status["name"]: status["state"] for status in dataset_status(tmp_path / "nothing")}
    assert states == {"digits": "included", **dict.fromkeys(list(CATALOGUE)[1:], "absent")}
    assert state("digits", digits_dir) == "packed"
    (digits,) = (status for status in dataset_status(tmp_path) if status["name"] == "digits")
    assert (digits["classes"], digits["train_images"], digits["shape"]) == (10, 1438, [8, 8, 1])


def test_status_and_open_packs_need_no_heavy_import(digits_dir: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from tunekit.data.datasets import dataset_status, open_dataset\n"
        "dataset_status(Path(sys.argv[1])); open_dataset('digits', Path(sys.argv[1])).train()\n"
        "print([name for name in ('torch', 'torchvision', 'sklearn', 'scipy') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, digits_dir], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize(
    ("name", "where"),
    [
        ("cifar10", r"put cifar-10-python.tar.gz \(or the folder cifar-10-batches-py\) in {dir}$"),
        ("cifar100", r"put cifar-100-python.tar.gz \(or the folder cifar-100-python\) in {dir}$"),
        ("mnist", r"put train-images-idx3-ubyte.gz, .*, t10k-labels-idx1-ubyte.gz in {dir}/MNIST/raw$"),
        ("fashion-mnist", r"put train-images-idx3-ubyte.gz, .* in {dir}/FashionMNIST/raw$"),
    ],
)
def test_absent_and_offline_says_what_goes_where(
    name: str, where: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    start = rf"^{name} is not in {tmp_path} and cannot be downloaded \(.*no network in tests.*\): "
    with pytest.raises(DataAbsentError, match=start + where.format(dir=tmp_path)) as error:
        open_dataset(name, tmp_path)
    assert "\n" not in str(error.value)
    assert capfd.readouterr() == ("", "")
    assert state(name, tmp_path) == "absent"


def test_download_that_breaks_off_leaves_no_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(io.BytesIO):
        url = None
        length = 10**6

        def read(self, size: int | None = -1, /) -> bytes:
            if self.tell():
                raise ConnectionResetError("connection reset by peer")
            return super().read(3)

    monkeypatch.setattr(urllib.request, "urlopen", lambda *_, **__: Broken(b"abcdef"))
    with pytest.raises(DataAbsentError, match=r"cannot be downloaded \(connection reset by peer\)"):
        open_dataset("cifar10", tmp_path)
    assert not list(tmp_path.glob("cifar*"))


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("cifar10", "cifar-10-python.tar.gz"),
        ("mnist", "MNIST/raw/train-labels-idx1-ubyte.gz"),
    ],
)
@pytest.mark.usefixtures("offline")
def test_corrupt_archive_is_named_and_kept(name: str, file: str, tmp_path: Path) -> None:
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).write_bytes(b"half of it")
    with pytest.raises(DataError, match=f"^{tmp_path / file} is damaged .*: delete it and run again$"):
        open_dataset(name, tmp_path)
    assert (tmp_path / file).exists()


@pytest.mark.usefixtures("offline")
def test_corrupt_unpacked_file_is_named(tmp_path: Path) -> None:
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
        (raw / f"{name}-ubyte").write_bytes(b"\0" * 100)
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte is damaged"):
        open_dataset("mnist", tmp_path)


def _tiny_cifar(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An archive with 4 images a file, and torchvision's checksums to match."""
    from torchvision.datasets import CIFAR10

    pixels = np.arange(4 * 3072, dtype=np.uint32).astype(np.uint8).reshape(4, 3072)
    names = [f"data_batch_{part}" for part in range(1, 6)] + ["test_batch"]
    contents = {name: pickle.dumps({"data": pixels, "labels": [0, 1, 0, 1]}) for name in names}
    contents["batches.meta"] = pickle.dumps({"label_names": ["x", "y"]})
    archive = folder / "cifar-10-python.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        for name, data in contents.items():
            info = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    sums = {name: hashlib.md5(data).hexdigest() for name, data in contents.items()}
    monkeypatch.setattr(CIFAR10, "tgz_md5", hashlib.md5(archive.read_bytes()).hexdigest())
    monkeypatch.setattr(CIFAR10, "train_list", [[name, sums[name]] for name in names[:5]])
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", sums["test_batch"]]])
    monkeypatch.setattr(CIFAR10, "meta", {**CIFAR10.meta, "md5": sums["batches.meta"]})
    return archive


@pytest.mark.usefixtures("offline")
def test_archive_put_in_place_is_unpacked_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = _tiny_cifar(tmp_path, monkeypatch)
    assert state("cifar10", tmp_path) == "downloaded"
    pack = open_dataset("cifar10", tmp_path)
    assert (pack.train_count, pack.test_count, pack.shape) == (20, 4, (32, 32, 3))
    assert pack.train()[0][0, 0, :2].tolist() == [[0, 0, 0], [1, 1, 1]]  # 3 planes of 1024 = 4 * 256
    assert state("cifar10", tmp_path) == "packed"
    archive.unlink()
    shutil.rmtree(tmp_path / "cifar-10-batches-py")
    assert open_dataset("cifar10", tmp_path) == pack == Pack.open(pack.folder)


@pytest.mark.usefixtures("offline")
def test_damaged_batch_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _tiny_cifar(tmp_path, monkeypatch)
    pack = open_dataset("cifar10", tmp_path)
    shutil.rmtree(pack.folder)
    batch = tmp_path / "cifar-10-batches-py" / "data_batch_3"
    batch.write_bytes(batch.read_bytes()[:-1])
    with pytest.raises(DataError, match=f"{batch} is damaged"):
        open_dataset("cifar10", tmp_path)
    batch.unlink()
    assert open_dataset("cifar10", tmp_path) == pack  # unpacked again
