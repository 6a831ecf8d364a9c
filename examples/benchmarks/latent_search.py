"""AnoGAN's latent search: tfgad beside the usual loop in PyTorch, with the same weights.

    pip install torch==2.13.0
    python examples/anogan_mnist.py --start encoder --out anogan_mnist
    python examples/benchmarks/latent_search.py --model anogan_mnist/model.keras \
        --out examples/benchmarks/results/latent_search.json

The 600 test images of the walk-through, 500 steps of Adam from the same random codes, as in

- `torch_single`: PyTorch image by image, as in public code: Adam on z only, but the gradients of
  the weights are computed too, and f(x) is computed again in each step;
- `torch_batch`: the same with 60 images at once;
- `equal_float32`: tfgad with as many steps, 60 images at once;
- `fast_float32`: tfgad from the encoder's code, until a search has converged.

Each round runs a part of each of the first three, and the whole search of 60 images by the last,
so that other load on the machine affects all of them. The median over the rounds is used, scaled
linearly to 600 images of 500 steps; ten rounds complete the 600 images of the last. Before that,
the networks' outputs are compared, and the losses at the end of both searches. `--full` also runs
the 500 steps from random codes on all 600 images, for their AUROC, and times nothing. The results
also hold the times of networks in bfloat16, from when the search still ran in it.

It takes less than 8 minutes of two idle CPU cores, and about 25 more with `--full`.
"""

import argparse
import dataclasses
import os
import runpy
import statistics
import time
from functools import partial
from pathlib import Path

import tfgad  # before TensorFlow, which is to use oneDNN

# isort: split

import numpy as np
import tensorflow as tf

from tfgad import files
from tfgad.core.latent_search import SearchOptions, compiled_search
from tfgad.errors import UsageError, exit_on_usage_error
from tfgad.evaluation import metrics
from tfgad.training import run_config

WALK = runpy.run_path(str(Path(__file__).parents[1] / "anogan_mnist.py"))
STEPS = 500
EQUAL = SearchOptions(steps=STEPS)  # cosine, no convergence stop
FAST = SearchOptions(steps=100, tolerance=0.005, patience=10)
ROUNDS = 10
# Images and steps of a round.
PIECES = {
    "torch_single": (1, 25),
    "torch_batch": (60, 6),
    "equal_float32": (60, 15),
}
COMPARED = 8  # images whose losses are compared


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True, help="of examples/anogan_mnist.py")
    parser.add_argument("--out", type=Path, required=True, help="JSON file; it is added to")
    parser.add_argument("--images", type=int, default=600, help="fewer for a trial")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of PyTorch")
    parser.add_argument("--full", action="store_true", help="the AUROC of 500 steps instead")
    arguments = parser.parse_args()

    model = tfgad.load_model(arguments.model)
    if model.encoder is None:
        hint = "train it with --start encoder"
        raise UsageError("--model", arguments.model, "has no encoder to start from", hint)
    *_, images, digits = WALK["walk_through"]()
    images, labels = images[: arguments.images], digits[: arguments.images] == WALK["ANOMALY"]
    codes = np.random.default_rng(0).standard_normal(
        (len(images), model.config.latent_dim), "float32"
    )
    ours = Ours(model)
    known = files.read_results(arguments.out)
    if arguments.full:
        result = {"full": full(ours, images, labels, codes)}
    else:
        import torch

        torch.set_num_threads(arguments.threads)
        theirs = Torch(model)
        result = {
            "versions": {**run_config.versions(), "torch": torch.__version__},
            "cores": os.cpu_count(),
            "load_before": os.getloadavg(),
            "networks_differ_by": networks_differ_by(ours, theirs, images, codes),
            "losses": losses(ours, theirs, images[:COMPARED], codes),
            "rounds": rounds(ours, theirs, images, labels, codes),
            "load_after": os.getloadavg(),
        }
    result = {**known, **result}
    files.write_json(arguments.out, result)
    print(table(result))


class Ours:
    """The model's networks in float32, and `latent_search` with them."""

    def __init__(self, model):
        settings = {**WALK["SETTINGS"], "start": "encoder", "precision": "float32"}
        settings |= {"latent_dim": model.config.latent_dim, "width": model.critic.layers[1].filters}
        twin = tfgad.build("anogan", model.window, **settings)
        for network in ("generator", "critic", "encoder"):
            getattr(twin, network).set_weights(getattr(model, network).get_weights())
        self.generator = partial(twin.generator, training=False)
        self.features = lambda x: twin.critic(x, training=False)["features"][-1]
        self.encoder = tf.function(partial(twin.encoder, training=False), reduce_retracing=True)
        self.compiled = {}  # by options

    def search(self, images, options, codes=None):
        """Returns what `latent_search` does, as arrays; from the encoder's codes if none given."""
        x = tf.constant(images)
        codes = self.encoder(x) if codes is None else tf.constant(codes[: len(images)])
        if options not in self.compiled:
            given = self.generator, self.features, codes.shape[1], options
            self.compiled[options] = compiled_search(*given)
        found = self.compiled[options](x, codes)
        return {name: value.numpy() for name, value in found.items()}


