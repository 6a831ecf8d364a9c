"""The first GANs: fully connected, and convolutional."""

from tfgad.methods.gan import GAN
from tfgad.networks import dcgan, dense
from tfgad.recipes.recipe import ADVERSARIAL, Recipe, adam, chosen


def _gan(s, shape, seed) -> GAN:
    networks = {
        "generator": dense.generator(shape, s["latent_dim"]),
        "critic": dense.critic(shape, s["dropout"], seed),
    }
    return _compiled(networks, s, seed)


def _dcgan(s, shape, seed) -> GAN:
    networks = {
        "generator": dcgan.generator(shape, s["latent_dim"], s["width"]),
        "critic": dcgan.critic(shape, s["width"], s["dropout"], seed),
    }
    return _compiled(networks, s, seed)


def _compiled(networks, s, seed) -> GAN:
    model = GAN(**networks, **chosen(s, "smoothing", *ADVERSARIAL), seed=seed)
    model.compile(critic=adam(s), generator=adam(s))
    return model


# Goodfellow et al. 2014 leave sizes and optimizer open (their code differs by data set); these are
# the fully connected networks of common MNIST code, with Radford's Adam. 30 epochs of MNIST.
GAN_PAPER = {
    "window": 0,
    "latent_dim": 100,
    "dropout": 0.2,
    "batch_size": 128,
    "steps": "14000",
    "learning_rate": 2e-4,
    "beta_1": 0.5,
    "beta_2": 0.999,
    "d_steps": 1,
    "g_steps": 1,
    "r1": 0.0,
    "smoothing": 0.0,
    "score": "critic",
    "stride": 8,
}

# Radford et al. 2016, section 4: Adam at 2e-4, beta1 0.5, batches of 128, z of 100. The networks
# are those of TensorFlow's DCGAN tutorial, as is its dropout; 50 epochs of MNIST.
DCGAN_PAPER = {**GAN_PAPER, "width": 64, "dropout": 0.3, "steps": "23000"}

# On mnist:!2 the paper's settings give smudged digits in noise after 3000 steps. With R1, and Adam
# 2.5 times as fast, most samples are clean digits after 4000 (71 s of processor time). Judged by
# eye, one seed, the two changes not tried apart.
GAN_OURS = {**GAN_PAPER, "window": 32, "steps": "4000", "learning_rate": 5e-4, "r1": 0.5}

# Likewise: with the paper's settings at this width, 1000 steps end on broken strokes, and a D that
# no longer tells (its loss is above log 2; 230 s of processor time). R1 instead of dropout, Adam
# 2.5 times as fast and half the batch give digits after 800 steps (110 s).
DCGAN_OURS = {
    **DCGAN_PAPER,
    "window": 32,
    "width": 32,
    "dropout": 0.0,
    "batch_size": 64,
    "steps": "2000",
    "learning_rate": 5e-4,
    "r1": 0.5,
}

RECIPES = {
    "gan/paper": Recipe(_gan, GAN_PAPER),
    "gan": Recipe(_gan, GAN_OURS),
    "dcgan/paper": Recipe(_dcgan, DCGAN_PAPER),
    "dcgan": Recipe(_dcgan, DCGAN_OURS),
}
