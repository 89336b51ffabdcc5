"""Perturb-map: lesions and genes by brute force, each switch at both values, a planted effect, and the null."""

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from anndata import AnnData
from scipy.stats import spearmanr

from tissue_counterfactuals import config, protocols
from tissue_counterfactuals.errors import InputError
from tissue_counterfactuals.experiments import celcomen_perturbmap as experiment
from tissue_counterfactuals.experiments import perturbmap_lesions as lesions
from tissue_counterfactuals.experiments import perturbmap_null
from tissue_counterfactuals.experiments.perturbmap_question import (
    LesionField,
    Model,
    Question,
    ask,
    correlate,
    fit,
)
from tissue_counterfactuals.models.celcomen import generate
from tissue_counterfactuals.models.celcomen_field import GaussianField
from tissue_counterfactuals.models.celcomen_gaussian import diagonalise, precision_of
from tissue_counterfactuals.models.celcomen_statistics import interaction_weights
from tissue_counterfactuals.neighbors import knn_graph
from tissue_counterfactuals.simulate.lesions import REPORTERS, simulate_lesions
from tissue_counterfactuals.slide import write_slide

ENTRY = {"name": "lesions", "kind": "simulated", "label": "Lesions"}


def settings(**changed):
    loaded = config.load_config(
        {"datasets": {"a": {"source": "simulated_lesions", "experiments": ["celcomen_perturbmap"]}}}
    )
    small = {"draws": 3, "shuffled_fits": 1, "max_genes": 60, "epochs": 30}
    return loaded["celcomen"]["perturbmap"] | small | changed


def switches(protocol, **changed):
    values = protocols.resolve(protocol)
    steps = ("inference", "generation", "celcomen_perturbmap")
    return {n: v for s in steps for n, v in protocols.of_step(values, s).items()} | changed


def question(slide, protocol="corrected", knockout="Tgfbr2", changed=None, **wanted):
    chosen = switches(protocol, **(changed or {}))
    return ask(slide, lesions.log_cpm(slide), knockout, chosen, settings(**wanted), "made")


def simulated(**knobs):
    knobs = {"n_genes": 2500, "n_sections": 2, "normal_tissue": 0, "seed": 1} | knobs
    return lesions.remove_reporters(simulate_lesions(**knobs))


@pytest.fixture(scope="module")
def slide():
    return simulated()


@pytest.fixture(scope="module")
def found(slide):
    """The corrected question with its forces."""
    asked = question(slide)
    return asked, fit(asked, 0)


@pytest.fixture(scope="module")
def as_run(slide):
    asked = question(slide, "as_run")
    return asked, fit(asked, 0)


# --- lesions ------------------------------------------------------------------------------------------------------


def test_labels_say_what_is_lost():
    labels = ["Tgfbr2_1", "Tgfbr2_4-1", "KP_1-3", "periphery", "normal", "H2_Ab1_2-1", "KP"]
    obs = pd.DataFrame({"domain": labels}, index=[f"s{i}" for i in range(len(labels))])
    lost = lesions.lost_genes(AnnData(np.zeros((len(labels), 1)), obs=obs))
    assert lost.tolist() == ["Tgfbr2", "Tgfbr2", "KP", "", "", "H2_Ab1", ""]


def test_the_vectors_features_are_removed():
    slide = simulate_lesions(n_genes=40, n_sections=1, normal_tissue=0)
    assert set(slide.var_names) - set(lesions.remove_reporters(slide).var_names) == set(REPORTERS)


def found_lesions(slide, sections, boxes=(), min_spots=10):
    choice, section = ("boxes", "KP_1") if boxes else ("components", None)
    return lesions.find_lesions(slide, sections, choice, "made", boxes, section, 210.0, min_spots)


def hops_from(place, start):
    """Steps of the lattice from any spot of `start` to every spot, through empty places too; by flooding."""
    column = np.rint(place[:, 0] / 50).astype(int)
    row = np.rint(place[:, 1] / (50 * np.sqrt(3))).astype(int)
    steps = [(2, 0), (-2, 0), (1, 1), (1, -1), (-1, 1), (-1, -1)]
    reached = {(column[i], row[i]): 0 for i in np.flatnonzero(start)}
    border = list(reached)
    for hop in range(1, 6):
        border = [(c + dc, r + dr) for c, r in border for dc, dr in steps if (c + dc, r + dr) not in reached]
        reached |= dict.fromkeys(border, hop)
    return np.array([reached.get(spot, 99) for spot in zip(column, row, strict=True)])


