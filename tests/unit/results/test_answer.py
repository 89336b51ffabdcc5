"""The answer to a user's question: what its tables say, its verdict, and p values that are uniform where nothing is."""

import numpy as np
import pandas as pd
import pytest

from drawings import panel
from slides import small_slide
from tasks import SECTIONS
from tissue_counterfactuals import gene_sets, pathways, protocols, steps
from tissue_counterfactuals.methods import run
from tissue_counterfactuals.question.predictions import write_predictions
from tissue_counterfactuals.question.settings import UserQuestion
from tissue_counterfactuals.question.support import Support, support_of
from tissue_counterfactuals.results import answer
from tissue_counterfactuals.simulate import simulate_tissue, true_counterfactual, true_expression
from tissue_counterfactuals.slide import normalize_counts, write_slide

NAMES = {"dataset": "d", "slide": "s", "kind": "simulated", "label": "A tissue"}
GRAPH = {"bandwidth_um": 100, "max_neighbors": 30, "cutoff": 0.1}


class Asked:
    """A question from file to answer."""

    def __init__(self, folder, slide, methods=("hierarchical", "truth"), **keys):
        given = {
            "name": "mine",
            "cell_type": "type_0",
            "domain": "domain_0",
            "methods": list(methods),
        }
        self.asked = UserQuestion.read(given | keys).model_dump()
        self.files = {k: folder / f"{k}.tsv" for k in ("genes", "cells", "sets", "pathways")}
        self.files |= {"text": folder / "answer.md", "figure": folder / "answer.png"}
        write_slide(slide, folder / "s.h5ad")
        steps.build_graph(folder / "s.h5ad", GRAPH, folder / "g.npz")
        drawn = {
            "protocol": "corrected",
            "switches": protocols.resolve("corrected"),
            "graph": GRAPH,
        }
        drawn |= {"n_donors": 20, "validation_fraction": 0.1}
        question = folder / "q.npz"
        steps.write_own_question(folder / "s.h5ad", folder / "g.npz", self.asked, 0, drawn, question)
        task = run.load_task(folder / "s.h5ad", question, "cpu")
        small = {
            "batch_size": 256,
            "epochs": 3,
            "learning_rate": 0.01,
            "n_hidden": 16,
            "n_latent": 4,
        }
        settings = {"hierarchical": SECTIONS["hierarchical"] | {"n_components": 5}}
        settings["cellina"] = SECTIONS["cellina"] | small
        folders = dict.fromkeys(methods)
        for method in {*settings} & {*methods}:
            task.settings, folders[method] = settings[method], folder / method
            run.fit(method, task, folders[method], folder / "c.pt")
        run.predict(folders, task, folder / "p.h5ad", settings)
        self.task, self.predictions = task, folder / "p.h5ad"
        answer.write_answer(folder / "s.h5ad", [question], [folder / "p.h5ad"], self.asked, NAMES, self.files)
        self.genes = pd.read_csv(self.files["genes"], sep="\t")
        self.text = self.files["text"].read_text()


@pytest.fixture(scope="module")
def tissue():
    return simulate_tissue(n_cells=2500, n_genes=60, n_types=6, seed=1, n_slides=1)


@pytest.fixture(scope="module")
def moved(tissue, tmp_path_factory):
    return Asked(tmp_path_factory.mktemp("moved"), tissue, move_to="domain_1")


def test_the_text_names_the_protocol(moved):
    assert f"slide {NAMES['slide']} · protocol corrected · 1 seed · commit " in moved.text


