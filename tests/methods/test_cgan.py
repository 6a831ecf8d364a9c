import keras
import numpy as np
import pytest
import tensorflow as tf

import tfgad
from tfgad import training
from tfgad.data import load
from tfgad.errors import UsageError
from tfgad.methods import settings_of
from tfgad.training import run_folder


@pytest.fixture(scope="module")
def model(fitted):
    return fitted("cgan")


def test_published_settings_are_the_papers():
    paper = settings_of("cgan/paper")
    miyato = {"learning_rate": 2e-4, "beta_1": 0, "beta_2": 0.9, "d_steps": 5, "latent_dim": 128}
    assert miyato.items() <= dict(paper).items()


def with_logits(model, monkeypatch, logits):
    """Makes the discriminator answer with these logits `[B, K]`, whatever it sees."""
    critic = type("Critic", (), {"output": model.critic.output})()
    monkeypatch.setattr(model, "critic", critic)
    answer = {"logits": tf.constant(logits, tf.float32)}
    type(critic).__call__ = lambda self, images, training: answer


def test_the_score_is_that_of_the_likeliest_class(build_small, images, monkeypatch):
    model = build_small("cgan")
    # log 3 is D = 3/4, and -log 3 is 1/4.
    with_logits(model, monkeypatch, [[np.log(3), 0], [-np.log(3), -5], [-1, 0]])
    errors = model.errors(images[:3, :32, :32])["critic"].numpy()
    np.testing.assert_allclose(errors, [1 / 4, 3 / 4, 1 / 2], rtol=1e-6)
    assert errors.shape == (3,)


def test_training_looks_at_the_logit_of_the_label(build_small, images, monkeypatch):
    model = build_small("cgan")
    with_logits(model, monkeypatch, [[1, 2], [3, 4], [5, 6]])
    np.testing.assert_array_equal(model.logit(images[:3], tf.constant([1, 0, 1])), [2, 3, 6])


def cross_entropy(model, images, y, label):
    """-log of the chance that D(x, y) gives to `label`, by Keras: `[B]`."""
    logits = model.critic(images, training=True)["logits"]
    own = tf.reduce_sum(logits * tf.one_hot(y, 2), axis=1)
    return keras.losses.binary_crossentropy(
        tf.fill([len(y), 1], float(label)), own[:, None], from_logits=True
    )


def test_the_discriminator_tells_real_from_generated_of_the_same_class(
    build_small, images, labels, assert_descent
):
    model = build_small("cgan", d_steps=1, r1=0.5)
    x, y = tf.constant(images[:4, :32, :32]), tf.constant(labels[:4])
    z = model.random_normal([4, model.config.latent_dim], "critic 0")
    generated = model.generator([z, y], training=True)
    slopes = []

    def loss():
        real, fake = cross_entropy(model, x, y, 1), cross_entropy(model, generated, y, 0)
        with tf.GradientTape() as inner:
            inner.watch(x)
            logit = tf.gather(model.critic(x, training=True)["logits"], y, batch_dims=1)
        slopes.append(tf.reduce_sum(inner.gradient(logit, x) ** 2, axis=[1, 2, 3]))
        return tf.reduce_mean((real + fake) / 2 + 0.5 * slopes[0])

    logs = assert_descent(model, "critic", loss, (x, y))
    np.testing.assert_allclose(logs["r1"], tf.reduce_mean(slopes[0]), rtol=1e-4)


def test_the_generator_wants_to_look_real_as_its_class(build_small, images, labels, assert_descent):
    model = build_small("cgan", d_steps=1, r1=0.0)
    x, y = tf.constant(images[:4, :32, :32]), tf.constant(labels[:4])

    def loss():
        z = model.random_normal([4, model.config.latent_dim], "generator 0")
        generated = model.generator([z, y], training=True)
        return tf.reduce_mean(cross_entropy(model, generated, y, 1))

    assert_descent(model, "generator", loss, (x, y))


def test_smoothing_and_r1_are_settings(build_small, images, labels):
    x, y = tf.constant(images[:4, :32, :32]), tf.constant(labels[:4])
    plain, smooth = (build_small("cgan", smoothing=s, r1=0.0, d_steps=1) for s in (0.0, 0.1))
    assert "r1" not in plain.train_step((x, y))
    # D starts near ½, where a label of 0.9 costs as much as 1 but for the logit: 0.1·½·E[logit].
    logit = tf.reduce_mean(build_small("cgan", d_steps=1).logit(x, y))
    difference = (
        smooth.train_step((x, y))["critic"]
        - build_small("cgan", smoothing=0.0, r1=0.0, d_steps=1).train_step((x, y))["critic"]
    )
    np.testing.assert_allclose(difference, 0.05 * logit, atol=1e-5)


