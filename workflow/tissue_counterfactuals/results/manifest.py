"""One file for a whole run: what was made, from what, by which code, with which packages, how long it took.

`results/manifest.json` is written at the end of every successful run, and `results/ro-crate-metadata.json` beside it
says the same in the form of a research object crate (RO-Crate 1.3), so that the folder can be published as it is. Each
folder of tables and figures has a manifest.json too, with the part that is about them, and stays understood when it is
sent to somebody alone.
"""

import csv
import glob
import json
from collections import defaultdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from rocrate.rocrate import ROCrate

from tissue_counterfactuals.files import atomic_path, digest, recorded_digest
from tissue_counterfactuals.results import provenance

MANIFEST, CRATE = "manifest.json", "ro-crate-metadata.json"
# What a run leaves on the way, or only says how it went.
_NOT_RESULTS = {"logs", "benchmarks", "checkpoints", "environments", "downloads"}
# What people look at: a folder of these has a manifest of its own.
_SHOWN = {"answers", "celcomen", "compare", "figures", "tables"}
_CONTENTS = {
    "slides": "Cells: counts, labels and places, as checked and filtered",
    "graphs": "Neighbours of every cell",
    "folds": "Which cell types were held out, and which could not be",
    "questions": "What methods were asked: held-out cells, focal cells and their new neighbours",
    "models": "A trained method, its history and how the training went",
    "predictions": "Expected counts, by method, target, variant and cell",
    "scores": "Scores of the predictions of a fold",
    "tables": "A table of results, or where it comes from",
    "figures": "A figure",
    "answers": "The answer to a question of the user's own",
    "celcomen": "An experiment on Celcomen",
    "compare": "Published numbers and statements beside those of the run, and its answer",
    MANIFEST: "What was made, from what, by which code, and how long it took",
}
_FORMATS = {
    ".tsv": "text/tab-separated-values",
    ".json": "application/json",
    ".md": "text/markdown",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".html": "text/html",
    ".h5ad": "application/x-hdf5",
    ".npz": "application/zip",
}


def write(results: Path, config: dict) -> None:
    """Write the manifest of a folder of results, and its crate.

    The manifest holds the configuration and its hash; of each file its size, SHA-256 and last change; of each table the
    commit and the configuration it was made with; packages by environment; devices; and by step of the workflow the
    number of jobs, their seconds and the highest memory.
    """
    manifest = {
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": provenance.commit(),
        "config_hash": provenance.config_hash(config),
        "config": config,
        "seeds": config["seeds"],
        "tables": _tables(results),
        "environments": _environments(results),
        "devices": _devices(results),
        "steps": _steps(results / "benchmarks"),
        "files": {str(path.relative_to(results)): _file(path) for path in _files(results)},
    }
    with atomic_path(results / MANIFEST) as temporary:
        temporary.write_text(json.dumps(manifest, indent=1, default=str))
    _write_beside(results, manifest)
    _write_crate(results, manifest)


def differences(results: Path, config: dict) -> list[str]:
    """What no longer belongs to this code, configuration and data: a sentence each, none where all is as it was.

    All checksums are computed anew. Several configurations may work in one folder: only what this one says of its own
    data sets is compared, with what their tables were made with.
    """
    path = results / MANIFEST
    if not path.is_file():
        return [f"file {path}: it is missing; it is written at the end of a successful run."]
    manifest = json.loads(path.read_text())
    found = []
    for name, file in manifest["files"].items():
        if not (results / name).is_file():
            found.append(f"file {results / name}: it is gone.")
        elif digest(results / name) != file["sha256"]:
            found.append(f"file {results / name}: it is not what the run wrote (its SHA-256 differs).")
    known = {results / name for name in manifest["files"]}
    found += [
        f"file {path}: the manifest does not know it; it was put there later."
        for path in _files(results)
        if path not in known
    ]
    here = provenance.commit()
    for name, table in _tables(results).items():
        if table["commit"] != here:
            found.append(f"table {name}: it was made by commit {table['commit']}; this checkout is {here}.")
    now = json.loads(json.dumps(config, default=str))
    for name in now["datasets"]:
        made_with = _configuration_of(results, name, manifest["config"])
        if name in made_with.get("datasets", {}):
            before, here = (whole | {"datasets": {name: whole["datasets"][name]}} for whole in (made_with, now))
            if changed := _first_change(before, here):
                found.append(f"config: {changed} is not what it was when the results of {name} were made.")
    return found


