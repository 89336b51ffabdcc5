"""Files of configuration as they are written: what YAML would swallow without a word is told, with its line."""

import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import yaml

from tissue_counterfactuals.errors import InputError

# Keys of a data set whose values are names in the data: there 010 and 1_1 are no numbers, and `no` is no answer.
_LABELS = ("samples", "control_domain", "target_domains", "cell_types", "cell_type", "domain", "sample", "label")


def check_config_files(paths: Iterable[str | Path]) -> None:
    """Refuse files of configuration that would be read as something else than what stands there.

    YAML takes the last of two equal keys, and reads plain 010 as 8, 1_1 as 11, 1.10 as 1.1 and `no` as false.

    Raises:
        InputError: all faults of a file, one sentence a line: not UTF-8, no YAML, a key given twice, a label that YAML
            reads as something else.
    """
    for path in paths:
        if faults := list(dict.fromkeys(_faults(Path(path)))):
            raise InputError("\n".join(f"config file {path}: {fault}" for fault in faults))


def _faults(path: Path) -> Iterator[str]:
    try:
        text = path.read_bytes().decode("utf-8-sig")
        if "\0" in text:
            raise ValueError("it holds the character NUL")
        # Values of YAML, and of JSON, which is a part of it.
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except OSError as error:
        yield f"it cannot be read ({error.strerror}); check the path."
    except ValueError:
        yield "it is not written in UTF-8; save it again with this encoding."
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"line {mark.line + 1}: " if mark else ""
        problem = " ".join(str(getattr(error, "problem", None) or error).split())
        yield f"{place}it is no YAML ({problem}); see that blocks are indented by spaces and texts are quoted."
    else:
        yield from _look(root, (), set())


def _look(node: yaml.Node | None, path: tuple[str, ...], seen: set[int]) -> Iterator[str]:
    # What an anchor names is looked at where it stands: it may be named very often, and inside itself.
    if node is None or id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, yaml.MappingNode):
        lines: dict[str, int] = {}
        for key, value in node.value:
            name = str(key.value)
            line = key.start_mark.line + 1
            # The merge key of YAML may stand more than once.
            if name in lines and name != "<<":
                yield (
                    f"lines {lines[name]} and {line}: the key {'.'.join((*path, name))} is given twice; keep one of "
                    "them."
                )
            lines.setdefault(name, line)
            yield from _look(value, (*path, name), seen)
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            yield from _look(item, path, seen)
    elif path[:1] == ("datasets",) and node.style is None and _holds_labels(path, node):
        read = _read_as(node)
        if read is not None:
            yield (
                f"line {node.start_mark.line + 1}: {'.'.join(path)} holds {node.value}, which YAML reads as {read}; "
                f'put it in quotation marks: "{node.value}".'
            )


def _holds_labels(path: tuple[str, ...], node: yaml.ScalarNode) -> bool:
    """Whether a value below `datasets` is a name in the data."""
    # A further column may hold true and false.
    if path[2:4] == ("questions", "where"):
        return node.value.lower() not in ("true", "false")
    return path[-1] in _LABELS or path[2:3] == ("patients",)


def _read_as(node: yaml.ScalarNode) -> str | None:
    """What YAML makes of a plain label, where that is not what is written; a missing value (null) is none."""
    kind = node.tag.rsplit(":", 1)[-1]
    if kind in ("str", "null") or kind == "int" and re.fullmatch(r"0|-?[1-9][0-9]*", node.value):
        return None
    try:
        value = yaml.safe_load(node.value)
        return f"the {type(value).__name__} {value}"
    except ValueError:
        return f"a faulty {kind}"


if __name__ == "__main__":
    try:
        check_config_files(sys.argv[1:])
    except InputError as error:
        sys.exit(str(error))
