"""Node perturbation of more and more genes (Cellina, Fig. A7): how many must neighbours change in?

A model that has seen all cells of the slide; neighbours of control cells are moved towards the target domain by the
log-fold change of pseudobulks, `global` or `by_type`, in the genes that it changes most. As run in the authors' code,
all cells of a type are shifted, not neighbours alone; values below 0 become 0. Whether a cell then gets back the sum of
its log values is a switch of the protocol (`node_renormalization`).

The published figure compares with the model's own reconstructions of control and target cells; here that form stands
beside the observed cells. `edge_swap` gives each focal cell the neighbourhood of one cell of its type in the target
domain, the twin leaves it its own.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from scipy import sparse

from tissue_counterfactuals.errors import InputError
from tissue_counterfactuals.experiments import cellina_slides, preparation
from tissue_counterfactuals.graph import neighborhood_features
from tissue_counterfactuals.metrics import METRICS, Comparison, Reference
from tissue_counterfactuals.question.folds import cells_of, group_sizes
from tissue_counterfactuals.question.nodes import NodePerturbation, alter_log, pseudobulk_shift
from tissue_counterfactuals.results.tables import write_tsv
from tissue_counterfactuals.slide import log_normalize
from tissue_counterfactuals.streams import stream

SCORES = ("pearson", "e_distance", "signed_precision", "rmse_lfc")
SHIFTS = ("global", "by_type")
TWIN, EDGE_SWAP = "twin", "edge_swap"
TRUTHS = ("observed", "reconstruction")
# Cells made dense at a time.
_BLOCK = 2048


def run(
    slide: Path,
    graph: Path,
    entry: dict,
    domains: dict,
    protocol: str,
    seed: str,
    model: dict,
    device: str,
    n_deg: int,
    settings: dict,
    switches: dict[str, str],
    outputs: dict[str, Path],
) -> None:
    """Scores (TSV) of every type, target, shift and number of genes on one slide, and where they come from (JSON).

    Args:
        settings: section cellina_experiments.gene_range of the configuration.
        domains: control_domain, target_domains.

    Raises:
        InputError: no type has cells enough in the control domain and a target.
    """
    cells, graph, seed = *cellina_slides.read_inputs(slide, graph), int(seed)
    control, targets = domains["control_domain"], domains["target_domains"]
    sizes = group_sizes(cells.obs, control, targets)
    asked = [(t, y) for t in targets for y in sizes.index if sizes.loc[y, [control, t]].min() >= settings["min_cells"]]
    if not asked:
        raise InputError(
            f"slide {Path(slide).stem}: no cell type has {settings['min_cells']} cells in {control!r} and in a target "
            "domain: lower cellina_experiments.gene_range.min_cells, or name other domains."
        )
    fitted = cellina_slides.fit(
        cells, graph, cellina_slides.split_slide(cells.n_obs, seed), model, switches, seed, device
    )
    scorer = _Scorer(cells, graph, fitted, n_deg, seed, switches)
    numbers = sorted({*(n for n in settings["n_genes"] if n < cells.n_vars), cells.n_vars})
    rows = []
    for target in targets:
        types = [y for t, y in asked if t == target]
        if types:
            rows += scorer.rows(control, target, types, numbers)
    record = preparation.write_manifest(
        outputs["manifest"], entry, cells, protocol, [seed],
        settings | {"switches": switches, "cellina": model, "domains": domains},
    )  # fmt: skip
    table = preparation.keyed(pd.DataFrame(rows), record, seed)
    table.insert(2, "slide", Path(slide).stem)
    write_tsv(table, outputs["scores"], sort=False)


def shifted_features(
    around: sparse.csr_array, log_expression: sparse.csr_array, code: np.ndarray, shift: np.ndarray, renormalize: bool
) -> np.ndarray:
    """Neighbourhood features (m, g) float32 once neighbours are shifted; cells are made dense a block at a time.

    Args:
        around: (m, n) weights of the neighbours.
        log_expression: (n, g) log1p of counts per 10,000.
        code: (n,) row of `shift` (types, g) for each cell.
        renormalize: see `alter_log`.
    """
    total = np.asarray(around.sum(axis=1)).ravel()
    share = sparse.diags_array(1 / np.where(total > 0, total, 1)) @ around
    neighbors = np.unique(around.indices)
    features = np.zeros((around.shape[0], log_expression.shape[1]), np.float32)
    node = NodePerturbation(shift)
    for start in range(0, len(neighbors), _BLOCK):
        block = neighbors[start : start + _BLOCK]
        moved = alter_log(log_expression[block], code[block], node, renormalize)
        features += share[:, block] @ moved.toarray()
    return features


class _Scorer:
    """Predictions of one model, compared with observed cells and with its own reconstructions of them."""

    def __init__(self, slide, graph, model, n_deg, seed, switches):
        self.slide, self.graph, self.model, self.seed = slide, graph, model, seed
        self.latent = switches["latent"]
        self.keeps_sums = switches["node_renormalization"] == "totals"
        self.metrics = {"n_deg": n_deg, "seed": seed}
        self.metrics |= {k: switches[k] for k in ("lfc", "pca_fit", "rmse_counts")}
        self.log_expression = log_normalize(slide.X)
        self.code = slide.obs["cell_type"].cat.codes.to_numpy()
        self.components = None

    def rows(self, control: str, target: str, types: list[str], numbers: list[int]) -> list[dict]:
        """A row per type, truth, shift, number of genes and metric."""
        slide = self.slide
        focal = {y: cells_of(slide, y, control) for y in types}
        there = {y: cells_of(slide, y, target) for y in types}
        every = np.concatenate(list(focal.values()))
        own = self._own(every)
        twin = self._predicted(every, own)
        places = np.split(np.arange(len(every)), np.cumsum([len(c) for c in focal.values()])[:-1])
        place = dict(zip(types, places, strict=True))
        references = {}
        for y in types:
            rebuilt = self._predicted(there[y], self._own(there[y]))
            references[y, "observed"] = self._reference(slide.X[focal[y]], slide.X[there[y]])
            references[y, "reconstruction"] = self._reference(twin[place[y]], rebuilt)
        rows = []

        def add(shift: str, n_genes: int, predicted: np.ndarray) -> None:
            for (y, truth), reference in references.items():
                comparison = Comparison(reference, predicted[place[y]])
                names = {"target": target, "cell_type": y, "shift": shift, "n_genes": n_genes}
                names |= {"truth": truth, "n_control": len(focal[y]), "n_target": len(there[y])}
                rows.extend(names | {"metric": m, "value": float(METRICS[m].function(comparison))} for m in SCORES)

        add(TWIN, 0, twin)
        drawn = {y: stream(self.seed, "neighbourhood_of_one_cell", target, y) for y in types}
        anchors = np.concatenate([drawn[y].choice(there[y], len(focal[y])) for y in types])
        add(EDGE_SWAP, slide.n_vars, self._predicted(every, self._own(anchors)))
        nobody = np.zeros(slide.n_obs, dtype=bool)
        for shift in SHIFTS:
            for n_genes in numbers:
                change = pseudobulk_shift(slide, control, target, nobody, n_genes=n_genes, by_type=shift == "by_type")
                around = self.graph[every]
                moved = shifted_features(around, self.log_expression, self.code, change, self.keeps_sums)
                add(shift, n_genes, self._predicted(every, moved))
                print(f"{target}: {shift}, {n_genes} genes")
        return rows

    def _own(self, cells: np.ndarray) -> np.ndarray:
        return neighborhood_features(self.graph[cells], self.log_expression)

    def _predicted(self, cells: np.ndarray, features: np.ndarray) -> np.ndarray:
        return self.model.predict(self.slide, cells, features, latent=self.latent, seed=self.seed)

    def _reference(self, control, target) -> Reference:
        reference = Reference(control, target, train=self.slide.X, **self.metrics)
        # Principal components of all cells are those of every type.
        if self.components is None:
            self.components = reference.components
        reference.components = self.components
        return reference
