"""What the README says of the demo is what was measured with other seeds, of the demo as it is configured now."""

import json
import re
import sys
from pathlib import Path

import pandas as pd
import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/recorded"))
import demo_seeds  # noqa: E402
import kills  # noqa: E402
import pythons  # noqa: E402


@pytest.fixture(scope="module")
def table():
    table = demo_seeds.recorded()
    assert len(table), "the demo's configuration has changed since it was measured: run make recorded"
    return table


def test_every_seed_is_whole_and_nothing_failed(table):
    assert set(table["status"]) == {"ok"}
    per_seed = table.groupby("seed").size()
    assert per_seed.nunique() == 1
    assert len(per_seed) >= 20
    assert set(table["protocol"]) == set(demo_seeds.demo()["protocols"])


def test_the_readme_says_what_was_measured(table):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    block = text.split(demo_seeds.BEGIN)[1].split(demo_seeds.END)[0]
    assert block == demo_seeds.readme_table(table)
    # Numbers of the demo stand there and nowhere else, so that none can go stale.
    section = text.split("## What you will see")[1].split("\n## ")[0].replace(block, "")
    assert re.findall(r"\d\.\d", section) == []


def test_the_words_around_the_table_hold_for_what_was_measured(table):
    def error(method, variant="-", metric="rmse_lfc", protocol="corrected"):
        return demo_seeds.value_of(table, protocol, method, variant, metric)

    # The ceiling carries counting noise twice.
    assert (error("truth_in_place") < error("ceiling")).all()
    # Models resemble the target domain more than the effect of their donors, and often score above the truth.
    model = error("cellina", "published")
    readme = " ".join((ROOT / "README.md").read_text("utf-8").split())
    told = re.findall(r"errs less than this truth in (\d+) of the (\d+) folds \(under `as_run` in (\d+)\)", readme)
    below = [
        (error("cellina", "published", protocol=p) < error("truth", "published", protocol=p))
        for p in ("corrected", "as_run")
    ]
    assert told == [(str(below[0].sum()), str(len(below[0])), str(below[1].sum()))]
    assert model.median() < error("cellina", "published", demo_seeds.TO_TRUTH).median()
    assert (model < error("truth", "published")).mean() > 0.5
    # The counterfactual beats its twin and the controls.
    assert (model < error("cellina", "no_intervention")).all()
    for control in ("no_change", "mean_shift_by_type"):
        assert (model < error(control)).mean() > 0.95, control


def test_the_demo_ran_on_every_python_with_these_pins_and_gave_one_set_of_numbers():
    table = pd.read_csv(pythons.TABLE, sep="\t", dtype=str)
    named = re.search(r"python: (\[.*\])", (ROOT / ".github/workflows/ci.yml").read_text("utf-8")).group(1)
    assert [v.rpartition(".")[0] for v in table["python"]] == json.loads(named)
    assert set(table["pins"]) == {pythons.digest_of(pythons.pins(ROOT))}, (
        "the pins have changed: see tests/recorded/pythons.py"
    )
    assert all(table[name].nunique() == 1 for name in (*pythons.TABLES, "commit"))


def test_fifty_trainings_on_a_busy_machine_gave_one_set_of_bytes_and_two_threads_one_near_it():
    table = pd.read_csv(ROOT / "tests/recorded/same_bytes.tsv", sep="\t")
    # A row for each set of weights.
    assert table["threads"].tolist() == [1, 2]
    assert (table["trainings"] >= [50, 10]).all()
    assert table["lowest_load"].min() > 2
    readme = " ".join((ROOT / "README.md").read_text("utf-8").split())
    (told,) = re.findall(r"two threads end in others, up to (\S+) from these", readme)
    assert table["largest_difference"].tolist() == [0, float(told)]


def test_the_run_to_be_killed_has_the_method_of_the_page(tmp_path):
    methods = kills.prepare(tmp_path / "clone") / "workflow/tissue_counterfactuals/methods"
    assert '        Method("halving",' in (methods / "__init__.py").read_text()
    compile((methods / "halving.py").read_text(), "halving.py", "exec")
