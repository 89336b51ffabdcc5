"""Fig. A5 of Cellina: scores of latents that are known, and what a method that failed leaves."""

import json

import numpy as np
import pandas as pd
import pytest

from drawings import PROVENANCE, texts
from slides import small_slide
from tissue_counterfactuals.config import Config
from tissue_counterfactuals.experiments import EXPERIMENTS
from tissue_counterfactuals.experiments.cellina_disentanglement import scores
from tissue_counterfactuals.results.figures import figure_cellina_a5
from tissue_counterfactuals.slide import write_slide

(ROW,) = (e for e in EXPERIMENTS if e.name == "cellina_disentanglement")
SETTINGS = Config.model_fields["cellina_experiments"].default.disentanglement.model_dump()


def values(table, label, metric):
    (found,) = (r["value"] for r in table if (r["label"], r["metric"]) == (label, metric))
    return found


def test_a_latent_of_the_type_alone_holds_the_domain_only_through_the_type():
    """Types are told apart exactly; a domain has more of one type, and nothing else is known of it."""
    rng = np.random.default_rng(0)
    domain = rng.choice(["left", "right"], 1200)
    cell_type = np.where(rng.random(1200) < np.where(domain == "left", 0.8, 0.2), "A", "B")
    latent = np.where(cell_type == "A", 0.0, 9.0)[:, None] + rng.normal(size=(1200, 2))
    table = scores(latent, {"cell_type": cell_type, "domain": domain}, domain, 0)
    assert values(table, "cell_type", "f1") > 0.99
    assert values(table, "cell_type", "ari_kmeans") > 0.99
    assert values(table, "domain", "f1") == pytest.approx(0.8, abs=0.06)
    # Chance knows as much, once the type is given.
    within = values(table, "domain", "f1_within_type")
    assert within == pytest.approx(values(table, "domain", "permuted_f1_within_type"), abs=0.03)
    information = values(table, "cell_type", "mutual_information")
    assert information == pytest.approx(values(table, "cell_type", "entropy"), abs=0.02)
    # The domain's information is that of its table with the types.
    known = np.log(2) + 0.8 * np.log(0.8) + 0.2 * np.log(0.2)
    assert values(table, "domain", "mutual_information") == pytest.approx(known, abs=0.05)


def test_a_domain_in_the_latent_is_read_within_types():
    rng = np.random.default_rng(0)
    domain, cell_type = rng.choice(["left", "right"], 600), rng.choice(["A", "B"], 600)
    latent = np.stack([np.where(domain == "left", 0.0, 9.0), rng.normal(size=600)], axis=1)
    table = scores(latent, {"cell_type": cell_type, "domain": domain}, domain, 0)
    assert values(table, "domain", "f1_within_type") > 0.98
    assert values(table, "cell_type", "f1") < 0.65


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("latents")
    slide = small_slide(300)
    write_slide(slide, folder / "pooled.h5ad")
    rng = np.random.default_rng(0)
    z, s = rng.normal(size=(2, 300, 3))
    z += 9 * slide.obs["cell_type"].cat.codes.to_numpy()[:, None]
    np.savez(folder / "a.npz", failures=json.dumps({}), **{"cellina/z": z, "cellina/s": s})
    np.savez(folder / "b.npz", failures=json.dumps({"scvi": "fit: memory ran out"}))
    outputs = {"scores": folder / "scores.tsv", "manifest": folder / "manifest.json"}
    ROW.run(
        slide=folder / "pooled.h5ad",
        latents=[folder / "a.npz", folder / "b.npz"],
        entry={"name": "toy", "kind": "simulated", "label": "Toy"},
        protocol="corrected",
        seed="0",
        settings=SETTINGS | {"methods": ["scvi", "cellina"], "n_cells": 200},
        switches={},
        outputs=outputs,
    )
    return outputs


def test_every_latent_has_its_scores_and_a_failure_its_reason(finished):
    table = pd.read_csv(finished["scores"], sep="\t")
    failed = table[table["status"] == "failed"]
    assert failed["method"].tolist() == ["scvi"]
    assert failed["reason"].tolist() == ["fit: memory ran out"]
    f1 = table[(table["metric"] == "f1") & (table["label"] == "cell_type")]
    by_latent = f1.set_index("latent")["value"]
    assert by_latent["z"] > 0.95
    assert by_latent["s"] < 0.6
    assert set(table.loc[table["status"] == "ok", "n_cells"]) == {200}


