"""Files are run in their own runtime, and only those that answer as the network get a name."""

import contextlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from mrcnn_tf.data import schema
from mrcnn_tf.data.label_map import LabelMap
from mrcnn_tf.edge import device, exporting, formats, graph, litert
from mrcnn_tf.experiment import loading
from mrcnn_tf.experiment.experiment import maskrcnn
from mrcnn_tf.modeling.detections import Detections
from mrcnn_tf.serving.preprocessing import Preprocessor
from mrcnn_tf.serving.verification import VerificationError
from tests import tiny_network
from tests.serving.conftest import RectangleFinder

ROOT = pathlib.Path(__file__).resolve().parents[2]
LABELS = LabelMap((17, 2**24 + 1), ("Röhre", "green"))
RED, GREEN = (255, 0, 0), (0, 255, 0)
SIZE = (64, 96)


class Finder:
    """Finds red and green rectangles, in what two convolutions hand through unchanged."""

    def __init__(self):
        self._finder = RectangleFinder()
        copies = np.zeros([3, 3, 3, 96], np.float32)
        copies[1, 1, np.arange(96) % 3, np.arange(96)] = 1.0
        means = np.zeros([3, 3, 96, 3], np.float32)
        means[1, 1, np.arange(96), np.arange(96) % 3] = 1 / 32
        self.kernels = [tf.Variable(copies), tf.Variable(means)]
        self.red_score = self._finder.red_score

    def __call__(self, images, image_size_hw):
        for kernel in self.kernels:
            images = tf.nn.conv2d(images, kernel, 1, "SAME")
        return self._finder(images, image_size_hw)


def preprocessor(order: str = "bgr") -> Preprocessor:
    """Normalises to 0..1 with another mean for each channel, which the finder does not see."""
    return Preprocessor(64, 96, "detectron2", order, (0.0, 0.0, 0.0), (255.0, 255.0, 255.0))


def picture(height=60, width=120, **rectangles) -> np.ndarray:
    """A grey picture with rectangles (y1, x1, y2, x2)."""
    pixels = np.full([height, width, 3], 60, np.uint8)
    for color, name in ((RED, "red"), (GREEN, "green")):
        if name in rectangles:
            y1, x1, y2, x2 = rectangles[name]
            pixels[y1:y2, x1:x2] = color
    return pixels


PICTURES = [
    picture(red=(10, 20, 40, 60), green=(5, 80, 50, 110)),
    picture(90, 40, red=(30, 10, 60, 30)),
]


def export(folder, file_format="litert", quantize="none", detect=None, order="rgb", **more):
    return exporting.export(
        detect or Finder(),
        str(folder),
        file_format=file_format,
        input_hw=SIZE,
        quantize=quantize,
        preprocess=preprocessor(order),
        mask_convention="pixel_centres",
        **({"pictures": PICTURES, "label_map": LABELS} | more),
    )


@pytest.mark.parametrize(
    ("file_format", "quantize"),
    [*(("litert", quantize) for quantize in formats.QUANTIZE), ("onnx", "none")],
)
def test_a_file_finds_rectangles_where_they_are(tmp_path, file_format, quantize):
    if file_format == "onnx":
        pytest.importorskip("tf2onnx", reason="an extra: requirements-onnx.txt")
    path, compared = export(tmp_path, file_format, quantize, score_threshold=0.625)
    assert compared.num_detections == 3
    assert compared.agreement == 1.0
    assert sorted(os.listdir(tmp_path)) == ["detect.py", os.path.basename(path)]
    network = device.load(path, threads=1)
    assert network.input_hw == SIZE
    assert network.description["suggested_score_threshold"] == 0.625
    assert network.description["quantize"] == quantize
    red, green = device.find(network, PICTURES[0])
    assert (red.category, red.category_id, red.score) == ("Röhre", 17, 0.75)
    assert (green.category, green.category_id, green.score) == ("green", 2**24 + 1, 0.5)
    # 60 x 120 becomes 48 x 96: what is found there is a fraction of a pixel off.
    np.testing.assert_allclose(red.box, [10, 20, 40, 60], atol=1.3)
    np.testing.assert_allclose(green.box, [5, 80, 50, 110], atol=1.3)
    rows, columns = np.nonzero(red.mask)
    assert abs(columns.max() + red.left - 40) <= 2  # the mask is the left half
    assert abs(rows.min() + red.top - 10) <= 1
    (upright,) = device.find(network, PICTURES[1])
    np.testing.assert_allclose(upright.box, [30, 10, 60, 30], atol=1.5)


def test_the_order_of_channels_is_inside(tmp_path):
    # A network that was taught blue, green, red sees red where there is blue.
    path, _ = export(tmp_path, order="bgr", pictures=[PICTURES[0][..., ::-1]])
    (found, _) = device.find(device.load(path), PICTURES[0][..., ::-1])
    assert found.category == "Röhre"


