import dataclasses
import json
import pathlib
import subprocess
import sys
import threading

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from mrcnn_tf import checkpoints
from mrcnn_tf.data import schema
from mrcnn_tf.data.label_map import LabelMap
from mrcnn_tf.evaluation import coco
from mrcnn_tf.experiment import fields, inputs, label_maps, loading
from mrcnn_tf.experiment.experiment import Task, maskrcnn
from mrcnn_tf.modeling import metrics as metrics_lib
from mrcnn_tf.training import decay, divergence
from mrcnn_tf.training import task as task_lib
from tests import tiny_network
from tests.tiny_network import EMPTY, NUM_CLASSES, TWO_OBJECTS, WITH_CROWD

Task = Task
LOSSES = ("rpn_class_loss", "rpn_box_loss", "class_loss", "box_loss", "mask_loss")
REPOSITORY = pathlib.Path(__file__).resolve().parents[2]


def build_task(norm="frozen_batch_norm", weight_decay=task_lib.NO_DECAY, **fields):
    config = Task(model=tiny_network.config(norm=norm), **fields)
    return task_lib.MaskRCNNTask(config, weight_decay=weight_decay)


@pytest.fixture(scope="module")
def grouped():
    """A network whose norms learn, so that there is something weight decay must leave alone."""
    return tiny_network.build_network(tiny_network.config(norm="group_norm"))


@pytest.fixture(scope="module")
def images():
    return tiny_network.batch([TWO_OBJECTS, EMPTY])


def copies(model):
    return [variable.numpy() for variable in model.trainable_variables]


def test_one_step_is_sgd_with_decay_on_all_but_norms(grouped, images):
    """new = old - rate * (gradient + decay * old), by hand from the gradient without decay.

    Of biases with a decay of their own, and at a multiple of the rate.
    """
    rate, rule = 0.5, decay.Decay(kernels=0.125, biases=0.03, bias_factor=2.0)
    optimizer = tf_keras.optimizers.SGD(rate)
    before = copies(grouped)
    *_, gradients = build_task("group_norm").forward_backward(images, grouped, optimizer)
    logs = build_task("group_norm", rule).train_step(images, grouped, optimizer)
    kinds = set()
    rows = zip(grouped.trainable_variables, before, gradients, strict=True)
    for variable, old, gradient in rows:
        is_norm = "norm" in variable.name or "gamma" in variable.name
        kinds.add((variable.name.split("/")[-1], is_norm))
        is_bias = "bias" in variable.name
        rate_here = rate * (2.0 if is_bias else 1.0)
        decay_here = 0.0 if is_norm else 0.03 if is_bias else 0.125
        want = old - rate_here * (gradient.numpy() + decay_here * old)
        np.testing.assert_allclose(variable.numpy(), want, rtol=1e-5, atol=1e-6)
        variable.assign(old)
    assert kinds == {
        ("kernel:0", False),
        ("bias:0", False),
        ("predictor_kernel:0", False),
        ("predictor_bias:0", False),
        ("gamma:0", True),
        ("beta:0", True),
    }
    assert set(logs) == {"loss"}
    assert int(optimizer.iterations) == 1


def test_momentum_sees_the_decay(grouped, images):
    """Coupled, as in Caffe2 and PyTorch: v = 0.9 v + (g + decay w); w -= rate v."""
    optimizer = tf_keras.optimizers.SGD(0.01, momentum=0.9)
    task, plain = build_task("group_norm", decay.Decay(0.1)), build_task("group_norm")
    i = next(i for i, v in enumerate(grouped.trainable_variables) if "class_logits" in v.name)
    variable, start = grouped.trainable_variables[i], copies(grouped)
    want, velocity = start[i], 0.0
    for _ in range(2):
        gradient = plain.forward_backward(images, grouped, optimizer)[-1][i].numpy()
        velocity = 0.9 * velocity + gradient + 0.1 * want
        want = want - 0.01 * velocity
        task.train_step(images, grouped, optimizer)
        np.testing.assert_allclose(variable.numpy(), want, rtol=1e-4, atol=1e-6)
    for v, value in zip(grouped.trainable_variables, start, strict=True):
        v.assign(value)


