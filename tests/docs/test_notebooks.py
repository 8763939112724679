"""Notebooks run top to bottom, their twins say the same, and what they name is there."""

import ast
import json
import os
import pathlib
import re
import subprocess
import sys
import urllib.parse

import pytest

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
    assert "%pip install" in first
    assert f"`{script.name}`" in first
    extras = re.search(r"'\.\[([\w,]+)\]'", first)[1].split(",")
    assert ("convert" in extras) == ("mrcnn_tf.convert_weights" in script.read_text("utf-8"))


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


def _calls(tree: ast.AST) -> list[tuple[pathlib.Path, set[str]]]:
    """Program and flags of each `command(...)`, as far as they are written there."""
    found = []
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Call) and getattr(node.func, "id", "") == "command"):
            continue
        words = [n.value for n in ast.walk(node) if isinstance(n, ast.Constant)]
        words = [word for word in words if isinstance(word, str)]
        inner = [n for n in ast.walk(node) if isinstance(n, ast.Call) and n is not node]
        scripts = [n.args[0].value for n in inner if n.func.attr == "data_prep_command"]
        modules = [word for word in words if word.startswith("mrcnn_tf.")]
        (program,) = [f"data_prep/{name}.py" for name in scripts] or [
            name.replace(".", "/") + ".py" for name in modules
        ]
        flags = {word[2:].partition("=")[0] for word in words if word.startswith("--")}
        found.append((ROOT / program, flags))
    return found


@each_script
def test_commands_have_flags_that_exist(script):
    calls = _calls(ast.parse(script.read_text("utf-8")))
    assert len(calls) >= 2
    for program, flags in calls:
        assert program.is_file(), program
        assert flags <= commands.flags_of(program), f"{script.name}: {program.name}"


@each_script
def test_links_lead_somewhere(script):
    for target in re.findall(r"\]\(([^)\s]+)\)", notebooks.markdown(script)):
        if not urllib.parse.urlsplit(target).scheme:
            path, _, anchor = target.partition("#")
            file = (script.parent / path).resolve()
            assert file.is_file(), target
            if anchor:
                assert anchor in pages.read(file.relative_to(ROOT).as_posix()).anchors(), target


# What each leaves behind.
LEFT = {
    "inside_a_step": ("inside_a_step/records/label_map.json",),
    "train_on_your_photos": (
        "train_on_photos/training/report/report.html",
        "train_on_photos/saved_model/saved_model.pb",
        "train_on_photos/predictions/detections.json",
    ),
    "from_detectron2_to_a_server": (
        "from_detectron2/converted/report.txt",
        "from_detectron2/kit/models/coco/1/saved_model.pb",
    ),
}


@pytest.mark.slow
@each_script
def test_it_runs_top_to_bottom_without_downloads(script, tmp_path):
    environment = os.environ | {
        "MPLBACKEND": "Agg",
        "PYTHONPATH": str(ROOT),
        "https_proxy": "http://localhost:9",  # nobody is there: a download would fail
    }
    done = subprocess.run(
        [sys.executable, str(script)],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-5000:]
    for name in LEFT[script.stem]:
        assert (tmp_path / name).is_file(), name
