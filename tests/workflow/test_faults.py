"""What the user can mend stops the run, with one sentence on the screen."""

import time

import anndata
import pytest

from runs import TINY_DATASET, Run, tiny
from user_slides import ENTRY, write_users_slide

CONFIG_FAULTS = {
    "typo": (
        tiny(cellina={"epoch": 3}),
        "config: unknown key cellina.epoch; did you mean epochs?",
    ),
    "method": (
        tiny(methods=["no_change", "celina"]),
        'config: methods[1] is "celina"; allowed is no_change or mean_shift or',
    ),
    "path": (
        tiny(datasets={"mine": ENTRY | {"path": "data/absent.h5ad"}}),
        "config: datasets.mine.path: there is no file 'data/absent.h5ad'; paths count from",
    ),
    "slide": (
        tiny(datasets={"tiny": TINY_DATASET | {"experiments": ["cellina", "cellina_weights"]}})
        | {"cellina_experiments": {"weights": {"slides": ["slide_0", "slide_7"]}}},
        "config: cellina_experiments.weights.slides names slide_7, which no data set with cellina_weights has; the "
        "slides are slide_0.",
    ),
    "name": (
        tiny(datasets={"all": TINY_DATASET}),
        "config: datasets.all has the name of a target or rule; give it another name.",
    ),
}


@pytest.mark.parametrize("fault", CONFIG_FAULTS)
def test_a_faulty_configuration_is_refused_at_once(tmp_path, fault):
    config, sentence = CONFIG_FAULTS[fault]
    run = Run(tmp_path).configure(config)
    started = time.monotonic()
    outcome = run.snakemake()
    assert time.monotonic() - started < 30
    assert outcome.code != 0
    assert sentence in outcome.screen
    assert outcome.screen.count("config:") == 1
    assert "Traceback" not in outcome.screen
    assert not run.files("results")


def test_bad_slides_stop_the_run_and_say_why(tmp_path):
    slide = write_users_slide(tmp_path / "mine.h5ad")
    slide.layers["raw counts"].data[7] = -2
    slide.write_h5ad(tmp_path / "negative.h5ad")
    cell, gene = negative_entry(slide)
    config = tiny(methods=["no_change", "ceiling"])
    config["datasets"] = {
        "negative": ENTRY | {"path": "negative.h5ad"},
        "pixels": ENTRY | {"unit_um": None},
        "unit": ENTRY | {"unit_um": 1e4},
    }
    run = Run(tmp_path).configure(config)
    outcome = run.snakemake()
    assert outcome.code != 0
    # It is the profile that lets the other data sets go on.
    assert "workflow specific profile" in outcome.screen
    expected = {
        "prepare/negative/negative": f"cell '{cell}', gene '{gene}' has the negative count -2",
        "prepare/pixels/pixels": "the coordinates are not in the unit that they were taken for; set unit_um",
        "build_graph/unit/unit": "no two of 900 cells lie within 214.6 um of each other",
    }
    reasons = []
    for job, sentence in expected.items():
        log = run.read(f"results/logs/{job}.log")
        said = [line for line in log.splitlines() if line.startswith("error: ")]
        assert len(said) == 1
        assert sentence in said[0]
        assert said[0] in outcome.screen
        assert "Traceback" not in log
        reasons.append(said[0])
    # They are the last thing on the screen, each once.
    last = outcome.screen.split("At least one job did not complete successfully.")[1]
    assert sorted(last.split("\n")) == sorted(["", "", "", *reasons])
    assert not run.files("results/tables")


def test_a_data_set_that_no_slide_can_be_asked_about_stops_alone_and_before_it_is_trained(tmp_path):
    slide = write_users_slide(tmp_path / "mine.h5ad", n_slides=2)
    # Cells without counts are in the file and not on its slides.
    counts = slide.layers["raw counts"].tolil()
    counts[(slide.obs["cluster"] == "type_1").to_numpy()] = 0
    slide.layers["raw counts"] = counts.tocsr()
    slide.write_h5ad(tmp_path / "blank.h5ad")
    holdout = {"cell_types": ["T cell (CD4+)", "type_1"]}
    entry = ENTRY | {"columns": ENTRY["columns"] | {"sample": "section"}, "holdout": holdout}
    config = tiny(methods=["no_change", "ridge"], seeds=[0], protocols=["corrected"])
    one = {"samples": ["s 1"], "holdout": {"cell_types": ["T cell (CD4+)"]}}
    config["datasets"] = {"blank": entry | {"path": "blank.h5ad"}, "mine": entry | one}
    run = Run(tmp_path).configure(config)
    outcome = run.snakemake("results/tables/blank/scores.tsv", "results/tables/mine/scores.tsv")
    assert outcome.code != 0
    assert "Traceback" not in outcome.screen
    sentence = "error: data set blank: holdout.cell_types names 'type_1', which can be held out on no slide"
    assert run.read("results/logs/check_folds/blank.log").startswith(sentence)
    assert outcome.screen.split("At least one job did not complete successfully.")[1].strip().startswith(sentence)
    assert [*(run.folder / "results/models").iterdir()] == [run.folder / "results/models/mine"]
    assert "s_1" in run.read("results/tables/mine/scores.tsv").split()
    assert "Nothing to be done" in run.snakemake("--dry-run", "results/tables/mine/scores.tsv").screen


def negative_entry(slide: anndata.AnnData) -> tuple[str, str]:
    entries = slide.layers["raw counts"].tocoo()
    position = entries.data.argmin()
    return slide.obs_names[entries.row[position]], slide.var_names[entries.col[position]]


def test_cuda_is_used_or_the_run_stops(finished, tmp_path):
    import torch

    run = finished.copy_to(tmp_path / "run").configure(tiny(device="cuda"))
    fit = "tiny/slide_0/type_0/cellina/corrected.seed0"
    outcome = run.snakemake(f"results/models/{fit}")
    if torch.cuda.is_available():
        assert outcome.code == 0, outcome.screen
        assert '"status": "ok"' in run.read(f"results/models/{fit}/status.json")
    else:
        assert outcome.code != 0
        sentence = "error: config: device is 'cuda', and PyTorch finds no usable CUDA device here"
        assert sentence in outcome.screen
        assert sentence in run.read(f"results/logs/fit/{fit}.log")
        assert not (run.folder / "results/models" / fit).exists()
