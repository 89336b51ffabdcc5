"""The answer of a run, and the page of its tables and figures: what they say first, and that data stay text."""

import re

import pandas as pd
import pytest
from PIL import Image
from runs_to_compare import config, failed, noisy, scores, tables

from tissue_counterfactuals.compare import Tables, methods, numbers, opening, page, run, statements
from tissue_counterfactuals.config import load_config
from tissue_counterfactuals.protocols import resolve
from tissue_counterfactuals.results.tables import FOLD, TWIN
from tissue_counterfactuals.sources.downloads.table import DATASETS_PATH

ILL = "<script>alert(1)</script>|`x"


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def a_run(folder, control, kind="real", **changes):
    answers = {
        ("cellina", "published", "rmse_lfc"): noisy(0.5, seed=1),
        ("cellina", TWIN, "rmse_lfc"): noisy(0.7, seed=2),
        ("mean_shift", "-", "rmse_lfc"): noisy(control, seed=3),
        ("ceiling", "-", "rmse_lfc"): noisy(0.1, seed=4),
    }
    return tables(folder, scores(answers, kind, protocol="corrected"), config(kind, **changes), True)


def answer(here):
    found = {"numbers": numbers.build(here), "statements": statements.build(here)}
    return opening.build(here, **found), found


def test_the_first_line_says_that_cellina_loses(tmp_path):
    text, _ = answer(a_run(tmp_path, control=0.3))
    assert text.first.startswith("Cellina does worse than a control: mean shift on Bowel <i>")
    assert "errs less in 30 of 30 folds" in text.first
    # The ceiling has seen the answer and is no method.
    assert text.best[0].startswith("Bowel <i> (real data), corrected: Mean shift errs least")
    assert "a control that knows nothing" in text.best[0]


def test_the_best_method_is_put_beside_twin_and_control(tmp_path):
    text, found = answer(a_run(tmp_path, control=0.9))
    assert text.first.startswith("Cellina errs less than every control; the strongest: mean shift")
    assert re.search(r"Cellina errs least .* \+0\.2\S* against its twin \(30 of 30 folds\)", text.best[0])
    assert len(text.verdicts) == 10
    assert text.verdicts.iloc[0, :2].tolist() == [
        "Cellina beats its twin and every control",
        "holds",
    ]
    screen = opening.to_markdown(text)
    assert screen.startswith("# Answer\n\nCellina errs less")
    assert "not comparable" in screen
    assert "by the rules of the protocol corrected:\n\n| Statement" in screen
    assert "<tr><th>Statement</th><th>Verdict</th><th>On</th>" in opening.to_html(text)
    assert "real: those of the papers" in screen


def test_the_best_form_of_a_method_is_put_beside_controls_itself(tmp_path):
    """Its other form errs more than controls do, or was not asked at all."""
    answers = {
        ("cellina", "published", "rmse_lfc"): 0.9,
        ("cellina", "node", "rmse_lfc"): 0.1,
        ("cellina", TWIN, "rmse_lfc"): 0.5,
        ("mean_shift", "-", "rmse_lfc"): 0.3,
        ("no_change", "-", "rmse_lfc"): 0.6,
    }
    (told,) = opening._best("here", scores(answers), resolve("corrected"))
    assert "Cellina (altered neighbours) errs least" in told
    assert told.endswith("+0.4 against its twin (30 of 30 folds); +0.2 against mean shift (30 of 30 folds).")
    answers = {key: value for key, value in answers.items() if key[0] != "cellina"}
    (told,) = opening._best("here", scores(answers | {("spatialprop", "node", "rmse_lfc"): 0.1}), resolve("corrected"))
    assert told.endswith("+0.2 against mean shift (30 of 30 folds).")
    answers |= {("scgen", "-", "rmse_lfc"): 0.1}
    for protocol, best in (("corrected", "scGen"), ("as_run", "Mean shift")):
        (told,) = opening._best("here", scores(answers), resolve(protocol))
        assert told.startswith(f"here: {best} errs least")


