"""The newest of a folder, what a checkpoint says of itself, and what does not fit."""

import shutil

import pytest
import tensorflow as tf
import tf_keras

from mrcnn_tf import checkpoints
from mrcnn_tf.data.label_map import LabelMap
from mrcnn_tf.modeling import build
from tests import tiny_network


class Model(tf_keras.Model):
    def __init__(self, width=3):
        super().__init__()
        self.backbone = tf_keras.layers.Dense(width)
        self.rpn = tf_keras.layers.Dense(2)
        self.backbone.build([1, 4])
        self.rpn.build([1, 4])
        self.built = True


def save(folder, model, step=7, **items):
    whole = tf.train.Checkpoint(model=model, global_step=tf.Variable(step, dtype=tf.int64), **items)
    manager = tf.train.CheckpointManager(whole, str(folder), 5, checkpoint_name="ckpt")
    return manager.save(checkpoint_number=step)


def test_newest_is_what_was_written_last_and_else_the_highest_number(tmp_path):
    model = Model()
    save(tmp_path, model, 30)
    last = save(tmp_path, model, 7)  # as a run does that goes on with a larger batch
    assert checkpoints.newest(str(tmp_path)) == last
    (tmp_path / "checkpoint").unlink()
    assert checkpoints.newest(str(tmp_path)) == str(tmp_path / "ckpt-30")
    assert checkpoints.newest(last) == checkpoints.newest(last + ".index") == last
    for nothing in (tmp_path / "ckpt-8", tmp_path / "none"):
        with pytest.raises(ValueError, match=f"no checkpoint: '{nothing}'"):
            checkpoints.newest(str(nothing))


def test_a_folder_may_move(tmp_path):
    save(tmp_path / "here", Model())
    (tmp_path / "here" / "label_map.json").write_text(LabelMap((4,), ("fig",)).to_json())
    shutil.move(tmp_path / "here", tmp_path / "there, b")
    moved = str(tmp_path / "there, b")
    assert checkpoints.load(Model(), moved) == moved + "/ckpt-7"
    for given in (moved, moved + "/ckpt-7", moved + "/best/best_ckpt-1"):
        assert checkpoints.label_map_of(given).names == ("fig",)


def test_a_folder_that_tensorflow_cannot_read_from_is_refused(tmp_path):
    save(tmp_path / "run [2]", Model())
    for path in (tmp_path / "run [2]", tmp_path / "run [2]" / "ckpt-7"):
        with pytest.raises(ValueError, match=r"cannot read checkpoints from a folder with '\['"):
            checkpoints.newest(str(path))


def test_in_memory():
    """That file system takes the beginning of a file's name for a folder."""
    path = save("ram://checkpoints/a run", Model(), 5)
    for given in (path, "ram://checkpoints/a run"):
        assert checkpoints.newest(given) == path
        assert checkpoints.load(Model(), given) == path
    assert checkpoints.position(path) == (5, None)


def test_position(tmp_path):
    batch = tf.Variable(16, dtype=tf.int64)
    assert checkpoints.position(save(tmp_path / "a", Model(), 5, images_per_step=batch)) == (5, 16)
    assert checkpoints.position(save(tmp_path / "b", Model(), 5)) == (5, None)
    alone = tf.train.Checkpoint(model=Model()).save(str(tmp_path / "c"))
    assert checkpoints.position(alone) == (0, None)


def test_what_does_not_fit_is_named(tmp_path):
    path = save(tmp_path, Model())
    wider = Model(width=5)
    with pytest.raises(
        ValueError, match=r"(?s)does not fit this model:.*backbone/kernel: \(4, 3\)"
    ):
        checkpoints.load(wider, path)
    assert checkpoints.load(wider, path, ("rpn",)) == path
    with pytest.raises(ValueError, match=r"does not fit backbone of this model") as error:
        checkpoints.load(wider, path, ("backbone",))
    assert "rpn" not in str(error.value)
    wider.mask = tf_keras.layers.Dense(2)
    wider.mask.build([1, 4])
    with pytest.raises(ValueError, match="mask/kernel: not in the checkpoint"):
        checkpoints.load(wider, path)