def test_step_reports_every_loss_and_metric(grouped, images):
    task = build_task("group_norm")
    metrics = task.build_metrics(training=True)
    names = [
        *LOSSES,
        *metrics_lib.OF_RPN,
        *metrics_lib.OF_BOXES,
        "dropped_objects",
        "dropped_masks",
    ]
    assert [m.name for m in metrics] == names
    start = copies(grouped)
    loss = task.train_step(images, grouped, tf_keras.optimizers.SGD(1e-3), metrics)["loss"]
    numbers = {m.name: float(m.result()) for m in metrics}
    assert sum(numbers[name] for name in LOSSES) == pytest.approx(float(loss), rel=1e-5)
    assert all(numbers[name] > 0 for name in LOSSES)
    for variable, value in zip(grouped.trainable_variables, start, strict=True):
        variable.assign(value)


def test_a_step_without_positives_does_not_lower_the_recall(grouped, images):
    """The second batch has no objects: what there is to find was in the first one."""
    task = build_task("group_norm")
    metrics = {m.name: m for m in task.build_metrics(training=True)}
    still = tf_keras.optimizers.SGD(0.0)
    task.train_step(tiny_network.batch([TWO_OBJECTS]), grouped, still, list(metrics.values()))
    first = {name: float(m.result()) for name, m in metrics.items()}
    assert first["positive_class_accuracy"] > 0
    assert first["rpn_recall"] > 0
    task.train_step(tiny_network.batch([EMPTY]), grouped, still, list(metrics.values()))
    second = {name: float(m.result()) for name, m in metrics.items()}
    for name in ("positive_class_accuracy", "rpn_recall"):
        assert second[name] == pytest.approx(first[name], abs=1e-6), name
    for name in ("positive_anchors", "positive_rois"):  # per image, of which there are now two
        assert second[name] == pytest.approx(first[name] / 2), name


def test_what_is_dropped_is_summed(grouped, images):
    task = build_task("group_norm")
    metrics = task.build_metrics(training=True)
    counts = {
        schema.NUM_DROPPED_OBJECTS: tf.constant([3, 4]),
        schema.NUM_DROPPED_MASKS: tf.constant([1, 0]),
    }
    for _ in range(2):
        task.train_step(images | counts, grouped, tf_keras.optimizers.SGD(0.0), metrics)
    numbers = {m.name: float(m.result()) for m in metrics}
    assert numbers["dropped_objects"] == 14
    assert numbers["dropped_masks"] == 2


def test_a_loss_that_is_not_finite_is_remembered(images):
    """A NaN weight of the mask head: only that term and the images of that step are named."""
    model = tiny_network.build_network()
    task = build_task()
    task.first_divergence = divergence.FirstDivergence(LOSSES, len(images["image"]))
    optimizer = tf_keras.optimizers.SGD(0.0)
    strategy = tf.distribute.get_strategy()
    task.train_step(images, model, optimizer)
    assert task.first_divergence.describe(strategy) == ""
    kernel = next(v for v in model.trainable_variables if "mask" in v.name and "bias" not in v.name)
    kernel.assign(kernel * float("nan"))
    task.train_step(images, model, optimizer)
    task.train_step(tiny_network.batch([WITH_CROWD, EMPTY]), model, optimizer)
    assert task.first_divergence.describe(strategy) == (
        "not finite at step 2: mask_loss; images 1001, 7"
    )


def test_loss_scaling_leaves_the_gradients_alone(grouped, images):
    task = build_task("group_norm", decay.Decay(0.1))
    plain = tf_keras.optimizers.SGD(0.1)
    scaled = tf_keras.mixed_precision.LossScaleOptimizer(
        tf_keras.optimizers.SGD(0.1), dynamic=False, initial_scale=1024.0
    )
    terms, _, want = task.forward_backward(images, grouped, plain)
    scaled_terms, _, got = task.forward_backward(images, grouped, scaled)
    assert float(scaled_terms["loss"]) == pytest.approx(float(terms["loss"]))
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_a_variable_without_a_gradient_is_named(grouped, images):
    model = tiny_network.build_network()
    model.forgotten = tf.Variable([1.0], name="forgotten")
    with pytest.raises(ValueError, match="forgotten:0 gets no gradient"):
        build_task().train_step(images, model, tf_keras.optimizers.SGD(0.1))


