"""A user's own question: who becomes a neighbour, and what is refused in one sentence."""

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from slides import small_slide
from tasks import SECTIONS
from tissue_counterfactuals import protocols
from tissue_counterfactuals.errors import InputError
from tissue_counterfactuals.graph import slide_graph
from tissue_counterfactuals.methods import METHODS
from tissue_counterfactuals.question.asked import ask_own
from tissue_counterfactuals.question.nodes import pseudobulk_shift
from tissue_counterfactuals.question.question import read_question, write_question
from tissue_counterfactuals.question.settings import UserQuestion
from tissue_counterfactuals.question.task import Task

GRAPH = {"max_neighbors": 30}


@pytest.fixture(scope="module")
def slide():
    return small_slide(n_cells=600)


@pytest.fixture(scope="module")
def graph(slide):
    return slide_graph(slide, **GRAPH)


def asked(**keys):
    given = {"name": "q", "cell_type": "A", "domain": "left"} | keys
    return UserQuestion.read(given).model_dump()


def ask(slide, graph, n_donors=20, seed=0, genes=None, **keys):
    switches = protocols.resolve("corrected")
    return ask_own(slide, graph, asked(**keys), "corrected", seed, switches, GRAPH, n_donors, 0.1, genes)


def types_of(slide, question):
    (donors,) = question.perturbations.values()
    return donors, slide.obs["cell_type"].astype(str).to_numpy()[donors]


def test_nothing_is_held_out_and_the_file_says_the_same(slide, graph, tmp_path):
    question = ask(slide, graph, move_to="right")
    assert not question.split.held_out.any()
    assert (question.split.train ^ question.split.validation).all()
    expected = (slide.obs["cell_type"] == "A") & (slide.obs["domain"] == "left")
    np.testing.assert_array_equal(question.focal, np.flatnonzero(expected))
    donors, _ = types_of(slide, question)
    assert (slide.obs["domain"].to_numpy()[donors] == "right").all()
    write_question(question, tmp_path / "q.npz")
    read = read_question(tmp_path / "q.npz")
    np.testing.assert_array_equal(types_of(slide, read)[0], donors)
    assert list(read.perturbations) == [("donors", "right", "any_type")]


def test_another_seed_draws_others_and_the_same_seed_the_same(slide, graph):
    one, again, other = (types_of(slide, ask(slide, graph, seed=s, composition={"B": 1}))[0] for s in (0, 0, 1))
    np.testing.assert_array_equal(one, again)
    assert (one != other).any()


def test_a_composition_is_met_from_the_cells_own_domain(slide, graph):
    question = ask(slide, graph, composition={"B": 3, "C": 1, "A": 0})
    donors, types = types_of(slide, question)
    assert (slide.obs["domain"].to_numpy()[donors] == "left").all()
    assert (types == "B").mean() == pytest.approx(0.75, abs=0.03)
    assert not (types == "A").any()


def test_a_type_that_the_domain_lacks_comes_from_elsewhere(slide, graph):
    moved = slide.copy()
    lacking = ((moved.obs["cell_type"] == "B") & (moved.obs["domain"] == "left")).to_numpy()
    moved.obs.loc[lacking, "cell_type"] = "C"
    donors, types = types_of(moved, ask(moved, graph, composition={"B": 1}))
    assert (types == "B").all()
    assert (moved.obs["domain"].to_numpy()[donors] == "right").all()


def test_a_removed_sender_is_gone_and_the_others_are_the_cells_own_neighbours(slide, graph):
    question = ask(slide, graph, remove_sender="B")
    donors, types = types_of(slide, question)
    assert not (types == "B").any()
    near = [
        np.isin(row, graph[[cell]].indices).all()
        for cell, row in zip(question.focal, donors, strict=True)
        if (slide.obs["cell_type"].to_numpy()[graph[[cell]].indices] != "B").any()
    ]
    assert len(near) > 50
    assert all(near)


