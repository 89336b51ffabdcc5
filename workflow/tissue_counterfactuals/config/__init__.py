"""The configuration: validated against its schema, defaults filled in, every fault told in one sentence."""

import copy
import difflib
import json
import math
import re
from collections.abc import Iterable, Iterator
from decimal import Decimal, InvalidOperation
from functools import cache
from pathlib import Path

import jsonschema
import yaml

from tissue_counterfactuals import protocols
from tissue_counterfactuals.errors import InputError
from tissue_counterfactuals.sources import READERS
from tissue_counterfactuals.sources.downloads.table import download_faults, slides_in_table

SCHEMA_PATH = Path(__file__).resolve().parents[2] / "schemas" / "config.schema.yaml"

# Targets and rules of the workflow: every data set is a target of its own, so it cannot bear one of these names.
RESERVED = (
    *("all", "demo", "table1", "figures", "report", "celcomen"),
    *("download", "download_file", "prepare", "build_graph", "write_folds"),
    *("fit", "predict", "score"),
    *("tabulate", "table_1", "figure_cell_types", "figure_map", "figure_learning_curves"),
    *("celcomen_simulation", "figure_celcomen_2"),
    *("celcomen_recovery", "figure_celcomen_recovery"),
    *("celcomen_spleen", "celcomen_clusters", "figure_celcomen_6", "figure_celcomen_8"),
    *("celcomen_glioblastoma", "celcomen_localization", "celcomen_knockout"),
    *("figure_celcomen_3", "figure_celcomen_7"),
    *(
        "celcomen_perturbmap",
        "celcomen_perturbmap_null",
        "figure_celcomen_4",
        "figure_celcomen_4_null",
    ),
)

# Name of the one slide of a data set that is fitted over all its samples.
POOLED = "pooled"

# Layouts as instruments and tools write them, of whatever tissue: what a cell is must be said beside them.
_BUNDLES = ("xenium", "visium", "spatialdata", "cosmx_flat", "merscope")

# Key of a data set -> the only sources that read it: set for another, it would do nothing.
_ONLY_FOR = {
    "simulation": ("simulated",),
    "field": ("simulated_field",),
    "lesions": ("simulated_lesions",),
    "path": tuple(READERS),
    "files": tuple(READERS),
    "sha256": tuple(name for name, reader in READERS.items() if list(reader.files) == ["h5ad"]),
    "layer": ("h5ad", "spatialdata"),
    "spatial": ("h5ad", "spatialdata"),
    "columns": ("h5ad", *_BUNDLES),
    "unit_um": ("h5ad", *_BUNDLES),
    "labels": _BUNDLES,
}


@cache
def schema() -> dict:
    """The schema of the configuration: a dict in the form of JSON Schema 2020-12."""
    return yaml.safe_load(SCHEMA_PATH.read_text(encoding="utf-8"))


def load_config(raw: dict) -> dict:
    """Validate a configuration and fill in every default.

    `kind`, `label` and `methods` of a data set come back resolved, never null; `samples` as text.

    Args:
        raw: what the YAML file holds; it is not changed.
    Returns:
        A new plain dict with every key of the schema.
    Raises:
        InputError: all faults, one sentence a line, each with the full path of its key.
    """
    if not isinstance(raw, dict):
        raise InputError(f"config: it is {_show(raw)}; give a file with keys at the top level.")
    faults = [
        f"config: the key {_dotted(path)} is not text; put it in quotation marks."
        for path in _keys_not_text(raw)
    ]
    if faults:
        raise InputError("\n".join(faults))
    config = _fill(raw, schema())
    faulty = set()
    for error in _Validator(schema()).iter_errors(config):
        faults += _sentences(error)
        faulty.add(tuple(error.absolute_path)[:2])
    # Further checks look only at what has the right form.
    if not any(path[:1] == ("switches",) for path in faulty):
        config["switches"] = {k: str(v) for k, v in config["switches"].items()}
        faults += _switch_faults(config["switches"])
    if isinstance(config["datasets"], dict):
        for name in [n for n in config["datasets"] if ("datasets", n) not in faulty]:
            dataset = config["datasets"][name]
            faults += _dataset_faults(name, dataset, raw["datasets"][name] or {})
            _resolve(name, dataset, config["methods"])
    faults = faults or download_faults(config)
    if faults:
        raise InputError("\n".join(dict.fromkeys(faults)))
    for dataset in config["datasets"].values():
        if dataset["files"] is not None and dataset["samples"] is None:
            table = config["downloads"]["table"]
            left_out = READERS[dataset["source"]].left_out()
            slides = slides_in_table(dataset["files"], table)
            dataset["samples"] = [name for name in slides if name not in left_out] or None
    return config


