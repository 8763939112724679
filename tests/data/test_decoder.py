"""decoder.py: records of our own and of Model Garden's format."""

import numpy as np
import pytest
import tensorflow as tf

from mrcnn_tf.data import decoder, schema

LABEL_IDS = (90, 1, 7)  # classes 1, 2, 3


def _decode(serialized, include_masks=True):
    return decoder.decode(serialized, label_ids=LABEL_IDS, include_masks=include_masks)


@pytest.mark.parametrize("mask_format", ["rle", "png"])
@pytest.mark.parametrize("num_objects", [0, 1, 5])
def test_scene_comes_back(make_scene, serialize, example_masks, mask_format, num_objects):
    scene = make_scene(num_objects, 13, 17, num_objects)
    example = _decode(serialize(scene, mask_format))
    np.testing.assert_array_equal(example[schema.IMAGE], scene.image)
    assert example[schema.SOURCE_ID].numpy() == b"42"
    np.testing.assert_allclose(example[schema.GT_BOXES], scene.boxes, atol=1e-5)
    expected_classes = [{90: 1, 1: 2, 7: 3}[c] for c in scene.categories]
    np.testing.assert_array_equal(example[schema.GT_CLASSES], expected_classes)
    np.testing.assert_array_equal(example[schema.GT_IS_CROWD], scene.crowds)
    np.testing.assert_array_equal(example_masks(example, 13, 17), scene.masks)
    # A crop is the tightest one, whatever the format.
    crops = example[schema.GT_MASK_FRAMES]
    np.testing.assert_array_equal(crops, scene.boxes)


def test_hand_worked_run_lengths(scene_type, serialize):
    mask = np.zeros([1, 4, 5], bool)
    mask[0, 1, 1:3] = True
    mask[0, 2, 2:4] = True
    scene = scene_type(np.zeros([4, 5, 3], np.uint8), mask, [7], [False])
    # Crop rows 1..2, columns 1..3: 110 / 011, so outside 0, inside 2, outside 2, inside 2.
    example = _decode(
        serialize(
            scene,
            **{
                schema.MASK_CROP: [1, 1, 2, 3],
                schema.MASK_NUM_RUNS: [4],
                schema.MASK_RUNS: [0, 2, 2, 2],
            },
        )
    )
    np.testing.assert_array_equal(example[schema.GT_MASK_BITS], [0b11001100])
    np.testing.assert_array_equal(example[schema.GT_MASK_SIZES], [[2, 3]])
    np.testing.assert_array_equal(example[schema.GT_MASK_FRAMES], [[1, 1, 3, 4]])


@pytest.mark.parametrize("mask_format", ["rle", "png"])
def test_empty_mask_between_others(make_scene, serialize, example_masks, mask_format):
    scene = make_scene(1, 6, 7, 3)
    scene.masks[1] = False
    example = _decode(serialize(scene, mask_format))
    np.testing.assert_array_equal(example[schema.GT_MASK_SIZES][1], [0, 0])
    np.testing.assert_array_equal(example_masks(example, 6, 7), scene.masks)


@pytest.mark.parametrize(("mask_format", "include_masks"), [("none", True), ("rle", False)])
def test_without_masks(make_scene, serialize, mask_format, include_masks):
    scene = make_scene(2, 8, 9, 4)
    example = _decode(serialize(scene, mask_format), include_masks)
    assert example[schema.GT_MASK_BITS].shape == [0]
    np.testing.assert_array_equal(example[schema.GT_MASK_SIZES], np.zeros([4, 2]))
    np.testing.assert_allclose(example[schema.GT_BOXES], scene.boxes, atol=1e-5)


def test_record_without_is_crowd_has_no_crowds(make_scene, serialize):
    example = _decode(serialize(make_scene(3, 8, 9, 3), **{schema.IS_CROWD: []}))
    np.testing.assert_array_equal(example[schema.GT_IS_CROWD], [False] * 3)


def test_boxes_are_clipped_to_the_image(make_scene, serialize):
    scene = make_scene(4, 8, 10, 1)
    columns = {
        schema.BBOX_YMIN: [-0.5],
        schema.BBOX_XMIN: [0.25],
        schema.BBOX_YMAX: [0.5],
        schema.BBOX_XMAX: [1.5],
    }
    example = _decode(serialize(scene, **columns))
    np.testing.assert_allclose(example[schema.GT_BOXES], [[0, 2.5, 4, 10]])


