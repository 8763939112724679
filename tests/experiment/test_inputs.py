"""Every field of the data reaches the input pipeline, and every argument of that comes from one."""

import inspect

import pytest
import tensorflow as tf

from mrcnn_tf.data import augment, copy_paste, pipeline
from mrcnn_tf.data.label_map import LabelMap
from mrcnn_tf.experiment import fields, inputs
from mrcnn_tf.experiment.experiment import Task

LABEL_MAP = LabelMap((1, 2), ("cat", "mug"))
JITTER = augment.ColorJitter(0.0, 0.0, 0.0, 0.0)
# Of the data that train, else at their defaults: (fields, argument, what it is then).
OF_DATA = [
    ({"input_path": "other-*"}, "file_pattern", "other-*"),
    ({"is_training": False}, "is_training", False),
    ({"global_batch_size": 6}, "per_replica_batch_size", 6),
    ({"images_per_replica": 5}, "per_replica_batch_size", 5),
    ({"images_per_update": 8}, "per_replica_batch_size", 8),
    ({"short_edges": (640, 700)}, "short_edges", (640, 700)),
    ({"short_edges": (1333,)}, "canvas_sizes", ((1024, 1344), (1344, 1024), (1344, 1344))),
    ({"long_edge": 900}, "long_edge", 900),
    ({"canvas": "exact"}, "canvas_sizes", None),
    ({"flip_probability": 0.25}, "flip_probability", 0.25),
    ({"scale_jitter": (0.5, 1.5)}, "scale_jitter", (0.5, 1.5)),
    ({"scale_jitter": (0.5, 1.5), "long_edge": 96}, "canvas_sizes", ((96, 96),)),
    *(
        ({f"color_jitter.{name}": 0.1}, "color_jitter", JITTER._replace(**{name: 0.1}))
        for name in ("brightness", "contrast", "saturation", "hue")
    ),
    *(
        (
            {"copy_paste.probability": 0.25} | more,
            "pasting",
            copy_paste.CopyPaste(0.25, min_pixels, max_box_shift),
        )
        for more, min_pixels, max_box_shift in (
            ({}, 300, 10.0),
            ({"copy_paste.min_pixels": 7}, 7, 10.0),
            ({"copy_paste.max_box_shift": 2.5}, 300, 2.5),
        )
    ),
    ({"repeat_threshold": 0.125}, "repeat_threshold", 0.125),
    ({"mask_arena_pixels": 4096}, "mask_arena_pixels", 4096),
    ({"seed": 11}, "seed", 11),
    ({"skip_corrupt_records": 3}, "skip_corrupt_records", 3),
    (
        {
            "enable_tf_data_service": True,
            "tf_data_service_address": "grpc://host:5050",
            "tf_data_service_job_name": "mine",
        },
        "through",
        ("grpc://host:5050", "mine-now", 1, 0, 1),
    ),
]
# Read before there is a pipeline: by `sources.py`, by who opens the folder, by `preflight.py`.
NOT_OF_THE_PIPELINE = {
    *("tfds_name", "tfds_split", "tfds_data_dir"),
    *("proposals", "verify_records"),
}
OF_MODEL = [
    ({"pixels.resize": "torchvision"}, "resize_convention", "torchvision"),
    ({"pixels.order": "rgb"}, "channel_order", "rgb"),
    ({"pixels.mean": (1.0, 2.0, 3.0)}, "pixel_mean", (1.0, 2.0, 3.0)),
    ({"pixels.std": (4.0, 5.0, 6.0)}, "pixel_std", (4.0, 5.0, 6.0)),
    ({"max_instances": 7}, "max_instances", 7),
    ({"rpn.post_nms_top_k_train": 33}, "num_proposals", 33),
    ({"keypoint_head.num_keypoints": 17}, "num_keypoints", 17),
    ({"federated.classes_per_image": 50}, "include_lists", True),
]
PROPOSALS = object()
OF_CALL = [
    ({"first_step": 40}, "first_step", 40),
    ({"proposals": PROPOSALS}, "proposals", PROPOSALS),
    ({"label_map": LabelMap((3,), ("dog",))}, "label_map", LabelMap((3,), ("dog",))),
]
# The second of two machines with two GPUs each, two images on a GPU.
CONTEXT = tf.distribute.InputContext(2, 1, 4)
OF_CONTEXT = {
    "per_replica_batch_size": 2,
    "num_replicas": 2,
    "num_input_pipelines": 2,
    "input_pipeline_id": 1,
}


