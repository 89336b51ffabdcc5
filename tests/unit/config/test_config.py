"""The configuration: defaults, every kind of fault with its sentence, and the names of slides."""

import re

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
import yaml

from tissue_counterfactuals import config
from tissue_counterfactuals.config.dataset import _ONLY_FOR, Dataset
from tissue_counterfactuals.errors import InputError
from tissue_counterfactuals.methods import METHODS, applicable
from tissue_counterfactuals.question.donors import DONOR_RULES
from tissue_counterfactuals.settings import leaves, schema
from tissue_counterfactuals.simulate import lesions, simulate_tissue
from tissue_counterfactuals.simulate.field import simulate_field
from tissue_counterfactuals.simulate.settings import FieldSettings, LesionSettings, TissueSettings

SIMULATED = {"source": "simulated", "control_domain": "domain_0", "target_domains": ["domain_1"]}


def load(dataset=None, **top):
    return config.load_config({"datasets": {"demo_tissue": SIMULATED | (dataset or {})}} | top)


def faults(dataset=None, **top):
    with pytest.raises(InputError) as error:
        load(dataset, **top)
    return str(error.value).splitlines()


@pytest.fixture
def slide_file(tmp_path):
    """An h5ad of twelve cells in samples b, a, c (b first among the categories) and x/1, x_1."""
    columns = {
        "section": pd.Categorical(list("bbbbaaaacccc"), categories=["b", "a", "c", "unused"]),
        "text": list("bbbbaaaacccc"),
        "number": [2] * 4 + [10] * 4 + [7] * 4,
        "clash": pd.Categorical(["x/1", "x/1", "x 1", "x 1"] * 3),
    }
    return write_cells(tmp_path / "slide.h5ad", **columns)


def write_cells(path, **columns):
    """An h5ad of cells of one type, in domains normal and tumour."""
    n = len(next(iter(columns.values())))
    obs = pd.DataFrame(columns | {"cell_type": "T"}, index=[f"cell_{i}" for i in range(n)])
    obs["domain"] = np.where(np.arange(n) % 2, "normal", "tumour")
    anndata.AnnData(np.zeros((n, 2), np.float32), obs=obs, obsm={"spatial": np.zeros((n, 2))}).write_h5ad(path)
    return path


def own_slide(path, **more):
    return {
        "path": str(path),
        "control_domain": "normal",
        "target_domains": ["tumour"],
        "holdout": {"min_cells": 2},
        "graph": {"max_neighbors": 1},
    } | more


# --- defaults ---------------------------------------------------------------------------------------------------


def all_keys():
    for path, key in leaves(schema(config.Config), config.Config):
        yield path, key
    for path, key in leaves(schema(Dataset), Dataset):
        yield f"NAME.{path}", key


def test_every_key_is_described_and_has_a_default():
    keys = list(all_keys())
    assert len(keys) > 150
    for path, node in keys:
        assert node.get("description", "").endswith((".", "...")), path
        assert "default" in node, path


def test_every_number_has_a_lowest_and_a_highest_value():
    """A typing error of some zeros must not fill the memory, nor run for years."""
    numbers = 0
    for path, node in all_keys():
        for form in node.get("anyOf", [node.get("items", node)]):
            if form.get("type") in ("integer", "number"):
                numbers += 1
                assert {"minimum", "exclusiveMinimum"} & set(form), path
                assert {"maximum", "exclusiveMaximum"} & set(form), path
    assert numbers > 100


def test_defaults_are_valid_and_complete():
    loaded = load()
    assert list(loaded) == list(config.Config.model_fields)
    dataset = loaded["datasets"]["demo_tissue"]
    assert set(dataset) == set(Dataset.model_fields)
    assert dataset["kind"] == "simulated"
    assert dataset["label"] == "demo_tissue"
    by_default = [m.name for m in METHODS.values() if m.by_default]
    assert dataset["methods"] == loaded["methods"] == by_default
    assert dataset["graph"] == {"bandwidth_um": 100, "max_neighbors": 200, "cutoff": 0.1}
    assert loaded["counterfactual"]["donor_rules"] == list(DONOR_RULES)
    assert loaded["protocols"] == ["corrected"]
    assert loaded["cellina"]["learning_rate"] == 0.001


