"""The mutants of a module: its source with one thing changed, by the operators of mutmut.

mutmut itself changes neither decorated functions nor constants and bodies of classes, which here are the compiled
kernels, most of the metrics, all settings and the tables of switches and methods. So its operators are applied to the
whole module. Left alone is what no test should pin: annotations, messages, decorators, texts for readers.
"""

import ast
import re
from dataclasses import dataclass

import libcst as cst
from libcst.metadata import ByteSpanPositionProvider, MetadataWrapper, PositionProvider
from mutmut.mutation.mutators import mutation_operators

_NOT_MUTATED = (cst.Annotation, cst.Decorator, cst.Raise, cst.Import, cst.ImportFrom, cst.Assert)
_MESSAGES = {"print", "report", "warn", "print_exc"}
# Words that a program reads: names of columns, keys, values of switches. Sentences are for readers.
_WORD = re.compile(r"""^[a-z]?["'][\w.\-]+["']$""")


@dataclass(frozen=True)
class Mutant:
    """`number` is its place among all mutants of the module; `lines` are those of the changed expression."""

    number: int
    lines: tuple[int, int]
    source: str


class _Collector(cst.CSTVisitor):
    METADATA_DEPENDENCIES = (PositionProvider, ByteSpanPositionProvider)

    def __init__(self):
        self.found = []

    def on_visit(self, node: cst.CSTNode) -> bool:
        if isinstance(node, _NOT_MUTATED) or _is_message(node) or _is_docstring(node):
            return False
        place = self.get_metadata(PositionProvider, node, None)
        if place is not None and not (isinstance(node, cst.SimpleString) and not _WORD.match(node.value)):
            for kind, operator in mutation_operators:
                if isinstance(node, kind):
                    changed = list(operator(node))
                    # Of a word's three changes one is enough.
                    changed = changed[:1] if isinstance(node, cst.SimpleString) else changed
                    span = self.get_metadata(ByteSpanPositionProvider, node)
                    lines = place.start.line, place.end.line
                    self.found += [(span, _code(new), lines) for new in changed]
        return True


def _is_message(node: cst.CSTNode) -> bool:
    if not isinstance(node, cst.Call):
        return False
    name = node.func.attr if isinstance(node.func, cst.Attribute) else node.func
    return isinstance(name, cst.Name) and name.value in _MESSAGES


def _is_docstring(node: cst.CSTNode) -> bool:
    return isinstance(node, cst.Expr) and isinstance(node.value, cst.SimpleString | cst.ConcatenatedString)


def _code(node: cst.CSTNode) -> bytes:
    return cst.Module([]).code_for_node(node).strip().encode()


def mutants_of(source: str) -> list[Mutant]:
    """All mutants of a module that Python can read, in the order of the source."""
    wrapper = MetadataWrapper(cst.parse_module(source), unsafe_skip_copy=True)
    collector = _Collector()
    wrapper.visit(collector)
    text, mutants, seen = source.encode(), [], {source}
    for span, code, lines in collector.found:
        end = span.start + span.length
        changed = (text[: span.start] + code + text[end:]).decode()
        try:
            ast.parse(changed)
        except SyntaxError:
            continue
        if changed not in seen:
            seen.add(changed)
            mutants.append(Mutant(len(mutants), lines, changed))
    return mutants
