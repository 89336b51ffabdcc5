# Methods: fit, predict, score. One job trains one method on one fold. A method reads files and writes files in its own
# environment: methods/run.py is its command line there.
FOLD = "{dataset}/{slide}/{fold}"
RUN = "{protocol}.seed{seed}"
ONE_METHOD = f"{FOLD}/{{method}}/{RUN}"


# What a guest runs in, where no conda makes it. With `--use-conda` nobody asks for this.
rule build_environment:
    output:
        "results/environments/{environment}.json",
    log:
        "results/logs/build_environment/{environment}.log",
    benchmark:
        "results/benchmarks/build_environment/{environment}.tsv"
    # On a cluster this runs where Snakemake does: compute nodes often have no network.
    localrule: True
    conda:
        "../../envs/core.yaml"
    params:
        pins=lambda w: environments.pins(
            environments.DEFINITIONS / f"{w.environment}.yaml"
        ),
    script:
        "../scripts/build_environment.py"


# What a training depends on beside its slide. Were it among the params of `fit`, a change of it would be passed over
# wherever the question is written anew too: Snakemake then only asks which inputs are new, and the question is no
# reason to train.
rule state_training:
    output:
        f"results/trainings/{ONE_METHOD}.json",
    log:
        f"results/logs/state_training/{ONE_METHOD}.log",
    benchmark:
        f"results/benchmarks/state_training/{ONE_METHOD}.tsv"
    # It takes no time, and would wait in a queue.
    localrule: True
    conda:
        "../../envs/core.yaml"
    params:
        stated=training_asked,
    shell:
        "printf '%s\\n' {params.stated:q} > {output:q} 2> {log:q}"


rule fit:
    input:
        slide="results/slides/{dataset}/{slide}.h5ad",
        asked=f"results/trainings/{ONE_METHOD}.json",
        question=question_of_training,
        environment=lambda w: environment_of(METHODS[w.method].environment),
    output:
        directory(f"results/models/{ONE_METHOD}"),
    log:
        f"results/logs/fit/{ONE_METHOD}.log",
    benchmark:
        f"results/benchmarks/fit/{ONE_METHOD}.tsv"
    conda:
        lambda w: f"../../envs/{METHODS[w.method].environment}.yaml"
    threads: config["threads"]
    resources:
        mem_mb=memory_of_task,
        runtime=runtime_of("fit"),
        gpu=lambda w: uses_gpu([w.method]),
    params:
        guest=guest_command,
        place=place_of_guest,
        settings=lambda w: json.dumps(settings_of_methods([w.method], w.slide)),
        device=config["device"],
        threads=config["threads"],
        checkpoint=f"results/checkpoints/{ONE_METHOD}.pt",
        limits=lambda w, input: time_limits([w.method]),
        steps=steps_of_training,
        memory=memory_is_asked,
    shell:
        "{params.guest} fit {params.place} {params.steps} {params.memory} --method {wildcards.method}"
        " --slide {input.slide:q} --question {input.question:q}"
        " --settings {params.settings:q} --time-limits {params.limits:q} --device {params.device}"
        " --threads {params.threads} --checkpoint {params.checkpoint:q} --output {output:q} --log {log:q}"


# One job predicts with all methods of a fold and environment: what takes time is starting Python and reading the slide.
rule predict:
    input:
        slide="results/slides/{dataset}/{slide}.h5ad",
        question=QUESTION,
        models=lambda w: expand(
            f"results/models/{ONE_METHOD}",
            method=methods_asked(w, learned=True),
            allow_missing=True,
        ),
        environment=lambda w: environment_of(w.environment),
    output:
        f"results/predictions/{FOLD}/{RUN}/{{environment}}.h5ad",
    log:
        f"results/logs/predict/{FOLD}/{RUN}/{{environment}}.log",
    benchmark:
        f"results/benchmarks/predict/{FOLD}/{RUN}/{{environment}}.tsv"
    conda:
        "../../envs/{environment}.yaml"
    threads: config["threads"]
    resources:
        mem_mb=memory_of_task,
        runtime=runtime_of("predict"),
        gpu=lambda w: uses_gpu(methods_asked(w)),
    params:
        guest=guest_command,
        place=place_of_guest,
        controls=lambda w: methods_asked(w, learned=False),
        settings=lambda w: json.dumps(settings_of_methods(methods_asked(w))),
        device=config["device"],
        threads=config["threads"],
        limits=lambda w, input: time_limits(methods_asked(w)),
    shell:
        "{params.guest} predict {params.place} --slide {input.slide:q} --question {input.question:q}"
        " --controls {params.controls} --models {input.models:q}"
        " --settings {params.settings:q} --time-limits {params.limits:q} --device {params.device}"
        " --threads {params.threads} --output {output:q} --log {log:q}"


