import subprocess
import sys

import pytest

import tfgad


def python(program: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)


def test_importing_the_package_imports_no_tensorflow():
    program = "import sys, tfgad, tfgad.errors; print({'tensorflow', 'keras'} & set(sys.modules))"
    run = python(program)
    assert (run.stdout, run.stderr) == ("set()\n", "")


@pytest.mark.integration
def test_the_first_name_that_needs_tensorflow_imports_it_silently():
    run = python("import tfgad; tfgad.build('ganomaly', (24, 24, 1), width=4)")
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")


@pytest.mark.integration
def test_keras_loads_a_model_once_the_methods_are_imported(fitted, tmp_path):
    fitted("wgan_gp").save(tmp_path / "model.keras")
    load = f"keras.saving.load_model({str(tmp_path / 'model.keras')!r})"
    run = python(f"import tfgad.methods, keras; print(type({load}).__name__)")
    assert (run.returncode, run.stdout) == (0, "WGANGP\n")


def test_public_names_can_be_imported():
    for name in tfgad.__all__:
        assert getattr(tfgad, name) is not None
    assert dir(tfgad) == sorted(tfgad.__all__)
    with pytest.raises(AttributeError, match="no attribute 'biuld'"):
        tfgad.biuld  # noqa: B018
