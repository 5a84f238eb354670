"""Several trials as one vectorised network, beside as many one after the other on the same core.

K residual networks of one architecture whose learning rates differ are stacked as HFTA does it: convolutions
with K groups, batch norm over K times the channels, a batched matrix product at the head. Each member has its
own batch, its own loss and its own learning rate, so its weights move as they would alone (checked here).

Source: Wang et al. 2021, "Horizontally Fused Training Array", arXiv:2102.02344.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, cross_entropy, relu

from tests.benchmarks.speed.figures import Part, wait_until_idle
from tunekit.training.device import gains_from_bf16, pick_device

_WIDTHS = (16, 32, 64)
_CLASSES = 10


class Stack(nn.Module):
    """K networks with one block of two convolutions a stage, like resnet8; K = 1 is a plain network."""

    def __init__(self, members: int, channels: int) -> None:
        super().__init__()
        self.members = members
        self.convolutions, self.norms = nn.ParameterList(), nn.ModuleList()
        self.strides: list[int] = []
        self._add(channels, _WIDTHS[0], 3, 1)
        before = _WIDTHS[0]
        for stage, width in enumerate(_WIDTHS):
            self._add(before, width, 3, 2 if stage else 1)
            self._add(width, width, 3, 1)
            before = width
        self.head = nn.Parameter(torch.randn(members, before, _CLASSES) * 0.1)
        self.bias = nn.Parameter(torch.zeros(members, 1, _CLASSES))

    def forward(self, images: Tensor) -> Tensor:
        """(B, K * C, H, W) to (K, B, classes)."""
        features = self._layer(images, 0)
        for stage in range(len(_WIDTHS)):
            inner = self._layer(self._layer(features, 2 * stage + 1), 2 * stage + 2)
            features = relu(inner + features) if inner.shape == features.shape else inner
        pooled = features.mean((2, 3)).view(len(images), self.members, -1).transpose(0, 1)
        return torch.baddbmm(self.bias.to(pooled.dtype), pooled, self.head.to(pooled.dtype))

    def _layer(self, images: Tensor, number: int) -> Tensor:
        weight, norm = self.convolutions[number], self.norms[number]
        changed = conv2d(images, weight, stride=self.strides[number], padding=1, groups=self.members)
        return relu(norm(changed))

    def _add(self, before: int, after: int, side: int, stride: int) -> None:
        weights = torch.randn(self.members * after, before, side, side) * (2 / (before * side**2)) ** 0.5
        self.convolutions.append(nn.Parameter(weights.contiguous(memory_format=torch.channels_last)))
        self.norms.append(nn.BatchNorm2d(self.members * after))
        self.strides.append(stride)


def train_step(stack: Stack, images: Tensor, labels: Tensor, rates: Tensor, bf16: bool) -> None:
    """One step of plain SGD: (B, K * C, H, W), (K, B), (K,)."""
    with torch.autocast(images.device.type, torch.bfloat16, enabled=bf16):
        logits = stack(images)
        loss = cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum") / labels.shape[1]
    loss.backward()  # type: ignore[no-untyped-call]
    with torch.no_grad():
        for parameter in stack.parameters():
            assert parameter.grad is not None
            of_rows = rates.repeat_interleave(len(parameter) // stack.members)
            parameter.sub_(of_rows.view(-1, *[1] * (parameter.ndim - 1)) * parameter.grad)
            parameter.grad = None


def measure(_data: Path, runs: int) -> Part:
    """Random images: only the time counts."""
    part = Part(
        "Stacked trials",
        "Residual networks of 7 layers (16, 32, 64 channels), forward, backward and SGD step on random "
        "images, one thread; K networks one after the other, and as one network with K groups.",
    )
    if not wait_until_idle():
        part.notes.append("The machine was not idle: throw these figures away.")
    torch.set_num_threads(1)
    for side, batch in ((8, 32), (8, 128), (32, 32), (32, 128)):
        for members in (2, 4, 8):
            for bf16 in {False, gains_from_bf16(pick_device(1))}:
                alone = [Stack(1, 3) for _ in range(members)]
                apart = _images_per_second(alone, side, batch, bf16, runs)
                stacked = _images_per_second([Stack(members, 3)], side, batch, bf16, runs)
                name = f"{side}x{side}, batch {batch}, K = {members}, {'bfloat16' if bf16 else 'float32'}"
                part.compare(f"{name}: stacked / one after the other", stacked / apart, 1.5)
    return part


def _images_per_second(stacks: Sequence[Stack], side: int, batch: int, bf16: bool, runs: int) -> float:
    """Of all members together."""
    device = pick_device(1)
    work = []
    for stack in stacks:
        stack.to(device)
        images = torch.randn(batch, stack.members * 3, side, side, device=device)
        labels = torch.randint(0, _CLASSES, (stack.members, batch), device=device)
        rates = torch.full((stack.members,), 0.01, device=device)
        channels_last = images.contiguous(memory_format=torch.channels_last)
        work.append((stack, channels_last, labels, rates))
    steps = max(2, runs * 2)
    for step in range(steps + 1):
        if step == 1:
            clock = time.perf_counter()
        for stack, images, labels, rates in work:
            train_step(stack, images, labels, rates, bf16)
    if device.type == "cuda":
        torch.cuda.synchronize()
    members = sum(stack.members for stack in stacks)
    return steps * batch * members / (time.perf_counter() - clock)
