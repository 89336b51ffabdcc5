"""The whole workflow on a slide and on the same slide with poisoned held-out cells: no prediction may differ.

Under both protocols, each of which must reach the scores of its own predictions.
"""

import numpy as np
import pandas as pd

from runs import Run
from scored import score
from slides import poisoned, small_slide
from tissue_counterfactuals import protocols
from tissue_counterfactuals.question.folds import cells_of
from tissue_counterfactuals.question.predictions import read_predictions
from tissue_counterfactuals.results.tables import read_scores
from tissue_counterfactuals.slide import write_slide

METHODS = ["no_change", "mean_shift", "mean_shift_by_type", "target_mean", "cellina"]


def all_predictions(run, dataset):
    """What every file of predictions of a data set holds, by protocol's file, method and variant."""
    found = {}
    for name in run.files(f"results/predictions/{dataset}"):
        if not name.endswith(".h5ad"):
            continue
        with read_predictions(run.folder / f"results/predictions/{dataset}/{name}") as made:
            assert not made.notes["failures"]
            for method, target, variants in made.questions():
                for variant in variants:
                    place = name.partition("/")[2]  # the slide is called after its data set
                    found[place, method, variant] = made.values(method, target, variant)
    return found


def assert_scored_as_predicted(table, slide):
    """What is predicted without a model is the same under both protocols; what it scores is not."""
    control, target = (slide.X[cells_of(slide, "A", domain)] for domain in ("left", "right"))
    found = {}
    for protocol in protocols.PROTOCOLS:
        rows = table[(table["protocol"] == protocol) & (table["method"] == "no_change")]
        expected = score(control, target, control, n_deg=50, protocol=protocol)
        # What depends on the training cells is left out.
        expected = pd.Series(expected).filter(regex="pearson|rmse").dropna()
        found[protocol] = rows.set_index("metric")["value"][expected.index].astype(float)
        np.testing.assert_allclose(found[protocol], expected, rtol=1e-5)
    assert (found["corrected"] != found["as_run"]).all()


def test_the_counts_of_held_out_cells_change_no_prediction(tmp_path):
    slide = small_slide(n_cells=400)
    datasets = {}
    for name, cells in (("clean", slide), ("poisoned", poisoned(slide))):
        write_slide(cells, tmp_path / f"{name}.h5ad")
        datasets[name] = {
            "source": "h5ad",
            "path": str(tmp_path / f"{name}.h5ad"),
            "control_domain": "left",
            "target_domains": ["right"],
            "holdout": {"cell_types": ["A"]},
            "graph": {"max_neighbors": 20},
            "preprocess": {"n_top_genes": None},
        }
    config = {
        "datasets": datasets,
        "protocols": list(protocols.PROTOCOLS),
        "methods": METHODS,
        "cellina": {"epochs": 2, "batch_size": 64, "n_hidden": 8, "n_latent": 3},
        "counterfactual": {"n_donors": 10},
        "device": "cpu",
    }
    run = Run(tmp_path / "run").configure(config)
    made = [f"results/predictions/poisoned/poisoned/A/{name}.seed0/core.h5ad" for name in protocols.PROTOCOLS]
    outcome = run.snakemake("results/tables/clean/scores.tsv", *made)
    assert outcome.code == 0, outcome.screen
    clean, dirty = (all_predictions(run, name) for name in datasets)
    assert clean.keys() == dirty.keys()
    assert {method for _, method, _ in clean} == set(METHODS)
    assert_scored_as_predicted(read_scores([run.folder / "results/tables/clean/scores.tsv"]), slide)
    changed = {key[1] for key in clean if not np.array_equal(clean[key], dirty[key])}
    # The control that is given the answer must notice, or the poison never reached the run.
    assert changed == {"target_mean"}
