"""Notebooks run top to bottom, their twins say the same, and what they name is there."""

import ast
import base64
import io
import json
import pathlib
import re
import shutil
import urllib.parse

import nbformat
import numpy as np
import pytest
from nbclient.exceptions import CellExecutionError
from PIL import Image

from tests.docs import commands, names, notebooks, pages

ROOT = pages.ROOT
each_script = pytest.mark.parametrize("script", notebooks.SCRIPTS, ids=lambda path: path.stem)


def test_there_are_three():
    assert [path.stem for path in notebooks.SCRIPTS] == [
        "from_detectron2_to_a_server",
        "inside_a_step",
        "train_on_your_photos",
    ]
    assert {path.stem for path in notebooks.SCRIPTS} == {
        path.stem for path in notebooks.FOLDER.glob("*.ipynb")
    }


def test_a_script_is_taken_apart():
    head = "# ---\n# head\n# ---\n\n"
    text = head + "# %% [markdown]\n# # A\n#\n# b\n\n# %%\nc = 1\n\n\n# %%\nd = '# %%'\n"
    assert notebooks.of_script(text) == [
        ("markdown", "# A\n\nb"),
        ("code", "c = 1"),
        ("code", "d = '# %%'"),
    ]


@each_script
def test_both_files_of_a_pair_say_the_same(script):
    text = script.with_suffix(".ipynb").read_text("utf-8")
    ours, twins = notebooks.of_script(script.read_text("utf-8")), notebooks.of_notebook(text)
    advice = f"run jupytext --sync {script.relative_to(ROOT)}"
    assert len(ours) == len(twins), advice
    for number, (cell, twin) in enumerate(zip(ours, twins, strict=True)):
        assert cell == twin, f"cell {number}: {advice}"
    for cell in json.loads(text)["cells"]:
        assert not cell.get("outputs"), "outputs are not kept"
        assert cell.get("execution_count") is None
    assert json.loads(text)["nbformat"] == 4


@each_script
def test_the_first_cell_says_how_to_run_it_in_a_hosted_notebook(script):
    first = notebooks.of_script(script.read_text("utf-8"))[0].source
    assert "hosted notebook" in first
    requirements = set(re.findall(r"requirements[\w-]*\.txt", first))
    (pins,) = requirements
    assert f"%pip install -q -r {pins}\n" in first
    assert (ROOT / pins).is_file()


def _imported(tree: ast.AST) -> dict[str, str]:
    """What each name that is imported from us stands for: {"boxes": "mrcnn_tf.ops.boxes"}."""
    return {
        alias.asname or alias.name: f"{node.module}.{alias.name}"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] in names.OURS
        for alias in node.names
    }


@each_script
def test_every_name_of_ours_is_there_and_public(script):
    imported = _imported(tree := ast.parse(script.read_text("utf-8")))
    assert imported
    used = set(imported.values())
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            of = imported.get(node.value.id)
            if of and (ROOT / (of.replace(".", "/") + ".py")).is_file():
                used.add(f"{of}.{node.attr}")
    for name in used:
        module, _, last = name.rpartition(".")
        assert names.is_there(module, last), f"{script.name}: {name} is not there"
        assert not last.startswith("_"), f"{script.name}: {name}"
    private = [n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute)]
    assert [name for name in private if re.match(r"_[a-z]", name)] == []


@each_script
def test_commands_have_flags_that_exist(script):
    typed = list(notebooks.typed(script))
    assert len(typed) >= 2
    for command in typed:
        assert command.file, command
        assert command.file.is_file(), command
        unknown = set(command.flags) - commands.flags_of(command.file)
        assert not unknown, f"{command.where}: {command.file.name} has no flag {sorted(unknown)}"


@each_script
def test_links_lead_somewhere(script):
    for target in re.findall(r"\]\(([^)\s]+)\)", notebooks.markdown(script)):
        if not urllib.parse.urlsplit(target).scheme:
            path, _, anchor = target.partition("#")
            file = (script.parent / path).resolve()
            assert file.is_file(), target
            if anchor:
                assert anchor in pages.read(file.relative_to(ROOT).as_posix()).anchors(), target


@pytest.fixture
def as_a_user(monkeypatch, tmp_path):
    """Nobody's settings, and nobody answers a download."""
    for name in ("https_proxy", "http_proxy"):
        monkeypatch.setenv(name, "http://localhost:9")
    monkeypatch.setenv("no_proxy", "localhost")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("JUPYTER_CONFIG_DIR", str(tmp_path / "jupyter"))
    monkeypatch.delenv("MPLBACKEND", raising=False)  # Jupyter's: figures go into the notebook
    monkeypatch.delenv("PYTHONPATH", raising=False)


@pytest.mark.slow
@pytest.mark.usefixtures("as_a_user")
def test_a_cell_that_fails_ends_the_run(tmp_path):
    path = tmp_path / "a.ipynb"
    cells = [
        nbformat.v4.new_code_cell("print('reached')"),
        nbformat.v4.new_code_cell("assert 1 + 1 == 3"),
        nbformat.v4.new_code_cell("open('not_reached', 'w')"),
    ]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    with pytest.raises(CellExecutionError, match="assert 1 \\+ 1 == 3"):
        notebooks.run(path)
    assert not (tmp_path / "not_reached").exists()


# What each leaves behind in `runs/notebooks`, and how many pictures it shows.
LEFT = {
    "inside_a_step": (["step/records/label_map.json"], 10),
    "train_on_your_photos": (
        [
            "photos/data/inspection.html",
            "photos/training/report/report.html",
            "photos/saved_model/saved_model.pb",
            "photos/predictions/detections.json",
        ],
        3,
    ),
    "from_detectron2_to_a_server": (
        [
            "detectron2/converted/report.txt",
            "detectron2/kit/models/coco/1/saved_model.pb",
            "detectron2/found/detections.json",
        ],
        1,
    ),
}


def checkout(folder: pathlib.Path) -> pathlib.Path:
    """What a checkout has, in a folder that may be written to; where its notebooks lie."""
    for name in ("mrcnn_tf", "data_prep", "experiments", "benchmarks"):
        (folder / name).symlink_to(ROOT / name)
    copied = folder / "docs/notebooks"
    copied.mkdir(parents=True)
    return copied


@pytest.mark.slow
@pytest.mark.usefixtures("as_a_user")
@each_script
def test_it_runs_top_to_bottom_without_downloads(script, tmp_path):
    names_left, num_pictures = LEFT[script.stem]
    folder = checkout(tmp_path)
    ran = notebooks.run(pathlib.Path(shutil.copy(script.with_suffix(".ipynb"), folder)))
    nbformat.write(ran, tmp_path / "ran.ipynb")  # to be looked at
    for name in names_left:
        assert (tmp_path / "runs/notebooks" / name).is_file(), name
    shown = notebooks.pictures(ran)
    assert len(shown) == num_pictures
    for content in shown:
        pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(content))).convert("L"))
        assert pixels.std() > 10, "a picture of nothing"