@pytest.mark.slow
def test_compiled_step_is_the_uncompiled_one(grouped, images):
    optimizer = tf_keras.optimizers.SGD(0.1)
    compiled_model = tiny_network.build_network(tiny_network.config(norm="group_norm"))
    compiled = task_lib.MaskRCNNTask(
        Task(model=tiny_network.config(norm="group_norm")), decay.Decay(0.1), enable_xla=True
    )
    terms, watched, gradients = compiled.forward_backward(images, compiled_model, optimizer)
    task = build_task("group_norm", decay.Decay(0.1))
    want_terms, want_watched, want = task.forward_backward(images, grouped, optimizer)
    for name, value in (want_terms | want_watched).items():
        np.testing.assert_allclose((terms | watched)[name], value, rtol=1e-4, err_msg=name)
    largest = max(np.abs(g).max() for g in want)
    for a, b in zip(gradients, want, strict=True):
        assert np.abs(a - b).max() <= 1e-4 * largest


def replicas(mode, case, norm):
    finished = subprocess.run(
        [sys.executable, "-m", "tests.training.replicas_script", mode, case, norm],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
    )
    assert finished.returncode == 0, finished.stderr[-3000:]
    return json.loads(finished.stdout.splitlines()[-1])


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    ("mode", "case", "norm"),
    [
        ("eager", "square", "frozen_batch_norm"),
        pytest.param("graph", "parts", "frozen_batch_norm", marks=SLOW),
        pytest.param("compiled", "parts", "frozen_batch_norm", marks=SLOW),
        pytest.param("eager", "landscape", "frozen_batch_norm", marks=SLOW),
        pytest.param("eager", "portrait", "frozen_batch_norm", marks=SLOW),
        pytest.param("graph", "square", "frozen_batch_norm", marks=SLOW),
        pytest.param("compiled", "square", "frozen_batch_norm", marks=SLOW),
        pytest.param("compiled", "landscape", "frozen_batch_norm", marks=SLOW),
        pytest.param("compiled", "square", "sync_batch_norm", marks=SLOW),
        pytest.param("compiled", "portrait", "frozen_batch_norm", marks=SLOW),
        pytest.param("eager", "landscape", "sync_batch_norm", marks=SLOW),
        pytest.param("graph", "portrait", "sync_batch_norm", marks=SLOW),
    ],
)
def test_two_replicas_with_an_image_each_train_as_one_with_both(mode, case, norm):
    """One of the images has no objects, so that averaging per replica would show."""
    compared = replicas(mode, case, norm)
    of_first_step = {k: v for found in compared.values() for k, v in found["one"][0].items()}
    assert all(of_first_step[name] > 0 for name in (*LOSSES, "positive_anchors"))
    for found in compared.values():
        for one, two in zip(found["one"], found["two"], strict=True):
            assert two == pytest.approx(one, rel=1e-5)
        assert found["one"][0]["loss"] != found["one"][1]["loss"]
        assert found["weights"] < 1e-5
        assert found["statistics"] < 1e-5


def test_validation_feeds_the_evaluator(tmp_path):
    """Detections and what places them reach COCO's numbers; a filler does no harm."""
    names = ("red", "green", "blue")
    annotations = {
        "images": [
            {"id": p.key, "height": p.size_hw[0], "width": p.size_hw[1]}
            for p in (TWO_OBJECTS, WITH_CROWD)
        ],
        "categories": [{"id": i + 1, "name": name} for i, name in enumerate(names)],
        "annotations": [
            {
                "id": 7,
                "image_id": TWO_OBJECTS.key,
                "category_id": 3,
                "bbox": [24, 30, 38, 28],
                "area": 38 * 28,
                "iscrowd": 0,
                "segmentation": [[24, 30, 62, 30, 62, 58, 24, 58]],
            }
        ],
    }
    (tmp_path / "labels.json").write_text(json.dumps(annotations))
    (tmp_path / schema.LABEL_MAP_FILE).write_text(LabelMap((1, 2, 3), names).to_json())
    task = build_task(
        validation_data=fields.Data(input_path=str(tmp_path / "val-*")),
        annotation_file=str(tmp_path / "labels.json"),
    )
    assert task.label_map.names == names
    batch = tiny_network.batch([TWO_OBJECTS, WITH_CROWD, EMPTY])
    batch[schema.SOURCE_ID] *= tf.constant([[1], [1], [0]], tf.uint8)  # the last one is a filler
    metrics = task.build_metrics(training=False)
    model = tiny_network.build_network()
    logs = task.validation_step(batch, model, metrics)
    *terms, total = metrics
    assert float(total.result()) == pytest.approx(sum(float(m.result()) for m in terms))
    state = task.aggregate_logs(None, tf.nest.map_structure(lambda t: (t,), logs))
    numbers = task.reduce_aggregated_logs(state)
    assert -1 <= numbers["mask_ap"] <= 1
    assert numbers["box_ap/red"] == -1  # nothing of it to find
    assert "blue" in task.evaluation_table
    assert "2 images, 10 detections" in task.evaluation_table
    # The same evaluator scores the next time, and has forgotten the first.
    state = task.aggregate_logs(None, tf.nest.map_structure(lambda t: (t,), logs))
    assert task.reduce_aggregated_logs(state) == numbers


