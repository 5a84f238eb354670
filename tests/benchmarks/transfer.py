"""Is freezing worth it with few labels? Pretrain on half of CIFAR-10's classes, fine-tune on the others.

    python -m tests.benchmarks.transfer DATA_DIR [WORK_DIR]

Lays out two folders of real images (`first-five`, `last-five`), pretrains a network on one with
`tunekit baseline`, then searches freezing policies and learning rates on 50 labels of the other, at
random and without early stopping, so that `tunekit choices` compares independent draws. The same from
random weights shows what pretraining itself is worth. Last, each policy trains at one learning rate on three
draws of 50 labels and seeds, which tells policies apart that differ by less than learning rates do. About 15
minutes on 2 idle cores.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from PIL import Image

from tunekit.data.datasets import open_dataset
from tunekit.data.pack import Pack
from tunekit.data.split import make_split
from tunekit.recipe import Recipe, Value
from tunekit.training.build import build_training
from tunekit.tuning.provision import weights_key

_RESNET8 = """
[[baseline]]
name = "resnet8"
recipe = { "model.name" = "resnet8", "optim.nesterov" = true, "augment.policy" = "flip+shift_crop" }
"""
_FREEZING = """
description = "What to freeze of a pretrained resnet8"

[fixed]
"model.name" = "resnet8"
"batch_size" = 16
"augment.policy" = "flip+shift_crop"

[space."freeze.policy"]
role = "scientific"
choices = ["none", "head_only", "first_k_stages", "gradual", "bn_frozen"]

[space]
"freeze.stages" = { low = 2, high = 3, when = { "freeze.policy" = ["first_k_stages"] } }
"freeze.every" = { low = 3, high = 7, when = { "freeze.policy" = ["gradual"] } }
"optim.lr" = { low = 0.003, high = 0.1, log = true }
"""
_FINE_TUNING: dict[str, Value] = {
    "model.name": "resnet8",
    "init": "search:pretrained",
    "batch_size": 16,
    "augment.policy": "flip+shift_crop",
    "optim.lr": 0.03,
}
_POLICIES: dict[str, dict[str, Value]] = {
    "none": {},
    "head_only": {"freeze.policy": "head_only"},
    "first_k_stages": {"freeze.policy": "first_k_stages", "freeze.stages": 3},
    "gradual": {"freeze.policy": "gradual", "freeze.every": 5},
    "bn_frozen": {"freeze.policy": "bn_frozen"},
}
_PRETRAIN = "baseline resnet8 --space resnet8.toml --dataset first-five --epochs 20 --name pretrained"
# 50 images train and 1,000 judge.
_FEW_LABELS = (
    "search last-five --space freezing.toml --epochs 20 --sampler random --scheduler none "
    "--train-limit 1050 --val-fraction 0.9524"
)


def main() -> None:
    data_dir = Path(sys.argv[1])
    work = Path(sys.argv[2] if len(sys.argv) > 2 else tempfile.mkdtemp())
    pack = open_dataset("cifar10", data_dir)
    for name, classes in (("first-five", range(5)), ("last-five", range(5, 10))):
        _lay_out(pack, classes, work / name)
    (work / "resnet8.toml").write_text(_RESNET8)
    (work / "freezing.toml").write_text(_FREEZING)
    _tunekit(work, _PRETRAIN)
    _tunekit(work, f"{_FEW_LABELS} --samples 50 --set init=search:pretrained --name few-labels")
    _tunekit(work, "choices few-labels")
    _print_seeds(work, open_dataset(str(work / "last-five"), work / "data", 32))
    from_scratch = "--samples 6 --set init=random --set freeze.policy=none --name from-scratch"
    _tunekit(work, f"{_FEW_LABELS} {from_scratch}")


def _lay_out(pack: Pack, classes: range, folder: Path) -> None:
    """Training images of some classes as PNG files, a folder a class."""
    images, labels = pack.train()
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        if label in classes:
            file = folder / pack.classes[label] / f"{number:05d}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            if not file.exists():
                Image.fromarray(image).save(file)


def _print_seeds(work: Path, pack: Pack) -> None:
    """Validation accuracy after 20 epochs, for each policy and draw of labels."""
    for name, keys in _POLICIES.items():
        recipe = Recipe.from_flat({**_FINE_TUNING, **keys})
        weights = work / "results/few-labels/first_weights" / f"{weights_key(recipe)}.safetensors"
        found = []
        for seed in range(3):
            split = make_split(pack.train()[1], 0.9524, seed, 1050)
            training = build_training(recipe, pack, split, 20, seed, torch.device("cpu"), weights)
            found.append(list(training.run())[-1].val_accuracy)
        print(f"{name:15} mean {statistics.mean(found):.3f}  {' '.join(f'{value:.3f}' for value in found)}")


def _tunekit(work: Path, arguments: str) -> None:
    print(f"$ tunekit {arguments}", flush=True)
    data = [] if arguments.startswith("choices") else ["--data-dir", "data", "--image-size", "32"]
    subprocess.run([sys.executable, "-m", "tunekit", *arguments.split(), *data], cwd=work, check=True)


if __name__ == "__main__":
    main()
