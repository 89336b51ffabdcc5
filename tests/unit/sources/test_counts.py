"""Counts read block by block: the same numbers as in memory, and the genes that scanpy would choose."""

import anndata
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
import scipy.sparse as sp

from slides import list_filters, open_h5ad
from tissue_counterfactuals.errors import InputError
from tissue_counterfactuals.slide import make_slide, new_provenance
from tissue_counterfactuals.sources import counts as counts_in_files
from tissue_counterfactuals.sources import stored as stored_slides
from tissue_counterfactuals.sources.counts import FileCounts, MemoryCounts, StackedCounts
from tissue_counterfactuals.sources.prepare import prepare_slide

FORMS = {"csr": sp.csr_matrix, "csc": sp.csc_matrix, "dense": np.asarray}


def matrix(n_cells=70, n_genes=23, seed=0):
    return np.random.default_rng(seed).negative_binomial(0.5, 0.3, (n_cells, n_genes))


@pytest.fixture(params=[(1, 0), (40, 3), (40, 10**6), (10**6, 10**6)], ids=str)
def blocks(request, monkeypatch):
    """Small and large blocks, with and without unwanted stretches being skipped."""
    monkeypatch.setattr(counts_in_files, "_BLOCK", request.param[0])
    monkeypatch.setattr(counts_in_files, "_GAP", request.param[1])


def in_file(path, values, keep, form="csc"):
    n_cells, n_genes = values.shape
    data = anndata.AnnData(FORMS[form](values.astype(np.float32)))
    data.write_h5ad(path)
    cells = pd.Index([f"c{i}" for i in np.flatnonzero(keep)])
    genes = pd.Index([f"g{i}" for i in range(n_genes)])
    return FileCounts(path, "X", cells, genes, keep, f"file {path.name}")


@pytest.mark.parametrize("form", FORMS)
def test_what_is_true_or_false_is_no_count(tmp_path, form):
    anndata.AnnData(FORMS[form](matrix() > 1)).write_h5ad(tmp_path / "a.h5ad")
    cells, genes = (pd.Index([f"{letter}{i}" for i in range(n)]) for letter, n in (("c", 70), ("g", 23)))
    with pytest.raises(InputError, match="the counts X are stored as bool of shape .*, but must be CSR, CSC or dense"):
        FileCounts(tmp_path / "a.h5ad", "X", cells, genes, np.ones(70, dtype=bool), "file a.h5ad")


@pytest.mark.parametrize("form", FORMS)
def test_sums_and_parts_equal_those_of_the_dense_matrix(tmp_path, blocks, form):
    values, rng = matrix(), np.random.default_rng(1)
    keep = rng.random(70) < 0.6
    keep[20:45] = False
    counts = in_file(tmp_path / "a.h5ad", values, keep, form)
    kept = values[keep]
    assert counts.shape == kept.shape
    totals, sums, squares = counts.survey()
    np.testing.assert_array_equal(totals, kept.sum(axis=1))
    np.testing.assert_array_equal(sums, kept.sum(axis=0))
    np.testing.assert_array_equal(squares, (kept**2).sum(axis=0))
    few = np.arange(23) % 4 == 1
    np.testing.assert_array_equal(counts.survey(few)[0], kept[:, few].sum(axis=1))
    cells, genes = rng.random(len(kept)) < 0.5, rng.random(23) < 0.4
    sums, squares = counts.gene_moments(cells)
    np.testing.assert_array_equal(sums, kept[cells].sum(axis=0))
    np.testing.assert_array_equal(squares, (kept[cells] ** 2).sum(axis=0))
    clip = rng.uniform(0.5, 4, 23)
    sums, squares = counts.gene_moments(cells, clip)
    np.testing.assert_allclose(sums, np.minimum(kept[cells], clip).sum(axis=0), rtol=1e-12)
    np.testing.assert_allclose(squares, (np.minimum(kept[cells], clip) ** 2).sum(axis=0), rtol=1e-6)
    part = counts.take(cells, genes)
    np.testing.assert_array_equal(part.toarray(), kept[np.ix_(cells, genes)])
    assert (part.format, part.dtype) == ("csr", np.float32)
    assert counts.count_entries() >= np.count_nonzero(kept)