def scored_task(folder, image_ids=(1, 2, 3)):
    """A task that scores against images without objects."""
    path = folder / "instances.json"
    images = [{"id": i, "height": 64, "width": 64} for i in image_ids]
    categories = [{"id": k, "name": f"class {k}"} for k in range(1, NUM_CLASSES)]
    path.write_text(json.dumps({"images": images, "annotations": [], "categories": categories}))
    return build_task(annotation_file=str(path), allow_image_summary=False)


def found_in(image_id, score=0.5):
    """What a validation step says of one image: a box and its mask."""
    source_id = np.zeros([1, schema.SOURCE_ID_BYTES], np.uint8)
    source_id[0, 0] = ord(str(image_id))
    return {
        key: (tf.constant(value),)
        for key, value in {
            schema.SOURCE_ID: source_id,
            schema.IMAGE_SIZE_HW: np.float32([[64, 64]]),
            schema.ORIGINAL_SIZE_HW: np.float32([[64, 64]]),
            "boxes": np.float32([[[10, 10, 30, 40]]]),
            "classes": np.int32([[1]]),
            "scores": np.float32([[score]]),
            "valid": np.array([[True]]),
            "masks": np.ones([1, 1, 14, 14], np.float32),
        }.items()
    }


def test_the_network_goes_on_while_detections_are_taken_down(tmp_path, monkeypatch):
    task = scored_task(tmp_path)
    may_go_on = threading.Event()
    add = coco.CocoEvaluator.add
    monkeypatch.setattr(
        coco.CocoEvaluator, "add", lambda *a, **k: may_go_on.wait(60) and add(*a, **k)
    )
    state = task.aggregate_logs(None, found_in(1))  # returns although nothing can be added yet
    assert state.num_added == 0
    may_go_on.set()
    for image_id in (3, 2):
        assert task.aggregate_logs(state, found_in(image_id)) is state
    task.reduce_aggregated_logs(state)
    assert [row["image_id"] for row in state.results()] == [1, 3, 2]


def test_what_cannot_be_scored_ends_the_evaluation_with_its_image(tmp_path):
    task = scored_task(tmp_path)
    state = task.aggregate_logs(None, found_in(2, score=np.nan))
    with pytest.raises(ValueError, match="image 2: a detection's box or score is not finite"):
        task.aggregate_logs(state, found_in(1))
    state = task.aggregate_logs(None, found_in(9))  # of the last batch: at the end
    with pytest.raises(ValueError, match="image '9' is not in the ground truth"):
        task.reduce_aggregated_logs(state)


def test_a_stopped_evaluation_leaves_nothing_to_the_next(tmp_path):
    task = scored_task(tmp_path)
    threads = threading.active_count()
    task.aggregate_logs(None, found_in(2, score=np.nan))  # its error is nobody's any more
    state = task.aggregate_logs(None, found_in(1))
    task.reduce_aggregated_logs(state)
    assert [row["image_id"] for row in state.results()] == [1]
    assert threading.active_count() == threads


@pytest.mark.parametrize(("max_instances", "cap"), [(20, 100), (150, 150)])
def test_max_instances_moves_the_cap_of_scoring(tmp_path, max_instances, cap):
    """Below COCO's 100 the numbers keep COCO's names: fewer detections never reach the cap."""
    path = tmp_path / "instances.json"
    image = {"id": 1, "height": 9, "width": 9}
    categories = [{"id": k, "name": f"class {k}"} for k in range(1, NUM_CLASSES)]
    path.write_text(json.dumps({"images": [image], "annotations": [], "categories": categories}))
    task = build_task(annotation_file=str(path))
    task.task_config.model.max_instances = max_instances
    state = task.aggregate_logs(None, {schema.SOURCE_ID: ()})
    assert f"mask_ar{cap}" in task.reduce_aggregated_logs(state)


