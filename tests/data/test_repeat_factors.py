"""repeat_factors.py: by hand, against a slow twin, and what epochs make of it."""

import collections
import pathlib

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
    repeat_factors,
    schema,
)
from mrcnn_tf.data.label_map import LabelMap

LABEL_MAP = LabelMap((1, 7, 90), ("one", "seven", "ninety"))


def test_hand_worked():
    """Of eight images all have 1, two have 7, one has 90, and one of them nothing.

    For 1/2: 7 is in a quarter, sqrt(2) times; 90 in an eighth, twice.
    """
    images = [[1], [1, 7], [1, 7, 90], [1], [1], [1], [1], []]
    counts = np.array([len(ids) for ids in images])
    flat = np.array([k for ids in images for k in ids])
    factors = repeat_factors.of_images(counts, flat, 0.5)
    np.testing.assert_allclose(factors, [1, 2**0.5, 2, 1, 1, 1, 1, 1])
    np.testing.assert_array_equal(repeat_factors.of_images(counts, flat, 0.01), np.ones(8))


def test_no_objects_at_all():
    nothing = np.zeros([3], np.int64), np.zeros([0], np.int64)
    np.testing.assert_array_equal(repeat_factors.of_images(*nothing, 0.5), np.ones(3))


@pytest.mark.parametrize("seed", range(5))
def test_equals_the_definition(seed):
    rng = np.random.default_rng(seed)
    images = [set(rng.integers(0, 30, rng.integers(0, 5)).tolist()) for _ in range(40)]
    expected = []
    for ids in images:
        factor = 1.0
        for k in ids:
            part = sum(k in others for others in images) / len(images)
            factor = max(factor, (0.2 / part) ** 0.5)
        expected.append(factor)
    counts = np.array([len(ids) for ids in images])
    flat = np.array([k for ids in images for k in ids], np.int64)
    np.testing.assert_allclose(repeat_factors.of_images(counts, flat, 0.2), expected)


@pytest.mark.slow
def test_rounding_keeps_the_mean():
    """2.25 over 800 seeds: a deviation of 0.43 each, of 0.015 in the mean."""
    values = tf.constant([2.25, 1.0, 0.0])
    rounded = np.array(
        [augment.random_rounding(values, tf.constant([3, k], tf.int64)) for k in range(800)]
    )
    assert set(rounded[:, 0]) == {2, 3}
    assert abs(rounded[:, 0].mean() - 2.25) < 4.5 * 0.0153
    assert (rounded[:, 1:] == [1, 0]).all()