def test_jpeg_is_decoded_as_pillow_does(scene_type, serialize):
    image_lib = pytest.importorskip("PIL.Image")
    import io

    ramp = np.add.outer(np.arange(32), 3 * np.arange(48))[..., None] * [1, 2, 3] % 256
    file = io.BytesIO()
    image_lib.fromarray(ramp.astype(np.uint8)).save(file, "jpeg", quality=80)
    scene = scene_type(np.zeros([32, 48, 3], np.uint8), np.zeros([0, 32, 48], bool), [], [])
    example = _decode(serialize(scene, **{schema.IMAGE_ENCODED: [file.getvalue()]}))
    file.seek(0)
    np.testing.assert_array_equal(example[schema.IMAGE], np.asarray(image_lib.open(file)))


def test_gray_jpeg_becomes_rgb(scene_type, serialize):
    gray = tf.io.encode_jpeg(np.full([8, 8, 1], 77, np.uint8)).numpy()
    scene = scene_type(np.zeros([8, 8, 3], np.uint8), np.zeros([0, 8, 8], bool), [], [])
    example = _decode(serialize(scene, **{schema.IMAGE_ENCODED: [gray]}))
    np.testing.assert_array_equal(example[schema.IMAGE], np.full([8, 8, 3], 77))


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({schema.CLASS_LABEL: [1, 5]}, ["photo-9", "label map", "[5]"]),
        ({schema.CLASS_LABEL: [1]}, ["photo-9", schema.BBOX_YMIN, "[2]", "[1]"]),
        ({schema.BBOX_XMAX: [0.0, 0.0]}, ["photo-9", "without area", "[0 1]"]),
        ({schema.BBOX_YMIN: [float("nan"), 0.0]}, ["photo-9", "without area", "[0"]),
        ({schema.BBOX_YMIN: [0.0]}, ["photo-9", schema.BBOX_YMIN]),
        ({schema.MASK_NUM_RUNS: [1]}, ["photo-9", schema.MASK_NUM_RUNS]),
        ({schema.MASK_NUM_RUNS: [1, 1000]}, ["photo-9", schema.MASK_RUNS]),
        ({schema.MASK_CROP: [0, 0, 1, 1]}, ["photo-9", schema.MASK_CROP]),
        ({schema.IS_CROWD: [0]}, ["photo-9", schema.IS_CROWD]),
        ({schema.MASK_RUNS: [1, 1]}, ["photo-9", "mask pixels"]),
        ({schema.IMAGE_SOURCE_ID: [b""]}, [schema.IMAGE_SOURCE_ID, "128"]),
        ({schema.IMAGE_SOURCE_ID: [b"x" * 129]}, [schema.IMAGE_SOURCE_ID, "129"]),
        ({schema.IMAGE_SOURCE_ID: [b"a\x92\xff"]}, [schema.IMAGE_SOURCE_ID, "no UTF-8", "YZL_"]),
        (
            {schema.IMAGE_SOURCE_ID: [b"\x92"], schema.IS_CROWD: [0]},
            [schema.IMAGE_SOURCE_ID, "no UTF-8", "kg"],
        ),
    ],
)
def test_wrong_data_is_refused_by_name(make_scene, serialize, columns, words):
    scene = make_scene(5, 8, 9, 2, source_id="photo-9")
    if schema.MASK_RUNS in columns:
        columns = columns | {schema.MASK_NUM_RUNS: [1, 1]}
    dataset = tf.data.Dataset.from_tensors(serialize(scene, **columns)).map(_decode)
    with pytest.raises(tf.errors.InvalidArgumentError) as error:
        next(iter(dataset))
    assert all(word in str(error.value) for word in words), str(error.value)


def test_category_ids_may_have_64_bits(make_scene, serialize):
    ids = (2**40, -3, 2**40 + 1)
    scene = make_scene(6, 8, 9, 3)
    scene.categories = [2**40 + 1, -3, 2**40]
    example = decoder.decode(serialize(scene), label_ids=ids, include_masks=True)
    np.testing.assert_array_equal(example[schema.GT_CLASSES], [3, 2, 1])


@pytest.mark.parametrize("encode", [tf.io.encode_png, tf.io.encode_jpeg])
@pytest.mark.parametrize("shape", [(300, 7, 3), (1, 1000, 1), (256, 65, 3)])
def test_size_is_read_from_the_header(make_scene, serialize, encode, shape):
    """And is that of the image, whatever the record says beside it."""
    encoded = encode(np.zeros(shape, np.uint8)).numpy()
    record = serialize(make_scene(1, 13, 17, 1), **{schema.IMAGE_ENCODED: [encoded]})
    np.testing.assert_array_equal(decoder.image_size_hw(record), shape[:2])
    (size,) = tf.data.Dataset.from_tensors(record).map(decoder.image_size_hw)
    assert size.dtype == tf.int32
    np.testing.assert_array_equal(size, shape[:2])