def slides_of(name: str, dataset: dict) -> list[str]:
    """Names of the slides of a data set, in the form that paths are made of (see `samples_of`)."""
    return list(samples_of(name, dataset))


def samples_of(name: str, dataset: dict) -> dict[str, list[str] | None]:
    """The slides of a data set: path form of the name -> values of the sample column to keep, None for all.

    A pooled data set is one slide, and so is one that only Celcomen is run on. Otherwise there is one for each sample: those configured, those simulated, or
    those of the file's sample column (read with h5py, without loading the slide); without a sample column, one.

    Args:
        name: the data set's key under `datasets`.
        dataset: its entry in a configuration from `load_config`.
    Raises:
        InputError: the samples cannot be known beforehand, are not there, or share a path form.
    """
    if dataset["fit"] == POOLED or "cellina" not in dataset["experiments"]:
        return {POOLED: dataset["samples"]}
    if dataset["source"] == "simulated":
        present = [f"slide_{i}" for i in range(dataset["simulation"]["n_slides"])]
    elif dataset["source"] == "simulated_field":
        present = [f"sample_{i}" for i in range(dataset["field"]["n_samples"])]
    elif dataset["source"] == "simulated_lesions":
        present = [f"KP_{i + 1}" for i in range(dataset["lesions"]["n_sections"])]
    elif dataset["source"] == "h5ad" and dataset["columns"]["sample"] is None:
        return {slug(name): None}
    elif dataset["path"] is None or is_url(dataset["path"]):
        if dataset["samples"] is None:
            raise InputError(
                f"config: datasets.{name}.samples is missing; list the samples to use, because those of a file "
                "that is still to be downloaded are not known (or set fit to pooled)."
            )
        present = dataset["samples"]
    else:
        reader = READERS[dataset["source"]]
        present = reader.adapter.samples(reader.locate(dataset["path"]), dataset)
    wanted = present if dataset["samples"] is None else dataset["samples"]
    for sample in wanted:
        if sample not in present:
            raise InputError(
                f"config: datasets.{name}.samples names {sample!r}, which no cell has; the samples are "
                f"{', '.join(present)}."
            )
    paths = slugs(wanted, f"config: datasets.{name}: the samples")
    return {path: [label] for path, label in paths.items()}


def slug(text: str) -> str:
    """The form of a name that paths are made of: letters, digits, `_`, `.` and `-`; anything else becomes `_`."""
    cleaned = re.sub(r"[^A-Za-z0-9_.-]+", "_", str(text))
    return re.sub(r"^\.+", "_", cleaned) or "_"


def slugs(labels: Iterable[str], what: str) -> dict[str, str]:
    """Path form -> label for several names; `what` begins the message ("slide x: the cell types").

    Raises:
        InputError: two labels have the same path form.
    """
    mapping: dict[str, str] = {}
    for label in labels:
        other = mapping.setdefault(slug(label), label)
        if other != label:
            raise InputError(
                f"{what} {other!r} and {label!r} would both be called {slug(label)!r} in file names; rename one "
                "of them."
            )
    return mapping


def is_url(path: str) -> bool:
    """Whether a path is an address to download from."""
    return path.startswith(("http://", "https://"))


def describe() -> str:
    """All keys as Markdown tables (key, allowed, default, meaning), made from the schema."""
    sections = [("At the top level", "", schema())]
    sections.append(("For each data set", "datasets.NAME.", schema()["$defs"]["dataset"]))
    lines = []
    for title, prefix, node in sections:
        lines += [f"## {title}", "", "| key | allowed | default | meaning |", "|---|---|---|---|"]
        for path, key in _leaves(node):
            default = f"`{_show(key['default'])}`"
            cells = (f"`{prefix}{path}`", _allowed(key), default, key["description"])
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
        lines.append("")
    return "\n".join(lines)


# --- defaults ---------------------------------------------------------------------------------------------------


def _fill(value: object, node: dict) -> object:
    """A copy with the defaults of the schema; an empty block (null in YAML) counts as one without keys."""
    node = _follow(node)
    if node.get("type") != "object":
        return copy.deepcopy(value)
    if value is None:
        value = {}
    if not isinstance(value, dict):
        return value
    properties = node.get("properties", {})
    filled = {
        key: _fill(value[key] if key in value else child["default"], child)
        for key, child in properties.items()
    }
    rest = node.get("additionalProperties")
    for key in value:
        if key not in properties:
            filled[key] = _fill(value[key], rest) if isinstance(rest, dict) else value[key]
    return filled


