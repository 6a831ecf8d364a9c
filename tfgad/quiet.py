"""TensorFlow without its messages on standard error."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator
from typing import IO


def import_tensorflow() -> None:
    """Imports TensorFlow; what it prints to standard error is shown only if the import fails.

    Its C++ core prints before any logging level takes effect. Therefore the file descriptor itself
    is redirected during the import.
    """
    if "tensorflow" in sys.modules:
        return
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # errors are raised anyway
    with tempfile.TemporaryFile() as output:
        try:
            with _standard_error_to(output):
                import tensorflow  # noqa: F401
        except Exception:
            output.seek(0)
            sys.stderr.write(output.read().decode(errors="replace"))
            raise


@contextlib.contextmanager
def silent_standard_error() -> Iterator[None]:
    """Context manager that discards what compiled libraries print to standard error.

    Only for calls that raise their errors.
    """
    with tempfile.TemporaryFile() as output, _standard_error_to(output):
        yield


@contextlib.contextmanager
def _standard_error_to(file: IO[bytes]) -> Iterator[None]:
    sys.stderr.flush()
    saved = os.dup(2)
    os.dup2(file.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