def test_defaults_are_not_shared_between_loads():
    load()["datasets"]["demo_tissue"]["methods"].clear()
    load()["seeds"].append(7)
    assert "cellina" in load()["datasets"]["demo_tissue"]["methods"]
    assert load()["seeds"] == [0]


def test_a_block_left_empty_has_its_defaults():
    loaded = load({"graph": None, "columns": None}, cellina=None, switches=None)
    assert loaded["cellina"]["epochs"] == 100
    assert loaded["switches"] == {}
    assert loaded["datasets"]["demo_tissue"]["columns"]["sample"] is None


def test_what_is_given_is_kept_and_not_changed():
    raw = {"datasets": {"a": SIMULATED | {"graph": {"cutoff": 0.2}}}, "cellina": {"epochs": 3}}
    before = yaml.safe_dump(raw)
    loaded = config.load_config(raw)
    assert yaml.safe_dump(raw) == before
    assert loaded["datasets"]["a"]["graph"] == {
        "bandwidth_um": 100,
        "max_neighbors": 200,
        "cutoff": 0.2,
    }
    assert (loaded["cellina"]["epochs"], loaded["cellina"]["n_hidden"]) == (3, 128)


def test_names_agree_with_the_package():
    assert load()["counterfactual"]["donor_rules"] == list(DONOR_RULES)
    assert LesionSettings().n_sections == len(lesions._SECTIONS)


@pytest.mark.parametrize(
    ("section", "settings"),
    [("simulation", TissueSettings), ("field", FieldSettings), ("lesions", LesionSettings)],
)
def test_callers_of_a_simulator_meet_the_checks_of_the_configuration(section, settings):
    source = {"simulation": "simulated", "field": "simulated_field", "lesions": "simulated_lesions"}
    simulate = {"simulation": simulate_tissue, "field": simulate_field, "lesions": lesions.simulate_lesions}
    for name in settings.model_fields:
        for value in (-1, 1e30, float("nan"), "3", True):
            dataset = {"source": source[section], section: {name: value}}
            (sentence,) = faults(dataset)
            assert sentence.startswith(f"config: datasets.demo_tissue.{section}.{name} is "), sentence
            with pytest.raises(InputError) as error:
                simulate[section](**{name: value})
            assert f"config: datasets.demo_tissue.{error.value}" == sentence


def test_the_demo_configuration_is_valid(root):
    raw = yaml.safe_load((root / "config/config.yaml").read_text())
    assert config.load_config(raw)["datasets"]


def test_the_table_of_keys_is_in_step_with_the_classes(root):
    assert config.describe().strip() in (root / "config/README.md").read_text()


def test_the_table_names_every_key():
    table = config.describe()
    for key in ("`seeds`", "`cellina.batch_size`", "`datasets.NAME.columns.cell_type`"):
        assert f"| {key} |" in table
    assert "| a number of at least 0 and below 1 | `0.1` |" in table