def test_the_figure_shows_bars_parts_and_who_failed(finished, tmp_path):
    output = {"tsv": tmp_path / "a5.tsv", "png": tmp_path / "a5.png"}
    inputs = {"scores": [finished["scores"]], "manifests": [finished["manifest"]]}
    figure_cellina_a5.draw_files(inputs, output, "corrected")
    assert output["png"].stat().st_size > 10_000
    table = pd.read_csv(output["tsv"], sep="\t")
    figure = figure_cellina_a5.compose(table, "Latents [simulated]", PROVENANCE, 200)
    written = texts(figure)
    assert "failed" in written
    assert {"Cellina, z", "Cellina, s", "scVI"} <= set(written)
    axes = next(a for a in figure.axes if a.get_title("left") == "Cell type: Bio-conservation (scIB)")
    drawn = sorted(p.get_width() for p in axes.patches)
    chosen = table.query("label == 'cell_type' and metric == 'bio_conservation'")["value"]
    np.testing.assert_allclose(drawn, sorted(chosen))
    # The line across a bar is what the probe gets by chance.
    axes = next(a for a in figure.axes if a.get_title("left") == "Cell type: Linear probe, macro-F1")
    chance = table.query("label == 'cell_type' and metric == 'permuted_f1'")["value"]
    lines = [line.get_xdata() for line in axes.get_lines() if len({*line.get_ydata()}) == 2]
    np.testing.assert_allclose(sorted(x[0] for x in lines if x[0]), sorted(chance))
    parts = table.query("label == 'cell_type' and metric in @figure_cellina_a5.CONSERVATION")
    np.testing.assert_allclose(chosen.mean(), parts["value"].mean(), rtol=1e-5)
    # z of both forms is told both labels; the contrastive loss of GAT's s reads the domain.
    gat = table.replace({"method": {"cellina": "cellina_gat"}})
    attentive = figure_cellina_a5.compose(gat, "Latents [simulated]", PROVENANCE, 200)
    for drawing, of_domain in ((figure, 1), (attentive, 2)):
        for title, hatched in (("Cell type", 1), ("Domain", of_domain)):
            (axes,) = [a for a in drawing.axes if a.get_title("left").startswith(f"{title}: Bio")]
            assert sum(bool(p.get_hatch()) for p in axes.patches) == hatched


def test_information_is_a_share_of_the_entropy_of_its_own_label():
    """The labels differ in their entropy, and so do the cells of two seeds."""
    found = {
        ("cell_type", 0): (0.5, 2.0),
        ("cell_type", 1): (0.5, 1.0),
        ("domain", 0): (0.3, 0.6),
        ("domain", 1): (0.3, 0.5),
    }
    rows = [
        {"method": "cellina", "latent": "z", "label": label, "seed": seed, "status": "ok", "reason": ""}
        | {"metric": metric, "value": value}
        for (label, seed), values in found.items()
        for metric, value in zip(("mutual_information", "entropy"), values, strict=True)
    ]
    table = figure_cellina_a5.summarize(pd.DataFrame(rows)).query("metric == 'information'").set_index("label")
    assert table["value"].to_dict() == pytest.approx({"cell_type": (0.25 + 0.5) / 2, "domain": (0.5 + 0.6) / 2})


def test_a_method_that_failed_with_some_seeds_says_so_beside_its_name(finished):
    one = pd.read_csv(finished["scores"], sep="\t")
    lost = pd.DataFrame({"method": ["cellina"], "status": "failed", "reason": "fit: killed", "seed": 1})
    table = figure_cellina_a5.summarize(pd.concat([one, lost]))
    own = table[table["method"] == "cellina"]
    assert set(own["n_failed"]) == {1}
    assert set(own["reason"]) == {"fit: killed"}
    assert table[table["method"] == "scvi"][["n_failed", "status"]].to_numpy().tolist() == [[1, "failed"]]
    written = texts(figure_cellina_a5.compose(table, "Latents [simulated]", PROVENANCE, 200))
    assert {"Cellina, z\n(1 of 2 seeds failed)", "scVI"} <= set(written)
    assert not any(
        "seeds failed" in t
        for t in texts(
            figure_cellina_a5.compose(figure_cellina_a5.summarize(one), "Latents [simulated]", PROVENANCE, 200)
        )
    )
