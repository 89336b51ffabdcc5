"""Fig. 3 of Cellina: from a slide to subdomains, moved cells, pathways and the figure."""

import json
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse
from scipy.spatial import cKDTree

from drawings import texts
from slides import small_slide
from tissue_counterfactuals import protocols
from tissue_counterfactuals.config import Config
from tissue_counterfactuals.errors import InputError
from tissue_counterfactuals.experiments import EXPERIMENTS, cellina_application
from tissue_counterfactuals.graph import slide_graph
from tissue_counterfactuals.results.figures import figure_cellina_3
from tissue_counterfactuals.simulate import simulate_tissue
from tissue_counterfactuals.simulate.mechanism import signal_weights
from tissue_counterfactuals.slide import write_slide

(ROW,) = (e for e in EXPERIMENTS if e.name == "cellina_application")
MODEL = {"n_hidden": 16, "n_latent": 4, "epochs": 2, "batch_size": 128}


def slide():
    """In the upper half of domain `right` genes 0 to 9 are six times as high, in all types."""
    cells = small_slide(660, 40, types=("A", "B"), domains=("left", "middle", "right"))
    counts = cells.X.toarray()
    upper = (cells.obs["domain"] == "right").to_numpy() & (cells.obsm["spatial"][:, 1] > 300)
    counts[np.ix_(upper, np.arange(10))] *= 6
    cells.X = sparse.csr_matrix(counts)
    return cells


def run(folder, cells, seed=0, protocol="corrected", **changes):
    folder.mkdir(exist_ok=True)
    write_slide(cells, folder / "one.h5ad")
    sparse.save_npz(folder / "one.npz", slide_graph(cells, None, 40.0, 20))
    weights = pd.DataFrame({"source": "P", "target": [f"gene_{i}" for i in range(10)], "weight": 1.5})
    # A second one that no module has.
    rest = pd.DataFrame({"source": "Q", "target": [f"gene_{i}" for i in range(20, 30)], "weight": -1.0})
    pd.concat([weights, rest]).to_csv(folder / "weights.tsv", sep="\t", index=False)
    settings = Config.model_fields["cellina_experiments"].default.application.model_dump()
    settings |= {"min_genes": 4, "n_deg": 10, "min_cells": 10, "n_neighbors": 15}
    settings |= {"embedding": "pca", "pathway_weights": str(folder / "weights.tsv")}
    outputs = {name: folder / f"{name}.{seed}" for name in ROW.outputs}
    switches = {
        name: value
        for name, value in protocols.resolve(protocol).items()
        if {name, protocols.SWITCHES[name].step} & {*ROW.switches}
    }
    ROW.run(
        slide=folder / "one.h5ad",
        graph=folder / "one.npz",
        entry={"name": "toy", "kind": "simulated", "label": "Toy"},
        domains={"control_domain": "left", "target_domains": ["right"]},
        protocol=protocol,
        seed=str(seed),  # a part of a file's name, as the rule has it
        model=MODEL,
        device="cpu",
        settings=settings | changes,
        switches=switches,
        outputs=outputs,
    )
    return outputs


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Small matrices wait for threads longer than they compute."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("application")
    return [run(folder / str(seed), slide(), seed, embedding=kind) for seed, kind in enumerate(("pca", "umap"))]


def read(outputs, name):
    return pd.read_csv(outputs[name], sep="\t", keep_default_na=False)


def test_the_programme_of_the_upper_half_is_a_module_and_its_subdomain(runs):
    genes = read(runs[0], "modules").set_index("gene")["module"]
    (module,) = set(genes[[f"gene_{i}" for i in range(10)]])
    assert module > 0
    found = read(runs[0], "subdomains").set_index("cell")["module"]
    cells = slide()
    upper = pd.Series(cells.obsm["spatial"][:, 1] > 300, index=cells.obs_names)[found.index]
    inside = found == module
    assert upper[inside].mean() > 0.9
    assert inside[upper].mean() > 0.9


@pytest.mark.parametrize("seed", [0, 1])
def test_in_two_dimensions_reconstructions_lie_among_themselves(runs, seed):
    """By principal components, and by UMAP: expected counts have no noise, and so are like each other."""
    table = read(runs[seed], "embedding")
    places = table[["x", "y"]].to_numpy(float)
    assert np.isfinite(places).all()
    expected = table["what"].isin(["reconstructed", "moved to module"]).to_numpy()
    _, nearest = cKDTree(places).query(places, 6)
    alike = expected[nearest[:, 1:]].mean(axis=1)
    assert alike[expected].mean() > 0.9
    assert alike[~expected].mean() < 0.1