def test_the_table_has_the_truth_beside_the_prediction(tissue, moved):
    genes, task = moved.genes.set_index("gene"), moved.task
    (donors,) = task.question.perturbations.values()
    new, old = true_counterfactual(tissue, task.focal, donors), true_expression(tissue, task.focal)
    truth = np.subtract(*(np.log1p(normalize_counts(x).mean(axis=0)) for x in (new, old)))
    np.testing.assert_allclose(genes.loc[tissue.var_names, "truth"], truth, rtol=1e-3, atol=1e-5)
    assert moved.genes["change_hierarchical"].abs().is_monotonic_decreasing
    assert (genes["lower"] <= genes["change_hierarchical"] + 1e-4).all()
    assert (genes["upper"] >= genes["change_hierarchical"] - 1e-4).all()
    inside = genes["truth"].between(genes["lower"], genes["upper"])
    assert ((genes["truth_in_interval"] == "yes") == inside).mean() > 0.98
    assert inside.mean() > 0.7
    assert genes[["truth", "change_hierarchical"]].corr().iloc[0, 1] > 0.7
    assert genes["own_evidence"].between(0, 1).all()
    assert genes["expected_rank"].mean() == pytest.approx(30.5)
    assert genes[["rank", "expected_rank"]].corr().iloc[0, 1] > 0.8
    shown = (tissue.X[(tissue.obs["cell_type"] == "type_0").to_numpy()] > 0).mean(axis=0)
    np.testing.assert_allclose(genes.loc[tissue.var_names, "detected"], np.ravel(shown), rtol=1e-4)


def test_the_expected_rank_is_the_mean_rank_of_drawn_changes():
    rng = np.random.default_rng(0)
    change, half = rng.normal(0, 1, 30), rng.gamma(2, 0.4, 30)
    drawn = np.abs(rng.normal(change, half / answer.QUANTILE, (4000, 30)))
    mean = 30 - drawn.argsort(axis=1).argsort(axis=1).mean(axis=0)
    np.testing.assert_allclose(answer.expected_rank(change, half), mean, atol=0.35)
    sure = pd.Series(np.abs(change)).rank(ascending=False)
    np.testing.assert_allclose(answer.expected_rank(change, np.full(30, 1e-9)), sure)


def test_the_text_has_a_verdict_and_says_how_good_such_answers_are(moved):
    assert "# mine: supported" in moved.text
    assert "A tissue [simulated], slide s: type_0 of domain_0, moved to domain_1" in moved.text
    assert "How good such answers are on this slide: for the 5 other types" in moved.text
    (support,) = support_of(moved.task, "domain_1").values()
    assert f"How far this is from what was seen: {support.inside:.0%} of the new" in moved.text
    assert "Random effects (ours) and Truth" in moved.text
    assert moved.files["figure"].stat().st_size > 10_000


def test_the_figure_shows_each_change_and_how_sure_it_is(tissue, moved):
    answers = answer.collect([moved.predictions], ["hierarchical", "truth"])
    genes = moved.genes.assign(abstained=np.arange(60) % 4 / 3)
    figure = answer.compose(tissue, moved.task.question, answers, genes, "title", "word", "source")
    grey, known = panel(figure, "All genes").collections
    half = (genes["upper"] - genes["lower"]) / 2
    points = np.c_[genes["change_hierarchical"], genes["change_hierarchical"].abs() / half]
    abstained = (genes["abstained"] >= 0.5).to_numpy()
    np.testing.assert_allclose(known.get_offsets(), points[~abstained])
    np.testing.assert_allclose(grey.get_offsets(), points[abstained])
    bars, *dots = panel(figure, "Largest changes").collections
    ends = genes.head(20)[["lower", "upper"]].to_numpy()
    np.testing.assert_allclose([bar.vertices[:, 0] for bar in bars.get_paths()], ends)
    columns = {"Random effects (ours)": "change_hierarchical", "Truth": "truth"}
    assert {d.get_label() for d in dots} == {*columns}
    for drawn in dots:
        shown = genes.head(20)[columns[drawn.get_label()]]
        np.testing.assert_allclose(drawn.get_offsets()[:, 0], shown)
    places = panel(figure, "Focal cells").collections[1]
    shown, place = places.get_offsets().data, tissue.obsm["spatial"][moved.task.focal]
    np.testing.assert_allclose(shown - shown[0], place - place[0])
    np.testing.assert_allclose(places.get_array(), answers.effect)