# --- faults -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dataset", "top", "sentence"),
    [
        (
            {"colums": {}},
            {},
            "config: unknown key datasets.demo_tissue.colums; did you mean columns?",
        ),
        (
            {"graph": {"bandwith_um": 50}},
            {},
            "config: unknown key datasets.demo_tissue.graph.bandwith_um; did you mean bandwidth_um?",
        ),
        (
            {"bandwidth_um": 50},
            {},
            "config: unknown key datasets.demo_tissue.bandwidth_um; did you mean graph.bandwidth_um?",
        ),
        ({}, {"epochs": 5}, "config: unknown key epochs; did you mean cellina.epochs?"),
        ({}, {"metrics": {"zzz": 5}}, "config: unknown key metrics.zzz; allowed are n_deg."),
        (
            {"unit_um": 0},
            {},
            "config: datasets.demo_tissue.unit_um is 0; allowed is a number above 0 and up to 1000000 or null.",
        ),
        (
            {},
            {"cellina": {"dropout": 1.0}},
            "config: cellina.dropout is 1.0; allowed is a number of at least 0 and below 1.",
        ),
        (
            {},
            {"cellina": {"weight_decay": float("nan")}},
            "config: cellina.weight_decay is NaN; allowed is a number of at least 0 and up to 1000000.",
        ),
        (
            {},
            {"cellina": {"learning_rate": "1e-3"}},
            "config: cellina.learning_rate is \"1e-3\"; allowed is a number above 0 and up to 100; YAML took it for "
            "text, write 0.001.",
        ),
        (
            {},
            {"cellina": {"batch_size": "autp"}},
            'config: cellina.batch_size is "autp"; allowed is enough_steps or auto or a whole number of at least 2 and '
            'up to 10000000; did you mean '
            "auto?",
        ),
        ({}, {"threads": 1.5}, "config: threads is 1.5; allowed is a whole number of at least 1 and up to 1024."),
        ({}, {"threads": True}, "config: threads is true; allowed is a whole number of at least 1 and up to 1024."),
        ({}, {"device": "gpu"}, 'config: device is "gpu"; allowed is auto or cpu or cuda; did you mean cpu?'),
        ({}, {"seeds": []}, "config: seeds is empty; give a list of whole numbers, each of at least 0 and up to "
            "4294967295."),
        ({"samples": []}, {}, "config: datasets.demo_tissue.samples is empty; give a list of (text or a whole number) "
            "or null."),
        ({"questions": [{"name": "a", "cell_type": "type_0", "domain": "domain_0", "composition": {}}]}, {},
            "config: datasets.demo_tissue.questions[0].composition is empty; give at least one entry."),
        ({"patients": {"p": ["slide_0"], "q": ["slide_0"]}}, {},
            "config: datasets.demo_tissue.patients.q has the sample 'slide_0', which is said to be of 'p' too; keep "
            "one."),
        ({}, {"seeds": [1, 1]}, "config: seeds is [1, 1]; give each value once."),
        ({}, {"seeds": 3}, "config: seeds is 3; allowed is a list of whole numbers, each of at least 0 and up to "
            "4294967295."),
        (
            {},
            {"protocols": ["corected"]},
            'config: protocols[0] is "corected"; allowed is corrected or as_run; did you mean corrected?',
        ),
        (
            {"columns": "cell_type"},
            {},
            'config: datasets.demo_tissue.columns is "cell_type"; allowed is a block of keys.',
        ),
        (
            {"source": "h5ad", "path": "https://example.org/a.h5ad", "sha256": "ABC"},
            {},
            'config: datasets.demo_tissue.sha256 is "ABC"; allowed is text of the form ^[0-9a-f]{64}$ or null.',
        ),
        (
            {"target_domains": ["domain_0", "domain_1"]},
            {},
            "config: datasets.demo_tissue.target_domains holds the control domain 'domain_0'; take it out.",
        ),
        (
            {"target_domains": []},
            {},
            "config: datasets.demo_tissue.target_domains is missing; name the domains that cells are put into.",
        ),
        (
            {"experiments": ["cellina_application"], "target_domains": []},
            {},
            "config: datasets.demo_tissue.target_domains is missing; name the domains that cells are put into.",
        ),
        (
            {"control_domain": None},
            {},
            "config: datasets.demo_tissue.control_domain is missing; name the domain that cells are taken from.",
        ),
        (
            {"path": "some.h5ad"},
            {},
            "config: datasets.demo_tissue.path is set, but is not read when source is simulated; remove it, or "
            "set source to h5ad or another that reads it.",
        ),
        (
            {"kind": "real"},
            {},
            "config: datasets.demo_tissue.kind is real, but source is simulated; say simulated or leave it out.",
        ),
        (
            {"source": "h5ad"},
            {},
            "config: datasets.demo_tissue.path is missing; name the file or its http(s) address (source h5ad reads any "
            "AnnData file with raw counts), or a data set of resources/datasets.tsv under files.",
        ),
        (
            {"source": "h5ad", "path": "ftp://example.org/a.h5ad"},
            {},
            "config: datasets.demo_tissue.path is 'ftp://example.org/a.h5ad'; allowed are files and http:// or "
            "https:// addresses.",
        ),
    ],
)  # fmt: skip
def test_a_fault_is_told_in_one_sentence(dataset, top, sentence):
    assert faults(dataset, **top) == [sentence]


