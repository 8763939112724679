"""The last step of alternating training: RPN and detector on the same features become one."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from mrcnn_tf import checkpoints
from mrcnn_tf.data import schema
from mrcnn_tf.data.label_map import LabelMap
from mrcnn_tf.experiment import fields
from mrcnn_tf.experiment.experiment import Task, maskrcnn
from mrcnn_tf.modeling import build
from mrcnn_tf.staged import join_networks
from mrcnn_tf.staged.two_networks import TwoNetworks
from mrcnn_tf.training import decay
from mrcnn_tf.training import task as task_lib
from tests import tiny_network
from tests.marks import one_quick
from tests.tiny_network import EMPTY, TWO_OBJECTS, WITH_CROWD


def config(system, features, proposals, norm, frozen) -> fields.Model:
    model = tiny_network.config(norm)
    model.override({"system": system, "features": features, "proposals": proposals})
    if features == "c4":
        model.override({"box_head": {"pool_size": 6}, "mask_head": {"mask_size": 6}})
        model.override({"backbone": {"freeze_at": 4 if frozen else 0}})
    else:
        model.override({"backbone": {"freeze_at": 5 if frozen else 0}, "fpn": {"frozen": frozen}})
    return model


def batch(images) -> dict[str, tf.Tensor]:
    found = tiny_network.batch(images)
    boxes = np.tile(np.array([[4, 6, 40, 30], [0, 0, 60, 60]], np.float32), [len(images), 1, 1])
    found[schema.PROPOSAL_BOXES] = tf.constant(boxes)
    found[schema.PROPOSALS_VALID] = tf.ones([len(images), 2], bool)
    return found


def train_and_write(model_config, folder, start="", modules="all") -> build.Model:
    """Two steps of SGD with weight decay, from a checkpoint if one is given; then a checkpoint."""
    given = {"init_checkpoint": str(start), "init_checkpoint_modules": modules} if start else {}
    task = task_lib.MaskRCNNTask(Task(model=model_config, **given), weight_decay=decay.Decay(1e-2))
    model = task.build_model()
    if start:
        task.initialize(model)
    else:
        tiny_network.randomize(model)
    optimizer = tf_keras.optimizers.SGD(1e-3, momentum=0.9)
    for _ in range(2):
        task.train_step(batch([TWO_OBJECTS, WITH_CROWD]), model, optimizer)
    whole = tf.train.Checkpoint(model=model, optimizer=optimizer, global_step=tf.Variable(2))
    whole.save(str(folder / "ckpt"))
    return model


def values(*layers) -> dict[str, np.ndarray]:
    return {v.name: v.numpy() for layer in layers if layer for v in layer.weights}


@pytest.mark.parametrize(
    ("features", "norm"), one_quick([("fpn", "batch_norm"), ("c4", "group_norm")])
)
def test_frozen_features_stay_bit_for_bit_and_the_networks_become_one(tmp_path, features, norm):
    """Steps 2, 3 and 4; batch norms must neither learn nor follow what they see."""
    paths = [tmp_path / name for name in ("step2", "step3", "step4", "joint")]
    detector = train_and_write(config("mask_rcnn", features, "file", norm, False), paths[0])
    rpn_config = config("rpn", features, "rpn", norm, True)
    rpn = train_and_write(rpn_config, paths[1], paths[0], "backbone, pyramid")
    heads = train_and_write(config("mask_rcnn", features, "file", norm, True), paths[2], paths[0])
    before = values(detector)
    shared = values(rpn.backbone, rpn.pyramid)
    assert len(shared) > 20
    for name, value in shared.items():
        np.testing.assert_array_equal(value, before[name], name)
        np.testing.assert_array_equal(value, values(heads)[name], name)
    assert all(np.any(v != before[n]) for n, v in values(heads.roi_heads).items() if "kernel" in n)

    experiment = maskrcnn()
    experiment.task.model = config("mask_rcnn", features, "rpn", norm, False)
    experiment.task.train_data.input_path = f"{tmp_path}/train-*"
    (tmp_path / schema.LABEL_MAP_FILE).write_text(LabelMap((4, 5, 9), ("a", "b", "c")).to_json())
    written = join_networks.join(experiment, str(paths[1]), str(paths[2]), str(paths[3]))
    assert written == tf.train.latest_checkpoint(str(paths[3]))
    assert written.endswith("ckpt-2")
    assert LabelMap.from_json((paths[3] / schema.LABEL_MAP_FILE).read_text()).ids == (4, 5, 9)
    joint = build.build_model(experiment.task.model, tiny_network.NUM_CLASSES)
    assert checkpoints.load(joint, str(paths[3])) == written
    given = tiny_network.batch([TWO_OBJECTS, WITH_CROWD, EMPTY])
    want = TwoNetworks(rpn, heads)(given[schema.IMAGE], given[schema.IMAGE_SIZE_HW])
    got = joint.infer(given)
    assert want.valid.numpy().any()
    for name, tensor in want._asdict().items():
        np.testing.assert_array_equal(getattr(got, name), tensor, name)

    # Step 2's heads stand on the same features, step 1's RPN would not.
    train_and_write(config("rpn", features, "rpn", norm, False), tmp_path / "step1")
    with pytest.raises(ValueError, match=r"model/backbone/\S+ differs between \S+step1"):
        join_networks.join(experiment, str(tmp_path / "step1"), str(paths[2]), str(tmp_path / "x"))
    assert not (tmp_path / "x").exists()


def test_a_missing_checkpoint_is_named(tmp_path):
    with pytest.raises(ValueError, match=f"no checkpoint: '{tmp_path}'"):
        join_networks.join(maskrcnn(), str(tmp_path), str(tmp_path), str(tmp_path))
