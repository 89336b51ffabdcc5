"""Every switch of Celcomen's protocols through an experiment that reads it: each value leaves other tables.

A switch is a row of protocols/celcomen.py. A new one fails here until it has a case. What each value computes is the
matter of the tests of that experiment or model; here it is seen to arrive.
"""

import itertools
from pathlib import Path

import pytest

from tissue_counterfactuals import protocols
from tissue_counterfactuals.config import Config
from tissue_counterfactuals.experiments import EXPERIMENTS
from tissue_counterfactuals.protocols.celcomen import SWITCHES
from tissue_counterfactuals.simulate.field import simulate_field
from tissue_counterfactuals.simulate.lesions import simulate_lesions
from tissue_counterfactuals.slide import write_slide

ROWS = {experiment.name: experiment for experiment in EXPERIMENTS}
DEFAULTS = Config.model_fields["celcomen"].default.model_dump()
CONFIG = Config.model_construct().model_dump()
ENTRY = {"name": "toy", "kind": "simulated", "label": "Toy", "source": "simulated", "files": None}
KNOWN = {"entry": ENTRY, "protocol": "corrected", "seeds": [0], "overrides": {}}

MEAN_FIELD = {"log_partition": "paper", "first_forces": "independent"}
IN_ANGLES = {"chart": "angles", "angles": "arctangent"}
AS_RUN = {s.name: s.as_run for s in SWITCHES}
# Switch -> the experiment that is run, and the switches beside it that are not `corrected`: what only the mean field or
# only nested angles read is looked at under these.
CASES = {
    # inference
    "log_partition": ("celcomen_spleen", {}),
    "centre": ("celcomen_spleen", {}),
    "ridge": ("celcomen_spleen", {}),
    "interaction_weights": ("celcomen_spleen", {}),
    "scale": ("celcomen_spleen", {}),
    "neighbour_number": ("celcomen_spleen", MEAN_FIELD),
    "pair_sum": ("celcomen_spleen", MEAN_FIELD),
    "temperature": ("celcomen_spleen", MEAN_FIELD),
    "force_range": ("celcomen_spleen", MEAN_FIELD | {"loss_unit": "slide"}),
    "first_forces": ("celcomen_spleen", {"log_partition": "paper"}),
    "loss_unit": ("celcomen_spleen", MEAN_FIELD),
    "slide_steps": ("celcomen_spleen", MEAN_FIELD),
    # generation
    "chart": ("celcomen_knockout", {}),
    "angles": ("celcomen_knockout", {"chart": "angles"}),
    "last_gene": ("celcomen_knockout", IN_ANGLES),
    "knocked_out_gene": ("celcomen_knockout", {}),
    "generation_log_partition": ("celcomen_knockout", {}),
    "knockout_effect": ("celcomen_knockout", {}),
    # experiments
    "true_forces": ("celcomen_simulation", {}),
    "simulated_tissue": ("celcomen_simulation", {"log_partition": "paper"}),
    "compared_entries": ("celcomen_simulation", {}),
    "constant_forces": ("celcomen_simulation", AS_RUN),
    "force_units": ("celcomen_spleen_clusters", {}),
    "held_out_slide": ("celcomen_spleen", MEAN_FIELD | {"slide_steps": "shuffled"}),
    "random_forces": ("celcomen_spleen", {}),
    "localization_test": ("celcomen_localization", {}),
    "knockout_cells": ("celcomen_knockout", {}),
    "lesion_sections": ("celcomen_perturbmap", {}),
    "lesion_outlines": ("celcomen_perturbmap", {}),
    "experimental_scale": ("celcomen_perturbmap", {}),
    "wild_type": ("celcomen_perturbmap", {}),
    "knockout_spots": ("celcomen_perturbmap", {}),
}
SETTINGS = {
    "celcomen_simulation": DEFAULTS["simulation"]
    | {"n_simulations": 6, "epochs": 500}
    | {
        "grid": {
            "n_simulations": 1, "usual_n_genes": 4, "usual_n_cells": 100,
            "n_genes": [4], "n_cells": [100], "noise": [0], "dropout": [0],
        }
    },
    "celcomen_spleen": DEFAULTS["spleen"]
    | {"n_top_genes": 6, "min_cells_per_gene": 2, "epochs": 8, "learning_rate": 0.05}
    | {"ridge": 0.1, "n_permutations": 9},
    "celcomen_glioblastoma": DEFAULTS["glioblastoma"]
    | {"crop_um": None, "min_counts_per_cell": 1, "min_cells_per_gene": 2, "ridge": 0.1}
    | {"knockout": {"gene": "gene_03", "n_cells": 8, "n_placebo": 2, "epochs": 6, "learning_rate": None}}
    | {"localization": {"n_bins": 2, "n_permutations": 20}}
    | {"enrichment": DEFAULTS["glioblastoma"]["enrichment"] | {"gene_sets": ["hallmark"]}},
    "celcomen_perturbmap": DEFAULTS["perturbmap"]
    | {"knockouts": ["Tgfbr2"], "draws": 1, "shuffled_fits": 1, "max_genes": 20}
    | {"generation_epochs": 3, "epochs": 10},
}  # fmt: skip