def test_braces_which_a_workflow_reads_as_wildcards_are_refused(tmp_path):
    for name in ("a{b}.h5ad", "labels{.csv"):
        (tmp_path / name).touch()
    (tmp_path / "merscope").mkdir()
    (sentence,) = faults({"source": "h5ad", "path": str(tmp_path / "a{b}.h5ad")})
    assert sentence.startswith("config: datasets.demo_tissue.path is ")
    assert sentence.endswith("braces stand for other things in a workflow: give the file another name.")
    labels = {"source": "merscope", "path": str(tmp_path / "merscope"), "labels": str(tmp_path / "labels{.csv")}
    assert "config: datasets.demo_tissue.labels is " in faults(labels)[0]


def test_a_missing_file_is_told_with_its_key(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    dataset = {"source": "h5ad", "path": "data/none.h5ad"}
    assert faults(dataset) == [
        f"config: datasets.demo_tissue.path: there is no file 'data/none.h5ad'; paths count from {tmp_path}."
    ]


def test_a_simulation_block_for_a_file_is_refused(slide_file):
    dataset = {"source": "h5ad", "path": str(slide_file), "simulation": {"n_cells": 5000}}
    (sentence,) = faults(dataset)
    assert "datasets.demo_tissue.simulation is set, but is not read when source is h5ad" in sentence


def test_samples_without_a_column_are_refused(slide_file):
    dataset = {"source": "h5ad", "path": str(slide_file), "samples": ["a"]}
    assert faults(dataset) == [
        "config: datasets.demo_tissue.samples is set, but columns.sample is not; name the column they are in."
    ]


@pytest.mark.parametrize("source", ["xenium", "visium", "cosmx_flat", "merscope", "spatialdata"])
def test_a_sample_column_of_a_bundle_without_labels_is_refused(tmp_path, source):
    dataset = {"source": source, "path": str(tmp_path), "columns": {"sample": "section"}}
    (sentence,) = faults(dataset)
    assert sentence.startswith(
        f"config: datasets.demo_tissue.columns.sample is set, but source {source} reads it in the file labels alone, "
    )


def test_all_faults_are_told_at_once():
    found = faults({"colums": 1, "unit_um": -1}, seeds=[], switches={"lfc": "log7"}, zzz=1)
    assert len(found) == 5
    assert all(sentence.startswith("config: ") for sentence in found)


def test_names_that_no_path_can_hold_are_refused():
    with pytest.raises(InputError, match=r"^config: datasets\.a/b cannot name a data set; use"):
        config.load_config({"datasets": {"a/b": SIMULATED}})


def test_keys_that_yaml_took_for_numbers_are_refused():
    with pytest.raises(InputError, match=r"the key datasets\[120\] is not text; put it in quot"):
        config.load_config({"datasets": {120: SIMULATED}})


@pytest.mark.parametrize("raw", [{}, {"datasets": {}}, {"datasets": None}])
def test_a_configuration_without_data_is_refused(raw):
    with pytest.raises(InputError, match="^config: datasets is empty; give at least one entry.$"):
        config.load_config(raw)


def test_what_is_no_mapping_is_refused():
    with pytest.raises(InputError, match="give a file with keys at the top level"):
        config.load_config(["datasets"])
    with pytest.raises(InputError, match="datasets is 3; allowed is a block of keys"):
        config.load_config({"datasets": 3})
    with pytest.raises(InputError, match='datasets.a is "x"; allowed is a block of keys'):
        config.load_config({"datasets": {"a": "x"}})


def test_switches_are_checked_by_name_and_value():
    assert load(switches={"temperature": 1})["switches"] == {"temperature": "1"}
    (sentence,) = faults(switches={"lfcs": "x"})
    assert "switches.lfcs is no switch" in sentence
    (sentence,) = faults(switches={"lfc": "x"})
    assert "switches.lfc is 'x'; allowed are" in sentence


# --- slides -----------------------------------------------------------------------------------------------------


def entry(name, dataset):
    return config.load_config({"datasets": {name: dataset}})["datasets"][name]


def slides_of(name, dataset):
    return list(config.samples_of(name, dataset))


def test_slides_of_simulated_tissue():
    dataset = entry("a", SIMULATED | {"simulation": {"n_slides": 3}})
    assert slides_of("a", dataset) == ["slide_0", "slide_1", "slide_2"]
    dataset = entry("a", SIMULATED | {"samples": ["slide_1"]})
    assert config.samples_of("a", dataset) == {"slide_1": ["slide_1"]}
    # Both would be one patient, of intervals and tests.
    with pytest.raises(InputError, match="patients.slide_1 is called like a sample that it has not; rename"):
        slides_of("a", entry("a", SIMULATED | {"patients": {"slide_1": ["slide_0"]}, "simulation": {"n_slides": 2}}))
    with pytest.raises(InputError, match="names 'slide_9', which no cell of the slide has; did you mean 'slide_1'"):
        slides_of("a", entry("a", SIMULATED | {"samples": ["slide_9"]}))


@pytest.mark.parametrize("source", ["simulated", "simulated_field", "pooled"])
def test_a_question_about_a_sample_that_is_not_read_is_refused(source):
    stem = "slide" if source != "simulated_field" else "sample"
    asked = {"name": "q", "cell_type": "type_0", "domain": "domain_0", "move_to": "domain_1", "sample": f"{stem}_1"}
    dataset = SIMULATED | {"samples": [f"{stem}_0"], "questions": [asked]}
    if source == "simulated_field":
        dataset = {"source": source, "samples": ["sample_0"], "questions": [asked], "field": {"n_samples": 2}}
    else:
        dataset |= {"simulation": {"n_slides": 2}, "fit": source if source == "pooled" else "per_sample"}
    with pytest.raises(InputError) as error:
        slides_of("a", entry("a", dataset))
    sentence = (
        f"config: datasets.a.questions[0].sample is '{stem}_1', which is not read here; the samples are {stem}_0."
    )
    assert str(error.value) == sentence
    dataset["samples"] = [f"{stem}_1"]
    assert slides_of("a", entry("a", dataset)) == ["pooled" if source == "pooled" else f"{stem}_1"]


def test_slides_of_a_pooled_data_set(slide_file):
    dataset = entry("a", SIMULATED | {"fit": "pooled"})
    assert config.samples_of("a", dataset) == {"pooled": None}
    dataset = own_slide(slide_file, fit="pooled", columns={"sample": "section"}, samples=["c", "a"])
    assert config.samples_of("a", entry("a", dataset)) == {"pooled": ["c", "a"]}
    for named, key in (({"samples": ["c", "A"]}, "samples"), ({"patients": {"P": ["c", "A"]}}, "patients.P")):
        absent = own_slide(slide_file, fit="pooled", columns={"sample": "section"}, **named)
        with pytest.raises(InputError) as error:
            config.samples_of("a", entry("a", absent))
        sentence = f"config: datasets.a.{key} names 'A', which no cell of the slide has; did you mean 'a'?"
        assert str(error.value) == sentence


@pytest.mark.parametrize(
    ("column", "names"),
    [("section", ["b", "a", "c"]), ("text", ["b", "a", "c"]), ("number", ["10", "2", "7"])],
)
def test_slides_of_a_file_are_its_samples(slide_file, column, names):
    dataset = entry("mine", own_slide(slide_file, columns={"sample": column}))
    found = slides_of("mine", dataset)
    # Text is written as a categorical by anndata, in sorted order.
    assert found == (sorted(names) if column == "text" else names)


def test_slides_of_a_file_in_the_old_categorical_encoding(slide_file):
    with h5py.File(slide_file, "r+") as file:
        obs = file["obs"]
        codes, categories = obs["section/codes"][:], obs["section/categories"][:]
        del obs["section"]
        obs["__categories/section"] = categories
        obs["section"] = codes
        obs["section"].attrs["categories"] = obs["__categories/section"].ref
    dataset = entry("mine", own_slide(slide_file, columns={"sample": "section"}))
    assert slides_of("mine", dataset) == ["b", "a", "c"]


def test_configured_samples_may_be_numbers(slide_file):
    dataset = own_slide(slide_file, columns={"sample": "number"}, samples=[7, 10])
    assert config.samples_of("mine", entry("mine", dataset)) == {"7": ["7"], "10": ["10"]}


def test_a_file_without_sample_column_is_one_slide(slide_file):
    assert config.samples_of("mine", entry("mine", own_slide(slide_file))) == {"mine": None}


def test_samples_that_share_a_path_are_refused(slide_file):
    dataset = entry("mine", own_slide(slide_file, columns={"sample": "clash"}))
    with pytest.raises(InputError, match="samples 'x 1' and 'x/1' would both be called 'x_1'"):
        slides_of("mine", dataset)


def test_a_sample_that_is_called_like_the_slide_of_all_samples_keeps_its_own_cells(tmp_path):
    path = write_cells(tmp_path / "a.h5ad", section=np.repeat(["pooled", "Pooled", "sample_pooled", "other"], 4))
    dataset = entry("mine", own_slide(path, columns={"sample": "section"}))
    found = config.samples_of("mine", dataset)
    assert sorted(found.values()) == [["Pooled"], ["other"], ["pooled"], ["sample_pooled"]]
    assert not any(name.lower() == config.POOLED for name in found)


def test_a_sample_column_that_names_cells_is_refused_before_any_job(tmp_path):
    path = write_cells(tmp_path / "a.h5ad", barcode=[f"cell_{i}" for i in range(60)])
    dataset = entry("mine", own_slide(path, columns={"sample": "barcode"}))
    with pytest.raises(InputError, match=r"columns\.sample\) has 60 different values in 60 cells"):
        slides_of("mine", dataset)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"target_domains": ["core/edge", "core edge"]}, r"target_domains: 'core/edge' and 'core edge' would both be"),
        ({"holdout": {"cell_types": ["T+", "T-", "T "]}}, r"holdout\.cell_types: 'T\+' and 'T ' would both be called"),
        ({"target_domains": ["x" * 200]}, r"target_domains: 'x{40}'\.\.\. has 200 characters, and file names"),
    ],
)  # fmt: skip
def test_labels_that_names_of_files_cannot_hold_are_refused_before_any_job(slide_file, more, message):
    with pytest.raises(InputError, match=message):
        entry("mine", own_slide(slide_file) | more)


