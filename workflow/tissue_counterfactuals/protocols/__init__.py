"""The two protocols, as named switches: what the authors' code did, and what the papers define.

`as_run` repeats the authors' code with its defects, so that published numbers can be met; `corrected` (the
default) follows the papers and mends the defects. There is one code path: each difference is one switch, a row of
`cellina.py` or `celcomen.py`, with all its values, and `deviations()` is the table of them that every report links.
"""

from typing import TYPE_CHECKING

from tissue_counterfactuals.errors import InputError
from tissue_counterfactuals.protocols import celcomen, cellina

if TYPE_CHECKING:
    import pandas as pd

PROTOCOLS = ("corrected", "as_run")
PAPERS = {"cellina": cellina, "celcomen": celcomen}
SWITCHES = {switch.name: switch for paper in PAPERS.values() for switch in paper.SWITCHES}


def resolve(protocol: str, overrides: dict[str, str] | None = None) -> dict[str, str]:
    """Values of all switches under a protocol.

    Overrides apply to `corrected` only: `as_run` is a statement about the authors' code and takes none.

    Raises:
        InputError: unknown protocol, switch or value.
    """
    if protocol not in PROTOCOLS:
        raise InputError(f"config: protocols holds {protocol!r}; allowed are {', '.join(PROTOCOLS)}.")
    values = {name: getattr(switch, protocol) for name, switch in SWITCHES.items()}
    for name, value in (overrides or {}).items():
        if name not in SWITCHES:
            raise InputError(f"config: switches.{name} is no switch; the switches are {', '.join(SWITCHES)}.")
        if value not in SWITCHES[name].values:
            raise InputError(f"config: switches.{name} is {value!r}; allowed are {', '.join(SWITCHES[name].values)}.")
        if protocol == "corrected":
            values[name] = value
    return values


def chosen(protocol: str, switches: dict[str, str] | None = None) -> dict[str, str]:
    """Values of all switches under a protocol, some of them others, under `as_run` too.

    Raises:
        InputError: unknown protocol, switch or value.
    """
    values = resolve(protocol)
    resolve("corrected", switches)  # refuses unknown names and values
    return values | dict(switches or {})


def of_step(switches: dict[str, str], step: str) -> dict[str, str]:
    """The switches that one step reads, so that changing a metric never trains a model again."""
    return {name: value for name, value in switches.items() if SWITCHES[name].step == step}


def deviations(paper: str) -> "pd.DataFrame":
    """The table of deviations of one paper: what its authors' code did, what we do, and why; one row each."""
    import pandas as pd  # slow to import, and every job reads the switches

    table = PAPERS[paper]
    rows = [(s.name, s.step, s.corrected, s.as_run, "switch", s.why) for s in table.SWITCHES]
    rows += [(name, step, ours, theirs, "note", why) for name, step, ours, theirs, why in table.NOTES]
    return pd.DataFrame(rows, columns=["name", "step", "corrected", "as_run", "type", "why"])
