"""Pictures for the inspection page: PNG in data URIs, which need no further request."""

from __future__ import annotations

import base64
import dataclasses
import io
import math

import numpy as np
from PIL import Image

from tfgad.data.pixels import to_uint8
from tfgad.inference import heat_maps
from tfgad.inference.scoring import Verdict

# Pixels of a picture: about half of what a 4K screen shows, and 4 MB as PNG. Larger images are
# reduced for display only; they are scored at full size.
SHOWN_PIXELS = 2**22


def reduction(shape: tuple[int, ...]) -> int:
    """Returns the factor by which an image `[H, W, ...]` is reduced along each axis."""
    return math.ceil(math.sqrt(shape[0] * shape[1] / SHOWN_PIXELS))


def reduced(verdict: Verdict) -> Verdict:
    """Returns a verdict with image and map small enough to show.

    The image is reduced by the mean of its pixels, the map by the maximum, so that a small defect
    in a large image remains visible.
    """
    factor = reduction(verdict.image.shape)
    if factor == 1:
        return verdict
    anomaly_map = np.asarray(verdict.map)
    for axis in (0, 1):
        starts = np.arange(0, anomaly_map.shape[axis], factor)
        anomaly_map = np.maximum.reduceat(anomaly_map, starts, axis=axis)
    ignored = None if verdict.ignored is None else verdict.ignored[::factor, ::factor]
    image = reduced_image(verdict.image)
    return dataclasses.replace(verdict, image=image, map=anomaly_map, ignored=ignored)


def reduced_image(image: np.ndarray) -> np.ndarray:
    """Returns an image float32 `[H, W, C]` small enough to show; see `reduced`."""
    factor = reduction(image.shape)
    if factor == 1:
        return image
    planes = [Image.fromarray(image[:, :, i]).reduce(factor) for i in range(image.shape[2])]
    return np.stack([np.asarray(plane) for plane in planes], axis=2)


def image_uri(image: np.ndarray) -> str:
    """Returns the data URI of an image, float32 `[H, W, C]` in [-1, 1]."""
    return _uri(to_uint8(image))


def heat_uri(verdict: Verdict) -> str:
    """Returns the data URI of the heat map alone, transparent where the map is low."""
    return _uri(np.rint(255 * heat_maps.heat(verdict)).astype(np.uint8))


def _uri(pixels: np.ndarray) -> str:
    """Returns the data URI of uint8 `[H, W, C]`; C is 1, 3, or 4 with opacity."""
    content = io.BytesIO()
    picture = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    picture.save(content, "PNG", compress_level=1)  # the fastest
    return "data:image/png;base64," + base64.b64encode(content.getvalue()).decode()
