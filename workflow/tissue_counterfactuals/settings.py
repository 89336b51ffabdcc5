"""Settings as typed classes: what a user may write, its default, its bounds and its meaning, each stated once.

The classes of a room stand in its `settings.py`, which imports nothing slow, because planning a run reads them in every
job. Whoever calls a step from Python meets the same checks: `TissueSettings.read({"n_cells": 5}, "simulation")`.

A check of how values go together is a validator that raises `ValueError(*sentences)`; each sentence goes on where the
path of the key ends: `ValueError(".min_size is 9, above max_size 5; lower it.")`.
"""

import difflib
import json
import math
from collections.abc import Iterable, Iterator
from decimal import Decimal, InvalidOperation
from functools import cache
from typing import Annotated, Any, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)

from tissue_counterfactuals.errors import InputError

# The largest seed that every generator takes (scikit-learn's stop at 32 bits).
LARGEST_SEED = 2**32 - 1

T = TypeVar("T")


def _each_once(values: list) -> list:
    if any(value in values[:place] for place, value in enumerate(values)):
        raise ValueError(f" is {show(values)}; give each value once.")
    return values


# Free keys; an empty block (null in YAML) counts as one without keys, as for `Settings`.
Block = BeforeValidator(lambda values: {} if values is None else values)
# Lists without repeats; `Some` holds at least one value.
Distinct = Annotated[list[T], AfterValidator(_each_once)]
Some = Annotated[list[T], Field(min_length=1), AfterValidator(_each_once)]
Text = Annotated[str, StringConstraints(min_length=1)]
Seed = Annotated[int, Field(ge=0, le=LARGEST_SEED)]
Epochs = Annotated[int, Field(ge=1, le=1_000_000)]
LearningRate = Annotated[float, Field(gt=0, le=100)]
Draws = Annotated[int, Field(ge=1, le=1_000_000)]