def _configuration_of(results: Path, dataset: str, last: dict) -> dict:
    """What a data set's tables were made with; that of the last run, which may not be theirs, where it has none."""
    record = results / "tables" / dataset / "provenance.json"
    return json.loads(record.read_text())["config"] if record.is_file() else last


def _first_change(before: object, now: object, place: tuple[str, ...] = ()) -> str | None:
    """The first key, dots between it and those above, whose value differs; None without one."""
    if isinstance(before, dict) and isinstance(now, dict):
        changes = (_first_change(before.get(k), now.get(k), (*place, k)) for k in sorted(before.keys() | now.keys()))
        return next(filter(None, changes), None)
    return None if before == now else ".".join(place)


def _files(results: Path) -> list[Path]:
    """All results, sorted: what lies in its folders. Checksums and hidden files are none, nor are a report made from
    them and manifests.
    """
    names = {path: path.relative_to(results).parts for path in results.rglob("*") if path.is_file()}
    return sorted(
        path
        for path, parts in names.items()
        if len(parts) > 1
        and parts[0] not in _NOT_RESULTS
        and path.name != MANIFEST
        and not any(part.startswith(".") for part in parts)
    )


def _file(path: Path) -> dict:
    status = path.stat()
    changed = datetime.fromtimestamp(status.st_mtime, UTC).isoformat(timespec="seconds")
    return {"bytes": status.st_size, "sha256": recorded_digest(path) or digest(path), "changed": changed}


def _tables(results: Path) -> dict[str, dict]:
    """The commit, configuration and kind of data behind the tables of each data set."""
    keys = ("kind", "commit", "config_hash", "n_cells")
    return {
        str(path.relative_to(results)): {key: record[key] for key in keys}
        for path, record in _records(results, "tables/*/*.json").items()
    }


def _records(folder: Path, pattern: str = "*.json") -> dict[Path, dict]:
    """What says of itself by which commit it was made."""
    found = {path: json.loads(path.read_text()) for path in sorted(folder.glob(pattern)) if path.name != MANIFEST}
    return {path: record for path, record in found.items() if "commit" in record}


def _write_beside(results: Path, manifest: dict) -> None:
    """Beside each table and figure what it was made from: one manifest in its folder.

    Data are the slides of the folder's data set, or all of them where it has none; so are devices, seconds and memory.
    """
    folders, data = defaultdict(dict), defaultdict(dict)
    for name, file in manifest["files"].items():
        top, *_ = parts = Path(name).parts
        if top in _SHOWN:
            folders[Path(name).parent][parts[-1]] = file
        elif top == "slides" and name.endswith(".h5ad"):
            for dataset in (parts[1], ""):
                data[dataset][name] = file["sha256"]
    made = {
        name: {
            "data": data[name],
            "devices": _devices(results, name),
            "steps": _steps(results / "benchmarks", name),
        }
        for name in {"", *data}
    }
    shared = {key: manifest[key] for key in ("written", "environments")}
    for folder, files in folders.items():
        name = folder.parts[1] if len(folder.parts) > 1 else ""
        # This run may have found them finished: they, or the tables that were drawn, say what made them.
        told = _records(results / folder) or _records(results / "tables" / name)
        own = made.get(name, made[""]) | provenance.origin([*told.values()] or [manifest])
        with atomic_path(results / folder / MANIFEST) as temporary:
            temporary.write_text(json.dumps(shared | own | {"files": files}, indent=1))


