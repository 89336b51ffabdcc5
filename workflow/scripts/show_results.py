"""Print where a run left its tables, figures and report, and Table 1 itself: `show_results.py RESULTS REPORT`."""

import sys
from pathlib import Path

results, report = map(Path, sys.argv[1:])
tables = sorted(results.glob("tables/*/table_1.*.md"))
for table in tables:
    print(f"\n{table.read_text().rstrip()}")
print("\nTables:", *sorted(results.glob("tables/*")), sep="\n  ")
print("Figures:", *sorted(results.glob("figures/*/*.png")), sep="\n  ")
print(f"Report (open it in a browser):\n  {report}")