FILLER = tiny_network.Image((1, 1), [], key=0)


def validation_losses(task, model, batches):
    """{name: number} after a set of images; `FILLER` is what fills up the last batch."""
    metrics = task.build_metrics(training=False)
    for images in batches:
        batch = tiny_network.batch(images)
        is_real = np.array([[image is not FILLER] for image in images], np.uint8)
        batch[schema.SOURCE_ID] *= is_real
        assert "loss" not in task.validation_step(batch, model, metrics)
    return {m.name: float(m.result()) for m in metrics}


@pytest.mark.parametrize("normalizer", ["sampled", "anchors_per_image"])
def test_validation_loss_does_not_depend_on_how_the_images_are_batched(normalizer):
    """Images with unlike numbers of objects, so that a mean over batches would show."""
    config = Task(model=tiny_network.config())
    config.model.rpn.loss_normalizer = normalizer
    task = task_lib.MaskRCNNTask(config)
    model = tiny_network.build_network(config.model)
    a, b, c = TWO_OBJECTS, EMPTY, WITH_CROWD
    want = validation_losses(task, model, [[a, b, c]])
    assert all(value > 0 for value in want.values())
    assert want["validation_loss"] == pytest.approx(sum(want[n] for n in LOSSES))
    for batches in ([[a, b], [c, FILLER]], [[a], [b], [c]], [[c, b], [FILLER, FILLER], [a]]):
        assert validation_losses(task, model, batches) == pytest.approx(want, rel=1e-5)


@pytest.mark.parametrize("has_loss", [True, False])
def test_a_validation_step_runs_the_backbone_once(monkeypatch, has_loss):
    config = Task(model=tiny_network.config(), validation_loss=has_loss)
    task, model = task_lib.MaskRCNNTask(config), tiny_network.build_network(config.model)
    batch = tiny_network.batch([TWO_OBJECTS])
    want = model.infer(batch)
    calls, features = [], model.features
    monkeypatch.setattr(model, "features", lambda *a, **k: calls.append(a) or features(*a, **k))
    metrics = task.build_metrics(training=False)
    found = task.validation_step(batch, model, metrics)
    assert len(calls) == 1
    np.testing.assert_array_equal(found["boxes"], want.boxes)
    np.testing.assert_array_equal(found["masks"], want.masks)
    names = [*LOSSES, "validation_loss"] if has_loss else []
    assert [metric.name for metric in metrics] == names
    assert all(float(metric.result()) > 0 for metric in metrics)


@pytest.mark.slow
def test_compiled_validation_is_the_uncompiled_one():
    batches = [[TWO_OBJECTS, WITH_CROWD], [EMPTY, FILLER]]
    config = Task(model=tiny_network.config())
    numbers = [
        validation_losses(
            task_lib.MaskRCNNTask(config, enable_xla=enable_xla),
            tiny_network.build_network(),
            batches,
        )
        for enable_xla in (False, True)
    ]
    assert numbers[1] == pytest.approx(numbers[0], rel=1e-4)


@pytest.mark.parametrize(
    ("given", "replicas", "want"),
    [
        ({}, 1, 2),
        ({}, 8, 16),
        ({"images_per_replica": 3}, 2, 6),
        ({"global_batch_size": 8}, 1, 8),
        ({"global_batch_size": 8, "images_per_replica": 3}, 4, 8),
    ],
)
def test_batch_size(given, replicas, want):
    assert inputs.batch_size(fields.Data(**given, is_training=True), replicas) == want


def test_batch_size_that_does_not_divide():
    with pytest.raises(
        ValueError, match=r"global_batch_size: 8 images do not divide among 3 .*Make it 6"
    ):
        inputs.batch_size(fields.Data(global_batch_size=8, is_training=True), 3)