def test_two_steps_around_a_knock_out_belong_to_no_lesion(slide):
    parts = found_lesions(slide, ["KP_1", "KP_2"], min_spots=7)
    kept = np.concatenate([part.spots for part in parts])
    assert len(np.unique(kept)) == len(kept)
    labels = slide.obs["domain"].astype(str)
    for section in ("KP_1", "KP_2"):
        here = (slide.obs["sample"] == section).to_numpy()
        lost = here & labels.str.match("Tgfbr2|Jak2|Ifngr2").to_numpy()
        hops = hops_from(slide.obsm["spatial"], lost)
        expected = np.flatnonzero(here & labels.str.startswith("KP_").to_numpy() & (hops > 2))
        assert set(expected) == set(kept[here[kept]])
        assert (here & labels.str.startswith("KP_").to_numpy() & (hops <= 2)).sum() > 5


def test_components_hang_together_under_one_label(slide):
    parts = found_lesions(slide, ["KP_1"], min_spots=7)
    assert [p.number for p in parts] == [1, 2, 3, 4, 5]
    assert [p.label for p in parts] == ["KP_1-1", "KP_1-1", "KP_1-2", "KP_1-3", "KP_1-3"]
    place = slide.obsm["spatial"]
    for part in parts:
        distance = np.linalg.norm(place[part.spots][:, None] - place[part.spots][None], axis=2)
        reached, border = {0}, [0]
        while border:
            near = set(np.flatnonzero(distance[border.pop()] < 101)) - reached
            reached |= near
            border += near
        assert len(reached) == len(part.spots)
    apart = np.linalg.norm(place[parts[0].spots][:, None] - place[parts[1].spots][None], axis=2)
    assert apart.min() > 101


def test_a_lesion_has_the_same_number_for_every_knock_out(slide):
    both, one = (found_lesions(slide, s, min_spots=7) for s in (["KP_1", "KP_2"], ["KP_2"]))
    assert [(p.number, p.label) for p in one] == [(p.number, p.label) for p in both if p.section == "KP_2"]
    assert one[0].number == 6


def test_boxes_hold_the_lesions_of_the_authors(slide):
    boxes = settings()["boxes_um"]
    parts = found_lesions(slide, ["KP_1", "KP_2"], boxes=boxes)
    by_box, others = parts[:5], parts[5:]
    for part, (left, right, lower, upper) in zip(by_box, boxes, strict=True):
        x, y = slide.obsm["spatial"][part.spots].T
        assert left < x.min() <= x.max() < right
        assert lower < y.min() <= y.max() < upper
    assert {p.section for p in others} == {"KP_2"}
    joined = [[0, 7000, 0, 7000]]
    (one,) = found_lesions(slide, ["KP_1"], boxes=joined)
    assert one.label == "KP_1-1+KP_1-2+KP_1-3"


def test_genes_vary_in_three_quarters_of_the_lesions_and_the_lost_one_is_last(slide):
    expression = lesions.log_cpm(slide)
    parts = found_lesions(slide, ["KP_1", "KP_2"])
    genes = lesions.choose_genes(slide, expression, parts, "Tgfbr2", "made", None)
    votes = np.zeros(slide.n_vars)
    for part in parts:
        own = slide[part.spots].copy()
        sc.pp.normalize_total(own, target_sum=1e6)
        sc.pp.log1p(own)
        sc.pp.highly_variable_genes(own, flavor="seurat", min_mean=0.5, max_mean=7.5, min_disp=0.5)
        votes += own.var["highly_variable"].to_numpy()
    expected = [g for g in np.flatnonzero(votes / len(parts) >= 0.75) if slide.var_names[g] != "Tgfbr2"]
    # The two sum counts in another order: a gene on the edge of a bin may move.
    assert len(set(expected) ^ set(genes[:-1])) <= 0.02 * len(expected)
    assert slide.var_names[genes[-1]] == "Tgfbr2"
    assert len(set(genes)) == len(genes)
    fewer = lesions.choose_genes(slide, expression, parts, "Tgfbr2", "made", 20)
    assert len(fewer) == 21
    assert set(fewer) <= set(genes)


