"""Pathways: weights as they are bundled, decoupler's activities, and p values that are uniform where genes err
together.
"""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from tissue_counterfactuals import pathways
from tissue_counterfactuals.errors import InputError

GENES = pd.Index([f"g{i}" for i in range(60)])


@pytest.fixture(scope="module")
def weights():
    rng = np.random.default_rng(0)
    rows = [(f"p{k}", f"g{20 * k + i}", rng.normal()) for k in range(2) for i in range(20)]
    return pd.DataFrame([*rows, ("few", "g50", 1.0)], columns=pathways.COLUMNS)


def test_bundled_weights_are_those_of_progeny_and_of_the_right_species():
    for name, known in (("progeny_human", "TMPRSS2"), ("progeny_mouse", "Tmprss2")):
        table = pathways.read_weights(name)
        assert table.groupby("source").size().to_dict().keys() >= {"TGFb", "NFkB", "MAPK", "WNT"}
        assert len(table) == 14 * 500
        assert known in {*table["target"]}
        assert pathways.fitting([known, "nothing"]) == name
    assert pathways.fitting(GENES) is None


def test_an_activity_is_the_t_value_of_the_slope_on_the_weights(weights):
    rng = np.random.default_rng(1)
    values = pd.DataFrame(rng.normal(size=(3, 60)), columns=GENES)
    scores, _ = pathways.activities(values, weights)
    assert list(scores.columns) == ["p0", "p1"]
    for name in scores:
        own = weights[weights["source"] == name].set_index("target")["weight"]
        x = own.reindex(GENES).fillna(0)
        for row, y in values.iterrows():
            r = np.corrcoef(x, y)[0, 1]
            assert scores.loc[row, name] == pytest.approx(r * np.sqrt(58 / (1 - r**2)), rel=1e-3)
    assert pathways.activities(values, weights, least=30)[0].empty


def test_p_values_are_uniform_where_genes_err_together(weights):
    """2,000 slides on which nothing changes but by error, which the genes of a pathway share."""
    rng = np.random.default_rng(2)
    table = weights.pivot(index="target", columns="source", values="weight").reindex(GENES)
    matrix = table.fillna(0)[["p0", "p1"]].to_numpy()
    found, naive = [], []
    for _ in range(2000):
        change, *errors = rng.normal(size=(8, 2)) @ matrix.T + rng.normal(size=(8, 60))
        found += pathways.slope_test(change, np.array(errors), matrix)[1].tolist()
        naive.append(stats.pearsonr(change, matrix[:, 0]).pvalue)
    assert 0.04 < np.mean(np.array(found) <= 0.05) < 0.06
    assert 0.47 < np.mean(np.array(found) <= 0.5) < 0.53
    # What takes genes for independent finds pathways in noise.
    assert np.mean(np.array(naive) <= 0.05) > 0.3


def test_a_pathway_that_is_on_is_found(weights):
    rng = np.random.default_rng(3)
    on = weights[weights["source"] == "p1"].set_index("target")["weight"].reindex(GENES).fillna(0)
    change = 0.8 * on.to_numpy() + rng.normal(0, 0.1, 60)
    errors = rng.normal(0, 0.3, (7, 60))
    table = pathways.changes(change, errors, GENES, weights)
    assert list(table.columns) == pathways.CHANGES
    assert table["pathway"].iloc[0] == "p1"
    assert table["slope"].iloc[0] == pytest.approx(0.8, abs=0.1)
    assert table["p_value"].iloc[0] < 0.01
    assert table["activity"].iloc[0] > 5
    slope, p_value = pathways.slope_test(change, errors, on.to_numpy()[:, None])
    assert table.loc[0, ["slope", "p_value"]].tolist() == pytest.approx([slope.item(), p_value.item()])
    assert table["n_genes"].tolist() == [20, 20]


@pytest.mark.parametrize(
    ("change", "errors", "genes", "reason"),
    [
        (np.ones(60), np.empty((0, 60)), GENES, "no method gave intervals"),
        (np.ones(3), np.ones((7, 3)), GENES[:3], "no pathway has 5 of the 3 genes"),
        (np.zeros(60), np.ones((7, 60)), GENES, "nothing changes"),
    ],
)
def test_what_cannot_be_tested_says_so(weights, change, errors, genes, reason):
    table = pathways.changes(change, errors, genes, weights)
    assert reason in table["status"].item()
    assert np.isnan(table["p_value"].item())


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (None, "there is no such file; name a table with the columns source, target, weight"),
        ("source\ttarget\n", "column 'weight' is missing"),
        ("source,target,weight\na,b,c\n", "gene 'b' of pathway 'a' has no number as its weight"),
        ("source,target,weight\na,b,1\na,b,2\n", "gene 'b' of pathway 'a' is there twice"),
    ],
)
def test_bad_weights_are_refused_in_one_sentence(tmp_path, text, sentence):
    path = tmp_path / "w.csv"
    if text is not None:
        path.write_text(text)
    with pytest.raises(InputError) as error:
        pathways.read_weights(path)
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)
