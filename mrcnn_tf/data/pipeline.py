"""The input pipeline: record files -> batches per `schema.py`.

    files -> shuffle -> repeat -> choose canvas -> group by canvas -> skip what was seen
          -> decode, join proposals, augment, resize, normalise, pad, pack masks
          -> batch -> prefetch

The canvas is chosen from the image's header, so records wait for their group encoded, and what a
resumed run has seen is skipped at the cost of reading it. All random numbers are stateless
functions of the seed and the position in the stream; the same seed gives the same batches, and
those from step k on are the same whether the run began at 0 or at k.

Several pipelines, one on each machine, go through the same stream and agree without a word: each
chooses canvases and groups for all of them, and decodes its own part of each step. So a step has
the images that it would have on one machine, all on one canvas, and nothing depends on how many
files there are. The price is that each machine reads every record.
"""

from collections.abc import Sequence
from typing import Protocol

import tensorflow as tf

from mrcnn_tf.data import augment, canvases, decoder, preprocess, record_files, schema
from mrcnn_tf.data.label_map import LabelMap

# A record on its way to a batch.
_POSITION = "position"  # int64 []: in the stream
_SERIALIZED = "serialized"  # string []: the record, "" for the blank image that fills a batch
_CANVAS_HW = "canvas_hw"  # int32 [2]: the canvas to pad to
_SIZE_HW = "size_hw"  # int32 [2], once it is loaded: the size to resize to
_NUM_OPEN_FILES = 16


