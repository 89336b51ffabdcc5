# From a source to a checked slide, its graph and its folds.


rule download:
    output:
        "results/downloads/{dataset}.h5ad",
    log:
        "results/logs/download/{dataset}.log",
    benchmark:
        "results/benchmarks/download/{dataset}.tsv"
    conda:
        "../../envs/core.yaml"
    params:
        url=lambda w: dataset_of(w)["path"],
        sha256=lambda w: dataset_of(w)["sha256"],
    script:
        "../scripts/download.py"


rule prepare:
    input:
        source_of,
    output:
        "results/slides/{dataset}/{slide}.h5ad",
    log:
        "results/logs/prepare/{dataset}/{slide}.log",
    benchmark:
        "results/benchmarks/prepare/{dataset}/{slide}.tsv"
    conda:
        "../../envs/core.yaml"
    params:
        dataset=part_of_dataset(
            "source",
            "path",
            "sha256",
            "simulation",
            "layer",
            "columns",
            "spatial",
            "unit_um",
            "preprocess",
        ),
        samples=samples_of_slide,
    script:
        "../scripts/prepare.py"


rule build_graph:
    input:
        slide="results/slides/{dataset}/{slide}.h5ad",
    output:
        "results/graphs/{dataset}/{slide}.npz",
    log:
        "results/logs/build_graph/{dataset}/{slide}.log",
    benchmark:
        "results/benchmarks/build_graph/{dataset}/{slide}.tsv"
    conda:
        "../../envs/core.yaml"
    params:
        settings=lambda w: dataset_of(w)["graph"],
    script:
        "../scripts/build_graph.py"


checkpoint write_folds:
    input:
        slide="results/slides/{dataset}/{slide}.h5ad",
    output:
        "results/folds/{dataset}/{slide}.tsv",
    log:
        "results/logs/write_folds/{dataset}/{slide}.log",
    benchmark:
        "results/benchmarks/write_folds/{dataset}/{slide}.tsv"
    conda:
        "../../envs/core.yaml"
    params:
        dataset=part_of_dataset("control_domain", "target_domains", "holdout"),
    script:
        "../scripts/write_folds.py"