def test_sections_of_a_pooled_slide_stand_side_by_side(tissue, moved):
    pooled, section = tissue.copy(), np.array(["one", "two"])[np.arange(tissue.n_obs) % 2]
    pooled.obs["sample"] = pd.Categorical(section)
    answers = answer.collect([moved.predictions], ["hierarchical"])
    figure = answer.compose(pooled, moved.task.question, answers, moved.genes, "title", "word", "source")
    axes = panel(figure, "Focal cells")
    everyone, focal = (np.asarray(drawn.get_offsets()) for drawn in axes.collections)
    one, two = (everyone[section == name] for name in ("one", "two"))
    assert (one.max(axis=0) < two.min(axis=0)).any()
    np.testing.assert_allclose(focal, everyone[moved.task.focal])
    assert [text.get_text() for text in axes.texts] == ["one", "two"]


def test_what_comes_from_data_is_no_markdown_and_each_failure_is_a_line_of_its_own(tissue, moved):
    answers = answer.collect([moved.predictions], ["hierarchical"])
    answers.failures = {"cellina": "<class 'KeyError'>\nno `x`", "ridge": "singular"}
    tables = [pd.DataFrame({"status": ["none"]})] * 2
    asked = UserQuestion.read({"name": "mine", "cell_type": "A", "domain": "x", "move_to": "<y>"}).model_dump()
    told = answer.markdown(
        asked, NAMES, moved.task.question, answers, moved.genes, *tables, "word", "of <y>", None, None
    )
    lines = told.splitlines()
    assert r"A of x, moved to \<y>" in lines[2]
    assert lines[4] == r"**Verdict: word.** of \<y>"
    failed = lines.index(r"- Failed: cellina: \<class 'KeyError'> no \`x\`")
    assert lines[failed + 1 : failed + 3] == ["- Failed: ridge: singular", ""]


def test_each_cell_has_its_own_change(tissue, moved):
    cells, task = pd.read_csv(moved.files["cells"], sep="\t"), moved.task
    assert len(cells) == 20 * len(task.focal)
    assert set(cells["gene"]) == {*moved.genes["gene"].head(20)}
    (donors,) = task.question.perturbations.values()
    new, old = true_counterfactual(tissue, task.focal, donors), true_expression(tissue, task.focal)
    truth = pd.DataFrame(np.log(new / old), tissue.obs_names[task.focal], tissue.var_names)
    told = cells.pivot(index="cell", columns="gene", values="change").loc[truth.index]
    # Within a gene, over cells: who changes more than others.
    among = [np.corrcoef(told[gene], truth[gene])[0, 1] for gene in told]
    assert np.mean(among) > 0.3
    # Its interval is around it, and as wide as the cells' errors are; coverage is measured in
    # test_hierarchical_intervals.py.
    assert (cells["lower"] < cells["change"]).all()
    assert (cells["change"] < cells["upper"]).all()
    inside = [truth.loc[r.cell, r.gene] for r in cells.itertuples(index=False)]
    assert cells["lower"].le(inside).mul(cells["upper"].ge(inside)).mean() > 0.7
    pathways_told = pd.read_csv(moved.files["pathways"], sep="\t")
    assert pathways_told["status"].tolist() == ["not applicable: PROGENy has none of the genes"]


def test_cellina_answers_altered_neighbours_and_focal_cells_of_a_column(tissue, tmp_path):
    named = tissue.copy()
    named.obs["batch"] = pd.Categorical(np.where(np.arange(tissue.n_obs) % 2, "odd", "even"))
    asked = Asked(
        tmp_path,
        named,
        ("cellina",),
        shift_towards="domain_1",
        top_genes=20,
        where={"batch": "odd"},
    )
    of_odd = named.obs["batch"].iloc[asked.task.focal]
    assert set(of_odd) == {"odd"}
    assert "# mine: not identifiable" in asked.text
    assert "No method that answered says how sure it is" in asked.text
    assert "type_0 of domain_0, batch odd, expression as in domain_1 in their neighbours" in asked.text
    change = asked.genes.set_index("gene")["change_cellina"]
    assert 0 < change.abs().max() < 5
    cells = pd.read_csv(asked.files["cells"], sep="\t")
    assert (cells["change"] > 0).all()
    assert len(cells) == len(asked.task.focal)


