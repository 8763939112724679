"""copy_paste.py: pasted objects against painting full masks, and through the whole pipeline."""

import collections
import itertools

import numpy as np
import pytest
import tensorflow as tf

from mrcnn_tf.data import augment, canvases, copy_paste, decoder, pipeline, preprocess, schema
from mrcnn_tf.data.label_map import LabelMap

LABEL_MAP = LabelMap((1, 7, 90), ("one", "seven", "ninety"))
RULE = copy_paste.CopyPaste(probability=1.0, min_pixels=300, max_box_shift=10.0)
SIDE = 48


def _decode(scene, serialize, **overrides):
    record = serialize(scene, **overrides)
    return decoder.decode(record, label_ids=LABEL_MAP.ids, include_masks=True)


def _objects(scene, serialize, seed):
    """Flip and jitter a scene as the pipeline does; return its objects in the network input."""
    seeds = tf.constant([seed, 1], tf.int64)
    example = augment.random_flip_left_right(_decode(scene, serialize), seeds, 0.5)
    fitted = preprocess.resized_size_hw(
        tf.constant(scene.image.shape[:2]), SIDE, SIDE, "detectron2"
    )
    example, size_hw = augment.random_scale_and_crop(example, seeds, fitted, SIDE, (0.3, 2.5))
    return preprocess.scale_objects(example, size_hw)


def _tight_box(mask):
    ys, xs = np.nonzero(mask)
    return np.array([ys.min(), xs.min(), ys.max() + 1, xs.max() + 1], np.float32)


def _paint(masks, boxes, pasted_masks, rule):
    """The slow twin: full masks, pasted ones painted over the others.

    Args:
      masks: bool [n, H, W], those below.
      boxes: float32 [n, 4].
      pasted_masks: bool [m, H, W].
      rule: when an object is dropped.

    Returns:
      Of what lies below: for those not touched, then for those cut, (number, mask, box) each.
    """
    lid = pasted_masks.any(axis=0)
    whole, cut = [], []
    for k, (mask, box) in enumerate(zip(masks, boxes, strict=True)):
        left = mask & ~lid
        if left.sum() == mask.sum():
            whole.append((k, mask, box))
        elif left.any():
            new_box = _tight_box(left)
            moved = np.abs(new_box - box).max() > rule.max_box_shift
            if left.sum() > rule.min_pixels or not moved:
                cut.append((k, left, new_box))
    return whole + cut


