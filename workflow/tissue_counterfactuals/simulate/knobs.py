"""Knobs of the simulators, and the one sentence about a knob that is out of its range."""

from numbers import Integral, Real

from tissue_counterfactuals.errors import InputError

# Name of a knob -> kind of number, lowest, highest.
Knobs = dict[str, tuple[type[Integral] | type[Real], float, float]]


def check_knobs(values: dict, knobs: Knobs, section: str) -> None:
    """Refuse values that a simulator cannot take.

    Args:
        values: name -> value.
        section: where a configuration has them.

    Raises:
        InputError: the first value that is no such number, or out of range.
    """
    for name, value in values.items():
        kind, lowest, highest = knobs[name]
        numeric = isinstance(value, kind) and not isinstance(value, bool)
        if not (numeric and lowest <= value <= highest):
            whole = "whole " * (kind is Integral)
            raise InputError(
                f"{section}.{name} is {value!r}: give a {whole}number from {lowest} to {highest}."
            )
