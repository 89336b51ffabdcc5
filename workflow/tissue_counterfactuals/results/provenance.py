"""Where a result comes from: enough to find the run again, short enough to stand under a figure."""

import hashlib
import json
import os
import platform
import subprocess
from collections.abc import Collection
from importlib.metadata import version
from pathlib import Path

from anndata import AnnData

from tissue_counterfactuals import __version__
from tissue_counterfactuals.files import atomic_path, slugs

_PACKAGES = ("torch", "numpy", "scipy", "pandas", "anndata", "scanpy", "scikit-learn", "numba", "matplotlib")


def config_hash(config: dict) -> str:
    """First ten hexadecimal digits of the SHA-256 of the validated configuration."""
    return hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode()).hexdigest()[:10]


def commit(folder: Path = Path(__file__).parent) -> str:
    """Commit of the checkout that holds a folder, this package's; where files differ from it, or there is code that it
    does not know, `+` and six digits of the difference are appended; the version outside a checkout.

    Ten digits: left to git, how many there are depends on what else the checkout holds.
    """
    try:
        described, difference, unknown = (
            subprocess.run(["git", *words], cwd=folder, capture_output=True, check=True).stdout
            for words in (
                ["describe", "--always", "--abbrev=10", "--exclude=*"],
                ["diff", "HEAD", "--no-ext-diff", "--no-color"],
                ["ls-files", "--others", "--exclude-standard", "-z", "--", ":/*.py", ":/*.smk"],
            )
        )
        for name in filter(None, unknown.split(b"\0")):
            difference += name + (folder / os.fsdecode(name)).read_bytes()
    except (OSError, subprocess.CalledProcessError):
        return f"version {__version__}"
    return described.decode().strip() + (f"+{hashlib.sha256(difference).hexdigest()[:6]}" if difference else "")


def record(name: str, config: dict, slides: list[AnnData]) -> dict:
    """The manifest that stands beside a data set's tables.

    Returns:
        data set, kind, what its slides say of their own origin, cells, genes, protocols, seeds, commit, configuration
        and its hash, versions of the packages that numbers depend on.
    """
    dataset = config["datasets"][name]
    return {
        "dataset": name,
        "label": dataset["label"] or name,
        "kind": dataset["kind"],
        "n_cells": sum(slide.n_obs for slide in slides),
        "n_genes": [slide.n_vars for slide in slides],
        "slides": [{k: str(v) for k, v in slide.uns["provenance"].items()} for slide in slides],
        "protocols": config["protocols"],
        "seeds": config["seeds"],
        "commit": commit(),
        "config_hash": config_hash(config),
        "config": config,
        "python": platform.python_version(),
        "packages": {package: version(package) for package in _PACKAGES},
    }


def write_simulated(
    path: str | Path, label: str, n_cells: int, seeds: list, settings: dict, switches: dict[str, str]
) -> None:
    """Write the manifest of an experiment that makes its own tissue."""
    manifest = {
        "label": label,
        "kind": "simulated",
        "n_cells": n_cells,
        "seeds": seeds,
        "commit": commit(),
        "config_hash": config_hash({"settings": settings, "switches": switches}),
        "settings": settings,
        "switches": switches,
    }
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(manifest, indent=1))


def read(path: str | Path) -> dict:
    """A manifest."""
    return json.loads(Path(path).read_text())


def read_joined(paths: list) -> dict:
    """One manifest for those of an experiment on several slides and with several seeds."""
    manifests = [read(path) for path in paths]
    slides = {json.dumps([m["samples"], m["slide"]]): m["n_cells"] for m in manifests}
    return manifests[0] | origin(manifests) | {"n_cells": sum(slides.values()), "n_slides": len(slides)}


def origin(manifests: Collection[dict]) -> dict:
    """Commit, configuration and seeds behind several results; those that differ side by side."""
    told = {key: ", ".join(dict.fromkeys(m[key] for m in manifests)) for key in ("commit", "config_hash")}
    return told | {"seeds": sorted({seed for m in manifests for seed in m["seeds"]})}


def target_name(manifest: dict, path_form: str) -> str:
    """The target domain that a path form stands for."""
    if "config" in manifest:
        targets = manifest["config"]["datasets"][manifest["dataset"]]["target_domains"]
    else:
        targets = manifest["settings"]["domains"]["target_domains"]
    return slugs(targets, "target_domains")[path_form]


def footer(manifest: dict, protocol: str | None = None) -> str:
    """One line to stand under a table or figure: kind of data, protocol, seeds, cells, commit and configuration."""
    seeds, n_left_out = manifest["seeds"], len(manifest.get("left_out", []))
    parts = [
        f"{manifest['label']}: {manifest['kind']} data, {manifest['n_cells']:,} cells",
        f"protocol {protocol}" if protocol else "",
        f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}",
        f"left out: {n_left_out} (reasons in provenance.json)" if n_left_out else "",
        f"commit {manifest['commit']}",
        f"config {manifest['config_hash']}",
    ]
    return " · ".join(filter(None, parts))
