"""pipeline.py: batches of one canvas a step, every image once in evaluation, the same each run."""

import collections

import numpy as np
import pytest
import tensorflow as tf

from mrcnn_tf.data import (
    augment,
    canvases,
    order,
    pipeline,
    record_files,
    record_index,
    schema,
)
from mrcnn_tf.data.label_map import LabelMap
from tests.marks import one_quick

LABEL_MAP = LabelMap((1, 7, 90), ("one", "seven", "ninety"))
SIZES = [(30, 40), (40, 30), (30, 55), (35, 35), (20, 70)]


@pytest.fixture
def scenes(make_scene):
    return [
        make_scene(k, *SIZES[k * k % len(SIZES)], num_objects=k % 4, source_id=f"img-{k}")
        for k in range(11)
    ]


def _build(pattern, is_training=False, **replaced):
    arguments = {
        "label_map": LABEL_MAP,
        "per_replica_batch_size": 2,
        "num_replicas": 1,
        "seed": 5,
        "short_edges": (48, 64) if is_training else (64,),
        "long_edge": 96,
        "canvas_sizes": canvases.make((48, 64), 96),
        "resize_convention": "detectron2",
        "channel_order": "bgr",
        "pixel_mean": (103.0, 116.0, 123.0),
        "pixel_std": (1.0, 1.0, 1.0),
        "flip_probability": 0.5,
        "scale_jitter": (),
        "color_jitter": augment.ColorJitter(0.0, 0.0, 0.0, 0.0),
        "max_instances": 4,
        "mask_arena_pixels": 2**15,
    }
    return pipeline.build(pattern, is_training=is_training, **(arguments | replaced))


def _ids(batch) -> list[str]:
    rows = np.asarray(batch[schema.SOURCE_ID])
    return [bytes(row).rstrip(b"\0").decode() for row in rows]


def _read(dataset) -> list[dict]:
    return list(dataset.as_numpy_iterator())


@pytest.mark.parametrize("num_replicas", [1, 3])
def test_evaluation_gives_every_image_once(scenes, write_records, arena_masks, num_replicas):
    batches = _read(_build(write_records(scenes), num_replicas=num_replicas))
    ids = [i for batch in batches for i in _ids(batch)]
    assert collections.Counter(i for i in ids if i) == {s.source_id: 1 for s in scenes}
    by_id = {scene.source_id: scene for scene in scenes}
    for batch in batches:
        assert batch[schema.IMAGE].shape[0] == 2
        for k, source_id in enumerate(_ids(batch)):
            row = {key: value[k] for key, value in batch.items()}
            if not source_id:
                assert not row[schema.GT_VALID].any()
                continue
            scene = by_id[source_id]
            height, width = row[schema.IMAGE_SIZE_HW].astype(int)
            np.testing.assert_array_equal(row[schema.ORIGINAL_SIZE_HW], scene.image.shape[:2])
            assert (height, width) == _size(*scene.image.shape[:2])
            # The image is in its corner, not flipped: its mean colour, reversed and shifted.
            image = row[schema.IMAGE][:height, :width]
            expected = scene.image.mean((0, 1))[::-1] - [103, 116, 123]
            np.testing.assert_allclose(image.mean((0, 1)), expected, atol=2)
            assert not row[schema.IMAGE][height:].any()
            assert not row[schema.IMAGE][:, width:].any()
            _check_objects(row, scene, arena_masks)
    # Only whole steps, each of one canvas.
    assert len(batches) % num_replicas == 0
    for first in range(0, len(batches), num_replicas):
        step = batches[first : first + num_replicas]
        assert len({batch[schema.IMAGE].shape for batch in step}) == 1


