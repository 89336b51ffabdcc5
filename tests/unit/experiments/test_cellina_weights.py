"""Fig. A1 of Cellina: one weight varied, the others held, and what is measured on cells kept from training."""

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from drawings import PROVENANCE, panel, texts
from slides import small_slide
from tissue_counterfactuals import protocols
from tissue_counterfactuals.config import Config
from tissue_counterfactuals.experiments import EXPERIMENTS, cellina_slides
from tissue_counterfactuals.experiments.cellina_weights import SWEEPS
from tissue_counterfactuals.experiments.settings import WeightSettings
from tissue_counterfactuals.graph import slide_graph
from tissue_counterfactuals.results.figures import figure_cellina_a1
from tissue_counterfactuals.slide import write_slide

(ROW,) = (e for e in EXPERIMENTS if e.name == "cellina_weights")
MODEL = {"n_hidden": 16, "n_latent": 4, "epochs": 3, "batch_size": 64}
SETTINGS = Config.model_fields["cellina_experiments"].default.weights.model_dump()


def run(folder, swept="classifier", weight="10", protocol="corrected", **changes):
    folder.mkdir(exist_ok=True)
    slide = small_slide(240, 12)
    write_slide(slide, folder / "one.h5ad")
    sparse.save_npz(folder / "one.npz", slide_graph(slide, None, 40.0, 20))
    read = {*ROW.switches}
    switches = protocols.resolve(protocol)
    outputs = {"scores": folder / "scores.tsv", "manifest": folder / "manifest.json"}
    ROW.run(
        slide=folder / "one.h5ad",
        graph=folder / "one.npz",
        entry={"name": "toy", "kind": "simulated", "label": "Toy"},
        protocol=protocol,
        seed="3",
        swept=swept,
        weight=weight,
        model=MODEL,
        device="cpu",
        settings=SETTINGS | {"n_samples": 4} | changes,
        switches={k: v for k, v in switches.items() if {k, protocols.SWITCHES[k].step} & read},
        outputs=outputs,
    )
    return outputs


@pytest.fixture
def asked(monkeypatch):
    """Weights of the trainings, and who trained in them."""
    seen, fit = [], cellina_slides.fit

    def watch(*args, **weights):
        seen.append((weights, args[2]))
        return fit(*args, **weights)

    monkeypatch.setattr(cellina_slides, "fit", watch)
    return seen


def test_one_weight_is_varied_and_the_others_are_held(tmp_path, asked):
    run(tmp_path / "a", "adversary", "0.001")
    weights = [w for w, _ in asked]
    assert [w["lambda_adversary"] for w in weights] == [0.001, 0.001]
    assert [w["lambda_classifier"] for w in weights] == [1e-7, 1]
    for _, split in asked:
        assert split.held_out.sum() == 24
        assert split.validation.sum() == 22
        assert (split.train + split.validation + split.held_out == 1).all()


def test_all_measures_are_there_for_both_latents_and_labels(tmp_path):
    table = pd.read_csv(run(tmp_path / "a")["scores"], sep="\t")
    assert set(table["others"]) == {1e-7, 1.0}
    one = table[table["others"] == 1].fillna("")
    sizes = one.groupby("measure").size().to_dict()
    assert sizes == {"f1": 4, "guess_f1": 4, "kl": 2, "log_likelihood": 1, "effective_samples": 1}
    assert one["value"].notna().all()
    assert set(one["weight"]) == {10.0}
    # Of twelve genes with a few counts each: some nats below 0.
    likelihood = one.set_index("measure").loc["log_likelihood", "value"]
    assert -80 < likelihood < -10
    assert 1 <= one.set_index("measure").loc["effective_samples", "value"] <= 4
    np.testing.assert_array_equal(table["seed"], 3)


def test_as_run_draws_the_latents_that_are_probed(tmp_path, monkeypatch):
    monkeypatch.setattr(cellina_slides, "fit", _short(cellina_slides.fit))
    tables = [
        pd.read_csv(run(tmp_path / p, protocol=p, others=[1.0])["scores"], sep="\t")
        for p in ("corrected", "as_run")
    ]
    f1 = [t.loc[t["measure"] == "f1", "value"].tolist() for t in tables]
    assert f1[0] != f1[1]


def _short(fit):
    """As run is trained as published, which would take a while."""

    def quick(slide, graph, split, model, switches, seed, device, **weights):
        quick_switches = switches | {"hyperparameters": "configured", "restore": "best"}
        quick_switches |= {"monitor": "reconstruction"}
        return fit(slide, graph, split, model, quick_switches, seed, device, **weights)

    return quick


def test_every_sweep_can_be_asked_for():
    WeightSettings(sweeps=list(SWEEPS))


def summary():
    rows = []
    for swept in SWEEPS:
        for others in (1e-7, 1.0):
            for weight in (0.0, 1.0, 10.0):
                names = {"swept": swept, "weight": weight, "others": others, "n_fits": 3}
                names |= {"standard_error": 0.01}
                for latent in "zs":
                    for label in ("cell_type", "domain"):
                        both = names | {"latent": latent, "label": label}
                        rows.append(both | {"measure": "f1", "median": 0.1 + weight / 20})
                        rows.append(both | {"measure": "guess_f1", "median": 0.25})
                rows.append(names | {"latent": "", "label": "", "measure": "log_likelihood", "median": -400 - weight})  # fmt: skip
    return pd.DataFrame(rows)


def test_the_figure_has_a_column_for_each_loss_and_rows_for_each_weight_of_the_others():
    figure = figure_cellina_a1.compose(summary(), "Weights [simulated]", PROVENANCE, 50)
    assert len(figure.axes) == 4 * len(SWEEPS)
    axes = panel(figure, "Cell-type classifier")
    curves = [c for c in axes.containers if hasattr(c, "has_yerr")]
    assert len(curves) == 4
    for curve in curves:
        np.testing.assert_allclose(curve.lines[0].get_ydata(orig=False), [0.1, 0.15, 0.6])
    assert [t.get_text() for t in axes.get_xticklabels()] == ["0", "1", "10"]
    written = texts(figure)
    assert PROVENANCE in written
    assert any("[simulated]" in t for t in written)
    assert any("50 draws" in t.replace("\n", " ") for t in written)


def test_medians_and_errors_are_over_slides_and_seeds():
    keys = {"swept": "classifier", "weight": 1.0, "others": 1.0, "measure": "kl", "latent": "z"}
    rows = [keys | {"label": np.nan, "value": v} for v in (1.0, 2.0, 6.0)]
    table = figure_cellina_a1.summarize(pd.DataFrame(rows))
    assert table["median"].tolist() == [2.0]
    assert table["standard_error"].tolist() == [pytest.approx(np.std([1, 2, 6], ddof=1) / 3**0.5)]
    assert table["n_fits"].tolist() == [3]


def test_the_files_are_written(tmp_path):
    made = [run(tmp_path / w, weight=w) for w in ("0", "1")]
    inputs = {"scores": [m["scores"] for m in made], "manifests": [m["manifest"] for m in made]}
    output = {"tsv": tmp_path / "a1.tsv", "png": tmp_path / "a1.png"}
    figure_cellina_a1.draw_files(inputs, output, "corrected")
    assert output["png"].stat().st_size > 10_000
    table = pd.read_csv(output["tsv"], sep="\t")
    assert sorted(table["weight"].unique()) == [0, 1]