def test_scores_of_every_form_type_and_kind_of_donors(runs):
    scores = read(runs[0], "scores")
    assert set(scores["donors"]) == {*cellina_application.DONORS}
    assert set(scores["form"]) == {"type_matched", "as_run"}
    assert set(scores["cell_type"]) == {"A", "B"}
    matched, as_run = (scores[scores["form"] == form] for form in ("type_matched", "as_run"))
    cells = slide()
    left = ((cells.obs["domain"] == "left") & (cells.obs["cell_type"] == "A")).sum()
    other = ((cells.obs["domain"] != "right") & (cells.obs["cell_type"] == "A")).sum()
    assert set(matched.query("cell_type == 'A'")["n_focal"]) == {left}
    assert set(as_run.query("cell_type == 'A'")["n_focal"]) == {other}
    assert as_run["n_observed"].min() > matched["n_observed"].min()


def test_the_pathway_of_the_module_is_the_most_active_and_its_genes_are_shifted(runs):
    activity = read(runs[0], "activities")
    genes = read(runs[0], "modules")
    module = genes.set_index("gene").loc["gene_0", "module"]
    own = activity[activity["module"] == module].set_index("pathway")["activity"]
    assert own["P"] > 5
    assert own["P"] > own["Q"]
    changed = read(runs[0], "genes").query("module == @module and cell_type == 'A'")
    up = changed["gene"].isin([f"gene_{i}" for i in range(10)])
    assert changed.loc[up, "observed"].astype(float).min() > 0.4
    assert (changed["weight"] != "").sum() == 10


def test_the_same_seed_gives_the_same_modules_and_scores(runs, tmp_path, monkeypatch):
    altered, alter_log = [], cellina_application.alter_log
    monkeypatch.setattr(
        cellina_application, "alter_log", lambda *arguments, **keys: altered.append(1) or alter_log(*arguments, **keys)
    )
    again = run(tmp_path, slide(), 0)
    for name in ("modules", "subdomains", "activities"):
        assert again[name].read_bytes() == runs[0][name].read_bytes(), name
    # In one process the number of threads may differ, and so may the last digit of a prediction.
    one, other = (read(made, "scores") for made in (again, runs[0]))
    # The whole slide is altered once for a pathway, whatever the types and modules.
    assert len(altered) == one.loc[one["donors"] == "pathway", "pathway"].nunique()
    pd.testing.assert_frame_equal(one, other, rtol=1e-3)
    assert not read(runs[1], "modules")["z"].equals(read(runs[0], "modules")["z"])


def test_cells_that_are_drawn_of_a_type_are_the_same_whatever_other_types_are_asked(tmp_path):
    cells = slide()
    sizes = cells.obs.groupby(["cell_type", "domain"], observed=True).size().unstack()[["left", "right"]].min(axis=1)
    # The type that stands second has the most cells.
    if sizes["A"] > sizes["B"]:
        cells.obs["cell_type"] = cells.obs["cell_type"].cat.rename_categories({"A": "B", "B": "A"})
    made = [run(tmp_path / str(n), cells, max_focal=30, min_cells=int(n)) for n in sorted(sizes)]
    both, alone = (read(one, "scores").query("donors == 'twin' and cell_type == 'B'") for one in made)
    keys = ["form", "module", "metric"]
    pair = both.merge(alone, on=keys)
    assert len(pair) >= 2
    assert pair["value_x"].tolist() == pytest.approx(pair["value_y"].tolist(), rel=1e-3)


def test_genes_without_pathways_and_tissue_without_modules_say_so(tmp_path, monkeypatch):
    plain = small_slide(400, 30, types=("A", "B"))
    made = run(tmp_path, plain, min_genes=20, pathway_weights=None)
    status = read(made, "activities")["status"].tolist()
    assert status == ["no module was found"]
    assert read(made, "scores").empty
    assert not read(made, "subdomains")["module"].any()
    # Before anything is trained.
    monkeypatch.setattr(cellina_application.cellina_slides, "fit", None)
    with pytest.raises(InputError, match="slide one: no cell type has 5000 cells in 'left'"):
        run(tmp_path, plain, min_cells=5000)