# Latents of all cells, by models of the whole slide.
rule latents:
    input:
        slide="results/slides/{dataset}/{slide}.h5ad",
        question=QUESTION.replace("{fold}", WHOLE),
        models=lambda w: expand(
            f"results/models/{ONE_METHOD}",
            method=methods_with_latents(w.environment),
            fold=WHOLE,
            allow_missing=True,
        ),
        environment=lambda w: environment_of(w.environment),
    output:
        f"results/latents/{{dataset}}/{{slide}}/{RUN}/{{environment}}.npz",
    log:
        f"results/logs/latents/{{dataset}}/{{slide}}/{RUN}/{{environment}}.log",
    benchmark:
        f"results/benchmarks/latents/{{dataset}}/{{slide}}/{RUN}/{{environment}}.tsv"
    conda:
        "../../envs/{environment}.yaml"
    threads: config["threads"]
    resources:
        mem_mb=memory_of_task,
        runtime=runtime_of("predict"),
        gpu=lambda w: uses_gpu(methods_with_latents(w.environment)),
    params:
        guest=guest_command,
        place=place_of_guest,
        settings=lambda w: json.dumps(
            settings_of_methods(methods_with_latents(w.environment))
        ),
        device=config["device"],
        threads=config["threads"],
        limits=lambda w, input: time_limits(methods_with_latents(w.environment)),
    shell:
        "{params.guest} latents {params.place} --slide {input.slide:q} --question {input.question:q}"
        " --models {input.models:q}"
        " --settings {params.settings:q} --time-limits {params.limits:q} --device {params.device}"
        " --threads {params.threads} --output {output:q} --log {log:q}"


rule score:
    input:
        slide="results/slides/{dataset}/{slide}.h5ad",
        question=QUESTION,
        predictions=lambda w: expand(
            f"results/predictions/{FOLD}/{RUN}/{{environment}}.h5ad",
            environment=environments_of(methods_asked(w)),
            allow_missing=True,
        ),
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
        runtime=runtime_of("score"),
    params:
        switches=lambda w: protocols.of_step(SWITCHES[w.protocol], "metrics"),
        n_deg=config["metrics"]["n_deg"],
        kind=lambda w: dataset_of(w)["kind"],
        threads=config["threads"],
    script:
        "../scripts/score.py"


# The answer to a user's question, from what its methods predicted with every seed.
ANSWER = "results/answers/{dataset}/{slide}/{question}"


rule answer:
    input:
        slide="results/slides/{dataset}/{slide}.h5ad",
        questions=lambda w: expand(
            QUESTION,
            fold=f"asked+{w.question}",
            protocol=protocol_of_answers(),
            seed=seeds_asked(w),
            allow_missing=True,
        ),
        predictions=lambda w: expand(
            f"results/predictions/{FOLD}/{RUN}/{{environment}}.h5ad",
            fold=f"asked+{w.question}",
            protocol=protocol_of_answers(),
            seed=seeds_asked(w),
            environment=environments_of(methods_asked(w)),
            allow_missing=True,
        ),
        gene_sets=[
            of_checkout(path)
            for path in [*gene_sets.BUNDLED.values(), *gene_sets.WEIGHTS.values()]
        ],
    output:
        genes=f"{ANSWER}/genes.tsv",
        cells=f"{ANSWER}/cells.tsv",
        sets=f"{ANSWER}/gene_sets.tsv",
        pathways=f"{ANSWER}/pathways.tsv",
        text=f"{ANSWER}/answer.md",
        beside=f"{ANSWER}/answer.svg",
        figure=report(
            f"{ANSWER}/answer.png",
            caption="../report/answer.rst",
            category="{dataset}",
            labels={"result": "answer", "question": "{question}", "slide": "{slide}"},
        ),
    log:
        "results/logs/answer/{dataset}/{slide}/{question}.log",
    benchmark:
        "results/benchmarks/answer/{dataset}/{slide}/{question}.tsv"
    conda:
        "../../envs/core.yaml"
    resources:
        mem_mb=memory_of_task,
        runtime=runtime_of("score"),
    params:
        asked=own_question,
        names=lambda w: {"dataset": w.dataset, "slide": w.slide}
        | part_of_dataset("kind", "label")(w),
    script:
        "../scripts/answer.py"
