"""Figure 2c of Celcomen: what it says, and its caption."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from docutils.core import publish_parts
from jinja2 import Environment, StrictUndefined

from drawings import PROVENANCE, png_size, texts
from tissue_counterfactuals import config as configuration
from tissue_counterfactuals.errors import InputError
from tissue_counterfactuals.experiments.celcomen_simulation import (
    COLUMNS,
    ENTRIES,
    KNOBS,
    QUANTITIES,
    compare_with_noise,
)
from tissue_counterfactuals.results.figures import figure_celcomen_2, style

LEVEL = {"inter": 0.7, "intra": 0.6, "expression": 0.8}


def synthetic_correlations(protocol, n_simulations=20, constant=()):
    """Rows in the form of `simulate`, their numbers made up; seeds in `constant` have no fitted forces to speak of."""
    rng = np.random.default_rng(0)
    rows = []

    def add(panel_name, knobs, seed, quantity, source, value):
        useless = source == "estimate" and quantity != "expression" and seed in constant
        for which in ENTRIES:
            headline = which == ("all" if protocol == "as_run" else "upper_triangle")
            numbers = (np.nan,) * 3 if useless else (value, 10 ** (-3 * abs(value)), value)
            status = "constant" if useless else "ok"
            rows.append(
                ["simulated", protocol, panel_name, *knobs.values(), seed, quantity, source, which, headline, *numbers,
                status, ""]
            )  # fmt: skip

    usual = {"n_genes": 4, "n_cells": 100, "noise": 0.0, "dropout": 0.0}
    for seed in range(n_simulations):
        for quantity in QUANTITIES:
            add(
                "paper",
                usual,
                seed,
                quantity,
                "estimate",
                LEVEL[quantity] + 0.1 * rng.uniform(-1, 1),
            )
            add("paper", usual, seed, quantity, "noise", 0.4 * rng.uniform(-1, 1))
    if protocol == "corrected":
        for knob in KNOBS:
            for step in range(3):
                for seed in range(4):
                    for quantity in QUANTITIES:
                        value = LEVEL[quantity] - 0.2 * step
                        knobs = usual | {knob: usual[knob] + step}
                        add(knob, knobs, seed, quantity, "estimate", value)
                        if quantity != "expression":
                            add(knob, knobs, seed, quantity, "cross", 0.01 * seed)
    return pd.DataFrame(rows, columns=COLUMNS)


def composed(protocol, **settings):
    table = synthetic_correlations(protocol, **settings)
    return table, figure_celcomen_2.compose(table, compare_with_noise(table), PROVENANCE)


def all_axes(figure):
    """The panels of c; a and b are drawings of the method, without axes."""
    drawings, *parts = figure.subfigs
    titles = [axes.get_title(loc="left") for axes in drawings.axes]
    assert titles == ["a  inference (a drawing)", "b  generation (a drawing)"]
    assert not any(axes.axison for axes in drawings.axes)
    return [axes for part in parts for axes in part.axes]


def test_as_run_has_six_panels_of_the_paper_and_three_honest_ones():
    table, figure = composed("as_run", constant=(1, 4, 7))
    axes = all_axes(figure)
    assert len(axes) == 9
    assert [a.get_ylabel() for a in axes] == (
        ["Spearman rho, all 16 entries"] * 3
        + ["-log10(p + 0.0001), all 16 entries"] * 3
        + ["Spearman rho, 6 pairs of genes"] * 3
    )
    words = texts(figure)
    assert any("17 of 20, 3 constant" in word for word in words)
    assert any("20 of 20\n" in word for word in words)
    assert any("[simulated] · protocol: as_run" in word for word in words)
    assert PROVENANCE in " ".join(words).replace("\n", " ")
    # A thin line for each simulation that has a value.
    assert sum(line.get_linewidth() == 0.3 for line in axes[0].lines) == 17
    # Crosses for the rest, only where pairs of genes are compared.
    crosses = [
        len(c.get_offsets())
        for a in axes
        for c in a.collections
        if (c.get_edgecolor()[0] == _rgba(style.FAILED_COLOR)).all()
    ]
    assert crosses == [3, 3]


def _rgba(color):
    from matplotlib.colors import to_rgba

    return np.array(to_rgba(color))


def test_boxes_show_the_numbers_of_the_table():
    table, figure = composed("as_run")
    own = table.query("quantity == 'intra' and entries == 'all'").set_index(["source", "seed"])
    medians = [own.loc[source, "spearman"].median() for source in ("noise", "estimate")]
    axes = all_axes(figure)[1]
    drawn = [
        line.get_ydata()[0] for line in axes.lines if line.get_color() == "black" and len(set(line.get_ydata())) == 1
    ]
    for median in medians:
        assert any(np.isclose(y, median) for y in drawn)
    small = next(t for t in texts(figure) if t.startswith("medians") and f"{medians[1]:.2f};" in t)
    tests = compare_with_noise(table).query("quantity == 'intra' and entries == 'all' and statistic == 'rho'")
    assert f"Wilcoxon {tests['wilcoxon_p'].item():.1e}" in small
    assert f"{medians[0]:.2f} and" in small


def test_corrected_follows_recovery_over_every_knob():
    table, figure = composed("corrected")
    axes = all_axes(figure)
    assert len(axes) == 6 + len(KNOBS)
    curves = axes[6]
    assert curves.get_xlabel() == "genes"
    assert [label.get_text() for label in curves.get_xticklabels()] == ["4", "5", "6"]
    lines = [line for line in curves.lines if len(line.get_xdata()) == 3]
    assert len(lines) == 5
    np.testing.assert_allclose(lines[0].get_ydata().astype(float), [0.7, 0.5, 0.3])
    assert any("n = 4" in text for text in texts(figure))
    assert {"between, against the truth within"} <= set(texts(figure))


def test_the_same_tables_give_the_same_bytes(tmp_path):
    for name in ("a.png", "b.png"):
        _, figure = composed("corrected", n_simulations=5)
        style.save(figure, tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    width, height = png_size(tmp_path / "a.png")
    assert width > 1000
    assert height > 1000


def test_faulty_tables_are_refused(tmp_path):
    table = synthetic_correlations("as_run")
    tests = compare_with_noise(table)
    files = {name: tmp_path / name for name in ("correlations", "tests")}
    for name, column in (("correlations", "status"), ("tests", "t_p")):
        for key, whole in (("correlations", table), ("tests", tests)):
            whole.drop(columns=column if key == name else []).to_csv(files[key], sep="\t", index=False)
        with pytest.raises(InputError, match=f"{name}: column '{column}' is missing"):
            figure_celcomen_2.draw_files(files, tmp_path / "2.png", "as_run")
    both = pd.concat([table, synthetic_correlations("corrected")])
    with pytest.raises(InputError, match="it holds several protocols"):
        figure_celcomen_2.compose(both, tests, PROVENANCE)


@pytest.mark.parametrize(("protocol", "said"), [("as_run", "Mann-Whitney"), ("corrected", "17 simulations at each")])
def test_the_caption_reads_its_numbers_from_the_configuration(root, protocol, said):
    raw = {
        "datasets": {"a": {"source": "simulated", "control_domain": "domain_0", "target_domains": ["domain_1"]}},
        "celcomen": {"simulation": {"n_simulations": 77, "grid": {"n_simulations": 17}}},
    }
    template = (root / "workflow/report/figure_celcomen_2.rst").read_text()
    environment = Environment(trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined)
    text = environment.from_string(template).render(
        snakemake=SimpleNamespace(config=configuration.load_config(raw), wildcards=SimpleNamespace(protocol=protocol))
    )
    html = publish_parts(text, writer="html", settings_overrides={"halt_level": 2})["html_body"]
    assert "77 simulations of 4 genes in 100 cells" in html
    assert said in html
