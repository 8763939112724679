"""Numbers that mean nothing are refused, of whatever field, by the field's name."""

import copy
import dataclasses
import json
import math
import re
import typing

import pytest

from mrcnn_tf import models
from mrcnn_tf.experiment import experiment, loading, ranges, reference, unread

# Whole numbers of which 0 says none, all, or what is adaptive; of all others 0 is refused.
ZERO = {
    "task.model": ("num_classes",),
    "task.model.backbone": ("freeze_at",),
    "task.model.rpn": ("conv_layers",),
    "task.model.roi_align": ("sampling_ratio",),
    "task.model.box_head": ("fc_layers", "conv_layers"),
    "task.model.federated": ("classes_per_image",),
    "task.model.mask_head": ("conv_layers", "fc_layers", "target_sampling_ratio"),
    "task.model.point_rend": ("num_points", "coarse_fc_layers", "fc_layers", "subdivisions"),
    "task.model.mask_scoring": ("conv_layers", "fc_layers"),
    "task.model.keypoint_head": ("num_keypoints", "conv_layers"),
    "task.train_data": (
        *("global_batch_size", "images_per_update", "mask_arena_pixels", "skip_corrupt_records"),
        "seed",
    ),
    "task.train_data.copy_paste": ("min_pixels",),
    "task": ("seed",),
    "trainer": (
        *("continuous_eval_timeout", "recovery_begin_steps", "recovery_max_trials", "patience"),
        "validation_steps",
    ),
    "runtime": ("num_gpus", "task_index"),
}
MAY_BE_NEGATIVE = {"task.seed", "task.train_data.seed", "task.model.pixels.mean"}
# What is none unless it is set, and lists that are empty: [a number that each may have].
UNSET = {
    "runtime.loss_scale": 8,
    "task.model.cascade.positive_ious": [0.6],
    "task.model.cascade.regression_factors": [2.0],
    "task.train_data.scale_jitter": [0.1, 2.0],
    "task.tta.short_edges": [400],
}


def number_fields():
    """Every field of numbers on the page of the configuration: name, value, whether it is whole."""
    found = []
    for path, group in reference.groups(experiment.maskrcnn()):
        hints = typing.get_type_hints(type(group))
        for name, value, _, _ in reference.rows(path, group):
            types = set(re.findall(r"\b(int|float|bool|str)\b", str(hints[name])))
            full = f"{path}.{name}"
            if not types & {"int", "float"} or full in unread.UNREAD:
                continue
            found.append((full, UNSET.get(full, value), "float" not in types))
    return found


FIELDS = number_fields()


def with_value(path, value, config=None):
    config = config or experiment.maskrcnn()
    *parents, name = path.split(".")
    group = config
    for parent in parents:
        group = getattr(group, parent)
    setattr(group, name, value)
    return config


def in_place_of(value, number):
    """Return the number, or the list whose first is the number."""
    return [number, *value[1:]] if isinstance(value, list | tuple) else number


def test_all_fields_of_numbers_are_found():
    names = {name for name, _, _ in FIELDS}
    assert len(FIELDS) > 90
    assert names.issuperset(UNSET)
    assert {"task.model.point_rend.subdivisions", "trainer.train_steps"} < names
    listed = {f"{path}.{name}" for path, whole in ZERO.items() for name in whole}
    assert listed < {name for name, _, is_whole in FIELDS if is_whole}


def test_what_is_there_is_allowed():
    for name, value, _ in FIELDS:
        ranges.check(with_value(name, value), skipped=unread.UNREAD)


@pytest.mark.parametrize(("name", "value", "is_whole"), FIELDS)
def test_nonsense_is_refused(name, value, is_whole):
    path, _, last = name.rpartition(".")
    wrong = [-7] if name not in MAY_BE_NEGATIVE else []
    if is_whole and last not in ZERO.get(path, ()):
        wrong.append(0)
    if not is_whole:
        wrong.append(math.nan)
    for number in wrong:
        config = with_value(name, in_place_of(value, number))
        with pytest.raises(ValueError, match=rf"^{re.escape(name)}: got .*{number}.* needs "):
            ranges.check(config, skipped=unread.UNREAD)
    if is_whole and last in ZERO.get(path, ()):
        ranges.check(with_value(name, 0), skipped=unread.UNREAD)


@pytest.mark.parametrize("kind", ["optimizer", "learning_rate", "warmup"])
def test_optimizers_too(kind):
    """Whichever is chosen; what is not chosen is not read."""
    count = 0
    default = experiment.maskrcnn()
    one_of = getattr(default.trainer.optimizer_config, kind)
    for choice in (field.name for field in dataclasses.fields(one_of)):
        group = getattr(one_of, choice)
        if not dataclasses.is_dataclass(group):
            continue
        for field in dataclasses.fields(group):
            # Powers of the step, and what begins as one, are mostly negative.
            if field.name in ("power", "beta_2_decay"):
                continue
            hint = str(typing.get_type_hints(type(group))[field.name])
            if not re.search(r"\b(int|float)\b", hint):
                continue
            wrong = [-7] if "List" in hint else -7
            config = copy.deepcopy(default)
            path = f"trainer.optimizer_config.{kind}"
            with_value(f"{path}.type", choice, config)
            with_value(f"{path}.{choice}.{field.name}", wrong, config)
            with pytest.raises(ValueError, match=rf"^{path}.{choice}.{field.name}: got .*-7"):
                ranges.check(config, skipped=unread.UNREAD)
            other = next(
                f.name for f in dataclasses.fields(one_of) if f.name not in ("type", choice)
            )
            ranges.check(with_value(f"{path}.type", other, config), skipped=unread.UNREAD)
            count += 1
    assert count >= {"optimizer": 40, "learning_rate": 20, "warmup": 3}[kind]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("task.model.point_rend.subdivisions=-1", "subdivisions: got -1, needs 0 or more"),
        ("task.model.mask_scoring.conv_layers=-1", "conv_layers: got -1, needs 0 or more"),
        ("task.model.keypoint_head.conv_layers=-1", "conv_layers: got -1, needs 0 or more"),
        ("task.validation_data.images_per_replica=0", "images_per_replica: got 0, needs 1 or more"),
        ("task.train_data.short_edges=[640,0]", "short_edges: got (640, 0), each needs 1 or more"),
        ("task.model.rpn.positive_iou=70", "positive_iou: got 70.0, needs 0 to 1"),
        ("task.model.rpn.nms_iou=.nan", "nms_iou: got nan, needs 0 to 1"),
        ("task.model.pixels.std=[58,57,0]", "std: got (58.0, 57.0, 0.0), each needs more than 0"),
        ("task.model.pixels.mean=[104]", "mean: got (104.0,), needs 3 numbers"),
        (
            "trainer.optimizer_config.warmup.linear.warmup_steps=-500",
            "trainer.optimizer_config.warmup.linear.warmup_steps: got -500, needs 0 or more",
        ),
    ],
)
def test_of_an_experiment(override, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        loading.load("maskrcnn_r50_fpn", params_override=override)


def test_of_a_network_without_an_experiment():
    with pytest.raises(ValueError, match=r"^task.model.rpn.conv_layers: got -1, needs 0 or more$"):
        models.mask_rcnn(overrides={"rpn": {"conv_layers": -1}})


@pytest.mark.parametrize("name", loading.names())
def test_every_experiment_is_within(name):
    again = json.dumps({"trainer.patience": 2})
    assert loading.load(name, params_override=again).trainer.patience == 2
