"""The rooms of the package and the arrows between them, as docs/architecture.md draws them."""

import ast
import pathlib
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "mrcnn_tf"

# {room: the rooms that it may import}. "fields" are experiment/fields.py and presets.py, which
# import nothing; "checkpoints" is checkpoints.py of the root. No room imports a command.
ARROWS = {
    "console": set(),
    "fields": set(),
    "ops": set(),
    "images": {"data"},
    "pages": {"images", "console"},
    "results": {"data", "ops"},
    "data": {"ops", "console"},
    "evaluation": {"data", "ops"},
    "analysis": {"evaluation"},
    "reporting": {
        *("analysis", "pages", "evaluation", "data", "images", "ops", "training", "experiment"),
        *("fields", "checkpoints", "console"),
    },
    "modeling": {"ops", "data", "fields"},
    "remote": set(),
    "beam": {"serving", "data", "images", "console"},
    "serving": {"data", "ops", "modeling", "images", "results", "console", "remote"},
    "edge": {
        *("serving", "results", "evaluation", "data", "ops", "modeling", "images", "console"),
        "experiment",
    },
    "checkpoints": {"data"},
    "experiment": {"fields", "modeling", "data", "console"},
    "weights": {"modeling", "data", "ops", "fields", "experiment", "checkpoints", "console"},
    "staged": {"experiment", "fields", "modeling", "data", "checkpoints", "console"},
    "inspection": {"data", "images", "pages", "console", "fields", "experiment"},
    "training": {
        *("experiment", "fields", "modeling", "data", "evaluation", "weights", "images", "ops"),
        *("staged", "checkpoints", "console"),
    },
}
FIELDS = {"mrcnn_tf.experiment.fields", "mrcnn_tf.experiment.presets"}

# What only calculates runs without tf-models-official; prediction also without Keras.
LIBRARIES = {"tensorflow", "tf_keras", "numpy", "pycocotools"}
OF_ROOM = {
    "fields": set(),
    "console": {"absl", "tensorflow", "tqdm"},
    "images": {"numpy", "PIL", "pycocotools", "tensorflow"},
    "pages": {"numpy", "PIL", "pycocotools"},
    "results": {"numpy", "PIL", "supervision"},  # supervision where it is asked for
    "ops": LIBRARIES - {"tf_keras"},
    "data": LIBRARIES - {"tf_keras"} | {"google", "grpc"},  # protobuf
    "evaluation": LIBRARIES - {"tf_keras"} | {"hotcoco"},
    "remote": {"numpy", "grpc", "google"},
    "analysis": {"numpy", "pycocotools"},
    "beam": {"apache_beam", "tensorflow", "google"},  # google: protobuf's errors
    "serving": LIBRARIES - {"tf_keras"} | {"PIL", "av"},
    "edge": {
        *("tensorflow", "numpy", "PIL", "absl", "yaml", "onnx", "tf2onnx", "flatbuffers"),
        *("ai_edge_litert", "tflite_runtime", "onnxruntime"),
    },
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
    room = module.split(".")[1]
    return room if room in ARROWS else "a command"


def files_of(room: str) -> list[pathlib.Path]:
    if room == "fields":
        return [PACKAGE / "experiment" / name for name in ("fields.py", "presets.py")]
    if room == "checkpoints":
        return [PACKAGE / "checkpoints.py"]
    files = sorted((PACKAGE / room).glob("*.py"))
    return [path for path in files if room != "experiment" or path not in files_of("fields")]


def test_every_room_is_drawn():
    rooms = {path.parent.name for path in PACKAGE.glob("*/*.py")}
    assert rooms == ARROWS.keys() - {"fields", "checkpoints"}


@pytest.mark.parametrize("room", ARROWS)
def test_rooms_import_only_what_they_may(room):
    for path in files_of(room):
        for name in imported(path):
            if name.startswith("mrcnn_tf."):
                assert room_of(name) in ARROWS[room] | {room}, f"{path} imports {name}"
            elif room in OF_ROOM and name.split(".")[0] not in sys.stdlib_module_names:
                assert name.split(".")[0] in OF_ROOM[room], f"{path} imports {name}"


def test_the_arrows_have_no_circle():
    left = dict(ARROWS)
    while left:
        free = [room for room, to in left.items() if not to & left.keys()]
        assert free, f"a circle among {sorted(left)}"
        left = {room: to for room, to in left.items() if room not in free}


def test_only_two_commands_need_apache_beam():
    """It has an environment of its own, so nothing that others use may import it."""
    doors = {PACKAGE / "predict_beam.py", ROOT / "data_prep" / "beam_convert.py"}
    behind = {*(PACKAGE / "beam").glob("*.py"), ROOT / "data_prep" / "beam_shards.py"}
    importers, users = set(), set()
    for path in (*PACKAGE.rglob("*.py"), *(ROOT / "data_prep").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Import | ast.ImportFrom):
                continue
            text = ast.unparse(node)
            importers |= {
                path for word in ("import apache_beam", "from apache_beam") if word in text
            }
            users |= {path for word in ("mrcnn_tf.beam", "beam_shards") if word in text}
    assert importers <= behind
    assert users - behind == doors


def test_prediction_needs_neither_keras_nor_model_garden():
    allowed = {"tensorflow", "numpy", "pycocotools", "PIL", "absl", "tqdm", "mrcnn_tf"}
    for name in imported(PACKAGE / "predict.py"):
        assert name.split(".")[0] in allowed | sys.stdlib_module_names, name
