"""Resources of the operating system: open files, and memory of the C library."""

from __future__ import annotations

import contextlib
import ctypes

from tfgad.serving.server.limits import Limits

try:
    import resource
except ImportError:  # Windows has no such module
    resource = None  # type: ignore[assignment]

# File descriptors that the process asks for, and those reserved for other uses than REST
# connections: the page's pictures, files of models that are being loaded, gRPC's own.
MAX_OPEN_FILES, OTHER_FILES = 2**16, 192


def raise_open_files(wanted: int = MAX_OPEN_FILES) -> int | None:
    """Raises the limit of open files as far as the system allows.

    Each connection takes a file descriptor, and the usual limit is 1,024.

    Args:
        wanted: the limit to set if it is allowed.

    Returns:
        The limit now; None if there is none, or it is unknown.
    """
    if resource is None:
        return None
    now, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    better = wanted if most == resource.RLIM_INFINITY else min(wanted, most)
    if now != resource.RLIM_INFINITY and now < better:
        with contextlib.suppress(OSError, ValueError):  # the real limit of macOS is lower
            resource.setrlimit(resource.RLIMIT_NOFILE, (better, most))
            now = better
    return None if now == resource.RLIM_INFINITY else now


def max_connections(limits: Limits, files: int | None) -> int:
    """Returns the possible connections of each interface for a limit of open files."""
    if files is None:
        return limits.max_connections
    return max(1, min(limits.max_connections, (files - OTHER_FILES) // 2))


def release_memory() -> None:
    """Returns freed memory to the system; glibc would keep it."""
    with contextlib.suppress(AttributeError, OSError, TypeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)
