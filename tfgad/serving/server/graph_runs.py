"""Runs of a model's graph: their order, and their errors."""

from __future__ import annotations

import contextlib
import logging
import os
import re
from collections.abc import Iterator

import tensorflow as tf

from tfgad.serving.errors import ServingError
from tfgad.serving.server.limits import Turns

# TensorFlow puts lines about the node before its message, and names of node and function after it.
BEFORE_MESSAGE = re.compile(r"\AGraph execution error:.*?<stack traces unavailable>\n", re.S)
AFTER_MESSAGE = re.compile(r"\s*\[\[\{\{node [^\n]*|\s*\[Op:\w+\]")
CODES = {
    getattr(tf.errors, name): name
    for name in dir(tf.errors)
    if name.isupper() and isinstance(getattr(tf.errors, name), int)
}
# Codes of a graph's errors that the request causes; the model causes the others.
REQUEST_ERRORS = ("INVALID_ARGUMENT", "OUT_OF_RANGE", "FAILED_PRECONDITION", "UNIMPLEMENTED")
# All signatures of all versions share these turns, as they share TensorFlow's threads: more
# concurrent runs than cores end no sooner, and each holds memory. At least two, so that a short run
# need not wait for a long one.
RUNS = Turns(max(2, os.cpu_count() or 1))

log = logging.getLogger(__name__)


@contextlib.contextmanager
def graph_run() -> Iterator[None]:
    """Waits for a turn to run a graph, and holds it while the context is open.

    Raises:
        ServingError: the graph raised an error.
    """
    with graph_errors(), RUNS.taken():
        yield


@contextlib.contextmanager
def graph_errors() -> Iterator[None]:
    """Turns TensorFlow's errors into `ServingError`, without the parts about nodes and Python.

    Raises:
        ServingError: TensorFlow raised an error.
    """
    try:
        yield
    except tf.errors.OpError as error:
        code = CODES.get(error.error_code, "UNKNOWN")
        message = BEFORE_MESSAGE.sub("", error.message)
        message = AFTER_MESSAGE.sub("", message).strip()
        if code not in REQUEST_ERRORS:
            log.error("a model failed: %s", error.message)
        raise ServingError(code, message) from error
