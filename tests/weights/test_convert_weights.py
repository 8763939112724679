"""The command: files in, a folder that every other command takes out; and refusals."""

import pathlib
import pickle
import subprocess
import sys
import types

import numpy as np
import pytest
import tensorflow as tf

from mrcnn_tf import convert_weights
from mrcnn_tf.data.label_map import LabelMap
from mrcnn_tf.detector import Detector
from mrcnn_tf.experiment import loading
from mrcnn_tf.modeling import build
from mrcnn_tf.weights import conversion, detectron2, files, fine_tune, torchvision
from tests.weights import foreign_shapes as foreign

SMALL = foreign.small()
SMALL_INPUT = (
    "task.validation_data.short_edges=[64],task.validation_data.long_edge=96,"
    "task.model.rpn.pre_nms_top_k_test=50,task.model.rpn.post_nms_top_k_test=20"
)


def write(tmp_path, shapes, name="weights.npz"):
    path = str(tmp_path / name)
    files.write(path, foreign.state_dict(shapes))
    return path


def read_label_map(folder):
    return LabelMap.from_json(pathlib.Path(folder, "label_map.json").read_text())


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    """A Detectron2 file of COCO's 80 classes: its path, the folder, the report."""
    folder = tmp_path_factory.mktemp("detectron2")
    path = str(folder / "model_final.pkl")
    state = foreign.state_dict(foreign.detectron2(SMALL)) | foreign.detectron2_buffers()
    files.write(path, state)
    output = str(folder / "mine")
    return path, output, conversion.import_weights("detectron2", path, output)


def test_the_report_accounts_for_every_tensor(converted):
    path, output, report = converted
    count = len(foreign.detectron2(SMALL))
    assert f"{count} tensors loaded" in report
    assert "2 tensors dropped: pixel statistics are configuration (pixel_mean, pixel_std)" in report
    assert "5 tensors dropped: anchors are configuration" in report
    assert "0 tensors missing" in report
    assert "converted in " in report
    assert f"--mode=eval --checkpoint_path={output}" in report
    text = pathlib.Path(output, "report.txt").read_text()
    for name in files.read(path):
        assert f"  {name}\n" in text


def test_names_of_classes_that_the_file_does_not_say_are_to_be_written(converted, tmp_path):
    path, output = write(tmp_path, foreign.detectron2(SMALL, classes=3)), str(tmp_path / "out")
    report = conversion.import_weights("detectron2", path, output)
    assert read_label_map(output).names == ("class 1", "class 2", "class 3")
    for text in (report, pathlib.Path(output, "report.txt").read_text()):
        assert "class 1, class 2, ... in label_map.json" in text
    assert "what its classes are called" not in converted[2]  # COCO's have names


def test_the_experiment_loads_again_and_holds_the_conventions(converted):
    _, output, _ = converted
    experiment = loading.load(f"{output}/params.yaml")
    assert experiment.task.validation_data.canvas == "exact"  # as both projects pad
    model = experiment.task.model
    assert experiment.task.name == "mine"
    assert experiment.task.init_checkpoint == output
    assert model.preset == "detectron2"
    assert (model.backbone.depth, model.backbone.base_width) == (18, 4)
    assert (model.fpn.channels, model.box_head.fc_channels, model.box_head.pool_size) == (8, 6, 2)
    label_map = read_label_map(output)
    assert label_map.num_classes == 81
    assert label_map.names[0] == "person"
    assert label_map.ids[-1] == 90


def test_the_detector_has_the_weights_of_the_file(converted):
    path, output, _ = converted
    loaded = Detector.load(f"{output}/params.yaml", output)
    direct = build.build_model(loading.load(f"{output}/params.yaml").task.model, 81)
    detectron2.load(direct, files.read(path))
    for got, want in zip(loaded.model.get_weights(), direct.get_weights(), strict=True):
        np.testing.assert_array_equal(got, want)


@pytest.mark.slow
def test_the_detector_detects(converted):
    _, output, _ = converted
    loaded = Detector.load(f"{output}/params.yaml", output, SMALL_INPUT)
    image = np.random.default_rng(0).integers(0, 255, [48, 64, 3], np.uint8)
    for detection in loaded([image])[0]:
        assert detection.category in loaded.label_map.names


