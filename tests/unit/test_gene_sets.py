"""Files of gene sets as tools write them; false discovery rates of gene sets, and of everything else."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from tissue_counterfactuals.errors import InputError
from tissue_counterfactuals.gene_sets import benjamini_hochberg, read_gmt


def test_false_discovery_rates_are_scipys_and_what_was_not_tested_takes_no_part():
    p = np.random.default_rng(0).uniform(size=30)
    assert benjamini_hochberg(p) == pytest.approx(stats.false_discovery_control(p))
    among_more = stats.false_discovery_control(np.append(p, np.ones(12)))[:30]
    assert benjamini_hochberg(p, 42) == pytest.approx(among_more)
    some = np.insert(p, [0, 7, 30], np.nan)
    for n_tests, expected in ((None, benjamini_hochberg(p)), (42, among_more)):
        found = benjamini_hochberg(pd.Series(some), n_tests)
        assert found == pytest.approx(np.insert(expected, [0, 7, 30], np.nan), nan_ok=True)
    assert benjamini_hochberg([0.01, 0.04, np.nan, 0.03]) == pytest.approx([0.03, 0.04, np.nan, 0.04], nan_ok=True)
    assert np.isnan(benjamini_hochberg(np.full(2, np.nan))).all()
    assert len(benjamini_hochberg(np.array([]))) == 0


def test_gene_sets_as_other_tools_write_them(tmp_path):
    """A byte-order mark, the weights of Enrichr, spaces around symbols, an empty line at the end."""
    path = tmp_path / "sets.gmt"
    path.write_bytes("\ufeffHYPOXIA\t\tVEGFA,1.0\tCA9,0.5\t\r\nP53 \tof p53\t TP53 \tMDM2\r\n\r\n".encode())
    assert read_gmt(path) == {"HYPOXIA": ["VEGFA", "CA9"], "P53": ["TP53", "MDM2"]}
    path.write_text("\n \n")
    with pytest.raises(InputError, match="it is empty; give a GMT file"):
        read_gmt(path)
