"""Your own images as a data set of tensorflow-datasets.

    python examples/folder_as_tfds.py --data 'folder:parts?tile=128' --name parts --out prepared
    TFDS_DATA_DIR=prepared tfgad train --data 'tfds:parts?normal=good' --out runs/parts

Writes the images of any spec, as tfgad loads them, with the features `image`, `label` (`good` and
`defective`), `mask` (255 on the defect; black where it is not known) and `name`: the normal images
as the split `train`, the others as `test`. Any program that reads tensorflow-datasets reads it:

    tfds.load("parts", data_dir="prepared")

tfgad itself reads images and labels of such a set, not the masks: for pixel metrics give it the
folder.

A weave of 700 tiles takes about 10 seconds on one CPU core.
"""

import argparse
import re
from pathlib import Path

import tfgad  # before TensorFlow, which is to use oneDNN

# isort: split

import tensorflow as tf
import tensorflow_datasets as tfds

from tfgad.errors import UsageError, exit_on_usage_error

CLASSES = ["good", "defective"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="a spec, such as folder:parts?tile=128")
    parser.add_argument("--name", required=True, help="of the data set: a-z, 0-9 and _")
    parser.add_argument("--version", default="1.0.0")
    parser.add_argument("--out", type=Path, required=True, help="folder of prepared data sets")
    arguments = parser.parse_args()
    if not re.fullmatch("[a-z][a-z0-9_]*", arguments.name):
        raise UsageError("name", arguments.name, "is no name of a data set", "use a-z, 0-9 and _")
    if not re.fullmatch(r"(0|[1-9]\d*)(\.(0|[1-9]\d*)){2}", arguments.version):
        raise UsageError("version", arguments.version, "is no version", "give one, such as 1.0.0")
    target = arguments.out / arguments.name / arguments.version
    if target.exists():
        raise UsageError("out", target, "exists", "give another --version")

    data = tfgad.load(arguments.data)
    height, width, channels = data.image_shape
    features = {
        "image": tfds.features.Image(shape=(height, width, channels)),
        "label": tfds.features.ClassLabel(names=CLASSES),
        "mask": tfds.features.Image(shape=(height, width, 1)),
        "name": tfds.features.Text(),
    }
    if data.depth != 8:
        print(f"images of {data.depth} bits are reduced to 8")
    splits = {"train": data.train.concatenate(data.calibration).enumerate().map(good_row)}
    if data.test_size:
        splits["test"] = data.test.map(test_row)
    try:
        arguments.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        hint = "give a folder that can be written"
        raise UsageError("out", arguments.out, error.strerror, hint) from error
    tfds.dataset_builders.store_as_tfds_dataset(
        name=arguments.name,
        version=arguments.version,
        features=tfds.features.FeaturesDict(features),
        split_datasets=splits,
        data_dir=arguments.out,
        description=f"{data.spec}, as tfgad {tfgad.__version__} loads it.",
    )
    print(f"{target}: {data.train_size + data.calibration_size} good images to train on, "
          f"{data.test_size} to test")  # fmt: skip


def good_row(number, image):
    """A row of the split `train`."""
    mask = tf.zeros_like(levels(image)[..., :1])
    name = tf.strings.join(["good/", tf.strings.as_string(number, width=6, fill="0")])
    return {"image": levels(image), "label": tf.constant(0, tf.int64), "mask": mask, "name": name}


def test_row(row):
    """A row of the split `test`."""
    label = tf.cast(row["label"], tf.int64)
    mask = row["mask"] * tf.constant(255, tf.uint8)
    return {"image": levels(row["image"]), "label": label, "mask": mask, "name": row["name"]}


def levels(image):
    """An image in [-1, 1] as grey levels of 8 bits."""
    return tf.cast(tf.round((image + 1.0) * 127.5), tf.uint8)


if __name__ == "__main__":
    with exit_on_usage_error():
        main()