def test_a_change_unlike_those_between_neighbourhoods_cannot_be_known(tissue, tmp_path):
    """All signals at once, three times over, as nowhere in the tissue: the model sees little of it, and is far off."""
    signals = tissue.varm["simulation_ligands"].any(axis=1)
    more = Asked(tmp_path, tissue, shift_genes=list(tissue.var_names[signals]), factor=3.0)
    assert "# mine: not identifiable" in more.text
    assert "of the change that is asked about is none by which neighbourhoods differ" in more.text
    assert not {"lower", "abstained", "truth_in_interval"} & {*more.genes}
    assert "interval;" not in more.text
    assert "lower" not in pd.read_csv(more.files["cells"], sep="\t")
    error = (more.genes["truth"] - more.genes["change_hierarchical"]).std()
    assert error > 0.5 * more.genes["truth"].std()


def test_a_type_that_was_never_there_is_an_extrapolation(tissue, tmp_path):
    there = (tissue.obs["cell_type"] == "type_0") & (tissue.obs["domain"] == "domain_1")
    alone = Asked(tmp_path, tissue[~there.to_numpy()].copy(), ("hierarchical",), move_to="domain_1")
    assert "# mine: extrapolates" in alone.text
    assert "No type_0 was seen in domain_1" in alone.text
    assert "truth" not in alone.genes


def test_a_neighbourhood_that_nobody_has_is_an_extrapolation(tissue, tmp_path):
    """All neighbours of one type, as hardly ever; half of them so are on the way there."""
    told = {}
    for share in (0.45, 1.0):
        (folder := tmp_path / str(share)).mkdir()
        told[share] = asked = Asked(folder, tissue, ("hierarchical",), add_sender="type_3", share=share)
        (support,) = support_of(asked.task, "domain_0").values()
        assert support.inside_type < 0.5
        assert "# mine: extrapolates" in asked.text
        assert f"{1 - support.inside_type:.0%} of the cells would get a neighbourhood further" in asked.text
        # Such answers are unknown; what stands for them is named.
        assert "How good answers to moves to domain_" in asked.text
        assert "How good such answers" not in asked.text
    half, whole = ((asked.genes["upper"] - asked.genes["lower"]).mean() for asked in told.values())
    assert whole > 1.8 * half
    assert told[1.0].genes["abstained"].mean() > told[0.45].genes["abstained"].mean()


def written(path, **methods):
    """Predictions of three cells and two genes: of each method its variants, notes and reason of failure."""
    with write_predictions(path, pd.Index(["g", "h"])) as writer:
        writer.notes = {"failures": [], "diagnostics": [], "intervals": [], "cells": []}
        for method, (variants, notes, reason) in methods.items():
            key = {"method": method, "target": "y"}
            for variant in variants:
                writer.add(key | {"variant": variant}, pd.Index(["a", "b", "c"]), np.ones((3, 2), np.float32))
            told = {name: {"name": name, "value": 1.0, "variant": "move"} for name in notes}
            writer.notes["diagnostics"] += [key | note for note in told.values()]
            if reason:
                writer.notes["failures"].append(key | {"variant": "move", "reason": reason})
    return path


BOTH = ("move", "no_intervention")


def test_a_method_that_left_its_twin_alone_did_not_answer(tmp_path, tissue, moved):
    path = written(tmp_path / "p.h5ad", celcomen=(("no_intervention",), (), "no force reaches it"))
    answers = answer.collect([path], ["celcomen"])
    assert answers.sure == ""
    assert answers.failures == {"celcomen": "no force reaches it"}
    word, reason = answer.verdict(tissue, moved.task.question, answers, pd.DataFrame(), None)
    assert (word, reason) == ("not identifiable", "No method answered (celcomen: no force reaches it).")


