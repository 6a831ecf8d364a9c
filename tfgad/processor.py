"""What the processor computes quickly: oneDNN for TensorFlow, and whether it has bfloat16."""

import logging
import os
import sys
from pathlib import Path

from tfgad.errors import UsageError

logger = logging.getLogger(__name__)

ONEDNN = "TF_ENABLE_ONEDNN_OPTS"
LIMITS = "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"  # of the instructions that oneDNN may use
CPU_INFO = Path("/proc/cpuinfo")
NATIVE = {"avx512_bf16", "amx_bf16", "bf16"}  # the last is ARM's
# Values of LIMITS that leave oneDNN without bfloat16, and those by which it emulates it.
NONE_LEFT = "SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX2_VNNI_2"
EMULATED = "AVX512_CORE", "AVX512_CORE_VNNI"
# Of processors with one of these TensorFlow believes that oneDNN takes bfloat16, whatever LIMITS
# say (`IsBF16SupportedByOneDNNOnThisCPU` in its source).
BELIEVED = {"avx512f", "avx_ne_convert"}


def ask_for_onednn() -> None:
    """Has TensorFlow use oneDNN, unless the user has set `TF_ENABLE_ONEDNN_OPTS`.

    By itself TensorFlow for Linux does so only where the processor has VNNI, bfloat16 or AMX
    instructions. On two cores with AVX2 alone oneDNN took a GANomaly from 380 to 765 images per
    second, a WGAN-GP from 495 to 1,015, the scoring of tiles from 24 to 52 per second.

    TensorFlow reads the variable when it is imported. Where that has been, and oneDNN is off, one
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
    """Whether the imported TensorFlow uses oneDNN; True also where it was built without."""
    if sys.platform == "darwin":
        return True
    try:
        from tensorflow.python.util._pywrap_util_port import IsMklEnabled
    except ImportError:  # no public name says it
        return True
    return IsMklEnabled()


def has_bfloat16() -> bool | None:
    """Whether this processor computes bfloat16 by itself, as far as oneDNN may use it.

    Returns:
        False where it only emulates bfloat16; None where that is not known, as on systems without
        `/proc/cpuinfo`.
    """
    if _user_has_onednn_off() or _limit()[1] in (*NONE_LEFT, *EMULATED):
        return False
    flags = _flags()
    return not NATIVE.isdisjoint(flags) if flags else None


def check_bfloat16() -> None:
    """Logs one line if this processor may only emulate bfloat16, for who has asked for it.

    A GANomaly of 32x32 windows took 0.5 s per step in float32 and 6.4 s in bfloat16 with oneDNN
    off; with it and native bfloat16, 0.13 s and 0.12 s.

    Raises:
        UsageError: the user keeps oneDNN from what TensorFlow relies on. A convolution would raise
            an error, a matrix product end in a segmentation fault.
    """
    name, limit = _limit()
    if limit in NONE_LEFT and not _user_has_onednn_off() and BELIEVED & _flags():
        hint = f"give float32, or unset {name}"
        raise UsageError("precision", "bfloat16", f"cannot be had with {name}={limit}", hint)
    native = has_bfloat16()
    if native is None:
        logger.warning(
            "whether this processor has bfloat16 is not known; where it is emulated, training "
            "takes many times as long as with precision=float32"
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
    """Returns what `/proc/cpuinfo` says the first processor can do; nothing if that is not told."""
    try:
        lines = CPU_INFO.read_text(errors="replace").splitlines()
    except OSError:
        return set()
    for line in lines:
        name, _, flags = line.partition(":")
        if name.strip() in ("flags", "Features"):  # of x86, of ARM
            return set(flags.split())
    return set()