def test_converting_twice_is_fine_but_not_between_the_checkpoints_of_a_run(converted, tmp_path):
    path, output, _ = converted
    conversion.import_weights("detectron2", path, output)
    tf.train.Checkpoint(step=tf.Variable(1)).save(str(tmp_path / "ckpt"))
    with pytest.raises(ValueError, match="holds checkpoints of a run .*ckpt-1"):
        conversion.import_weights("detectron2", path, str(tmp_path))


def test_torchvisions_classes_keep_their_ids(tmp_path):
    path = write(tmp_path, foreign.torchvision(SMALL, newer=True))
    output = str(tmp_path / "out")
    report = conversion.import_weights("torchvision", path, output)
    assert "norm epsilon 0" in report
    assert "background's box deltas and its mask, which are never used, are dropped" in report
    label_map = read_label_map(output)
    assert label_map.ids == tuple(range(1, 91))
    assert label_map.names[12] == "stop sign"
    assert loading.load(f"{output}/params.yaml").task.model.backbone.norm_epsilon == 0.0
    assert Detector.load(f"{output}/params.yaml", output).model.roi_heads.box_head.num_classes == 91


@pytest.mark.parametrize(
    ("source", "shapes", "said"),
    [
        ("detectron2", foreign.detectron2(SMALL, "rpn", "c4"), "RPN without RoI heads"),
        ("detectron2", foreign.detectron2(SMALL, "faster_rcnn", "c4", 3), "Faster R-CNN"),
        (
            "detectron2",
            foreign.detectron2(SMALL, classes=3, cascade=True),
            "regression weights 10/5, 20/10 and 30/15 of the three box heads",
        ),
        (
            "torchvision",
            foreign.torchvision(SMALL, "faster_rcnn", outputs=2, keypoints=17),
            "keypoints found lie half a pixel of the photo up and to the left",
        ),
    ],
)
def test_other_systems_are_whole_checkpoints(tmp_path, source, shapes, said):
    path, output = write(tmp_path, shapes), str(tmp_path / "out")
    report = conversion.import_weights(source, path, output)
    assert said in report
    experiment = loading.load(f"{output}/params.yaml")
    classes = shapes.get("roi_heads.box_predictor.cls_score.weight", (4,))[0]
    model = build.build_model(experiment.task.model, classes)
    {"detectron2": detectron2, "torchvision": torchvision}[source].load(model, files.read(path))
    want = model.get_weights()
    for variable in model.weights:
        variable.assign(tf.zeros_like(variable))
    tf.train.Checkpoint(model=model).read(f"{output}/ckpt-0").assert_existing_objects_matched()
    for got, expected in zip(model.get_weights(), want, strict=True):
        np.testing.assert_array_equal(got, expected)


def test_a_backbone_alone_starts_a_training(tmp_path):
    path, output = write(tmp_path, foreign.torchvision_backbone(SMALL)), str(tmp_path / "out")
    report = conversion.import_weights("torchvision", path, output)
    assert "2 tensors dropped: ImageNet's classifier" in report
    assert "--mode=eval" not in report
    assert not (tmp_path / "out" / "label_map.json").exists()
    model = build.build_model(loading.load(f"{output}/params.yaml").task.model, 4)
    said = fine_tune.load_what_fits(model, output, LabelMap((1, 2, 3), ("a", "b", "c")), None)
    assert "initialised afresh (not in the checkpoint): pyramid/lateral2" in said
    np.testing.assert_array_equal(
        model.backbone.stem.conv1.kernel, files.read(path)["conv1.weight"].transpose(2, 3, 1, 0)
    )


def overlay(tmp_path, text):
    path = tmp_path / "given.yaml"
    path.write_text(text)
    return str(path)


GIVEN = """
base: maskrcnn_r50_fpn
task:
  model:
    preset: torchvision
    num_classes: {num_classes}
    backbone: {{depth: 18, base_width: 4, norm_epsilon: {epsilon}, freeze_at: 0, norm: batch_norm}}
    fpn: {{channels: 8}}
    box_head: {{pool_size: 2, fc_channels: 6}}
    mask_head: {{conv_layers: 1, conv_channels: 8}}
"""


