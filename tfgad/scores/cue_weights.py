"""The setting `cue_weights`: the weights of the terms of `cues` and `places`, by name.

`features:2,tone:0` counts the features twice and turns the tone off; what is not named has 1, and
`equal` names none. The weights of the errors count against each other: their mean is scaled by its
own peak, so 2 for all of them is 1. That of the tone counts against the errors together.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from tfgad.errors import UsageError

SETTING, EQUAL = "cue_weights", "equal"
TONE = "tone"  # the last term of both scores
LARGEST = 1000  # beyond all use: no weight is infinite in float32


def names_of(terms: Sequence[Sequence[str]]) -> list[str]:
    """Returns the name of each term, a group of errors: `features` of `features_0`, ..."""
    return [re.sub(r"_\d+$", "", term[0]) for term in terms]


def checked(text: str) -> str:
    """Returns a text that `parse` takes."""
    parse(text)
    return text


def parse(text: str) -> dict[str, float]:
    """Returns the weights that a text names.

    Raises:
        UsageError: another form, a name twice, or a weight that is negative or no finite number.
    """
    weights: dict[str, float] = {}
    for pair in () if text == EQUAL else text.split(","):
        name, _, number = (part.strip() for part in pair.partition(":"))
        try:
            weight = float(number)
        except ValueError:
            hint = "give names and weights, such as features:2,tone:0"
            raise UsageError(SETTING, text, "is not of the form NAME:NUMBER,...", hint) from None
        if not 0 <= weight <= LARGEST:
            hint = f"give a number up to {LARGEST}; 0 turns the term off"
            raise UsageError(SETTING, text, f"{number} is not in [0, {LARGEST}]", hint)
        if name in weights:
            raise UsageError(SETTING, text, f"names {name} twice", "name it once")
        weights[name] = weight
    return weights


def weights_of(text: str, terms: Sequence[str]) -> list[float]:
    """Returns the weights of terms, in their order.

    Raises:
        UsageError: a text that `parse` refuses, that names another term or turns all of them off.
    """
    given, known = parse(text), ", ".join(terms)
    for name in given:
        if name not in terms:
            problem = f"{name!r} is no term of the model's score"
            raise UsageError(SETTING, text, problem, f"use some of: {known}")
    weights = [given.get(name, 1.0) for name in terms]
    if not any(weights):
        raise UsageError(SETTING, text, "turns all terms off", f"leave on one of: {known}")
    return weights
