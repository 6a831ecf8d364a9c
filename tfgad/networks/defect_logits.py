"""The last layer of a network that marks defects."""

from __future__ import annotations

import keras
from keras import layers

RARE = -3.0  # the initial logit: odds of 1 to 20


def defect_logits(x: keras.KerasTensor) -> keras.KerasTensor:
    """Returns logits `[B, h, w, 1]`, in float32, by a 1x1 convolution of `[B, h, w, C]`.

    Few pixels are defective. From logits of 0 the first steps of a training only teach that, by
    gradients so large that units of the network may never recover. So the bias begins as the logit
    of a rare defect (Lin et al. 2017, section 4.1, where it is -4.6).
    """
    rare = keras.initializers.Constant(RARE)
    return layers.Conv2D(1, 1, bias_initializer=rare, dtype="float32", name="logits")(x)
