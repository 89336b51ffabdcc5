"""Tests of the report's captions, rendered as Snakemake does it."""

import copy
import json
import pickle
import re
from html import escape
from types import SimpleNamespace

import pytest
from docutils.core import publish_parts
from jinja2 import Environment, StrictUndefined

from tissue_counterfactuals import config as configuration
from tissue_counterfactuals.results.harmless import harmless

DEVIATIONS = SimpleNamespace(target="deviations.tsv", path="results/deviations.tsv")


def rendered(root, name, config, files=(DEVIATIONS,), **wildcards):
    """A caption as Snakemake renders it: Jinja, then docutils; any warning of docutils is an error here."""
    template = (root / "workflow/report" / name).read_text()
    environment = Environment(trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined)
    snakemake = SimpleNamespace(config=config, wildcards=SimpleNamespace(**wildcards))
    targets = "\n\n" + "".join(f".. _{f.target}: javascript:show('{f.path}')\n" for f in files)
    text = environment.from_string(template + targets).render(snakemake=snakemake, files=files, categories={})
    return publish_parts(text, writer="html", settings_overrides={"halt_level": 2})["html_body"]


@pytest.fixture(scope="module")
def settings():
    raw = {
        "seeds": [3, 7, 11],
        "protocols": ["corrected", "as_run"],
        "counterfactual": {"n_donors": 37},
        "metrics": {"n_deg": 41},
        "datasets": {
            "tissue": {
                "source": "simulated",
                "control_domain": "domain_0",
                "target_domains": ["domain_2"],
                "graph": {"bandwidth_um": 88.0, "max_neighbors": 123},
            },
            "brain": {
                "path": "https://example.org/brain.h5ad",
                "kind": "stand-in",
                "label": "Hypothalamus_",
                "control_domain": "niche0_Astrocyte+Endothelial",
                "target_domains": ["niche5_ODMature+Microglia", "other_"],
                "fit": "pooled",
            },
        },
    }
    return harmless(configuration.load_config(raw))


FIGURE_CAPTIONS = {
    "table_cellina_1.rst": {"target": "domain_2", "protocol": "as_run"},
    "table_cellina_2.rst": {"protocol": "as_run"},
    "figure_cellina_1.rst": {"protocol": "as_run"},
    "figure_cellina_3.rst": {"protocol": "as_run"},
    "figure_cellina_a2.rst": {"target": "domain_2", "protocol": "as_run"},
    "figure_cellina_2.rst": {"slide": "slide_0"},
    "learning_curves.rst": {"protocol": "as_run"},
    "costs.rst": {"protocol": "as_run"},
    "metric_agreement.rst": {"target": "domain_2", "protocol": "as_run"},
    "tables.rst": {},
    "shapes.rst": {"slide": "slide_0"},
}


@pytest.mark.parametrize("name", FIGURE_CAPTIONS)
@pytest.mark.parametrize(
    ("dataset", "kind", "label"),
    [("tissue", "simulated", "tissue"), ("brain", "stand-in", "Hypothalamus_")],
)
def test_captions_say_the_kind_of_data(root, settings, name, dataset, kind, label):
    html = rendered(root, name, settings, dataset=dataset, **FIGURE_CAPTIONS[name])
    assert kind in html
    assert label in html
    assert ("simulated" in html) == (kind == "simulated")
    for value in FIGURE_CAPTIONS[name].values():
        assert value in html


def test_captions_take_their_numbers_from_the_configuration(root, settings):
    table = rendered(root, "table_cellina_1.rst", settings, dataset="tissue", target="x", protocol="corrected")
    for number in ("3, 7, 11", "37 donors", "41 genes"):
        assert number in table
    slide = rendered(root, "figure_cellina_2.rst", settings, dataset="tissue", slide="slide_0")
    for number in ("37 donors", "at most 123", "88.0 µm", "0.1 or less"):
        assert number in " ".join(slide.split())
    for layers, said in ((1, "its one layer of"), (2, "in 1 round before"), (4, "last of its 4 layers")):
        changed = settings | {"cellina_gat": settings["cellina_gat"] | {"n_layers": layers}}
        attention = rendered(root, "attention.rst", changed, dataset="tissue", slide="slide_0")
        assert said in " ".join(attention.split())
    curves = rendered(root, "learning_curves.rst", settings, dataset="tissue", protocol="corrected")
    assert f"at most {settings['cellina']['epochs']} epochs" in curves
    equal = settings | {"budget": "equal", "equal_steps": 1234}
    curves = rendered(root, "learning_curves.rst", equal, dataset="tissue", protocol="corrected")
    assert "1,234 of them" in curves
    assert "stopped after" not in curves