@pytest.mark.parametrize("scale", ["matched", "mixed"])
@pytest.mark.parametrize("wild_type", ["own_lesion", "last_lesion"])
def test_the_observed_difference_by_hand(slide, scale, wild_type):
    expression = lesions.log_cpm(slide)
    parts = found_lesions(slide, ["KP_1"])
    genes = np.append(np.arange(30, 60), slide.var_names.get_loc("Tgfbr2"))
    chosen = {"experimental_scale": scale, "wild_type": wild_type}
    difference = lesions.observed_differences(slide, expression, parts, genes, "Tgfbr2", chosen)[0]

    def unit(rows):
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    raw = slide.X.toarray().astype(float)
    log = np.log1p(raw / raw.sum(axis=1, keepdims=True) * 1e6)
    lost = (slide.obs["domain"] == "Tgfbr2_1").to_numpy()
    wild = parts[0 if wild_type == "own_lesion" else -1].spots
    knocked_out = unit((log if scale == "matched" else raw)[lost][:, genes]).mean(axis=0)
    expected = knocked_out - unit(log[wild][:, genes]).mean(axis=0)
    np.testing.assert_allclose(difference, expected, atol=1e-6)


def test_each_knock_out_lesion_weighs_the_same():
    slide = simulated(n_genes=300, n_sections=4)
    expression = lesions.log_cpm(slide)
    (part, *_) = found_lesions(slide, ["KP_4"])
    genes = np.arange(40)
    chosen = {"experimental_scale": "matched", "wild_type": "own_lesion"}
    (found,) = lesions.observed_differences(slide, expression, [part], genes, "Tgfbr2", chosen)

    def mean_at_norm_1(spots):
        rows = expression[spots][:, genes].toarray()
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).mean(axis=0)

    domain = slide.obs["domain"].to_numpy()
    means = [mean_at_norm_1(np.flatnonzero(domain == d)) for d in ("Tgfbr2_4-1", "Tgfbr2_4-2")]
    np.testing.assert_allclose(found, np.mean(means, axis=0) - mean_at_norm_1(part.spots))


# --- questions and models -------------------------------------------------------------------------------------------


def test_the_sections_of_each_protocol(slide):
    corrected, as_run = question(slide), question(slide, "as_run")
    assert {t.lesion.section for t in corrected.tissues} == {"KP_1", "KP_2"}
    assert {t.lesion.section for t in as_run.tissues} == {"KP_1"}
    assert len(as_run.tissues) == 5
    # Boxes number lesions as the authors do, components by label.
    assert as_run.tissues[0].lesion.label == "KP_1-2"
    assert {t.lesion.section for t in question(slide, knockout="Jak2").tissues} == {"KP_1"}
    one = question(slide, changed={"lesion_sections": "one"})
    assert {t.lesion.section for t in one.tissues} == {"KP_1"}
    outlined = question(slide, "as_run", changed={"lesion_outlines": "components"})
    assert outlined.tissues[0].lesion.label == "KP_1-1"


def test_one_spot_or_all(slide):
    one, several = question(slide, "as_run"), question(slide)
    eligible = several.expressing(0)
    assert (several.tissues[0].log_expression[eligible, -1] > 0).all()
    assert np.array_equal(several.chosen_spots(eligible, 0), eligible)
    np.random.seed(0)  # noqa: NPY002 (the authors' way to draw)
    eligible = one.expressing(0)
    assert one.chosen_spots(eligible, 0) == np.random.choice(eligible, 1)  # noqa: NPY002


def test_the_field_of_a_lesion_agrees_with_conjugate_gradients():
    rng = np.random.default_rng(0)
    n, g = 40, 9
    weights = interaction_weights(knn_graph(rng.random((n, 2)) * 1000), "symmetric")
    inter, intra = ((a + a.T) / 2 for a in 0.05 * rng.standard_normal((2, g, g)))
    intra -= np.eye(g)
    cells, spots = rng.standard_normal((n, g)), np.array([1, 5, 7, 20])
    held = np.zeros((n, g), bool)
    held[spots, 3] = True
    expected = GaussianField(weights, inter, intra).counterfactual(cells, np.zeros((n, g)), held)
    lesion = LesionField(weights, diagonalise(*precision_of(inter, intra)))
    np.testing.assert_allclose(lesion.response(spots, 3, -cells[spots, 3]), expected - cells, atol=1e-7)


def test_as_run_reads_the_output_against_its_start_and_the_other_spots(as_run):
    asked, forces = as_run
    tissue, place = asked.tissues[2], 2
    spots = asked.chosen_spots(asked.expressing(place), 0)
    start = tissue.log_expression.copy()
    start[spots, -1] = 0
    start /= np.linalg.norm(start, axis=1, keepdims=True)
    out, history = generate(
        start, tissue.graph, forces.inter, forces.intra, epochs=20, learning_rate=1e-3,
        protocol="as_run", return_history=True,
    )  # fmt: skip
    change = out - history[0]["expression"]
    others = np.delete(np.arange(len(out)), spots)
    model = Model(asked, forces.inter, forces.intra, "generation")
    expected = change[spots[0]] - change[others].mean(axis=0)
    np.testing.assert_allclose(model.predict(place, spots), expected, atol=1e-6)
    collapsed, own = model.collapsed(place, spots)
    assert collapsed == (~out.any(axis=1)).sum()
    assert own == (not out[spots].any())


