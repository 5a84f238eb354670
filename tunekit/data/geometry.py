"""Images moved by maps that each image has for itself: rotation, shear, translation.

A map says for each pixel of the result where in the image it comes from. Places are -1 at the upper
left border and 1 at the lower right one, as in `torch.nn.functional.grid_sample`. What comes from
outside is 0.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def rotate(images: Tensor, degrees: Tensor, mode: str = "nearest") -> Tensor:
    """Turn each image counter-clockwise around its centre.

    Args:
        images: (N, C, H, W), uint8 or float32.
        degrees: (N,) float32, on the device of `images`.
        mode: `nearest` or `bilinear` interpolation.
    Returns:
        (N, C, H, W), same dtype and device, channels_last.
    """
    y, x = _places(images)
    aspect = images.shape[2] / images.shape[3]
    angle = _for_pixels(degrees).deg2rad()
    cosine, sine = angle.cos(), angle.sin()
    return sample(images, cosine * y + sine / aspect * x, cosine * x - sine * aspect * y, mode)


def shear_x(images: Tensor, slope: Tensor) -> Tensor:
    """Move each row by `slope` pixels (N,) further to the left than the one above; nearest."""
    y, x = _places(images)
    aspect = images.shape[2] / images.shape[3]
    return sample(images, y, x + _for_pixels(slope) * aspect * (y + 1))


def shear_y(images: Tensor, slope: Tensor) -> Tensor:
    """Move each column by `slope` pixels (N,) further up than the one to its left; nearest."""
    y, x = _places(images)
    aspect = images.shape[2] / images.shape[3]
    return sample(images, y + _for_pixels(slope) / aspect * (x + 1), x)


def translate_x(images: Tensor, pixels: Tensor) -> Tensor:
    """Move each image by `pixels` (N,) to the right; fractions of a pixel are left out."""
    y, x = _places(images)
    return sample(images, y, x - _for_pixels(pixels.trunc()) * 2 / images.shape[3])


def translate_y(images: Tensor, pixels: Tensor) -> Tensor:
    """Move each image by `pixels` (N,) down; fractions of a pixel are left out."""
    y, x = _places(images)
    return sample(images, y - _for_pixels(pixels.trunc()) * 2 / images.shape[2], x)


def sample(images: Tensor, y: Tensor, x: Tensor, mode: str = "nearest") -> Tensor:
    """The pixels of each image at given places.

    Args:
        images: (N, C, H, W), uint8 or float32.
        y, x: where each pixel comes from; float32, of shapes that broadcast to (N, H, W).
        mode: `nearest` or `bilinear` interpolation.
    Returns:
        (N, C, H, W), same dtype and device, channels_last.
    """
    n, _, height, width = images.shape
    grid = torch.empty(n, height, width, 2, device=images.device)
    grid[..., 0], grid[..., 1] = x, y
    moved = functional.grid_sample(images.float(), grid, mode, align_corners=False)
    if not images.is_floating_point():
        moved = moved.round_()
    return moved.to(images.dtype, memory_format=torch.channels_last)


def _places(images: Tensor) -> tuple[Tensor, Tensor]:
    """Where the centres of pixels are: y (H, 1) and x (W,)."""
    y, x = ((2 * torch.arange(side, device=images.device) + 1) / side - 1 for side in images.shape[-2:])
    return y[:, None], x


def _for_pixels(of_images: Tensor) -> Tensor:
    """(N,) to (N, 1, 1)."""
    return of_images[:, None, None]