def test_views_are_the_stored_image_in_other_sizes(scenes, write_records):
    """64 of 96 as ever, and 32 of 48 and 96 of 144 beside it, each on a canvas of its own."""
    batches = _read(_build(write_records(scenes), views=((32, 48), (96, 144))))
    plain = _read(_build(write_records(scenes)))
    by_id = {scene.source_id: scene for scene in scenes}
    seen = 0
    for batch, without in zip(batches, plain, strict=True):
        for key, value in without.items():
            np.testing.assert_array_equal(batch[key], value, key)
        for number, short, long in ((0, 32, 48), (1, 96, 144)):
            images, sizes = batch[schema.view_image(number)], batch[schema.view_size_hw(number)]
            assert all(side % 32 == 0 for side in images.shape[1:3])
            for k, source_id in enumerate(_ids(batch)):
                if not source_id:
                    continue
                scene = by_id[source_id]
                stored = scene.image.shape[:2]
                scale = min(short / min(stored), long / max(stored))
                height, width = (int(side * scale + 0.5) for side in stored)
                np.testing.assert_array_equal(sizes[k], [height, width])
                inside = images[k, :height, :width]
                expected = scene.image.mean((0, 1))[::-1] - [103, 116, 123]
                np.testing.assert_allclose(inside.mean((0, 1)), expected, atol=3)
                assert not images[k, height:].any()
                assert not images[k, :, width:].any()
                seen += 1
    assert seen == 2 * len(scenes)


def test_a_view_in_the_own_size_is_the_image(scenes, write_records):
    for canvas_sizes in (canvases.make((64,), 96), None):
        dataset = _build(write_records(scenes), views=((64, 96),), canvas_sizes=canvas_sizes)
        for batch in _read(dataset):
            real = [bool(source_id) for source_id in _ids(batch)]
            np.testing.assert_array_equal(
                batch[schema.view_image(0)][real], batch[schema.IMAGE][real]
            )


def _size(height, width):
    scale = min(64 / min(height, width), 96 / max(height, width))
    return int(height * scale + 0.5), int(width * scale + 0.5)


def _check_objects(row, scene, arena_masks):
    """Boxes lie where the scene has them, and masks cover their boxes' pixels."""
    count = len(scene.masks)
    np.testing.assert_array_equal(row[schema.GT_VALID], np.arange(4) < count)
    order = np.argsort(scene.crowds, kind="stable")
    scale = np.tile(row[schema.IMAGE_SIZE_HW] / row[schema.ORIGINAL_SIZE_HW], 2)
    np.testing.assert_allclose(row[schema.GT_BOXES][:count], scene.boxes[order] * scale, atol=1e-4)
    classes = [LABEL_MAP.ids.index(scene.categories[k]) + 1 for k in order]
    np.testing.assert_array_equal(row[schema.GT_CLASSES][:count], classes)
    height, width = row[schema.IMAGE_SIZE_HW].astype(int)
    rows = np.floor((np.arange(height) + 0.5) * scene.image.shape[0] / height).astype(int)
    cols = np.floor((np.arange(width) + 0.5) * scene.image.shape[1] / width).astype(int)
    expected = scene.masks[order][:, rows][:, :, cols].reshape(count, height, width)
    masks = arena_masks(row, height, width)
    assert (masks[:count] == expected).mean() > 0.99 if count else True


def test_batches_follow_the_contract(scenes, write_records):
    for is_training in (False, True):
        spec = _build(write_records(scenes), is_training).element_spec
        float32, int32 = tf.float32, tf.int32
        assert {key: (s.dtype, tuple(s.shape)) for key, s in spec.items()} == {
            schema.IMAGE: (float32, (2, None, None, 3)),
            schema.SOURCE_ID: (tf.uint8, (2, schema.SOURCE_ID_BYTES)),
            schema.IMAGE_KEY: (int32, (2,)),
            schema.IMAGE_SIZE_HW: (float32, (2, 2)),
            schema.ORIGINAL_SIZE_HW: (float32, (2, 2)),
            schema.GT_BOXES: (float32, (2, 4, 4)),
            schema.GT_CLASSES: (int32, (2, 4)),
            schema.GT_IS_CROWD: (tf.bool, (2, 4)),
            schema.GT_VALID: (tf.bool, (2, 4)),
            schema.GT_MASK_BITS: (tf.uint8, (2, 2**12)),
            schema.GT_MASK_OFFSETS: (int32, (2, 4)),
            schema.GT_MASK_SIZES: (int32, (2, 4, 2)),
            schema.GT_MASK_FRAMES: (float32, (2, 4, 4)),
            schema.GT_MASKS_VALID: (tf.bool, (2, 4)),
            schema.NUM_DROPPED_OBJECTS: (int32, (2,)),
            schema.NUM_DROPPED_MASKS: (int32, (2,)),
        }