def test_a_method_that_failed_with_some_seeds_says_with_how_many(tmp_path):
    good, bad = (BOTH, (), None), ((), (), "it did not converge")
    paths = [written(tmp_path / f"{n}.h5ad", ridge=good, cellina=made) for n, made in enumerate((good, bad, good))]
    answers = answer.collect(paths, ["ridge", "cellina"])
    assert len(answers.change["cellina"]) == 2
    assert answers.failures == {
        "cellina": "it did not converge (with 1 of 3 seeds; its numbers are those of the others)"
    }


def test_a_verdict_rests_on_the_method_that_says_why_it_gives_no_interval(tmp_path, tissue, moved):
    told = {"cellina": (BOTH, ("use_of_s",), None), "hierarchical": (BOTH, ("n_types_known", "off_axes"), None)}
    answers = answer.collect([written(tmp_path / "p.h5ad", **told)], ["cellina", "hierarchical"])
    assert answers.sure == "hierarchical"
    reason = answer.verdict(tissue, moved.task.question, answers, pd.DataFrame(), None)[1]
    assert reason.startswith("100% of the change that is asked about is none by which neighbourhoods differ")


@pytest.mark.parametrize("inside", [1.0, np.nan])
def test_a_type_of_too_few_cells_was_not_seen_in_such_neighbourhoods(tissue, moved, inside):
    answers = answer.collect([moved.predictions], ["hierarchical"])
    few = Support(inside, 1.0, np.nan, np.nan)
    word, reason = answer.verdict(tissue, moved.task.question, answers, moved.genes, few)
    assert word == "extrapolates"
    assert reason.startswith("Fewer than 20 type_0 with neighbours were seen when the model learnt")


def test_too_few_other_types_are_not_identifiable(tmp_path):
    slide = small_slide(n_cells=700)
    keys = {"cell_type": "A", "domain": "left", "move_to": "right"}
    few = Asked(tmp_path, slide, ("hierarchical",), **keys)
    assert "# mine: not identifiable" in few.text
    assert "Only 2 other types stand in both domains" in few.text
    assert "lower" not in few.genes


def test_no_change_of_neighbours_changes_nothing(tissue, tmp_path):
    """The cells' own neighbours, drawn by weight, with none of a type that hardly sends: the model says so."""
    shares = tissue.obs.loc[tissue.obs["domain"] == "domain_0", "cell_type"].value_counts()
    same = Asked(tmp_path, tissue, ("hierarchical",), composition={k: float(v) for k, v in shares.items()})
    moved_far = same.genes["change_hierarchical"].abs().mean()
    assert moved_far < 0.1
    assert same.genes["lower"].lt(0).mean() > 0.5


def test_p_values_of_sets_are_uniform_where_errors_are_correlated():
    """1,000 slides on which nothing changes but by error, and genes of a set are off together."""
    inside = np.zeros((60, 2))
    inside[:15, 0] = inside[20:32, 1] = 1
    rng, found = np.random.default_rng(0), []
    for _ in range(1000):
        together = rng.normal(size=(8, 4)) @ np.repeat(np.eye(4), 15, axis=1)
        change, *errors = together + rng.normal(size=(8, 60))
        found += pathways.slope_test(change, np.array(errors), inside)[1].tolist()
    assert 0.035 < np.mean(np.array(found) <= 0.05) < 0.065
    assert 0.46 < np.mean(np.array(found) <= 0.5) < 0.54