class Bench:
    """Slides, the forces that further steps start from, and what was run already."""

    def __init__(self, folder):
        self.folder, self.known = folder, {}
        slides = {
            "spleen": simulate_field(n_cells=360, n_genes=8, n_samples=3, depth=400, seed=1),
            "glioblastoma": simulate_field(n_cells=200, n_genes=12, depth=20, seed=1),
            "perturbmap": simulate_lesions(n_genes=1000, n_sections=2, normal_tissue=0, seed=1),
        }
        for name, slide in slides.items():
            write_slide(slide, folder / f"{name}.h5ad")
        for name in ("celcomen_spleen", "celcomen_glioblastoma"):
            self.run(name, protocols.resolve("corrected"), folder / "fits")

    def tables(self, name, switches):
        """What an experiment writes under `corrected` and some other switches; each is run once."""
        values = protocols.resolve("corrected") | switches
        key = name, *values.values()
        if key not in self.known:
            self.known[key] = self.run(name, values, self.folder / str(len(self.known)))
        return self.known[key]

    def run(self, name, values, output):
        """Files by name; manifests, which name the switches, are left out."""
        experiment = ROWS[name]
        _, about, *further = experiment.section.split(".")
        settings = SETTINGS[f"celcomen_{about}"]
        for key in further:
            settings = settings[key]
        inputs = {key: self.folder / "fits" / Path(x).name for key, x in experiment.inputs.items()}
        if "slide" in inputs:
            inputs["slide"] = self.folder / f"{about}.h5ad"
        output.mkdir(exist_ok=True)
        outputs = {key: output / Path(x).name for key, x in experiment.outputs.items()}
        read = {*experiment.switches}
        switches = {n: v for n, v in values.items() if {n, protocols.SWITCHES[n].step} & read}
        taken = {key: KNOWN[key] for key in experiment.takes}
        experiment.run(**inputs, settings=settings, switches=switches, **taken, outputs=outputs)
        return {k: x.read_bytes() for k, x in outputs.items() if x.suffix != ".json"}


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    return Bench(tmp_path_factory.mktemp("experiments"))


@pytest.mark.parametrize("switch", SWITCHES, ids=lambda switch: switch.name)
def test_each_value_of_a_switch_leaves_other_tables(switch, bench):
    assert switch.name in CASES, f"the switch {switch.name} has no case in this file"
    experiment, others = CASES[switch.name]
    found = {v: bench.tables(experiment, others | {switch.name: v}) for v in switch.values}
    for one, other in itertools.combinations(found, 2):
        assert found[one] != found[other], f"{switch.name}: {one} and {other} give the same tables"


@pytest.mark.parametrize("name", ROWS)
def test_what_a_row_leaves_unread_is_a_key_of_its_settings(name):
    """Or a change of that key runs the experiment again."""
    settings = CONFIG
    for key in ROWS[name].section.split("."):
        settings = settings[key]
    assert set(ROWS[name].unread) <= set(settings)


@pytest.mark.parametrize("name", sorted({name for name, _ in CASES.values()}))
def test_the_same_switches_leave_the_same_tables(name, bench, tmp_path):
    """Or any two runs would differ, and the test above would see nothing."""
    again = bench.run(name, protocols.resolve("corrected"), tmp_path)
    assert again == bench.tables(name, {})
