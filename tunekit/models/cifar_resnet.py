"""The residual networks of He et al. 2016 (arXiv:1512.03385), section 4.2, for small images.

Three stages of n blocks with 16, 32 and 64 channels; shortcuts without parameters (option A). They
need torch alone, so a trial that uses them starts without importing timm and torchvision.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from tunekit.models.network import Parts
from tunekit.models.random_weights import initialise

_WIDTHS = (16, 32, 64)
_BLOCKS = {"resnet8": 1, "resnet20": 3, "resnet32": 5, "resnet56": 9}


def cifar_resnet(name: str, channels: int) -> Parts:
    """A body for images of `channels` channels; 64 features.

    Args:
        name: resnet8, resnet20, resnet32 or resnet56.
        channels: channels of the images.
    """
    blocks = _BLOCKS[name]
    body = CifarResNet(blocks, channels)
    stages = {f"stages.{index}": 1 + index // blocks for index in range(len(_WIDTHS) * blocks)}
    return Parts(body, _WIDTHS[-1], {"conv1": 0, "bn1": 0, **stages})


class Block(nn.Module):
    """conv-bn-act-conv-bn, plus the shortcut, then act. Attribute names as in timm's BasicBlock."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.act1 = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.act2 = nn.ReLU(inplace=True)
        self.stride = stride
        self.new_channels = outputs - inputs

    def forward(self, x: Tensor) -> Tensor:
        y = self.act1(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        if self.stride > 1:
            x = x[:, :, :: self.stride, :: self.stride]
        if self.new_channels:
            x = functional.pad(x, (0, 0, 0, 0, 0, self.new_channels))
        out: Tensor = self.act2(y + x)
        return out


class CifarResNet(nn.Module):
    """The body of a residual network of depth 6n + 2: images (N, channels, H, W) to features (N, 64).

    Args:
        blocks: n, blocks a stage (1, 3, 5, 9 make resnet8, 20, 32, 56).
        channels: channels of the images.
    """

    def __init__(self, blocks: int, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, _WIDTHS[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(_WIDTHS[0])
        self.act1 = nn.ReLU(inplace=True)
        self.stages = nn.Sequential(*_blocks(blocks))
        initialise(self, convolutions="fan_out")

    def forward(self, images: Tensor) -> Tensor:
        """Features (N, 64) of images (N, channels, H, W)."""
        features: Tensor = self.stages(self.act1(self.bn1(self.conv1(images)))).mean(dim=(2, 3))
        return features


def _blocks(blocks: int) -> list[Block]:
    inputs, stages = _WIDTHS[0], []
    for width in _WIDTHS:
        for index in range(blocks):
            stages.append(Block(inputs, width, stride=2 if index == 0 and width > _WIDTHS[0] else 1))
            inputs = width
    return stages
