"""Features of the processor: oneDNN for TensorFlow, and native bfloat16."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

from tfgad.errors import UsageError

logger = logging.getLogger(__name__)

ONEDNN = "TF_ENABLE_ONEDNN_OPTS"
LIMITS = "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"  # limit the instructions that oneDNN uses
CPU_INFO = Path("/proc/cpuinfo")
NATIVE = {"avx512_bf16", "amx_bf16", "bf16"}  # the last is ARM's
# Values of LIMITS with which oneDNN has no bfloat16, and those with which it emulates it.
WITHOUT_BFLOAT16 = "SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX2_VNNI_2"
EMULATED_BFLOAT16 = "AVX512_CORE", "AVX512_CORE_VNNI"
# Flags by which TensorFlow assumes that oneDNN supports bfloat16, whatever LIMITS are
# (`IsBF16SupportedByOneDNNOnThisCPU` in its source).
ASSUMED_BFLOAT16 = {"avx512f", "avx_ne_convert"}


def ask_for_onednn() -> None:
    """Makes TensorFlow use oneDNN, unless the user has set `TF_ENABLE_ONEDNN_OPTS`.

    By default TensorFlow for Linux uses it only on processors with VNNI, bfloat16 or AMX. On two
    cores with AVX2 and none of these, oneDNN raised the training of GANomaly from 380 to 765 images
    per second, that of WGAN-GP from 495 to 1,015, and the scoring of tiles from 24 to 52.

    TensorFlow reads the variable when it is imported. If it has been imported with oneDNN off, one
    line is logged.
    """
    if ONEDNN in os.environ:
        return
    if "tensorflow" not in sys.modules:
        os.environ[ONEDNN] = "1"
    elif not _onednn_is_on():
        logger.warning(
            "TensorFlow was imported before tfgad and has oneDNN off: training and scoring take "
            "about twice as long; import tfgad first, or set %s=1",
            ONEDNN,
        )


def _onednn_is_on() -> bool:
    """Returns whether the imported TensorFlow uses oneDNN; True also if it was built without."""
    if sys.platform == "darwin":
        return True
    try:
        from tensorflow.python.util._pywrap_util_port import IsMklEnabled
    except ImportError:  # there is no public function for it
        return True
    return IsMklEnabled()


def has_bfloat16() -> bool | None:
    """Returns whether this processor has native bfloat16 that oneDNN may use.

    Returns:
        False if bfloat16 is emulated; None if that is unknown, as on systems without
        `/proc/cpuinfo`.
    """
    if _user_has_onednn_off() or _limit()[1] in (*WITHOUT_BFLOAT16, *EMULATED_BFLOAT16):
        return False
    flags = _flags()
    return not NATIVE.isdisjoint(flags) if flags else None


def check_bfloat16() -> None:
    """Checks the processor for training in bfloat16; logs one line if it may be slow.

    A training step of GANomaly on 32x32 windows took 0.5 s in float32 and 6.4 s in bfloat16 with
    oneDNN off; 0.13 s and 0.12 s with oneDNN and native bfloat16.

    Raises:
        UsageError: an environment variable limits oneDNN to instructions without bfloat16, on a
            processor for which TensorFlow does not expect it. A convolution would raise an error,
            a matrix product would end in a segmentation fault.
    """
    name, limit = _limit()
    if limit in WITHOUT_BFLOAT16 and not _user_has_onednn_off() and ASSUMED_BFLOAT16 & _flags():
        hint = f"give float32, or unset {name}"
        raise UsageError("precision", "bfloat16", f"is not available with {name}={limit}", hint)
    native = has_bfloat16()
    if native is None:
        logger.warning(
            "it is unknown whether this processor has native bfloat16; if not, training takes many "
            "times as long as with precision=float32"
        )
    elif not native:
        logger.warning(
            "this processor only emulates bfloat16: training takes many times as long as with "
            "precision=float32"
        )


def _user_has_onednn_off() -> bool:
    return os.environ.get(ONEDNN, "").lower() in ("0", "false")


def _limit() -> tuple[str, str]:
    """Returns the variable that limits oneDNN and its value, both empty if none is set."""
    for name in LIMITS:
        if os.environ.get(name):
            return name, os.environ[name].upper()
    return "", ""


def _flags() -> set[str]:
    """Returns the features of the first processor in `/proc/cpuinfo`, or an empty set."""
    try:
        lines = CPU_INFO.read_text(errors="replace").splitlines()
    except OSError:
        return set()
    for line in lines:
        name, _, flags = line.partition(":")
        if name.strip() in ("flags", "Features"):  # of x86, of ARM
            return set(flags.split())
    return set()