def test_an_entry_in_two_pieces_counts_as_one(tmp_path):
    import h5py

    counts = in_file(tmp_path / "a.h5ad", np.array([[3, 0], [0, 1]]), np.ones(2, dtype=bool), "csr")
    with h5py.File(tmp_path / "a.h5ad", "r+") as file:
        for name, new in (("data", [1.0, 2.0, 1.0]), ("indices", [0, 0, 1]), ("indptr", [0, 2, 3])):
            del file["X"][name]
            file["X"][name] = np.array(new)
    counts = FileCounts(tmp_path / "a.h5ad", "X", counts.cells, counts.genes, counts.rows, "file a")
    assert counts.gene_moments(np.ones(2, dtype=bool))[1].tolist() == [9.0, 1.0]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("value", "told"), [(0.5, "fractional"), (-1, "negative"), (np.nan, "NaN")])
def test_the_first_value_that_is_no_count_is_named(tmp_path, blocks, form, value, told):
    values = matrix().astype(float)
    keep = np.ones(70, dtype=bool)
    keep[3] = False
    values[3, 0] = value
    counts = in_file(tmp_path / "a.h5ad", values, keep, form)
    # That of a cell that is left out is nobody's concern.
    counts.survey()
    values[[10, 11], [8, 2]] = value
    counts = in_file(tmp_path / "a.h5ad", values, keep, form)
    with pytest.raises(InputError, match=rf"file a\.h5ad: cell 'c1[01]', gene 'g[28]' .*{told}"):
        counts.survey()


def test_a_damaged_block_is_told(tmp_path, monkeypatch):
    counts = in_file(tmp_path / "a.h5ad", matrix(), np.ones(70, dtype=bool))
    monkeypatch.setattr(counts, "_read", lambda *_: (_ for _ in ()).throw(OSError("inflate")))
    with pytest.raises(InputError, match=r"cannot be read to its end, it is damaged \(inflate\)"):
        counts.survey()


def test_files_below_each_other(tmp_path, blocks):
    first, second = matrix(seed=2), matrix(n_cells=31, seed=3)
    a = in_file(tmp_path / "a.h5ad", first, np.arange(70) % 3 > 0)
    order = np.random.default_rng(4).permutation(23)
    b = in_file(tmp_path / "b.h5ad", second[:, order], np.ones(31, dtype=bool), "csr")
    b.genes = pd.Index([f"g{i}" for i in order])
    genes = pd.Index([f"g{i}" for i in range(23) if i not in (4, 9)])
    counts = StackedCounts([a, b], genes, "files")
    both = np.vstack([first[np.arange(70) % 3 > 0], second])
    own = np.delete(both, [4, 9], axis=1)
    rng = np.random.default_rng(5)
    cells, chosen = rng.random(len(both)) < 0.5, rng.random(21) < 0.5
    totals, sums, squares = counts.survey()
    np.testing.assert_array_equal(totals, own.sum(axis=1))
    np.testing.assert_array_equal(sums, own.sum(axis=0))
    np.testing.assert_array_equal(squares, (own**2).sum(axis=0))
    np.testing.assert_array_equal(counts.survey(chosen)[0], own[:, chosen].sum(axis=1))
    clip = rng.uniform(0.5, 4, 21)
    np.testing.assert_allclose(counts.gene_moments(cells, clip)[0], np.minimum(own[cells], clip).sum(axis=0))
    np.testing.assert_array_equal(counts.take(cells, chosen).toarray(), own[np.ix_(cells, chosen)])


# --- filters and variable genes ---------------------------------------------------------------------------------


def tissue(n_cells=3000, n_genes=1500, seed=0):
    """Genes over four orders of magnitude, some variable, some constant, some all but absent."""
    rng = np.random.default_rng(seed)
    mean = 10 ** rng.uniform(-3, 1.5, n_genes)
    group = rng.integers(0, 3, n_cells)
    effect = np.where(rng.random((3, n_genes)) < 0.2, rng.lognormal(0, 1.5, (3, n_genes)), 1)
    rate = rng.gamma(2, 0.5, n_cells)[:, None] * mean * effect[group]
    values = rng.negative_binomial(2, 2 / (2 + rate))
    values[:, 7] = 1
    values[:, 8] = 0
    values[:30] = 0
    labels = pd.DataFrame("x", index=[f"c{i}" for i in range(n_cells)], columns=["cell_type", "domain"])
    labels["sample"] = "s"
    genes = pd.Index([f"g{i}" for i in range(n_genes)])
    return make_slide(values, labels, genes, rng.random((n_cells, 2)), new_provenance("test"))