def test_an_added_sender_has_its_share(slide, graph):
    question = ask(slide, graph, add_sender="C", share=0.5)
    donors, types = types_of(slide, question)
    assert donors.shape[1] == 20
    assert (types[:, 10:] == "C").all()
    # The other half is drawn from the cells' own neighbours.
    assert 0.2 < (types[:, :10] == "C").mean() < 0.5
    near = [graph[[cell]].indices for cell in question.focal]
    assert all(np.isin(row[:10], own).all() for row, own in zip(donors, near, strict=True))


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ({"move_to": "rigt"}, "move_to names 'rigt', which no cell of the slide has; did you mean 'right'?"),
        ({"cell_type": "Z", "move_to": "right"},
        "cell_type names 'Z', which no cell of the slide has; there are A, B, C."),
        ({"remove_sender": "D"}, "remove_sender names 'D', which no cell of the slide has"),
        ({"composition": {"B": 1, "E": 1}}, "composition names 'E'"),
        ({"shift_genes": ["gene_1"], "senders": "F"}, "senders names 'F'"),
        ({"sample": "two", "move_to": "right"}, "sample names 'two', which no cell of the slide has; there are one."),
        ({"where": {"batch": 1}, "move_to": "right"},
        "where.batch: the slide has no column 'batch'; name it under keep_columns of the data set."),
        ({"shift_towards": "rihgt"}, "shift_towards names 'rihgt', which no cell of the slide has; did you mean "
            "'right'?"),
        ({"knock_out": ["gene_99"]}, "knock_out names 'gene_99', which is no gene of the slide; the nearest names are "
            "gene_9"),
        ({"knock_out": ["GENE_7"]}, "knock_out names 'GENE_7', which is no gene of the slide; the nearest names are "
            "gene_7, "),
        ({"knock_out": ["Xyz"]}, "knock_out names 'Xyz', which is no gene of the slide; the first are gene_0, gene_1, "
            "gene_2."),
        ({"shift_pathway": "TGFb"}, "shift_pathway: no gene of the slide is in PROGENy (the first is 'gene_0'); give "
            "weights of your own."),
        ({"shift_genes": ["gene_99"]}, "shift_genes names 'gene_99', which is neither a gene of the slide nor a "
            "bundled gene set, of human symbols, that holds one; the nearest names are gene_9"),
    ],
)  # fmt: skip
def test_what_the_slide_has_not_is_refused(slide, graph, keys, sentence):
    with pytest.raises(InputError) as error:
        ask(slide, graph, **keys)
    assert str(error.value).startswith(f"question q: {sentence}")


def test_a_gene_that_is_not_modelled_is_told_apart_from_one_that_is_not_there(slide, graph):
    more = "If the data have it, raise preprocess.n_top_genes (null keeps all genes)."
    for keys, sentence in (
        ({"knock_out": ["gene_7"]}, "knock_out names 'gene_7', which is not among the 5 variable genes that are "
            "modelled; the nearest names are gene_"),
        ({"shift_genes": ["gene_7"]}, "shift_genes names 'gene_7', which is neither among the 5 variable genes that "
            "are modelled nor a bundled gene set, of human symbols, that holds one; the nearest names are gene_"),
    ):  # fmt: skip
        with pytest.raises(InputError) as error:
            ask(slide, graph, genes=np.arange(5), **keys)
        assert str(error.value).startswith(f"question q: {sentence}")
        assert str(error.value).endswith(more)


