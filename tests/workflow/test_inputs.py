"""Files that jobs read are inputs of their rules, so that an edited one runs the job again."""

import re

from runs import ROOT, Run

CONFIG = {
    "datasets": {
        name: {"source": "simulated_field", "experiments": [f"celcomen_{name}"]} for name in ("spleen", "glioblastoma")
    }
    | {"fish": {"source": "simulated_screen", "experiments": ["cellina_in_vivo"]}}
    | {
        "tissue": {"source": "simulated", "experiments": ["cellina_application"]}
        | {"control_domain": "domain_0", "target_domains": ["domain_1"], "fit": "pooled"}
    },
    "protocols": ["corrected"],
    "cellina_experiments": {"application": {"pathway_weights": "own.tsv"}},
    "celcomen": {
        "spleen": {"clusters": {"gene_sets": ["own.gmt", "hallmark"]}},
        "glioblastoma": {
            "knockout": {"gene": "gene_00"},
            "enrichment": {"gene_sets": ["go_bp", "own.gmt"]},
        },
    },
}


def test_gene_sets_and_published_numbers_are_inputs(tmp_path):
    run = Run(tmp_path / "run").configure(CONFIG)
    (run.folder / "own.gmt").write_text("SET\tabout\ta\tb\tc\n")
    (run.folder / "own.tsv").write_text("source\ttarget\tweight\nMine\tgene_0\t1\n")
    compared = "results/tables/fish/cellina_in_vivo.corrected.compared.tsv"
    application = "results/cellina/tissue/pooled/application.corrected.seed0.tsv"
    outcome = run.snakemake("celcomen", compared, application, "--dry-run")
    assert outcome.code == 0, outcome.screen[-3000:]
    # Slides are read before anything is trained.
    assert outcome.screen.count("priority: 1") == outcome.planned()["prepare"] == 4
    found = dict(re.findall(r"rule (\w+):\n\s+input: (.*)\n", outcome.screen))
    bundled = {n: str(ROOT / f"resources/gene_sets/{n}_human.gmt.xz") for n in ("hallmark", "go_bp", "go_cc")}
    for rule, files in {
        "celcomen_spleen_clusters": ("own.gmt", bundled["hallmark"]),
        "celcomen_glioblastoma_clusters": (bundled["go_bp"],),
        "celcomen_knockout": (bundled["go_bp"], "own.gmt"),
        "celcomen_localization": (bundled["go_cc"],),
        "cellina_application": ("own.tsv",),
        "cellina_in_vivo": (str(ROOT / "resources/published/cellina_in_vivo.tsv"),),
    }.items():
        assert set(files) <= set(found[rule].split(", ")), rule


def test_the_slides_of_an_experiment_are_prepared_and_not_all_as_one(tmp_path):
    """The comparison of published data says what their slides hold: those that the experiment reads."""
    crc = {"source": "cosmx_crc", "files": "crc_cosmx", "samples": ["232"], "control_domain": "REF"}
    crc |= {"target_domains": ["CRC"], "experiments": ["cellina", "cellina_gene_range"]}
    run = Run(tmp_path / "run").configure({"datasets": {"crc": crc}})
    outcome = run.snakemake("results/compare/all/page.html", "--dry-run")
    assert outcome.code == 0, outcome.screen[-3000:]
    assert re.findall(r"output: (results/slides/\S+h5ad)", outcome.screen) == ["results/slides/crc/232.h5ad"]
