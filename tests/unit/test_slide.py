"""The slide contract: what it refuses, in which words, and what reading, writing and normalising do."""

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from slides import list_filters
from tissue_counterfactuals.errors import InputError
from tissue_counterfactuals.slide import (
    check_slide,
    log_normalize,
    make_slide,
    new_provenance,
    normalize_counts,
    read_slide,
    record_filter,
    write_slide,
)


@pytest.fixture
def slide():
    rng = np.random.default_rng(0)
    counts = rng.poisson(0.7, (40, 12))
    counts[3] = 0
    labels = pd.DataFrame(
        {
            "cell_type": rng.choice(["neuron", "astrocyte"], 40),
            "domain": rng.choice(["cortex", "thalamus"], 40),
            "sample": "one",
        },
        index=[f"cell_{i}" for i in range(40)],
    )
    genes = [f"Gene{i}" for i in range(12)]
    return make_slide(counts, labels, genes, rng.uniform(0, 500, (40, 2)), new_provenance("test"))


def with_count(slide, value):
    """The slide with one count replaced, that of cell_7 and its second gene."""
    slide = slide.copy()
    position = slide.X.indptr[7] + 1
    slide.X.data[position] = value
    return slide, slide.var_names[slide.X.indices[position]]


def test_a_made_slide_passes(slide):
    check_slide(slide, "a")
    assert slide.X.format == "csr"
    assert slide.X.dtype == np.float32
    assert slide.obsm["spatial"].dtype == np.float64


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (-2, r"has the negative count -2; give raw counts"),
        (1.5, r"has the fractional count 1\.5, which looks log-normalised; give raw counts"),
        (np.nan, r"has no count \(NaN\)"),
        (np.inf, r"has an infinite count \(inf\)"),
        (-np.inf, r"has an infinite count \(-inf\)"),
    ],
)
def test_bad_counts_are_refused_with_cell_and_gene(slide, value, message):
    slide, gene = with_count(slide, value)
    with pytest.raises(InputError, match=f"^slide a: cell 'cell_7', gene '{gene}' {message}"):
        check_slide(slide, "a")


def test_the_first_bad_count_is_found_behind_millions_of_good_ones():
    n_cells, n_genes = 60_000, 100
    counts = sp.csr_matrix(
        (
            np.ones(n_cells * n_genes, np.float32),
            np.tile(np.arange(n_genes, dtype=np.int32), n_cells),
            np.arange(0, n_cells * n_genes + 1, n_genes, dtype=np.int32),
        ),
        shape=(n_cells, n_genes),
    )
    labels = pd.DataFrame("x", index=range(n_cells), columns=["cell_type", "domain", "sample"])
    genes = [f"g{i}" for i in range(n_genes)]
    slide = make_slide(counts, labels, genes, np.zeros((n_cells, 2)), {})
    slide.X.data[55_555 * n_genes + 42] = 0.5
    slide.X.data[59_999 * n_genes] = -1
    with pytest.raises(InputError, match="cell '55555', gene 'g42' has the fractional count 0.5"):
        check_slide(slide, "big")


def test_doubled_cells_are_refused(slide):
    slide.obs_names = ["cell_0", *slide.obs_names[:-1]]
    with pytest.raises(InputError, match=r"slide a: the cell id 'cell_0' occurs 2 times \(1 duplicates"):
        check_slide(slide, "a")


def test_doubled_genes_are_refused(slide):
    slide.var_names = ["Gene3", *slide.var_names[1:]]
    with pytest.raises(InputError, match="the gene symbol 'Gene3' occurs 2 times.*merge"):
        check_slide(slide, "a")


@pytest.mark.parametrize("label", ["cell_type", "domain", "sample"])
def test_a_missing_column_is_refused(slide, label):
    del slide.obs[label]
    with pytest.raises(InputError, match=rf"obs has no column '{label}'.*columns\.{label}"):
        check_slide(slide, "a")


def test_an_empty_label_is_refused(slide):
    slide.obs.loc[["cell_5", "cell_9"], "domain"] = np.nan
    with pytest.raises(InputError, match="'domain' is empty for 2 cells, the first is 'cell_5'"):
        check_slide(slide, "a")


def test_a_label_that_is_no_category_is_refused(slide):
    slide.obs["domain"] = slide.obs["domain"].astype(object)
    with pytest.raises(InputError, match="'domain' is of type object; make it categorical"):
        check_slide(slide, "a")


def test_missing_coordinates_are_refused(slide):
    slide.obsm["xy"] = slide.obsm.pop("spatial")
    with pytest.raises(InputError, match=r"obsm\['spatial'\] is missing \(obsm has xy\)"):
        check_slide(slide, "a")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_coordinates_that_are_no_place_are_refused(slide, value):
    slide.obsm["spatial"][[4, 8], 1] = value
    with pytest.raises(InputError, match="2 cells have no coordinates within 1 km, the first is 'cell_4'"):
        check_slide(slide, "a")


def test_coordinates_of_wrong_shape_or_type_are_refused(slide):
    place = slide.obsm["spatial"]
    slide.obsm["spatial"] = np.column_stack([place, place[:, 0]])
    with pytest.raises(InputError, match=r"have shape \(40, 3\).*40 cells x 2 axes"):
        check_slide(slide, "a")
    slide.obsm["spatial"] = place.astype(np.float32)
    with pytest.raises(InputError, match="of type float32; give float64"):
        check_slide(slide, "a")


def test_counts_in_another_form_are_refused(slide):
    counts = slide.X
    for form, kind in [(counts.tocsc(), "CSC"), (counts.toarray(), "ndarray")]:
        slide.X = form
        with pytest.raises(InputError, match=f"X is {kind}; give the counts as a scipy CSR"):
            check_slide(slide, "a")
    slide.X = counts.astype(np.float64)
    with pytest.raises(InputError, match="X is of type float64; give the counts as float32"):
        check_slide(slide, "a")


