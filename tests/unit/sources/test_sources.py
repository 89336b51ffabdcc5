"""Sources: a user's h5ad in every encoding, and the filters."""

import hashlib
import json

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
import scipy.sparse as sp

from slides import list_filters, read_h5ad, small_slide
from tissue_counterfactuals.errors import InputError
from tissue_counterfactuals.simulate import simulate_tissue, true_counterfactual
from tissue_counterfactuals.slide import make_slide, new_provenance, write_slide
from tissue_counterfactuals.sources import counts as counts_in_files
from tissue_counterfactuals.sources.prepare import prepare_slide

COLUMNS = {"cell_type": "cluster", "domain": "region", "sample": "section"}


def users_slide():
    """60 cells x 9 genes with other names, units and columns than the contract, and gaps in the labels."""
    rng = np.random.default_rng(1)
    counts = rng.poisson(0.6, (60, 9))
    obs = pd.DataFrame(
        {
            "cluster": pd.Categorical(rng.choice(["neuron", "glia"], 60)),
            "region": pd.Categorical(rng.choice(["inside", "outside"], 60)),
            "section": pd.Categorical(rng.choice(["s1", "s2", "s3"], 60)),
            "score": rng.random(60),
        },
        index=[f"cell_{i}" for i in range(60)],
    )
    obs.loc[["cell_2", "cell_31"], "cluster"] = np.nan
    obs.loc["cell_31", "region"] = np.nan
    obs.loc["cell_40", "region"] = np.nan
    data = anndata.AnnData(
        sp.csr_matrix(counts.astype(np.float32)),
        obs=obs,
        var=pd.DataFrame({"length": np.arange(9)}, index=[f"Gene{i}" for i in range(9)]),
        obsm={"spatial": rng.uniform(0, 120, (60, 2)).astype(np.float32)},
    )
    return data, counts


@pytest.fixture
def users(tmp_path):
    data, counts = users_slide()
    path = tmp_path / "users.h5ad"
    data.write_h5ad(path)
    return path, data, counts


def expected_rows(data, samples=None):
    keep = data.obs["cluster"].notna() & data.obs["region"].notna()
    if samples is not None:
        keep &= data.obs["section"].isin(samples)
    return np.flatnonzero(keep)


# --- h5ad -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", [sp.csr_matrix, sp.csc_matrix, np.asarray])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, np.uint16])
@pytest.mark.parametrize("samples", [None, ["s2"], ["s3", "s1"]])
@pytest.mark.parametrize("block", [1, 17, 1 << 20])
def test_the_wanted_rows_of_any_encoding(tmp_path, monkeypatch, form, dtype, samples, block):
    monkeypatch.setattr(counts_in_files, "_BLOCK", block)
    data, counts = users_slide()
    data.X = form(counts.astype(dtype))
    data.write_h5ad(tmp_path / "a.h5ad")
    slide = read_h5ad(tmp_path / "a.h5ad", columns=COLUMNS, unit_um=0.5, samples=samples)
    rows = expected_rows(data, samples)
    np.testing.assert_array_equal(slide.X.toarray(), counts[rows])
    assert (slide.X.format, slide.X.dtype) == ("csr", np.float32)
    assert list(slide.obs_names) == [f"cell_{i}" for i in rows]
    assert list(slide.var_names) == list(data.var_names)
    np.testing.assert_array_equal(slide.obsm["spatial"], data.obsm["spatial"][rows].astype(np.float64) * 0.5)
    for label, column in COLUMNS.items():
        assert list(slide.obs[label]) == list(data.obs[column].iloc[rows])
    assert list(slide.obs.columns) == ["cell_type", "domain", "sample"]
    assert set(slide.obs["sample"].cat.categories) == set(samples or ["s1", "s2", "s3"])