class Settings(BaseModel):
    """A block of keys. Unknown keys, text for numbers, NaN and numbers out of bounds are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True)

    @model_validator(mode="before")
    @classmethod
    def _empty_block(cls, values: Any) -> Any:
        """An empty block (null in YAML) counts as one without keys."""
        return {} if values is None else values

    @classmethod
    def read(cls, values: dict, section: str = "", start: str = "") -> Self:
        """Check values and fill in the defaults.

        Args:
            values: what is given, of plain Python types or NumPy scalars.
            section: where in a configuration the values stand; it begins the path of every key.
            start: begins every sentence.
        Raises:
            InputError: all faults, one sentence a line, each with the path of its key.
        """
        if isinstance(values, dict):
            # NumPy's scalars are numbers like others.
            values = {k: v.item() if hasattr(v, "dtype") and v.ndim == 0 else v for k, v in values.items()}
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            # Both forms of a key that takes two have an error; the sentence is the same.
            sentences = [s for e in error.errors() for s in cls._sentences(e, values, section)]
            raise InputError("\n".join(start + s for s in dict.fromkeys(sentences))) from None

    @classmethod
    def _sentences(cls, error: dict, values: object, section: str) -> Iterator[str]:
        """What one error of pydantic says to the user."""
        location, node, value = error["loc"], schema(cls), values
        is_key = location[-1:] == ("[key]",)
        if error["type"] == "extra_forbidden":
            *location, unknown = location
        place: list = [section] if section else []
        for key in location[: -1 if is_key else None]:
            child = _child(cls, node, key)
            if child is None:  # the name of one of several forms
                break
            node, value = child, value[key] if is_in(key, value) else None
            place.append(key)
        path = dotted(place)
        if error["type"] == "extra_forbidden":
            yield _unknown_key(unknown, path, node, cls)
        elif error["type"] == "value_error":
            yield from (f"{path}{sentence}" for sentence in error["ctx"]["error"].args)
        elif error["type"] == "too_short" and not value:
            forms = [follow(form, cls)["type"] for form in node.get("anyOf", [node])]
            wanted = "at least one entry" if "object" in forms else allowed(node, cls)
            yield f"{path} is empty; give {wanted}."
        else:
            yield f"{path} is {show(value)}; allowed is {allowed(node, cls)}{_hint(value, node, cls)}"


# --- the classes in words ---------------------------------------------------------------------------------------


@cache
def schema(settings: type[Settings]) -> dict:
    """The class in the form of JSON Schema 2020-12."""
    return settings.model_json_schema()


def follow(node: dict, settings: type[Settings]) -> dict:
    """A part of the schema of `settings`, its reference to another class resolved."""
    if "$ref" not in node:
        return node
    return schema(settings)["$defs"][node["$ref"].removeprefix("#/$defs/")] | node


def leaves(node: dict, settings: type[Settings], prefix: str = "") -> Iterator[tuple[str, dict]]:
    """Dotted path and schema of every key that holds a value, blocks of keys opened up."""
    for key, child in node.get("properties", {}).items():
        child = follow(child, settings)
        if "properties" in child:
            yield from leaves(child, settings, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", child


def allowed(node: dict, settings: type[Settings]) -> str:
    """What a key may hold, in words."""
    node = follow(node, settings)
    if "anyOf" in node:
        return " or ".join(allowed(form, settings) for form in node["anyOf"])
    if "enum" in node or "const" in node:
        return " or ".join(map(str, node.get("enum", [node.get("const")])))
    kind = node["type"]
    if kind == "array":
        return _allowed_list(node, settings)
    if kind in ("integer", "number"):
        return _allowed_number(node)
    if kind == "string":
        return f"text of the form {node['pattern']}" if "pattern" in node else "text"
    return {"object": "a block of keys", "null": "null", "boolean": "true or false"}[kind]


def _allowed_list(node: dict, settings: type[Settings]) -> str:
    items = allowed(node["items"], settings)
    shortest = node.get("minItems", 0)
    number = f"{shortest} " if shortest > 1 and shortest == node.get("maxItems") else ""
    if " or " in items:
        return f"a list of {number}({items})"
    for one, several in (("a whole number", "whole numbers"), ("a number", "numbers")):
        if items.startswith(one):
            bounds = items.removeprefix(one)
            return f"a list of {number}{several}{', each' * bool(bounds)}{bounds}"
    return f"a list of {number}{items}"


def _allowed_number(node: dict) -> str:
    bounds = [
        ("minimum", "of at least"),
        ("exclusiveMinimum", "above"),
        ("maximum", "up to"),
        ("exclusiveMaximum", "below"),
    ]
    limits = [f"{word} {show(node[bound])}" for bound, word in bounds if bound in node]
    name = "a whole number" if node["type"] == "integer" else "a number"
    return " ".join([name, " and ".join(limits)]).strip()


def show(value: object) -> str:
    """A value as it stands in YAML, shortened."""
    if isinstance(value, float) and math.isfinite(value):
        return f"{Decimal(repr(value)):f}"
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 200 else text[:197] + "..."


def dotted(path: Iterable) -> str:
    """Keys joined by dots, positions in lists in brackets: datasets.mine.methods[1]."""
    parts = [f"[{p}]" if type(p) is int else f".{p}" for p in path]
    return "".join(parts).removeprefix(".")


def is_in(key: object, value: object) -> bool:
    """Whether a block has the key, or a list the position."""
    return (isinstance(value, dict) and key in value) or (
        isinstance(value, list) and type(key) is int and key < len(value)
    )


def _child(settings: type[Settings], node: dict, key: object) -> dict | None:
    """The schema of what a block or list holds under a key; None where it is no key."""
    for form in [node, *node.get("anyOf", [])]:
        form = follow(form, settings)
        if type(key) is int and "items" in form:
            return follow(form["items"], settings)
        if key in form.get("properties", {}):
            return follow(form["properties"][key], settings)
        if isinstance(form.get("additionalProperties"), dict):
            return follow(form["additionalProperties"], settings)
    return None


def _unknown_key(key: str, path: str, node: dict, settings: type[Settings]) -> str:
    here = list(node["properties"])
    # The right name in the wrong place comes before a similar one in this place.
    elsewhere = [p for tree in (node, schema(settings)) for p, _ in leaves(tree, settings)]
    near = [p for p in elsewhere if p.split(".")[-1] == key][:1]
    near = near or difflib.get_close_matches(key, here, n=1)
    meant = f"did you mean {near[0]}?" if near else f"allowed are {', '.join(here)}."
    return f"unknown key {path}{'.' * bool(path)}{key}; {meant}"


def _hint(value: object, node: dict, settings: type[Settings]) -> str:
    """The end of a sentence: the word or number that was probably meant, if there is one."""
    if not isinstance(value, str):
        return "."
    forms = [follow(form, settings) for form in node.get("anyOf", [node])]
    words = [w for form in forms for w in form.get("enum", [form.get("const")]) if w is not None]
    if near := difflib.get_close_matches(value, words, n=1):
        return f"; did you mean {near[0]}?"
    if any(form.get("type") in ("number", "integer") for form in forms):
        try:
            return f"; YAML took it for text, write {Decimal(value):f}."
        except InvalidOperation:
            return "."
    return "."