def _devices(results: Path, dataset: str = "") -> list[str]:
    """The devices that a data set's models were trained on, or those of all."""
    paths = (results / "models" / dataset).glob("**/status.json")
    return sorted({json.loads(path.read_text())["device"] for path in paths})


def _environments(results: Path) -> dict[str, dict]:
    """Python and packages: of the workflow's own environment as its tables say, of guests as they were built."""
    found = {}
    for path in sorted(results.glob("tables/*/provenance.json")):
        record = json.loads(path.read_text())
        found["core"] = {"python": record["python"], "packages": record["packages"]}
    for path in sorted(results.glob("environments/*.json")):
        found[path.stem] = json.loads(path.read_text())
        # Where it stands says something of this machine alone.
        found[path.stem].pop("interpreter", None)
    return found


def _steps(benchmarks: Path, dataset: str = "") -> dict[str, dict]:
    """Jobs by step, of a data set or all, their seconds together, and the highest resident memory."""
    found, paths = {}, []
    # A data set's are in a folder of its name, or in files whose names begin with it.
    name = glob.escape(dataset)
    for pattern in (f"*/{name}/**/*.tsv", f"*/{name}.*tsv") if dataset else ("**/*.tsv",):
        paths += benchmarks.glob(pattern)
    for path in sorted(paths):
        step = found.setdefault(
            path.relative_to(benchmarks).parts[0], {"jobs": 0, "seconds": 0.0, "peak_memory_mb": 0.0}
        )
        with open(path) as stream:
            for row in csv.DictReader(stream, delimiter="\t"):
                step["jobs"] += 1
                step["seconds"] = round(step["seconds"] + float(row["s"]), 2)
                # Jobs that end at once are not measured.
                if row["max_rss"] not in ("-", "NA"):
                    step["peak_memory_mb"] = max(step["peak_memory_mb"], float(row["max_rss"]))
    return found


def _write_crate(results: Path, manifest: dict) -> None:
    crate = ROCrate()
    kinds = sorted({table["kind"] for table in manifest["tables"].values()}) or ["no tables yet"]
    crate.name = "Results of tissue-counterfactuals"
    crate.description = f"Counterfactual gene expression in tissue; data: {', '.join(kinds)}."
    crate.license = crate.add_jsonld(
        {
            "@id": "https://spdx.org/licenses/BSD-3-Clause",
            "@type": "CreativeWork",
            "name": "BSD-3-Clause",
            "description": "The licence of the code; results of other people's data stand under theirs.",
        }
    )
    crate.datePublished = datetime.fromisoformat(manifest["written"])
    snakemake = crate.add_jsonld(
        {
            "@id": "https://snakemake.github.io",
            "@type": "SoftwareApplication",
            "name": "Snakemake",
            "url": "https://snakemake.github.io",
            "version": version("snakemake"),
        }
    )
    sizes = {MANIFEST: {"bytes": (results / MANIFEST).stat().st_size}}
    entities = [
        crate.add_file(
            dest_path=name,
            properties={
                "name": name,
                "description": _CONTENTS.get(Path(name).parts[0], "A result"),
                "contentSize": str(file["bytes"]),
                "encodingFormat": _FORMATS.get(Path(name).suffix, "application/octet-stream"),
                **({"sha256": file["sha256"], "dateModified": file["changed"]} if "sha256" in file else {}),
            },
        )
        for name, file in (sizes | manifest["files"]).items()
    ]
    about, *files = entities
    run = crate.add_jsonld(
        {
            "@id": "#run",
            "@type": "CreateAction",
            "name": f"Run of tissue-counterfactuals, commit {manifest['commit']}, configuration "
            f"{manifest['config_hash']}",
            "endTime": manifest["written"],
            "instrument": {"@id": snakemake.id},
            "object": {"@id": about.id},
            "result": [{"@id": file.id} for file in files],
        }
    )
    crate.root_dataset["mentions"] = run
    crate.metadata.write(results)