def test_one_canvas_has_a_static_shape(scenes, write_records):
    spec = _build(write_records(scenes), canvas_sizes=((96, 96),)).element_spec
    assert tuple(spec[schema.IMAGE].shape) == (2, 96, 96, 3)


def test_training_says_that_it_never_ends(scenes, write_records):
    """A distributed data set asks; of one that may end, batches have no static shape."""
    pattern = write_records(scenes)
    for is_training in (True, False):
        is_endless = _build(pattern, is_training).cardinality() == tf.data.INFINITE_CARDINALITY
        assert is_endless == is_training


def test_training_is_shuffled_augmented_and_in_whole_steps(scenes, write_records):
    pattern = write_records(scenes)
    batches = _read(_build(pattern, True, num_replicas=2).take(60))
    ids = [i for batch in batches for i in _ids(batch)]
    counts = collections.Counter(ids)
    assert set(counts) == {s.source_id for s in scenes}
    assert min(counts.values()) >= 5  # 120 draws of 11 images: 11 each, but for open windows
    for first in range(0, 60, 2):
        assert batches[first][schema.IMAGE].shape == batches[first + 1][schema.IMAGE].shape
    by_canvas = collections.Counter(batch[schema.IMAGE].shape[1:3] for batch in batches)
    assert set(by_canvas) <= set(canvases.make((48, 64), 96))
    assert len(by_canvas) > 2
    frames = np.concatenate([b[schema.GT_MASK_FRAMES][b[schema.GT_VALID]] for b in batches])
    flipped = np.mean(frames[:, 1] > frames[:, 3])
    assert 0.3 < flipped < 0.7
    short = {float(min(size)) for b in batches for size in b[schema.IMAGE_SIZE_HW]}
    assert {48.0, 64.0} <= short
    assert ids != sorted(ids)


def test_jittered_images_and_masks_move_together(scene_type, write_records, arena_masks):
    """White objects on black: a pixel is white where a mask says so, wherever it went."""
    rng = np.random.default_rng(0)
    scenes = []
    for k in range(6):
        masks = np.zeros([2, 40, 60], bool)
        for mask, left in zip(masks, (2, 32), strict=True):
            y, x = rng.integers(0, 12), left + rng.integers(0, 12)
            mask[y : y + 25, x : x + 8] = mask[y : y + 9, x : x + 14] = True  # an L, so flips show
        image = np.repeat(masks.any(0)[..., None] * np.uint8(255), 3, axis=2)
        scenes.append(scene_type(image, masks, [1, 7], [False, False], f"img-{k}"))
    dataset = _build(
        write_records(scenes),
        True,
        short_edges=(96,),
        canvas_sizes=canvases.square(96),
        scale_jitter=(0.3, 3.0),
        color_jitter=augment.ColorJitter(0.3, 0.3, 0.3, 0.1),
        pixel_mean=(0.0, 0.0, 0.0),
    )
    assert dataset.element_spec[schema.IMAGE].shape == (2, 96, 96, 3)
    batches = _read(dataset.take(30))
    sizes = np.concatenate([batch[schema.IMAGE_SIZE_HW] for batch in batches])
    assert sizes.min() < 40
    assert (sizes == 96).all(axis=1).sum() > 15
    counts = np.concatenate([batch[schema.GT_VALID].sum(axis=1) for batch in batches])
    assert set(counts) >= {1, 2}  # sometimes one is cut away
    frames = np.concatenate([batch[schema.GT_MASK_FRAMES].reshape(-1, 4) for batch in batches])
    assert frames.min() < -20  # and often a part
    for batch in batches:
        for k in range(2):
            row = {key: value[k] for key, value in batch.items()}
            height, width = row[schema.IMAGE_SIZE_HW].astype(int)
            masks = arena_masks(row, 96, 96)
            inside = row[schema.IMAGE][:height, :width].mean(axis=-1) > 110
            # Interpolated edges: a pixel along each object's outline may differ.
            assert (masks.any(0)[:height, :width] != inside).mean() < 0.06
            for mask, box in zip(masks[row[schema.GT_VALID]], row[schema.GT_BOXES], strict=False):
                ys, xs = np.nonzero(mask[:height, :width])
                tight = [ys.min(), xs.min(), ys.max() + 1, xs.max() + 1]
                # A stored pixel is at most 96 * 3 / 60 pixels large.
                np.testing.assert_allclose(box, tight, atol=2.5)
                assert (box >= 0).all()
                assert (box[2:] <= [height + 1e-4, width + 1e-4]).all()