@pytest.mark.parametrize("replicas", range(1, 17))
def test_any_number_of_replicas_shares_a_validation_batch(replicas):
    size = inputs.batch_size(fields.Data(global_batch_size=8, is_training=False), replicas)
    assert size % replicas == 0
    assert 8 <= size < 8 + replicas


def config_of(folder, num_classes):
    return Task(
        model=fields.Model(num_classes=num_classes),
        train_data=fields.Data(input_path=str(folder / "train-*"), is_training=True),
    )


def test_jitter_reaches_the_pipeline_of_training_only(monkeypatch):
    experiment = loading.load(
        "maskrcnn_r50_fpn_lsj",
        params_override="task.model.num_classes=3,task.train_data.color_jitter.hue=0.1",
    )
    seen = []
    monkeypatch.setattr(inputs.pipeline, "build", lambda pattern, **kwargs: seen.append(kwargs))
    experiment.task.allow_image_summary = False  # nothing is drawn of no data
    task = task_lib.MaskRCNNTask(experiment.task)
    task.build_inputs(experiment.task.train_data)
    task.build_inputs(experiment.task.validation_data)
    train, validation = seen
    assert train["scale_jitter"] == (0.1, 2.0)
    assert train["color_jitter"] == (0.0, 0.0, 0.0, 0.1)
    assert train["canvas_sizes"] == ((1024, 1024),)
    assert validation["scale_jitter"] == ()
    assert not any(validation["color_jitter"])
    assert (800, 1344) in validation["canvas_sizes"]


def test_resumed_run_goes_on_in_the_order_of_the_run(monkeypatch):
    seen = []
    monkeypatch.setattr(inputs.pipeline, "build", lambda pattern, **kwargs: seen.append(kwargs))
    data = fields.Data(seed=3, input_path="x")
    task = build_task(train_data=data)
    task.build_inputs(data)
    task.build_inputs(data, first_step=40)
    assert [(k["seed"], k["first_step"]) for k in seen] == [(3, 0), (3, 40)]


def test_label_map_is_read_from_beside_the_records(tmp_path):
    label_map = LabelMap((17, 90), ("cat", "mug"))
    (tmp_path / schema.LABEL_MAP_FILE).write_text(label_map.to_json())
    assert label_maps.of_experiment(config_of(tmp_path, 0)) == label_map
    assert label_maps.of_experiment(config_of(tmp_path, 3)) == label_map
    with pytest.raises(ValueError, match=r"num_classes is 81.*has 2 categories.*must be 3"):
        label_maps.of_experiment(config_of(tmp_path, 81))


def test_label_map_of_the_validation_records_serves_too(tmp_path):
    label_map = LabelMap((5,), ("dog",))
    (tmp_path / schema.LABEL_MAP_FILE).write_text(label_map.to_json())
    config = Task(validation_data=fields.Data(input_path=str(tmp_path / "val-*")))
    assert label_maps.of_experiment(config) == label_map


def test_without_label_map_the_number_of_classes_must_be_given(tmp_path):
    label_map = label_maps.of_experiment(config_of(tmp_path, 3))
    assert label_map == LabelMap((1, 2), ("class 1", "class 2"))
    with pytest.raises(ValueError, match=r"(?s)no label_map.json in .*create_coco_tfrecord.py"):
        label_maps.of_experiment(config_of(tmp_path, 0))


def test_annotation_file_names_the_classes_of_records_without_a_label_map(tmp_path):
    """As Model Garden's converter writes them."""
    path = tmp_path / "instances.json"
    categories = [{"id": 90, "name": "mug"}, {"id": 17, "name": "cat", "supercategory": "animal"}]
    path.write_text(json.dumps({"images": [], "annotations": [], "categories": categories}))
    config = config_of(tmp_path, 0)
    config.annotation_file = str(path)
    assert label_maps.of_experiment(config) == LabelMap((17, 90), ("cat", "mug"))
    config.model.num_classes = 91
    with pytest.raises(ValueError, match=rf"num_classes is 91.*{path} has 2 categories"):
        label_maps.of_experiment(config)
    path.write_text('{"images": []}')
    with pytest.raises(ValueError, match=rf"{path}: not a COCO annotation file: .*images"):
        label_maps.of_experiment(config)
    # What lies beside the records is what they were made with.
    (tmp_path / schema.LABEL_MAP_FILE).write_text(LabelMap((5,), ("dog",)).to_json())
    assert label_maps.of_experiment(config_of(tmp_path, 0)).names == ("dog",)


