"""Fig. A7 of Cellina: shifts of pseudobulks, altered neighbourhoods, and the table of scores."""

import json

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from drawings import PROVENANCE, panel, texts
from slides import small_slide
from tissue_counterfactuals import protocols
from tissue_counterfactuals.config import Config
from tissue_counterfactuals.errors import InputError
from tissue_counterfactuals.experiments import EXPERIMENTS, cellina_gene_range
from tissue_counterfactuals.experiments.cellina_gene_range import shifted_features
from tissue_counterfactuals.graph import neighborhood_features, slide_graph
from tissue_counterfactuals.results.figures import figure_cellina_a7
from tissue_counterfactuals.slide import log_normalize, write_slide

(ROW,) = (e for e in EXPERIMENTS if e.name == "cellina_gene_range")
MODEL = {"n_hidden": 16, "n_latent": 4, "epochs": 3, "batch_size": 64}
SWITCHES = {
    name: value
    for name, value in protocols.resolve("corrected").items()
    if {name, protocols.SWITCHES[name].step} & {*ROW.switches}
}


def run(folder, slide, seed=0, switches=SWITCHES, **changes):
    folder.mkdir(exist_ok=True)
    write_slide(slide, folder / "one.h5ad")
    sparse.save_npz(folder / "one.npz", slide_graph(slide, None, 40.0, 20))
    settings = Config.model_fields["cellina_experiments"].default.gene_range.model_dump()
    outputs = {"scores": folder / "scores.tsv", "manifest": folder / "manifest.json"}
    ROW.run(
        slide=folder / "one.h5ad",
        graph=folder / "one.npz",
        entry={"name": "toy", "kind": "simulated", "label": "Toy"},
        domains={"control_domain": "left", "target_domains": ["right"]},
        protocol="corrected",
        seed=seed,
        model=MODEL,
        device="cpu",
        n_deg=10,
        settings=settings | {"n_genes": [2, 5], "min_cells": 20} | changes,
        switches=switches,
        outputs=outputs,
    )
    return outputs


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return run(tmp_path_factory.mktemp("range") / "a", small_slide(300, types=("A", "B")))


@pytest.mark.parametrize(("block", "keeps_sums"), [(7, True), (10_000, False)])
def test_shifted_neighbourhoods_are_those_of_shifted_cells(block, keeps_sums, monkeypatch):
    monkeypatch.setattr(cellina_gene_range, "_BLOCK", block)
    slide = small_slide(120, 8)
    log = log_normalize(slide.X)
    around = slide_graph(slide, None, 40.0, 10)[[3, 50, 90]]
    code = slide.obs["cell_type"].cat.codes.to_numpy()
    change = np.random.default_rng(0).normal(0, 2, (3, 8))
    dense = log.toarray().astype(float)
    moved = np.maximum(dense + change[code], 0)
    if keeps_sums:
        moved *= dense.sum(axis=1, keepdims=True) / moved.sum(axis=1, keepdims=True)
    expected = np.stack([np.average(moved[r.indices], axis=0, weights=r.data) for r in around])
    np.testing.assert_allclose(shifted_features(around, log, code, change, keeps_sums), expected, rtol=1e-5)
    unmoved = shifted_features(around, log, code, np.zeros_like(change), keeps_sums)
    np.testing.assert_allclose(unmoved, neighborhood_features(around, log), rtol=1e-5)


def test_neighbourhoods_drawn_for_a_type_are_the_same_whatever_other_types_are_asked(tmp_path):
    slide = small_slide(300, types=("A", "B"))
    sizes = slide.obs.groupby(["cell_type", "domain"], observed=True).size().unstack().min(axis=1)
    # The type that stands second has the most cells.
    if sizes["A"] > sizes["B"]:
        slide.obs["cell_type"] = slide.obs["cell_type"].cat.rename_categories({"A": "B", "B": "A"})
    made = [run(tmp_path / str(n), slide, min_cells=int(n)) for n in sorted(sizes)]
    tables = [pd.read_csv(one["scores"], sep="\t") for one in made]
    assert [{*table["cell_type"]} for table in tables] == [{"A", "B"}, {"B"}]
    both, alone = (t.query("cell_type == 'B' and shift == 'edge_swap' and truth == 'observed'") for t in tables)
    assert both["value"].tolist() == pytest.approx(alone["value"].tolist(), rel=1e-3)


