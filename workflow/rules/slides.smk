# From a source to a checked slide, its graph and its folds.


rule download:
    output:
        "results/downloads/{dataset}.h5ad",
    params:
        url=lambda w: dataset_of(w)["path"],
        sha256=lambda w: dataset_of(w)["sha256"],
    log:
        "results/logs/download/{dataset}.log",
    benchmark:
        "results/benchmarks/download/{dataset}.tsv"
    conda:
        "../../envs/core.yaml"
    script:
        "../scripts/download.py"


rule prepare:
    input:
        source_of,
    output:
        "results/slides/{dataset}/{slide}.h5ad",
    params:
        dataset=part_of_dataset(
            "source",
            "simulation",
            "layer",
            "columns",
            "spatial",
            "unit_um",
            "preprocess",
        ),
        samples=lambda w: SLIDES[w.dataset][w.slide],
    log:
        "results/logs/prepare/{dataset}/{slide}.log",
    benchmark:
        "results/benchmarks/prepare/{dataset}/{slide}.tsv"
    conda:
        "../../envs/core.yaml"
    script:
        "../scripts/prepare.py"


rule build_graph:
    input:
        slide="results/slides/{dataset}/{slide}.h5ad",
    output:
        "results/graphs/{dataset}/{slide}.npz",
    params:
        settings=lambda w: dataset_of(w)["graph"],
    log:
        "results/logs/build_graph/{dataset}/{slide}.log",
    benchmark:
        "results/benchmarks/build_graph/{dataset}/{slide}.tsv"
    conda:
        "../../envs/core.yaml"
    script:
        "../scripts/build_graph.py"


checkpoint write_folds:
    input:
        slide="results/slides/{dataset}/{slide}.h5ad",
    output:
        "results/folds/{dataset}/{slide}.tsv",
    params:
        dataset=part_of_dataset("control_domain", "target_domains", "holdout"),
    log:
        "results/logs/write_folds/{dataset}/{slide}.log",
    benchmark:
        "results/benchmarks/write_folds/{dataset}/{slide}.tsv"
    conda:
        "../../envs/core.yaml"
    script:
        "../scripts/write_folds.py"