def test_a_sample_column_that_is_not_there_is_refused(slide_file):
    with pytest.raises(InputError, match="no obs column 'sections' .*did you mean 'section', of cell_type, cla"):
        entry("mine", own_slide(slide_file, columns={"sample": "sections"}))


def test_samples_of_an_address_must_be_listed():
    dataset = own_slide("https://example.org/slide.h5ad", columns={"sample": "section"})
    with pytest.raises(InputError, match=r"datasets\.mine\.samples is missing; list the samples"):
        slides_of("mine", entry("mine", dataset))
    listed = entry("mine", dataset | {"samples": ["s 1", "s2"]})
    assert config.samples_of("mine", listed) == {"s_1": ["s 1"], "s2": ["s2"]}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x" * 300 + ".h5ad", r"longer than the name of a file can be \(305 bytes in one name"),
        ("ä" * 200, r"\(400 bytes in one name"),
        ("/".join(["x" * 200] * 25), r"\(200 bytes in one name, 5024 in all"),
        ("a\0b.h5ad", "the character NUL"),
    ],
)
@pytest.mark.parametrize("key", ["path", "labels", "label", "domain", "offline", "gene_sets"])
def test_what_can_be_no_file_is_told_wherever_it_stands(key, text, words):
    raw = {"datasets": {"m": {"source": "simulated", "control_domain": "domain_0", "target_domains": ["domain_1"]}}}
    dataset = raw["datasets"]["m"]
    where = f"datasets.m.{key}"
    if key == "domain":
        dataset["target_domains"], where = [text], r"datasets.m.target_domains\[0\]"
    elif key == "offline":
        raw["downloads"], where = {"offline": text}, "downloads.offline"
    elif key == "gene_sets":
        clusters = {"clusters": {"gene_sets": [text]}}
        raw["celcomen"], where = {"spleen": clusters}, r"celcomen.spleen.clusters.gene_sets\[0\]"
    else:
        dataset[key] = text
    with pytest.raises(InputError, match=rf"^config: {where} .*{words}"):
        config.load_config(raw)


