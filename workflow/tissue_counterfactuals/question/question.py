"""The question as a file: all that a method is asked, made once, read by fit, predict, score and the map.

An npz of arrays and one JSON text, read with NumPy alone. It holds no counts: the slide it belongs to lies beside it
and is known by a fingerprint. What it says can so be answered in any interpreter.

    record    JSON: fold, protocol, seed, switches, graph settings, fingerprint, and the list of perturbations
    split     (n,) uint8: 0 trains, 1 validates, 2 is held out
    focal     (m,) cells to move: the held-out type in the control domain
    genes     (k,) of the slide's genes, in which the question is asked; absent: all
    array_0.. of the perturbations, in the order of the list: each has kind, target and rule, and names its array or the
              reason why there is none. Kind `donors` is (m, d): the cells around each focal cell afterwards. Kind
              `node` is (types, genes of the question): the change of the logarithm of what neighbours express, by their
              type in the order of the slide's categories; the neighbours themselves stay. It has a scale and an origin
              (`NodePerturbation`) and, where not all cells are altered, names the array of those that are. Kind `own`
              is (k,): genes of the question that are taken out of the focal cells themselves.
"""

import hashlib
import json
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from anndata import AnnData
from scipy import sparse

from tissue_counterfactuals.errors import InputError
from tissue_counterfactuals.files import atomic_path, remove
from tissue_counterfactuals.question.donors import edge_perturbation
from tissue_counterfactuals.question.folds import Fold, Split, split_cells
from tissue_counterfactuals.question.nodes import (
    SHIFTS,
    NodePerturbation,
    altered_cells,
    pseudobulk_shift,
)

FORMAT = 2
DONORS, NODE, OWN = "donors", "node", "own"
_TRAIN, _VALIDATION, _HELD_OUT = 0, 1, 2


@dataclass(frozen=True)
class Question:
    """One leave-one-cell-type-out question about a slide of n cells.

    Attributes:
        fold, split: who is held out, who trains and validates.
        focal: (m,) indices of the cells to move.
        perturbations: (kind, target, rule) -> array of donors or `NodePerturbation`, or the sentence why there is none.
        protocol, switches: the protocol's name, and the values of the switches that methods and donors follow.
        graph: bandwidth_um, max_neighbors, cutoff of the neighbourhood graph.
        seed: reaches every draw of a method.
        fingerprint: of the slide, see `fingerprint`.
        genes: (k,) indices of the genes in which the question is asked; None: all.
    """

    fold: Fold
    split: Split
    focal: np.ndarray
    perturbations: dict[tuple[str, str, str], np.ndarray | NodePerturbation | str]
    protocol: str
    seed: int
    switches: dict[str, str] = field(default_factory=dict)
    graph: dict[str, float] = field(default_factory=dict)
    fingerprint: str = ""
    genes: np.ndarray | None = None

    def donors(self, target: str) -> dict[str, np.ndarray | str]:
        """Donor rule -> donors (m, d), or why there are none, in the order in which the rules were asked for."""
        return self._of_kind(DONORS, target)

    def nodes(self, target: str) -> dict[str, NodePerturbation | str]:
        """Name -> what neighbours express afterwards, or why that cannot be said."""
        return self._of_kind(NODE, target)

    def knock_outs(self, target: str) -> dict[str, np.ndarray]:
        """Name -> genes (k,) that are taken out of the focal cells themselves."""
        return self._of_kind(OWN, target)

    def _of_kind(self, kind: str, target: str) -> dict:
        return {
            rule: value for (own, where, rule), value in self.perturbations.items() if (own, where) == (kind, target)
        }

    def check(self, slide: AnnData, name: str) -> None:
        """Refuse a slide that this question was not asked about.

        Raises:
            InputError: another slide.
        """
        if fingerprint(slide) != self.fingerprint:
            raise InputError(
                f"question {name}: it was asked about another slide (cells, genes, labels or places differ); delete "
                "it, and the next run asks again."
            )


def ask(
    slide: AnnData,
    graph: sparse.csr_array,
    fold: Fold,
    protocol: str,
    seed: int,
    switches: dict[str, str],
    graph_settings: dict[str, float],
    donor_rules: tuple[str, ...],
    n_donors: int,
    validation_fraction: float,
    genes: np.ndarray | None = None,
    node: dict | None = None,
) -> Question:
    """The question of a fold: its split and its donors are drawn here, once, and all methods read the same.

    A user's question (`asked`) and two experiments (`trust`, `cellina_in_vivo`) choose donors by rules of their own.

    Args:
        graph: (n, n) graph of all cells under `graph_settings`; it says who stands around the held-out cells.
        donor_rules, n_donors: of the edge perturbation; a rule that finds too few donors leaves its reason.
        node: of the node perturbation, keys of `NodeSettings`; None asks for none.
    """
    split = split_cells(slide, fold, seed, validation_fraction)
    focal = fold.cells(slide, fold.control)
    perturbations = {}
    for target in fold.targets:
        for rule in donor_rules:
            try:
                found = edge_perturbation(
                    slide,
                    graph,
                    split,
                    fold.cell_type,
                    target,
                    focal,
                    rule,
                    restrict_to_domain=switches["donor_domain"] == "target_only",
                    n_donors=n_donors,
                    seed=seed,
                    fold=fold,
                ).donors
            except InputError as error:
                found = str(error)
            perturbations[DONORS, target, rule] = found
        for name in (node or {}).get("shifts", ()):
            perturbations[NODE, target, name] = _node(
                slide if genes is None else slide[:, genes], graph, split, fold, target, focal, name, node, seed
            )  # fmt: skip
    return Question(
        fold,
        split,
        focal,
        perturbations,
        protocol,
        seed,
        switches,
        graph_settings,
        fingerprint(slide),
        genes,
    )