def test_broken_label_map_is_named(tmp_path):
    (tmp_path / schema.LABEL_MAP_FILE).write_text("{}")
    with pytest.raises(ValueError, match=r"label_map.json: not a label map"):
        label_maps.of_experiment(config_of(tmp_path, 0))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A run's folder with a checkpoint as the trainer writes it, and the model it holds."""
    folder = tmp_path_factory.mktemp("run")
    model = tiny_network.build_network()
    whole = tf.train.Checkpoint(
        model=model, optimizer=tf_keras.optimizers.SGD(), global_step=tf.Variable(7)
    )
    manager = tf.train.CheckpointManager(whole, folder, max_to_keep=2, checkpoint_name="ckpt")
    return manager.save(), folder, model


def test_checkpoint_is_loaded_from_its_file_or_its_folder(checkpoint):
    path, folder, saved = checkpoint
    for given in (path, str(folder)):
        model = build_task().build_model()
        assert np.any(model.rpn.head.convs[0].kernel != saved.rpn.head.convs[0].kernel)
        assert checkpoints.load(model, given) == path
        for a, b in zip(model.variables, saved.variables, strict=True):
            np.testing.assert_array_equal(a, b)


def test_init_checkpoint_wins_over_random_weights(checkpoint):
    path, _, saved = checkpoint
    task = build_task(init_checkpoint=path)
    model = task.build_model()
    task.initialize(model)
    np.testing.assert_array_equal(model.rpn.head.convs[0].kernel, saved.rpn.head.convs[0].kernel)


def test_missing_checkpoint_is_named(tmp_path):
    model = tf_keras.Sequential()
    for path in (tmp_path, tmp_path / "ckpt-9"):
        with pytest.raises(ValueError, match=f"no checkpoint: '{path}'"):
            checkpoints.load(model, str(path))


def test_checkpoint_of_another_network_is_refused(checkpoint):
    path, _, _ = checkpoint
    other = tiny_network.config()
    other.mask_head = dataclasses.replace(other.mask_head, conv_layers=3)
    with pytest.raises(ValueError, match=f"{path} does not fit this model"):
        checkpoints.load(tiny_network.build_network(other), path)


def test_checkpoint_of_another_number_of_classes_is_refused_with_the_shapes(checkpoint):
    path, _, _ = checkpoint
    config = Task(model=tiny_network.config())
    config.model.num_classes = NUM_CLASSES + 5
    model = task_lib.MaskRCNNTask(config).build_model()
    with pytest.raises(ValueError, match=f"{path} does not fit this model") as error:
        checkpoints.load(model, path)
    wrong = "roi_heads/box_head/box_deltas/bias: (12,) in the checkpoint, (32,) here"
    assert wrong in str(error.value)


def test_a_network_that_is_only_scored_may_know_more_classes_than_the_records(tmp_path):
    records = LabelMap((1, 3), ("person", "car"))
    (tmp_path / "label_map.json").write_text(records.to_json())
    data = fields.Data(input_path=str(tmp_path / "val-*.tfrecord"))
    config = Task(model=tiny_network.config(), validation_data=data)
    config.model.num_classes = 0
    theirs = LabelMap((1, 2, 3), ("person", "bicycle", "car"))
    assert task_lib.MaskRCNNTask(config).label_map == records
    task = task_lib.MaskRCNNTask(config, label_map=theirs)
    assert task.build_model().roi_heads.box_head.num_classes == 4


def test_same_seed_builds_the_same_weights():
    first, second, other = (
        build_task(seed=seed).build_model().rpn.head.convs[0].kernel.numpy() for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, second)
    assert np.any(first != other)


@pytest.mark.parametrize(
    ("optimizer", "decoupled", "want"),
    [
        ("sgd", False, decay.Decay(1e-4, 0.0, 2.0)),  # Detectron's defaults
        ("adam", False, decay.Decay(1e-4, 0.0, 1.0)),  # a larger gradient is no larger step there
        ("adamw", True, decay.Decay(0.0, 0.0, 1.0)),
    ],
)
def test_what_the_fields_say_of_decay(optimizer, decoupled, want):
    config = maskrcnn().trainer
    config.optimizer_config.optimizer.type = optimizer
    assert decay.of(config, decoupled) == want
