"""Variable genes are chosen without the held-out cells, or with them as run; through the steps that wire this."""

from pathlib import Path

import numpy as np
import pytest
from scipy import sparse

from tissue_counterfactuals import protocols, steps
from tissue_counterfactuals.config import load_config
from tissue_counterfactuals.methods import run
from tissue_counterfactuals.methods.prediction import Prediction
from tissue_counterfactuals.simulate import simulate_tissue
from tissue_counterfactuals.slide import read_slide, write_slide

N_GENES, N_TOP, SPECIAL = 60, 20, "gene_007"


def tissue():
    """A slide of one gene that nothing but the held-out cells of type_0 makes variable."""
    slide = simulate_tissue(n_cells=900, n_genes=N_GENES, n_slides=1, seed=2)
    slide.var_names = [f"gene_{number:03d}" for number in range(N_GENES)]
    held_out = ((slide.obs["cell_type"] == "type_0") & (slide.obs["domain"] == "domain_1")).to_numpy()
    counts = slide.X.toarray()
    column = slide.var_names.get_loc(SPECIAL)
    counts[:, column] = 3
    counts[np.flatnonzero(held_out)[::3], column] = 200
    slide.X = sparse.csr_matrix(counts)
    return slide, held_out


class Files:
    """A slide prepared from an h5ad, its graph and its folds."""

    def __init__(self, folder: Path, slide):
        folder.mkdir()
        source = folder / "source.h5ad"
        write_slide(slide, source)
        entry = {
            "source": "h5ad",
            "path": str(source),
            "columns": {"cell_type": "cell_type", "domain": "domain", "sample": "sample"},
            "unit_um": 1.0,
            "control_domain": "domain_0",
            "target_domains": ["domain_1"],
            "holdout": {"cell_types": ["type_0", "type_1"]},
            "graph": {"max_neighbors": 20},
            "preprocess": {"n_top_genes": N_TOP},
        }
        self.config = load_config({"datasets": {"d": entry}, "counterfactual": {"n_donors": 10}})
        self.dataset, self.folder = self.config["datasets"]["d"], folder
        names = "slide.h5ad", "graph.npz", "folds.tsv"
        self.slide, self.graph, self.folds = self.paths = [folder / name for name in names]
        files = {"h5ad": source}
        steps.prepare(self.dataset, files, ["slide_0"], self.slide, folder / "shapes.tsv")
        steps.build_graph(self.slide, self.dataset["graph"], self.graph)
        steps.write_folds(self.slide, "d", self.dataset, self.folds)

    def task(self, fold: str, protocol: str):
        settings = self.config["counterfactual"] | {
            "protocol": protocol,
            "switches": protocols.resolve(protocol),
            "graph": self.dataset["graph"],
            "validation_fraction": 0.1,
        }
        question = self.folder / f"{fold}.{protocol}.npz"
        steps.write_question(*self.paths, fold, 0, settings, question)
        return run.load_task(self.slide, question, "cpu")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return Files(tmp_path_factory.mktemp("genes") / "a", tissue()[0])


def test_held_out_cells_choose_genes_as_run_only(files):
    tasks = {key: files.task(*key) for key in (("type_0", "corrected"), ("type_0", "as_run"), ("type_1", "corrected"))}
    genes = {key: set(task.slide.var_names) for key, task in tasks.items()}
    assert {len(chosen) for chosen in genes.values()} == {N_TOP}
    assert SPECIAL in genes["type_0", "as_run"]
    assert SPECIAL not in genes["type_0", "corrected"]
    # These cells train where another type is held out.
    assert SPECIAL in genes["type_1", "corrected"]
    # The slide keeps what any fold needs, in the order in which genes stand.
    kept = read_slide(files.slide).var_names
    assert set(kept) == set.union(*genes.values())
    assert list(kept) == sorted(kept)


def test_predictions_and_scores_are_in_the_genes_of_the_question(files):
    task = files.task("type_0", "corrected")
    output = files.folder / "predictions.h5ad"
    run.predict({"no_change": None, "mean_shift": None}, task, output)
    names = {"dataset": "d", "kind": "real", "slide": "s", "protocol": "corrected", "seed": 0}
    metrics = protocols.of_step(protocols.resolve("corrected"), "metrics")
    scores = files.folder / "scores.tsv"
    steps.score([output], task, metrics, names, 10, scores, files.folder / "notes.tsv")
    assert "failed" not in scores.read_text()
    prediction = Prediction(task.slide.X[task.focal].toarray(), task.focal)
    assert prediction.values.shape[1] == N_TOP


def test_no_count_of_a_held_out_cell_reaches_the_genes_of_its_fold(files, tmp_path):
    slide, held_out = tissue()
    counts = slide.X.toarray()
    counts[held_out] = counts[held_out][:, ::-1] * 7
    slide.X = sparse.csr_matrix(counts)
    other = Files(tmp_path / "b", slide)
    for protocol, same in (("corrected", True), ("as_run", False)):
        chosen = [list(f.task("type_0", protocol).slide.var_names) for f in (files, other)]
        assert (chosen[0] == chosen[1]) == same