def test_too_few_focal_cells_are_refused(slide, graph):
    few = slide.copy()
    own = np.flatnonzero((few.obs["cell_type"] == "A") & (few.obs["domain"] == "left"))
    few.obs.iloc[own[3:], few.obs.columns.get_loc("cell_type")] = "B"
    with pytest.raises(InputError, match="the slide has 3 cells of type 'A' in domain 'left', and at least 4"):
        ask(few, graph, move_to="right")


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ({}, "has no intervention; give one of move_to, composition, remove_sender, add_sender, shift_genes, "
            "shift_towards, shift_pathway, knock_out."),
        ({"move_to": "right", "add_sender": "B"}, "has move_to and add_sender; give one of"),
        ({"composition": {"B": 0, "C": 0}}, ".composition sums to 0; give at least one type a share above 0."),
        ({"composition": {"B": -1, "C": 2}}, ".composition.B is -1; give shares from 0 up."),
        ({"move_to": "left"}, ".move_to is 'left', where the focal cells already stand; name another domain."),
        ({"move_to": "right", "methods": ["mean_shift"]}, "allowed is"),
        ({"move_to": "right", "methods": ["concert"]},
        ".methods names concert, which cannot be told new neighbours; leave it out."),
        ({"shift_genes": ["gene_1"], "methods": ["mintflow"]},
        ".methods names mintflow, which cannot be told altered neighbours"),
        ({"knock_out": ["gene_1"], "methods": ["hierarchical"]},
        ".methods names hierarchical, which cannot be told a knock-out in the focal cells"),
        ({"shift_towards": "left"}, ".shift_towards is 'left', where the focal cells already stand"),
        ({"shift_towards": "right", "dose": 0}, ".dose is 0, which changes nothing; give another number."),
        ({"shift_genes": ["gene_1"], "factor": 1}, ".factor is 1, which changes nothing; give another number."),
        ({"move_to": "right", "name": "a/b"}, "name is"),
    ],
)  # fmt: skip
def test_what_is_no_question_is_refused(keys, sentence):
    with pytest.raises(InputError) as error:
        asked(**keys)
    assert sentence in str(error.value)


@pytest.mark.parametrize(
    ("keys", "key", "readers"),
    [
        ({"remove_sender": "B", "share": 0.5}, "share", "add_sender"),
        ({"knock_out": ["gene_1"], "factor": 0.5}, "factor", "shift_genes"),
        ({"shift_genes": ["gene_1"], "dose": 2}, "dose", "shift_towards, shift_pathway"),
        ({"move_to": "right", "senders": "B"}, "senders", "shift_genes, shift_towards, shift_pathway"),
        ({"composition": {"B": 1}, "donor_rule": "matched"}, "donor_rule", "move_to"),
        ({"shift_pathway": "TGFb", "by_type": False}, "by_type", "shift_towards"),
        ({"shift_towards": "right", "weights": "w.tsv"}, "weights", "shift_pathway"),
    ],
)
def test_a_key_of_another_intervention_is_refused(keys, key, readers):
    with pytest.raises(InputError) as error:
        asked(**keys)
    intervention = next(iter(keys))
    assert f".{key} is read for {readers}, and not for {intervention}; leave it out." in str(error.value)


def test_a_share_of_senders_is_one_of_the_senders(slide, graph):
    of_b = np.flatnonzero(slide.obs["cell_type"] == "B")
    for seed in range(3):
        question = ask(slide, graph, seed=seed, shift_genes=["gene_3"], senders="B", share_of_senders=0.5)
        (node,) = question.nodes("left").values()
        assert len(node.cells) == round(len(of_b) / 2)
        assert np.isin(node.cells, of_b).all()
    with pytest.raises(InputError, match=r"^question q: share_of_senders is 0.001, which is none of the cells"):
        ask(slide, graph, shift_genes=["gene_3"], senders="B", share_of_senders=0.001)


def test_senders_whose_change_nobody_knows_are_refused(slide, graph, tmp_path):
    moved = slide.copy()
    lacking = ((moved.obs["cell_type"] == "B") & (moved.obs["domain"] == "right")).to_numpy()
    moved.obs.loc[lacking, "cell_type"] = "C"
    keys = {"shift_towards": "right", "senders": "B"}
    with pytest.raises(InputError) as error:
        ask(moved, graph, **keys)
    assert str(error.value) == (
        "question q: senders names 'B', whose change is not known from shift_towards: it has no cells in 'left' or "
        "none in 'right'; name another type."
    )
    # All types alike: what the others do is known.
    (node,) = ask(moved, graph, **keys, by_type=False).nodes("left").values()
    assert node.shift[1].any()
    weights = tmp_path / "w.tsv"
    weights.write_text("source\ttarget\tweight\tcell_type\non\tgene_3\t4\tA\n")
    with pytest.raises(InputError, match="'B', whose change is not known from weights: they have none of it"):
        ask(slide, graph, shift_pathway="on", weights=str(weights), senders="B")


@pytest.mark.parametrize("keys", [{"composition": {"A": 1}}, {"add_sender": "A", "share": 0.9}])
def test_nobody_stands_beside_itself(slide, graph, keys):
    question = ask(slide, graph, **keys)
    donors, _ = types_of(slide, question)
    assert not (donors == question.focal[:, None]).any()


