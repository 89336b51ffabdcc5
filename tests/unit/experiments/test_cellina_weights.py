"""Fig. A1 of Cellina: one weight varied, the others held, and what is measured on cells kept from training."""

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from drawings import PROVENANCE, panel, texts
from slides import small_slide
from tissue_counterfactuals import protocols
from tissue_counterfactuals.config import Config
from tissue_counterfactuals.experiments import EXPERIMENTS, cellina_slides, cellina_weights
from tissue_counterfactuals.experiments.cellina_weights import OF_Z, SWEEPS, CellinaWithDomain
from tissue_counterfactuals.experiments.settings import WeightSettings
from tissue_counterfactuals.graph import slide_graph
from tissue_counterfactuals.models.cellina import Cellina
from tissue_counterfactuals.models.settings import CellinaGATSettings, CellinaSettings
from tissue_counterfactuals.results.figures import figure_cellina_a1
from tissue_counterfactuals.slide import write_slide

(ROW,) = (e for e in EXPERIMENTS if e.name == "cellina_weights")
SMALL = {"n_hidden": 16, "n_latent": 4, "epochs": 3, "batch_size": 64}
MODEL = CellinaSettings(**SMALL).model_dump(exclude={"time_limit_minutes"})
GAT = CellinaGATSettings(**SMALL, max_neighbors=6).model_dump(exclude={"time_limit_minutes"})
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
        gat=GAT,
        neighbors={"bandwidth_um": 40.0, "max_neighbors": 20, "cutoff": 0.1},
        device="cpu",
        settings=SETTINGS | {"n_samples": 4} | changes,
        switches={k: v for k, v in switches.items() if {k, protocols.SWITCHES[k].step} & read},
        outputs=outputs,
    )
    return outputs


@pytest.fixture
def asked(monkeypatch):
    """Settings of the trainings, who trained in them, and what was trained."""
    seen, fit = [], Cellina.fit

    def watch(model, slide, graph, split, **options):
        seen.append((model.settings, split, type(model).__name__))
        return fit(model, slide, graph, split, **options)

    monkeypatch.setattr(Cellina, "fit", watch)
    return seen


@pytest.mark.parametrize(
    ("swept", "form"),
    [
        ("adversary", "Cellina"),
        ("domain_classifier", "CellinaWithDomain"),
        ("contrastive", "CellinaGAT"),
    ],
)
def test_one_weight_is_varied_and_the_others_are_held(tmp_path, asked, swept, form):
    run(tmp_path / "a", swept, "0.001")
    settings = [own for own, _, _ in asked]
    varied = SWEEPS[swept]
    assert [getattr(own, varied) for own in settings] == [0.001, 0.001]
    for held in {*OF_Z} - {varied}:
        assert [getattr(own, held) for own in settings] == [1e-7, 1]
    assert {name for _, _, name in asked} == {form}
    for _, split, _ in asked:
        assert split.held_out.sum() == 24
        assert split.validation.sum() == 22
        assert (split.train + split.validation + split.held_out == 1).all()


def test_a_classifier_of_the_domain_on_s_learns_it_where_it_has_a_weight():
    slide = small_slide(240, 12)
    graph, split = slide_graph(slide, None, 40.0, 20), cellina_slides.split_slide(240, 0)
    options = MODEL | {"epochs": 6, "device": "cpu", "restore": "last"}
    fits = {
        weight: CellinaWithDomain(**options, lambda_contrastive=weight).fit(slide, graph, split)
        for weight in (1e-7, 100.0)
    }
    losses = [fits[weight].history["contrastive_loss"].to_numpy() for weight in (1e-7, 100.0)]
    # Two domains of one size: it begins at the entropy, and with no weight it stays there.
    assert losses[1][0] == pytest.approx(np.log(2), abs=0.15)
    assert losses[0][-1] > losses[0][0] - 0.02
    assert losses[1][-1] < losses[1][0] - 0.04