def test_a_name_that_is_too_long_for_a_folder_is_told():
    with pytest.raises(InputError, match=r"^config: the key 'm{40}'... has 300 characters; give"):
        config.load_config({"datasets": {"m" * 300: {"source": "simulated"}}})


def test_a_method_that_knows_only_cells_it_was_trained_on_is_not_asked_about_patients_who_are_left_out():
    patients = SIMULATED | {"fit": "leave_patient_out"}
    (sentence,) = faults(datasets={"patients": patients | {"methods": ["no_change", "concert"]}})
    assert sentence == (
        "config: datasets.patients.methods names concert, which cannot be run here: it answers only about cells that "
        "it was trained on, and fit leaves the patient asked about out; leave it out."
    )
    (sentence,) = faults(datasets={"patients": patients}, methods=["no_change", "concert"])
    assert sentence.startswith("config: methods names concert, which no data set here can be asked: it answers only")
    load(datasets={"patients": patients, "made": SIMULATED}, methods=["no_change", "concert"])
    assert [m.name for m in applicable(["no_change", "concert"], True, "leave_patient_out")] == ["no_change"]


@pytest.mark.parametrize(
    ("name", "reason"),
    [("truth", "it reads the mechanism of a simulated tissue"), ("simvi", "no expression")],
)
def test_a_method_that_cannot_do_its_job_on_a_data_set_is_refused(slide_file, name, reason):
    """Before anything runs, and only where it was asked for by name."""
    real = own_slide(slide_file, source="h5ad")
    entries = {"real": real, "made": SIMULATED}
    asked = {"datasets": entries | {"real": real | {"methods": ["no_change", name]}}}
    with pytest.raises(InputError) as error:
        config.load_config(asked)
    (sentence,) = str(error.value).splitlines()
    assert sentence.startswith(f"config: datasets.real.methods names {name}, which cannot be run here: ")
    assert reason in sentence
    assert sentence.endswith("leave it out.")
    # At the top level a method is run where it can be, and must be of use somewhere.
    with pytest.raises(InputError) as error:
        config.load_config({"datasets": {"real": real}, "methods": ["no_change", name]})
    (sentence,) = str(error.value).splitlines()
    assert sentence.startswith(f"config: methods names {name}, which no data set here can be asked")
    assert reason in sentence
    both = {"datasets": entries, "methods": ["no_change", name]}
    if name == "truth":
        assert config.load_config(both)["methods"] == ["no_change", "truth"]
    else:
        with pytest.raises(InputError, match="methods names simvi"):
            config.load_config(both)