def set_fields(group, values):
    for path, value in values.items():
        *parents, name = path.split(".")
        here = group
        for parent in parents:
            here = getattr(here, parent)
        assert getattr(here, name) != value
        setattr(here, name, value)


@pytest.fixture
def built(monkeypatch):
    """Return the function that says with what the pipeline is built."""
    signature = inspect.signature(pipeline.build)
    seen = []
    monkeypatch.setattr(
        inputs.pipeline, "build", lambda *a, **k: seen.append(signature.bind(*a, **k).arguments)
    )

    def build(data=(), model=(), tta=(), **call):
        config = Task(train_data=fields.Data(input_path="x-*", is_training=True))
        set_fields(config.train_data, dict(data))
        set_fields(config.model, dict(model))
        set_fields(config.tta, dict(tta))
        arguments = {"label_map": LABEL_MAP, "start": "now"} | call
        label_map = arguments.pop("label_map")
        inputs.build(config, config.train_data, label_map, **arguments)
        return seen.pop()

    return build


@pytest.mark.parametrize(("data", "argument", "want"), OF_DATA)
def test_what_is_said_of_the_data(built, data, argument, want):
    assert built(data)[argument] == want
    assert built()[argument] != want


@pytest.mark.parametrize(("model", "argument", "want"), OF_MODEL)
def test_what_is_said_of_the_network(built, model, argument, want):
    assert built(model=model)[argument] == want
    assert built()[argument] != want


@pytest.mark.parametrize(("call", "argument", "want"), OF_CALL)
def test_what_a_run_says(built, call, argument, want):
    assert built(**call)[argument] == want
    assert built()[argument] != want


def test_which_of_the_pipelines_it_is(built):
    plain, second = built(), built(input_context=CONTEXT)
    assert {name: second[name] for name in OF_CONTEXT} == OF_CONTEXT
    assert {name: plain[name] for name in OF_CONTEXT} == {
        "per_replica_batch_size": 2,
        "num_replicas": 1,
        "num_input_pipelines": 1,
        "input_pipeline_id": 0,
    }
    through = {"enable_tf_data_service": True, "tf_data_service_address": "a:1"}
    assert built(through, input_context=CONTEXT)["through"] == ("a:1", "mrcnn_tf-now", 4, 2, 2)


def test_what_is_for_validation(built):
    """Further sizes, which grow with the long edge; as many proposals as at inference."""
    validation = {"is_training": False}
    given = built(validation, {"rpn.post_nms_top_k_test": 44}, {"short_edges": (400, 1600)})
    # Of the validation data, whose edges are 800 and 1333.
    assert given["views"] == ((400, 666), (1600, 2666))
    assert given["num_proposals"] == 44
    assert built(tta={"short_edges": (400,)})["views"] == ()
    assert not built(model={"federated.image_lists": False})["include_lists"]


def test_nothing_is_left_out():
    """A field or an argument that is added is asked for here."""
    said = {path.split(".")[0] for given, _, _ in OF_DATA for path in given}
    assert said | NOT_OF_THE_PIPELINE == set(vars(fields.Data()))
    assert not said & NOT_OF_THE_PIPELINE
    groups = {path for given, _, _ in OF_DATA for path in given if "." in path}
    assert groups == {
        f"{name}.{field}"
        for name in ("color_jitter", "copy_paste")
        for field in vars(getattr(fields.Data(), name))
    }
    arguments = {argument for _, argument, _ in OF_DATA + OF_MODEL + OF_CALL}
    arguments |= {*OF_CONTEXT, "views"}
    assert arguments == set(inspect.signature(pipeline.build).parameters)
