"""Files that hold no model of this project."""

import keras
import pytest

from tfgad.errors import UsageError
from tfgad.training import load_model


@pytest.mark.parametrize("content", [b"", b"no model", b"PK\x05\x06" + bytes(18)])
def test_what_is_no_model_is_not_loaded(tmp_path, content):
    path = tmp_path / "model.keras"
    with pytest.raises(UsageError, match="is not there"):
        load_model(path)
    with pytest.raises(UsageError, match="is not a run"):
        load_model(tmp_path)
    path.write_bytes(content)
    with pytest.raises(UsageError, match="is no model that can be read") as error:
        load_model(path)
    assert "\n" not in str(error.value)


class Unregistered(keras.layers.Layer):
    """What a loaded model does not know."""


@pytest.mark.parametrize(
    ("layer", "answer"),
    [(keras.layers.Flatten, "is a Sequential, no detector"), (Unregistered, "can be read")],
)
def test_a_model_of_another_program_is_not_loaded(tmp_path, monkeypatch, layer, answer):
    path = tmp_path / "model.keras"
    keras.Sequential([keras.Input((2,)), layer()]).save(path)
    monkeypatch.setattr(f"{__name__}.Unregistered", None)
    with pytest.raises(UsageError, match=answer):
        load_model(path)
