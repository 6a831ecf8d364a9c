"""GANomaly, WGAN-GP and DCGAN in PyTorch, as one would write them: what `peers.py` compares with.

Networks, losses, optimizers and batches are those of `tfgad.methods`, so that only the frameworks
differ; `peers.py` checks that the numbers of weights are the same. Images are NCHW.
"""

import contextlib

import torch
from torch import nn
from torch.nn import functional

SLOPE = 0.2
# As good as PyTorch gets: each of them is timed, and the best is compared with.
VARIANTS = {
    "plain": {},
    "channels_last": {"channels_last": True},
    "channels_last, fused Adam": {"channels_last": True, "fused": True},
    "channels_last, fused Adam, bfloat16": {"channels_last": True, "fused": True, "bfloat16": True},
}


class Peer:
    """A model, and how it is computed.

    Args:
        bfloat16: whether to compute in it, by autocast.
        channels_last: whether images and kernels lie in memory as NHWC.
        fused: whether Adam updates all weights in one operation.
    """

    def __init__(self, bfloat16=False, channels_last=False, fused=False):
        self.bfloat16, self.channels_last, self.fused = bfloat16, channels_last, fused

    def placed(self, network):
        """Returns a network with its kernels in the memory format."""
        last = torch.channels_last if self.channels_last else torch.contiguous_format
        return network.to(memory_format=last)

    def adam(self, networks, rate, beta_1, beta_2):
        """Returns an Adam for all weights of some networks."""
        weights = [weight for network in networks for weight in network.parameters()]
        return torch.optim.Adam(weights, rate, (beta_1, beta_2), eps=1e-7, fused=self.fused)

    def precision(self):
        """Returns the context in which networks are called."""
        if self.bfloat16:
            return torch.autocast("cpu", torch.bfloat16)
        return contextlib.nullcontext()

    def images(self, count, side):
        """Draws images `[count, 1, side, side]` in [-1, 1]."""
        images = torch.rand(count, 1, side, side) * 2 - 1
        return self.placed(images) if self.channels_last else images

    def size(self):
        """Returns the number of weights that are trained."""
        return sum(w.numel() for net in self.networks for w in net.parameters())


class GANomaly(Peer):
    """`tfgad.methods.ganomaly` with its defaults."""

    batch, side = 64, 32

    def __init__(self, **variant):
        super().__init__(**variant)
        self.encoder, self.decoder = self.placed(encoder()), self.placed(generator())
        self.again, self.critic = self.placed(encoder()), self.placed(Critic(normalised=True))
        self.networks = [self.encoder, self.decoder, self.again, self.critic]
        self.of_generator = self.adam(self.networks[:3], 2e-4, 0.5, 0.999)
        self.of_critic = self.adam(self.networks[3:], 2e-4, 0.5, 0.999)

    def step(self, x):
        """One update of the generator and one of the critic, from one forward pass."""
        with self.precision():
            z = self.encoder(x)
            made = self.decoder(z)
            again = self.again(made)
            (real, f_x), (fake, f_made) = self.critic(x), self.critic(made)
        adversarial = functional.mse_loss(f_made[-1].float(), f_x[-1].float())
        contextual = functional.l1_loss(made.float(), x)
        loss = adversarial + 50 * contextual + functional.mse_loss(again.float(), z.float())
        critic_loss = cross_entropy(real, 1.0) + cross_entropy(fake, 0.0)
        weights = [weight for net in self.networks[:3] for weight in net.parameters()]
        gradients = torch.autograd.grad(loss, weights, retain_graph=True)
        of_critic = torch.autograd.grad(critic_loss, list(self.critic.parameters()))
        apply(self.of_generator, weights, gradients)
        apply(self.of_critic, self.critic.parameters(), of_critic)

    @torch.inference_mode()
    def errors(self, tiles, stride=16):
        """Returns the errors of all windows of tiles `[B, 1, H, W]`."""
        windows = tiles.unfold(2, self.side, stride).unfold(3, self.side, stride)
        windows = windows.reshape(-1, 1, self.side, self.side)
        with self.precision():
            z = self.encoder(windows)
            made = self.decoder(z)
            again = self.again(made)
            (_, f_x), (_, f_made) = self.critic(windows), self.critic(made)
        features = [(a - b).abs().mean(1) for a, b in zip(f_x, f_made, strict=True)]
        return (windows - made).abs().float(), features, (z - again).abs().mean(1)

    def eval(self):
        """Uses the moving averages of batch normalisation from here on."""
        for network in self.networks:
            network.eval()


class WGANGP(Peer):
    """`tfgad.methods.wgan_gp` with its defaults: five updates of the critic, one of G."""

    batch, side = 320, 32

    def __init__(self, **variant):
        super().__init__(**variant)
        self.critic = self.placed(Critic(normalised=False))
        self.generator = self.placed(generator())
        self.networks = [self.critic, self.generator]
        self.of_critic = self.adam([self.critic], 1e-4, 0.0, 0.9)
        self.of_generator = self.adam([self.generator], 1e-4, 0.0, 0.9)

    def step(self, images):
        """One iteration of algorithm 1."""
        for x in images.chunk(5):
            with self.precision(), torch.no_grad():
                made = self.generator(torch.randn(len(x), 64))
            between = torch.lerp(made.float(), x, torch.rand(len(x), 1, 1, 1)).requires_grad_()
            with self.precision():
                loss = self.critic(made)[0].mean() - self.critic(x)[0].mean()
                logit = self.critic(between)[0].sum()
            slope = torch.autograd.grad(logit, between, create_graph=True)[0].float()
            penalty = (slope.flatten(1).norm(dim=1) - 1).square().mean()
            self.of_critic.zero_grad()
            (loss.float() + 10 * penalty).backward()
            self.of_critic.step()
        with self.precision():
            loss = -self.critic(self.generator(torch.randn(len(x), 64)))[0].mean()
        apply(
            self.of_generator,
            self.generator.parameters(),
            torch.autograd.grad(loss, list(self.generator.parameters())),
        )


