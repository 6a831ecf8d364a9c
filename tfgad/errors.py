"""The error that a user's mistake raises, and other errors in one line."""

import contextlib
import difflib
import sys
from collections.abc import Iterable, Iterator

USAGE_ERROR = 2  # the exit code


class UsageError(ValueError):
    """A wrong argument, option or file, described in one line.

    The command prints the line instead of a traceback, and ends with exit code 2.

    Args:
        argument: the argument, option or file at fault, by its name in the interface.
        value: the value received.
        problem: what is wrong with it.
        hint: what to do instead, in the imperative.
    """

    def __init__(self, argument: str, value: object, problem: str, hint: str):
        self.argument, self.value, self.problem, self.hint = argument, value, problem, hint
        super().__init__(f"{argument} {str(value)!r}: {problem}; {hint}")


@contextlib.contextmanager
def exit_on_usage_error() -> Iterator[None]:
    """Ends a script at a `UsageError`: with its line on standard error, and exit code 2."""
    try:
        yield
    except UsageError as error:
        sys.stderr.write(f"{error}\n")
        raise SystemExit(USAGE_ERROR) from None


def nearest(name: str, known: Iterable[str]) -> str:
    """Returns a hint for an unknown name: the most similar known name, or all of them."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else f"use one of: {', '.join(known)}"


def first_line(error: BaseException) -> str:
    """Returns the first line of an error's message, or its kind if it has none."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def reason_of(error: BaseException) -> str:
    """Returns why a file could not be read or written: the system's words, or `first_line`."""
    return getattr(error, "strerror", None) or first_line(error)