def test_the_figure_says_how_far_seeds_agree(runs, tmp_path):
    inputs = {name: [made[name] for made in runs] for name in runs[0] if name != "manifest"}
    inputs["manifests"] = [made["manifest"] for made in runs]
    output = {name: tmp_path / f"f.{name}" for name in ("tsv", "null", "stability", "png")}
    figure_cellina_3.draw_files(inputs, output, "corrected")
    stability = pd.read_csv(output["stability"], sep="\t").set_index("what")
    assert stability.loc["cells", "adjusted_rand"] > 0.3
    assert set(stability.index) == {"genes", "cells"}
    null = pd.read_csv(output["null"], sep="\t", keep_default_na=False)
    assert null["cell_type"].tolist() == ["", "A", "B"]
    assert set(null["n_shuffles"]) == {199}
    table = pd.read_csv(output["tsv"], sep="\t")
    scores = pd.concat([pd.read_csv(path, sep="\t") for path in inputs["scores"]])
    row = table.query("form == 'type_matched' and cell_type == 'A' and donors == 'matched' and metric == 'spearman'")
    own = scores.query("form == 'type_matched' and cell_type == 'A' and donors == 'matched' and metric == 'spearman'")
    assert row["value"].item() == pytest.approx(own.groupby("seed")["value"].mean().mean(), abs=1e-5)
    manifests = [json.loads(made["manifest"].read_text()) for made in runs]
    assert [(m["kind"], m["seeds"]) for m in manifests] == [("simulated", [0]), ("simulated", [1])]
    tables = {
        n: pd.concat([pd.read_csv(p, sep="\t") for p in paths]) for n, paths in inputs.items() if n != "manifests"
    }
    # Long names of slides and types leave a layout in which no panel lies on another.
    slide, types = "section of a patient with a long name", {"A": "Inhibitory neuron of layer 5"}
    named = {n: t.assign(slide=slide).replace({"cell_type": types}) for n, t in tables.items()}
    of_types = [t.replace({"cell_type": types}) for t in (table, null)]
    # Four modules: their values are no colours.
    active = named["activities"].query("module == module.min()")
    named["activities"] = pd.concat([active.assign(module=m, activity=9.0 - m) for m in range(4)])
    figure = figure_cellina_3.compose(named, *of_types, stability.reset_index().iloc[:0], "T", "p")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure.draw_without_rendering()
    drawn = texts(figure)
    assert any("one seed: not known" in text for text in drawn)
    assert any(f"p = {null['p_value'][0]:.2g}" in text for text in drawn)


def test_types_may_be_called_by_numbers_or_as_nothing(runs, tmp_path):
    (tmp_path / "m").write_text(runs[0]["manifest"].read_text())
    inputs = {"manifests": [tmp_path / "m"]}
    for name in set(runs[0]) - {"manifest"}:
        inputs[name] = [tmp_path / name]
        read(runs[0], name).replace({"cell_type": {"A": "0", "B": "NA"}}).to_csv(tmp_path / name, sep="\t", index=False)
    output = {name: tmp_path / f"f.{name}" for name in ("tsv", "null", "stability", "png")}
    figure_cellina_3.draw_files(inputs, output, "corrected")
    for name, types in (("tsv", {"0", "NA"}), ("null", {"", "0", "NA"})):
        assert set(pd.read_csv(output[name], sep="\t", dtype=str, keep_default_na=False)["cell_type"]) == types


def test_gains_are_averaged_shuffle_by_shuffle_over_types_seeds_and_slides():
    rng = np.random.default_rng(0)
    keys = [("one", 0), ("one", 1), ("two", 0)]
    gains = rng.normal(0, 1, (3, 2, 40))
    gains[:, :, 0] += 0.4
    rows = [
        {"slide": slide, "seed": seed, "cell_type": t, "shuffle": r, "gain": gains[i, j, r]}
        for i, (slide, seed) in enumerate(keys)
        for j, t in enumerate("AB")
        for r in range(40)
    ]
    # A type without a gain of its own, and one whose first gain alone is not known: another must not be taken for it.
    rows.append(rows[0] | {"cell_type": "C", "gain": np.nan})
    rows += [rows[r] | {"cell_type": "D", "gain": 5.0 if r else np.nan} for r in range(40)]
    table = figure_cellina_3.against_shuffles(pd.DataFrame(rows)).set_index("cell_type")
    assert table.index.tolist() == ["", "A", "B"]
    for name, own in (("", gains.mean(axis=1)), ("B", gains[:, 1])):
        # A slide counts once, however many seeds it has.
        means = (own[:2].mean(axis=0) + own[2]) / 2
        row = table.loc[name]
        assert row["gain"] == pytest.approx(means[0])
        assert row["p_value"] == pytest.approx((means >= means[0]).mean())
        low, high = np.quantile(means[1:], [0.025, 0.975])
        assert row[["null_low", "null_high"]].tolist() == pytest.approx([low, high])
        assert row[["n_shuffles", "n_slides", "n_seeds"]].tolist() == [39, 2, 2]