def test_a_set_that_changes_is_found(monkeypatch):
    genes = pd.Index([f"g{i}" for i in range(60)])
    monkeypatch.setattr(gene_sets, "collect", lambda sources, genes: {"a": list(genes[:15]), "b": list(genes[30:40])})
    rng = np.random.default_rng(1)
    errors = rng.normal(size=(7, 60))
    change = rng.normal(size=60) + 2.0 * (np.arange(60) < 15)
    table = answer.set_table(genes, change, errors).set_index("term", drop=False)
    for name, own in (("a", slice(0, 15)), ("b", slice(30, 40))):
        inside = np.zeros((60, 1))
        inside[own] = 1
        contrast = change[own].mean() - np.delete(change, np.arange(60)[own]).mean()
        p_value = pathways.slope_test(change, errors, inside)[1].item()
        assert table.loc[name, ["change", "p_value"]].tolist() == pytest.approx([contrast, p_value])
    assert table.loc["a", "normalized_enrichment"] > 1.3
    assert table["term"].iloc[0] == "a"
    assert table["p_value"].iloc[0] < 0.01
    assert table["change"].iloc[0] == pytest.approx(2, abs=0.7)
    np.testing.assert_allclose(table["q_value"], gene_sets.benjamini_hochberg(table["p_value"].to_numpy()))


def test_genes_of_mouse_are_in_no_set_and_the_table_says_why():
    genes = pd.Index(["Vegfa", "Fos", "Jun", "Actb", "Gapdh"])
    (status,) = answer.set_table(genes, np.zeros(5), np.zeros((3, 5)))["status"]
    assert status.endswith("of the 5 genes, whose symbols are those of mouse, and the sets' are human")
    # Enough genes for 25 sets are spelled as in man; those would be all that is left of each set.
    alike = pd.Index(["C2", "C3", "C6", "C7", "C9", "F2", "F3", "F5", "F7", "F8", "F9", "F10", "F11", "F12"])
    genes = alike.append(pd.Index(pathways.read_weights("progeny_mouse")["target"].unique()[:100])).unique()
    (status,) = answer.set_table(genes, np.zeros(len(genes)), np.zeros((3, len(genes))))["status"]
    assert status.endswith("whose symbols are those of mouse, and the sets' are human")
    (status,) = answer.set_table(pd.Index(["VEGFA", "FOS"]), np.zeros(2), np.zeros((3, 2)))["status"]
    assert status.endswith("of the 2 genes")


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ({"move_to": "y"}, "moved to y (donors: any_type)"),
        ({"composition": {"B": 2, "C": 1}}, "among 2 B, 1 C"),
        ({"remove_sender": "B"}, "without their B neighbours"),
        ({"add_sender": "B", "share": 0.25}, "with 25% of their neighbours replaced by B"),
        ({"shift_genes": ["g", "h"]}, "g, h knocked out in their neighbours"),
        ({"shift_genes": ["g"], "factor": 2, "senders": "B"}, "g times 2 in their B neighbours"),
        ({"shift_genes": ["g"], "cells": "neighbors"}, "g knocked out in their neighbours and in nobody else"),
        (
            {"shift_towards": "y", "by_type": False, "dose": 2},
            "expression as in y, all types alike, in their neighbours (dose 2)",
        ),
    ],
)
def test_a_question_is_told_as_a_sentence(keys, sentence):
    asked = UserQuestion.read({"name": "q", "cell_type": "A", "domain": "x"} | keys)
    assert answer.in_words(asked.model_dump()) == f"A of x, {sentence}"


def test_the_effect_on_cells_is_that_of_the_first_seed(tmp_path):
    paths, twin = [], np.full((3, 2), 5.0)
    for number, moved in enumerate(([[9, 1], [7, 3], [5, 5]], [[1, 9], [1, 9], [1, 9]])):
        paths.append(tmp_path / f"{number}.h5ad")
        with write_predictions(paths[-1], pd.Index(["g", "h"])) as writer:
            writer.notes = {"failures": [], "diagnostics": [], "intervals": [], "cells": []}
            for variant, values in (("move", moved), ("no_intervention", twin)):
                key = {"method": "ridge", "target": "y", "variant": variant}
                writer.add(key, pd.Index(["a", "b", "c"]), np.array(values, np.float32))
    shares = np.array([[9, 1], [7, 3], [5, 5]]) * 1000
    effect = np.sqrt(((np.log1p(shares) - np.log1p(5000)) ** 2).mean(axis=1))
    np.testing.assert_allclose(answer.collect(paths, ["ridge"]).effect, effect, rtol=1e-5)