def test_same_seed_same_batches(scenes, write_records):
    pattern = write_records(scenes, num_shards=4)
    first, second = (_read(_build(pattern, True).take(12)) for _ in range(2))
    for a, b in zip(first, second, strict=True):
        for key, value in a.items():
            np.testing.assert_array_equal(value, b[key])
    other = _read(_build(pattern, True, seed=6, mask_arena_pixels=0).take(12))
    assert [_ids(b) for b in first] != [_ids(b) for b in other]


def test_epochs_differ(scenes, write_records):
    batches = _read(_build(write_records(scenes), True, canvas_sizes=((96, 96),)).take(22))
    ids = [i for batch in batches for i in _ids(batch)]
    epochs = [ids[k : k + 11] for k in range(0, 44, 11)]
    assert all(len(set(epoch)) == 11 for epoch in epochs)  # one canvas: epochs are not mixed
    assert len({tuple(epoch) for epoch in epochs}) == 4


@pytest.mark.parametrize(
    ("is_training", "num_shards"), one_quick([(True, 5), (True, 2), (False, 5)])
)
def test_pipelines_share_each_step(scenes, write_records, is_training, num_shards):
    """Three pipelines of one image each have the steps of one with three, byte by byte.

    That is in training also the order, the canvases and the augmentation, and in evaluation the
    blank images that fill up. Files divide among the pipelines or not.
    """
    pattern = write_records(scenes, num_shards=num_shards)
    together = _read(
        _build(pattern, is_training, per_replica_batch_size=3, num_replicas=1).take(14)
    )
    apart = [
        _read(
            _build(
                pattern,
                is_training,
                per_replica_batch_size=1,
                num_replicas=1,
                num_input_pipelines=3,
                input_pipeline_id=pipeline_id,
            ).take(14)
        )
        for pipeline_id in range(3)
    ]
    assert len(together) > 4
    assert [len(steps) for steps in apart] == [len(together)] * 3
    for step, batch in enumerate(together):
        for key in batch:
            rows = np.concatenate([steps[step][key] for steps in apart])
            np.testing.assert_array_equal(rows, batch[key], err_msg=key)
    if not is_training:
        seen = [i for steps in apart for batch in steps for i in _ids(batch) if i]
        assert sorted(seen) == sorted(s.source_id for s in scenes)