def test_every_type_truth_shift_and_number_has_its_scores(finished):
    table = pd.read_csv(finished["scores"], sep="\t")
    assert {*table["cell_type"]} == {"A", "B"}
    assert {*table["truth"]} == {"observed", "reconstruction"}
    numbers = table.groupby("shift")["n_genes"].unique().map(sorted).to_dict()
    assert numbers == {"global": [2, 5, 20], "by_type": [2, 5, 20], "twin": [0], "edge_swap": [20]}
    keys = ["cell_type", "truth", "shift", "n_genes", "metric"]
    assert not table.duplicated(keys).any()
    assert len(table) == 2 * 2 * (3 + 3 + 1 + 1) * 4
    assert table["value"].notna().mean() > 0.9
    # A shift moves predictions, and by another amount where it is of more genes.
    wide = table[table["metric"] == "rmse_lfc"].pivot_table("value", keys[:2], ["shift", "n_genes"])
    assert (wide["by_type"][20] != wide["twin"][0]).all()
    assert (wide["by_type"][20] != wide["by_type"][2]).all()
    record = json.loads(finished["manifest"].read_text())
    assert record["n_cells"] == 300
    assert record["settings"]["cellina"] == MODEL


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(finished, tmp_path):
    slide = small_slide(300, types=("A", "B"))
    again = run(tmp_path / "a", slide)["scores"].read_bytes()
    assert again == finished["scores"].read_bytes()
    other = pd.read_csv(run(tmp_path / "b", slide, seed=1)["scores"], sep="\t")
    assert not other["value"].equals(pd.read_csv(finished["scores"], sep="\t")["value"])


def test_sums_are_kept_as_the_protocol_says(finished, tmp_path):
    assert SWITCHES["node_renormalization"] == "none"
    switches = SWITCHES | {"node_renormalization": "totals"}
    kept = pd.read_csv(run(tmp_path / "a", small_slide(300, types=("A", "B")), switches=switches)["scores"], sep="\t")
    left = pd.read_csv(finished["scores"], sep="\t")
    shifted = left["shift"].isin(cellina_gene_range.SHIFTS)
    assert left["value"][~shifted].equals(kept["value"][~shifted])
    assert not left["value"][shifted].equals(kept["value"][shifted])


def test_types_with_too_few_cells_are_refused_with_the_key(tmp_path):
    with pytest.raises(InputError, match=r"gene_range\.min_cells"):
        run(tmp_path / "a", small_slide(100), min_cells=90)


def scores(values):
    keys = {"metric": "pearson", "shift": "global", "n_genes": 10, "truth": "observed"}
    return pd.DataFrame([keys | {"slide": s, "seed": 0, "cell_type": t, "value": v} for s, t, v in values])


def test_slides_count_alike_whatever_their_number_of_types():
    table = figure_cellina_a7.summarize(scores([("a", "T", 0.0), ("a", "B", 0.2), ("b", "T", 0.5)]))
    assert table["value"].tolist() == [pytest.approx((0.1 + 0.5) / 2)]
    assert table["sd"].tolist() == [pytest.approx(0.4 / np.sqrt(2))]
    assert table["n_slides"].tolist() == [2]


