"""Hand-made records and the slow oracle of the mask lookup, for the tests of the data path."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from mrcnn_tf.data import schema


@dataclasses.dataclass
class Scene:
    """An image and its objects, as a test says them."""

    image: np.ndarray  # uint8 [h, w, 3]
    masks: np.ndarray  # bool [n, h, w]
    categories: list[int]
    crowds: list[bool]
    source_id: str = "42"

    @property
    def boxes(self) -> np.ndarray:
        """Tight boxes float32 [n, (y1, x1, y2, x2)]; a box of one pixel for an empty mask."""
        boxes = np.zeros([len(self.masks), 4], np.float32)
        for i, mask in enumerate(self.masks):
            ys, xs = np.nonzero(mask) if mask.any() else ([0], [0])
            boxes[i] = np.min(ys), np.min(xs), np.max(ys) + 1, np.max(xs) + 1
        return boxes


def random_scene(seed: int, height: int, width: int, num_objects: int, source_id="42") -> Scene:
    """Objects of random blocks and speckles: holes, parts, single pixels, whole rows."""
    rng = np.random.default_rng(seed)
    masks = np.zeros([num_objects, height, width], bool)
    for mask in masks:
        y1, y2 = np.sort(rng.choice(height + 1, 2, replace=False))
        x1, x2 = np.sort(rng.choice(width + 1, 2, replace=False))
        mask[y1:y2, x1:x2] = rng.random([y2 - y1, x2 - x1]) < rng.choice([0.3, 0.9, 1.0])
        mask[y1, x1] = True
    return Scene(
        image=rng.integers(0, 256, [height, width, 3], dtype=np.uint8),
        masks=masks,
        categories=[int(c) for c in rng.choice([1, 7, 90], num_objects)],
        crowds=[bool(c) for c in rng.random(num_objects) < 0.3],
        source_id=source_id,
    )


def _feature(values) -> tf.train.Feature:
    values = list(values)
    if not values:
        return tf.train.Feature()
    if isinstance(values[0], bytes):
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=values))
    if isinstance(values[0], float | np.floating):
        return tf.train.Feature(float_list=tf.train.FloatList(value=values))
    return tf.train.Feature(int64_list=tf.train.Int64List(value=[int(v) for v in values]))


def _run_lengths(crop: np.ndarray) -> list[int]:
    runs, inside, length = [], False, 0
    for pixel in crop.ravel():
        if pixel != inside:
            runs.append(length)
            inside, length = not inside, 0
        length += 1
    return [*runs, length]


def _serialize(scene: Scene, mask_format: str = "rle", **overrides) -> bytes:
    """Return the record of a scene; `overrides` replaces whole features by lists of values."""
    height, width = scene.image.shape[:2]
    boxes = scene.boxes / np.float32([height, width, height, width])
    columns = {
        schema.IMAGE_ENCODED: [tf.io.encode_png(scene.image).numpy()],
        schema.IMAGE_FORMAT: [b"png"],
        schema.IMAGE_SOURCE_ID: [scene.source_id.encode()],
        schema.IMAGE_HEIGHT: [height],
        schema.IMAGE_WIDTH: [width],
        schema.BBOX_YMIN: boxes[:, 0],
        schema.BBOX_XMIN: boxes[:, 1],
        schema.BBOX_YMAX: boxes[:, 2],
        schema.BBOX_XMAX: boxes[:, 3],
        schema.CLASS_LABEL: scene.categories,
        schema.IS_CROWD: scene.crowds,
    }
    if mask_format == "rle":
        crops, runs = [], []
        for mask, box in zip(scene.masks, scene.boxes.astype(int), strict=True):
            y1, x1, y2, x2 = box if mask.any() else (0, 0, 0, 0)
            crops += [y1, x1, y2 - y1, x2 - x1]
            runs.append(_run_lengths(mask[y1:y2, x1:x2]) if mask.any() else [])
        columns[schema.MASK_CROP] = crops
        columns[schema.MASK_NUM_RUNS] = [len(r) for r in runs]
        columns[schema.MASK_RUNS] = [length for r in runs for length in r]
    elif mask_format == "png":
        columns[schema.MASK_PNG] = [
            tf.io.encode_png(mask[..., None].astype(np.uint8)).numpy() for mask in scene.masks
        ]
    columns |= overrides
    features = {name: _feature(values) for name, values in columns.items()}
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()


def _crop_index(num_pixels, start, end, length) -> np.ndarray:
    """Evaluate the lookup formula of `schema.py` along one axis: int [num_pixels], -1 outside."""
    if length == 0:
        return np.full(num_pixels, -1)
    centre = np.arange(num_pixels, dtype=np.float32) + np.float32(0.5)
    index = np.floor((centre - start) * np.float32(length) / (end - start))
    return np.where((index >= 0) & (index < length), index, -1).astype(int)


def _full_mask(pixels, size, frame, height: int, width: int) -> np.ndarray:
    """Look up every pixel of a height x width network input: bool [height, width].

    Args:
      pixels: bool [size[0] * size[1]], the crop row by row.
      size: (height, width) of the crop.
      frame: float32 (y1, x1, y2, x2), network-input pixels.
      height: rows of the network input.
      width: its columns.
    """
    rows = _crop_index(height, frame[0], frame[2], size[0])
    cols = _crop_index(width, frame[1], frame[3], size[1])
    mask = np.zeros([height, width], bool)
    seen = np.ix_(rows >= 0, cols >= 0)
    crop = np.asarray(pixels).reshape(size)
    mask[seen] = crop[np.ix_(rows[rows >= 0], cols[cols >= 0])]
    return mask


def _example_masks(example, height: int, width: int) -> np.ndarray:
    """Read the masks of a decoded example: bool [n, height, width]."""
    sizes = np.asarray(example[schema.GT_MASK_SIZES])
    splits = np.cumsum(sizes.prod(axis=1))
    bits = np.unpackbits(np.asarray(example[schema.GT_MASK_BITS])).astype(bool)
    pixels = np.split(bits, splits)
    frames = np.asarray(example[schema.GT_MASK_FRAMES])
    masks = [
        _full_mask(p, s, f, height, width)
        for p, s, f in zip(pixels[: len(sizes)], sizes, frames, strict=True)
    ]
    return np.array(masks, bool).reshape(len(sizes), height, width)


def _arena_masks(row, height: int, width: int) -> np.ndarray:
    """Read the masks of one image of a batch: bool [G, height, width], False where invalid."""
    bits = np.unpackbits(np.asarray(row[schema.GT_MASK_BITS])).astype(bool)
    masks = np.zeros([len(row[schema.GT_VALID]), height, width], bool)
    for g in np.flatnonzero(row[schema.GT_MASKS_VALID]):
        size = np.asarray(row[schema.GT_MASK_SIZES])[g]
        start = int(row[schema.GT_MASK_OFFSETS][g])
        pixels = bits[start : start + size.prod()]
        masks[g] = _full_mask(
            pixels, size, np.asarray(row[schema.GT_MASK_FRAMES])[g], height, width
        )
    return masks


@pytest.fixture(scope="session")
def make_scene():
    """`random_scene(seed, height, width, num_objects, source_id)`."""
    return random_scene


@pytest.fixture(scope="session")
def scene_type():
    """The class `Scene`."""
    return Scene


@pytest.fixture(scope="session")
def serialize():
    """`serialize(scene, mask_format="rle" | "png" | "none", **features)` -> record bytes."""
    return _serialize


@pytest.fixture(scope="session")
def example_masks():
    """`example_masks(example, height, width)` -> bool [n, height, width]."""
    return _example_masks


@pytest.fixture(scope="session")
def arena_masks():
    """`arena_masks(batch row, height, width)` -> bool [G, height, width]."""
    return _arena_masks


@pytest.fixture
def write_records(tmp_path):
    """`write_records(scenes, num_shards)` -> glob pattern of record files."""

    def write(scenes, num_shards: int = 2) -> str:
        for shard in range(num_shards):
            name = f"set-{shard:05d}-of-{num_shards:05d}.tfrecord"
            with tf.io.TFRecordWriter(str(tmp_path / name)) as writer:
                for scene in scenes[shard::num_shards]:
                    writer.write(_serialize(scene))
        return str(tmp_path / "set-*.tfrecord")

    return write
