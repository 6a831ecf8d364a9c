"""A method as a contributor writes it, in one file: an autoencoder scored by its error.

L = ‖x - D(E(x))‖² / n,  A(x) = L
"""

from typing import Annotated

import keras
import tensorflow as tf
from pydantic import Field
from pydantic.dataclasses import dataclass

from tfgad.core import Detector, register
from tfgad.networks import convolutional


@dataclass(frozen=True)
class Config:
    """Hyper-parameters of the autoencoder."""

    latent_dim: Annotated[int, Field(ge=1, description="length of the code")] = 8
    width: Annotated[int, Field(ge=1, description="channels of the first layer")] = 4
    learning_rate: Annotated[float, Field(gt=0, description="of Adam")] = 1e-3
    batch_size: Annotated[int, Field(ge=1, description="images per step")] = 4
    steps: Annotated[int, Field(ge=1, description="training steps")] = 4


PAPER = Config(latent_dim=16)


@register("own", "an autoencoder of a test", Config, PAPER)
class Autoencoder(Detector):
    """Encoder E and decoder D."""

    scores = {"residual": ("residual",)}
    terms = (("residual",),)

    def __init__(self, config, image_shape, **kwargs):
        super().__init__(config, image_shape, **kwargs)
        self.encoder = convolutional.encoder(image_shape, config.latent_dim, config.width)
        self.decoder = convolutional.generator(image_shape, config.latent_dim, config.width)
        self.code_dim = config.latent_dim

    def optimizers(self):
        return {"autoencoder": keras.optimizers.Adam(self.config.learning_rate)}

    def networks_of(self, role):
        return [self.encoder, self.decoder]

    def train_step(self, images):
        with tf.GradientTape() as tape:
            code = self.encoder(images, training=True)
            error = tf.square(images - self.decoder(code, training=True))
            loss = tf.reduce_mean(error)
        self.minimize("autoencoder", loss, tape)
        return {"loss": loss}

    def reconstruction(self, images):
        return self.decoder(self.encoder(images, training=False), training=False)

    def errors(self, images):
        code = self.encoder(images, training=False)
        error = tf.square(images - self.decoder(code, training=False))
        return {"residual": tf.reduce_mean(error, axis=-1), "code": code}
