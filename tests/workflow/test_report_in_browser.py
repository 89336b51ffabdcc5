"""The HTML report in a real browser: the landing page, the table and every figure are there to be seen."""

import base64
from pathlib import Path

import pytest
from PIL import Image

from absent import absent
from browser import Browser, missing_programs
from runs import ROOT, Run, tiny
from tissue_counterfactuals.simulate import simulate_tissue

SHOWN = "document.querySelector('#app > div > div:last-child img')"
# Label in the report, the picture behind it, and words of its caption.
PICTURES = [
    ("Table 1", "tables/tiny/table_1.domain_1.corrected.png", "Table 1 of the Cellina paper"),
    ("scores by held-out type", "figures/tiny/cell_types.domain_1.corrected.png", "Bars are means"),
    (
        "coverage of intervals",
        "figures/tiny/intervals.domain_1.corrected.svg",
        "How often 90 % intervals cover the observed change",
    ),
    ("map", "figures/tiny/map.slide_0.png", "the hold-out scheme of Fig. 2"),
    (
        "Cellina Figs. 1 and 2: the model and the question, as run",
        "figures/tiny/schematic.corrected.png",
        "as in the schematics",
    ),
    ("learning curves", "figures/tiny/learning_curves.corrected.png", "Learning curves of every"),
    ("costs of training", "tables/tiny/costs.corrected.png", "What each method took to train"),
]
FILES = [
    ("summary of all metrics", "tables/tiny/summary.tsv"),
    ("gain over twin and controls", "tables/tiny/gains.tsv"),
    ("as run and corrected", "tables/tiny/deviations.tsv"),
]