def test_samples_show_the_classes_in_turn(model):
    samples = model.sample(5, seed=1).numpy()
    assert samples.shape == (5, 32, 32, 1)
    np.testing.assert_array_equal(samples, model.generate([0, 1, 0, 1, 0], seed=1))
    assert np.any(samples != model.sample(5, seed=2).numpy())


def test_generate_makes_an_image_of_each_label(model):
    ones, zeros = model.generate([1, 1, 1]).numpy(), model.generate([0, 0, 0]).numpy()
    assert np.abs(ones - zeros).max() > 1e-3
    np.testing.assert_array_equal(ones[1], model.generate([0, 1, 0])[1])
    assert model.generate([]).shape == (0, 32, 32, 1)


LABELS = {
    "float": (lambda y: y.astype("float32"), r"labels 'float32': are not of an integer type"),
    "one-hot": (lambda y: np.eye(2, dtype="int32")[y], r"labels '\(.*2\)': .* shape \[B\]"),
    "column": (lambda y: y[:, None], r"labels '\(.*1\)': .* shape \[B\].*int32 \[B\]"),
}


@pytest.mark.parametrize("form", LABELS)
def test_labels_of_another_form_are_refused(build_small, images, labels, form):
    spoil, message = LABELS[form]
    model, y = build_small("cgan", side=32, d_steps=1), spoil(labels[:4])
    with pytest.raises(UsageError, match=message):
        model.fit(images[:4, :32, :32], y, verbose=0)
    with pytest.raises(UsageError, match=message):
        model.generate(y)


def test_fit_takes_labels_of_any_integer_type_and_none_beyond_the_classes(
    build_small, images, labels
):
    model, x = build_small("cgan", side=32, d_steps=1), images[:4, :32, :32]
    model.fit(x, labels[:4].astype("uint8"), verbose=0)
    assert int(model.step) == 1
    for wrong in (2, -1, 2**32):  # the last is 0 as an int32
        with pytest.raises(tf.errors.InvalidArgumentError, match="labels are not from 0 to 1"):
            model.fit(x, np.full(4, wrong), verbose=0)
    assert int(model.step) == 1


@pytest.mark.parametrize("wrong", [-1, 2])
def test_labels_of_no_class_are_refused(model, wrong):
    with pytest.raises(UsageError, match=f"label '{wrong}'.*give 0 to 1"):
        model.generate([0, wrong])


def test_how_many_classes_must_be_said():
    with pytest.raises(UsageError, match=r"classes '0'.*give classes=10"):
        tfgad.build("cgan", (32, 32, 1), width=4)


SMALL = {"width": 4, "latent_dim": 4, "batch_size": 4}


@pytest.mark.slow
def test_a_run_has_the_classes_of_its_data(tmp_path):
    run = training.train("cgan", "digits:7+8", tmp_path, settings={**SMALL, "steps": "2"})
    assert run.model.config.classes == run.config["settings"]["classes"] == 2
    assert (tmp_path / "previews" / "samples-000002.png").is_file()
    again = training.train(
        "cgan", "digits:7+8", tmp_path, resume=True, settings={**SMALL, "steps": 2}
    )
    assert int(again.model.step) == 2


@pytest.mark.slow
def test_a_resumed_run_ends_like_an_uninterrupted_one(tmp_path):
    def trained(folder, *callbacks):
        settings = {**SMALL, "steps": "4"}
        further = {"resume": folder.exists(), "callbacks": lambda stage, steps: callbacks}
        return training.train("cgan", "digits:7+8", folder, settings=settings, **further)

    class Break(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 1:
                self.model.save_weights(tmp_path / "broken" / run_folder.CHECKPOINT)
                raise KeyboardInterrupt

    whole = trained(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "broken", Break())
    resumed = trained(tmp_path / "broken")
    for ours, theirs in zip(whole.model.variables, resumed.model.variables, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    ("spec", "settings", "message"),
    [
        ("weave:twill?size=64&train=4&calibration=4&test=4", {}, "has no classes.*mnist:!2"),
        ("digits:7+8", {"classes": 3}, "classes '3'.*has 2"),
    ],
)
def test_data_without_these_classes_are_refused(tmp_path, spec, settings, message):
    with pytest.raises(UsageError, match=message):
        training.train("cgan", spec, tmp_path / "run", settings=settings)
    assert not (tmp_path / "run").exists()


def test_one_class_is_enough():
    data = load("digits:8")
    model = tfgad.build("cgan", data.image_shape, classes=1, width=4, latent_dim=4)
    batches = tfgad.training_batches(data, model.window, batch_size=4, labelled=True)
    model.fit(batches, steps_per_epoch=1, verbose=0)
    assert np.isfinite(model.anomaly(model.sample(2))["score"]).all()
