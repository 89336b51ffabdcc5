# Files of the published data sets, and of addresses that users give: one job per file, so several come side by side.
# What a job leaves in the results is a link: the file itself stays in the folder of downloads or where it was found.

# Kept low out of regard for the servers; a limit given on the command line stands.
if "downloads" not in workflow.global_resources:
    workflow.register_resource("downloads", config["downloads"]["parallel"])


rule download:
    input:
        all_downloads,


rule download_file:
    output:
        "results/downloads/{collection}/{file}",
    log:
        "results/logs/download_file/{collection}/{file}.log",
    benchmark:
        "results/benchmarks/download_file/{collection}/{file}.tsv"
    # On a cluster this runs where Snakemake does: compute nodes often have no network.
    localrule: True
    conda:
        "../../envs/core.yaml"
    resources:
        downloads=1,
    params:
        # What the file must be; where it comes from may change without fetching it again.
        expected=lambda w: expected_of(REQUESTED[f"{w.collection}/{w.file}"]),
    message:
        "Fetch {wildcards.collection}/{wildcards.file}"
    script:
        "../scripts/download.py"