def test_the_size_of_the_weights_follows_the_quantisation(tmp_path):
    sizes = {}
    for quantize in ("none", "float16", "dynamic"):
        path, _ = export(tmp_path / quantize, quantize=quantize)
        sizes[quantize] = os.path.getsize(path)
    weights = 4 * sum(kernel.shape.num_elements() for kernel in Finder().kernels)
    assert sizes["none"] - sizes["float16"] == pytest.approx(weights / 2, rel=0.3)
    assert sizes["none"] - sizes["dynamic"] == pytest.approx(weights * 3 / 4, rel=0.3)


def test_any_tool_for_archives_reads_the_description(tmp_path):
    path, _ = export(tmp_path)
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        described = json.loads(archive.read("description.json"))
    assert described["categories"][0] == {"class": 1, "id": 17, "name": "Röhre"}
    assert described["input_size"] == [64, 96]


def test_a_file_that_answers_something_else_gets_no_name(tmp_path, monkeypatch):
    path, _ = export(tmp_path)
    before = pathlib.Path(path).read_bytes()
    convert = litert.convert

    def convert_wrongly(network, *arguments):
        for weight in network.weights:
            if weight.shape.rank == 4:
                weight.assign(tf.zeros_like(weight))
        return convert(network, *arguments)

    monkeypatch.setattr(litert, "convert", convert_wrongly)
    answer = device.load(path).run
    monkeypatch.setattr(graph, "reference", lambda detect, preprocess: answer)
    with pytest.raises(VerificationError, match=r"model\.tflite: only 0\.0%"):
        export(tmp_path)
    assert pathlib.Path(path).read_bytes() == before
    with pytest.raises(VerificationError):
        export(tmp_path / "new")
    assert os.listdir(tmp_path / "new") == []


@pytest.mark.slow
def test_a_full_disk_leaves_the_file_that_was_there(small_disk):
    """One line with the file; with room the same export succeeds."""
    export(small_disk)
    before = {path.name: path.read_bytes() for path in small_disk.iterdir()}
    filler = small_disk / "filler"
    for free in (0, 8):  # KiB: for nothing, for a part of the file
        with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(2**12))
        with filler.open("r+b") as file:
            file.truncate(filler.stat().st_size - free * 2**10)
        with pytest.raises(OSError, match=f"No space left .*: '{small_disk}/incomplete-model.tfl"):
            export(small_disk)
        filler.unlink()
        assert {path.name: path.read_bytes() for path in small_disk.iterdir()} == before
    path, _ = export(small_disk)
    assert pathlib.Path(path).name == "model.tflite"
    assert {path.name for path in small_disk.iterdir()} == before.keys()


def test_what_was_not_compared_gets_no_name(tmp_path):
    with pytest.raises(VerificationError, match=r"nothing in 1 pictures.*--pictures"):
        export(tmp_path, pictures=[picture()])
    assert os.listdir(tmp_path) == []


def test_what_cannot_be_exported_is_refused(tmp_path):
    with pytest.raises(ValueError, match="only LiteRT files are quantised"):
        export(tmp_path, "onnx", "float16")
    with pytest.raises(ValueError, match=r"full measures .* --pictures"):
        export(tmp_path, quantize="full", pictures=[])
    with pytest.raises(ValueError, match=r"input_size: 64,100: .* multiples of 32"):
        graph.Graph(Finder(), preprocessor(), (64, 100))
    (tmp_path / "saved_model.pb").write_bytes(b"")
    with pytest.raises(FileExistsError, match="holds a SavedModel"):
        export(tmp_path)
    with pytest.raises(FileExistsError, match="is a file"):
        export(tmp_path / "saved_model.pb")


def test_half_precision_is_refused():
    weight = tf.Variable(tf.ones([], tf.bfloat16))

    def detect(images, image_size_hw):
        del image_size_hw
        score = tf.reduce_mean(images) * tf.cast(weight, tf.float32)
        ones = tf.ones([1, 1])
        return Detections(
            tf.ones([1, 1, 4]), tf.ones([1, 1], tf.int32), ones * score, ones > 0.0, None
        )

    with pytest.raises(ValueError, match=r"half precision.*--quantize=float16"):
        graph.Graph(detect, preprocessor(), SIZE)


def test_operations_that_a_runtime_does_not_have_are_named(tmp_path):
    finder = Finder()

    def detect(images, image_size_hw):
        found = finder(images, image_size_hw)
        return found._replace(scores=tf.math.betainc(found.scores, 2.0, found.scores))

    with pytest.raises(ValueError, match="LiteRT cannot express this network.*Betainc"):
        export(tmp_path, detect=detect)
    assert not os.path.exists(tmp_path / "model.tflite")


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> pathlib.Path:
    """A run's folder: a tiny Mask R-CNN, its fields and its label map."""
    folder = tmp_path_factory.mktemp("run")
    experiment = maskrcnn()
    experiment.task.model = tiny_network.config("group_norm")
    for data in (experiment.task.train_data, experiment.task.validation_data):
        data.short_edges, data.long_edge = (64,), 96
    network = tiny_network.build_network(experiment.task.model)
    tf.train.Checkpoint(model=network).save(str(folder / "ckpt"))
    loading.save(experiment, str(folder / "params.yaml"))
    labels = LabelMap((1, 2, 3), ("a", "b", "c"))
    (folder / schema.LABEL_MAP_FILE).write_text(labels.to_json())
    return folder


