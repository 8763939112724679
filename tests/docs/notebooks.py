"""The notebooks of docs/notebooks: scripts in jupytext's percent format, paired with .ipynb files.

The script is what is edited and what tests run; `jupytext --sync docs/notebooks/*.py` writes its
twin.
"""

import json
import pathlib
import re
from typing import NamedTuple

from tests.docs import pages

FOLDER = pages.ROOT / "docs/notebooks"
SCRIPTS = sorted(FOLDER.glob("*.py"))


class Cell(NamedTuple):
    """A cell.

    Attributes:
      kind: "markdown" or "code".
      source: its text.
    """

    kind: str
    source: str


def of_script(text: str) -> list[Cell]:
    """Take a script apart: `# %% [markdown]` begins text behind `# `, `# %%` code."""
    _, *parts = re.split(r"^# %%", text, flags=re.MULTILINE)
    cells = []
    for part in parts:
        title, _, source = part.partition("\n")
        assert title in ("", " [markdown]"), title
        source = source.strip("\n")
        if title:
            source = re.sub(r"^# ?", "", source, flags=re.MULTILINE)
        cells.append(Cell("markdown" if title else "code", source))
    return cells


def of_notebook(text: str) -> list[Cell]:
    """The cells of an .ipynb."""
    return [Cell(c["cell_type"], "".join(c["source"])) for c in json.loads(text)["cells"]]


def markdown(path: pathlib.Path) -> str:
    """All text of a script."""
    cells = of_script(path.read_text("utf-8"))
    return "\n\n".join(cell.source for cell in cells if cell.kind == "markdown")
