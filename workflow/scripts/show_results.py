"""Print the answer of the demo, Table 1, and where everything is: `show_results.py RESULTS REPORT`."""

import sys
from pathlib import Path

import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tissue_counterfactuals.errors import InputError
from tissue_counterfactuals.files import BY_NAME, final_files, verify

results, report = map(Path, sys.argv[1:])
try:
    verify(final_files(results), BY_NAME)
except InputError as error:
    sys.exit(f"error: {error}")
for answer in results.glob("compare/demo/answer.md"):
    print(f"\n{answer.read_text().rstrip()}")
tables = sorted(results.glob("tables/*/table_1.*.md"))
for table in tables:
    print(f"\n{table.read_text().rstrip()}")
for notes in sorted(results.glob("tables/*/diagnostics.tsv")):
    wide = pd.read_csv(notes, sep="\t").pivot_table("value", ["dataset", "protocol", "method", "variant"], "name")
    print("\nIs the spatial latent used? Mean KL of s (nats per cell; near 0: no) and mean absolute")
    print("change of log expression that new neighbours make (near 0: the counterfactual is its own twin).")
    print(wide.round(3).to_string())
for answer in sorted(results.glob("answers/*/*/*/answer.md")):
    print(f"\n{answer.read_text().rstrip()}\n({answer})")
print("\nTables:", *sorted(results.glob("tables/*")), sep="\n  ")
print("Figures:", *sorted(results.glob("figures/*/[!.]*.*g")), sep="\n  ")
print(f"Report (open it in a browser):\n  {report}")