def test_a_random_gene_is_put_last_and_its_answer_is_in_the_order_of_the_slide(as_run):
    asked, forces = as_run
    gene = int(np.argmax([len(asked.expressing(0, g)) for g in range(len(asked.genes) - 1)]))
    order = np.append(np.delete(np.arange(len(asked.genes)), gene), gene)
    turned = dataclasses.replace(
        asked,
        genes=asked.genes[order],
        tissues=[dataclasses.replace(t, log_expression=t.log_expression[:, order]) for t in asked.tissues],
    )  # fmt: skip
    spots = asked.expressing(0, gene)[:1]
    matrices = forces.inter, forces.intra
    here = Model(asked, *matrices, "generation").predict(0, spots, gene)
    there = Model(turned, *(m[np.ix_(order, order)] for m in matrices), "generation").predict(0, spots)
    np.testing.assert_allclose(here[order], there, atol=1e-6)


def test_more_draws_than_genes_are_no_more_evidence(found):
    """Each other gene is knocked out once at most, so that the smallest p value is that of so many genes."""
    asked, forces = found
    asked = dataclasses.replace(asked, settings=asked.settings | {"draws": 1000})
    rows = experiment.answer(asked, forces.inter, forces.intra, 0, ("random_gene",), ("field",))
    key = {"dataset": "d", "kind": "simulated", "protocol": "corrected", "seed": 0}
    table = pd.DataFrame([key | row for row in rows])
    lost = table[table["control"] == "random_gene"].groupby("draw")["knocked_out_gene"].unique()
    assert lost.str.len().eq(1).all()
    assert lost.str[0].is_unique
    others = [g for g in range(len(asked.genes) - 1) if any(len(asked.expressing(p, g)) for p in range(8))]
    assert set(lost.str[0]) == set(asked.genes[others])
    row = experiment.summarize(table).set_index("control").loc["random_gene"]
    assert (row["n_draws"], row["smallest_p"]) == (len(others), 1 / (1 + len(others)))


def test_where_there_is_nothing_to_lose_the_field_predicts_nothing(found):
    asked, forces = found
    model = Model(asked, forces.inter, forces.intra, "field")
    empty = np.setdiff1d(np.arange(len(asked.scaled[0])), asked.expressing(0))[:3]
    assert not model.predict(0, empty).any()
    # So it is no control of the field, and the table says why.
    rows = experiment.answer(asked, forces.inter, forces.intra, 0, ("spots_without_gene",))
    own = [r for r in rows if r["control"] == "spots_without_gene"]
    assert not own
    key = {"dataset": "d", "kind": "simulated", "protocol": "corrected", "seed": 0}
    table = experiment.summarize(pd.DataFrame([key | row for row in rows]))
    status = table[table["predictor"] == "field"].set_index("control")["status"]
    assert status["spots_without_gene"].startswith("not tested: the field predicts no change")
    assert status["permuted"] == "not tested: no draw"


