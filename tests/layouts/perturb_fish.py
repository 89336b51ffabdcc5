"""Perturb-FISH, the tables of the tumour: three tables of all cells without header, joined by row, and parts without
ids.

Traps: guides 7, 30 and 68 fire at random, guides after 74 are not used; cells with several guides, T cells with one, a
target with a single cell; the parts name no cell; two cells have the same counts, which neither part holds.
"""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
from anndata import AnnData

from layouts import edit, kinds
from layouts.tissue import Tissue, make_tissue
from tissue_counterfactuals.sources.perturb_fish import CONTROL, MASK_ROWS, N_GUIDES, TARGETS

N_CELLS, N_GENES, N_T = 400, 500, 60
# Neighbours of the published section lie 99 pixels apart.
SPACING_PX = 99.0
COUNTS, PLACES, GUIDES = "merfishcounttable.csv", "coordinates.csv", "allcellsPerturbationTable.csv"
TUMOUR, TUMOUR_GUIDES = "tumorMerfish.csv", "tumorpooledperturbations.csv"
T_CELLS = "perturbed_tcells_merfish.csv"
SEVERAL, GUIDED_T, LONE, TWINS = (5, 6, 7), (20, 21), 30, (50, 51)


def write(folder: Path, seed: int = 0, mask_rows: int = MASK_ROWS) -> Tissue:
    """Write the six tables into `folder`. What a reader must give back: cells are numbered from 1, `domain` is
    theirs.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    tissue = make_tissue(N_CELLS, N_GENES, seed)
    tissue.cells = [str(i + 1) for i in range(N_CELLS)]
    is_t = np.zeros(N_CELLS, bool)
    is_t[[*GUIDED_T, *rng.choice(np.arange(60, N_CELLS), N_T - 2, replace=False)]] = True
    profile = rng.exponential(0.4, (2, N_GENES))
    tissue.counts = rng.poisson(profile[is_t.astype(int)])
    tissue.counts[TWINS[1]] = tissue.counts[TWINS[0]]
    tissue.cell_type = np.where(is_t, "T cells", "cancer")
    pixels = tissue.places_um / 10 * SPACING_PX + 100.25
    _write_cells(folder, tissue, pixels, rng, mask_rows)

    guides = np.zeros((N_CELLS, N_GUIDES), int)
    target = np.full(N_CELLS, "", dtype=object)
    # Clones: three neighbours in a row carry one guide, every second clone that of a control.
    for number, first in enumerate(range(60, N_CELLS - 3, 9)):
        members = [i for i in range(first, first + 3) if not is_t[i]]
        place = 8 + number % 4 if number % 4 else 71
        guides[members, place if place < 70 else 70 + number // 4 % 4] = 1
        target[members] = TARGETS[place // 2] if place < 70 else CONTROL
    guides[list(SEVERAL), 0] = guides[list(SEVERAL), 10] = 1
    guides[list(GUIDED_T), 71] = 1
    target[list(GUIDED_T)] = CONTROL
    guides[LONE, 2 * TARGETS.index("MAP2K4")] = 1
    target[LONE] = "MAP2K4"
    noise = rng.random(N_CELLS) < 0.3
    for column in (7, 30, 68, 75, 77):
        guides[noise, column - 1] = 1
    _write_parts(folder, tissue, guides, target, is_t)

    touched = (target != "") & ~is_t
    distance = np.linalg.norm(pixels[:, None] - pixels[touched][None], axis=2).min(axis=1) * 0.108
    tissue.domain = np.where(np.where(is_t, distance <= 57.9, touched), "perturbed", "control")
    tissue.target = target
    tissue.places_um = pixels * 0.108
    kept = ~np.isin(np.arange(N_CELLS), SEVERAL)
    tissue.kept = kept & (tissue.counts.sum(axis=1) > 40)
    return tissue


def write_screen(folder: Path, slide: AnnData, targets: tuple[str, ...]) -> None:
    """Write a simulated screen of 500 genes in the same tables, its lost genes under the names of `targets`."""
    folder.mkdir(parents=True, exist_ok=True)
    obs, rng = slide.obs, np.random.default_rng(0)
    counts = slide.X.toarray().astype(int)
    cells = [str(i + 1) for i in range(slide.n_obs)]
    is_t = (obs["cell_type"] == "T cells").to_numpy()
    tissue = SimpleNamespace(counts=counts, cells=cells, genes=list(slide.var_names))
    _write_cells(folder, tissue, slide.obsm["spatial"] / 0.108 + 100.25, rng, MASK_ROWS)
    number = {f"KO{i + 1}": name for i, name in enumerate(targets)} | {CONTROL: CONTROL, "": ""}
    target = obs["target_raw"].astype(str).map(number).to_numpy()
    guide = obs["guide_raw"].astype(str).str.rsplit("_", n=1).str[-1].replace("", "1").astype(int)
    guides = np.zeros((len(cells), N_GUIDES), int)
    first = [70 if t == CONTROL else 2 * TARGETS.index(t) if t else 0 for t in target]
    called = np.flatnonzero(target != "")
    guides[called, (first + guide.to_numpy() - 1)[called]] = 1
    _write_parts(folder, tissue, guides, target, is_t)


def _write_cells(folder: Path, tissue, pixels: np.ndarray, rng, mask_rows: int) -> None:
    area = rng.integers(8000, 16_000, len(pixels))
    centroid = pixels[:, 1] + (pixels[:, 0] - 1) * mask_rows
    blanks = rng.poisson(0.02, (len(pixels), 50))
    table = pd.DataFrame(np.column_stack([tissue.counts, blanks]))
    table.insert(0, "centroid", [repr(float(c)) for c in centroid])
    table.insert(0, "area", area)
    table.insert(0, "number", tissue.cells)
    table.to_csv(folder / COUNTS, header=False, index=False)
    pd.DataFrame([[repr(float(v)) for v in row] for row in pixels]).to_csv(folder / PLACES, header=False, index=False)


def _write_parts(folder: Path, tissue, guides: np.ndarray, target: np.ndarray, is_t: np.ndarray) -> None:
    """The table of guides, and the authors' parts of the cells."""
    pd.DataFrame(guides).to_csv(folder / GUIDES, header=False, index=False)
    carriers = np.flatnonzero((target != "") & ~is_t)
    _write_part(folder / TUMOUR, tissue, carriers, tissue.genes)
    _write_guides(folder / TUMOUR_GUIDES, target[carriers])
    _write_part(folder / T_CELLS, tissue, np.flatnonzero(is_t), tissue.genes[3:116])