def test_all_measures_are_there_for_both_latents_and_labels(tmp_path):
    table = pd.read_csv(run(tmp_path / "a")["scores"], sep="\t")
    assert set(table["others"]) == {1e-7, 1.0}
    one = table[table["others"] == 1].fillna("")
    sizes = one.groupby("measure").size().to_dict()
    assert sizes == {"f1": 4, "guess_f1": 4, "permuted_f1": 4, "kl": 2, "log_likelihood": 1, "effective_samples": 1}
    assert one["value"].notna().all()
    assert set(one["weight"]) == {10.0}
    # Of twelve genes with a few counts each: some nats below 0.
    likelihood = one.set_index("measure").loc["log_likelihood", "value"]
    assert -80 < likelihood < -10
    assert 1 <= one.set_index("measure").loc["effective_samples", "value"] <= 4
    np.testing.assert_array_equal(table["seed"], 3)


def test_as_run_draws_the_latents_that_are_probed(tmp_path, monkeypatch):
    # As run is trained as published, which would take a while.
    quick = {"restore": "best", "monitor": "reconstruction"}
    monkeypatch.setattr(cellina_weights, "under_switches", lambda model, switches: model | quick)
    tables = [
        pd.read_csv(run(tmp_path / p, protocol=p, others=[1.0])["scores"], sep="\t") for p in ("corrected", "as_run")
    ]
    f1 = [t.loc[t["measure"] == "f1", "value"].tolist() for t in tables]
    assert f1[0] != f1[1]


def test_every_sweep_can_be_asked_for():
    WeightSettings(sweeps=list(SWEEPS))


IN_USE = {"classifier": 1.0, "adversary": 10.0, "contrastive": 5.0}


def summary():
    rows = []
    for swept in SWEEPS:
        for others in (1e-7, 1.0):
            for weight in (0.0, 1.0, 10.0):
                names = {"swept": swept, "weight": weight, "others": others, "n_slides": 1, "n_fits": 3}
                names |= {"standard_error": 0.01, "sd_seeds": 0.02}
                for latent in "zs":
                    for label in ("cell_type", "domain"):
                        both = names | {"latent": latent, "label": label}
                        rows.append(both | {"measure": "f1", "median": 0.1 + weight / 20})
                        rows.append(both | {"measure": "permuted_f1", "median": 0.25})
                rows.append(names | {"latent": "", "label": "", "measure": "log_likelihood", "median": -400 - weight})
                rows.append(names | {"latent": "", "label": "", "measure": "effective_samples", "median": 2 + weight})
    return pd.DataFrame(rows)


def half_bar(curve):
    """Length of a whisker above its point."""
    (bars,) = curve.lines[2]
    return np.ptp(bars.get_segments()[0][:, 1]) / 2


def test_the_figure_has_a_column_for_each_loss_and_rows_for_each_weight_of_the_others():
    figure = figure_cellina_a1.compose(summary(), "Weights [simulated]", PROVENANCE, 50, IN_USE)
    assert len(figure.axes) == 4 * len(SWEEPS)
    axes = panel(figure, "Cell-type classifier")
    curves = [c for c in axes.containers if hasattr(c, "has_yerr")]
    assert len(curves) == 4
    for curve in curves:
        np.testing.assert_allclose(curve.lines[0].get_ydata(orig=False), [0.1, 0.15, 0.6])
    chance = [line.get_ydata()[0] for line in axes.get_lines() if line.get_linestyle() == ":"]
    assert chance == [0.25, 0.25]
    assert [t.get_text() for t in axes.get_xticklabels()] == ["0", "1", "10"]
    written = texts(figure)
    assert PROVENANCE in written
    assert any("[simulated]" in t for t in written)
    said = " ".join(written).replace("\n", " ")
    assert "50 draws" in said
    assert "each that of its seeds; bars: standard deviation over seeds of the one slide." in said
    assert half_bar(curves[0]) == pytest.approx(0.02)
    once = figure_cellina_a1.compose(summary().assign(sd_seeds=np.nan), "W [simulated]", PROVENANCE, 50, IN_USE)
    assert "one slide and seed, no bars" in " ".join(texts(once)).replace("\n", " ")
    several = figure_cellina_a1.compose(summary().assign(n_slides=2), "W [simulated]", PROVENANCE, 50, IN_USE)
    curve = next(c for c in panel(several, "Cell-type classifier").containers if hasattr(c, "has_yerr"))
    assert half_bar(curve) == pytest.approx(0.01)
    said_of_several = " ".join(texts(several)).replace("\n", " ")
    assert (
        "Median over slides, each that of its seeds; bars: standard error of the mean over slides." in said_of_several
    )
    assert "count as 2.0 to 12.0 draws" in said