@pytest.fixture(scope="module")
def report(finished, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    style = ROOT / "workflow/report/style.css"
    outcome = finished.snakemake("--report", str(path), "--report-stylesheet", str(style))
    assert outcome.code == 0, outcome.screen
    return path


# Labels that stand in the data: of a sample, of domains and of a cell type.
ILL = {
    "sample": "</script><script>window.ill = 1</script>",
    "control": "<!--<script> <img src=x onerror='window.ill=2'>",
    "target": "`` .. include:: /etc/passwd `|a|`_",
    "cell_type": "</title></style><svg onload=window.ill=3>",
}


@pytest.fixture(scope="module")
def ill_report(tmp_path_factory) -> Path:
    """The report on a slide with such labels; no model is trained."""
    folder = tmp_path_factory.mktemp("ill")
    tissue = simulate_tissue(n_cells=500, n_genes=30, n_slides=1, seed=5)
    tissue.obs = tissue.obs.astype(str).replace(
        {"domain_0": ILL["control"], "domain_1": ILL["target"], "type_0": ILL["cell_type"]}
    )
    tissue.obs["sample"] = ILL["sample"]
    del tissue.uns["simulation"]
    tissue.write_h5ad(folder / "ill.h5ad")
    config = tiny(methods=["no_change", "mean_shift", "ceiling"], seeds=[0])
    config["datasets"] = {
        "ill": {
            "path": "ill.h5ad",
            "label": "<script>window.ill = 4</script>",
            "columns": {"sample": "sample"},
            "control_domain": ILL["control"],
            "target_domains": [ILL["target"]],
            "holdout": {"cell_types": [ILL["cell_type"]]},
            "graph": {"max_neighbors": 20},
        }
    }
    run = Run(folder).configure(config)
    outcome = run.snakemake()
    assert outcome.code == 0, outcome.screen
    path = folder / "report.html"
    outcome = run.snakemake("--report", str(path))
    assert outcome.code == 0, outcome.screen
    return path


@pytest.fixture(scope="module")
def browser():
    if missing := missing_programs():
        absent(
            f"{' and '.join(missing)} not installed (apt-get install chromium chromium-driver)",
            "TC_REQUIRE_BROWSER",
        )
    with pytest.MonkeyPatch.context() as patch:
        # The driver listens on this machine, also where the environment names a proxy.
        patch.setenv("no_proxy", "localhost,127.0.0.1")
        with Browser() as browser:
            yield browser


@pytest.fixture
def page(browser, report):
    """The report, freshly opened; whatever a test did, no script failed and nothing was fetched from elsewhere."""
    browser.open(report)
    browser.wait_for("document.querySelector('#app h1') !== null")
    yield browser
    assert browser.errors() == []
    fetched = browser.evaluate("performance.getEntriesByType('resource').map(e => e.name)")
    assert [address for address in fetched if not address.startswith("data:")] == []


def test_the_landing_page_can_be_read_from_its_first_line(page):
    text = page.wait_for("document.querySelector('.prose')?.innerText")
    assert text.startswith("Tissue counterfactuals\n\nCellina ")
    assert text.index("What was asked") < text.index("Table 1 of Cellina") < text.index("This run")
    for words in ("no_change, mean_shift, ceiling, truth, cellina", "domain_0", "Seeds: 0, 1."):
        assert words in text
    assert page.evaluate("document.querySelector('.prose').getBoundingClientRect().top") >= 0
    page.wait_for("document.querySelector('.vega-embed svg, .vega-embed canvas') !== null")


def results_row(label: str) -> str:
    return f"//nav//tr[td[1][.='{label}']]"


@pytest.mark.parametrize(("label", "picture", "words"), PICTURES)
def test_a_picture_is_shown_with_its_caption(page, finished, label, picture, words):
    page.click("//nav//a[.='tiny']")
    page.click(f"{results_row(label)}//a[1]")
    page.wait_for(f"{SHOWN}?.complete")
    if picture.endswith(".png"):
        with Image.open(finished.folder / "results" / picture) as file:
            size = list(file.size)
        assert page.evaluate(f"[{SHOWN}.naturalWidth, {SHOWN}.naturalHeight]") == size
    left, top, width, height = page.evaluate(
        f"(box => [box.left, box.top, box.width, box.height])({SHOWN}.getBoundingClientRect())"
    )
    assert min(left, top) >= 0
    assert min(width, height) > 80
    page.click(f"{results_row(label)}//a[2]")
    page.wait_for("document.querySelector('nav').innerText.includes(arguments[0])", words)
    assert "System Message" not in page.evaluate("document.body.innerText")


@pytest.mark.parametrize(("label", "table"), FILES)
def test_a_table_can_be_downloaded(page, finished, label, table):
    page.click("//nav//a[.='tiny']")
    row = "[...document.querySelectorAll('nav tr')].find(r => r.cells[0].innerText === arguments[0])"
    name, address = page.evaluate(f"(a => [a.download, a.href])({row}.querySelector('a'))", label)
    assert name == Path(table).name
    content = base64.b64decode(address.partition("base64,")[2])
    assert content == finished.bytes_of(f"results/{table}")


def test_tables_can_be_searched_and_sorted_and_the_gallery_seen(browser, finished):
    """The page itself, as it stands beside the tables; the report shows the same file."""
    browser.open(finished.folder / "results/compare/all/page.html")
    rows = "document.querySelectorAll('#table-numbers tbody tr')"
    browser.wait_for(f"{rows}.length === 10")
    browser.click("//*[@id='table-numbers_wrapper']//input[@type='search']")
    browser.evaluate(
        "(box => {box.value = 'Fig. 2c'; box.dispatchEvent(new Event('input'))})"
        "(document.querySelector('#table-numbers_wrapper input[type=search]'))"
    )
    places = f"[...{rows}].map(row => row.cells[1].innerText)"
    browser.wait_for(f"{places}.every(place => place === 'Fig. 2c')")
    figures = "[...document.querySelectorAll('figure')]"
    said = browser.evaluate(f"{figures}.map(figure => figure.innerText)")
    assert any("Cellina, Table 1" in text and "tiny (simulated data)" in text for text in said)
    assert browser.evaluate(f"{figures}.every(f => f.querySelector('img').naturalWidth > 100)")
    assert browser.errors() == []


def test_the_report_shows_the_page(page):
    page.click("//nav//a[.='Answer']")
    page.click(f"{results_row('tables and figures, to sort and filter')}//a[1]")
    page.wait_for("document.querySelector('#app iframe, #app embed, #app object') !== null")


def test_the_landing_page_leads_to_the_deviations(page):
    page.wait_for("document.querySelector('.prose a') !== null")
    page.click("//a[.='table of deviations']")
    page.wait_for("document.querySelector('nav').innerText.includes('deviations.tsv')")


def test_labels_that_are_scripts_and_directives_are_shown_as_text(browser, ill_report):
    browser.open(ill_report)
    browser.wait_for("document.querySelector('#app h1') !== null")
    text = browser.wait_for("document.querySelector('.prose')?.innerText")
    for label in (
        "<script>window.ill = 4</script>",
        ILL["control"],
        ILL["target"].replace("`", "'"),
    ):
        assert label in text
    assert "root:" not in text
    browser.click("//nav//a[.='ill']")
    rows = "[...document.querySelectorAll('nav tr td:first-child')].map(cell => cell.innerText)"
    # Everything stands there: the tables, the figures, and the sizes of the slide.
    wanted = {"Table 1", "scores by held-out type", "map", "shapes", *(label for label, _ in FILES)}
    assert wanted <= set(browser.wait_for(f"{rows}.length && {rows}"))
    page = (ill_report.parent / "results/compare/all/page.html").read_text()
    assert "<script>window.ill = 4" not in page
    # The parameters of the job that read the slide name its sample.
    browser.click(f"{results_row('shapes')}//a[2]")
    browser.wait_for("document.querySelector('nav').innerText.includes(arguments[0])", r"\x3c/script\x3e")
    assert browser.evaluate("window.ill") is None
    assert browser.errors() == []