def test_the_first_line_names_folds_in_which_cellina_failed(tmp_path):
    here = a_run(tmp_path, control=0.9)
    assert "failed" not in answer(here)[0].first
    scored = here.of("cellina", "scores", dataset="crc")
    away = ("120", "T_cell")
    kept = scored[(scored["method"] != "cellina") | (scored[FOLD].apply(tuple, axis=1) != away)]
    lost = failed("cellina", "fit: too long", protocol="corrected", slides=away[:1], types=away[1:], seeds=(0, 1))
    # Of its twin alone, of another method: not what the line is about.
    more = [
        failed("cellina", "no twin", TWIN, protocol="corrected", slides=["210"]),
        failed("mean_shift", "no shift", protocol="corrected", slides=["221"]),
    ]
    rows = pd.concat([kept, lost, *more], ignore_index=True)
    text, found = answer(tables(tmp_path, rows, here.config, True))
    assert text.first.startswith("Cellina errs less than every control")
    assert text.first.endswith(
        "(29 of 29 folds better). Cellina failed in 1 of 30 folds of Bowel <i> (real data), corrected: "
        "T_cell on 120 (fit: too long)."
    )
    # The method is named that errs least where both have an answer, however it does elsewhere.
    worse = rows.assign(value=rows["value"].where(rows["method"] != "mean_shift", rows["value"] - 0.5))
    worse.loc[(rows["method"] == "mean_shift") & (rows[FOLD].apply(tuple, axis=1) == away), "value"] = 30
    best = opening.build(tables(tmp_path, worse, here.config), **found).best[0]
    assert "Mean shift errs least (RMSE of log-fold changes 0.399)" in best
    everywhere = failed("cellina", "fit: too long", protocol="corrected")
    rows = pd.concat([scored[scored["method"] != "cellina"], everywhere], ignore_index=True)
    text, _ = answer(tables(tmp_path, rows, here.config, True))
    assert text.first.startswith("No prediction of Cellina was scored on Bowel <i> (real data)")
    assert text.first.endswith(
        "failed in 30 of 30 folds of Bowel <i> (real data), corrected: Endothelial on 120, "
        "Epithelial on 120, Fibroblast on 120 and 27 more (fit: too long)."
    )


def test_labels_stay_text_in_everything_that_is_made(tmp_path):
    here = a_run(tmp_path, control=0.3, kind="stand-in")
    here.config["datasets"]["crc"] |= {"label": ILL}
    picture = tmp_path / "results/figures/crc/map.slide_0.png"
    picture.parent.mkdir(parents=True)
    Image.new("RGB", (40, 30)).save(picture)
    names = ("numbers", "statements", "answer", "opening", "methods", "page")
    outputs = {name: tmp_path / f"results/compare/all/{name}" for name in names}
    inputs = {"tables": sorted(here.paths), "figures": ["results/figures/crc/map.slide_0.png"]}
    run(inputs, here.config, outputs)
    texts = {name: path.read_text() for name, path in outputs.items()}
    for name in ("opening", "page"):
        assert "<script>alert" not in texts[name]
        assert "&lt;script&gt;alert(1)" in texts[name]
    for name in ("answer", "methods"):
        assert "\\<script>alert(1)\\</script>\\|\\`x" in texts[name]
    # What decides stands first; columns without anything in them are left out.
    heads = re.findall("<th>(.*?)</th>", texts["page"])
    assert heads[:6] == ["line", "statement", "paper", "place", "verdict", "result"]
    assert "tolerance" not in heads
    # Nothing is fetched from elsewhere, and the same run gives the same page.
    assert not re.search(r"(src=|<link[^>]*href=)[\"']?(https?:)?//", texts["page"])
    again = page.build(here, answer(here)[1], inputs["figures"])
    assert again == texts["page"]


def test_a_picture_says_how_the_numbers_of_its_own_place_and_data_stand(tmp_path):
    here, picture = a_run(tmp_path, control=0.9), "results/tables/crc/table_1.CRC.corrected.png"
    here.config["datasets"]["crc"] |= {"label": None}
    Image.new("RGB", (40, 30)).save(picture)
    text = page.build(here, {"statements": statements.build(here), "numbers": numbers.build(here)}, [picture])
    said = re.search(r"<div>Cellina, Table 1</div><div>(.*?)</div><div>(.*?)</div>", text)
    assert said[1] == "crc (real data), target CRC, protocol corrected"
    assert re.search(r"^statements: .*1 holds", said[2]), said[2]


def test_the_gallery_knows_places_in_the_papers():
    assert page.place_of("figure_celcomen_6") == ("Celcomen", "Fig. 6")
    assert page.place_of("table_cellina_1") == ("Cellina", "Table 1")
    assert page.place_of("figure_cellina_a2") == ("Cellina", "Fig. A2")
    assert page.place_of("learning_curves") == ("ours", "")


def test_methods_name_and_cite_what_was_used(tmp_path):
    here = a_run(tmp_path, control=0.3)
    # What is not compared does not stand in the way.
    here.config["datasets"]["crc"]["experiments"] = ["cellina", "cellina_gene_range"]
    assert len(answer(here)[0].asked) == 1
    text = methods.text(here.config, here)
    assert "One cell type at a time was held out of CRC" in text
    assert "| `cellina.n_latent` | 64 |" in text
    assert "Querying Counterfactuals on Tissue Graphs" in text
    assert "doi 10.5281/zenodo.15574384" in text
    # Each once; celcomen is cited where one of its experiments has tables.
    cited = methods._references(here.config, here, ["ridge", "scgen", "scgen"])
    assert len(cited) == len(set(cited)) == 3
    assert [line for line in cited if line.startswith("Bowel \\<i>: ")]
    assert not [line for line in cited if "Megas" in line]
    also = Tables(here.config, [*here.paths, "results/celcomen/recovery/recovery.tsv"])
    assert [line for line in methods._references(also.config, also, []) if "Megas" in line]
    # So are the gene sets that an experiment's settings name, wherever they stand there.
    known = methods.published.references()
    for experiment, named in (("glioblastoma", {"hallmark", "go_bp"}), ("spleen", {"go_bp"}), ("perturbmap", set())):
        ran = Tables(here.config, [*here.paths, f"results/tables/crc/celcomen_{experiment}.corrected.summary.tsv"])
        ran.ran = lambda name, own=experiment: name == f"celcomen_{own}"
        cited = methods._references(ran.config, ran, [])
        assert {name for name in ("hallmark", "go_bp", "progeny") if known[name] in cited} == named
    # Data of a user's own are cited by no paper; simulated ones by nobody.
    own = a_run(tmp_path, control=0.3, kind="stand-in")
    assert [line for line in methods._references(own.config, own, []) if "<i>" in line] == [
        "Bowel \\<i>: cite those who made these data"
    ]
    made = a_run(tmp_path, control=0.3, kind="simulated")
    assert len(methods._references(made.config, made, [])) == 1
    # Of what was not run nothing is told.
    assert "celcomen." not in text
    assert "Megas" not in text
    assert "scgen." not in text


