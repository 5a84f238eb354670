"""What every family is built into: a body that sees, a head that names, stages from one to the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional

from tunekit.models.seen_size import resized


@dataclass(frozen=True)
class Parts:
    """A family's network as it is published, norm before activation, before norms move and a head is put on.

    Attributes:
        body, aux: as in `Network`.
        features: F, the size of what the body gives.
        stages: name of a module within the body -> its stage; the modules inside belong to it too.
    """

    body: nn.Module
    features: int
    stages: Mapping[str, int]
    aux: Sequence[nn.Module] = ()


class Network(nn.Module):
    """images (N, C, H, W) -> logits (N, classes).

    While training, a network with auxiliary heads gives a tuple: its logits, then those of each
    auxiliary head.

    Attributes:
        body: images to features (N, F); with auxiliary heads to a tuple (features, map of the first
            auxiliary head, ...).
        head: features to logits; always new for a new set of classes.
        aux: auxiliary heads, maps (N, C, h, w) to logits; used only while training.
        stages: how many stages the body has.
        stage_of: name of each module within the body that owns parameters or buffers
            (`layer1.0.conv1`; the body itself is the empty name) -> its stage, 0 next to the images.
        input_size: shorter side in pixels to which images are resized first; 0 leaves them.
    """

    def __init__(
        self,
        body: nn.Module,
        head: nn.Module,
        stage_of: Mapping[str, int],
        input_size: int = 0,
        aux: Sequence[nn.Module] = (),
    ) -> None:
        """See the attributes."""
        super().__init__()
        self.body = body
        self.head = head
        self.aux = nn.ModuleList(aux)
        self.stage_of = dict(stage_of)
        self.stages = 1 + max(self.stage_of.values())
        self.input_size = input_size

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Logits (N, classes); see the class for auxiliary heads."""
        features = self.body(self._resized(images))
        if not self.aux:
            logits: Tensor = self.head(features)
            return logits
        features, *maps = features
        logits = self.head(features)
        if not self.training:
            return logits
        return (logits, *(head(seen) for head, seen in zip(self.aux, maps, strict=True)))

    def _resized(self, images: Tensor) -> Tensor:
        if not self.input_size:
            return images
        height, width = images.shape[-2:]
        size = resized(height, width, self.input_size)
        return functional.interpolate(images, size, mode="bilinear", align_corners=False)
