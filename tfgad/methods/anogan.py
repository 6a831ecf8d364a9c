"""AnoGAN (Schlegl et al., IPMI 2017): a trained GAN, and a search for the code of each image.

Generator G and discriminator D, with features f, are trained on normal images as a DCGAN, by the
losses of `gan.py`. What G can make is normal. For an image x the code z is moved down the gradient
of the loss

    L(z) = (1 - λ) Σ|x - G(z)| + λ Σ|f(x) - f(G(z))|,  λ = 0.1, 500 steps

and the anomaly score A(x) is L at the z found. Its map is the first term of each pixel; the second
has no location. By default (`score=auto`) a model scores by `density` or `cues` (`scores/`), which
read more than these two terms; `anogan/paper` and `score=loss` score by A(x).

`anogan/paper` has the networks of Radford et al. 2016 with half of their channels, as Schlegl et
al. have it, and f is D's last hidden layer. z is standard normal, theirs uniform.
`anogan/walkthrough` is a widespread introduction: digits 7 and 8 of MNIST at 64x64 pixels, a z of
20, batch normalisation in all four blocks of D. It descends from chapter 6 of Ogawa's book on
PyTorch (github.com/YutaroOgawa/pytorch_advanced), whose D has none.

A search of the paper starts from one random code. It may also start from the nearest of a pool of
random codes (`start=pool`), or, by default, from E(x), an encoder that a second stage trains as
`izi_f` of f-AnoGAN does (`start=encoder`): tens of steps then do what takes hundreds. The paper
does not say the rate of its search; it is measured (`core/search_options.py`). The rate falls as a
cosine, the best z of the path counts, and all images start from the same codes.

Whatever precision the networks are trained in, the search computes in float32: hundreds of steps
would carry rounding on.

Read beside it: `core/losses.py`; `networks/convolutional.py`, the networks by default, or
`networks/radford.py`, the published ones. For the score also `core/latent_search.py`, the search.
"""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any, Literal

import keras
import tensorflow as tf
from pydantic import Field
from pydantic.dataclasses import dataclass

from tfgad.core import Detector, losses, register
from tfgad.core.batches import part, sample
from tfgad.core.detector import features_of
from tfgad.core.latent_search import DISTANCES, SearchOptions, compiled_search
from tfgad.core.settings import BatchSize, LatentDim, Score, Steps, Stride, Updates, Width, Window
from tfgad.errors import UsageError
from tfgad.networks import convolutional, precision, radford
from tfgad.networks.layers import Adam
from tfgad.scores.error_maps import feature_errors, pixel_errors


@dataclass(frozen=True)
class Config:
    """Hyper-parameters of AnoGAN; `tfgad list anogan` prints them."""

    window: Window = 32
    networks: Annotated[
        Literal["convolutional", "radford", "walkthrough"], Field(description="whose G and D")
    ] = "convolutional"
    latent_dim: LatentDim = 64
    width: Annotated[Width, Field(description="channels of D's first hidden layer")] = 32
    batch_size: BatchSize = 64
    steps: Annotated[Steps, Field(description="training steps of the GAN, and of E if any")] = (
        2000,
        1500,
    )
    # The rates and betas are those of the classic AnoGAN code for MNIST (Heusel et al. 2017 argue
    # for a faster critic). R1 keeps D from learning few images by heart.
    learning_rate: Annotated[float, Field(gt=0, description="of G's Adam")] = 2e-4
    critic_learning_rate: Annotated[float, Field(gt=0, description="of D's Adam")] = 4e-4
    beta_1: Annotated[float, Field(ge=0, lt=1, description="of the GAN's Adam optimizers")] = 0.0
    beta_2: Annotated[float, Field(ge=0, lt=1, description="of the GAN's Adam optimizers")] = 0.9
    epsilon: Annotated[float, Field(gt=0, description="of the GAN's Adam optimizers")] = 1e-7
    d_steps: Annotated[Updates, Field(description="updates of D per step")] = 1
    g_steps: Annotated[Updates, Field(description="updates of G per step")] = 1
    r1: Annotated[
        float, Field(ge=0, description="weight of the R1 penalty on D, which then has no BN")
    ] = 1.0
    smoothing: Annotated[
        float, Field(ge=0, lt=1, description="α: the label of real images is 1 - α")
    ] = 0.0
    start: Annotated[Literal["pool", "encoder"], Field(description="where a search starts")] = (
        "encoder"
    )
    encoding: Annotated[
        Literal["ziz", "izi", "izi_f"], Field(description="the loss that E is trained by")
    ] = "izi_f"
    kappa: Annotated[float, Field(ge=0, description="κ, weight of E's feature term")] = 1.0
    encoder_learning_rate: Annotated[float, Field(gt=0, description="of E's Adam")] = 2e-4
    # On the digit 8 of MNIST, 20 steps from an encoder's code give an AUROC by `density` of 0.955.
    search_steps: Annotated[int, Field(ge=1, le=100_000, description="steps of the search")] = 50
    search_rate: Annotated[float, Field(gt=0, description="learning rate of the search")] = 0.1
    schedule: Annotated[
        Literal["cosine", "constant"], Field(description="of the search's learning rate")
    ] = "cosine"
    distance: Annotated[
        Literal["l1", "l2", "huber"], Field(description="of pixels and of features")
    ] = "l1"
    feature_weight: Annotated[float, Field(ge=0, le=1, description="λ")] = 0.1
    restarts: Annotated[
        int, Field(ge=1, le=1000, description="starts per image; the best is kept")
    ] = 1
    pool: Annotated[
        int, Field(ge=1, le=65_536, description="random codes to choose starts from")
    ] = 256
    tolerance: Annotated[
        float, Field(ge=0, lt=1, description="a smaller relative gain in `patience` steps ends it")
    ] = 0.0
    patience: Annotated[int, Field(ge=1, le=100_000, description="in steps of the search")] = 20
    score: Score = "auto"
    stride: Stride = 16

    def __post_init__(self) -> None:
        """Leaves out the steps of E where there is none: `start=pool` needs no other `steps`."""
        if self.start == "pool":
            object.__setattr__(self, "steps", self.steps[:1])