def command(module: str, *arguments: str, without: tuple[str, ...] = ()):
    """Run a command where some packages cannot be imported."""
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({without!r})); "
        f"sys.argv[0] = {module!r}; from mrcnn_tf import {module}; {module}.run_main()"
    )
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def exported(run, tmp_path_factory) -> pathlib.Path:
    """The folder that the command wrote."""
    folder = tmp_path_factory.mktemp("exported")
    done = command(
        "export",
        "--format=litert",
        "--input_size=64,96",
        f"--experiment={run}/params.yaml",
        f"--checkpoint_path={run}",
        f"--export_dir={folder}",
        "--max_instances=4",
        "--score_threshold=0.2",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "100.0% of what it and the Python model find agree" in done.stdout
    return folder


@pytest.mark.slow
def test_predict_runs_a_file_without_tensorflow(exported, tmp_path):
    Image.fromarray(PICTURES[0]).save(tmp_path / "a.png")
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no more")
    done = command(
        "predict",
        f"--model={exported}/model.tflite",
        f"--input={tmp_path}",
        f"--output_dir={tmp_path / 'found'}",
        "--threads=1",
        without=("tensorflow", "tf_keras", "official"),
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert "FAILED broken.jpg" in done.stdout
    rows = json.loads((tmp_path / "found" / "detections.json").read_text())
    assert 1 <= len(rows) <= 4  # --max_instances
    assert {row["image_id"] for row in rows} == {"a.png"}
    assert all(row["segmentation"]["size"] == [60, 120] for row in rows)
    assert min(row["score"] for row in rows) > 0.2
    network = device.load(str(exported / "model.tflite"))
    found = device.find(network, PICTURES[0])
    assert [row["score"] for row in rows] == [round(one.score, 6) for one in found]
    with Image.open(tmp_path / "found" / "drawn" / "a.png") as drawn:
        assert drawn.size == (480, 240)  # small pictures are enlarged


@pytest.mark.slow
def test_the_folder_alone_runs_on_a_device(exported, tmp_path):
    shutil.copytree(exported, tmp_path / "device")
    Image.fromarray(PICTURES[0]).save(tmp_path / "device" / "a.png")
    code = (
        "import runpy, sys; sys.modules.update(tensorflow=None, mrcnn_tf=None, pycocotools=None); "
        "sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", code, "detect.py", "model.tflite", "a.png", "--output=b.png"],
        cwd=tmp_path / "device",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert rows
    assert all(row["category"] in "abc" and row["score"] >= 0.5 for row in rows)
    with Image.open(tmp_path / "device" / "b.png") as drawn:
        assert drawn.size == (120, 60)


WRONG_FLAGS = [
    (["--quantize=float16"], "--quantize needs --format=litert"),
    (["--format=litert"], "--input_size: nothing: give the height and the width"),
    (["--format=litert", "--input_size=320"], "--input_size: 320: give the height"),
    (["--format=litert", "--input_size=320,300"], "multiples of 32"),
    (["--format=litert", "--input_size=64,96", "--score_threshold=2"], "[0.0, 1.0]"),
    (["--format=litert", "--input_size=64,96", "--records=no/*"], "no record file matches"),
    (
        ["--format=litert", "--input_size=64,96", "--input_type=tf_example"],
        "is for SavedModels, not for --format=litert",
    ),
    (
        [
            "--format=litert",
            "--input_size=64,96",
            "--max_instances=3",
            "--params_override=task.model.max_instances=5",
        ],
        "contradict each other",
    ),
]


def test_flags_that_do_not_go_together_are_refused(run, tmp_path):
    common = [f"--experiment={run}/params.yaml", f"--checkpoint_path={run}"]
    flags = [[*common, f"--export_dir={tmp_path}", *arguments] for arguments, _ in WRONG_FLAGS]
    script = [sys.executable, "-m", "tests.end_to_end.commands_script", "export", json.dumps(flags)]
    done = subprocess.run(script, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    for (arguments, message), answer in zip(WRONG_FLAGS, answers, strict=True):
        assert answer["code"] == 1, arguments
        assert message in answer["out"]
    assert os.listdir(tmp_path) == []


def test_one_network_is_asked_for(tmp_path):
    done = command("predict", f"--input={tmp_path}", f"--output_dir={tmp_path}")
    assert done.returncode == 2
    assert "give one of --saved_model=FOLDER, --model=FILE" in done.stdout


@pytest.mark.slow
def test_an_onnx_file_of_a_whole_network(run, tmp_path):
    pytest.importorskip("tf2onnx", reason="an extra: requirements-onnx.txt")
    done = command(
        "export",
        "--format=onnx",
        "--input_size=64,96",
        f"--experiment={run}/params.yaml",
        f"--checkpoint_path={run}",
        f"--export_dir={tmp_path}",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "100.0% of what it and the Python model find agree" in done.stdout