def _resolve(name: str, dataset: dict, methods: list[str]) -> None:
    if dataset["kind"] is None:
        dataset["kind"] = "real" if dataset["source"] in READERS else "simulated"
    if dataset["label"] is None:
        dataset["label"] = name
    if dataset["methods"] is None:
        dataset["methods"] = copy.deepcopy(methods)
    if dataset["samples"] is not None:
        dataset["samples"] = [str(sample) for sample in dataset["samples"]]


# --- faults -----------------------------------------------------------------------------------------------------

# NaN passes every comparison of a range, so it must not count as a number.
_Validator = jsonschema.validators.extend(
    jsonschema.Draft202012Validator,
    type_checker=jsonschema.Draft202012Validator.TYPE_CHECKER.redefine(
        "number",
        lambda checker, value: (
            isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        ),
    ).redefine("integer", lambda checker, value: type(value) is int),
)


def _keys_not_text(value: object, path: tuple = ()) -> Iterator[tuple]:
    if isinstance(value, dict):
        for key, child in value.items():
            if not isinstance(key, str):
                yield (*path, key)
            yield from _keys_not_text(child, (*path, key))


def _sentences(error: jsonschema.ValidationError) -> list[str]:
    """What one error of the validator says to the user; unknown keys give a sentence each."""
    path, node, value = _dotted(error.absolute_path), error.schema, error.instance
    if error.validator == "additionalProperties":
        unknown = [key for key in value if key not in node["properties"]]
        return [_unknown_key(key, path, node) for key in unknown]
    if "propertyNames" in error.absolute_schema_path:
        return [
            f"config: {path}.{value} cannot name a data set; use letters, digits, _ and - only."
        ]
    if error.validator == "minProperties":
        return [f"config: {path} is empty; name at least one data set."]
    if error.validator == "minItems":
        return [f"config: {path} is empty; give {_allowed(node)}."]
    if error.validator == "uniqueItems":
        return [f"config: {path} is {_show(value)}; give each value once."]
    return [f"config: {path} is {_show(value)}; allowed is {_allowed(node)}{_hint(value, node)}"]


def _unknown_key(key: str, path: str, node: dict) -> str:
    here = list(node["properties"])
    # The right name in the wrong place comes before a similar one in this place.
    elsewhere = [p for tree in (node, schema()) for p, _ in _leaves(tree)]
    near = [p for p in elsewhere if p.split(".")[-1] == key][:1]
    near = near or difflib.get_close_matches(key, here, n=1)
    meant = f"did you mean {near[0]}?" if near else f"allowed are {', '.join(here)}."
    return f"config: unknown key {path}{'.' * bool(path)}{key}; {meant}"


def _hint(value: object, node: dict) -> str:
    """The end of a sentence: the word or number that was probably meant, if there is one."""
    if not isinstance(value, str):
        return "."
    words = [w for form in _forms(node) for w in form.get("enum", []) if w is not None]
    if near := difflib.get_close_matches(value, words, n=1):
        return f"; did you mean {near[0]}?"
    if any(form.get("type") in ("number", "integer") for form in _forms(node)):
        try:
            return f"; YAML took it for text, write {Decimal(value):f}."
        except InvalidOperation:
            return "."
    return "."


def _switch_faults(switches: dict[str, str]) -> list[str]:
    faults = []
    for name, value in switches.items():
        try:
            protocols.resolve("corrected", {name: value})
        except InputError as error:
            faults.append(str(error))
    return faults


