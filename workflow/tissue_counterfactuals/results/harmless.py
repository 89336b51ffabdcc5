"""Text from data and configuration on its way into the report: no label becomes a script, a directive or markup.

Snakemake writes the parameters of jobs, as Python shows them, into a script of the report's page without escaping them,
and renders captions as reStructuredText, whose directives can include files of the machine.
"""

from __future__ import annotations

import re


class Harmless(str):
    """A text that compares, joins and is written as ever, but shows itself without angle brackets (`repr`)."""

    __slots__ = ()

    def __repr__(self) -> str:
        return super().__repr__().replace("<", r"\x3c").replace(">", r"\x3e")

    @property
    def literal(self) -> str:
        """The text as a literal of reStructuredText, for captions: on one line, with nothing that could end it
        early.
        """
        line = " ".join(self.split()).replace("`", "'")
        return f"``{line or '-'}``"

    def __reduce__(self) -> tuple:
        # Scripts get plain text: what they are sent is read before they can import this class.
        return str, (str(self),)

    def __deepcopy__(self, memo: dict) -> Harmless:
        return self


def harmless(value: object) -> object:
    """A copy of nested dicts, lists and tuples in which every text, keys too, is `Harmless`."""
    if isinstance(value, dict):
        return {harmless(key): harmless(child) for key, child in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(harmless(child) for child in value)
    return Harmless(value) if isinstance(value, str) else value


def markdown_line(text: object) -> str:
    """A text from data in Markdown: on one line, with nothing that ends a cell, opens a tag or begins code."""
    return re.sub(r"([\\`<|])", r"\\\1", " ".join(str(text).split()))