def _node(slide, graph, split, fold, target, focal, name, told, seed) -> NodePerturbation | str:
    """The pseudobulk change of neighbours from the control to the target domain."""
    origin = {"towards": target, "n_genes": told["n_genes"], "by_type": SHIFTS[name]}
    if told["cells"] == "neighbors":
        origin["share_of_neighbors"] = told["share"]
    try:
        shift = pseudobulk_shift(
            *(slide, fold.control, target, split.held_out, fold.cell_type),
            *(told["n_genes"], SHIFTS[name]),
        )
    except InputError as error:
        return str(error)
    cells = altered_cells(told["cells"], told["share"], seed, graph, focal)
    return NodePerturbation(shift, cells, told["scale"], origin)


def fingerprint(slide: AnnData) -> str:
    """SHA-256 of what a question refers to: names of cells and genes, labels and places; no counts."""
    digest = hashlib.sha256()
    for names in (slide.obs_names, slide.var_names):
        digest.update("\0".join(names).encode())
        digest.update(b"\1")
    for label in ("cell_type", "domain", "sample"):
        digest.update("\0".join(map(str, slide.obs[label].cat.categories)).encode())
        digest.update(slide.obs[label].cat.codes.to_numpy().astype("<i4").tobytes())
    digest.update(np.ascontiguousarray(slide.obsm["spatial"], dtype="<f8").tobytes())
    return digest.hexdigest()


def write_question(question: Question, path: str | Path) -> None:
    """Write a question; the file appears whole or not at all, and the same question gives the same bytes."""
    code = np.full(len(question.split.train), _TRAIN, dtype=np.uint8)
    code[question.split.validation] = _VALIDATION
    code[question.split.held_out] = _HELD_OUT
    arrays, listed = {"split": code, "focal": _compact(question.focal)}, []
    for (kind, target, rule), value in question.perturbations.items():
        entry = {"kind": kind, "target": target, "rule": rule}
        if isinstance(value, str):
            listed.append(entry | {"reason": value})
            continue
        entry["array"] = f"array_{len(listed)}"
        if isinstance(value, NodePerturbation):
            entry |= {"scale": value.scale, "origin": value.origin}
            if value.cells is not None:
                entry["cells"] = f"cells_{len(listed)}"
                arrays[entry["cells"]] = _compact(value.cells)
            value = value.shift
        arrays[entry["array"]] = _compact(value)
        listed.append(entry)
    record = {
        "format": FORMAT,
        "cell_type": question.fold.cell_type,
        "control": question.fold.control,
        "targets": question.fold.targets,
        "protocol": question.protocol,
        "seed": question.seed,
        "switches": question.switches,
        "graph": question.graph,
        "fingerprint": question.fingerprint,
        "perturbations": listed,
    }
    if question.fold.patient:
        record |= {"patient": question.fold.patient, "samples": question.fold.samples}
    if question.genes is not None:
        arrays["genes"] = _compact(question.genes)
    arrays["record"] = np.frombuffer(json.dumps(record).encode(), dtype=np.uint8)
    with atomic_path(path) as temporary:
        np.savez_compressed(temporary, **arrays)


def read_question(path: str | Path) -> Question:
    """Read a question.

    Raises:
        InputError: there is no such file, or it is damaged; a damaged file is removed, so that the next run makes it.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"question {path}: there is no such file; check the path.")
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        record = json.loads(arrays["record"].tobytes())
        version = record["format"]
        if version == FORMAT:
            return _assemble(record, arrays)
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile, zipfile.zlib.error) as error:
        remove(path)
        raise InputError(
            f"question {path}: it was damaged ({error}) and is now removed: run again, and it is made anew."
        ) from None
    raise InputError(
        f"question {path}: it is of format {version}, and this version reads format {FORMAT}: delete it and run again."
    )


def _assemble(record: dict, arrays: dict[str, np.ndarray]) -> Question:
    code = arrays["split"]
    perturbations = {
        (entry["kind"], entry["target"], entry["rule"]): _perturbation(entry, arrays)
        for entry in record["perturbations"]
    }
    return Question(
        Fold(
            *(record["cell_type"], record["control"], tuple(record["targets"])),
            *(record.get("patient", ""), tuple(record.get("samples", ()))),
        ),
        Split(code == _TRAIN, code == _VALIDATION, code == _HELD_OUT),
        arrays["focal"],
        perturbations,
        **{key: record[key] for key in ("protocol", "seed", "switches", "graph", "fingerprint")},
        genes=arrays.get("genes"),
    )


def _perturbation(entry: dict, arrays: dict) -> np.ndarray | NodePerturbation | str:
    if "reason" in entry:
        return entry["reason"]
    array = arrays[entry["array"]]
    if entry["kind"] != NODE:
        return array
    cells = arrays[entry["cells"]] if "cells" in entry else None
    return NodePerturbation(array, cells, entry["scale"], entry["origin"])


def _compact(array: np.ndarray) -> np.ndarray:
    """Indices of cells as int32; other numbers as they are."""
    return array.astype(np.int32) if array.dtype.kind == "i" else array
