"""Perturb-map (GSE193460): four Visium sections with lesions, as GEO ships them, each file with its section's
prefix.
"""

import re
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tissue_counterfactuals.errors import InputError
from tissue_counterfactuals.sources.folders import visible
from tissue_counterfactuals.sources.headers import count_cells

if TYPE_CHECKING:
    from anndata import AnnData

    from tissue_counterfactuals.sources.bundles import Sample

# Label of the spots that the authors left without one: neither lesion nor periphery.
NORMAL = "normal"

_ROLES = {
    "matrix": r"filtered_feature_bc_matrix\.h5",
    "positions": r"tissue_positions_list\.csv(\.gz)?",
    "scalefactors": r"scalefactors_json\.json(\.gz)?",
    "annotation": r"spot_annotation\.csv(\.gz)?",
    "off_tissue": r"off_tissue\.csv(\.gz)?",
}

cells = partial(count_cells, role="matrix")


def locate(folder: Path) -> dict[str, Path]:
    """The files of each section, known by their names: GSM5808054_KP_1_spot_annotation.csv.gz.

    Raises:
        InputError: two could be the same file of a section.
    """
    files = {}
    for path in visible((p for p in folder.rglob("*") if p.is_file()), folder):
        for role, name in _ROLES.items():
            if found := re.fullmatch(rf"(?:GSM\d+_)?(\w+?)_{name}", path.name):
                key = f"{found[1]}/{role}"
                if key in files:
                    raise InputError(
                        f"folder {folder}: {files[key].name} and {path.name} are both the {role} of {found[1]}; "
                        "remove one."
                    )
                files[key] = path
    return files


def read(files: dict[str, Path], dataset: dict, samples: list[str] | None) -> "AnnData":
    """Read sections into a slide: domain is the label of the lesion, cell type the authors' tumour or normal.

    Spots listed as off tissue are dropped, then all that the annotation does not know. The authors of Celcomen join
    the annotation by position; here it is joined by barcode, and the provenance says if that made a difference.

    Raises:
        InputError: a file is not whole, two do not belong together, or the data break the contract.
    """
    from tissue_counterfactuals.sources.bundles import read_bundles

    return read_bundles(
        files,
        # What the layout says about labels and pixels is fixed.
        dataset | {"columns": {}, "labels": None, "unit_um": None},
        samples,
        _read_section,
        constants={"cell_type": "spot", "domain": NORMAL},
        prefix=True,
    )


def _read_section(files: dict[str, Path], dataset: dict) -> "Sample":
    from tissue_counterfactuals.sources import bundles
    from tissue_counterfactuals.sources.spots import read_spots
    from tissue_counterfactuals.sources.text_tables import column_names, read_table

    sample = read_spots(files, dataset)
    _drop_off_tissue(sample, files["off_tissue"])

    path = files["annotation"]
    optional = tuple(name for name in ("kmeans",) if name in column_names(path))
    table = read_table(path, texts=("barcode", "phenotypes", *optional)).set_index("barcode")
    notes: list[str] = []
    table, found = bundles.join(sample.cells.index, table, files["matrix"], path, notes)
    by_position = " (joined by position, as the authors of Celcomen do, labels would be mixed up)"
    sample.notes += [line + by_position * ("another order" in line) for line in notes]
    sample.keep_cells(found, "spots that are annotated")
    table = table[found]
    # Most spots have no phenotype (NA), and that is what normal tissue is.
    sample.cells["domain"] = bundles.tidy_column(table["phenotypes"], "phenotypes", sample.notes).fillna(NORMAL)
    if optional:
        kind = bundles.tidy_column(table["kmeans"], "kmeans", sample.notes)
        sample.cells["cell_type"] = kind.fillna("unclassified")
    return sample


def _drop_off_tissue(sample: "Sample", path: Path) -> None:
    """Drop the barcodes that the authors list, with or without a header line."""
    from tissue_counterfactuals.sources.text_tables import column_names, read_table

    first = column_names(path)
    header = None if not _is_barcode(first[0]) else tuple(str(i) for i in range(len(first)))
    name = first[0] if header is None else header[0]
    listed = read_table(path, texts=(name,), names=header)[name]
    off = sample.cells.index.isin(listed)
    if len(listed) and not off.any():
        raise InputError(
            f"file {path}: none of its {len(listed)} barcodes ({listed.iloc[0]!r}, ...) is a spot of the matrix "
            f"({sample.cells.index[0]!r}, ...); use the two files of the same section."
        )
    sample.keep_cells(~off, "spots not listed as off tissue")


def _is_barcode(text: str) -> bool:
    return re.fullmatch(r"[ACGT]{16}(-\d+)?", text) is not None