class Torch:
    """The same networks in PyTorch, and the search as it is usually written."""

    def __init__(self, model):
        self.generator, self.features = to_torch(model.generator), to_torch(model.critic)

    def search(self, images, steps, codes):
        """Returns the losses `[B]` after some of the `STEPS` steps, all images being one batch."""
        import torch

        x = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
        z = torch.from_numpy(codes[: len(images)].copy()).requires_grad_()
        adam = torch.optim.Adam([z], lr=EQUAL.learning_rate)
        cosine = torch.optim.lr_scheduler.CosineAnnealingLR(adam, STEPS)
        for _ in range(steps):
            adam.zero_grad()
            self.losses(x, z).sum().backward()
            adam.step()
            cosine.step()
        with torch.no_grad():
            return self.losses(x, z).numpy()

    def losses(self, x, z):
        """The losses `[B]`: (1 - λ) Σ|x - G(z)| + λ Σ|f(x) - f(G(z))|."""
        made = self.generator(z)
        residual = (x - made).abs().flatten(1).sum(1)
        feature = (self.features(x) - self.features(made)).abs().flatten(1).sum(1)
        return (1 - EQUAL.feature_weight) * residual + EQUAL.feature_weight * feature


def to_torch(network):
    """Makes a Keras network, up to its last convolution's activation, a torch one for inference.

    Keras holds images as NHWC, torch as NCHW.
    """
    from torch import from_numpy, nn

    def copied(layer, *arrays):
        for weight, array in zip(layer.parameters(), arrays, strict=True):
            weight.data = from_numpy(np.ascontiguousarray(array))
        return layer

    made = []
    for layer, after in zip(network.layers, [*network.layers[1:], None], strict=True):
        kind, weights = type(layer).__name__, layer.get_weights()
        if kind == "Flatten":
            break  # of the critic; what follows is the logit
        if kind == "Dense":  # to the generator's first layer, which is laid out as NHWC
            h, w, c = after.target_shape
            kernel = weights[0].reshape(-1, h, w, c).transpose(3, 1, 2, 0).reshape(h * w * c, -1)
            made += [copied(nn.Linear(*kernel.shape[::-1], bias=False), kernel)]
            made += [nn.Unflatten(1, (c, h, w))]
        elif kind in ("Conv2D", "Conv2DTranspose"):
            kernel = weights[0].transpose(3, 2, 0, 1)  # both: [.., .., a, b] to [b, a, .., ..]
            transposed = kind == "Conv2DTranspose"
            a, b = kernel.shape[:2] if transposed else kernel.shape[1::-1]
            make = nn.ConvTranspose2d if transposed else nn.Conv2d
            convolution = make(a, b, kernel.shape[2], 2, 1, bias=len(weights) > 1)
            made += [copied(convolution, kernel, *weights[1:])]
        elif kind == "BatchNormalization":
            normalisation = nn.BatchNorm2d(len(weights[0]), layer.epsilon)
            made += [copied(normalisation, *weights[:2])]
            normalisation.running_mean, normalisation.running_var = map(from_numpy, weights[2:])
        elif kind in ("ReLU", "LeakyReLU"):
            made += [nn.ReLU() if kind == "ReLU" else nn.LeakyReLU(layer.negative_slope)]
        elif kind == "Activation" and layer.activation.__name__ == "tanh":
            made += [nn.Tanh()]
    return nn.Sequential(*made).eval()


def networks_differ_by(ours, theirs, images, codes, count=16):
    """Returns the largest difference of G(z), in [-1, 1], and of f(x) relative to its largest."""
    import torch

    x = np.ascontiguousarray(images[:count].transpose(0, 3, 1, 2))
    with torch.no_grad():
        made = theirs.generator(torch.from_numpy(codes[:count])).numpy().transpose(0, 2, 3, 1)
        f_x = theirs.features(torch.from_numpy(x)).numpy().transpose(0, 2, 3, 1)
    own = ours.features(tf.constant(images[:count])).numpy()
    difference = {
        "generator": float(np.abs(ours.generator(tf.constant(codes[:count])) - made).max()),
        "features": float(np.abs(own - f_x).max() / np.abs(own).max()),
    }
    if max(difference.values()) > 1e-4:
        raise RuntimeError(f"the networks differ: {difference}")
    return difference


