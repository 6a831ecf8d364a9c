"""GANomaly."""

from tfgad.methods.ganomaly import GANomaly
from tfgad.networks.convolutional import critic, encoder, generator
from tfgad.recipes.recipe import FOR_MINUTES, JUDGING, Recipe, adam, chosen


def _ganomaly(s, shape, seed) -> GANomaly:
    latent_dim, width = s["latent_dim"], s["width"]
    weights = ("adversarial_weight", "contextual_weight", "encoder_weight")
    model = GANomaly(
        encoder=encoder(shape, latent_dim, width),
        decoder=generator(shape, latent_dim, width, name="decoder"),
        second_encoder=encoder(shape, latent_dim, width, name="second_encoder"),
        # R1 is a penalty of each image. Batch normalisation would mix the images of a batch in its
        # gradient (Gulrajani et al. 2017, section 4), and its moving averages would see x twice.
        critic=critic(shape, width, normalise=not s["r1"]),
        **chosen(s, *weights, "r1", *JUDGING),
        seed=seed,
    )
    model.compile(generator=adam(s), critic=adam(s))
    return model


# Akcay et al. 2018, section 4: images of 32x32, z of 100, Adam at 2e-4, weights 1, 50, 1; batch
# and width of the authors' code, 15 epochs of about 50,000 images.
GANOMALY_PAPER = {
    "window": 0,
    "latent_dim": 100,
    "width": 64,
    "batch_size": 64,
    "steps": "12000",
    "learning_rate": 2e-4,
    "beta_1": 0.5,
    "beta_2": 0.999,
    "adversarial_weight": 1.0,
    "contextual_weight": 50.0,
    "encoder_weight": 1.0,
    "r1": 0.0,
    "score": "latent",
    "stride": 8,
}

RECIPES = {
    "ganomaly/paper": Recipe(_ganomaly, GANOMALY_PAPER),
    "ganomaly": Recipe(
        _ganomaly, {**GANOMALY_PAPER, **FOR_MINUTES, "steps": "1500", "score": "auto"}
    ),
}