def test_slides_of_unlike_numbers_of_genes_are_not_taken_for_an_effect_of_their_number():
    wide = pd.concat(
        scores([("a", "T", value), ("b", "T", value)]).assign(n_genes=[n, other], shift=shift)
        for shift, n, other, value in (
            *(("global", 5, 5, 0.5), ("global", 20, 20, 0.6), ("global", 30, 40, 0.8)),
            *(("edge_swap", 30, 40, 0.9), ("twin", 0, 0, 0.1)),
        )
    )
    # Between the two slides' numbers of genes only one has a point; of another a score is not defined.
    wide = pd.concat([wide, scores([("b", "T", 0.2)]).assign(n_genes=35)])
    wide.loc[(wide["n_genes"] == 20) & (wide["slide"] == "b"), "value"] = np.nan
    table = figure_cellina_a7.summarize(wide)
    own = table[table["shift"] == "global"].set_index("n_genes")
    assert own["n_slides"].to_dict() == {5: 2, 20: 1, 35: 1, 40: 2}
    assert own["n_types"].to_dict() == {5: 1, 20: 1, 35: 1, 40: 1}
    assert own["value"].tolist() == pytest.approx([0.5, 0.6, 0.2, 0.8])
    assert table[table["shift"] == "edge_swap"]["value"].tolist() == pytest.approx([0.9])
    figure = figure_cellina_a7.compose(table, "T [simulated]", PROVENANCE)
    axes = figure.axes[0]
    (joined,) = [line for line in axes.lines if np.array_equal(line.get_xdata(), [5, 40])]
    (apart,) = [line for line in axes.lines if np.array_equal(line.get_xdata(), [20, 35])]
    assert (joined.get_linestyle(), apart.get_linestyle()) == ("-", "None")
    assert [label.get_text() for label in axes.get_xticklabels()] == ["5", "20", "", "all"]
    assert any("some of the slides only" in h.get_label() for h in figure.legends[0].legend_handles)
    # The edge swap has a score on both slides; were it on one alone, its level would be pale and the twin's full.
    (swap,) = (table["shift"] == "edge_swap").to_numpy().nonzero()[0]
    for n_slides, alpha in ((2, 1), (1, figure_cellina_a7.PALE)):
        table.loc[swap, "n_slides"] = n_slides
        axes = figure_cellina_a7.compose(table, "T [simulated]", PROVENANCE).axes[0]
        level = {line.get_ydata()[0]: line.get_alpha() for line in axes.lines if len(set(line.get_ydata())) == 1}
        assert level[table.loc[swap, "value"]] == alpha
        assert level[table.loc[table["shift"] == "twin", "value"].item()] == 1


def test_a_target_and_types_may_be_called_by_numbers_or_as_nothing(finished, tmp_path):
    own = pd.read_csv(finished["scores"], sep="\t").replace({"target": {"right": "01"}, "cell_type": {"B": "NA"}})
    own.to_csv(tmp_path / "scores.tsv", sep="\t", index=False)
    record = json.loads(finished["manifest"].read_text())
    record["settings"]["domains"]["target_domains"] = ["01"]
    (tmp_path / "m.json").write_text(json.dumps(record))
    output = {"tsv": tmp_path / "a7.tsv", "png": tmp_path / "a7.png"}
    inputs = {"scores": [tmp_path / "scores.tsv"], "manifests": [tmp_path / "m.json"]}
    figure_cellina_a7.draw_files(inputs, output, "01", "corrected")
    assert pd.read_csv(output["tsv"], sep="\t")["n_types"].max() == 2


def test_the_figure_draws_what_the_table_says(finished, tmp_path):
    output = {"tsv": tmp_path / "a7.tsv", "png": tmp_path / "a7.png"}
    inputs = {"scores": [finished["scores"]], "manifests": [finished["manifest"]]}
    figure_cellina_a7.draw_files(inputs, output, "right", "corrected")
    assert output["png"].stat().st_size > 10_000
    table = pd.read_csv(output["tsv"], sep="\t")
    figure = figure_cellina_a7.compose(table, "T [simulated]", PROVENANCE)
    axes = panel(figure, "RMSE LFC")
    chosen = table.query("metric == 'rmse_lfc' and truth == 'observed' and shift == 'by_type'")
    lines = [line for line in axes.lines if len(line.get_xdata()) == 3]
    assert any(np.allclose(line.get_ydata(), chosen["value"]) for line in lines)
    assert PROVENANCE in texts(figure)
