"""Commands of the documentation, word by word as they are written, on a few photos."""

import json
import os
import pathlib
import shutil
import subprocess
import sys

import pytest

from tests.docs import commands, pages

pytestmark = pytest.mark.slow


def typed(page: str, program: str) -> list[tuple[str, ...]]:
    """The words of a page's commands that run this file."""
    found = [c for c in commands.in_blocks() if c.where.startswith(f"{page}:")]
    words = [c.words for c in found if c.file == pages.ROOT / program]
    assert words, f"{page} has no command of {program}"
    return words


def run(words: tuple[str, ...], folder: pathlib.Path, **places: str) -> str:
    """Run a command in a folder; `places` are the words in capitals that a user replaces."""
    assert words[0] == "python"
    given = []
    for word in words[1:]:
        for name, place in places.items():
            word = word.replace(name, place)
        given.append(word)
    done = subprocess.run(
        [sys.executable, *given], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


# Takes a command's own flags, and parses command lines without running anything.
PARSE = """
import importlib, json, sys
from absl import flags
from mrcnn_tf.console import command_line
defines = []
command_line.run = lambda description, define_flags, main: defines.append(define_flags)
importlib.import_module(sys.argv[1]).run_main()
defines[0]()
for words in json.loads(sys.argv[2]):
    flags.FLAGS.unparse_flags()
    print(json.dumps(flags.FLAGS(words)))
"""
_ON_THEIR_OWN = {"tfds_build.py", "env.py"}  # TFDS's flags; none
_OF_BEAM = {"predict_beam.py", "beam_convert.py"}  # whose package is not there


def command_lines() -> dict[str, list[list[str]]]:
    """{module: its command lines}, of those that are written out."""
    found: dict[str, list[list[str]]] = {}
    for command in [*commands.in_blocks(), *commands.in_prose()]:
        file, words = command.file, list(command.words)
        if not file or file.parent.name not in ("mrcnn_tf", "data_prep"):
            continue
        if "..." in words or file.name in _ON_THEIR_OWN | _OF_BEAM:
            continue
        given = words[2 + (words[1] == "-m") :] if words[0] == "python" else words[1:]
        found.setdefault(f"{file.parent.name}.{file.stem}", []).append([file.name, *given])
    return found


@pytest.mark.parametrize("module", sorted(command_lines()))
def test_command_lines_are_taken_by_their_commands(module):
    lines = command_lines()[module]
    done = subprocess.run(
        [sys.executable, "-c", PARSE, module, json.dumps(lines)],
        cwd=pages.ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    left = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]
    assert left == [[line[0]] for line in lines], "something was taken for no flag"


@pytest.fixture
def folder(tmp_path):
    """A checkout's folders, `photos/` with `export.json`, and others to validate on."""
    from tests.end_to_end import test_finetune

    for name in ("mrcnn_tf", "data_prep", "experiments"):
        os.symlink(pages.ROOT / name, tmp_path / name)
    for name, file in (("photos", "export.json"), ("more_photos", "more.json")):
        images, annotations = test_finetune.as_coco(tmp_path / f"drawn_{name}")
        shutil.copytree(images, tmp_path / name)
        shutil.copy(annotations, tmp_path / file)
    return tmp_path


def test_data_is_looked_at_split_and_converted(folder):
    page = "docs/formats.md"
    places = {"PHOTOS": "photos", "EXPORT": "export.json"}
    for program in ("to_coco", "split_coco"):
        for words in typed(page, f"data_prep/{program}.py"):
            run(words, folder, **places)
    sides = json.loads((folder / "photos/split/split.json").read_text())["images"]
    assert len(sides) == 8

    (words,) = typed("docs/data.md", "data_prep/create_coco_tfrecord.py")[:1]
    places = {"IMAGES": "photos", "ANNOTATIONS.json": "photos/split/train.json", "FOLDER": "out"}
    assert "image" in run(words, folder, **places)
    assert (folder / "out" / "label_map.json").exists()

    for words in typed("docs/inspect-data.md", "mrcnn_tf/inspect_data.py"):
        done = subprocess.run(
            [sys.executable, *words[1:]], cwd=folder, capture_output=True, text=True, check=False
        )
        assert done.returncode in (0, 2), done.stderr  # the sets hold the same photos
        assert "photos" in done.stdout