@pytest.mark.parametrize("scale", ["matched", "mixed"])
@pytest.mark.parametrize("wild_type", ["own_lesion", "last_lesion"])
def test_wild_type_lesions_stand_for_the_lost_ones_in_every_way_once(slide, scale, wild_type):
    """Five wild-type lesions and one without the gene in one section, three and one in the other."""
    asked = question(slide, changed={"experimental_scale": scale, "wild_type": wild_type}, draws=20)
    assert asked.n_lost == {"KP_1": 1, "KP_2": 1}
    forces = fit(asked, 0)
    rows = experiment.answer(asked, forces.inter, forces.intra, 0, ("wild_type_lesion",), ("field",))
    table = pd.DataFrame(rows).query("control == 'wild_type_lesion'")
    sections = pd.Series([t.lesion.section for t in asked.tissues], index=range(1, 9))
    by_draw = table.groupby("draw")["lesion"].agg(frozenset)
    assert len(by_draw) == len(set(by_draw)) == 5 * 3
    for lesions_left in by_draw:
        taken = set(sections.index) - lesions_left
        assert sections[list(taken)].tolist() in (["KP_1", "KP_2"], ["KP_2", "KP_1"])
    # By hand: the first draw takes the first lesion of each section.
    assert by_draw[0] == {2, 3, 4, 5, 7, 8}
    expression = lesions.log_cpm(slide)
    genes = slide.var_names.get_indexer(asked.genes)

    def mean_at_norm_1(source, place):
        rows = source[asked.tissues[place].lesion.spots][:, genes].toarray().astype(float)
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).mean(axis=0)

    lost = mean_at_norm_1(expression if scale == "matched" else slide.X, 0)
    wild = mean_at_norm_1(expression, 3 if wild_type == "own_lesion" else 7)
    model = Model(asked, forces.inter, forces.intra, "field")
    predicted = model.predict(3, asked.expressing(3))
    expected = spearmanr(predicted[:-1], (lost - wild)[:-1]).statistic
    found = table.query("draw == 0 and lesion == 4")["rho"].item()
    assert found == pytest.approx(expected, abs=1e-6)
    # Where there are more ways than draws, so many of them.
    few = dataclasses.replace(asked, settings=settings(draws=4))
    rows = experiment.answer(few, forces.inter, forces.intra, 0, ("wild_type_lesion",), ("field",))
    assert pd.DataFrame(rows).query("control == 'wild_type_lesion'")["draw"].nunique() == 4
    # Of twelve in each of four sections, three taken at a time, there are two thousand million ways.
    first, places = asked.tissues[0], [(section, i) for section in "abcd" for i in range(12)]
    tissues = [
        dataclasses.replace(first, lesion=dataclasses.replace(first.lesion, section=s, number=i)) for s, i in places
    ]
    many = {"observed": asked.observed[:1] * 48, "as_lost": asked.as_lost[:1] * 48, "n_lost": dict.fromkeys("abcd", 3)}
    many = dataclasses.replace(few, tissues=tissues, **many)
    rows = pd.DataFrame(experiment.answer(many, forces.inter, forces.intra, 0, ("wild_type_lesion",), ("field",)))
    rows = rows.query("control == 'wild_type_lesion'")
    assert (rows.groupby(["draw", "section"]).size() == 9).all()
    assert rows.groupby("draw")[["section", "lesion"]].apply(lambda t: t.to_numpy().tobytes()).nunique() == 4
    # A section whose only wild-type lesion would have to leave has none to spare.
    alone = dataclasses.replace(asked, n_lost={"KP_1": 5, "KP_2": 3})
    rows = experiment.answer(alone, forces.inter, forces.intra, 0, ("wild_type_lesion",), ("field",))
    assert {r["control"] for r in rows} == {"observed"}


def test_genes_are_permuted_once_for_all_lesions(found):
    """The lesions share those that have lost the gene, so one order of genes holds for all of them."""
    asked, forces = found
    same = dataclasses.replace(asked, tissues=asked.tissues[:1] * 3, observed=asked.observed[:1] * 3)
    rows = experiment.answer(same, forces.inter, forces.intra, 0, ("permuted",), ("field",))
    table = pd.DataFrame(rows).query("control == 'permuted'")
    spread = table.groupby("draw")["rho"].agg(["min", "max"])
    assert len(spread) == 3
    np.testing.assert_array_equal(spread["min"], spread["max"])
    assert spread["min"].nunique() == 3


def test_shuffled_expression_keeps_each_gene_and_loses_their_agreement(found):
    asked, forces = found
    mixed = fit(asked, 0, shuffle=0)
    again, other = fit(asked, 0, shuffle=0), fit(asked, 0, shuffle=1)
    assert np.array_equal(mixed.intra, again.intra)
    assert not np.array_equal(mixed.intra, other.intra)
    upper = np.triu_indices(len(asked.genes), 1)
    assert np.abs(mixed.intra[upper]).mean() < 0.8 * np.abs(forces.intra[upper]).mean()


def test_correlations_leave_out_the_knocked_out_genes():
    rng = np.random.default_rng(0)
    a, b, c = rng.standard_normal((3, 30))
    values = correlate(a, b, c, [29, 4])
    kept = np.delete(np.arange(30), [29, 4])
    test = spearmanr(a[kept], b[kept])
    assert values["rho"] == pytest.approx(test.statistic)
    assert values["p_value"] == pytest.approx(test.pvalue)
    ranks = pd.DataFrame({"a": a[kept], "b": b[kept], "c": c[kept]}).rank().corr().to_numpy()
    partial = np.linalg.inv(ranks)
    expected = -partial[0, 1] / np.sqrt(partial[0, 0] * partial[1, 1])
    assert values["partial_rho"] == pytest.approx(expected)
    assert np.isnan(correlate(np.ones(30), b, c, [29])["rho"])


