# From a source to a checked slide, its graph, its folds and the questions that methods are asked about it.
QUESTION = "results/questions/{dataset}/{slide}/{fold}/{protocol}.seed{seed}.npz"


rule prepare:
    input:
        files=lambda w: [*files_of(w).values(), *labels_of(w)],
        tables=tables_of,
    output:
        slide="results/slides/{dataset}/{slide}.h5ad",
        shapes=report(
            "results/slides/{dataset}/{slide}.shapes.tsv",
            caption="../report/shapes.rst",
            category="{dataset}",
            labels={"result": "shapes", "slide": "{slide}"},
        ),
    log:
        "results/logs/prepare/{dataset}/{slide}.log",
    benchmark:
        "results/benchmarks/prepare/{dataset}/{slide}.tsv"
    wildcard_constraints:
        slide="[^/+]+",
    # Slides wait for no training, so that what is wrong with one is told in the first minutes.
    priority: 1
    conda:
        "../../envs/core.yaml"
    resources:
        mem_mb=memory_of_preparation,
        runtime=runtime_of("prepare"),
    params:
        files=files_of,
        dataset=read_in_preparation,
        samples=samples_of_slide,
    script:
        "../scripts/prepare.py"


# Some cells of a slide, to see what models cost.
rule take_cells:
    input:
        "results/slides/{dataset}/{slide}.h5ad",
    output:
        "results/slides/{dataset}/{slide}+{subset}+{n_cells}.h5ad",
    log:
        "results/logs/take_cells/{dataset}/{slide}+{subset}+{n_cells}.log",
    benchmark:
        "results/benchmarks/take_cells/{dataset}/{slide}+{subset}+{n_cells}.tsv"
    wildcard_constraints:
        slide="[^/+]+",
        subset="[a-z]+",
        n_cells="[0-9]+",
    conda:
        "../../envs/core.yaml"
    resources:
        mem_mb=memory_of_task,
        runtime=runtime_of("take_cells", least=30),
    script:
        "../scripts/take_cells.py"


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
    resources:
        mem_mb=memory_of_task,
        runtime=runtime_of("build_graph"),
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
    resources:
        mem_mb=memory_of_task,
        runtime=runtime_of("write_folds", least=30),
    params:
        dataset=lambda w: read_in_folds(dataset_of(w)),
        alone=lambda w: len(SLIDES[w.dataset]) == 1,
    script:
        "../scripts/write_folds.py"


# Once all slides have been read, and before anything is trained: what none of them can be asked fails here, and other
# data sets go on.
checkpoint check_folds:
    input:
        lambda w: expand(
            "results/folds/{dataset}/{slide}.tsv",
            dataset=w.dataset,
            slide=SLIDES[w.dataset],
        ),
    output:
        "results/folds/{dataset}.tsv",
    log:
        "results/logs/check_folds/{dataset}.log",
    benchmark:
        "results/benchmarks/check_folds/{dataset}.tsv"
    conda:
        "../../envs/core.yaml"
    resources:
        mem_mb=memory_of_task,
        runtime=runtime_of("check_folds", least=30),
    params:
        slides=lambda w: list(SLIDES[w.dataset]),
        cell_types=lambda w: dataset_of(w)["holdout"]["cell_types"],
    script:
        "../scripts/check_folds.py"


# A user's own question stands among the folds: "+" is in no path form of a type, so that the two are never confused.
rule write_own_question:
    input:
        slide="results/slides/{dataset}/{slide}.h5ad",
        graph="results/graphs/{dataset}/{slide}.npz",
        gene_sets=sets_of_question,
    output:
        "results/questions/{dataset}/{slide}/asked+{question}/{protocol}.seed{seed}.npz",
    log:
        "results/logs/write_own_question/{dataset}/{slide}/{question}/{protocol}.seed{seed}.log",
    benchmark:
        "results/benchmarks/write_own_question/{dataset}/{slide}/{question}/{protocol}.seed{seed}.tsv"
    conda:
        "../../envs/core.yaml"
    resources:
        mem_mb=memory_of_task,
        runtime=runtime_of("write_question"),
    params:
        asked=asked_itself,
        settings=question_settings(
            "graph", "training", "counterfactual", keys=["n_donors"]
        ),
    script:
        "../scripts/write_own_question.py"


# Behind models of a whole slide; of a user's question it has no name.
rule write_question_of_all:
    input:
        slide="results/slides/{dataset}/{slide}.h5ad",
    output:
        f"results/questions/{{dataset}}/{{slide}}/{WHOLE}/{{protocol}}.seed{{seed}}.npz",
    log:
        "results/logs/write_question_of_all/{dataset}/{slide}/{protocol}.seed{seed}.log",
    benchmark:
        "results/benchmarks/write_question_of_all/{dataset}/{slide}/{protocol}.seed{seed}.tsv"
    conda:
        "../../envs/core.yaml"
    resources:
        mem_mb=memory_of_task,
        runtime=runtime_of("write_question"),
    params:
        settings=question_settings("graph", "training", "counterfactual"),
    script:
        "../scripts/write_question_of_all.py"


rule write_question:
    input:
        slide="results/slides/{dataset}/{slide}.h5ad",
        graph="results/graphs/{dataset}/{slide}.npz",
        folds="results/folds/{dataset}/{slide}.tsv",
    output:
        QUESTION,
    log:
        "results/logs/write_question/{dataset}/{slide}/{fold}/{protocol}.seed{seed}.log",
    benchmark:
        "results/benchmarks/write_question/{dataset}/{slide}/{fold}/{protocol}.seed{seed}.tsv"
    wildcard_constraints:
        fold="[^/+]+",
    conda:
        "../../envs/core.yaml"
    resources:
        mem_mb=memory_of_task,
        runtime=runtime_of("write_question"),
    params:
        settings=question_settings(
            "graph", "training", "counterfactual", keys=config["counterfactual"]
        ),
    script:
        "../scripts/write_question.py"