def test_a_pool_as_large_as_the_donors_is_drawn_whole_but_for_the_cell_itself(slide, graph):
    few = slide.copy()
    others = np.flatnonzero((few.obs["cell_type"] == "A") & (few.obs["domain"] == "left"))
    few.obs.loc[few.obs_names[others[4:]], "domain"] = "right"
    question = ask(few, graph, n_donors=3, composition={"A": 1})
    donors, _ = types_of(few, question)
    for cell, row in zip(question.focal, donors, strict=True):
        assert sorted(row) == sorted({*others[:4]} - {cell})


def test_a_cell_left_without_neighbours_gets_others_of_its_domain(slide):
    alone = slide_graph(slide, **GRAPH).tolil()
    alone[:] = 0
    question = ask(slide, alone.tocsr(), n_donors=100, remove_sender="B")
    donors, types = types_of(slide, question)
    assert not (donors == question.focal[:, None]).any()
    assert not (types == "B").any()


def test_a_question_that_leaves_nobody_around_a_cell_is_refused(slide, graph):
    only = slide.copy()
    left = (only.obs["domain"] == "left").to_numpy()
    only.obs.loc[left, "cell_type"] = "A"
    # A border may still have others beside it.
    inside = sparse.diags_array(left.astype(float))
    apart = sparse.csr_array(inside @ graph @ inside)
    with pytest.raises(InputError, match=r"^question q: remove_sender names 'A', and then no other cell is there"):
        ask(only, apart, remove_sender="A")


@pytest.mark.parametrize(("n_donors", "share", "told"), [(1, 0.3, "none of 1"), (1, 0.7, "all of 1")])
def test_a_share_that_no_donors_can_have_is_refused(slide, graph, n_donors, share, told):
    with pytest.raises(InputError, match=rf"^question q: share is {share}, which is {told} new neighbours; raise"):
        ask(slide, graph, n_donors=n_donors, add_sender="C", share=share)


def test_shifted_genes_are_factors_of_the_senders_alone(slide, graph, tmp_path):
    question = ask(slide, graph, shift_genes=["gene_3", "gene_5"], factor=2.5, senders="B")
    write_question(question, tmp_path / "q.npz")
    (node,) = read_question(tmp_path / "q.npz").nodes("left").values()
    expected = np.ones((3, 20))
    expected[1, [3, 5]] = 2.5
    np.testing.assert_allclose(np.exp(node.shift), expected, rtol=1e-6)
    task = Task(slide, question)
    counts, altered = slide.X.toarray(), task.altered_counts(node).toarray()
    of_b = (slide.obs["cell_type"] == "B").to_numpy()
    expected = 2.5 * counts[np.ix_(of_b, [3, 5])]
    np.testing.assert_allclose(altered[np.ix_(of_b, [3, 5])], expected, rtol=1e-6)
    np.testing.assert_array_equal(altered[~of_b], counts[~of_b])
    rest = np.setdiff1d(np.arange(20), [3, 5])
    np.testing.assert_array_equal(altered[:, rest], counts[:, rest])


def test_a_gene_set_stands_for_its_genes(slide, graph):
    named = slide.copy()
    named.var_names = ["IL6", "TNF", *named.var_names[2:]]
    question = ask(named, graph, shift_genes=["HALLMARK_TNFA_SIGNALING_VIA_NFKB"])
    (node,) = question.nodes("left").values()
    np.testing.assert_array_equal(np.exp(node.shift), np.where(np.arange(20) < 2, 0, 1) * np.ones((3, 1)))


def test_a_set_of_human_symbols_is_no_set_of_a_slide_of_mouse(slide, graph):
    # Both species spell C3 alike: of the set one gene would be shifted.
    mouse = slide.copy()
    mouse.var_names = ["C3", "Tmprss2", "Nkx3-1", "Acsl3", *(f"Gene{k}" for k in range(4, mouse.n_vars))]
    with pytest.raises(InputError, match="HALLMARK_COMPLEMENT', which is neither a gene of the slide nor a bundled"):
        ask(mouse, graph, shift_genes=["HALLMARK_COMPLEMENT"])


