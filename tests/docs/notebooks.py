"""The notebooks of docs/notebooks: scripts in jupytext's percent format, paired with .ipynb files.

The script is what is edited; `jupytext --sync docs/notebooks/*.py` writes its twin, which is what
people open and what tests run.
"""

import ast
import json
import pathlib
import re
import shlex
from collections.abc import Iterator
from typing import NamedTuple

import nbclient
import nbformat

from tests.docs import commands, pages

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


def typed(path: pathlib.Path) -> Iterator[commands.Command]:
    """Every command that a script runs or speaks of; what is put in when it runs is an X."""
    texts = [(shlex.split(text), "text") for text in _in_code(path)]
    spoken_of = markdown(path)
    for text in re.findall(r"```sh\n(.*?)```", spoken_of, re.DOTALL):
        texts += [(words, "block") for _, words in commands.split(text)]
    for text in re.findall(r"`(python -m [^`]+)`", spoken_of):
        texts += [(words, "prose") for _, words in commands.split(text)]
    for words, where in texts:
        yield commands.Command(f"{path.name}, {where}", tuple(words))


def _in_code(path: pathlib.Path) -> Iterator[str]:
    """The text of each `command(...)`."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "command":
            text = node.args[0]
            parts = text.values if isinstance(text, ast.JoinedStr) else [text]
            yield "".join(p.value if isinstance(p, ast.Constant) else "X" for p in parts)


def run(path: pathlib.Path) -> nbformat.NotebookNode:
    """Run an .ipynb as Jupyter does, from the top to the bottom, in its own folder.

    Returns:
      It, with what its cells put out.

    Raises:
      CellExecutionError: a cell failed; with its text and the traceback.
    """
    notebook = nbformat.read(path, as_version=4)
    here = {"metadata": {"path": str(path.parent)}}
    nbclient.NotebookClient(notebook, timeout=None, resources=here).execute()
    return notebook


def pictures(notebook: nbformat.NotebookNode) -> list[str]:
    """The PNG files that a notebook has put out, in base64."""
    put_out = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    data = [output["data"] for output in put_out if output["output_type"] == "display_data"]
    return [kinds["image/png"] for kinds in data if "image/png" in kinds]