def _dataset_faults(name: str, dataset: dict, given: dict) -> list[str]:
    """Faults in how the keys of one data set go together; `given` is the entry before defaults were filled in."""
    where = f"config: datasets.{name}"
    source, control = dataset["source"], dataset["control_domain"]
    faults = []
    if name in RESERVED:
        faults.append(f"{where} has the name of a target or rule; give it another name.")
    for key, sources in _ONLY_FOR.items():
        if source not in sources and given.get(key) is not None:
            faults.append(
                f"{where}.{key} is set, but is not read when source is {source}; remove it, or set source to "
                f"{sources[0]}{' or another that reads it' * (len(sources) > 1)}."
            )
    if source not in READERS and dataset["kind"] not in (None, "simulated"):
        faults.append(
            f"{where}.kind is {dataset['kind']}, but source is {source}; say simulated or leave it out."
        )
    if source in READERS:
        faults += _path_faults(where, dataset)
    if dataset["labels"] is not None and not Path(dataset["labels"]).is_file():
        faults.append(
            f"{where}.labels: there is no file {dataset['labels']!r}; paths count from {Path.cwd()}."
        )
    if source == "h5ad" and dataset["samples"] and dataset["columns"]["sample"] is None:
        faults.append(
            f"{where}.samples is set, but columns.sample is not; name the column they are in."
        )
    if "cellina" not in dataset["experiments"]:
        return faults
    if control is None:
        faults.append(
            f"{where}.control_domain is missing; name the domain that cells are taken from."
        )
    if not dataset["target_domains"]:
        faults.append(
            f"{where}.target_domains is missing; name the domains that cells are put into."
        )
    if control is not None and control in dataset["target_domains"]:
        faults.append(f"{where}.target_domains holds the control domain {control!r}; take it out.")
    return faults


def _path_faults(where: str, dataset: dict) -> list[str]:
    """Faults in where the files of a data set come from."""
    source, path = dataset["source"], dataset["path"]
    single = len([role for role, needed in READERS[source].files.items() if needed]) == 1
    if path is None and dataset["files"] is None:
        return [
            f"{where}.path is missing; name the {'file or its http(s) address' if single else 'folder'} (source "
            f"{source} reads {READERS[source].description}), or a data set of resources/datasets.tsv under files."
        ]
    if path is None:
        return []
    if dataset["files"] is not None:
        return [f"{where}.files is set, and so is path; keep the one that names the data."]
    if "://" in path and not is_url(path):
        return [f"{where}.path is {path!r}; allowed are files and http:// or https:// addresses."]
    if is_url(path) and not single:
        return [
            f"{where}.path is an address, but source {source} reads several files; fetch them into a folder and "
            "name the folder."
        ]
    if not is_url(path) and not Path(path).exists():
        return [f"{where}.path: there is no file {path!r}; paths count from {Path.cwd()}."]
    return []


# --- the schema in words ----------------------------------------------------------------------------------------


def _follow(node: dict) -> dict:
    if "$ref" not in node:
        return node
    return schema()["$defs"][node["$ref"].removeprefix("#/$defs/")]


def _leaves(node: dict, prefix: str = "") -> Iterator[tuple[str, dict]]:
    """Dotted path and schema of every key that holds a value, blocks of keys opened up."""
    for key, child in node["properties"].items():
        if "properties" in child:
            yield from _leaves(child, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", child


def _forms(node: dict) -> list[dict]:
    return [_follow(form) for form in node.get("anyOf", [node])]


def _allowed(node: dict) -> str:
    """What a key may hold, in words."""
    node = _follow(node)
    if "anyOf" in node:
        return " or ".join(_allowed(form) for form in node["anyOf"])
    if "enum" in node:
        return " or ".join("null" if word is None else str(word) for word in node["enum"])
    types = node["type"] if isinstance(node["type"], list) else [node["type"]]
    return " or ".join(_allowed_type(kind, node) for kind in types)


def _allowed_type(kind: str, node: dict) -> str:
    if kind == "array":
        items = _allowed(node["items"])
        return f"a list of ({items})" if " or " in items else f"a list of {items}"
    if kind == "string":
        return f"text of the form {node['pattern']}" if "pattern" in node else "text"
    if kind == "object":
        return "a block of keys"
    if kind == "null":
        return "null"
    bounds = [
        ("minimum", "of at least"),
        ("exclusiveMinimum", "above"),
        ("maximum", "up to"),
        ("exclusiveMaximum", "below"),
    ]
    limits = [f"{word} {_show(node[bound])}" for bound, word in bounds if bound in node]
    name = "a whole number" if kind == "integer" else "a number"
    return " ".join([name, " and ".join(limits)]).strip()


def _show(value: object) -> str:
    """A value as it stands in YAML, shortened."""
    if isinstance(value, float) and math.isfinite(value):
        return f"{Decimal(repr(value)):f}"
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 200 else text[:197] + "..."


def _dotted(path: Iterable) -> str:
    """Keys joined by dots, positions in lists in brackets: datasets.mine.methods[1]."""
    parts = [f"[{p}]" if type(p) is int else f".{p}" for p in path]
    return "".join(parts).removeprefix(".")
