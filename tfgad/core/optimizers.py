"""The optimizers that a user gives a model of several roles."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

import keras

from tfgad.errors import UsageError


def one_per_role(
    given: Mapping[str, keras.Optimizer | str], roles: tuple[str, ...]
) -> dict[str, keras.Optimizer]:
    """Returns one optimizer per role, made from its name where a name is given.

    Args:
        given: optimizers, or their names in Keras, by role.
        roles: those of the model.

    Raises:
        UsageError: not exactly one optimizer for each role, or one for several roles.
    """
    hint = f"give one per role: {', '.join(roles)}"
    for role in roles:
        if role not in given:
            found = ", ".join(map(str, given)) or "none"
            raise UsageError("optimizers", found, f"lack one for {role}", hint)
    optimizers: dict[str, keras.Optimizer] = {}
    for role, each in given.items():
        if role not in roles:
            raise UsageError("optimizers", role, "is no role", hint)
        optimizer = each
        if isinstance(each, str):
            with contextlib.suppress(ValueError, TypeError):  # of a name that Keras does not know
                optimizer = keras.optimizers.get(each)
        if not isinstance(optimizer, keras.Optimizer):
            hint = "give an object such as keras.optimizers.Adam(), or its name"
            raise UsageError(f"optimizer of {role}", each, "is no optimizer of Keras", hint)
        for other, taken in optimizers.items():
            if optimizer is taken:
                problem = f"is that of {other} too"
                raise UsageError(
                    f"optimizer of {role}", type(each).__name__, problem, "make one for each"
                )
        optimizers[role] = optimizer
    return {role: optimizers[role] for role in roles}