def test_pooled_steps_are_refused_where_slides_are_shuffled():
    field = {"source": "simulated_field", "experiments": ["celcomen_spleen"]}
    shuffled = {"log_partition": "paper", "held_out_slide": "shuffled"}
    (sentence,) = faults(datasets={"field": field}, switches=shuffled)
    assert "switches.slide_steps 'pooled' does not allow" in sentence
    for allowed in (shuffled | {"slide_steps": "shuffled"}, shuffled | {"log_partition": "gaussian"}):
        load(datasets={"field": field}, switches=allowed)
    load(datasets={"made": SIMULATED}, switches=shuffled)


def test_patches_are_not_asked_for_where_batches_are_random_cells():
    of_random = {"switches": {"gat_field": "one_hop"}}
    assert load(**of_random, cellina_gat={"patch_cells": 1})
    load(cellina_gat={"patch_cells": 8})
    (sentence,) = faults(**of_random, cellina_gat={"patch_cells": 8})
    assert sentence.startswith("config: cellina_gat.patch_cells is 8, but switches.gat_field is one_hop")


def test_an_equal_budget_is_not_what_the_authors_ran():
    assert load(budget="equal", protocols=["corrected"])["equal_steps"] == 2000
    (sentence,) = faults(budget="equal", protocols=["corrected", "as_run"])
    assert sentence.startswith("config: budget is equal, but protocols names as_run")