@pytest.mark.parametrize("n_top_genes", [100, 700])
def test_variable_genes_are_scanpys(n_top_genes):
    slide = tissue()
    filtered = slide.copy()
    sc.pp.filter_cells(filtered, min_counts=3)
    sc.pp.filter_genes(filtered, min_counts=3)
    sc.pp.highly_variable_genes(filtered, flavor="seurat_v3", n_top_genes=n_top_genes, subset=True)
    prepared = prepare_slide(slide, 3, 3, n_top_genes)
    assert list(prepared.var_names) == list(filtered.var_names)
    assert list(prepared.obs_names) == list(filtered.obs_names)
    assert (prepared.X != filtered.X).nnz == 0


@pytest.mark.parametrize("form", ["csr", "csc"])
def test_a_large_file_gives_the_same_slide_as_memory(tmp_path, monkeypatch, form):
    slide = tissue(n_cells=400, n_genes=300)
    expected = prepare_slide(slide, 3, 3, 60)
    slide.X = FORMS[form](slide.X)
    slide.write_h5ad(tmp_path / "a.h5ad")
    monkeypatch.setattr(counts_in_files, "_BLOCK", 5000)
    loaded = prepare_slide(open_h5ad(tmp_path / "a.h5ad", unit_um=1.0), 3, 3, 60)
    monkeypatch.setattr(stored_slides, "_FEW", 0)
    opened = open_h5ad(tmp_path / "a.h5ad", unit_um=1.0)
    assert isinstance(opened.settle().counts, FileCounts)
    by_blocks = prepare_slide(opened, 3, 3, 60)
    for prepared in (loaded, by_blocks):
        assert list(prepared.var_names) == list(expected.var_names)
        assert list(prepared.obs_names) == list(expected.obs_names)
        assert (prepared.X != expected.X).nnz == 0
        np.testing.assert_array_equal(prepared.obsm["spatial"], expected.obsm["spatial"])
        assert list_filters(prepared).equals(list_filters(expected))


def test_memory_counts_are_not_copied():
    values = sp.csr_matrix(matrix().astype(np.float32))
    names = pd.RangeIndex(70).astype(str), pd.RangeIndex(23).astype(str)
    counts = MemoryCounts(values, *names, "slide")
    for _, _, block in counts._blocks(np.ones(70, dtype=bool), np.ones(23, dtype=bool)):
        assert np.shares_memory(block.data, values.data)


def test_a_count_that_no_cell_can_have_is_told_with_its_cell_and_gene(tmp_path):
    values = matrix()
    values[7, 3] = 10**9
    counts = in_file(tmp_path / "a.h5ad", values, np.ones(70, dtype=bool))
    with pytest.raises(InputError, match="cell 'c7', gene 'g3' has the count 1000000000, and no cell"):
        counts.survey()
    values[7, 3] = 10**6
    in_file(tmp_path / "a.h5ad", values, np.ones(70, dtype=bool)).survey()


def few_varying(n_varying, n_genes=30, n_cells=40):
    values = np.full((n_cells, n_genes), 2)
    values[:, :n_varying] = matrix(n_cells, n_varying, seed=6) + 1
    return values


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (few_varying(0), "0 genes vary among its 40 cells"),
        (few_varying(1), "1 genes vary among its 40 cells"),
        (
            few_varying(3),
            "3 genes vary among its 40 cells, too few .* set preprocess.n_top_genes to null",
        ),
        (few_varying(4), "the fit of variance on mean failed"),
        (few_varying(30)[:1] + 3, "only one cell passes the filters"),
    ],
)
def test_too_little_for_the_variable_genes_is_told_before_native_code(values, message):
    labels = pd.DataFrame(
        dict.fromkeys(("cell_type", "domain", "sample"), ["a"] * len(values)),
        index=[f"c{i}" for i in range(len(values))],
    ).astype("category")
    genes = pd.Index([f"g{i}" for i in range(values.shape[1])])
    places = np.arange(2.0 * len(values)).reshape(-1, 2)
    slide = make_slide(sp.csr_matrix(values), labels, genes, places, new_provenance("s"))
    with pytest.raises(InputError, match=message):
        prepare_slide(slide, n_top_genes=10)
