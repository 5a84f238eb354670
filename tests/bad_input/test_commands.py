"""Every command and option with what it cannot take: out of range, of a wrong type, empty, contradictory."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bad_input.refusal import MISTAKE, USAGE, Refusal
from tests.search_on_disk import lay_down_search

SEARCH = ("search", "digits", "--space", "resnet")
HUGE = str(10**30)

USAGES = [
    (("serch",), "no command 'serch' (did you mean 'search'?)"),
    (("",), "no command ''"),
    (("--versoin",), "No such option '--versoin'"),
    (("\x1b[31mred",), r"no command '\x1b[31mred'"),
    (("spaces", "shwo"), "no command 'shwo' (did you mean 'show'?)"),
    (("datasets", "get"), "no command 'get' (one of: prepare)"),
    (("search", "digits"), "Missing option '--space'"),
    (("search", "--space", "resnet"), "Missing argument 'DATASET'"),
    ((*SEARCH, "--sample", "3"), "No such option '--sample'"),
    ((*SEARCH, "--\x1b[31m", "3"), "No such option"),
    ((*SEARCH, "more"), "Got unexpected extra argument (more)"),
    ((*SEARCH, "--samples", "many"), "Invalid value for '--samples': 'many' is not a valid integer"),
    ((*SEARCH, "--samples", "1e3"), "Invalid value for '--samples': '1e3'"),
    ((*SEARCH, "--samples", "nan"), "Invalid value for '--samples': 'nan'"),
    ((*SEARCH, "--samples", ""), "Invalid value for '--samples': ''"),
    ((*SEARCH, "--samples", HUGE), f"{HUGE} is not in the range x<=1000000"),
    ((*SEARCH, "--epochs", "2.5"), "Invalid value for '--epochs': '2.5'"),
    ((*SEARCH, "--epochs", HUGE), f"{HUGE} is not in the range x<=1000000"),
    ((*SEARCH, "--grace-period", HUGE), "Invalid value for '--grace-period'"),
    ((*SEARCH, "--reduction-factor", "1.5"), "Invalid value for '--reduction-factor': '1.5'"),
    ((*SEARCH, "--reduction-factor", HUGE), "Invalid value for '--reduction-factor'"),
    ((*SEARCH, "--repeats", HUGE), "is not in the range x<=1000"),
    ((*SEARCH, "--seed", HUGE), "is not in the range x<=4294967295"),
    ((*SEARCH, "--keep-checkpoints", HUGE), "Invalid value for '--keep-checkpoints'"),
    ((*SEARCH, "--on-oom", "pray"), "'pray' is not one of 'fail', 'retry'"),
    ((*SEARCH, "--max-failures", "11"), "11 is not in the range 0<=x<=10"),
    ((*SEARCH, "--disk-budget", "20"), "must be a size above 0 such as 500MB or 20GB, but got '20'"),
    ((*SEARCH, "--disk-budget", "0GB"), "must be a size above 0"),
    ((*SEARCH, "--disk-budget", "much"), "must be a size above 0"),
    ((*SEARCH, "--storage", ""), "Invalid value for '--storage': must not be empty"),
    ((*SEARCH, "--image-size", HUGE), "is not in the range x<=4096"),
    ((*SEARCH, "--train-limit", "all"), "Invalid value for '--train-limit': 'all'"),
    ((*SEARCH, "--val-fraction", "half"), "Invalid value for '--val-fraction': 'half'"),
    ((*SEARCH, "--cpus-per-trial", "nan"), "must be 0, or 0.0001 or more, but got 'nan'"),
    ((*SEARCH, "--cpus-per-trial", "1e400"), "must be 0, or 0.0001 or more, but got '1e400'"),
    ((*SEARCH, "--cpus-per-trial", "1e-9"), "must be 0, or 0.0001 or more, but got '1e-9'"),
    ((*SEARCH, "--cpus-per-trial", "two"), "Invalid value for '--cpus-per-trial'"),
    ((*SEARCH, "--gpus-per-trial", "nan"), "Invalid value for '--gpus-per-trial'"),
    ((*SEARCH, "--gpus-per-trial", "-inf"), "Invalid value for '--gpus-per-trial'"),
    ((*SEARCH, "--gpus-per-trial", "atuo"), "must be a number or auto, but got 'atuo'"),
    ((*SEARCH, "--time-budget", "soon"), "must be a time above 0 such as 90s, 30m or 1h30m, but got 'soon'"),
    ((*SEARCH, "--time-budget", "0m"), "must be a time above 0"),
    ((*SEARCH, "--time-budget", "-5"), "must be a time above 0"),
    ((*SEARCH, "--time-budget", ""), "must be a time above 0"),
    ((*SEARCH, "--time-budget", "1s2h"), "must be a time above 0"),
    ((*SEARCH, "--time-budget", "9" * 400), "must be a time above 0"),
    ((*SEARCH, "--time-budget", "٣m"), "must be a time above 0"),  # a digit, but not ours
    ((*SEARCH, "--scheduler", "pbt"), "'pbt' is not one of 'asha-promotion', 'asha', 'hyperband'"),
    ((*SEARCH, "--sampler", "tpe"), "'tpe' is not one of 'portfolio', 'rung-tpe', 'random'"),
    ((*SEARCH, "--sampler", "\x1b[31m"), "is not one of 'portfolio'"),
    ((*SEARCH, "--name", ""), "Invalid value for '--name': must not be empty"),
    ((*SEARCH, "--tracking-uri", ""), ("'--tracking-uri'", "must not be empty")),
    ((*SEARCH, "--results-dir", ""), ("'--results-dir'", "must be a path, but got ''")),
    ((*SEARCH, "--results-dir", "a\0b"), r"must be a path, but got 'a\x00b'"),
    ((*SEARCH, "--results-dir", "file"), "Directory 'file' is a file"),
    ((*SEARCH, "--data-dir", ""), ("'--data-dir'", "must be a path, but got ''")),
    ((*SEARCH, "--data-dir", "file"), "Directory 'file' is a file"),
    (("baseline",), "Missing argument 'ID'"),
    (("baseline", "B-mnist-vgg16", "--dataset", ""), "Invalid value for '--dataset': must not be empty"),
    (("baseline", "B-mnist-vgg16", "--space", ""), "Invalid value for '--space': must not be empty"),
    (("baseline", "B-mnist-vgg16", "--epochs", HUGE), "Invalid value for '--epochs'"),
    (("resume", "mine", "--time-budget", "now"), "must be a time above 0"),
    (("best", "mine", "mine"), "Got unexpected extra argument (mine)"),
    (("searches", "mine"), "Got unexpected extra argument (mine)"),
    (("recipe", "optim.lr"), "Got unexpected extra argument (optim.lr)"),
    (("compare",), "Missing argument 'SEARCH...'"),
    (("choices", "--key", ""), "Invalid value for '--key': must not be empty"),
    (("simulate", "mine", "--seeds", "0"), "0 is not in the range 1<=x<=10000"),
    (("simulate", "mine", "--workers", HUGE), "is not in the range 1<=x<=10000"),
    (("simulate", "mine", "--grace-period", "0"), "0 is not in the range 1<=x<=1000000"),
    (("simulate", "mine", "--sampler", "tpe"), "'tpe' is not one of"),
    (("retrain-best", "--refit-on", "test"), "'test' is not one of 'train', 'train+val'"),
    (("retrain-best", "--cpus-per-trial", "nan"), "Invalid value for '--cpus-per-trial'"),
    (("retrain-best", "mine", "--baseline", "B-*"), "give a search or --baseline, not both"),
    (("retrain-best", "--train-limit", "100"), "--train-limit goes with --baseline"),
    (("retrain-best", "--name", ""), "Invalid value for '--name': must not be empty"),
    (("predict", "model"), "Missing argument 'IMAGE...'"),
    (("predict", "model", "image.png", "--top", "0"), "0 is not in the range x>=1"),
    (("predict", "model", ""), "must be a path, but got ''"),
    (("export", "model"), "Missing option '--format'. Choose from: onnx"),
    (("export", "model", "--format", "pickle"), "'pickle' is not one of 'onnx'"),
    (("export", "model", "--format", "onnx", "--output", ""), "must be a path, but got ''"),
    (("export", "model", "--format", "onnx", "--output", "empty"), "File 'empty' is a directory"),
    (("datasets", "prepare", "digits", "--image-size", "x"), "Invalid value for '--image-size'"),
    (("ui", "--port", "70000"), "70000 is not in the range 1<=x<=65535"),
    (("ui", "--port", "0"), "0 is not in the range"),
    (("ui", "--host", ""), "Invalid value for '--host': must not be empty"),
]

MISTAKES = [
    ((*SEARCH, "--samples", "0"), "--samples must be at least 1, but got 0"),
    ((*SEARCH, "--epochs", "0"), "--epochs must be at least 1, but got 0"),
    ((*SEARCH, "--seed", "-1"), "--seed must be at least 0, but got -1"),
    ((*SEARCH, "--grace-period", "0"), "grace_period must be at least 1, but got 0"),
    ((*SEARCH, "--reduction-factor", "1"), "reduction_factor must be at least 2, but got 1"),
    ((*SEARCH, "--repeats", "0"), "--repeats must be at least 1, but got 0"),
    ((*SEARCH, "--keep-checkpoints", "0"), "--keep-checkpoints must be at least 1, but got 0"),
    ((*SEARCH, "--val-fraction", "1.5"), "--val-fraction must be between 0 and 1, but got 1.5"),
    ((*SEARCH, "--val-fraction", "nan"), "--val-fraction must be between 0 and 1, but got nan"),
    ((*SEARCH, "--val-fraction", "1e-400"), "--val-fraction must be between 0 and 1, but got 0.0"),
    ((*SEARCH, "--train-limit", "5"), "must be 20 (2 of each class) to 1438, but got 5"),
    ((*SEARCH, "--train-limit", "-5"), "but got -5"),
    ((*SEARCH, "--train-limit", HUGE), f"but got {HUGE}"),
    ((*SEARCH, "--image-size", "32"), "digits keeps its own size"),
    ((*SEARCH, "--gpus-per-trial", "64"), "--gpus-per-trial 64: there"),
    ((*SEARCH, "--gpus-per-trial", "-1"), "--gpus-per-trial must not be negative, but got -1"),
    ((*SEARCH, "--cpus-per-trial", "4096"), "--cpus-per-trial 4096: there are"),
    ((*SEARCH, "--cpus-per-trial", "-1"), "--cpus-per-trial must not be negative, but got -1"),
    ((*SEARCH, "--results-dir", "file/below"), "cannot be written: choose another --results-dir"),
    ((*SEARCH, "--results-dir", "a" * 300), "File name too long"),
    ((*SEARCH, "--data-dir", "file/below", "--name", "x"), "cannot write to"),
    ((*SEARCH, "--storage", "ftp://host/folder"), "--storage must be s3://BUCKET/FOLDER, gs://"),
    ((*SEARCH, "--storage", "s3://"), "--storage must be s3://BUCKET/FOLDER, gs://"),
    ((*SEARCH, "--storage", "s3://b\x1b[31m"), "--storage must be s3://BUCKET/FOLDER, gs://"),
    ((*SEARCH, "--storage", "s3://user:secret@bucket"), "--storage must have no login and no key in it"),
    ((*SEARCH, "--storage", "s3://bucket?secret_key=x"), "--storage must have no login and no key in it"),
    ((*SEARCH, "--storage", "s3://bucket?colour=red"), "Unexpected query parameter in S3 URI: 'colour'"),
    ((*SEARCH, "--storage", "file/below"), "file/below cannot be written from "),
    ((*SEARCH, "--storage", "place", "--disk-budget", "1GB"), "--disk-budget is about the results folder"),
    (
        (*SEARCH, "--storage", "s3://bucket?endpoint_override=127.0.0.1:9&scheme=http&region=x"),
        ("storage s3://bucket?endpoint_override=127.0.0.1:9", "Could not connect"),
    ),
    (("resume", "stored", "--disk-budget", "1GB"), "--disk-budget is about the results folder"),
    ((*SEARCH, "--tracking-uri", "http://127.0.0.1:9"), "http://127.0.0.1:9 does not answer"),
    ((*SEARCH, "--tracking-uri", "ftp://x"), "a tracking URI is http://HOST:PORT"),
    ((*SEARCH, "--tracking-uri", "http://[::1"), "a tracking URI is http://HOST:PORT"),
    ((*SEARCH, "--tracking-uri", "http://a b"), "tracking URI"),
    ((*SEARCH, "--tracking-uri", "http://x\x1b[31m"), "tracking URI"),
    ((*SEARCH, "--tracking-uri", "sqlite:///a\0b.db"), "a tracking URI is http://HOST:PORT"),
    ((*SEARCH, "--tracking-uri", "sqlite:///file"), "file is not an SQLite database"),
    ((*SEARCH, "--tracking-uri", "sqlite:///empty"), "empty is not an SQLite database"),
    ((*SEARCH, "--set", ""), "--set takes key=value, but got ''"),
    ((*SEARCH, "--set", "optim.lr"), "--set takes key=value, but got 'optim.lr'"),
    ((*SEARCH, "--set", "=1"), "unknown recipe key ''"),
    ((*SEARCH, "--set", "optim.lrr=1"), "unknown recipe key 'optim.lrr' (did you mean 'optim.lr'?)"),
    ((*SEARCH, "--set", "epochs=3"), "unknown recipe key 'epochs'"),
    ((*SEARCH, "--set", "optim.lr=-1"), "optim.lr must be 1e-07 to 10, but got -1"),
    ((*SEARCH, "--set", "optim.lr=nan"), "optim.lr must be 1e-07 to 10, but got nan"),
    ((*SEARCH, "--set", "optim.lr=1e400"), "optim.lr must be 1e-07 to 10, but got inf"),
    ((*SEARCH, "--set", f"optim.lr={'9' * 400}"), "but got a number of more than 300 digits"),
    ((*SEARCH, "--set", f"batch_size={'9' * 5000}"), "batch_size must be a whole number"),
    ((*SEARCH, "--set", f"batch_size={HUGE}"), f"batch_size must be 1 to 65536, but got {HUGE}"),
    ((*SEARCH, "--set", "batch_size=1.0"), "batch_size must be a whole number, but got 1.0"),
    ((*SEARCH, "--set", "optim.lr=true"), "optim.lr must be a number, but got True"),
    ((*SEARCH, "--set", "optim.lr=[0.1]"), "optim.lr must be a number, but got [0.1]"),
    ((*SEARCH, "--set", "optim.lr=0.1\noptim.name='adam'"), "optim.lr must be a number"),
    ((*SEARCH, "--set", f"optim.lr={'[' * 5000}"), "optim.lr must be a number"),
    ((*SEARCH, "--set", "optim.name=\x1b[31m"), r"but got '\x1b[31m'"),
    ((*SEARCH, "--set", f"{'k' * 5000}=1"), "unknown recipe key 'kkk"),
    ((*SEARCH, "--set", "optim.name=adma"), "did you mean 'adam'?"),
    ((*SEARCH, "--set", "augment.policy=cutout+flip"), "one or more of flip, shift_crop"),
    ((*SEARCH, "--set", "init=pretrained"), "init = 'pretrained' needs a model with published weights"),
    ((*SEARCH, "--set", "init=search:none"), "no search called 'none' in"),
    ((*SEARCH, "--set", "init=search:../x"), "a search name must be letters"),
    ((*SEARCH, "--set", "init=file:none.pt"), "none.pt: no weights that can be read"),
    ((*SEARCH, "--set", "init=file:a\0b"), r"a\x00b: no weights that can be read"),
    ((*SEARCH, "--set", "init=file:empty"), "empty: no weights that can be read"),
    ((*SEARCH, "--set", "model.name=timm:resnet1"), "did you mean 'resnet1"),
    ((*SEARCH, "--set", "model.name=timm:../x"), "timm has no model '../x'"),
    (("search", "digits", "--space", "convnext"), "at least 16 px, but the images have 8"),
    (("search", "digits", "--space", "plain.toml", "--baselines"), "plain.toml has none"),
    (("search", "digits", "--space", "nothing.toml"), "no search space called 'nothing.toml'"),
    (("baseline", "B-mnist-vgg16", "--epochs", "0"), "--epochs must be at least 1, but got 0"),
    (("simulate", "mine"), "history.jsonl: does not say how long epochs took"),
    (("retrain-best", "--seeds", "0"), "--seeds must be 1 to 1,000, but got 0"),
    (("retrain-best", "--seeds", HUGE), f"--seeds must be 1 to 1,000, but got {HUGE}"),
    (("retrain-best", "--top-k", "-1"), "--top-k must be 1 to 1,000, but got -1"),
    (("retrain-best", "--epochs", "0"), "--epochs must be 1 to 1,000,000, but got 0"),
    (("retrain-best", "--cpus-per-trial", "-1"), "--cpus-per-trial must not be negative, but got -1"),
    (("retrain-best", "--cpus-per-trial", "4096"), "--cpus-per-trial 4096: there are"),
    (("retrain-best", "--ensemble", "--refit-on", "train+val"), "--ensemble needs validation images"),
    (("retrain-best", "--calibrate", "--refit-on", "train+val"), "--calibrate needs validation images"),
    (("retrain-best", "--baseline", "B-mnist-vgg16", "--val-fraction", "nan"), "--val-fraction must be"),
    (
        ("retrain-best", "--baseline", "B-mnist-vgg16", "--baseline", "C-cifar10-*", "--name", "x"),
        "--name: the recipes are of 2 data sets (mnist, cifar10), one a folder",
    ),
    (("datasets", "prepare", "empty", "--image-size", "0"), "the image size must be 1 pixel or more"),
    (("datasets", "prepare", "digits", "--image-size", "8"), "digits keeps its own size"),
    (("ui",), "nothing recorded in"),
    (("ui", "--tracking-uri", "ftp://user:secret@host"), "a tracking URI is http://HOST:PORT"),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A file, an empty folder, a space, and a search."""
    (tmp_path / "file").write_text("words")
    (tmp_path / "empty").mkdir()
    (tmp_path / "plain.toml").write_text('[space]\n"optim.lr" = { low = 0.1, high = 1.0 }\n')
    lay_down_search(tmp_path / "results", "stored", storage="/nowhere")
    lay_down_search(tmp_path / "results", "mine")
    return tmp_path


def _words(value: object) -> str | None:
    return " ".join(value)[-60:] if isinstance(value, tuple) else ""


@pytest.mark.parametrize(("arguments", "words"), USAGES, ids=_words)
def test_what_no_option_can_be_is_a_usage_error(
    arguments: tuple[str, ...], words: str | tuple[str, ...], refused: Refusal, folder: Path
) -> None:
    refused(arguments, words, USAGE)


@pytest.mark.parametrize(("arguments", "words"), MISTAKES, ids=_words)
def test_what_does_not_fit_is_a_mistake(
    arguments: tuple[str, ...], words: str | tuple[str, ...], refused: Refusal, folder: Path
) -> None:
    line = refused(arguments, words, MISTAKE)
    assert "secret" not in line
