"""A small head that marks defects on the feature maps of a frozen network."""

from __future__ import annotations

import keras
from keras import layers

from tfgad.networks.layers import BatchNormalization

# The first layer standardises the features. A head is trained for hundreds of steps: with Keras's
# momentum of .99 its averages would still hold 8 % of their initial values after 250.
MOMENTUM = 0.95
RARE = -3.0  # the initial logit: odds of 1 to 20


def defect_head(channels: int, width: int, name: str = "head") -> keras.Model:
    """Builds the head.

    Args:
        channels: of the features.
        width: channels of the first layer; two further ones, of 3x3, have half as many. The second
            of these is dilated, so that a logit depends on 7x7 places.
        name: of the model.

    Returns:
        A model of features `[B, h, w, channels]` to logits `[B, h, w, 1]`.
    """
    features = keras.Input((None, None, channels), name="features")
    x = BatchNormalization(momentum=MOMENTUM)(features)
    x = layers.Conv2D(width, 1, activation="relu")(x)
    for dilation in (1, 2):
        x = layers.Conv2D(
            max(1, width // 2), 3, padding="same", dilation_rate=dilation, activation="relu"
        )(x)
    rare = keras.initializers.Constant(RARE)
    logits = layers.Conv2D(1, 1, bias_initializer=rare, dtype="float32", name="logits")(x)
    return keras.Model(features, logits, name=name)