def test_a_pathway_that_is_low_in_a_module_is_not_active_there(runs):
    table = pd.DataFrame({"module": [1, 1, 2, 2], "pathway": [*"PQPQ"], "activity": [-3.0, -1.0, 2.0, 4.0]})
    assert [cellina_application.most_active(table, module) for module in (1, 2, 3)] == ["", "Q", ""]
    activity, scores = read(runs[0], "activities"), read(runs[0], "scores")
    highest = activity.groupby("module")["activity"].max()
    moved = scores[scores["donors"] == "pathway"]["module"].unique()
    assert set(moved) == set(highest.index[highest > 0]) != set(highest.index)


def test_the_pathways_of_a_simulated_tissue_are_its_signals(tmp_path, monkeypatch):
    cells = simulate_tissue(n_slides=1, n_cells=900, n_genes=60, n_signals=2, seed=1)
    domain = cells.obs["domain"].astype(str).map({"domain_0": "left", "domain_1": "right", "domain_2": "middle"})
    cells.obs["domain"] = domain.astype("category")
    # Two modules: the genes that answer to signal 0 upwards, and those of signal 1.
    weights = signal_weights(cells).pivot(index="target", columns="source", values="weight").fillna(0)
    rises = weights.reindex(cells.var_names).fillna(0)
    module = np.select([rises["signal_0"] > 0.5, rises["signal_1"] > 0.5], [1, 2], 0)
    genes = pd.DataFrame({"gene": cells.var_names, "module": module, "strength": 1.0})
    halves = 1 + (np.arange((domain == "right").sum()) % 2)
    monkeypatch.setattr(cellina_application, "find_modules", lambda *told: (genes, halves))
    made = run(tmp_path, cells, pathway_weights=None, n_shuffles=19)
    activity = read(made, "activities").pivot(index="module", columns="pathway", values="activity").astype(float)
    assert list(activity) == ["signal_0", "signal_1"]
    assert activity.idxmax(axis=1).tolist() == ["signal_0", "signal_1"]
    shown = read(made, "genes").query("pathway == 'signal_0'").drop_duplicates("gene").set_index("gene")["weight"]
    told = pd.to_numeric(shown).dropna()
    assert told.to_dict() == pytest.approx(
        weights.loc[weights["signal_0"] != 0, "signal_0"].to_dict(), rel=1e-4, abs=1e-4
    )


def test_modules_of_a_slide_and_seed_are_counted_each():
    scores = pd.DataFrame({"slide": [*"aabbb"] * 2, "seed": [0] * 5 + [1] * 5, "module": [1, 2, 1, 2, 3] * 2})
    scores = scores.assign(form="type_matched", cell_type="A", donors="matched", metric="pearson", value=0.5)
    row = figure_cellina_3.summarize(scores).squeeze()
    assert row[["n_slides", "n_modules", "n_seeds"]].tolist() == [2, 10, 2]


def test_agreement_of_equal_and_of_unlike_modules():
    genes = pd.DataFrame({"slide": "s", "gene": [*"abcdef"] * 2, "seed": [0] * 6 + [1] * 6})
    genes["module"] = [1, 1, 1, 2, 2, 0, 2, 2, 2, 1, 1, 0]
    cells = genes.rename(columns={"gene": "cell"}).assign(module=[1, 1, 2, 2, 1, 2, 1, 2, 1, 2, 1, 1])
    table = figure_cellina_3.agreement({"modules": genes, "subdomains": cells}).set_index("what")
    assert table.loc["genes", "adjusted_rand"] == 1
    assert table.loc["genes", ["n_modules", "n_modules_other"]].tolist() == [2, 2]
    assert table.loc["cells", "adjusted_rand"] < 0.3
    # A module of genes that are in none with the other seed is not the same as none.
    genes.loc[3:5, "module"] = 0
    table = figure_cellina_3.agreement({"modules": genes, "subdomains": cells}).set_index("what")
    assert table.loc["genes", ["n_modules", "n_modules_other"]].tolist() == [1, 2]
    assert table.loc["genes", "adjusted_rand"] == pytest.approx(18 / 23)
