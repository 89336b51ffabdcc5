"""Write the tables of all keys into config/README.md: `make docs`."""

import sys
from pathlib import Path

from tissue_counterfactuals.config import describe

readme = Path(sys.argv[1])
text = readme.read_text(encoding="utf-8")
readme.write_text(text[: text.index("## At the top level")] + describe(), encoding="utf-8")