def _write_part(path: Path, tissue: Tissue, cells: np.ndarray, genes: list[str]) -> None:
    columns = [tissue.genes.index(gene) for gene in genes]
    pd.DataFrame(tissue.counts[cells][:, columns], columns=genes).to_csv(path, index=False)


def _write_guides(path: Path, targets: np.ndarray) -> None:
    names = (*TARGETS, CONTROL)
    table = pd.DataFrame({f"Cell_{i + 1}": [int(t == n) for n in names] for i, t in enumerate(targets)})
    table.insert(0, "Var1", names)
    table.to_csv(path, index=False)


def entry(folder: Path) -> dict:
    """Keys of the configuration that read what `write` wrote."""
    return {"source": "perturb_fish", "path": str(folder)}


FILES = (COUNTS, PLACES, GUIDES, TUMOUR, TUMOUR_GUIDES, T_CELLS)


def _change(file: str, change, header: bool = True):
    return lambda folder: edit.edit_csv(folder / file, change, header)


def _set(row: int, column: int, value: str):
    def change(table: pd.DataFrame) -> pd.DataFrame:
        table.iloc[row, column] = value
        return table

    return change


def _same_counts(folder: Path) -> None:
    """The first cell gets the counts of the first T cell."""
    part = pd.read_csv(folder / T_CELLS)
    edit.edit_csv(folder / COUNTS, lambda t: _copied(t, part), header=False)


def _copied(table: pd.DataFrame, part: pd.DataFrame) -> pd.DataFrame:
    columns = list(range(6, 119))
    found = (table[columns].astype(int).to_numpy() == part.iloc[0].to_numpy()).all(axis=1).argmax()
    table.iloc[0, columns] = table.iloc[found, columns].to_numpy()
    return table


def _overlaid(folder: Path) -> None:
    """Every second cell where the one before is, in both tables that say so."""
    for file, columns in ((COUNTS, [2]), (PLACES, [0, 1])):

        def change(table, columns=columns):
            table.iloc[1::2, columns] = table.iloc[::2, columns].to_numpy()
            return table

        edit.edit_csv(folder / file, change, header=False)


def _enlarged(folder: Path) -> None:
    """Places in units of a ninth of a pixel; the mask is as much larger."""
    edit.scale_columns(folder / PLACES, [0, 1], 9, header=False)
    places = pd.read_csv(folder / PLACES, header=None).to_numpy()

    def change(table):
        table[2] = [repr(float(y + (x - 1) * 9 * MASK_ROWS)) for x, y in places]
        return table

    edit.edit_csv(folder / COUNTS, change, header=False)


def _logs(table: pd.DataFrame) -> pd.DataFrame:
    table[list(range(3, 503))] = np.log1p(table[list(range(3, 503))].astype(float)).astype(str)
    return table


FAULTS = {
    "wrong gene ids": lambda f: [
        edit.edit_csv(f / name, lambda t: t.rename(columns=lambda n: n.replace("GENE", "ENSG000000000")))
        for name in (TUMOUR, T_CELLS)
    ],
    "missing column": lambda f: edit.drop_column(f / COUNTS, 1, header=False),
    "log-normalised instead of counts": _change(COUNTS, _logs, header=False),
    "coordinates in units that are no pixels": _enlarged,
    "rows of coordinates in another order": lambda f: edit.reverse_rows(f / PLACES, header=False),
    "two rows of coordinates exchanged": _change(PLACES, lambda t: t.iloc[[1, 0, *range(2, len(t))]], False),
    "a row of coordinates too few": lambda f: edit.drop_rows(f / PLACES, 1, header=False),
    "a row of guides too few": lambda f: edit.drop_rows(f / GUIDES, 1, header=False),
    "first column does not count the rows": _change(COUNTS, _set(4, 0, "99"), header=False),
    "a guide detected twice": _change(GUIDES, _set(4, 3, "2"), header=False),
    "76 columns of guides": lambda f: edit.drop_column(f / GUIDES, 76, header=False),
    "a row of the tumour cells that is no cell": _change(TUMOUR, _set(0, 0, "77")),
    "a T cell whose counts another cell has too": _same_counts,
    "a gene of the T cells that is not measured": _change(T_CELLS, lambda t: t.rename(columns={"GENE3": "ELSE"})),
    "a gene twice": _change(TUMOUR, lambda t: t.rename(columns={"GENE3": "GENE4"})),
    "a tumour cell too few in the table of targets": lambda f: edit.drop_column(f / TUMOUR_GUIDES, "Cell_3"),
    "a target that the screen has not": _change(TUMOUR_GUIDES, _set(2, 0, "TP53")),
    "two sections on top of each other": _overlaid,
}  # fmt: skip
FAULTS |= kinds.of_folder()
