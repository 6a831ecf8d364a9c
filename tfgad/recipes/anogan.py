"""AnoGAN: a DCGAN and the search for codes."""

from tfgad.errors import UsageError, nearest
from tfgad.methods.anogan import AnoGAN
from tfgad.networks.convolutional import critic, encoder, generator
from tfgad.networks.layers import Adam
from tfgad.recipes.recipe import ADVERSARIAL, FOR_MINUTES, Recipe, adam, chosen

STARTS = ("pool", "encoder")

# Settings that are options of the search, by the names that `SearchOptions` gives them.
SEARCH = {
    "search_steps": "steps",
    "search_rate": "learning_rate",
    "schedule": "schedule",
    "distance": "distance",
    "feature_weight": "feature_weight",
    "restarts": "restarts",
    "pool": "pool",
    "tolerance": "tolerance",
    "patience": "patience",
}


def _anogan(s, shape, seed) -> AnoGAN:
    if s["start"] not in STARTS:
        hint = nearest(s["start"], STARTS)
        raise UsageError("start", s["start"], "is no way to start a search", hint)
    by_encoder = s["start"] == "encoder"
    if by_encoder and s["restarts"] > 1:
        hint = "give restarts=1, or start=pool"
        raise UsageError("restarts", s["restarts"], "but an encoder gives one start", hint)
    model = AnoGAN(
        generator=generator(shape, s["latent_dim"], s["width"]),
        # Radford et al. normalise both networks. R1 is an image's own: no normalisation beside it.
        critic=critic(shape, s["width"], normalise=not s["r1"]),
        encoder=encoder(shape, s["latent_dim"], s["width"]) if by_encoder else None,
        search={option: s[name] for name, option in SEARCH.items()},
        **chosen(s, "encoding", "kappa", "smoothing", *ADVERSARIAL),
        seed=seed,
    )
    optimizers = {"critic": adam(s, "critic_learning_rate"), "generator": adam(s)}
    if by_encoder:
        optimizers["encoder"] = Adam(s["encoder_learning_rate"])
    model.compile(**optimizers)
    return model


# Schlegl et al. 2017, section 3: the DCGAN of Radford et al. on 64x64 patches, λ = 0.1, 500 steps
# from a random code. Adam, z and batches are Radford's; the rate of the search, which neither says,
# is measured (`SearchOptions`). They train 20 epochs of a million patches.
PAPER = {
    "window": 64,
    "latent_dim": 100,
    "width": 64,
    "batch_size": 128,
    "steps": "160000",
    "learning_rate": 2e-4,
    "critic_learning_rate": 2e-4,
    "beta_1": 0.5,
    "beta_2": 0.999,
    "d_steps": 1,
    "g_steps": 1,
    "r1": 0.0,
    "smoothing": 0.0,
    "start": "pool",
    "encoding": "izi_f",
    "kappa": 1.0,
    "encoder_learning_rate": 2e-4,
    "search_steps": 500,
    "search_rate": 0.1,
    "schedule": "cosine",
    "distance": "l1",
    "feature_weight": 0.1,
    "restarts": 1,
    "pool": 1,
    "tolerance": 0.0,
    "patience": 20,
    "score": "loss",
    "stride": 32,
}

# The rates and betas are those of the classic AnoGAN code for MNIST (Heusel et al. 2017 argue for a
# faster critic). R1 keeps the critic from learning few images by heart. On the digit 8 of MNIST, 20
# steps from an encoder's code give an AUROC by `density` of 0.955.
OURS = {
    **PAPER,
    **FOR_MINUTES,
    "batch_size": 64,
    "steps": "2000+1500",
    "critic_learning_rate": 4e-4,
    "beta_1": 0.0,
    "beta_2": 0.9,
    "r1": 1.0,
    "start": "encoder",
    "pool": 256,
    "search_steps": 50,
    "score": "auto",
}

RECIPES = {"anogan/paper": Recipe(_anogan, PAPER), "anogan": Recipe(_anogan, OURS)}