@pytest.mark.parametrize(
    "name", ["experimental_scale", "wild_type", "knockout_spots", "lesion_sections", "lesion_outlines"]
)  # fmt: skip
def test_each_switch_of_the_experiment_is_read(slide, name):
    """From as run, the other value changes what is asked or what is taken."""
    base = question(slide, "as_run")
    values = protocols.SWITCHES[name].values
    other = next(v for v in values if v != base.switches[name])
    turned = question(slide, "as_run", changed={name: other})

    def asked(q: Question):
        lesion_spots = [t.lesion.spots.tolist() for t in q.tissues]
        taken = [q.chosen_spots(q.expressing(p), 0).tolist() for p in range(len(q.tissues))]
        return lesion_spots, taken, [o.tolist() for o in q.observed]

    assert asked(base) != asked(turned)
    assert asked(base) == asked(question(slide, "as_run", changed={name: base.switches[name]}))


# --- what comes out -------------------------------------------------------------------------------------------------


def median(rows, control="observed", predictor=None):
    table = pd.DataFrame(rows)
    chosen = table["control"] == control
    if predictor:
        chosen &= table["predictor"] == predictor
    return table.loc[chosen].groupby("draw")["rho"].median()


def test_a_planted_effect_is_found_and_leaves_its_controls_behind():
    slide = simulated(n_genes=3000, target_counts=6.0)
    asked = question(slide, draws=8, generation_epochs=2)
    forces = fit(asked, 0)
    rows = experiment.answer(
        asked, forces.inter, forces.intra, 0, ("minus_baseline", "permuted", "random_gene", "shuffled_forces")
    )
    observed = median(rows, predictor="field").iloc[0]
    assert observed > 0.4
    for control in ("minus_baseline", "permuted", "random_gene", "shuffled_forces"):
        assert median(rows, control, "field").median() < observed - 0.2, control


def test_minus_mean_expression_is_that_of_the_same_lesion(found):
    asked, forces = found
    rows = pd.DataFrame(experiment.answer(asked, forces.inter, forces.intra, 0, ("minus_baseline",)))
    rows = rows[(rows["control"] == "minus_baseline") & (rows["predictor"] == asked.predictors[0])]
    own = [spearmanr(-x.mean(axis=0)[:-1], y[:-1])[0] for x, y in zip(asked.scaled, asked.observed, strict=True)]
    assert len(own) > 1
    assert rows["rho"].tolist() == pytest.approx(own)


def test_every_spot_of_a_lesion_has_its_response_and_no_other(slide, found):
    asked, forces = found
    table = experiment.spot_table(slide, asked, forces.inter, forces.intra, 0)
    modelled = (table["lesion"] > 0).to_numpy()
    assert 0 < modelled.sum() < len(table)
    np.testing.assert_array_equal(np.isfinite(table["response"]), modelled)
    # Neighbours of knocked-out spots answer too.
    assert (table.loc[modelled & ~table["knocked_out"].to_numpy(bool), "response"] > 0).any()


@pytest.fixture(scope="module")
def nothing_happens():
    """A whole transcriptome without any effect: answers as run, as run but on one scale, and corrected."""
    seed = 0
    slide = simulated(n_genes=20_000, n_sections=1, knockout_effect=0, seed=seed)
    asked = question(slide, "as_run", max_genes=200, epochs=100)
    forces = fit(asked, seed)
    genes = slide.var_names.get_indexer(asked.genes)
    expression, parts = lesions.log_cpm(slide), [t.lesion for t in asked.tissues]
    chosen = asked.switches | {"experimental_scale": "matched"}
    observed = lesions.observed_differences(slide, expression, parts, genes, "Tgfbr2", chosen)
    matched = dataclasses.replace(asked, observed=observed)
    found = {
        name: experiment.answer(own, forces.inter, forces.intra, seed, ("minus_baseline",))
        for name, own in (("as_run", asked), ("matched", matched))
    }
    return found


def test_as_run_reports_a_correlation_where_nothing_happens(nothing_happens):
    found = median(nothing_happens["as_run"]).iloc[0]
    assert found > 0.05
    # Minus mean expression, which needs no model, does better still.
    assert median(nothing_happens["as_run"], "minus_baseline").iloc[0] > found
    # One of the defects is enough to take it away: knock-outs on the scale of raw counts.
    assert abs(median(nothing_happens["matched"]).iloc[0]) < found / 2


