"""What a network sees of an image, in pixels. Imports no torch."""

from __future__ import annotations

from tunekit.recipe import Recipe

Shape = tuple[int, int, int]  # height, width, channels


def resized(height: int, width: int, shorter: int) -> tuple[int, int]:
    """(height, width) in pixels once the shorter side is `shorter` pixels; 0 leaves them."""
    if not shorter:
        return height, width
    scale = shorter / min(height, width)
    return round(height * scale), round(width * scale)


def seen_shape(recipe: Recipe, image_shape: Shape) -> Shape:
    """(H, W, C) of what the body sees of images of `image_shape`, after `input.size`."""
    height, width, channels = image_shape
    return (*resized(height, width, recipe.input.size), channels)
