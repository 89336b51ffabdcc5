"""Node perturbations: whose change they hold, and what becomes of expression, against sums written out cell by cell."""

import numpy as np
import pytest

from slides import small_slide
from tasks import make_task
from tissue_counterfactuals.errors import InputError
from tissue_counterfactuals.question.nodes import (
    NodePerturbation,
    alter_counts,
    alter_log,
    altered_cells,
    pseudobulk_shift,
)
from tissue_counterfactuals.question.question import read_question, write_question
from tissue_counterfactuals.slide import log_normalize

NODE = {"shifts": ["node", "node_global"], "n_genes": 5}


@pytest.fixture(scope="module")
def slide():
    return small_slide(n_cells=500)


@pytest.fixture(scope="module")
def task(slide):
    return make_task(slide, node=NODE)


def pseudobulk(slide, chosen):
    total = slide.X.toarray()[chosen].sum(axis=0)
    return np.log1p(total / total.sum() * 1e4)


def test_each_type_has_its_own_change_and_the_held_out_one_that_of_the_others(slide, task):
    types, domain = (slide.obs[c].to_numpy().astype(str) for c in ("cell_type", "domain"))
    found = {name: node.shift for name, node in task.question.nodes("right").items()}
    others = types != "A"
    for number, name in enumerate("ABC"):
        own = others if name == "A" else types == name
        change = pseudobulk(slide, own & (domain == "right")) - pseudobulk(slide, own & (domain == "left"))
        kept = np.argsort(-np.abs(change))[:5]
        expected = np.zeros(slide.n_vars)
        expected[kept] = change[kept]
        np.testing.assert_allclose(found["node"][number], expected, rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(found["node_global"][number], found["node"][0])
    assert (found["node"][1] != found["node"][2]).any()


def test_no_held_out_cell_is_read(slide, task):
    other = slide.copy()
    counts = other.X.toarray()
    counts[task.split.held_out] = counts[task.split.held_out][:, ::-1] * 7
    other.X = type(slide.X)(counts)
    asked = make_task(other, node=NODE)
    for name, node in task.question.nodes("right").items():
        np.testing.assert_array_equal(node.shift, asked.question.nodes("right")[name].shift)


def test_a_type_of_one_domain_is_left_as_it_is_and_domains_without_cells_are_refused(slide):
    held_out = np.zeros(slide.n_obs, dtype=bool)
    there = ((slide.obs["cell_type"] == "B") & (slide.obs["domain"] == "right")).to_numpy()
    shift = pseudobulk_shift(slide, "left", "right", held_out | there, n_genes=None)
    assert (shift[1] == 0).all()
    assert (shift[[0, 2]] != 0).all(axis=1).any()
    with pytest.raises(InputError, match="from 'left' to 'right': one of both domains has no"):
        pseudobulk_shift(slide, "left", "right", (slide.obs["domain"] == "right").to_numpy())


def test_without_a_held_out_type_the_common_change_is_that_of_all_cells(slide):
    nobody = np.zeros(slide.n_obs, dtype=bool)
    right, left = ((slide.obs["domain"] == name).to_numpy() for name in ("right", "left"))
    shift = pseudobulk_shift(slide, "left", "right", nobody, n_genes=None, by_type=False)
    expected = np.tile(pseudobulk(slide, right) - pseudobulk(slide, left), (3, 1))
    np.testing.assert_allclose(shift, expected, rtol=1e-4, atol=1e-6)


@pytest.fixture
def node(slide):
    shift = np.zeros((3, slide.n_vars), np.float32)
    shift[0, [1, 4]] = [0.7, -30]
    shift[2, 2] = -np.inf
    return NodePerturbation(shift, cells=np.arange(0, slide.n_obs, 2))


def by_hand(values, slide, node, apply):
    """Entry by entry."""
    expected = values.toarray().astype(float)
    code = slide.obs["cell_type"].cat.codes.to_numpy()
    for cell in node.cells:
        for gene in range(expected.shape[1]):
            if change := node.shift[code[cell], gene]:
                expected[cell, gene] = apply(expected[cell, gene], change)
    return expected


def with_sums(expected, before):
    return expected * (before.sum(axis=1) / expected.sum(axis=1))[:, None]


def test_the_change_is_added_to_log_expression(slide, node):
    logs, code = log_normalize(slide.X), slide.obs["cell_type"].cat.codes.to_numpy()
    expected = by_hand(logs, slide, node, lambda x, change: max(x + change, 0))
    np.testing.assert_allclose(alter_log(logs, code, node).toarray(), expected, atol=1e-5)
    kept = alter_log(logs, code, node, renormalize=True).toarray()
    np.testing.assert_allclose(kept, with_sums(expected, logs.toarray()), atol=1e-4)


@pytest.mark.parametrize("one_more", [False, True])
def test_counts_are_multiplied(slide, node, one_more):
    counts, code = slide.X, slide.obs["cell_type"].cat.codes.to_numpy()
    expected = by_hand(counts, slide, node, lambda x, c: max((x + one_more) * np.exp(c) - one_more, 0))
    made = alter_counts(counts, code, node, one_more)
    np.testing.assert_allclose(made.toarray(), expected, rtol=1e-5, atol=1e-5)
    kept = alter_counts(counts, code, node, one_more, renormalize=True).toarray()
    np.testing.assert_allclose(kept, with_sums(expected, counts.toarray()), rtol=1e-4, atol=1e-4)


def test_a_knock_out_makes_no_other_gene_larger(slide, task):
    """On the scale of models of log expression, unless totals are kept; the other scale says the same."""
    shift = np.zeros((3, slide.n_vars), np.float32)
    shift[:, 0] = -np.inf
    before = log_normalize(slide.X).toarray()
    for scale in ("counts", "log", "own"):
        node = NodePerturbation(shift, scale=scale)
        after = task.altered_log(node).toarray()
        assert (after[:, 0] == 0).all()
        np.testing.assert_allclose(after[:, 1:], before[:, 1:], atol=1e-5)
        counts = task.altered_counts(node).toarray()
        np.testing.assert_allclose(counts[:, 1:], slide.X.toarray()[:, 1:], rtol=1e-4)
        assert (counts[:, 0] == 0).all()


def test_who_is_altered(task):
    graph, focal = task.masked_graph, task.focal
    around = altered_cells("neighbors", 1, 0, graph, focal)
    np.testing.assert_array_equal(around, np.flatnonzero(graph[focal].sum(axis=0)))
    assert altered_cells("all", 1, 0, graph, focal) is None
    some = altered_cells("all", 0.25, 0, graph, focal)
    assert len(some) == 125
    assert len(np.unique(some)) == 125
    assert (some != altered_cells("all", 0.25, 1, graph, focal)).any()
    assert np.isin(altered_cells("neighbors", 0.5, 0, graph, focal), around).all()
    assert len(altered_cells("neighbors", 0, 0, graph, focal)) == 0


def test_the_file_says_the_same(slide, tmp_path):
    asked = make_task(slide, node=NODE | {"share": 0.5, "scale": "counts"}).question
    write_question(asked, tmp_path / "q.npz")
    read = read_question(tmp_path / "q.npz").nodes("right")
    assert set(read) == {"node", "node_global"}
    for name, node in asked.nodes("right").items():
        np.testing.assert_array_equal(read[name].shift, node.shift)
        np.testing.assert_array_equal(read[name].cells, node.cells)
        assert read[name].origin == node.origin == {
            "towards": "right", "n_genes": 5, "by_type": name == "node",
        }  # fmt: skip
        assert read[name].scale == "counts"