def _rows_of(repeats):
    size_hw = np.random.default_rng(0).integers(20, 80, [len(repeats), 2]).astype(np.int32)

    def rows_of(epoch):
        rows = order.of_epoch(
            tf.constant(epoch, tf.int64),
            size_hw=tf.constant(size_hw),
            seed=3,
            short_edges=(48,),
            choose_canvas=lambda size_hw, _: (size_hw // 40 + 1) * 40,
            repeats=repeats,
        )
        return order.Rows(*(column.numpy() for column in rows))

    return rows_of


def test_an_epoch_has_records_as_often_as_their_factors_say():
    repeats = np.array([1.0, 2.5, 1.0, 3.0, 1.25])
    rows_of = _rows_of(repeats)
    positions, lengths = [], set()
    totals = np.zeros(5)
    for epoch in range(40):
        rows = rows_of(epoch)
        times = np.bincount(rows.record, minlength=5)
        assert (times >= np.floor(repeats)).all()
        assert (times <= np.ceil(repeats)).all()
        totals += times
        positions += rows.position.tolist()
        lengths.add(len(rows.record))
    assert lengths == {8, 9, 10}
    assert len(set(positions)) == len(positions)
    assert positions == sorted(positions)
    np.testing.assert_allclose(totals / 40, repeats, atol=4.5 * 0.5 / 40**0.5)


@pytest.mark.parametrize("num_steps", [0, 1, 5, 13, 40])
def test_a_place_is_where_going_through_the_stream_leads(num_steps):
    """Epochs of several lengths, several canvases: the slow oracle goes through all positions."""
    rows_of, window = _rows_of(np.array([1.0, 2.5, 1.0, 3.0, 1.25, 1.5, 1.0])), 3
    place = order.place_after(num_steps, window, rows_of, same_canvases=False)
    groups, steps, left = collections.defaultdict(list), 0, None
    for epoch in range(60):
        rows = rows_of(epoch)
        for k, (position, canvas) in enumerate(zip(rows.position, rows.canvas_hw, strict=True)):
            if steps == num_steps:
                left = epoch, k
                break
            group = groups[tuple(canvas)]
            group.append(position)
            if len(group) == window:
                group.clear()
                steps += 1
        if left:
            break
    waiting = sorted(position for group in groups.values() for position in group)
    assert place.waiting.position.tolist() == waiting
    rows = rows_of(place.epoch)
    following = [*rows.position[place.offset :], *rows_of(place.epoch + 1).position]
    assert following[0] == [*rows_of(left[0]).position[left[1] :]][0]


@pytest.fixture
def pattern(scene_type, write_records):
    """Twelve images of category 1; every fourth has 7, and one has 90."""
    scenes = []
    for k in range(12):
        categories = [1, 1] + [7] * (k % 4 == 0) + [90] * (k == 5)
        masks = np.zeros([len(categories), 30, 40], bool)
        masks[:, 5:20, 5:20] = True
        image = np.full([30, 40, 3], 100, np.uint8)
        crowds = [False] * len(categories)
        scenes.append(scene_type(image, masks, categories, crowds, f"img-{k}"))
    return write_records(scenes)


def _build(pattern, **replaced):
    arguments = {
        "label_map": LABEL_MAP,
        "is_training": True,
        "per_replica_batch_size": 2,
        "num_replicas": 1,
        "seed": 5,
        "short_edges": (32,),
        "long_edge": 64,
        "canvas_sizes": canvases.make((32,), 64),
        "resize_convention": "detectron2",
        "channel_order": "bgr",
        "pixel_mean": (103.0, 116.0, 123.0),
        "pixel_std": (1.0, 1.0, 1.0),
        "flip_probability": 0.5,
        "scale_jitter": (),
        "color_jitter": augment.ColorJitter(0.0, 0.0, 0.0, 0.0),
        "repeat_threshold": 0.5,
        "max_instances": 4,
        "mask_arena_pixels": 2**13,
    }
    return pipeline.build(pattern, **(arguments | replaced))


def test_batches_have_rare_categories_more_often_and_a_later_start_has_the_same(pattern):
    """7 is in 3 of 12 images, sqrt(2) times; 90 in one, sqrt(6) times."""
    batches = list(_build(pattern).take(80).as_numpy_iterator())
    counts = collections.Counter()
    for batch in batches:
        counts.update(row.tobytes().rstrip(b"\0").decode() for row in batch[schema.SOURCE_ID])
    once = np.mean([counts[f"img-{k}"] for k in (1, 2, 3, 6, 7, 9, 10, 11)])
    assert abs(counts["img-5"] / once - 6**0.5) < 0.4
    assert abs(np.mean([counts[f"img-{k}"] for k in (0, 4, 8)]) / once - 2**0.5) < 0.3
    later = _build(pattern, first_step=33).take(3).as_numpy_iterator()
    for a, b in zip(batches[33:], later, strict=False):
        for key in a:
            np.testing.assert_array_equal(a[key], b[key], err_msg=key)


def test_categories_are_kept_beside_the_index_and_asked_of_older_ones_once(pattern, monkeypatch):
    files = record_files.find(pattern)
    index = record_index.of_files(files)
    path = pathlib.Path(files[0]).with_name(record_index.INDEX_FILE)
    kept = dict(np.load(path))
    for key in ("has_categories", "num_categories", "categories"):
        kept.pop(key)
    np.savez(path, **kept)  # as an older version wrote it
    read, seen = record_index._read, []
    monkeypatch.setattr(
        record_index, "_read", lambda paths, _: seen.append(paths) or read(paths, _)
    )
    np.testing.assert_array_equal(record_index.of_files(files).length, index.length)
    assert not seen
    for _ in range(2):
        counts, ids = record_index.categories(files)
        assert seen == [files]
        order = [0, 2, 4, 6, 8, 10, 1, 3, 5, 7, 9, 11]  # by file
        expected = [[1] + [7] * (k % 4 == 0) + [90] * (k == 5) for k in order]
        assert counts.tolist() == [len(one) for one in expected]
        assert ids.tolist() == [k for one in expected for k in one]