class Proposals(Protocol):
    """What a detector without an RPN gets joined to its images; `staged/proposals.py` has some."""

    def check_records(self, files: Sequence[str]) -> None:
        """Refuse record files for which they were not made."""

    def join(self, example: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Return a decoded example's `schema.PROPOSAL_BOXES`, float32 [n, 4], stored pixels."""


def build(
    file_pattern: str | Sequence[str],
    *,
    label_map: LabelMap,
    is_training: bool,
    per_replica_batch_size: int,
    num_replicas: int,
    seed: int,
    short_edges: tuple[int, ...],
    long_edge: int,
    canvas_sizes: tuple[tuple[int, int], ...] | None,
    resize_convention: str,
    channel_order: str,
    pixel_mean: tuple[float, ...],
    pixel_std: tuple[float, ...],
    flip_probability: float,
    scale_jitter: tuple[float, ...],
    color_jitter: augment.ColorJitter,
    shuffle_buffer: int,
    max_instances: int,
    mask_arena_pixels: int,
    num_input_pipelines: int = 1,
    input_pipeline_id: int = 0,
    first_step: int = 0,
    proposals: Proposals | None = None,
    num_proposals: int = 0,
) -> tf.data.Dataset:
    """Build the data set of batches for one input pipeline.

    Each element is one replica's batch; every run of `num_replicas` elements, beginning with the
    first, has one canvas and makes one step, together with those of the other pipelines; an image
    waits until its canvas has enough of them. Training is endless, shuffled and augmented.
    Evaluation gives every image exactly once over all pipelines, in the order of the files within
    each canvas; the last batches are filled up with blank images, whose `source_id` is all zero, so
    that every pipeline has as many of them.

    Args:
      file_pattern: glob pattern or patterns of TFRecord files.
      label_map: the data set's categories.
      is_training: see above. Evaluation takes no random choice: not flipped, first short edge.
      per_replica_batch_size: B.
      num_replicas: replicas that this input pipeline feeds.
      seed: of shuffling and augmentation.
      short_edges: lengths of the short edge to choose from, pixels.
      long_edge: length that the long edge does not exceed, pixels.
      canvas_sizes: (height, width) of the canvases, from `canvases.make`, or `canvases.square` with
        `scale_jitter`; None gives every image its own size rounded up to a multiple of 32, so
        batches hold images of like size only.
      resize_convention: see `preprocess.py`.
      channel_order: "rgb" or "bgr".
      pixel_mean: per channel in that order, range 0..255.
      pixel_std: likewise.
      flip_probability: of mirroring a training image left to right.
      scale_jitter: (smallest, largest) factor on a training image's size, of which at most
        `long_edge` x `long_edge` is then seen; empty for none.
      color_jitter: how far the colours of training images move.
      shuffle_buffer: records that wait, encoded, to be drawn from.
      max_instances: G.
      mask_arena_pixels: capacity of the arena, a multiple of 8; 0 reads no masks.
      num_input_pipelines: how many pipelines (hosts) share the images of each step.
      input_pipeline_id: which of them this is.
      first_step: of training: batches of the steps before are left out.
      proposals: boxes to join to the images; None for none.
      num_proposals: P, the best ones of each image, padded to this many.

    Returns:
      A data set of dicts, the batches of `schema.py`.

    Raises:
      FileNotFoundError: a pattern matches no file.
      ValueError: the files hold no record, or the proposals are not of these records.
    """
    files = record_files.find(file_pattern)
    if proposals:
        proposals.check_records(files)
    records = _records(files, is_training, seed, shuffle_buffer)

    def seeds_of(position: tf.Tensor) -> tf.Tensor:
        return tf.stack([seed, position])

    def resized_hw(image_hw: tf.Tensor, position: tf.Tensor) -> tf.Tensor:
        short_edge = short_edges[0]
        if is_training:
            short_edge = augment.random_short_edge(short_edges, seeds_of(position))
        return preprocess.resized_size_hw(image_hw, short_edge, long_edge, resize_convention)

    @tf.autograph.experimental.do_not_convert  # halves the time to build
    def choose_canvas(position: tf.Tensor, serialized: tf.Tensor) -> dict[str, tf.Tensor]:
        """Decide the canvas of a record, without decoding its image."""
        if canvas_sizes is not None and len(canvas_sizes) == 1:
            canvas_hw = tf.constant(canvas_sizes[0])
        else:
            size_hw = resized_hw(decoder.image_size_hw(serialized), position)
            canvas_hw = (
                canvases.round_up(size_hw)
                if canvas_sizes is None
                else canvases.choose(size_hw, canvas_sizes)
            )
        return {_POSITION: position, _SERIALIZED: serialized, _CANVAS_HW: canvas_hw}

    def load(record: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Decode and augment a record, and decide its size."""
        example = decoder.decode(
            record[_SERIALIZED], label_ids=label_map.ids, include_masks=mask_arena_pixels > 0
        )
        if proposals:
            example |= proposals.join(example)
        seeds = seeds_of(record[_POSITION])
        size_hw = resized_hw(tf.shape(example[schema.IMAGE])[:2], record[_POSITION])
        if is_training:
            example = augment.random_flip_left_right(example, seeds, flip_probability)
            if scale_jitter:
                example, size_hw = augment.random_scale_and_crop(
                    example, seeds, size_hw, long_edge, scale_jitter
                )
            if any(color_jitter):
                example = augment.random_color(example, seeds, color_jitter)
        return example | {_SIZE_HW: size_hw}

    @tf.autograph.experimental.do_not_convert
    def finish(record: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Turn a record into a batch's row."""
        if is_training:
            example = load(record)
        else:
            is_blank = tf.strings.length(record[_SERIALIZED]) == 0
            blank = _blank_example()
            if proposals:
                blank[schema.PROPOSAL_BOXES] = tf.zeros([0, 4])
            example = tf.cond(is_blank, lambda: blank, lambda: load(record))
        size_hw = example[_SIZE_HW]
        image = preprocess.prepare_image(
            example[schema.IMAGE],
            size_hw,
            record[_CANVAS_HW],
            convention=resize_convention,
            channel_order=channel_order,
            pixel_mean=pixel_mean,
            pixel_std=pixel_std,
        )
        if canvas_sizes is not None and len(canvas_sizes) == 1:
            image.set_shape([*canvas_sizes[0], 3])
        objects = preprocess.prepare_objects(
            example, size_hw, max_instances=max_instances, mask_arena_pixels=mask_arena_pixels
        )
        given = preprocess.prepare_proposals(example, size_hw, num_proposals) if proposals else {}
        return {schema.IMAGE: image} | objects | given | preprocess.identity(example, size_hw)

    share = per_replica_batch_size * num_replicas  # of the images of a step
    dataset = records.enumerate().map(choose_canvas, num_parallel_calls=tf.data.AUTOTUNE)
    dataset = _group_by_canvas(dataset, share, num_input_pipelines, input_pipeline_id, is_training)
    dataset = dataset.skip(first_step * share)
    dataset = dataset.map(finish, num_parallel_calls=tf.data.AUTOTUNE)
    dataset = dataset.batch(per_replica_batch_size, drop_remainder=True)
    return dataset.prefetch(tf.data.AUTOTUNE)


def _records(
    files: list[str], is_training: bool, seed: int, shuffle_buffer: int
) -> tf.data.Dataset:
    """Return the serialized records: endless and shuffled, or once and in order."""
    _check_not_empty(files)
    dataset = tf.data.Dataset.from_tensor_slices(files)
    if is_training:
        dataset = dataset.shuffle(len(files), seed=seed)
        dataset = dataset.interleave(
            tf.data.TFRecordDataset,
            cycle_length=min(_NUM_OPEN_FILES, len(files)),
            num_parallel_calls=tf.data.AUTOTUNE,
            deterministic=True,
        )
    else:
        dataset = tf.data.TFRecordDataset(dataset)
    if is_training:
        dataset = dataset.shuffle(shuffle_buffer, seed=seed + 1).repeat()
    return dataset


def _check_not_empty(files: list[str]) -> None:
    """Look for a first byte: a TFRecord file without records has none.

    Raises:
      ValueError: training on them would end before its first step, in words about iterators.
    """
    if any(tf.io.gfile.stat(file).length for file in files):
        return
    others = f" nor in the other {len(files) - 1}" if len(files) > 1 else ""
    raise ValueError(
        f"no image in {files[0]!r}{others}: the record files are empty. Where they were made, "
        "the conversion was interrupted or had no images"
    )


def _group_by_canvas(
    dataset: tf.data.Dataset, share: int, num_shares: int, share_id: int, is_training: bool
) -> tf.data.Dataset:
    """Reorder records so that each run of `share * num_shares` has one canvas; keep one share.

    In evaluation the last window of each canvas is filled up with blank images.
    """
    window_size = share * num_shares

    def key_of(record: dict[str, tf.Tensor]) -> tf.Tensor:
        canvas_hw = tf.cast(record[_CANVAS_HW], tf.int64)
        return canvas_hw[0] * 2**32 + canvas_hw[1]

    def fill(key: tf.Tensor, window: tf.data.Dataset) -> tf.data.Dataset:
        if is_training:
            return window.skip(share_id * share).take(share)
        canvas_hw = tf.cast(tf.stack([key // 2**32, key % 2**32]), tf.int32)
        blank = tf.data.Dataset.from_tensors(
            {
                _POSITION: tf.constant(-1, tf.int64),
                _SERIALIZED: tf.constant(""),
                _CANVAS_HW: canvas_hw,
            }
        )
        filled = window.concatenate(blank.repeat(window_size))
        return filled.skip(share_id * share).take(share)

    return dataset.group_by_window(key_of, fill, window_size=window_size)


def _blank_example() -> dict[str, tf.Tensor]:
    """Return a loaded example of one black pixel, without objects and without an id."""
    return {
        schema.IMAGE: tf.zeros([1, 1, 3], tf.uint8),
        schema.SOURCE_ID: tf.constant(""),
        schema.GT_BOXES: tf.zeros([0, 4]),
        schema.GT_CLASSES: tf.zeros([0], tf.int32),
        schema.GT_IS_CROWD: tf.zeros([0], tf.bool),
        schema.GT_MASK_BITS: tf.zeros([0], tf.uint8),
        schema.GT_MASK_FRAMES: tf.zeros([0, 4]),
        schema.GT_MASK_SIZES: tf.zeros([0, 2], tf.int32),
        _SIZE_HW: tf.constant([1, 1]),
    }
