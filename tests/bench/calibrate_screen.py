"""False positives and power of the tests of spatial screens, on simulated ones: the tables of resources/SCREEN.md.

Rows go to OUT/targets.tsv and OUT/screens.tsv scenario by scenario, so that a run can be cut short and continued.

    python tests/bench/calibrate_screen.py OUT N_SIMULATIONS [SCENARIO[:CLONES[:SPILLOVER]] ...]
    python tests/bench/calibrate_screen.py OUT tables
"""

import sys
from pathlib import Path

import pandas as pd

from tissue_counterfactuals import config
from tissue_counterfactuals.experiments import screen_power


def main() -> None:
    out, what, *wanted = sys.argv[1:]
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    settings = shipped()
    if what != "tables":
        for scenario, knobs in screen_power.scenarios(settings):
            name = "{scenario}:{clones_per_target}:{spillover:g}".format(**scenario)
            if not wanted or any(f"{name}:".startswith(f"{w}:") for w in wanted):
                simulate(out, scenario, knobs, int(what), settings)
                print(f"{name}: {what} screens", flush=True)
    print(tables(out))


def shipped() -> dict:
    """The settings that a configuration gets which says nothing."""
    data = {"source": "simulated", "control_domain": "domain_0", "target_domains": ["domain_1"]}
    return config.load_config({"datasets": {"d": data}})["celcomen"]["screen"]


def simulate(out: Path, scenario: dict, knobs: dict, n: int, settings: dict) -> None:
    """Judge n screens of a scenario and append what came out."""
    # In traps too, which the experiment leaves out.
    slow = scenario["clones_per_target"] == settings["usual_clones"]
    made = [screen_power.judge(knobs, number, settings, slow) for number in range(n)]
    for name, rows in (
        ("screens", [m[0] for m in made]),
        ("targets", sum((m[1] for m in made), [])),
    ):
        path = out / f"{name}.tsv"
        table = pd.DataFrame([scenario | row for row in rows])
        if path.exists():
            table = pd.concat([pd.read_csv(path, sep="\t"), table])
        table.to_csv(path, sep="\t", index=False)


def tables(out: Path) -> str:
    """Markdown: false positive rates by scenario, power by recipients and effect."""
    screens, targets = (pd.read_csv(out / f"{name}.tsv", sep="\t") for name in ("screens", "targets"))
    rates = screen_power.rates(targets, screens)
    names = screen_power.PER_TARGET | {"effect": "verdict: effect"} | screen_power.PER_SCREEN
    rates["rate_n"] = [f"{r.rate:.3f} ({r.n})" for r in rates.itertuples()]
    null = rates[rates["spillover"] == 0]
    null = null.assign(scenario=null["scenario"] + " " + null["clones_per_target"].astype(str))
    first = null.pivot_table(index="test", columns="scenario", values="rate_n", aggfunc="first", sort=False)
    grid = rates[rates["scenario"] == "grid"]
    parts = [first.loc[[t for t in names if t in first.index]].rename(index=names).fillna("").to_markdown()]
    for test in (
        "p_clones",
        "effect",
        "p_joint",
        "p_wrong_target",
        "predicted",
        "p_joint_prediction",
        "authors_full",
        "authors_specific",
    ):
        own = grid[grid["test"] == test]
        if own.empty:
            continue
        recipients = grid.groupby("clones_per_target")["recipients"].mean().round().astype(int)
        clones = own["clones_per_target"]
        named = clones.map(recipients).astype(str) + " (" + clones.astype(str) + " clones)"
        shown = own.assign(recipients=named).sort_values(["clones_per_target", "spillover"])
        columns = shown["spillover"].map("{:g}".format)
        change = own.groupby("spillover")["true_change"].mean()
        power = shown.assign(column=columns + " (" + shown["spillover"].map(change).round(2).astype(str) + ")")
        power = power.pivot_table(index="recipients", columns="column", values="rate_n", aggfunc="first", sort=False)
        parts.append(f"{names[test]}\n\n{power.sort_index(axis=1).fillna('').to_markdown()}")
    columns = [
        "ceiling",
        "resolved",
        "pearson",
        "pearson_full",
        "pearson_full_random",
        "pearson_specific",
        "pearson_specific_random",
    ]
    means = screens.groupby(["scenario", "clones_per_target", "spillover"], sort=False)[columns].mean()
    return "\n\n".join([*parts, means.round(2).reset_index().to_markdown(index=False)])


if __name__ == "__main__":
    main()