def test_the_summary_by_hand():
    key = {
        "dataset": "d",
        "kind": "simulated",
        "protocol": "corrected",
        "seed": 0,
        "knockout": "A",
        "predictor": "field",
        "n_genes": 9,
    }
    rows = [
        key | {"section": "s", "control": "observed", "draw": 0, "rho": r, "partial_rho": r / 2}
        for r in (0.3, 0.5, 0.4)
    ]
    for draw, values in enumerate([(0.0, 0.1, 0.2), (0.5, 0.4, 0.4), (np.nan,) * 3]):
        for control in ("random_gene", "permuted"):
            rows += [
                key | {"section": "s", "control": control, "draw": draw, "rho": r, "partial_rho": r} for r in values
            ]
    table = experiment.summarize(pd.DataFrame(rows)).set_index("control")
    assert list(table.index) == list(experiment.CONTROLS)
    row = table.loc["random_gene"]
    assert (row["median"], row["lowest"], row["highest"]) == (0.4, 0.3, 0.5)
    # Medians 0.1, 0.4 and, undefined, 0: one of three reaches 0.4, and the observed one is counted in.
    assert row["p_value"] == pytest.approx(2 / 4)
    assert row["partial_p_value"] == pytest.approx(2 / 4)
    assert (row["null_median"], row["n_undefined"], row["n_draws"]) == (0.1, 3, 3)
    assert row["rank_test_p"] == pytest.approx(0.1)
    assert row["smallest_p"] == pytest.approx(1 / 4)
    # The same draws of a control that takes genes for exchangeable: a range, and no p value.
    permuted = table.loc["permuted"]
    assert permuted[["p_value", "partial_p_value", "smallest_p"]].isna().all()
    same = ["null_median", "null_low", "null_high", "n_draws", "status"]
    assert permuted[same].tolist() == row[same].tolist()
    assert table["status"].to_dict() == dict.fromkeys(experiment.CONTROLS, "not tested: no draw") | dict.fromkeys(
        ("random_gene", "permuted"), "tested"
    ) | {"spots_without_gene": f"not tested: {experiment.NOTHING_TO_LOSE}"}
    assert table.loc["shuffled_data", "n_draws"] == 0
    assert np.isnan(table.loc["shuffled_data", "p_value"])


def test_a_lesion_whose_knock_out_changes_nothing_counts_as_0_as_a_draw_does():
    """Left out, it would raise the observed median and not those of the draws; one without the gene says nothing."""
    key = {"dataset": "d", "kind": "simulated", "protocol": "corrected", "seed": 0, "knockout": "A", "section": "s"}
    values = [(0.5, 9), (np.nan, 9), (np.nan, np.nan), (0.4, 9), (np.nan, 9)]
    rows = [
        key | {"predictor": "field", "control": control, "draw": 0, "rho": rho, "partial_rho": rho, "n_genes": n}
        for control in ("observed", "random_gene")
        for rho, n in values
    ]
    row = experiment.summarize(pd.DataFrame(rows)).set_index("control").loc["random_gene"]
    assert (row["median"], row["lowest"], row["highest"], row["n_lesions"]) == (0.2, 0, 0.5, 4)
    assert (row["partial_median"], row["null_median"]) == (0.2, 0.2)


def test_a_run_writes_the_same_tables_twice(slide, tmp_path):
    write_slide(slide, tmp_path / "slide.h5ad")
    names = ("correlations", "genes", "spots", "summary", "diagnostics", "effects")
    written = []
    for folder in ("one", "two"):
        outputs = {name: tmp_path / folder / f"{name}.tsv" for name in names}
        outputs["manifest"] = tmp_path / folder / "manifest.json"
        experiment.run(
            tmp_path / "slide.h5ad", ENTRY, "as_run", [0, 1],
            settings(knockouts=["Jak2"], draws=2, generation_epochs=3, max_genes=20), switches("as_run"), outputs,
        )  # fmt: skip
        written.append({name: outputs[name].read_bytes() for name in outputs})
    assert written[0] == written[1]
    table = pd.read_csv(tmp_path / "one/correlations.tsv", sep="\t")
    # Jak2 is lost in one lesion of the section, and any of the five can stand for it.
    assert set(table["control"]) == {"observed", *experiment.CONTROLS}
    assert table.loc[table["control"] == "observed", "lesion"].tolist() == [1, 2, 3, 4, 5] * 2
    assert (table[["dataset", "kind", "protocol"]] == ["lesions", "simulated", "as_run"]).all().all()
    spots = pd.read_csv(tmp_path / "one/spots.tsv", sep="\t")
    assert spots["section"].unique() == ["KP_1"]
    assert sorted(spots["lesion"].unique()) == [0, 1, 2, 3, 4, 5]
    genes = pd.read_csv(tmp_path / "one/genes.tsv", sep="\t")
    assert "Jak2" not in set(genes["gene"])
    span = genes.groupby("lesion")["predicted_scaled"].agg(["min", "max"])
    assert (span == [0, 1]).all().all()
    manifest = json.loads((tmp_path / "one/manifest.json").read_text())
    assert manifest["kind"] == "simulated"
    assert manifest["settings"]["switches"]["knockout_spots"] == "one"