def test_landing_page_describes_the_run(root, settings):
    html = rendered(root, "workflow.rst", settings)
    for text in (
        *(
            "tissue",
            "Hypothalamus_",
            "simulated",
            "stand-in",
            "niche5_ODMature+Microglia",
            "other_",
        ),
        *("3, 7, 11", "as_run", "cellina_ablated", "37 donors", "matched"),
        *("one model over all samples", "a model for each sample"),
    ):
        assert text in html
    assert '<a class="reference external" href="javascript:show(' in html
    assert "Switches set apart" not in html
    # The truth is known on simulated slides only.
    lists = [part for part in html.split("<li>") if "Methods and controls on" in part]
    assert ["truth_in_place" in part for part in lists] == [True, False]


def test_landing_page_opens_with_the_answer(root, settings, tmp_path):
    files = [SimpleNamespace(target=n, path=tmp_path / n) for n in ("page.html", "methods.md")]
    (tmp_path / "opening.html").write_text("<p><strong>Cellina loses &lt;here&gt;</strong></p>")
    html = rendered(root, "workflow.rst", settings, files=[DEVIATIONS, *files])
    first = html.index("Cellina loses &lt;here&gt;")
    assert first < html.index("methods and settings") < html.index("This run")
    assert f"javascript:show('{tmp_path / 'page.html'}')" in html


def test_landing_page_says_what_was_run_on_each_data_set(root, settings):
    samples = settings["datasets"]["tissue"] | {
        "experiments": ["celcomen_spleen"],
        "label": "Only samples",
        "control_domain": None,
        "target_domains": [],
    }
    config = harmless(settings | {"datasets": {"s": samples}})
    html = rendered(root, "workflow.rst", config)
    assert "celcomen_spleen" in html
    assert "None" not in html
    assert "Methods and controls on" not in html
    assert "benchmark" in rendered(root, "workflow.rst", settings)


def test_landing_page_names_switches_that_were_set(root, settings):
    html = rendered(root, "workflow.rst", settings | {"switches": {"lfc": "log2_epsilon"}})
    assert "lfc = log2_epsilon" in html


# What a label can be that somebody means ill with, or that a program wrote without thinking.
ILL = (
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "``\n\n.. include:: {secret}\n\n``",
    "`` |x| `a`_ **b** :raw-html:`<b>`\n\n.. raw:: html\n\n   <script>alert(1)</script>",
    "\\",
    "{{ 7 * 7 }} {% raw %}",
    "`",
)


@pytest.mark.parametrize("name", ["workflow.rst", *FIGURE_CAPTIONS])
@pytest.mark.parametrize("label", ILL)
def test_a_label_is_shown_as_text_whatever_it_is(root, settings, tmp_path, name, label):
    secret = tmp_path / "secret"
    secret.write_text("what stands in a file of this machine")
    label = label.replace("{secret}", str(secret))
    dataset = settings["datasets"]["brain"] | {
        "label": label,
        "control_domain": label,
        "target_domains": [label],
    }
    config = harmless(settings | {"datasets": {"brain": dataset}})
    html = rendered(root, name, config, dataset="brain", **FIGURE_CAPTIONS.get(name, {}))
    shown = re.sub(r"\s+", " ", re.sub(r"<[^>]*>", "", html))
    assert escape(" ".join(label.split()).replace("`", "'"), quote=False) in shown.replace("&quot;", '"')
    assert "what stands in" not in html
    assert not re.search(r"<(script|img|b)\b", html)


def test_harmless_text_is_the_same_text_and_shows_no_markup():
    raw = {"a<b": ["</script>", ("x", 1, None)], "n": 2.5}
    value = harmless(raw)
    assert value == raw
    assert json.dumps(value) == json.dumps(raw)
    assert value["a<b"][0] + "!" == "</script>!"
    # What Snakemake writes into the page.
    assert "<" not in f"{value}"
    assert ">" not in f"{value}"
    assert eval(repr(value)) == raw
    assert repr(harmless("Äpfel 'a'")) == repr("Äpfel 'a'")
    # Scripts get plain text, and need nothing of this package to read it.
    sent = pickle.dumps(value)
    assert b"tissue_counterfactuals" not in sent
    assert pickle.loads(sent) == raw
    assert copy.deepcopy(value)["a<b"][0].literal == "``</script>``"