def losses(ours, theirs, images, codes):
    """Returns the mean losses that both searches end with after `STEPS` steps."""
    theirs = [theirs.search(images[i : i + 1], STEPS, codes[i:]) for i in range(len(images))]
    own, other = ours.search(images, EQUAL, codes)["loss"], np.concatenate(theirs)
    return {
        "images": len(images),
        "tfgad": float(own.mean()),
        "torch": float(other.mean()),
        "largest_difference": float(np.abs(own / other - 1).max()),
    }


def rounds(ours, theirs, images, labels, codes):
    """Returns seconds and scores of each way; see the module's text."""
    pieces = {name: dataclasses.replace(EQUAL, steps=steps) for name, (_, steps) in PIECES.items()}
    ways = {
        "torch_single": lambda x, z: theirs.search(x, PIECES["torch_single"][1], z),
        "torch_batch": lambda x, z: theirs.search(x, PIECES["torch_batch"][1], z),
        "equal_float32": lambda x, z: ours.search(x, pieces["equal_float32"], z),
        "fast_float32": lambda x, z: ours.search(x, FAST),
    }
    for work in ways.values():  # traced for any number of images
        work(images[:2], codes)
        work(images[:3], codes)
    taken = {name: [] for name in ways}
    found = {name: [] for name in ways}
    for i, batch in enumerate(np.array_split(images, min(ROUNDS, len(images)))):
        for name, work in ways.items():
            count = min(PIECES.get(name, (len(batch),))[0], len(batch))
            started = time.perf_counter(), time.process_time()
            found[name].append(work(batch[:count], codes))
            wall, cpu = time.perf_counter() - started[0], time.process_time() - started[1]
            scale = 600 / count * (STEPS / PIECES[name][1] if name in PIECES else 1)
            taken[name].append((wall * scale, cpu * scale))
        print(i, {name: round(times[-1][0], 1) for name, times in taken.items()}, flush=True)
    return {name: summary(name, taken[name], found[name], labels) for name in ways}


def summary(name, taken, found, labels):
    """Returns the figures of one way."""
    wall, cpu = (statistics.median(times) for times in zip(*taken, strict=True))
    figures = {"seconds": round(wall, 1), "cpu_seconds": round(cpu, 1), "of_rounds": taken}
    if name in PIECES:
        images, steps = PIECES[name]
        return {**figures, "measured": {"images": images, "steps": steps, "rounds": len(taken)}}
    return {**figures, **figures_of({key: np.concatenate([f[key] for f in found])
                                 for key in ("loss", "steps")}, labels)}  # fmt: skip


def figures_of(found, labels):
    """Returns AUROC, loss on normal images and mean number of steps of a search."""
    auroc = metrics.image_metrics(labels.astype(int), found["loss"])["image_auroc"]
    normal = float(found["loss"][~labels].mean())
    return {"auroc": auroc, "loss_on_normal": normal, "steps": float(found["steps"].mean())}


def full(ours, images, labels, codes):
    """Returns the AUROC of `STEPS` steps from random codes on all images."""
    parts = np.array_split(np.arange(len(images)), min(ROUNDS, len(images)))
    found = [ours.search(images[part], EQUAL, codes[part]) for part in parts]
    joined = {key: np.concatenate([f[key] for f in found]) for key in ("loss", "steps")}
    return {"equal_float32": figures_of(joined, labels)}


def table(result):
    """Returns the result as a Markdown table: seconds for 600 images, and how many times faster."""
    ways = result.get("rounds", {})
    lines = [
        "| search | s, 600 images | CPU s | times torch_single | torch_batch | steps | AUROC |"
    ]
    lines.append("|---" * 7 + "|")
    for name, figures in ways.items():
        times = [ways[of]["seconds"] / figures["seconds"] for of in ("torch_single", "torch_batch")]
        of_all = {**result.get("full", {}).get(name, {}), **figures}
        cells = [f"{figures['seconds']:.0f}", f"{figures['cpu_seconds']:.0f}"]
        cells += [f"{ratio:.1f}" for ratio in times] + [f"{of_all.get('steps', STEPS):.0f}"]
        auroc = f"{of_all['auroc']:.3f}" if "auroc" in of_all else "–"
        lines.append(f"| {' | '.join([name, *cells, auroc])} |")
    return "\n".join(lines)


if __name__ == "__main__":
    with exit_on_usage_error():
        main()
