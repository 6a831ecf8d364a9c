"""`tfgad list`: the methods and the data sets."""

from __future__ import annotations

from tfgad.cli import console
from tfgad.data.registry import KINDS

METHODS = {
    "ganomaly": "encoder, decoder, encoder (Akcay 2018): heat maps; the one to start with",
    "anogan": "GAN, and a latent search per image (Schlegl 2017): heat maps, samples",
    "fanogan": "WGAN-GP and an encoder (Schlegl 2019): heat maps, samples",
    "vae": "variational autoencoder (Kingma, Welling 2014): heat maps, samples",
    "gan": "fully connected GAN (Goodfellow 2014): samples, for digits",
    "dcgan": "convolutional GAN (Radford 2016): samples",
    "cgan": "conditional GAN (Mirza 2014): samples of each class; data with several classes",
    "wgan": "Wasserstein GAN with weight clipping (Arjovsky 2017): samples",
    "wgan_gp": "Wasserstein GAN with gradient penalty (Gulrajani 2017): samples",
}


def list_names() -> None:
    """List the methods and the data sets."""
    data_sets = {kind.example: kind.help for kind in KINDS.values()}
    for title, names in (("Methods", METHODS), ("Data sets", data_sets)):
        console.say(title)
        console.show(console.two_columns((f"  {name}", line) for name, line in names.items()))
    console.say("METHOD/paper names the configuration of the method's paper.")