def test_focal_cells_are_of_a_sample_and_of_any_column(slide, graph):
    labelled = slide.copy()
    labelled.obs["batch"] = pd.Categorical(np.arange(slide.n_obs) % 3)
    question = ask(labelled, graph, move_to="right", sample="one", where={"batch": 2})
    expected = (slide.obs["cell_type"] == "A") & (slide.obs["domain"] == "left")
    expected &= np.arange(slide.n_obs) % 3 == 2
    np.testing.assert_array_equal(question.focal, np.flatnonzero(expected))
    few = labelled.copy()
    few.obs["batch"] = np.arange(slide.n_obs)
    with pytest.raises(InputError, match="0 cells of type 'A' in domain 'left', batch 7, and at"):
        ask(few, graph, move_to="right", where={"batch": 7})


def test_neighbours_may_express_what_their_types_do_elsewhere(slide, graph):
    keys = {"shift_towards": "right", "top_genes": 4, "dose": 0.5, "senders": "B"}
    (node,) = ask(slide, graph, **keys).nodes("left").values()
    nothing = np.zeros(slide.n_obs, dtype=bool)
    whole = pseudobulk_shift(slide, "left", "right", nothing, n_genes=4)
    np.testing.assert_allclose(node.shift[1], 0.5 * whole[1], rtol=1e-6)
    assert (node.shift[[0, 2]] == 0).all()
    assert (node.scale, node.cells) == ("own", None)
    # Nothing is held out, so that the focal type's own change is its own.
    (every,) = ask(slide, graph, **(keys | {"senders": "A"})).nodes("left").values()
    np.testing.assert_allclose(every.shift[0], 0.5 * whole[0], rtol=1e-6)
    assert (whole[0] != whole[1]).any()


def test_concert_answers_no_other_dose_than_the_whole_vector_of_a_domain(slide, graph, tmp_path):
    settings = SECTIONS["concert"] | {"epochs": 1}
    adapter, made = METHODS["concert"].adapter, {}
    for dose in (1, -1):
        question = ask(slide, graph, shift_towards="right", dose=dose, methods=["concert"])
        task = Task(slide, question, settings, device="cpu", report=lambda line: None)
        if not made:
            adapter.fit(task, tmp_path)
        made[dose] = adapter.predict(task, tmp_path, "left")["shift_towards"]
    assert made[1].values.shape == (len(task.focal), 20)
    assert made[-1] == "CONCERT gives neighbours the vector of another domain as a whole: it can answer no dose but 1"


def test_neighbours_may_all_express_what_all_types_together_do_elsewhere(slide, graph, tmp_path):
    question = ask(slide, graph, shift_towards="right", top_genes=4, by_type=False, dose=0.5)
    write_question(question, tmp_path / "q.npz")
    (node,) = read_question(tmp_path / "q.npz").nodes("left").values()
    nothing = np.zeros(slide.n_obs, dtype=bool)
    whole = pseudobulk_shift(slide, "left", "right", nothing, n_genes=4, by_type=False)
    assert (whole == whole[0]).all()
    np.testing.assert_allclose(node.shift, 0.5 * whole, rtol=1e-6)
    assert node.origin == {"towards": "right", "dose": 0.5}


def test_neighbours_alone_may_be_altered(slide, graph):
    keys = {"shift_genes": ["gene_3"], "sample": "one", "cells": "neighbors"}
    near = slide_graph(slide, None, 5.0, 3)
    question = ask(slide, near, **keys)
    (node,) = question.nodes("left").values()
    expected = np.unique(near[question.focal].indices)
    assert 0 < len(expected) < slide.n_obs
    np.testing.assert_array_equal(node.cells, expected)
    (half,) = ask(slide, near, **keys, share_of_senders=0.5).nodes("left").values()
    assert len(half.cells) == round(len(expected) / 2)
    assert np.isin(half.cells, expected).all()


