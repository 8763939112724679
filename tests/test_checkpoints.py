"""The newest of a folder, what a checkpoint says of itself, and what does not fit."""

import os
import pathlib
import shutil

import numpy as np
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


def three(folder):
    model = Model()
    for step in (10, 20, 30):
        model.backbone.bias.assign([step, 0, 0])
        save(folder, model, step)
    return [str(folder / f"ckpt-{step}") for step in (10, 20, 30)]


def data_file(checkpoint):
    return pathlib.Path(checkpoint + ".data-00000-of-00001")


def cut(path, to):
    path.write_bytes(path.read_bytes()[:to])


FAULTS = {
    "data cut": (lambda path: cut(data_file(path), 40), "Read less bytes than requested"),
    "data empty": (lambda path: cut(data_file(path), 0), "Read less bytes than requested"),
    "data gone": (lambda path: data_file(path).unlink(), "data-00000-of-00001"),
    "index cut": (lambda path: cut(pathlib.Path(path + ".index"), 100), "sstable"),
    "index empty": (lambda path: cut(pathlib.Path(path + ".index"), 0), "sstable"),
    "index gone": (lambda path: os.remove(path + ".index"), "ckpt-30.index is not there"),
}


@pytest.mark.parametrize("is_listed", [True, False])
@pytest.mark.parametrize("fault", FAULTS)
def test_of_damaged_ones_the_one_before_is_taken_and_that_is_said(
    fault, is_listed, tmp_path, capsys
):
    break_, why = FAULTS[fault]
    first, second, third = three(tmp_path)
    if not is_listed:
        (tmp_path / "checkpoint").unlink()
    break_(third)
    assert checkpoints.newest(str(tmp_path)) == second
    said = capsys.readouterr().err
    if is_listed or fault != "index gone":  # of which nothing is left that could be known
        assert f"{third} is damaged (" in said
        assert why in said
        assert f"taking the one before, {second}\n" in said
    assert is_listed != (f"{tmp_path}/checkpoint, which says which" in said)
    break_(second)
    assert checkpoints.newest(str(tmp_path)) == first
    break_(first)
    message = "no checkpoint" if fault == "index gone" and not is_listed else "there is none before"
    with pytest.raises(ValueError, match=message):
        checkpoints.newest(str(tmp_path))


def test_every_flipped_bit_is_found_or_changes_no_number(tmp_path):
    """Also in the index, where not every byte is under a checksum."""
    *_, path = three(tmp_path)
    opened = checkpoints.reader(path)
    want = {name: opened.get_tensor(name) for name in opened.get_variable_to_shape_map()}
    rng, found = np.random.default_rng(7), 0
    for file in (pathlib.Path(path + ".index"), data_file(path)):
        whole = file.read_bytes()
        for place in rng.choice(len(whole), 150, replace=False):
            content = bytearray(whole)
            content[place] ^= 1 << rng.integers(8)
            file.write_bytes(content)
            if checkpoints.damage(path):
                found += 1
                continue
            opened = checkpoints.reader(path)
            assert opened.get_variable_to_shape_map().keys() == want.keys(), (file, place)
            for name, value in want.items():
                np.testing.assert_array_equal(opened.get_tensor(name), value, f"{file} {place}")
        file.write_bytes(whole)
    assert found > 250


@pytest.mark.parametrize("text", ["", "half a li", b"\xff\xfe", 'model_checkpoint_path: "gone-7"'])
def test_a_list_that_is_damaged_or_names_what_is_gone(text, tmp_path):
    *_, third = three(tmp_path)
    (tmp_path / "checkpoint").write_bytes(text if isinstance(text, bytes) else text.encode())
    assert checkpoints.newest(str(tmp_path)) == third


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
