"""U-Net (Ronneberger et al. 2015), small: images to a map of logits of half their resolution.

It differs from the paper's: strided convolutions halve the resolution, the image's own among them,
and not max pooling; a level of the decoder has one convolution and bilinear upsampling with a 1x1
convolution; convolutions are padded, with batch normalisation. The widths were not tuned.

The first logit is 0, not that of a rare defect as in `defect_head.py`. From -3 or -4.6 more
synthetic defects are found: the AUROC on held-out tiles rises from .890 to .917 (satin, -3) and
from .917 to .945 (denim, -4.6). But the joined map is no better: on herringbone, with -3, its mean
of three seeds is .998 instead of .999.
"""

from __future__ import annotations

import keras
from keras import layers

from tfgad.networks.layers import BatchNormalization

LEVELS = 4  # resolutions
GRID = 2**LEVELS  # pixels; sides of images are multiples of it


def unet(
    image_shape: tuple[int | None, int | None, int], width: int, name: str = "unet"
) -> keras.Model:
    """Builds the U-Net.

    Args:
        image_shape: `(height, width, channels)`; the sides may be None.
        width: channels at half of the image's resolution; the next levels have 2, 4 and 6 times as
            many.
        name: of the model.

    Returns:
        A model of images `[B, H, W, C]` to logits `[B, H / 2, W / 2, 1]`. The sides are multiples
        of `GRID`.
    """
    channels = [min(width * 2**level, width * 6) for level in range(LEVELS)]
    x = images = keras.Input(image_shape, name="images")
    skips = []
    for count in channels:
        x = _block(x, count, stride=2)
        x = _block(x, count)
        skips.append(x)
    for count, skip in zip(channels[-2::-1], skips[-2::-1], strict=True):
        x = layers.Conv2D(count, 1, use_bias=False)(x)
        x = layers.UpSampling2D(2, interpolation="bilinear")(x)
        x = layers.Concatenate()([x, skip])
        x = _block(x, count)
    x = _block(x, channels[0])
    logits = layers.Conv2D(1, 1, dtype="float32", name="logits")(x)
    return keras.Model(images, logits, name=name)


def _block(x: keras.KerasTensor, channels: int, stride: int = 1) -> keras.KerasTensor:
    x = layers.Conv2D(channels, 3, stride, "same", use_bias=False)(x)
    return layers.ReLU()(BatchNormalization(epsilon=1e-3)(x))
