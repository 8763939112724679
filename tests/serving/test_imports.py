"""What each room may import: prediction and serving run without the training packages."""

import ast
import pathlib
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "mrcnn_tf"
ROOMS = ("ops", "modeling", "data", "evaluation", "serving")
ALLOWED = {"tensorflow", "tf_keras", "numpy", "pycocotools", "mrcnn_tf"} | sys.stdlib_module_names
PREDICTION = ALLOWED - {"tf_keras"} | {"PIL", "absl"}
# Parts of the package outside the rooms that a room may import; they obey the same rule. What
# reads the configuration (task, experiments, ...) needs tf-models-official and stands above.
BESIDE = ("losses",)


def imported(path: pathlib.Path) -> set[str]:
    """Names of all modules that a file imports, wherever in the file."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def foreign(path: pathlib.Path, allowed: set[str]) -> set[str]:
    return {name for name in imported(path) if name.split(".")[0] not in allowed}


@pytest.mark.parametrize("room", [*ROOMS, *BESIDE])
def test_rooms_import_only_what_they_may(room):
    files = [PACKAGE / f"{room}.py"] if room in BESIDE else sorted((PACKAGE / room).glob("**/*.py"))
    assert files
    for path in files:
        assert not foreign(path, ALLOWED), path
        names = imported(path)
        assert not {n for n in names if n.startswith("tensorflow.keras")}, path
        ours = {n.split(".")[1] for n in names if n.startswith("mrcnn_tf.")}
        assert ours <= {*ROOMS, *BESIDE}, path


@pytest.mark.parametrize("name", ["predict.py", "image_files.py", "visualize.py"])
def test_prediction_imports_only_what_it_may(name):
    assert not foreign(PACKAGE / name, PREDICTION)