# Section 3: the DCGAN of Radford et al. on 64x64 patches, 512 to 64 channels, λ = 0.1, 500 steps
# from a random code. Adam, z and batches are Radford's. They train 20 epochs of a million patches.
PAPER = Config(
    window=64,
    networks="radford",
    latent_dim=100,
    width=64,
    batch_size=128,
    steps=(160_000,),
    critic_learning_rate=2e-4,
    beta_1=0.5,
    beta_2=0.999,
    epsilon=1e-8,
    r1=0.0,
    start="pool",
    search_steps=500,
    pool=1,
    score="loss",
    stride=32,
)
# Batches and steps are the book's, 300 epochs of 400 images. The search is the paper's.
WALKTHROUGH = dataclasses.replace(
    PAPER,
    networks="walkthrough",
    latent_dim=20,
    batch_size=64,
    steps=(2100,),
    learning_rate=1e-4,
    critic_learning_rate=4e-4,
    beta_1=0.0,
    beta_2=0.9,
)
DESIGNS = {"radford": radford.RADFORD, "walkthrough": radford.WALKTHROUGH}


@register(
    "anogan",
    "a GAN, and a search for each image's code (Schlegl et al. 2017)",
    Config,
    PAPER,
    walkthrough=WALKTHROUGH,
)
class AnoGAN(Detector):
    """Generator G, discriminator D with features f, and an encoder E if searches start from it.

    Args:
        config: hyper-parameters.
        image_shape: `(height, width, channels)` of the windows.
        **kwargs: `seed`, `score`, `stride`, `tile`; see `Detector`.
    """

    stages: tuple[str, ...] = ("gan", "encoder")
    scores = {"loss": ("pixels", "feature"), "pixels": ("pixels",), "critic": ("critic",)}

    def __init__(self, config: Config, image_shape: tuple[int, int, int], **kwargs: Any):
        super().__init__(config, image_shape, **kwargs)
        latent_dim, width = config.latent_dim, config.width
        if config.networks == "convolutional":
            self.generator = convolutional.generator(image_shape, latent_dim, width)
            # R1 is per image: no batch normalisation beside it.
            self.critic = convolutional.critic(image_shape, width, normalise=not config.r1)
        else:
            design = DESIGNS[config.networks]
            self.generator = radford.generator(image_shape, latent_dim, width, design)
            self.critic = radford.critic(image_shape, width, design, with_features=True)
        self.encoder: Any = None
        if config.start == "encoder":
            self.encoder = convolutional.encoder(image_shape, latent_dim, width)
            if config.restarts > 1:
                hint = "give restarts=1, or start=pool"
                raise UsageError("restarts", config.restarts, "an encoder gives one start", hint)
        else:
            self.stages = ("gan",)
        self.terms = (("residual",), features_of(self.critic))
        self.code_dim = latent_dim * (3 if self.encoder else 1)
        options = SearchOptions(
            steps=config.search_steps, learning_rate=config.search_rate, schedule=config.schedule,
            feature_weight=config.feature_weight, distance=config.distance,
            restarts=config.restarts, pool=config.pool,
            tolerance=config.tolerance, patience=config.patience,
        )  # fmt: skip
        self.search = compiled_search(
            generator=lambda z: self.generator(z, training=False),
            features=lambda x: self.features(x)[-1],
            latent_dim=latent_dim,
            options=options,
        )

    def optimizers(self) -> dict[str, keras.Optimizer]:
        """One Adam per network."""
        config = self.config
        constants = (config.beta_1, config.beta_2, config.epsilon)
        optimizers = {
            "critic": Adam(config.critic_learning_rate, *constants),
            "generator": Adam(config.learning_rate, *constants),
        }
        if self.encoder:
            optimizers["encoder"] = Adam(config.encoder_learning_rate)
        return optimizers

    @property
    def images_per_step(self) -> int:
        """A batch for each update of D in the first stage, one batch in the second."""
        return self.config.batch_size * (self.config.d_steps if self.stage == "gan" else 1)

    def train_step(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        """One step of the present stage on float32 `[B, h, w, C]` in [-1, 1]."""
        return self.gan_step(images) if self.stage == "gan" else self.encoder_step(images)

    def gan_step(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        """Updates D and G by the losses of the GAN."""
        config = self.config
        for t in range(config.d_steps):
            x = part(images, t, config.d_steps)
            batch = tf.shape(x)[0]
            z = self.random_normal((batch, config.latent_dim), f"critic {t}")
            generated = self.generator(z, training=True)
            with tf.GradientTape() as tape:
                real, fake = self.logit(x), self.logit(generated)
                critic_loss = losses.discriminator_loss(real, fake, config.smoothing)
                total = critic_loss
                if config.r1:
                    r1 = losses.r1_penalty(self.logit, x)
                    total += config.r1 * r1
            self.minimize("critic", total, tape)

        for t in range(config.g_steps):
            z = self.random_normal((batch, config.latent_dim), f"generator {t}")
            with tf.GradientTape() as tape:
                fake = self.logit(self.generator(z, training=True))
                generator_loss = losses.non_saturating_generator_loss(fake)
            self.minimize("generator", generator_loss, tape)
        logs = {"critic": critic_loss, "generator": generator_loss}
        return {**logs, "r1": r1} if config.r1 else logs

    def encoder_step(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        """Updates E by its loss, G and D being at rest; see `fanogan.py`."""
        config = self.config
        z = self.random_normal((tf.shape(images)[0], config.latent_dim), "encoder")
        with tf.GradientTape() as tape:
            if config.encoding == "ziz":
                encoded = self.encoder(self.generator(z, training=False), training=True)
                loss = losses.mean_square(encoded, z)
            else:
                encoded = self.encoder(images, training=True)
                generated = self.generator(encoded, training=False)
                loss = losses.mean_square(images, generated)
            if config.encoding == "izi_f":
                f_x, f_generated = self.features(images)[-1], self.features(generated)[-1]
                loss += config.kappa * losses.mean_square(f_x, f_generated)
            loss = tf.reduce_mean(loss)
        self.minimize("encoder", loss, tape)
        return {"encoder": loss}

    def logit(self, images: tf.Tensor) -> tf.Tensor:
        """The logit of D(x) in training, `[B]`."""
        return self.critic(images, training=True)["logit"]

    def features(self, images: tf.Tensor) -> list[tf.Tensor]:
        """The hidden layers of D, fine to coarse; the last is the paper's f(x)."""
        return self.critic(images, training=False)["features"]

    @precision.scoring()
    def find(self, images: tf.Tensor, start: tf.Tensor | None = None) -> dict[str, tf.Tensor]:
        """Searches the codes of windows `[B, h, w, C]`; returns what `latent_search` returns.

        Args:
            images: the windows.
            start: codes to start from, if not those of E or of the pool.
        """
        if start is None and self.encoder:
            start = self.encoder(images, training=False)
        return self.search(images) if start is None else self.search(images, start)

    def reconstruction(self, images: tf.Tensor) -> tf.Tensor:
        """G at the z found."""
        return self.find(images)["generated"]

    def errors(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        """The two terms of A(x), `pixels` and `feature`, and errors of what the search found.

        The mean of the map `pixels` is the first term, a sum over the window. `residual` and
        `features_...` are mean squared errors of G(z), `critic` is 1 - D(x), `code` is z; with an
        encoder also how far the search went, and how z changes when encoded again.
        """
        start = self.encoder(images, training=False) if self.encoder else None
        found = self.find(images, start)
        z, generated = found["latent"], found["generated"]
        weight, distance = self.config.feature_weight, DISTANCES[self.config.distance]
        pixels = tf.reduce_sum(distance(images - generated), axis=-1)
        of_critic = self.critic(images, training=False)
        code = z
        if self.encoder:
            again = self.encoder(generated, training=False)
            code = tf.concat([z, z - start, again - z], axis=-1)
        return {
            "pixels": (1 - weight) * self.window[0] * self.window[1] * pixels,
            "feature": weight * found["feature"],
            "residual": pixel_errors(images, generated),
            **feature_errors(of_critic["features"], self.features(generated), self.window),
            "critic": tf.sigmoid(-of_critic["logit"]),
            "code": code,
        }

    def sample(self, count: int, seed: int = 0) -> tf.Tensor:
        """Draws images from G: `[count, h, w, C]` in [-1, 1]."""
        return sample(self.generator, self.config.latent_dim, count, seed)