def test_the_null_test_turns_every_switch_alone_and_in_sequence(tmp_path):
    small = {"seeds": 1, "depths": [8000], "n_genes": 1000, "n_modelled_genes": 20, "n_sections": 1, "draws": 2}
    outputs = {name: tmp_path / f"{name}.tsv" for name in ("correlations", "summary", "switches")}
    # Where lesions lie on the user's slide says nothing of simulated ones.
    elsewhere = {"section": "S1", "boxes_um": [[0, 10, 0, 10]], "trim_um": 9000.0, "min_spots": 6000}
    perturbmap_null.null_test(settings(null_test=small, generation_epochs=3, **elsewhere), {}, outputs)
    turned = pd.read_csv(outputs["switches"], sep="\t")
    names = {name for turn in perturbmap_null.TURNS for name in turn}
    steps = {protocols.SWITCHES[name].step for name in names}
    assert steps == {"inference", "generation", "celcomen_perturbmap"}
    every = {s.name for s in protocols.SWITCHES.values() if s.step in steps}
    assert names == every
    alone = turned[(turned["path"] == "alone") & (turned["seed"] == 0)]
    assert len(alone) == 1 + len(perturbmap_null.TURNS)
    sequence = turned[(turned["path"] == "sequence") & (turned["seed"] == 0)]
    assert sequence["predictor"].tolist()[-1] == "field"
    # The sequence begins and ends with the protocols themselves.
    rows = pd.read_csv(outputs["correlations"], sep="\t")
    rows = rows[(rows["seed"] == 0) & (rows["control"] == "observed")]
    medians = rows.groupby(["protocol", "predictor"])["rho"].median()
    assert sequence["rho"].iloc[0] == pytest.approx(medians["as_run", "generation"], abs=1e-5)
    assert sequence["rho"].iloc[-1] == pytest.approx(medians["corrected", "field"], abs=1e-5)
    assert sequence["rho"].iloc[-2] == pytest.approx(medians["corrected", "generation"], abs=1e-5)
    summary = pd.read_csv(outputs["summary"], sep="\t")
    assert summary["n_simulations"].tolist() == [1, 1, 1]


# --- bad input ------------------------------------------------------------------------------------------------------


def without(slide, labels):
    return slide[~slide.obs["domain"].isin(labels)].copy()


@pytest.mark.parametrize(
    ("change", "wanted", "message"),
    [
        (lambda s: s, {"knockout": "Stat1"},
        "no spot is labelled as a lesion without 'Stat1'.*Ifngr2, Jak2, Tgfbr2: name"),
        (lambda s: without(s, ["KP_1-1", "KP_1-2", "KP_1-3"]), {"knockout": "Jak2"},
        "no section with a lesion without 'Jak2' has a wild-type lesion"),
        (lambda s: s[:, s.var_names != "Tgfbr2"].copy(), {}, "it has no gene 'Tgfbr2'.*n_top_genes to null"),
        (lambda s: s, {"section": "KP_9", "protocol": "as_run"},
        "section 'KP_9', which celcomen.perturbmap.section names, has no lesions.*KP_1, KP_2"),
        (lambda s: s, {"boxes_um": [[0, 10, 0, 10]], "protocol": "as_run"},
        r"the box \[0, 10, 0, 10\] holds 0 wild-type spots of section 'KP_1'.*boxes_um"),
        (lambda s: s, {"trim_um": 9000.0}, "keeps 10 spots that hang together more than 9000 um.*trim_um"),
        (lambda s: s[:, [*range(8), s.var_names.get_loc("Tgfbr2")]].copy(), {},
        "genes are highly variable in three quarters"),
    ],
)  # fmt: skip
def test_bad_input_is_refused_with_the_way_to_mend_it(slide, change, wanted, message):
    with pytest.raises(InputError, match=message):
        question(change(slide), **wanted)


def test_a_gene_that_no_spot_has_is_refused(slide):
    counts = slide.X.tolil()
    counts[:, slide.var_names.get_loc("Tgfbr2")] = 0
    silent = slide.copy()
    silent.X = counts.tocsr()
    with pytest.raises(InputError, match="no spot of its .* has a count of 'Tgfbr2'"):
        question(silent)


def test_what_was_never_tested_is_no_count_of_zero():
    assert perturbmap_null._significant(pd.Series([0.01, 0.5])) == 1
    assert np.isnan(perturbmap_null._significant(pd.Series([np.nan, 0.01])))