def test_against_an_experiment(tmp_path):
    path, output = write(tmp_path, foreign.torchvision(SMALL, outputs=4)), str(tmp_path / "out")
    given = overlay(tmp_path, GIVEN.format(num_classes=4, epsilon=0.0))
    report = conversion.import_weights("torchvision", path, output, given)
    assert "given has every convention of the weights; what differs is free:" in report
    assert "task.model.backbone.freeze_at: 0, the weights need 2" in report
    written = loading.load(f"{output}/params.yaml")
    assert written.task.model.backbone.norm == "batch_norm"
    assert written.task.init_checkpoint == output


def test_every_convention_that_differs_is_named_and_nothing_written(tmp_path):
    path, output = write(tmp_path, foreign.torchvision(SMALL, outputs=4)), tmp_path / "out"
    given = overlay(tmp_path, GIVEN.format(num_classes=4, epsilon=1e-5))
    with pytest.raises(ValueError, match="computes something else") as error:
        conversion.import_weights(
            "torchvision", path, str(output), given, "task.model.roi_align.aligned=true"
        )
    assert "task.model.backbone.norm_epsilon: 1e-05, the weights need 0.0" in str(error.value)
    assert "roi_align.aligned: True, the weights need False" not in str(error.value)  # overridden
    assert not output.exists()


def test_another_number_of_classes(tmp_path):
    path = write(tmp_path, foreign.detectron2(SMALL))
    given = overlay(
        tmp_path, GIVEN.format(num_classes=91, epsilon=1e-5).replace("torchvision", "detectron2")
    )
    with pytest.raises(ValueError, match="has 80 classes and background, the experiment 90 and b"):
        conversion.import_weights("detectron2", path, str(tmp_path / "out"), given)


def test_records_with_other_names(tmp_path):
    path = write(tmp_path, foreign.detectron2(SMALL))
    other = LabelMap(tuple(range(1, 81)), ("animal", *(f"class {i}" for i in range(2, 81))))
    (tmp_path / "label_map.json").write_text(other.to_json())
    text = GIVEN.format(num_classes=81, epsilon=1e-5).replace("torchvision", "detectron2")
    text += f"  train_data: {{input_path: {tmp_path}/train-*}}\n"
    with pytest.raises(ValueError, match="class 1 is 'person' in the file, 'animal' in the reco"):
        conversion.import_weights(
            "detectron2", path, str(tmp_path / "out"), overlay(tmp_path, text)
        )


@pytest.mark.parametrize(
    ("source", "shapes", "said"),
    [
        ("torchvision", foreign.detectron2(SMALL), "take --source=detectron2"),
        ("keras", foreign.torchvision_backbone(SMALL), "take --source=torchvision"),
        (
            "torchvision",
            foreign.torchvision(SMALL) | {"roi_heads.keypoint_head.0.weight": (1,)},
            "a keypoint head that is not Keypoint R-CNN's",
        ),
        (
            "torchvision",
            foreign.torchvision(SMALL) | {"surprise.weight": (1,)},
            "1 tensors unknown:\n  surprise.weight",
        ),
    ],
)
def test_wrong_files_are_refused_and_nothing_is_written(tmp_path, source, shapes, said):
    path = write(tmp_path, shapes)
    with pytest.raises(ValueError, match="weights.npz: ") as error:
        conversion.import_weights(source, path, str(tmp_path / "out"))
    assert said in str(error.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("target", "suffix", "shapes"),
    [
        ("detectron2", ".pkl", foreign.detectron2(SMALL)),
        ("detectron2", ".pkl", foreign.detectron2(SMALL, cascade=True)),
        ("torchvision", ".pth", foreign.torchvision(SMALL)),
    ],
    ids=["detectron2", "cascade", "torchvision"],
)
def test_the_way_back(tmp_path, target, suffix, shapes):
    source, output = write(tmp_path, shapes), str(tmp_path / "out")
    conversion.import_weights(target, source, output)
    back = str(tmp_path / f"back{suffix}")
    said = conversion.export_weights(target, output, back)
    assert f"{len(shapes)} tensors in the names and layouts of {target}" in said
    assert "task.model.backbone.depth: 50, the weights need 18" in said
    written, original = files.read(back), files.read(source)
    assert written.keys() == original.keys()
    again = str(tmp_path / "again")
    conversion.import_weights(target, back, again)
    first, second = files.read(output), files.read(again)
    for name in first:
        np.testing.assert_array_equal(first[name], second[name], err_msg=name)