def test_data_of_a_table_of_ones_own_are_cited_as_it_says(tmp_path):
    rows = DATASETS_PATH.read_text(encoding="utf-8").replace("crc_cosmx\t", "mine\t")
    table = tmp_path / "mine.tsv"
    table.write_text(rows.replace("doi 10.5281/zenodo.15574384", "by hand, 1999"), encoding="utf-8")
    entry = {"source": "cosmx_crc", "files": "mine", "control_domain": "REF", "target_domains": ["CRC"]}
    here = a_run(tmp_path, control=0.3, downloads={"table": str(table)}, datasets={"crc": entry})
    cited = methods._references(here.config, here, [])
    assert len([line for line in cited if line.startswith("crc: ") and "by hand, 1999" in line]) == 1


@pytest.mark.parametrize(
    ("fit", "said"),
    [
        ("per_sample", "A model was fitted to each sample."),
        ("pooled", "One model was fitted over all samples."),
        ("leave_patient_out", "Each patient in turn was left out as well"),
    ],
)
def test_methods_say_what_was_fitted(tmp_path, fit, said):
    here = a_run(tmp_path, control=0.3)
    here.config["datasets"]["crc"]["fit"] = fit
    assert said in methods.text(here.config, here)


def test_own_questions_stand_in_the_answer_and_in_the_methods(tmp_path):
    asked = {
        "name": "away",
        "cell_type": "type_0",
        "domain": "domain_0",
        "move_to": "domain_1",
        "seeds": [7],
    }
    entry = {"source": "simulated", "label": "A <i>", "questions": [asked]}
    here = a_run(tmp_path, control=0.3)
    without = methods.text(here.config, here)
    assert "Asked were" not in without
    assert "Schubert" not in without
    here.config["datasets"] |= load_config({"datasets": {"own": entry}})["datasets"]
    here.config["datasets"]["own"]["kind"] = "real"
    path = tmp_path / "results/answers/own/slide_0/away/answer.md"
    path.parent.mkdir(parents=True)
    path.write_text("# away: not identifiable\n\nof no account\n")
    alone, _ = answer(Tables(here.config, [path.relative_to(tmp_path)]))
    assert alone.first == "Own questions: away on slide_0: not identifiable."
    # No paper says anything of them.
    assert len(alone.verdicts) == len(alone.numbers) == 0
    for shown in (opening.to_markdown(alone), opening.to_html(alone)):
        assert "not run" not in shown
        assert "What the papers say" not in shown
    here = Tables(here.config, [*here.paths, path.relative_to(tmp_path)])
    text, _ = answer(here)
    assert text.first.startswith("Cellina does worse")
    words = "type_0 of domain_0, moved to domain_1 (donors: any_type)"
    assert f"A <i>, slide slide_0, away: {words}: not identifiable." in text.asked
    told = methods.text(here.config, here)
    assert (
        "Asked were: type_0 of domain_0, moved to domain_1 (donors: any_type) on slide slide_0 of A \\<i> "
        "(answered by hierarchical and cellina, seeds 7)."
    ) in told
    assert "Compared were mean_shift, " in told
    # Settings of what answered, gene sets, and whose the data are.
    assert "| `hierarchical.n_components` |" in told
    assert "Liberzon et al. 2015" in told
    assert "Schubert et al. 2018" in told
    assert "A \\<i>: cite those who made these data" in told


def test_a_picture_counts_the_numbers_of_its_own_target():
    """And those that were published for a target which these data do not have, as on data in the place of others."""
    rows = pd.DataFrame({"target": ["A", "B", "CRC", ""], "verdict": ["met", "not met", "not comparable", "not run"]})
    rows = rows.assign(place="Table 1", paper="Cellina", protocol="as_run", dataset="d")
    told = page._verdict("Table 1", "Cellina", "as_run", "d", {"B"}, {"numbers": rows})
    assert "1 met" in told
    assert "1 not comparable" in told
    assert "not met" not in told
