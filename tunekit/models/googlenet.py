"""torchvision's GoogLeNet (Szegedy et al. 2015, arXiv:1409.4842) with its auxiliary classifiers apart."""

from __future__ import annotations

from torch import Tensor, nn

from tunekit.models.network import Parts
from tunekit.models.random_weights import initialise

_STEM = ("conv1", "conv2", "conv3")
_AUX_CHANNELS = {"inception4a": 512, "inception4d": 528}
_INCEPTIONS = {"inception3": (1, "ab"), "inception4": (2, "abcde"), "inception5": (3, "ab")}


class GoogLeNetBody(nn.Module):
    """images (N, C, H, W) -> features (N, 1024), with the maps that the auxiliary heads see if `tapped`.

    Args:
        published: torchvision's network; its parts keep their names.
        tapped: give (features, map 4a, map 4d), of 512 and 528 channels.
    """

    def __init__(self, published: nn.Module, tapped: bool) -> None:
        super().__init__()
        for name, part in published.named_children():  # in the order of execution
            if name not in ("aux1", "aux2", "dropout", "fc"):
                self.add_module(name, part)
        self.flat = nn.Flatten()
        self.taps = tuple(_AUX_CHANNELS) if tapped else ()

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, ...]:
        x, maps = images, []
        for name, part in self.named_children():
            x = part(x)
            if name in self.taps:
                maps.append(x)
        return (x, *maps) if maps else x


def googlenet(channels: int, small_stem: bool, aux_classes: int) -> Parts:
    """A body for images of `channels` channels; 1,024 features.

    Args:
        channels: of the images.
        small_stem: one 3x3 convolution of 192 channels with stride 1 instead of the published stem of
            stride 8, as in kuangliu/pytorch-cifar.
        aux_classes: outputs of the two auxiliary heads; 0 leaves them out.
    """
    # These imports cost seconds: only for the recipes that need them.
    from torchvision.models.googlenet import BasicConv2d, GoogLeNet, InceptionAux

    published = GoogLeNet(aux_logits=False, init_weights=False)
    if small_stem:
        published.conv1 = BasicConv2d(channels, 192, kernel_size=3, padding=1)
        published.maxpool1 = published.conv2 = published.conv3 = published.maxpool2 = nn.Identity()
    else:
        published.conv1 = BasicConv2d(channels, 64, kernel_size=7, stride=2, padding=3)
    body = GoogLeNetBody(published, tapped=aux_classes > 0)
    widths = _AUX_CHANNELS.values() if aux_classes else ()
    aux = [InceptionAux(width, aux_classes) for width in widths]
    for part in (body, *aux):
        initialise(part, convolutions="fan_in")
    return Parts(body, 1024, _stages(), aux)


def _stages() -> dict[str, int]:
    inceptions = {
        f"{group}{letter}": stage for group, (stage, letters) in _INCEPTIONS.items() for letter in letters
    }
    return {**dict.fromkeys(_STEM, 0), **inceptions}