def test_a_damaged_checkpoint_is_named(tmp_path):
    path = save(tmp_path, Model())
    data = tmp_path / "ckpt-7.data-00000-of-00001"
    data.write_bytes(data.read_bytes()[: data.stat().st_size // 2])
    with pytest.raises(ValueError, match="ckpt-7"):
        checkpoints.load(Model(), path)
    (tmp_path / "ckpt-7.index").write_bytes(b"nonsense")
    with pytest.raises(ValueError, match="ckpt-7 cannot be read as a checkpoint"):
        checkpoints.position(path)


def run_of(model, optimizer):
    optimizer._create_all_weights(model.trainable_variables)
    return tf.train.Checkpoint(
        model=model,
        optimizer=optimizer,
        global_step=tf.Variable(0, dtype=tf.int64),
        images_per_step=tf.Variable(4, dtype=tf.int64),
    )


def test_a_run_is_restored_whole_or_not_at_all(tmp_path):
    legacy = tf_keras.optimizers.legacy
    model, optimizer = Model(), legacy.SGD(0.1, momentum=0.9)
    run = run_of(model, optimizer)
    variable = model.trainable_variables[0]
    optimizer.apply_gradients([(tf.ones_like(v), v) for v in model.trainable_variables])
    run.global_step.assign(1)
    path = run.save(str(tmp_path / "ckpt"))

    again, momentum = Model(), legacy.SGD(0.1, momentum=0.9)
    other = run_of(again, momentum)
    checkpoints.restore(other, again, path)
    assert int(other.global_step) == 1
    slot = momentum.get_slot(again.trainable_variables[0], "momentum")
    tf.debugging.assert_equal(slot, optimizer.get_slot(variable, "momentum"))
    tf.debugging.assert_equal(again.trainable_variables[0], variable)

    adam = legacy.Adam(0.1)
    with pytest.raises(ValueError, match="does not hold the state of this optimizer"):
        checkpoints.restore(run_of(Model(), adam), again, path)

    scaled = tf_keras.mixed_precision.LossScaleOptimizer(legacy.SGD(0.1, momentum=0.9))
    last = Model()
    with pytest.raises(ValueError, match="holds no loss scale, which training in float16 needs"):
        checkpoints.restore(run_of(last, scaled), last, path)


@pytest.mark.parametrize("features", ["fpn", "c4"])
def test_variables_keep_the_names_of_earlier_releases(features, tmp_path):
    """Recorded from 0.1.0: what these are called decides whether its checkpoints load."""
    config = tiny_network.config()
    config.override({"features": features})
    if features == "c4":
        config.override({"box_head": {"pool_size": 6}, "mask_head": {"mask_size": 6}})
    model = build.build_model(config, tiny_network.NUM_CLASSES)
    path = tf.train.Checkpoint(model=model).save(str(tmp_path / "ckpt"))
    value = "/.ATTRIBUTES/VARIABLE_VALUE"
    names = {key.removesuffix(value) for key, _ in tf.train.list_variables(path)}
    wanted = {
        "model/backbone/stem/conv1/kernel",
        "model/backbone/stage3/blocks/0/shortcut_norm/moving_mean",
        "model/rpn/head/convs/0/kernel",
        "model/rpn/head/objectness/bias",
        "model/roi_heads/box_head/class_logits/kernel",
        "model/roi_heads/mask_head/deconv/kernel",
        "model/roi_heads/mask_head/predictor_kernel",
    }
    if features == "fpn":
        wanted |= {"model/pyramid/lateral2/kernel", "model/roi_heads/box_head/hidden/0/kernel"}
    assert wanted <= names