def test_log_changes_of_ones_own_may_differ_by_type(slide, graph, tmp_path):
    """A dose equal to the largest takes them as they are."""
    table = pd.DataFrame(
        [("mine", "gene_3", 1.5, "A"), ("mine", "gene_3", -0.5, "B"), ("mine", "gene_7", 0.25, "B")]
        + [("mine", "gene_9", 0.125, "B"), ("other", "gene_1", 9, "C")],
        columns=["source", "target", "weight", "cell_type"],
    )
    path = tmp_path / "mine.csv"
    table.to_csv(path, index=False)
    keys = {"shift_pathway": "mine", "weights": str(path), "dose": 1.5, "top_genes": 2}
    (node,) = ask(slide, graph, **keys).nodes("left").values()
    expected = np.zeros((3, 20))
    expected[0, 3], expected[1, 3], expected[1, 7] = 1.5, -0.5, 0.25
    np.testing.assert_allclose(node.shift, expected, rtol=1e-6)
    # So they are where the slide lacks the gene that changes most.
    table.assign(target=table["target"].where(table["weight"] != 1.5, "not_measured")).to_csv(path, index=False)
    (node,) = ask(slide, graph, **keys).nodes("left").values()
    expected[0, 3] = 0
    np.testing.assert_allclose(node.shift, expected, rtol=1e-6)
    for changed, sentence in (
        ({"cell_type": "Z"}, "question q: weights names 'Z', which no cell of the slide has; there are A, B, C."),
        ({"cell_type": ""}, f"question q: pathway weights {path}: gene 'gene_3' of pathway 'mine' has no cell type"),
        ({"target": "no_gene"}, "question q: shift_pathway: of mine the slide has no gene with a weight"),
    ):
        table.assign(**changed).drop_duplicates(["source", "target", "cell_type"]).to_csv(path, index=False)
        with pytest.raises(InputError) as error:
            ask(slide, graph, **keys)
        assert str(error.value).startswith(sentence)
        assert "\n" not in str(error.value)


def test_a_table_of_a_datasets_pseudobulks_asks_what_shift_towards_does(slide, graph, tmp_path):
    (whole,) = ask(slide, graph, shift_towards="right", top_genes=5).nodes("left").values()
    types, genes = np.nonzero(whole.shift)
    labels = slide.obs["cell_type"].cat.categories[types]
    rows = {
        "source": "right",
        "target": slide.var_names[genes],
        "weight": whole.shift[types, genes],
        "cell_type": labels,
    }
    pd.DataFrame(rows).to_csv(tmp_path / "w.tsv", sep="\t", index=False)
    keys = {"shift_pathway": "right", "weights": str(tmp_path / "w.tsv"), "dose": float(np.abs(whole.shift).max())}
    (own,) = ask(slide, graph, **keys).nodes("left").values()
    np.testing.assert_allclose(own.shift, whole.shift, rtol=1e-5)


def test_a_pathway_is_stimulated_by_a_dose(slide, graph, tmp_path):
    weights = tmp_path / "w.tsv"
    weights.write_text("source\ttarget\tweight\non\tgene_3\t-4\non\tgene_5\t2\non\tgene_7\t1\non\telsewhere\t9\n")
    keys = {"shift_pathway": "on", "weights": str(weights), "dose": 2, "share_of_senders": 0.5}
    (node,) = ask(slide, graph, **keys, top_genes=2).nodes("left").values()
    expected = np.zeros(20)
    expected[[3, 5]] = [-2, 1]
    np.testing.assert_allclose(node.shift, np.tile(expected, (3, 1)), rtol=1e-6)
    assert len(node.cells) == 300
    with pytest.raises(InputError, match="shift_pathway names 'off', of which .*; there are on"):
        ask(slide, graph, **(keys | {"shift_pathway": "off"}))
    human = slide.copy()
    human.var_names = ["TMPRSS2", *slide.var_names[1:]]
    (node,) = ask(human, graph, shift_pathway="Androgen").nodes("left").values()
    assert (node.shift != 0).sum(axis=1).tolist() == [1, 1, 1]


def test_a_knock_out_names_genes_of_the_focal_cells(slide, graph, tmp_path):
    question = ask(slide, graph, knock_out=["gene_4", "gene_2"])
    write_question(question, tmp_path / "q.npz")
    (genes,) = read_question(tmp_path / "q.npz").knock_outs("left").values()
    assert genes.tolist() == [2, 4]
    assert asked(knock_out=["gene_4"])["methods"] == ["celcomen"]
