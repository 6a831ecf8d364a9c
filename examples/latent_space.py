"""The latent space of an autoencoder: what its codes know of digits without labels.

    python examples/latent_space.py
    python examples/latent_space.py --method fanogan

Trains on all ten digits of MNIST without their labels, encodes the 10,000 test images, and writes
`pca.png` and `tsne.png` (codes in the plane, each drawn as its digit), `interpolation.png` (from
one real digit to another through the codes between theirs) and `generated.png`. Prints how well
k-means with ten clusters finds the digits, beside k-means on pixels and on their principal
components: adjusted Rand index and normalised mutual information with the labels, 0 for chance and
1 for the digits themselves. MNIST comes from `TFGAD_DATA_DIR`, from Keras's cache, or is
downloaded; `--data digits` needs no download.

Expect an ARI of 0.475 on the codes of the VAE, 0.386 on pixels and 0.364 on principal components
(NMI 0.568, 0.504, 0.486), within 4 minutes of processor time. An interpolation from digit to digit
passes images that are no digits: the codes lie in clusters, so not every random code is a digit.
"""

import argparse
import dataclasses
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

import tfgad
from tfgad import plots
from tfgad.errors import exit_on_usage_error
from tfgad.methods import settings_of
from tfgad.training.stages import stage_steps

SETTINGS = {"vae": {"latent_dim": 16, "steps": "2000"}, "fanogan": {}}
# The networks of each method from images to codes and back.
CODECS = {
    "vae": lambda model: (lambda images: model.encode(images)[0], model.decoder),
    "fanogan": lambda model: (model.encoder, model.generator),
}
# Petroff 2021 (arXiv:2107.02270): ten colours that every kind of colour vision can distinguish.
COLOURS = (
    "#3f90da", "#ffa90e", "#bd1f01", "#94a4a2", "#832db6",
    "#a96b59", "#e76300", "#b9ac70", "#717581", "#92dadd",
)  # fmt: skip
MEASURES = adjusted_rand_score, normalized_mutual_info_score
POINTS = 3000  # in the plane: more hide one another, and t-SNE takes longer
PAIRS = 8


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--method", choices=CODECS, default="vae")
    parser.add_argument("--data", default="mnist", help="mnist, fashion_mnist or digits")
    parser.add_argument("--steps", help="of training; of f-AnoGAN's two stages such as 600+1500")
    parser.add_argument("--out", type=Path, default="latent_space", help="folder for the pictures")
    arguments = parser.parse_args()

    data = all_classes(arguments.data)
    rows = list(data.test.as_numpy_iterator())
    images = np.stack([row["image"] for row in rows])
    labels = np.array([int(row["name"].split(b"/")[0]) for row in rows])
    model = trained(arguments.method, data, arguments.steps)
    encode, decode = CODECS[arguments.method](model)
    codes = np.concatenate([encode(images[i : i + 500]) for i in range(0, len(images), 500)])

    pixels = images.reshape(len(images), -1)
    components = PCA(codes.shape[1], random_state=0).fit_transform(pixels)
    for name, values in {"pixels": pixels, "PCA": components, "codes": codes}.items():
        clusters = KMeans(10, n_init=10, random_state=0).fit_predict(values)
        rand, shared = (measure(labels, clusters) for measure in MEASURES)
        print(f"k-means on {name:6s} of {values.shape[1]:4d}: ARI {rand:.3f}, NMI {shared:.3f}")

    some = codes[:POINTS]
    for name, reduce in {"PCA": PCA(2), "t-SNE": TSNE(random_state=0)}.items():
        figure = scatter(reduce.fit_transform(some), labels, f"{name} of {len(some):,} codes")
        plots.save(figure, arguments.out / f"{name.lower().replace('-', '')}.png")
    title = "Real digits left and right; between them their codes and those on the way, decoded"
    figure = plots.image_grid(interpolations(images, labels, encode, decode), title)
    plots.save(figure, arguments.out / "interpolation.png")
    plots.save(plots.samples(model.sample(40).numpy()), arguments.out / "generated.png")
    print(f"wrote {arguments.out}")


def all_classes(kind: str) -> tfgad.AnomalyData:
    """Returns a data set whose training images are of all ten classes."""
    nine, one = tfgad.load(f"{kind}:!9"), tfgad.load(f"{kind}:9")
    train = nine.train.concatenate(one.train)
    return dataclasses.replace(nine, train=train, train_size=nine.train_size + one.train_size)


def trained(method: str, data: tfgad.AnomalyData, steps: str | None) -> tfgad.Detector:
    """Returns the method's model, fitted stage by stage."""
    settings = settings_of(method, SETTINGS[method])
    model = tfgad.build(method, data.image_shape, **SETTINGS[method])
    for stage, count in stage_steps(steps or settings.as_dict()["steps"], model.stages).items():
        model.begin(stage)
        batch_size = model.images_per_step
        batches = tfgad.training_batches(data, model.window, batch_size=batch_size)
        model.fit(batches, steps_per_epoch=count, shuffle=False, verbose=2)
    return model


def interpolations(images, labels, encode, decode) -> np.ndarray:
    """Returns eight images per pair: digit d, six codes on the line to the code of d + 1, d + 1."""
    ends = np.array([images[labels == digit][0] for digit in range(PAIRS + 1)])
    codes, share = encode(ends).numpy(), np.linspace(0, 1, 6, dtype="float32")[:, None]
    on_the_way = [decode((1 - share) * codes[d] + share * codes[d + 1]) for d in range(PAIRS)]
    return np.concatenate([[ends[d], *on_the_way[d], ends[d + 1]] for d in range(PAIRS)])


def scatter(places: np.ndarray, labels: np.ndarray, title: str) -> Figure:
    """Returns the points `[N, 2]`, each drawn as its digit; large digits mark the medians."""
    figure = Figure(figsize=(8, 7.4), layout="constrained")
    axes = figure.subplots()
    axes.set_title(title, loc="left", fontweight="bold")
    axes.set(xticks=[], yticks=[])
    large = {"ha": "center", "va": "center", "fontsize": 20, "fontweight": "bold"}
    large["path_effects"] = [withStroke(linewidth=4, foreground="white")]
    for digit, colour in enumerate(COLOURS):
        x, y = places[labels[: len(places)] == digit].T
        axes.scatter(x, y, 26, colour, marker=f"$\\mathbf{{{digit}}}$", linewidths=0, alpha=0.8)
        axes.text(np.median(x), np.median(y), digit, **large)
    return figure


if __name__ == "__main__":
    with exit_on_usage_error():
        main()