@pytest.mark.parametrize(
    ("top", "beginning", "mended"),
    [
        (
            {"switches": {"scale": "none"}, "protocols": ["as_run"]},
            "config: switches are given, but protocols names as_run alone",
            {"protocols": ["as_run", "corrected"]},
        ),
        ({"equal_steps": 9}, "config: equal_steps is given, but budget is own", {"budget": "equal"}),
        (
            {"cellina_experiments": {"scalability": {"n_cells": [500], "most_cells": {"cpa": 400}}}},
            "config: cellina_experiments.scalability.most_cells.cpa is 400, and the fewest cells",
            {"cellina_experiments": {"scalability": {"n_cells": [400, 500], "most_cells": {"cpa": 400}}}},
        ),
        (
            {"cellina_experiments": {"trust": {"methods": []}}, "celcomen": {"without_slides": ["trust"]}},
            "config: cellina_experiments.trust.methods is empty",
            {"celcomen": {}},
        ),
        ({"downloads": {"folder": "~/x"}}, "config: downloads.folder begins with ~", {"downloads": {"folder": "x"}}),
    ],
)
def test_what_would_do_nothing_is_refused(top, beginning, mended):
    (sentence,) = faults(**top)
    assert sentence.startswith(beginning)
    load(**top | mended)


def test_the_rule_that_makes_slides_is_told_every_key_that_a_source_reads(root):
    """What it is not told it cannot read: a simulated screen failed, and `keep_columns` kept nothing."""
    told = re.search(r"^READ = \((.*?)^\)", (root / "workflow/rules/common.smk").read_text(), re.S | re.M)[1]
    assert {*_ONLY_FOR} <= {*re.findall(r'"(\w+)"', told)}


def test_the_trial_is_all_there_is_on_simulated_tissue(root):
    """Everything that can be asked for without a download, once: what is added is to be added there too."""
    from tissue_counterfactuals.experiments import ON_EACH_SLIDE, WITHOUT_SLIDES
    from tissue_counterfactuals.methods import CORE, METHODS

    trials = config.load_config(yaml.safe_load((root / "config/trial.yaml").read_text()))
    assert {e["kind"] for e in trials["datasets"].values()} == {"simulated"}
    trial = trials["datasets"]["trial"]
    assert set(trial["experiments"]) == {"cellina", *ON_EACH_SLIDE}
    assert set(trials["celcomen"]["without_slides"]) == set(WITHOUT_SLIDES)
    scored = {m.name for m in METHODS.values() if m.environment == CORE and m.refusal(True) is None}
    assert set(trial["methods"]) == scored
    assert {e["fit"] for e in trials["datasets"].values()} == {"per_sample", "leave_patient_out"}
