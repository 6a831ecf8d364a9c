"""The one kind of error that is the user's to hint."""

import difflib
from collections.abc import Iterable


class UsageError(ValueError):
    """A mistake in what the user gave: said in one line, without a traceback.

    The command line prints it and ends with exit code 2.

    Args:
        argument: the argument, option or file at fault, by the name the user knows it by.
        value: what was received.
        problem: what is wrong with it.
        hint: what to do instead, in the imperative.
    """

    def __init__(self, argument: str, value: object, problem: str, hint: str):
        self.argument, self.value, self.problem, self.hint = argument, value, problem, hint
        super().__init__(f"{argument} {str(value)!r}: {problem}; {hint}")


def nearest(name: str, known: Iterable[str]) -> str:
    """Returns the hint for a wrong name: the nearest right one, or all of them."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else f"use one of: {', '.join(known)}"
