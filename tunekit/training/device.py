"""Which device trains, with which precision and how many threads."""

from __future__ import annotations

import torch


def pick_device(gpus: float) -> torch.device:
    """The device of a trial that was given `gpus` GPUs (a fraction is a share of one).

    Ray hides the GPUs of other trials, so the first that is visible is the trial's own.
    Logical GPUs (Ray resources on a machine without CUDA) train on the CPU.
    """
    return torch.device("cuda", 0) if gpus > 0 and torch.cuda.is_available() else torch.device("cpu")


def gains_from_bf16(device: torch.device) -> bool:
    """Whether autocast to bfloat16 makes training faster on this device.

    On a CPU with AVX512-BF16 it was 0.96x to 1.35x for the CIFAR networks at 8x8, 1.5x to 2.0x at
    32x32 and 1.6x to 3x for resnet18 and resnet50 (results/README.md has the figures);
    without such instructions bfloat16 is emulated and slower.
    """
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def set_threads(cpus: float) -> None:
    """Let torch use as many threads as the trial has CPUs, at least one."""
    torch.set_num_threads(max(1, int(cpus)))