def test_weights_of_one_project_written_for_the_other(converted, tmp_path):
    _, output, _ = converted
    path = str(tmp_path / "state.npz")
    said = conversion.export_weights("torchvision", output, path)
    assert "torchvision gives the same answers only if set to what differs from its own:" in said
    assert "task.model.pixels.order: 'rgb', the weights need 'bgr'" in said
    model = Detector.load(f"{output}/params.yaml", output).model
    want = model.get_weights()
    torchvision.load(model, files.read(path))
    for got, expected in zip(model.get_weights(), want, strict=True):
        np.testing.assert_array_equal(got, expected)


def run(*arguments):
    """What a user types."""
    command = [sys.executable, "-m", "mrcnn_tf.convert_weights", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_the_command(tmp_path):
    path, output = write(tmp_path, foreign.torchvision(SMALL, outputs=4)), str(tmp_path / "out")
    done = run("--source=torchvision", f"--input={path}", f"--output={output}")
    assert done.returncode == 0, done.stderr
    assert "tensors loaded" in done.stdout
    neither = run(f"--input={path}", f"--output={output}")
    assert neither.returncode != 0
    assert "source" in neither.stderr
    assert "target" in neither.stderr


def test_a_run_of_detectron2_by_the_command(tmp_path):
    """Optimizer and iteration beside the weights, anchors and pixels of its own, one class."""
    state = foreign.state_dict(foreign.detectron2(SMALL, classes=1))
    state |= foreign.detectron2_buffers(
        (8, 16, 32, 64, 128), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)
    )
    momentum = {"state": {0: {"momentum_buffer": np.ones(3, np.float32)}}, "param_groups": []}
    path, output = tmp_path / "model_final.pkl", str(tmp_path / "out")
    path.write_bytes(pickle.dumps({"model": state, "optimizer": momentum, "iteration": 9}, 2))
    done = run("--source=detectron2", f"--input={path}", f"--output={output}")
    assert done.returncode == 0, done.stderr
    assert "1 class and background" in done.stdout
    assert "beside the weights, not read: optimizer, iteration" in done.stdout
    assert "anchors from the file: sizes 8, 16, 32, 64, 128, ratios 0.5, 1, 2" in done.stdout
    assert "in RGB, in which these are ImageNet's" in done.stdout
    model = loading.load(f"{output}/params.yaml").task.model
    assert tuple(model.rpn.anchor_sizes) == (8, 16, 32, 64, 128)
    assert model.pixels.order == "rgb"
    np.testing.assert_allclose(model.pixels.mean, (123.675, 116.28, 103.53), rtol=1e-6)
    np.testing.assert_allclose(model.pixels.std, (58.395, 57.12, 57.375), rtol=1e-6)
    assert read_label_map(output).num_classes == 2


@pytest.fixture(scope="module")
def averaged(tmp_path_factory):
    """Half precision, a prefix, and an average, which is twice the weights: path, weights."""
    state = foreign.state_dict(foreign.torchvision(SMALL, outputs=4))
    half = {name: tensor.astype(np.float16) for name, tensor in state.items()}
    model = {f"module.{name}": tensor for name, tensor in half.items()}
    average = {name: tensor * 2 for name, tensor in model.items()}
    path = tmp_path_factory.mktemp("averaged") / "a.pkl"
    path.write_bytes(pickle.dumps({"model": model, "model_ema": average, "epoch": 3}))
    return str(path), half


def test_half_precision_and_an_average(averaged, tmp_path):
    path, half = averaged
    name = "backbone.body.layer1.0.conv1.weight"
    want = half[name].astype(np.float32).transpose(2, 3, 1, 0)
    for wanted, factor in (("", 1), ("model_ema", 2)):
        folder = str(tmp_path / f"out{factor}")
        said = conversion.import_weights("torchvision", path, folder, weights=wanted)
        assert "names are read without 'module.'" in said
        assert f"{len(half)} tensors are float16, which become float32" in said
        block = Detector.load(f"{folder}/params.yaml", folder).model.backbone.stage2.blocks[0]
        np.testing.assert_array_equal(block.conv1.kernel, factor * want)
    with pytest.raises(
        ValueError, match="a.pkl: has no weights 'swa'; it has 'model', 'model_ema'"
    ):
        conversion.import_weights("torchvision", path, str(tmp_path / "none"), weights="swa")


