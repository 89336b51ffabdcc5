# Methods: fit, predict, score. One job trains one method on one fold.
FOLD = "{dataset}/{slide}/{fold}"
RUN = "{protocol}.seed{seed}"
ONE_METHOD = f"{FOLD}/{{method}}/{RUN}"


rule fit:
    input:
        slide="results/slides/{dataset}/{slide}.h5ad",
        graph="results/graphs/{dataset}/{slide}.npz",
        folds="results/folds/{dataset}/{slide}.tsv",
    output:
        directory(f"results/models/{ONE_METHOD}"),
    log:
        f"results/logs/fit/{ONE_METHOD}.log",
    benchmark:
        f"results/benchmarks/fit/{ONE_METHOD}.tsv"
    conda:
        "../../envs/core.yaml"
    threads: config["threads"]
    resources:
        mem_mb=memory_of_task,
        gpu=1 if config["device"] == "cuda" else 0,
    params:
        settings=task_settings("training"),
        threads=config["threads"],
        checkpoint=f"results/checkpoints/{ONE_METHOD}.pt",
    script:
        "../scripts/fit.py"


# One job predicts with all methods of a fold: what takes time is starting Python and reading the slide.
rule predict:
    input:
        slide="results/slides/{dataset}/{slide}.h5ad",
        graph="results/graphs/{dataset}/{slide}.npz",
        folds="results/folds/{dataset}/{slide}.tsv",
        models=lambda w: expand(
            f"results/models/{ONE_METHOD}",
            method=method_names(w.dataset, learned=True),
            allow_missing=True,
        ),
    output:
        f"results/predictions/{FOLD}/{RUN}.h5ad",
    log:
        f"results/logs/predict/{FOLD}/{RUN}.log",
    benchmark:
        f"results/benchmarks/predict/{FOLD}/{RUN}.tsv"
    conda:
        "../../envs/core.yaml"
    threads: config["threads"]
    resources:
        mem_mb=memory_of_task,
        gpu=1 if config["device"] == "cuda" else 0,
    params:
        settings=task_settings("counterfactual"),
        controls=lambda w: method_names(w.dataset, learned=False),
        learned=lambda w: method_names(w.dataset, learned=True),
        threads=config["threads"],
    script:
        "../scripts/predict.py"


rule score:
    input:
        slide="results/slides/{dataset}/{slide}.h5ad",
        graph="results/graphs/{dataset}/{slide}.npz",
        folds="results/folds/{dataset}/{slide}.tsv",
        predictions=f"results/predictions/{FOLD}/{RUN}.h5ad",
    output:
        scores=f"results/scores/{FOLD}/{RUN}.tsv",
        diagnostics=f"results/scores/{FOLD}/{RUN}.diagnostics.tsv",
    log:
        f"results/logs/score/{FOLD}/{RUN}.log",
    benchmark:
        f"results/benchmarks/score/{FOLD}/{RUN}.tsv"
    conda:
        "../../envs/core.yaml"
    threads: config["threads"]
    resources:
        mem_mb=memory_of_task,
    params:
        settings=task_settings("metrics"),
        n_deg=config["metrics"]["n_deg"],
        kind=lambda w: dataset_of(w)["kind"],
        threads=config["threads"],
    script:
        "../scripts/score.py"
