"""TensorFlow without its greeting."""

import contextlib
import os
import sys
import tempfile


def import_tensorflow() -> None:
    """Imports TensorFlow, and shows what it says on standard error only if that fails.

    Its C++ core greets there before any logging level holds, so the file descriptor itself is
    turned away meanwhile.
    """
    if "tensorflow" in sys.modules:
        return
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # what goes wrong is raised, too
    with tempfile.TemporaryFile() as said:
        try:
            with _standard_error_to(said):
                import tensorflow  # noqa: F401
        except Exception:
            said.seek(0)
            sys.stderr.write(said.read().decode(errors="replace"))
            raise


@contextlib.contextmanager
def standard_error_withheld():
    """Keeps what compiled libraries say on standard error from the terminal.

    For calls that raise what goes wrong in them.
    """
    with tempfile.TemporaryFile() as said, _standard_error_to(said):
        yield


@contextlib.contextmanager
def _standard_error_to(file):
    sys.stderr.flush()
    kept = os.dup(2)
    os.dup2(file.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