class DCGAN(Peer):
    """`tfgad.methods.dcgan` with the networks of Radford et al., a width of 64 and no penalty."""

    batch, side = 64, 64

    def __init__(self, **variant):
        super().__init__(**variant)
        self.generator = self.placed(radford_generator())
        self.critic = self.placed(radford_critic())
        self.networks = [self.generator, self.critic]
        self.of_critic = self.adam([self.critic], 2e-4, 0.5, 0.999)
        self.of_generator = self.adam([self.generator], 2e-4, 0.5, 0.999)

    def step(self, x):
        """One update of the critic and one of the generator."""
        with self.precision():
            with torch.no_grad():
                made = self.generator(torch.randn(len(x), 100))
            real, fake = self.critic(x), self.critic(made)
        self.of_critic.zero_grad()
        (cross_entropy(real, 1.0) + cross_entropy(fake, 0.0)).backward()
        self.of_critic.step()
        with self.precision():
            fake = self.critic(self.generator(torch.randn(len(x), 100)))
        loss = cross_entropy(fake, 1.0)
        weights = list(self.generator.parameters())
        apply(self.of_generator, weights, torch.autograd.grad(loss, weights))


class Critic(nn.Module):
    """Images to a logit, and the hidden layers."""

    def __init__(self, normalised):
        super().__init__()
        self.layers = nn.ModuleList([halved(1, 32, False)])
        self.layers += [halved(a, b, normalised) for a, b in ((32, 64), (64, 128))]
        self.logit = nn.Linear(128 * 4 * 4, 1)

    def forward(self, x):
        """Returns logits `[B]` and a list of hidden layers."""
        features = []
        for layer in self.layers:
            x = layer(x)
            features.append(x)
        return self.logit(x.flatten(1))[:, 0], features


def encoder():
    """Images of 32x32 to 64 numbers."""
    layers = [halved(1, 32, False), halved(32, 64, True), halved(64, 128, True)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(128 * 4 * 4, 64))


def halved(channels, filters, normalised):
    """A convolution of stride 2, batch normalisation and a leaky rectifier."""
    layers = [nn.Conv2d(channels, filters, 4, 2, 1, bias=not normalised)]
    layers += [nn.BatchNorm2d(filters)] if normalised else []
    return nn.Sequential(*layers, nn.LeakyReLU(SLOPE, inplace=True))


def generator():
    """64 numbers to images of 32x32."""
    layers = [nn.Linear(64, 128 * 4 * 4, bias=False), nn.Unflatten(1, (128, 4, 4))]
    layers += [nn.BatchNorm2d(128), nn.ReLU(inplace=True)]
    for a, b in ((128, 64), (64, 32)):
        layers += [nn.ConvTranspose2d(a, b, 4, 2, 1, bias=False), nn.BatchNorm2d(b)]
        layers += [nn.ReLU(inplace=True)]
    return nn.Sequential(*layers, nn.ConvTranspose2d(32, 1, 4, 2, 1), nn.Tanh())


def radford_generator():
    """100 numbers to images of 64x64."""
    units = 512 * 4 * 4
    layers = [nn.Linear(100, units, bias=False), nn.BatchNorm1d(units), nn.ReLU(inplace=True)]
    layers += [nn.Unflatten(1, (512, 4, 4))]
    for a, b in ((512, 256), (256, 128), (128, 64)):
        layers += [nn.ConvTranspose2d(a, b, 5, 2, 2, 1, bias=False), nn.BatchNorm2d(b)]
        layers += [nn.ReLU(inplace=True)]
    return nn.Sequential(*layers, nn.ConvTranspose2d(64, 1, 5, 2, 2, 1, bias=False), nn.Tanh())


def radford_critic():
    """Images of 64x64 to a logit."""
    layers = [nn.Conv2d(1, 64, 5, 2, 2, bias=False), nn.LeakyReLU(SLOPE, inplace=True)]
    for a, b in ((64, 128), (128, 256), (256, 512)):
        layers += [nn.Conv2d(a, b, 5, 2, 2, bias=False), nn.BatchNorm2d(b)]
        layers += [nn.LeakyReLU(SLOPE, inplace=True)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(512 * 4 * 4, 1, bias=False))


def cross_entropy(logits, label):
    """Binary cross-entropy of logits that all have one label."""
    logits = logits.float()
    return functional.binary_cross_entropy_with_logits(logits, torch.full_like(logits, label))


def apply(optimizer, weights, gradients):
    """Updates weights by their gradients."""
    for weight, gradient in zip(weights, gradients, strict=True):
        weight.grad = gradient
    optimizer.step()


PEERS = {"ganomaly": GANomaly, "wgan_gp": WGANGP, "dcgan": DCGAN}
