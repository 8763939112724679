"""The rooms of the package and the arrows between them, as docs/architecture.md draws them."""

import ast
import pathlib
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "mrcnn_tf"

# {room: the rooms that it may import}. "fields" are experiment/fields.py and presets.py, which
# import nothing; "common" are the two modules of the root that rooms share; "" are its commands and
# the Python API.
ARROWS = {
    "fields": set(),
    "ops": set(),
    "data": {"ops"},
    "images": set(),
    "modeling": {"ops", "data", "fields"},
    "weights": {"modeling", "data", "fields", "common"},
    "evaluation": {"data", "ops"},
    "serving": {"data", "ops", "modeling", "images", "common"},
    "common": {"data"},
    "experiment": {"fields", "modeling", "data"},
    "staged": {"experiment", "fields", "modeling", "data", "common", ""},
    "training": {
        *("experiment", "fields", "modeling", "data", "evaluation", "weights", "images", "ops"),
        *("staged", "common"),
    },
}
EVERYWHERE = {"mrcnn_tf.durations", "mrcnn_tf.layout"}  # import nothing themselves
COMMON = {"mrcnn_tf.checkpoints", "mrcnn_tf.progress_bar"}
FIELDS = {"mrcnn_tf.experiment.fields", "mrcnn_tf.experiment.presets"}

# What only calculates runs without tf-models-official; prediction also without Keras.
LIBRARIES = {"tensorflow", "tf_keras", "numpy", "pycocotools"}
OF_ROOM = {
    "fields": set(),
    "images": {"numpy", "PIL", "pycocotools", "tensorflow"},
    "ops": LIBRARIES - {"tf_keras"},
    "data": LIBRARIES - {"tf_keras"},
    "evaluation": LIBRARIES - {"tf_keras"},
    "serving": LIBRARIES - {"tf_keras"} | {"PIL"},
    "modeling": LIBRARIES,
}


def imported(path: pathlib.Path) -> set[str]:
    """Names of all modules that a file imports, wherever in the file."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def room_of(module: str) -> str:
    """The room of `mrcnn_tf.ROOM.module[.name]`."""
    if any(module == name or module.startswith(name + ".") for name in FIELDS):
        return "fields"
    if any(module == name or module.startswith(name + ".") for name in COMMON):
        return "common"
    parts = module.split(".")
    return parts[1] if (PACKAGE / parts[1]).is_dir() else ""


def files_of(room: str) -> list[pathlib.Path]:
    if room == "fields":
        return [PACKAGE / "experiment" / name for name in ("fields.py", "presets.py")]
    if room == "common":
        return [ROOT.joinpath(*name.split(".")).with_suffix(".py") for name in sorted(COMMON)]
    files = sorted((PACKAGE / room).glob("*.py"))
    return [path for path in files if room != "experiment" or path not in files_of("fields")]


def test_every_room_is_drawn():
    rooms = {path.parent.name for path in PACKAGE.glob("*/*.py")}
    assert rooms == ARROWS.keys() - {"fields", "common"}


@pytest.mark.parametrize("room", ARROWS)
def test_rooms_import_only_what_they_may(room):
    for path in files_of(room):
        for name in imported(path):
            if ".".join(name.split(".")[:2]) in EVERYWHERE:
                continue
            if name.startswith("mrcnn_tf."):
                assert room_of(name) in ARROWS[room] | {room}, f"{path} imports {name}"
            elif room in OF_ROOM and name.split(".")[0] not in sys.stdlib_module_names:
                assert name.split(".")[0] in OF_ROOM[room], f"{path} imports {name}"


@pytest.mark.parametrize("module", EVERYWHERE)
def test_what_all_rooms_may_import_imports_nothing(module):
    names = imported(ROOT.joinpath(*module.split(".")).with_suffix(".py"))
    assert {name.split(".")[0] for name in names} <= sys.stdlib_module_names


def test_the_arrows_have_no_circle():
    left = {room: to - {""} for room, to in ARROWS.items()}
    while left:
        free = [room for room, to in left.items() if not to & left.keys()]
        assert free, f"a circle among {sorted(left)}"
        left = {room: to for room, to in left.items() if room not in free}


def test_prediction_needs_neither_keras_nor_model_garden():
    allowed = {"tensorflow", "numpy", "pycocotools", "PIL", "absl", "tqdm", "mrcnn_tf"}
    for name in imported(PACKAGE / "predict.py"):
        assert name.split(".")[0] in allowed | sys.stdlib_module_names, name
