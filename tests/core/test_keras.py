"""Methods are Keras models: `fit`, `predict`, `summary` and callbacks work as on any other."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfgad
from tfgad.errors import UsageError


@pytest.fixture
def windows(images):
    return images[:8, :32, :32]


def datasets(windows, labels):
    """The forms in which images come to `fit`."""
    images = tf.data.Dataset.from_tensor_slices(windows).batch(4)
    pairs = tf.data.Dataset.from_tensor_slices((windows, labels[:8])).batch(4)
    return {"images": images, "(images,)": images.map(lambda x: (x,)), "(images, labels)": pairs}


@pytest.mark.slow
@pytest.mark.parametrize("form", ["array", "images", "(images,)", "(images, labels)"])
def test_fit_takes_arrays_and_datasets(build_small, windows, labels, form):
    model = build_small("ganomaly", side=32)
    if form == "array":
        history = model.fit(windows, batch_size=4, verbose=0)
    else:
        history = model.fit(datasets(windows, labels)[form], verbose=0)
    assert int(model.step) == 2
    assert all(np.isfinite(losses).all() for losses in history.history.values())


@pytest.mark.slow
def test_arrays_and_datasets_train_alike(build_small, windows, labels):
    weights = []
    for form in ("images", "(images, labels)", None):
        model = build_small("ganomaly", side=32)
        if form:
            model.fit(datasets(windows, labels)[form], verbose=0)
        else:
            model.fit(windows, batch_size=4, shuffle=False, verbose=0)
        weights.append(model.encoder.get_weights())
    for others in weights[1:]:
        for ours, theirs in zip(weights[0], others, strict=True):
            np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_a_labelled_method_is_fitted_to_arrays_of_both(build_small, windows, labels):
    model = build_small("cgan", side=32)
    model.fit(windows, labels[:8], batch_size=8, verbose=0)
    assert int(model.step) == 1
    with pytest.raises(UsageError, match=r"labels 'None'.*fit on \(images, labels\)"):
        model.fit(windows, batch_size=8, verbose=0)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda x: np.round((x + 1) * 127.5).astype("uint8"), "images 'uint8'.*127.5"),
        (lambda x: x[:, :24], "do not have the window's shape.*training_batches"),
    ],
    ids=["uint8", "shape"],
)
def test_fit_refuses_images_of_another_form(build_small, windows, spoil, message):
    with pytest.raises(UsageError, match=message):
        build_small("ganomaly", side=32).fit(spoil(windows), batch_size=4, verbose=0)


def test_fit_refuses_grey_levels_that_were_never_scaled(build_small, windows):
    model = build_small("ganomaly", side=32)
    before = model.encoder.get_weights()
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"divide 8-bit images by 127\.5"):
        model.fit((windows + 1) * 127.5, batch_size=4, verbose=0)
    for ours, theirs in zip(before, model.encoder.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_scoring_refuses_grey_levels_that_were_never_scaled(fitted, windows):
    with pytest.raises(UsageError, match=r"is beyond \[-1, 1\].*divide"):
        fitted("ganomaly", 32).anomaly((windows + 1) * 127.5)


@pytest.mark.slow
def test_before_adapt_a_model_scores_by_its_paper_and_logs_it(build_small, windows, caplog):
    model = build_small("ganomaly", side=32)
    expected = model.anomaly(windows, "latent")["score"]
    assert np.ptp(expected) > 0
    for answer in (model.predict(windows, verbose=0), model(windows), model.anomaly(windows)):
        np.testing.assert_allclose(answer["score"], expected, rtol=1e-4)
    assert "scores by latent: call `adapt`" in caplog.text

    model.adapt(tf.data.Dataset.from_tensor_slices(windows), len(windows))
    density = model.anomaly(windows, "density")["score"]
    np.testing.assert_allclose(model.predict(windows, verbose=0)["score"], density, rtol=1e-4)


@pytest.mark.parametrize(
    ("spoil", "error", "message"),
    [
        (lambda x: ((x + 1) * 127.5).astype("uint8"), UsageError, "uint8.*127"),
        (lambda x: x[:, :24], UsageError, "smaller than the window"),
        (lambda x: (x + 1) * 127.5, tf.errors.InvalidArgumentError, "divide 8-bit images"),
        (lambda x: x * np.nan, tf.errors.InvalidArgumentError, "divide 8-bit images"),
    ],
    ids=["uint8", "small", "grey levels", "nan"],
)
def test_predict_refuses_what_it_cannot_score(fitted, windows, spoil, error, message):
    model = fitted("wgan_gp")
    with pytest.raises(error, match=message):
        model.predict(spoil(windows), verbose=0)
    with pytest.raises(error, match=message):
        model(spoil(windows))


@pytest.mark.slow
def test_datasets_of_other_floats_and_unknown_shapes_train(build_small, windows):
    def unknown():
        yield from (windows[:4], windows[4:])

    model = build_small("ganomaly", side=32)
    spec = tf.TensorSpec([None, None, None, 1], tf.float32)
    model.fit(tf.data.Dataset.from_generator(unknown, output_signature=spec), verbose=0)
    model.fit(tf.data.Dataset.from_tensor_slices(windows.astype("float64")).batch(4), verbose=0)
    assert int(model.step) == 4


def test_validation_data_and_a_single_optimizer_are_refused(build_small, windows):
    model = build_small("ganomaly", side=32)
    with pytest.raises(UsageError, match="has no loss on held-out images"):
        model.evaluate(windows, verbose=0)
    with pytest.raises(UsageError, match="one per role: generator, critic"):
        model.compile("adam")


OPTIMIZERS = {
    "none": ({}, "'none': lack one for generator; give one per role: generator, critic"),
    "one role": ({"critic": "adam"}, "'critic': lack one for generator"),
    "a role too many": (dict.fromkeys(("generator", "critic", "other"), "sgd"), "'other': is no"),
    "a name": ({"generator": "adan", "critic": "adam"}, "of generator 'adan': is no optimizer"),
    "a class": (
        {"generator": "adam", "critic": keras.optimizers.Adam},
        r"of critic .*is no optimizer of Keras; give .*Adam\(\)",
    ),
    "one object": (
        dict.fromkeys(("generator", "critic"), keras.optimizers.Adam()),
        "of critic 'Adam': is that of generator too",
    ),
}


@pytest.mark.parametrize("form", OPTIMIZERS)
def test_compile_asks_for_an_optimizer_of_its_own_for_each_role(build_small, form):
    optimizers, message = OPTIMIZERS[form]
    with pytest.raises(UsageError, match=message):
        build_small("ganomaly", side=32).compile(optimizers)


def test_compile_takes_the_names_of_optimizers(build_small, windows):
    model = build_small("ganomaly", side=32)
    model.compile({"critic": "sgd", "generator": keras.optimizers.Adam(1e-3)})
    model.fit(windows, batch_size=4, verbose=0)
    assert {role: type(each).__name__ for role, each in model.optimizer_by_role.items()} == {
        "critic": "SGD",
        "generator": "Adam",
    }


def test_a_model_that_is_not_compiled_is_saved_and_loaded_so(build_small, tmp_path):
    model = build_small("ganomaly", side=32)
    model.save(tmp_path / "compiled.keras")
    loaded = keras.saving.load_model(tmp_path / "compiled.keras", compile=False)
    loaded.save(tmp_path / "model.keras")
    type(model).from_config(model.get_config()).save(tmp_path / "first.keras")
    for name in ("model.keras", "first.keras"):
        again = tfgad.load_model(tmp_path / name)
        assert again.optimizer_by_role == {}
        assert not again.compiled
    again.compile()
    assert set(again.optimizer_by_role) == {"generator", "critic"}
    for ours, theirs in zip(model.encoder.get_weights(), loaded.encoder.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.slow
@pytest.mark.parametrize(("method", "side"), [("ganomaly", 32), ("fanogan", 48), ("wgan_gp", 32)])
def test_calling_and_predicting_is_scoring(fitted, images, method, side):
    model, x = fitted(method, side), images[:5, :side, :side]
    expected = model.anomaly(x)
    answers = [
        model(x),
        model.predict(x, batch_size=2, verbose=0),
        model.predict(tf.data.Dataset.from_tensor_slices(x).batch(3), verbose=0),
        model.predict(tf.data.Dataset.from_tensor_slices((x, x[:, 0])).batch(5), verbose=0),
    ]
    for answer in answers:
        assert answer.keys() == {"score", "map"}
        np.testing.assert_allclose(answer["score"], expected["score"], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(answer["map"], expected["map"], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("method", ["vae", "wgan_gp"])
def test_adapt_and_calibrate_take_arrays_as_they_take_datasets(build_small, windows, method):
    pairs = tf.data.Dataset.from_tensor_slices((windows.astype("float64"), np.arange(8)))
    unknown = tf.data.Dataset.from_tensor_slices(windows).filter(lambda x: True)
    thresholds = []
    for normals, size in ((windows, None), (pairs, None), (unknown, len(windows))):
        model = build_small(method, side=32)
        model.adapt(normals, size)
        thresholds.append(model.calibrate(normals, 0.1).value)
    assert thresholds == [pytest.approx(thresholds[0], rel=1e-5)] * 3


NORMALS = {
    "grey levels": (lambda x: (x + 1) * 127.5, r"beyond \[-1, 1\]; divide"),
    "uint8": (lambda x: x.astype("uint8"), "images 'uint8'.*divide"),
    "none": (lambda x: x[:0], "images '0': are none"),
    "batches": (lambda x: tf.data.Dataset.from_tensors(x), r"shape of one image.*`unbatch\(\)`"),
    "dicts": (
        lambda x: tf.data.Dataset.from_tensor_slices({"image": x}),
        r"'dict of image'.*each\['image'\]",
    ),
    "a name": (lambda x: None, "images 'NoneType': is not an array"),
}


@pytest.mark.parametrize("form", NORMALS)
def test_adapt_and_calibrate_refuse_what_anomaly_refuses(build_small, windows, form):
    spoil, message = NORMALS[form]
    model = build_small("wgan_gp", side=32)
    with pytest.raises(UsageError, match=message):
        model.adapt(spoil(windows))
    with pytest.raises(UsageError, match=message):
        model.calibrate(spoil(windows), 0.1)


def test_adapt_asks_for_a_size_that_no_one_knows(build_small, windows):
    unknown = tf.data.Dataset.from_tensor_slices(windows).filter(lambda x: True)
    with pytest.raises(UsageError, match=r"size 'None'.*how many images"):
        build_small("wgan_gp", side=32).adapt(unknown)


def test_endless_datasets_and_other_sizes_than_theirs_are_refused(build_small, windows):
    model, images = build_small("wgan_gp", side=32), tf.data.Dataset.from_tensor_slices(windows)
    for use in (model.adapt, lambda endless: model.calibrate(endless, 0.1)):
        with pytest.raises(UsageError, match=r"is endless; leave out `repeat\(\)`"):
            use(images.repeat())
    with pytest.raises(UsageError, match=f"size '4': is not the size of the .* is {len(windows)}"):
        model.adapt(images, size=4)


def test_datasets_of_dicts_are_refused_with_the_way_out(build_small, windows, labels):
    model = build_small("ganomaly", side=32)
    data = tf.data.Dataset.from_tensor_slices({"image": windows, "label": labels[:8]}).batch(4)
    message = r"images 'dict of image, label': is not an array.*each\['image'\]"
    for use in (model.fit, model.predict):
        with pytest.raises(UsageError, match=message):
            use(data, verbose=0)
    with pytest.raises(UsageError, match="'dict of image'"):
        model({"image": windows})
    with pytest.raises(UsageError, match=r"Dataset': is not an array.*to `predict`"):
        model.anomaly(data)


@pytest.mark.parametrize(("method", "side"), [("ganomaly", 48), ("wgan_gp", 32)])
def test_keras_exports_the_scores(fitted, images, tmp_path, method, side):
    model, x = fitted(method, side), images[:3, :side, :side]
    model.export(tmp_path / "exported", verbose=False)
    exported = tf.saved_model.load(tmp_path / "exported")
    answer, expected = exported.serve(x), model(x)
    for name in ("score", "map"):
        np.testing.assert_allclose(answer[name], expected[name], rtol=1e-5, atol=1e-6)


def test_a_file_that_keras_could_not_load_is_not_written(fitted, tmp_path):
    with pytest.raises(UsageError, match=r"model\.h5'.*give a name such as model\.keras"):
        fitted("ganomaly").save(tmp_path / "model.h5")
    assert not list(tmp_path.iterdir())


def test_the_summary_names_the_networks(fitted):
    lines = []
    fitted("fanogan").summary(print_fn=lines.append)
    text = "\n".join(lines)
    for name in ("generator", "critic", "encoder", "Total params"):
        assert name in text


def test_a_callback_of_the_user_s_is_called(build_small, windows):
    losses = []
    callback = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda step, logs: losses.append(logs["contextual"])
    )
    build_small("ganomaly", side=32).fit(windows, batch_size=4, callbacks=[callback], verbose=0)
    assert len(losses) == 2
    assert np.isfinite(losses).all()