@pytest.mark.parametrize(("rows", "columns", "what"), [(0, 12, "cells"), (40, 0, "genes")])
def test_an_empty_slide_is_refused(slide, rows, columns, what):
    with pytest.raises(InputError, match=rf"it has no {what} \({rows} cells x {columns} genes\)"):
        check_slide(slide[:rows, :columns].copy(), "a")


def test_a_slide_of_unknown_origin_is_refused(slide):
    del slide.uns["provenance"]
    with pytest.raises(InputError, match=r"uns\['provenance'\] is missing"):
        check_slide(slide, "a")


def test_writing_and_reading_changes_nothing(slide, tmp_path):
    record_filter(slide.uns["provenance"], "an example", (50, 12), (40, 12))
    path = tmp_path / "new" / "slide.h5ad"
    write_slide(slide, path)
    again = read_slide(path)
    assert again.X.format == "csr"
    assert again.X.dtype == np.float32
    np.testing.assert_array_equal(again.X.toarray(), slide.X.toarray())
    pd.testing.assert_frame_equal(again.obs, slide.obs)
    np.testing.assert_array_equal(again.obsm["spatial"], slide.obsm["spatial"])
    assert list_filters(again).to_dict("records") == [
        {
            "filter": "an example",
            "cells_before": 50,
            "cells_after": 40,
            "genes_before": 12,
            "genes_after": 12,
        }
    ]
    assert {p.name for p in path.parent.iterdir()} == {"slide.h5ad", ".slide.h5ad.sha256"}


def test_the_same_slide_gives_the_same_bytes(slide, tmp_path):
    write_slide(slide.copy(), tmp_path / "a.h5ad")
    write_slide(slide.copy(), tmp_path / "b.h5ad")
    assert (tmp_path / "a.h5ad").read_bytes() == (tmp_path / "b.h5ad").read_bytes()
    # Two files can hardly show what LZF does to one in dozens: its bytes depend on what the memory held before.
    filters = set()
    with h5py.File(tmp_path / "a.h5ad") as file:
        file.visititems(lambda _, item: filters.add(getattr(item, "compression", None)))
    assert filters == {None, "gzip"}


def test_a_refused_slide_leaves_the_old_file(slide, tmp_path):
    path = tmp_path / "slide.h5ad"
    write_slide(slide, path)
    before = path.read_bytes()
    with pytest.raises(InputError, match="fractional"):
        write_slide(with_count(slide, 0.1)[0], path)
    assert path.read_bytes() == before


def test_reading_says_what_is_wrong_with_a_file(slide, tmp_path):
    with pytest.raises(InputError, match="there is no such file"):
        read_slide(tmp_path / "none.h5ad")
    (tmp_path / "text.h5ad").write_text("no slide")
    with pytest.raises(InputError, match="cannot be read as h5ad"):
        read_slide(tmp_path / "text.h5ad")
    broken, _ = with_count(slide, -1)
    broken.write_h5ad(tmp_path / "broken.h5ad")
    with pytest.raises(InputError, match="negative count"):
        read_slide(tmp_path / "broken.h5ad")
    assert read_slide(tmp_path / "broken.h5ad", check=False).n_obs == 40


def test_a_file_cut_short_is_refused(slide, tmp_path):
    path = tmp_path / "slide.h5ad"
    write_slide(slide, path)
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(InputError, match="cannot be read as h5ad"):
        read_slide(path)


def brute_force_cp10k(counts, target_sum):
    out = np.zeros(counts.shape)
    for i, row in enumerate(counts.astype(float)):
        if row.sum() > 0:
            out[i] = row / row.sum() * target_sum
    return out


@pytest.mark.parametrize("form", [np.asarray, sp.csr_matrix, sp.csr_array, sp.csc_matrix])
@pytest.mark.parametrize("target_sum", [1e4, 1.0])
def test_normalisation_equals_brute_force(slide, form, target_sum):
    dense = slide.X.toarray()
    counts = form(dense)
    expected = brute_force_cp10k(dense, target_sum)
    for normalize, wanted in [(normalize_counts, expected), (log_normalize, np.log1p(expected))]:
        result = normalize(counts, target_sum)
        assert result.dtype == np.float32
        if sp.issparse(counts):
            assert result.format == "csr"
            result = result.toarray()
        np.testing.assert_allclose(result, wanted, rtol=1e-6)
        # The input keeps its counts.
        np.testing.assert_array_equal(counts.toarray() if sp.issparse(counts) else counts, dense)


def test_normalisation_is_safe_for_whole_number_types():
    counts = np.array([[1, 3], [0, 0]])
    np.testing.assert_allclose(normalize_counts(counts), [[2500, 7500], [0, 0]])
    np.testing.assert_allclose(normalize_counts(sp.csr_array(counts)).toarray()[0], [2500, 7500])


def test_make_slide_merges_entries_stored_twice():
    counts = sp.csr_matrix((np.ones(3), [1, 1, 0], [0, 2, 3]), shape=(2, 2))
    labels = pd.DataFrame({"cell_type": [1, 2], "domain": "d", "sample": "s"}, index=["a", "b"])
    slide = make_slide(counts, labels, ["x", "y"], np.zeros((2, 2)), {})
    assert isinstance(slide, anndata.AnnData)
    np.testing.assert_array_equal(slide.X.toarray(), [[0, 2], [1, 0]])
    assert slide.X.nnz == 2
    assert list(slide.obs["cell_type"].cat.categories) == ["1", "2"]