def test_a_line_marks_the_weight_of_the_run_where_the_model_has_the_loss():
    figure = figure_cellina_a1.compose(summary(), "Weights [simulated]", PROVENANCE, 50, IN_USE)
    grid = np.reshape(figure.axes, (4, len(SWEEPS)))
    for axes, name in zip(grid.T, SWEEPS, strict=True):
        marked = [[int(line.get_xdata()[0]) for line in a.get_lines() if line.get_gid() == "in use"] for a in axes]
        # The weights are 0, 1 and 10, so that 5 has no place; the domain classifier is no loss of Cellina.
        assert marked == [{"classifier": [1], "adversary": [2]}.get(name, [])] * 4


def test_the_weights_of_the_run_are_those_of_its_configuration_and_as_run_the_published_ones():
    model = CellinaSettings(lambda_classifier=10, lambda_adversary=0.1).model_dump(exclude={"time_limit_minutes"})
    gat = GAT | {"lambda_contrastive": 2.0}
    for protocol, expected in (("corrected", (10, 0.1, 2)), ("as_run", (1, 1, 1))):
        settings = {"cellina": model, "cellina_gat": gat, "switches": protocols.resolve(protocol)}
        used = figure_cellina_a1.weights_in_use(settings)
        assert used == dict(zip(("classifier", "adversary", "contrastive"), expected, strict=True))


def test_the_figure_of_one_loss_and_one_weight_can_be_read():
    table = summary().query("swept == 'classifier' and weight == 1 and others == 1")
    figure = figure_cellina_a1.compose(table, "Weights [simulated]", PROVENANCE, 50, IN_USE)
    figure.draw_without_rendering()
    for axes in figure.axes:
        assert axes.yaxis.label.get_window_extent().height < axes.get_window_extent().height
    assert {axes.get_xlim() for axes in figure.axes} == {(-0.5, 0.5)}
    assert "count as 3.0 draws" in " ".join(texts(figure)).replace("\n", " ")
    # No line is drawn between weights, so that z and s are told apart by their marks.
    points = [c.lines[0] for c in panel(figure, "Cell-type classifier").containers if hasattr(c, "has_yerr")]
    assert len({(line.get_color(), line.get_marker()) for line in points}) == 4


def test_medians_and_errors_are_over_slides_and_not_over_seeds():
    keys = {"swept": "classifier", "weight": 1.0, "others": 1.0, "measure": "kl", "latent": "z", "label": np.nan}
    values = {"one": (1.0, 2.0, 6.0), "two": (4.0, 5.0), "three": (9.0,)}
    rows = [keys | {"slide": s, "seed": i, "value": v} for s, own in values.items() for i, v in enumerate(own)]
    (row,) = figure_cellina_a1.summarize(pd.DataFrame(rows)).to_dict("records")
    assert row["median"] == 4.5
    assert row["standard_error"] == pytest.approx(np.std([2, 4.5, 9], ddof=1) / 3**0.5)
    assert row["sd_seeds"] == pytest.approx(np.mean([np.std(values[s], ddof=1) for s in ("one", "two")]))
    assert (row["n_slides"], row["n_fits"]) == (3, 6)
    (row,) = figure_cellina_a1.summarize(pd.DataFrame(rows[:3])).to_dict("records")
    assert np.isnan(row["standard_error"])


def test_the_files_are_written(tmp_path):
    made = [run(tmp_path / w, weight=w) for w in ("0", "1")]
    inputs = {"scores": [m["scores"] for m in made], "manifests": [m["manifest"] for m in made]}
    output = {"tsv": tmp_path / "a1.tsv", "png": tmp_path / "a1.png"}
    figure_cellina_a1.draw_files(inputs, output, "corrected")
    assert output["png"].stat().st_size > 10_000
    table = pd.read_csv(output["tsv"], sep="\t")
    assert sorted(table["weight"].unique()) == [0, 1]
