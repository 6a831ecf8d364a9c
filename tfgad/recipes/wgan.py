"""The Wasserstein GANs: clipped, penalised, and f-AnoGAN, which inverts the second."""

import keras

from tfgad.methods.fanogan import FAnoGAN
from tfgad.methods.wgan import WGAN
from tfgad.methods.wgan_gp import WGANGP
from tfgad.networks.convolutional import critic, encoder, generator
from tfgad.recipes.recipe import ADVERSARIAL, FOR_MINUTES, Recipe, adam, chosen, optimizer


def _wgan(s, shape, seed) -> WGAN:
    model = WGAN(
        generator=generator(shape, s["latent_dim"], s["width"]),
        critic=critic(shape, s["width"], clip=s["clip"]),
        **chosen(s, *ADVERSARIAL),
        seed=seed,
    )
    rmsprop = keras.optimizers.RMSprop
    model.compile(critic=rmsprop(s["learning_rate"]), generator=rmsprop(s["learning_rate"]))
    return model


def _wgan_gp(s, shape, seed) -> WGANGP:
    model = WGANGP(**_networks(s, shape), **chosen(s, "penalty", *ADVERSARIAL), seed=seed)
    model.compile(critic=adam(s), generator=adam(s))
    return model


def _fanogan(s, shape, seed) -> FAnoGAN:
    model = FAnoGAN(
        **_networks(s, shape),
        encoder=encoder(shape, s["latent_dim"], s["width"]),
        **chosen(s, "encoding", "kappa", "penalty", *ADVERSARIAL),
        seed=seed,
    )
    of_encoder = optimizer(s["encoder_optimizer"], s["encoder_learning_rate"], "encoder_optimizer")
    model.compile(critic=adam(s), generator=adam(s), encoder=of_encoder)
    return model


def _networks(s, shape) -> dict[str, keras.Model]:
    return {
        "generator": generator(shape, s["latent_dim"], s["width"]),
        "critic": critic(shape, s["width"]),
    }


# Arjovsky et al. 2017, algorithm 1 and section 4.
WGAN_PAPER = {
    "window": 64,
    "latent_dim": 100,
    "width": 64,
    "batch_size": 64,
    "steps": "100000",
    "learning_rate": 5e-5,
    "clip": 0.01,
    "d_steps": 5,
    "g_steps": 1,
    "r1": 0.0,
    "score": "critic",
    "stride": 32,
}

# Gulrajani et al. 2017, algorithm 1; latent size and width of Schlegl et al. 2019, who train
# 100,000 iterations on 64x64 patches.
WGAN_GP_PAPER = {
    "window": 64,
    "latent_dim": 128,
    "width": 64,
    "batch_size": 64,
    "steps": "100000",
    "learning_rate": 1e-4,
    "beta_1": 0.0,
    "beta_2": 0.9,
    "d_steps": 5,
    "g_steps": 1,
    "r1": 0.0,
    "penalty": 10.0,
    "score": "critic",
    "stride": 32,
}

# Schlegl et al. 2019, section 2.2, and the authors' code: κ = 1, RMSprop at 5e-5 for 50,000 steps.
FANOGAN_PAPER = {
    **WGAN_GP_PAPER,
    "steps": "100000+50000",
    "encoding": "izi_f",
    "kappa": 1.0,
    "encoder_optimizer": "rmsprop",
    "encoder_learning_rate": 5e-5,
    "score": "residual",
}

# Clipped critics learn slowly, and the paper's rate is for days. At ten times that, mnist:!2 shows
# strokes like those of digits after 300 steps, 97 s of processor time, and a third of plain digits
# after 1000. For digits within minutes take `gan` or `dcgan`.
WGAN_OURS = {**WGAN_PAPER, **FOR_MINUTES, "steps": "1000", "learning_rate": 5e-4}

RECIPES = {
    "wgan/paper": Recipe(_wgan, WGAN_PAPER),
    "wgan": Recipe(_wgan, WGAN_OURS),
    "wgan_gp/paper": Recipe(_wgan_gp, WGAN_GP_PAPER),
    "wgan_gp": Recipe(_wgan_gp, {**WGAN_GP_PAPER, **FOR_MINUTES, "steps": "600"}),
    "fanogan/paper": Recipe(_fanogan, FANOGAN_PAPER),
    "fanogan": Recipe(
        _fanogan,
        {
            **FANOGAN_PAPER,
            **FOR_MINUTES,
            "steps": "600+1500",
            "encoder_optimizer": "adam",
            "encoder_learning_rate": 2e-4,
            "score": "auto",
        },
    ),
}