def test_dropped_cells_and_the_file_stand_in_the_provenance(users):
    path, data, _ = users
    slide = read_h5ad(path, columns=COLUMNS, path="https://example.org/x.h5ad")
    provenance = slide.uns["provenance"]
    assert provenance["source"] == "https://example.org/x.h5ad"
    assert provenance["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    filters = list_filters(slide)
    assert list(filters["filter"]) == ["cell_type given", "domain given"]
    assert list(filters["cells_before"]) == [60, 58]
    assert list(filters["cells_after"]) == [58, 57]
    slide = read_h5ad(path, columns=COLUMNS, samples=["s1"])
    assert list_filters(slide)["filter"][0] == "chosen samples"
    assert list_filters(slide)["cells_after"][0] == (data.obs["section"] == "s1").sum()


def test_without_a_sample_column_all_cells_are_one_sample(users):
    path, data, _ = users
    del data.obs["section"]
    data.write_h5ad(path)
    slide = read_h5ad(path, columns=COLUMNS | {"sample": None})
    assert set(slide.obs["sample"]) == {"users"}


def test_counts_in_a_layer_or_in_raw(tmp_path):
    data, counts = users_slide()
    data.layers["counts"] = sp.csc_matrix(counts)
    data.raw = anndata.AnnData(
        np.hstack([counts, counts[:, :1]]),
        obs=data.obs,
        var=pd.DataFrame(index=[*data.var_names, "Gene9"]),
    )
    data.X = np.log1p(data.X)
    path = tmp_path / "a.h5ad"
    data.write_h5ad(path)
    rows = expected_rows(data)
    from_layer = read_h5ad(path, layer="counts", columns=COLUMNS)
    np.testing.assert_array_equal(from_layer.X.toarray(), counts[rows])
    from_raw = read_h5ad(path, layer="raw", columns=COLUMNS)
    assert from_raw.shape == (len(rows), 10)
    np.testing.assert_array_equal(from_raw.X.toarray()[:, 9], counts[rows, 0])
    with pytest.raises(InputError, match="cell 'cell_0'.*fractional count 0.69.*key layer says where"):
        read_h5ad(path, columns=COLUMNS)
    with pytest.raises(InputError, match=r"no layer 'count' \(key layer\); did you mean 'counts'"):
        read_h5ad(path, layer="count", columns=COLUMNS)


def test_what_is_not_there_is_named_with_what_there_is(users):
    path, _, _ = users
    with pytest.raises(
        InputError,
        match=r"users\.h5ad: there is no obs column 'clusters' \(key columns\.cell_type\); did you mean 'cluster', "
        r"of cluster, region, score, section\.$",
    ):
        read_h5ad(path, columns=COLUMNS | {"cell_type": "clusters"})
    with pytest.raises(InputError, match=r"in obsm 'xy' \(key spatial\); there is spatial\.$"):
        read_h5ad(path, columns=COLUMNS, spatial="xy")
    with pytest.raises(InputError, match=r"no layer 'counts' \(key layer\); there is none at all"):
        read_h5ad(path, layer="counts", columns=COLUMNS)
    with pytest.raises(InputError, match="no part 'raw'"):
        read_h5ad(path, layer="raw", columns=COLUMNS)
    with pytest.raises(InputError, match="samples names 's9', which no cell has in column 'section'"):
        read_h5ad(path, columns=COLUMNS, samples=["s9"])
    with pytest.raises(InputError, match="there is no such file"):
        read_h5ad(path.with_name("none.h5ad"))


def change(path, edit):
    with h5py.File(path, "r+") as file:
        edit(file)


def test_broken_files_are_refused(users):
    path, _, _ = users
    with pytest.raises(InputError, match="its SHA-256 is [0-9a-f]{64}, but 00 is configured"):
        read_h5ad(path, columns=COLUMNS, sha256="00")
    change(path, lambda file: file.__delitem__("X"))
    with pytest.raises(InputError, match="it has no X; key layer must say"):
        read_h5ad(path, columns=COLUMNS)
    change(path, lambda file: file.__delitem__("var"))
    with pytest.raises(InputError, match="it holds no AnnData tables obs and var"):
        read_h5ad(path, columns=COLUMNS)
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(InputError, match="it is cut short; fetch or copy"):
        read_h5ad(path, columns=COLUMNS)


@pytest.mark.filterwarnings("ignore:.* names are not unique")
def test_bad_data_are_refused_by_the_contract(tmp_path):
    data, counts = users_slide()

    def refused(message, **parts):
        bad = data.copy()
        for part, value in parts.items():
            setattr(bad, part, value)
        bad.write_h5ad(tmp_path / "bad.h5ad")
        with pytest.raises(InputError, match=message):
            read_h5ad(tmp_path / "bad.h5ad", columns=COLUMNS)

    negative = counts.astype(np.float32)
    negative[5, 3] = -1
    refused("cell 'cell_5', gene 'Gene3' has the negative count -1", X=negative)
    missing = counts.astype(np.float32)
    missing[5, 3] = np.nan
    refused("cell 'cell_5', gene 'Gene3' has no count", X=missing)
    refused("cell id 'twin' occurs 57 times", obs_names=["twin"] * 60)
    refused("gene symbol 'Gene0' occurs 9 times", var_names=["Gene0"] * 9)
    refused(r"shape \(60, 3\) .* must be numbers of 60 cells x 2", obsm={"spatial": np.ones((60, 3))})
    refused("57 cells have no coordinates within 1 km", obsm={"spatial": np.full((60, 2), np.nan)})
    refused("57 cells .* correct the unit", obsm={"spatial": np.full((60, 2), 1e300)})
    unlabelled = data.obs.copy()
    unlabelled["region"] = pd.Categorical([None] * 60, categories=["inside"])
    refused(r"no cell has both a cell type \(column 'cluster'\) and a domain", obs=unlabelled)


def test_labels_in_every_encoding(users):
    path, data, _ = users
    rows = expected_rows(data)
    texts = data.obs["region"].astype(object).where(data.obs["region"].notna(), "")

    def as_text(file):
        del file["obs/region"]
        file["obs/region"] = texts.to_list()

    def with_mask(file):
        del file["obs/region"]
        file["obs/region/values"] = ["?" if t == "" else t for t in texts]
        file["obs/region/mask"] = (texts == "").to_numpy()

    def old_categorical(file):
        codes, names = file["obs/cluster/codes"][:], file["obs/cluster/categories"][:]
        del file["obs/cluster"]
        file["obs/__categories/cluster"] = names
        file["obs/cluster"] = codes
        file["obs/cluster"].attrs["categories"] = file["obs/__categories/cluster"].ref

    def as_numbers(file):
        del file["obs/section"]
        file["obs/section"] = np.r_[np.full(30, 7.0), np.full(30, 12.0)]

    for edit in (as_text, with_mask, old_categorical, as_numbers):
        change(path, edit)
        slide = read_h5ad(path, columns=COLUMNS)
        assert list(slide.obs["domain"]) == list(data.obs["region"].iloc[rows])
        assert list(slide.obs["cell_type"]) == list(data.obs["cluster"].iloc[rows])
    assert set(slide.obs["sample"]) == {"7", "12"}
    assert set(read_h5ad(path, columns=COLUMNS, samples=["12"]).obs["sample"]) == {"12"}


def test_the_truth_of_a_simulated_slide_survives(tmp_path):
    tissue = simulate_tissue(n_cells=600, n_genes=60, n_slides=2, n_types=3, seed=3)
    write_slide(tissue, tmp_path / "a.h5ad")
    columns = {"cell_type": "cell_type", "domain": "domain", "sample": "sample"}
    slide = read_h5ad(tmp_path / "a.h5ad", columns=columns, samples=["slide_1"])
    assert slide.n_obs == 300
    assert json.loads(slide.uns["provenance"]["upstream"])["source"] == "simulated"
    rng = np.random.default_rng(0)
    focal, donors = rng.integers(300, size=20), rng.integers(300, size=(20, 5))
    first = np.flatnonzero(tissue.obs["sample"] == "slide_1")[0]
    np.testing.assert_allclose(
        true_counterfactual(slide, focal, donors),
        true_counterfactual(tissue, first + focal, first + donors),
        rtol=1e-6,
    )
    again = prepare_slide(slide, min_counts_per_cell=3, min_counts_per_gene=3, n_top_genes=40)
    assert true_counterfactual(again, focal, donors).shape == (20, 40)


# --- filters ----------------------------------------------------------------------------------------------------


@pytest.fixture
def sparse_slide():
    """80 cells x 200 genes: some of either have next to no counts, and some pass only together with the others."""
    rng = np.random.default_rng(5)
    counts = rng.negative_binomial(0.5, 0.3, (80, 200))
    counts[:4] = 0
    counts[2, :2] = 1
    counts[4:, 7] = 0
    counts[4, 7] = 2
    # Three counts for this gene, one of them in a cell that is dropped first.
    counts[:, 8] = 0
    counts[[2, 9, 11], 8] = [1, 1, 1]
    counts[2, :2] = [1, 0]
    labels = pd.DataFrame("x", index=[f"c{i}" for i in range(80)], columns=["cell_type", "domain"])
    labels["sample"] = "s"
    genes = [f"g{i}" for i in range(200)]
    return make_slide(counts, labels, genes, rng.random((80, 2)), new_provenance("test"))


def test_filters_equal_a_loop(sparse_slide):
    counts = sparse_slide.X.toarray()
    cells = [i for i in range(80) if counts[i].sum() >= 3]
    genes = [j for j in range(200) if sum(counts[i, j] for i in cells) >= 3]
    assert 8 not in genes
    prepared = prepare_slide(sparse_slide, n_top_genes=None)
    assert list(prepared.obs_names) == [f"c{i}" for i in cells]
    assert list(prepared.var_names) == [f"g{j}" for j in genes]
    np.testing.assert_array_equal(prepared.X.toarray(), counts[np.ix_(cells, genes)])
    assert list_filters(prepared).to_numpy().tolist() == [
        ["at least 3 counts per cell", 80, len(cells), 200, 200],
        ["at least 3 counts per gene", len(cells), len(cells), 200, len(genes)],
    ]
    # The slide that was given is as it was.
    np.testing.assert_array_equal(sparse_slide.X.toarray(), counts)
    assert len(list_filters(sparse_slide)) == 0


def test_variable_genes_are_those_of_seurat_v3_in_their_order(sparse_slide):
    filtered = prepare_slide(sparse_slide, n_top_genes=None)
    chosen = sc.pp.highly_variable_genes(filtered, flavor="seurat_v3", n_top_genes=50, inplace=False)
    prepared = prepare_slide(sparse_slide, n_top_genes=50)
    assert list(prepared.var_names) == list(filtered.var_names[chosen["highly_variable"]])
    assert prepared.n_vars == 50
    assert list_filters(prepared).iloc[-1].tolist() == [
        "50 most variable genes",
        prepared.n_obs,
        prepared.n_obs,
        filtered.n_vars,
        50,
    ]


@pytest.mark.parametrize("n_top_genes", [None, 200, 5000])
def test_no_more_genes_than_wanted_keeps_all(sparse_slide, n_top_genes):
    filtered = prepare_slide(sparse_slide, n_top_genes=None)
    assert list(prepare_slide(sparse_slide, n_top_genes=n_top_genes).var_names) == list(filtered.var_names)


def test_filters_that_leave_nothing_are_refused(sparse_slide):
    with pytest.raises(InputError, match="slide test: no cell passes the filters; lower preprocess"):
        prepare_slide(sparse_slide, min_counts_per_cell=10**6)
    with pytest.raises(InputError, match="no gene passes the filters"):
        prepare_slide(sparse_slide, min_counts_per_gene=10**6)


def test_further_columns_are_kept_with_their_gaps(tmp_path):
    slide = small_slide(n_cells=400)
    slide.obs["batch"] = pd.Categorical(np.where(np.arange(400) < 20, None, "b"))
    slide.obs["score"] = np.arange(400) // 2
    slide.write_h5ad(tmp_path / "s.h5ad")
    read = read_h5ad(tmp_path / "s.h5ad", keep_columns=["batch", "score"])
    assert read.obs["batch"].isna().tolist() == [True] * 20 + [False] * 380
    assert read.obs["score"].astype(str).tolist() == [str(i // 2) for i in range(400)]
    assert list(read_h5ad(tmp_path / "s.h5ad").obs) == ["cell_type", "domain", "sample"]
    with pytest.raises(InputError, match="no obs column 'bach' .key keep_columns.; did you mean"):
        read_h5ad(tmp_path / "s.h5ad", keep_columns=["bach"])