@pytest.mark.slow
def test_half_precision_and_an_average_by_the_command(averaged, tmp_path):
    path, half = averaged
    first, second = str(tmp_path / "first"), str(tmp_path / "second")
    done = run("--source=torchvision", f"--input={path}", f"--output={first}")
    assert done.returncode == 0, done.stderr
    assert "'model_ema' not taken; --weights=model_ema takes them" in done.stdout
    assert "names are read without 'module.'" in done.stdout
    assert f"{len(half)} tensors are float16, which become float32" in done.stdout
    arguments = ("--source=torchvision", f"--input={path}", f"--output={second}")
    done = run(*arguments, "--weights=model_ema")
    assert done.returncode == 0, done.stderr
    assert "the running average in 'model_ema' taken" in done.stdout
    done = run(*arguments, "--weights=swa")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        f"error: {path}: has no weights 'swa'; it has 'model', 'model_ema'"
    )


@pytest.mark.slow
def test_a_pickle_that_means_harm_by_the_command(tmp_path):
    path = tmp_path / "evil.pth"
    path.write_bytes(b"\x80\x02cposix\nsystem\nX\x05\x00\x00\x00touch\x85R.")
    done = run("--source=detectron2", f"--input={path}", f"--output={tmp_path}/out")
    assert done.returncode == 1
    assert f"error: {path}: it asks for posix.system, and only tensors" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_an_override_that_contradicts_the_file_is_named(converted, tmp_path):
    path, _, _ = converted
    report = conversion.import_weights(
        "detectron2", path, str(tmp_path / "out"), None, "task.model.pixels.order=rgb"
    )
    assert "task.model.pixels.order is 'rgb', but the file says 'bgr'" in report


def test_an_experiment_with_other_anchors_than_the_files(tmp_path):
    path, output = str(tmp_path / "a.pkl"), tmp_path / "out"
    state = foreign.state_dict(foreign.detectron2(SMALL, classes=3))
    files.write(path, state | foreign.detectron2_buffers((8, 16, 32, 64, 128)))
    text = GIVEN.format(num_classes=4, epsilon=1e-5).replace("torchvision", "detectron2")
    with pytest.raises(ValueError, match="computes something else with these weights") as error:
        conversion.import_weights("detectron2", path, str(output), overlay(tmp_path, text))
    said = "rpn.anchor_sizes: [32.0, 64.0, 128.0, 256.0, 512.0], the weights need [8.0, 16.0"
    assert said in str(error.value)
    assert not output.exists()


def test_more_anchors_than_the_project_has(tmp_path):
    shapes = foreign.torchvision(SMALL, outputs=4)
    for name, rows in (("cls_logits", 5), ("bbox_pred", 20)):
        shapes |= {f"rpn.head.{name}.weight": (rows, 8, 1, 1), f"rpn.head.{name}.bias": (rows,)}
    path, output = write(tmp_path, shapes), str(tmp_path / "out")
    with pytest.raises(ValueError, match="5 anchors at every place, the experiment 3"):
        conversion.import_weights("torchvision", path, output)
    given = "task.model.rpn.anchor_ratios=[0.25,0.5,1.0,2.0,4.0]"
    conversion.import_weights("torchvision", path, output, None, given)
    assert len(loading.load(f"{output}/params.yaml").task.model.rpn.anchor_ratios) == 5


def test_a_folder_of_something_else_is_left_alone(converted, tmp_path):
    path, _, _ = converted
    (tmp_path / "params.yaml").write_text("task: {}\n")
    with pytest.raises(ValueError, match=r"holds the params.yaml of something else; choose anot"):
        conversion.import_weights("detectron2", path, str(tmp_path))
    assert (tmp_path / "params.yaml").read_text() == "task: {}\n"


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"source": "torchvision", "input": "no.pth"}, "error: no such file or checkpoint: no.pth"),
        ({"target": "torchvision", "input": "nowhere"}, "error: nowhere: there is no params.yaml"),
    ],
)
def test_a_mistake_is_one_sentence(tmp_path, monkeypatch, flags, said):
    defaults = {"source": None, "target": None, "experiment": None, "params_override": ""}
    defaults |= {"weights": ""}
    values = defaults | {"output": str(tmp_path / "out.npz")} | flags
    stub = types.SimpleNamespace(FLAGS=types.SimpleNamespace(**values))
    monkeypatch.setattr(convert_weights, "flags", stub)
    with pytest.raises(SystemExit, match=said):
        convert_weights.main(["convert_weights"])