def test_exact_canvases(scenes, write_records):
    batches = _read(_build(write_records(scenes), canvas_sizes=None))
    seen = set()
    for batch in batches:
        for size, source_id in zip(batch[schema.IMAGE_SIZE_HW], _ids(batch), strict=True):
            if source_id:
                seen.add(source_id)
                assert batch[schema.IMAGE].shape[1:3] == tuple(-(-size.astype(int) // 32) * 32)
    assert len(seen) == 11


def test_no_masks_are_read_without_an_arena(scenes, write_records):
    batches = _read(_build(write_records(scenes), mask_arena_pixels=0))
    assert batches[0][schema.GT_MASK_BITS].shape == (2, 0)
    assert not any(batch[schema.GT_MASKS_VALID].any() for batch in batches)


def test_missing_files_name_the_pattern_and_the_command(tmp_path):
    pattern = str(tmp_path / "train-*.tfrecord")
    with pytest.raises(FileNotFoundError) as error:
        _build(pattern)
    assert pattern in str(error.value)
    assert "python data_prep/create_coco_tfrecord.py" in str(error.value)
    assert f"--output_file_prefix={tmp_path}/train --num_shards" in str(error.value)


@pytest.mark.parametrize("is_training", [False, True])
def test_files_without_a_record_are_named(tmp_path, is_training):
    for k in range(3):
        tf.io.TFRecordWriter(str(tmp_path / f"train-{k}.tfrecord")).close()
    with pytest.raises(ValueError, match=rf"{tmp_path}/train-0.tfrecord' nor in the other 2: "):
        _build(str(tmp_path / "train-*"), is_training)
    with pytest.raises(ValueError, match=rf"no image in '{tmp_path}/train-2.tfrecord': the rec"):
        _build(str(tmp_path / "train-2*"), is_training)


@pytest.mark.slow
def test_an_empty_file_among_others_does_no_harm(scenes, write_records, tmp_path):
    pattern = write_records(scenes)
    tf.io.TFRecordWriter(str(tmp_path / "set-00000-empty.tfrecord")).close()
    for is_training in (False, True):
        batches = _read(_build(str(tmp_path / "set-*"), is_training).take(20))
        want = _read(_build(pattern, is_training).take(20))
        assert len(batches) == len(want)


def test_several_patterns(scenes, write_records, tmp_path):
    write_records(scenes)
    patterns = [str(tmp_path / f"set-0000{k}-of-*.tfrecord") for k in (0, 1)]
    assert [f[-21:] for f in record_files.find(patterns)] == [
        "00000-of-00002.tfrecord"[-21:],
        "00001-of-00002.tfrecord"[-21:],
    ]
    with pytest.raises(FileNotFoundError, match="set-0000x"):
        record_files.find([*patterns, str(tmp_path / "set-0000x*")])


@pytest.mark.parametrize(
    ("num_shards", "canvas_sizes"),
    [
        pytest.param(1, canvases.make((48, 64), 96), id="several canvases"),
        pytest.param(3, None, id="exact canvases", marks=pytest.mark.slow),
        pytest.param(3, ((96, 96),), id="one canvas", marks=pytest.mark.slow),
    ],
)
def test_a_run_that_begins_later_gets_the_batches_of_one_that_did_not(
    scenes, write_records, num_shards, canvas_sizes
):
    """From random steps on, over ten epochs, two pipelines, augmentation too, byte by byte."""
    pattern = write_records(scenes, num_shards=num_shards)
    steps = [1, *np.random.default_rng(num_shards).integers(2, 26, 3).tolist()]
    for pipeline_id in range(2):
        common = {
            "num_replicas": 2,
            "num_input_pipelines": 2,
            "input_pipeline_id": pipeline_id,
            "canvas_sizes": canvas_sizes,
        }
        straight = _read(_build(pattern, True, **common).take(56))
        for step in steps:
            resumed = _read(_build(pattern, True, first_step=step, **common).take(4))
            for a, b in zip(straight[2 * step : 2 * step + 4], resumed, strict=True):
                for key in a:
                    np.testing.assert_array_equal(a[key], b[key], err_msg=f"{key} of step {step}")


def test_only_what_is_asked_for_is_read_and_in_that_order(scenes, write_records):
    """Not the records of other machines' images, nor those that a resumed run has seen."""
    files = record_files.find(write_records(scenes))
    index = record_index.of_files(files)
    records = [r for f in files for r in tf.data.TFRecordDataset(f).as_numpy_iterator()]
    asked = np.random.default_rng(0).integers(-1, 11, 100)  # -1: blank
    asked = asked[asked != 1]
    rows = tf.data.Dataset.from_tensor_slices(
        order.Rows(
            position=np.where(asked < 0, -1, np.arange(len(asked))),
            record=asked.astype(np.int32),
            short_edge=np.zeros([len(asked)], np.int32),
            canvas_hw=np.zeros([len(asked), 2], np.int32),
        )
    )
    with open(files[0], "r+b") as file:  # record 1 is damaged, which nobody sees
        file.seek(int(index.offset[1]) + 20)
        file.write(b"\0\0\0\0")
    read = list(pipeline._read(rows, index).as_numpy_iterator())
    assert [s for row, s in read if row.position >= 0] == [records[k] for k in asked if k >= 0]
    assert [int(row.record) for row, _ in read] == asked.tolist()
    with open(files[0], "r+b") as file:
        file.truncate(int(index.offset[3]))
    said = rf"changed while it is read.*{files[0]}.* no record any more at byte\] \[\d+\]"
    with pytest.raises(tf.errors.InvalidArgumentError, match=said):
        list(pipeline._read(rows, index).as_numpy_iterator())