@pytest.mark.parametrize("in_graph", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_pasting_equals_painting_full_masks(make_scene, serialize, example_masks, in_graph):
    """Objects of blocks and speckles, flipped, shrunk, enlarged and cut off at the canvas."""
    rule = copy_paste.CopyPaste(1.0, min_pixels=40, max_box_shift=3.0)
    cover = tf.function(copy_paste.cover, reduce_retracing=True) if in_graph else copy_paste.cover
    seen = collections.Counter()
    canvas = tf.constant([SIDE, SIDE])
    for seed in range(8):
        below = _objects(make_scene(seed, 20, 31, 5), serialize, seed)
        pasted = _objects(make_scene(seed + 100, 27, 17, 3), serialize, seed + 100)
        masks, on_top = (example_masks(objects, SIDE, SIDE) for objects in (below, pasted))
        boxes = below[schema.GT_BOXES].numpy()
        together, lid = cover(below, pasted, canvas, rule)
        expected = _paint(masks, boxes, on_top, rule)
        numbers = [k for k, _, _ in expected]
        np.testing.assert_array_equal(
            example_masks(together, SIDE, SIDE), [m for _, m, _ in expected] + [*on_top]
        )
        np.testing.assert_allclose(
            together[schema.GT_BOXES],
            np.concatenate([*(b[None] for _, _, b in expected), pasted[schema.GT_BOXES]]),
        )
        for key in (schema.GT_CLASSES, schema.GT_IS_CROWD):
            of_all = np.concatenate([below[key].numpy()[numbers], pasted[key]])
            np.testing.assert_array_equal(together[key], of_all)
        np.testing.assert_array_equal(np.unpackbits(lid, axis=1), on_top.any(axis=0))
        seen["dropped"] += len(masks) - len(expected)
        seen["cut"] += sum(not np.array_equal(m, masks[k]) for k, m, _ in expected)
        seen["whole"] += sum(np.array_equal(m, masks[k]) for k, m, _ in expected)
    assert min(seen.values()) >= 2, seen


def _plain_objects(masks, **replaced):
    """Objects of full masks bool [n, H, W], stored as crops of the whole canvas."""
    count, height, width = masks.shape
    objects = {
        schema.GT_BOXES: tf.constant([_tight_box(mask) for mask in masks]),
        schema.GT_CLASSES: tf.range(1, count + 1),
        schema.GT_IS_CROWD: tf.zeros([count], tf.bool),
        schema.GT_MASK_BITS: tf.constant(np.packbits(masks.reshape(-1))),
        schema.GT_MASK_FRAMES: tf.constant([[0.0, 0.0, height, width]] * count),
        schema.GT_MASK_SIZES: tf.constant([[height, width]] * count),
    }
    return objects | replaced


@pytest.mark.parametrize(
    ("covered_rows", "covered_columns", "is_left"),
    [
        # Of 40 x 30 pixels: 10 rows, 300 pixels, are left, and the box has lost 30.
        (slice(0, 30), slice(0, 30), False),
        (slice(0, 29), slice(0, 30), True),  # 330 are left
        # A frame of pixels is left, far fewer than 300, but the box is what it was.
        (slice(1, 39), slice(1, 29), True),
        # 29 columns are covered: 40 pixels are left in one.
        (slice(0, 40), slice(0, 29), False),
        (slice(0, 40), slice(0, 30), False),  # nothing is left
    ],
)
def test_hand_worked_drops(example_masks, covered_rows, covered_columns, is_left):
    masks = np.zeros([1, 64, 64], bool)
    masks[0, :40, :30] = True
    lid = np.zeros_like(masks)
    lid[0, covered_rows, covered_columns] = True
    together, _ = copy_paste.cover(
        _plain_objects(masks), _plain_objects(lid), tf.constant([64, 64]), RULE
    )
    assert len(together[schema.GT_CLASSES]) == 1 + is_left
    if is_left:
        left = masks[0] & ~lid[0]
        np.testing.assert_array_equal(example_masks(together, 64, 64), [left, lid[0]])
        np.testing.assert_array_equal(together[schema.GT_BOXES][0], _tight_box(left))


def test_a_box_that_moves_by_ten_stays(example_masks):
    """20 x 10 pixels: 100 are left when 10 rows are covered, 90 when 11 are."""
    masks = np.zeros([1, 64, 64], bool)
    masks[0, 5:25, 5:15] = True
    for rows, is_left in ((10, True), (11, False)):
        lid = np.zeros_like(masks)
        lid[0, 5 : 5 + rows, 5:15] = True
        together, _ = copy_paste.cover(
            _plain_objects(masks), _plain_objects(lid), tf.constant([64, 64]), RULE
        )
        assert len(together[schema.GT_CLASSES]) == 1 + is_left


def test_what_is_not_covered_keeps_its_bits(example_masks):
    """Two objects stored at half the size: only the one that is cut gets bits of the input's."""
    stored = np.zeros([2, 32, 32], bool)
    stored[0, 4:12, 4:12] = stored[1, 20:30, 20:30] = True
    below = _plain_objects(stored)
    below[schema.GT_MASK_FRAMES] = below[schema.GT_MASK_FRAMES] * 2.0
    below[schema.GT_BOXES] = below[schema.GT_BOXES] * 2.0
    lid = np.zeros([1, 64, 64], bool)
    lid[0, 50:, 45:51] = True
    canvas = tf.constant([64, 64])
    together, covered = copy_paste.cover(below, _plain_objects(lid), canvas, RULE)
    np.testing.assert_array_equal(together[schema.GT_MASK_SIZES], [[32, 32], [64, 64], [64, 64]])
    full = stored.repeat(2, axis=1).repeat(2, axis=2)
    expected = [full[0], full[1] & ~lid[0], lid[0]]
    np.testing.assert_array_equal(example_masks(together, 64, 64), expected)
    np.testing.assert_array_equal(copy_paste.grown(tf.constant([50, 60]), covered), [64, 60])

    nothing = {key: value[:0] for key, value in below.items()}
    same, covered = copy_paste.cover(below, nothing, canvas, RULE)
    assert not covered.numpy().any()
    for key, value in below.items():
        np.testing.assert_array_equal(same[key], value)
    np.testing.assert_array_equal(copy_paste.grown(tf.constant([50, 60]), covered), [50, 60])


@pytest.mark.parametrize("share", [0.0, 0.1, 0.9, 1.0])
def test_pixels_are_pasted_one_by_one(share):
    """Bytes of which no, some, and all pixels are covered, beside `np.where`."""
    rng = np.random.default_rng(3)
    image, above = rng.normal(size=[2, 6, 40, 3]).astype(np.float32)
    is_pasted = rng.random([6, 40]) < share
    is_pasted[0, 8:24] = share > 0.0
    got = copy_paste.paste_pixels(
        tf.constant(image), tf.constant(np.packbits(is_pasted, axis=1)), tf.constant(above)
    )
    np.testing.assert_array_equal(got, np.where(is_pasted[:, :, None], above, image))


def test_objects_without_a_mask_stay(scene_type, serialize):
    masks = np.zeros([2, 30, 30], bool)
    masks[0, 5:20, 5:20] = True
    scene = scene_type(np.zeros([30, 30, 3], np.uint8), masks, [1, 7], [False, False])
    size_hw = tf.constant([30, 30])
    boxes = np.float32([[5, 5, 20, 20], [6, 6, 12, 12]]) / 30
    names = (schema.BBOX_YMIN, schema.BBOX_XMIN, schema.BBOX_YMAX, schema.BBOX_XMAX)
    columns = {name: boxes[:, k] for k, name in enumerate(names)}
    below = preprocess.scale_objects(_decode(scene, serialize, **columns), size_hw)
    lid = np.ones([1, 30, 30], bool)
    together, _ = copy_paste.cover(below, _plain_objects(lid), size_hw, RULE)
    np.testing.assert_array_equal(together[schema.GT_CLASSES], [2, 1])
    np.testing.assert_allclose(together[schema.GT_BOXES][0], [6, 6, 12, 12], rtol=1e-6)


def test_any_number_of_objects_is_as_likely():
    """Of three objects that may be pasted, none to three of 800 times: 200, deviation 12."""
    masks = np.ones([5, 4, 4], bool)
    is_crowd = tf.constant([False, True, False, False, False])
    sizes = tf.constant([[4, 4]] * 4 + [[0, 0]])  # the last has no mask
    objects = _plain_objects(masks)
    objects |= {
        schema.GT_IS_CROWD: is_crowd,
        schema.GT_MASK_SIZES: sizes,
        schema.GT_MASK_BITS: objects[schema.GT_MASK_BITS][:8],
    }
    choose = tf.function(lambda seed, room: copy_paste.choose(objects, seed, room))
    picked = [
        tuple(choose(tf.constant([5, k], tf.int64), tf.constant(9))[schema.GT_CLASSES].numpy())
        for k in range(800)
    ]
    counts = collections.Counter(len(classes) for classes in picked)
    assert set(counts) == {0, 1, 2, 3}
    assert all(abs(count - 200) < 4.5 * 12.3 for count in counts.values())
    each = collections.Counter(c for classes in picked for c in classes)
    assert set(each) == {1, 3, 4}
    assert all(abs(count - 400) < 4.5 * 16 for count in each.values())  # 1.5 of 3 on average
    for room in (0, -3):
        few = choose(tf.constant([5, 1], tf.int64), tf.constant(room))
        assert len(few[schema.GT_CLASSES]) == 0
        assert few[schema.GT_MASK_BITS].shape == (0,)


def _colored_scenes(scene_type, count):
    """Scenes of two objects, each of a colour of its own, on black."""
    rng = np.random.default_rng(0)
    scenes = []
    for k in range(count):
        masks = np.zeros([2, 40, 60], bool)
        image = np.zeros([40, 60, 3], np.uint8)
        for number, left in enumerate((2, 30)):
            y, x = rng.integers(0, 12), left + rng.integers(0, 12)
            masks[number, y : y + 25, x : x + 8] = masks[number, y : y + 9, x : x + 14] = True
        masks[1] &= ~masks[0]
        image[masks[0]] = 40 + 25 * k, 100, 255
        image[masks[1]] = 40 + 25 * k, 220, 255
        scenes.append(scene_type(image, masks, [1, 7], [False, False], f"img-{k}"))
    return scenes


def _build(pattern, pasting=RULE, **replaced):
    arguments = {
        "label_map": LABEL_MAP,
        "per_replica_batch_size": 2,
        "num_replicas": 1,
        "seed": 5,
        "short_edges": (96,),
        "long_edge": 96,
        "canvas_sizes": canvases.square(96),
        "resize_convention": "torchvision",
        "channel_order": "bgr",
        "pixel_mean": (1.0, 2.0, 3.0),
        "pixel_std": (1.0, 1.0, 1.0),
        "flip_probability": 0.5,
        "scale_jitter": (0.5, 2.0),
        "color_jitter": augment.ColorJitter(0.0, 0.0, 0.0, 0.0),
        "max_instances": 6,
        "mask_arena_pixels": 2**16,
        "pasting": pasting,
    }
    return pipeline.build(pattern, is_training=True, **(arguments | replaced))


def _rows(dataset):
    for batch in dataset.as_numpy_iterator():
        for k in range(len(batch[schema.IMAGE])):
            yield {key: value[k] for key, value in batch.items()}


def _without_edge(mask):
    """Take off the pixels that have one outside beside them, bool [H, W]."""
    padded = np.pad(mask, 1)
    height, width = mask.shape
    shifted = [padded[y : y + height, x : x + width] for y in range(3) for x in range(3)]
    return np.logical_and.reduce(shifted)


@pytest.mark.slow
def test_pixels_come_from_the_object_whose_mask_says_so(scene_type, write_records, arena_masks):
    """Red tells the image, green the object; where no mask is, it is black."""
    pattern = write_records(_colored_scenes(scene_type, 8))
    counts, grown = collections.Counter(), 0
    for row in _rows(_build(pattern).take(40)):
        masks = arena_masks(row, 96, 96)
        number = int(row[schema.SOURCE_ID].tobytes().rstrip(b"\0")[4:])
        height, width = row[schema.IMAGE_SIZE_HW].astype(int)
        assert not row[schema.IMAGE][height:].any()
        assert not row[schema.IMAGE][:, width:].any()
        assert not masks[:, height:].any()
        assert not masks[:, :, width:].any()
        padding = (row[schema.IMAGE] == 0).all(axis=-1)
        grown += padding[:height, :width].any()
        image = row[schema.IMAGE] + np.float32([1, 2, 3])  # blue, green, red
        counts[int(row[schema.GT_VALID].sum())] += 1
        reds = []
        for mask, kind in zip(masks, row[schema.GT_CLASSES], strict=True):
            inner = _without_edge(_without_edge(mask))  # edges are interpolated
            if not inner.any():
                continue
            of_object = image[inner]
            assert np.abs(of_object[:, 1] - (100 if kind == 1 else 220)).max() < 3
            assert np.ptp(of_object[:, 2]) < 3  # one image's
            reds.append((of_object[0, 2] - 40) / 25)
        assert np.abs(np.array(reds) - np.round(reds)).max(initial=0) < 0.12
        assert np.round(reds).astype(int).tolist() == sorted(
            np.round(reds).astype(int).tolist(), key=lambda red: red != number
        )  # its own objects first
        # Not black where no mask is: outlines only, interpolated.
        is_seen = (image[:height, :width, 0] > 128) & ~padding[:height, :width]
        assert (is_seen != masks.any(axis=0)[:height, :width]).mean() < 0.06
    assert set(counts) >= {1, 2, 3, 4}
    assert grown > 3


def _objects_of(row, arena_masks):
    count = int(row[schema.GT_VALID].sum())
    return (
        arena_masks(row, 96, 96)[:count],
        row[schema.GT_BOXES][:count],
        row[schema.GT_CLASSES][:count],
    )


def _is_pasted_from(row, plain, before, chosen, arena_masks):
    """Whether an image is a plain one with the chosen objects of another painted onto it."""
    masks, boxes, classes = _objects_of(plain, arena_masks)
    above, above_boxes, above_classes = (x[list(chosen)] for x in _objects_of(before, arena_masks))
    lid = above.any(axis=0)
    left = _paint(masks, boxes, above, RULE)
    numbers = [k for k, _, _ in left]
    got_masks, got_boxes, got_classes = _objects_of(row, arena_masks)
    return (
        np.array_equal(
            row[schema.IMAGE], np.where(lid[..., None], before[schema.IMAGE], plain[schema.IMAGE])
        )
        and np.array_equal(got_classes, [*classes[numbers], *above_classes])
        and np.array_equal(got_masks, np.array([m for _, m, _ in left] + [*above]))
        and np.array_equal(got_boxes, np.array([b for _, _, b in left] + [*above_boxes]))
    )


def test_objects_come_from_the_same_place_of_the_step_before(
    scene_type, write_records, arena_masks
):
    """The image there as the network saw it without pasting, some of its objects, bit by bit."""
    pattern = write_records(_colored_scenes(scene_type, 7))
    shape = {"per_replica_batch_size": 3, "max_instances": 4}
    plain = list(_rows(_build(pattern, None, **shape).take(8)))
    pasted = list(_rows(_build(pattern, **shape).take(8)))
    for row, same in zip(pasted[:3], plain[:3], strict=True):  # there is no step before
        for key in row:
            np.testing.assert_array_equal(row[key], same[key], err_msg=key)
    seen = collections.Counter()
    for row, under, before in zip(pasted[3:], plain[3:], plain[:-3], strict=True):
        numbers = range(int(before[schema.GT_VALID].sum()))
        subsets = [c for k in range(3) for c in itertools.combinations(numbers, k)]
        found = [c for c in subsets if _is_pasted_from(row, under, before, c, arena_masks)]
        assert len(found) == 1
        seen[len(found[0])] += 1
        np.testing.assert_array_equal(row[schema.SOURCE_ID], under[schema.SOURCE_ID])
    assert set(seen) == {0, 1, 2}


@pytest.mark.slow
def test_batches_are_a_function_of_seed_and_position(scene_type, write_records):
    """Begun later, and shared by three pipelines: byte by byte the batches of one run."""
    pattern = write_records(_colored_scenes(scene_type, 7))
    straight = list(_build(pattern, per_replica_batch_size=3).take(9).as_numpy_iterator())
    for step in (1, 6):
        later = _build(pattern, per_replica_batch_size=3, first_step=step).take(3)
        for a, b in zip(straight[step:], later.as_numpy_iterator(), strict=False):
            for key in a:
                np.testing.assert_array_equal(a[key], b[key], err_msg=key)
    for k in range(3):
        mine = _build(pattern, per_replica_batch_size=1, num_input_pipelines=3, input_pipeline_id=k)
        for a, b in zip(straight, mine.take(9).as_numpy_iterator(), strict=True):
            for key in a:
                np.testing.assert_array_equal(a[key][k : k + 1], b[key], err_msg=key)


@pytest.mark.slow
def test_a_worker_of_a_service_begins_with_nothing_to_paste(
    scene_type, write_records, arena_masks, monkeypatch
):
    """Also where a run goes on; then it pastes what itself had in the step before."""
    monkeypatch.setattr(pipeline.service, "read", lambda batches, _: batches)  # one worker's
    pattern = write_records(_colored_scenes(scene_type, 7))
    through = pipeline.service.Service("a:1", "job", 1, 0, 1)
    shape = {"per_replica_batch_size": 3, "max_instances": 4, "through": through, "first_step": 2}
    plain = list(_rows(_build(pattern, None, **shape).take(2)))
    pasted = list(_rows(_build(pattern, **shape).take(2)))
    for row, same in zip(pasted[:3], plain[:3], strict=True):
        for key in row:
            np.testing.assert_array_equal(row[key], same[key], err_msg=key)
    found = 0
    for row, under, before in zip(pasted[3:], plain[3:], plain[:3], strict=True):
        numbers = range(int(before[schema.GT_VALID].sum()))
        subsets = [c for k in range(3) for c in itertools.combinations(numbers, k)]
        (chosen,) = [c for c in subsets if _is_pasted_from(row, under, before, c, arena_masks)]
        found += len(chosen)
    assert found > 0


@pytest.mark.slow
def test_some_images_get_no_objects(scene_type, write_records):
    """With a probability of a half; the others are what they are without pasting."""
    pattern = write_records(_colored_scenes(scene_type, 8))
    half = RULE._replace(probability=0.5)
    same = 0
    pairs = zip(
        _rows(_build(pattern, half).take(32)), _rows(_build(pattern, None).take(32)), strict=True
    )
    for pasted, plain in pairs:
        np.testing.assert_array_equal(pasted[schema.SOURCE_ID], plain[schema.SOURCE_ID])
        same += np.array_equal(pasted[schema.IMAGE], plain[schema.IMAGE])
    assert 32 + 1 <= same < 58  # a half, and those that drew no object


@pytest.mark.slow
def test_there_is_never_more_than_room_for(scene_type, write_records):
    pattern = write_records(_colored_scenes(scene_type, 8))
    for row in _rows(_build(pattern, max_instances=3).take(20)):
        assert row[schema.NUM_DROPPED_OBJECTS] == 0
