"""The variational autoencoder."""

from tfgad.methods.vae import VAE
from tfgad.networks.convolutional import encoder, generator
from tfgad.recipes.recipe import FOR_MINUTES, JUDGING, Recipe, chosen, optimizer


def _vae(s, shape, seed) -> VAE:
    model = VAE(
        encoder=encoder(shape, 2 * s["latent_dim"], s["width"]),  # μ and log σ²
        decoder=generator(shape, s["latent_dim"], s["width"], name="decoder"),
        **chosen(s, "likelihood", "sigma", "beta", *JUDGING),
        seed=seed,
    )
    model.compile(autoencoder=optimizer(s["optimizer"], s["learning_rate"]))
    return model


# Kingma and Welling 2014, section 5: batches of 100, one z an image, Bernoulli pixels for MNIST,
# codes of 3 to 200 numbers, Adagrad at 0.01, 0.02 or 0.1, 10^7 images seen and more. Their networks
# have one hidden layer of 500 units and a decay of weights; convolutional ones without it, in the
# family's form, are this project's choice.
VAE_PAPER = {
    "window": 0,
    "latent_dim": 20,
    "width": 64,
    "batch_size": 100,
    "steps": "100000",
    "optimizer": "adagrad",
    "learning_rate": 0.01,
    "likelihood": "bernoulli",
    "sigma": 0.2,
    "beta": 1.0,
    "score": "elbo",
    "stride": 8,
}

# Adam at its own paper's rate (Kingma and Ba 2015).
FAST = {"optimizer": "adam", "learning_rate": 1e-3, "batch_size": 64, "steps": "2000"}

RECIPES = {
    "vae/paper": Recipe(_vae, VAE_PAPER),
    "vae": Recipe(_vae, {**VAE_PAPER, **FOR_MINUTES, **FAST, "score": "auto"}),
}
