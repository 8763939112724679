"""The input pipeline: record files -> batches per `schema.py`.

    index -> order of an epoch, canvases -> group by canvas -> this pipeline's share of each step
          -> read, decode, join proposals, augment, resize, normalise, pad, pack masks
          -> batch -> prefetch

Up to the share an image is a few numbers (`order.Rows`): where each record lies and how large its
image is says the index (`record_index.py`), so records are read one by one, in any order, and none
is read in vain. All random numbers are stateless functions of the seed and the position in the
stream; the same seed gives the same batches, and those from step k on are the same whether the run
began at 0 or at k.

Several pipelines, one on each machine, go through the same stream and agree without a word: each
chooses canvases and groups for all of them, and reads its own part of each step. So a step has the
images that it would have on one machine, all on one canvas, and nothing depends on how many files
there are.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import tensorflow as tf

from mrcnn_tf.data import (
    augment,
    canvases,
    copy_paste,
    damage,
    decoder,
    keypoints,
    order,
    preprocess,
    record_files,
    record_index,
    repeat_factors,
    schema,
    service,
)
from mrcnn_tf.data.label_map import LabelMap

_SIZE_HW = "size_hw"  # of a loaded example: int32 [2], the size to resize to
# Of an image onto which objects are to be pasted: its row's.
_POSITION, _CANVAS_HW = "position", "canvas_hw"
_READ_AT_ONCE = 16  # records


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
    pasting: copy_paste.CopyPaste | None = None,
    repeat_threshold: float = 0.0,
    max_instances: int,
    mask_arena_pixels: int,
    num_input_pipelines: int = 1,
    input_pipeline_id: int = 0,
    first_step: int = 0,
    through: service.Service | None = None,
    proposals: Proposals | None = None,
    num_proposals: int = 0,
    skip_corrupt_records: int = 0,
    views: tuple[tuple[int, int], ...] = (),
    num_keypoints: int = 0,
    include_lists: bool = False,
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
      pasting: of training: objects of a second image are pasted onto each, see `copy_paste.py`;
        needs one canvas, hence `scale_jitter`. None for no pasting.
      repeat_threshold: of training: images of categories that fewer than this part of the images
        have are repeated, see `repeat_factors.py`; 0 for none.
      max_instances: G.
      mask_arena_pixels: capacity of the arena, a multiple of 8; 0 reads no masks.
      num_input_pipelines: how many pipelines (hosts) share the images of each step.
      input_pipeline_id: which of them this is.
      first_step: of training: batches of the steps before are left out.
      through: the tf.data service that makes the batches of training; None for this process.
      proposals: boxes to join to the images; None for none.
      num_proposals: P, the best ones of each image, padded to this many.
      skip_corrupt_records: places with damaged records that may be left out.
      views: of evaluation: (short_edge, long_edge) of further sizes in which each image is wanted,
        for test-time augmentation. They are padded to canvases of their own, made for these edges
        as `canvas_sizes` are, and then to the largest of their batch.
      num_keypoints: K, as many as the label map has; 0 reads none.
      include_lists: batches say which classes an image is known not to have, and of which not all
        objects are annotated.

    Returns:
      A data set of dicts, the batches of `schema.py`.

    Raises:
      FileNotFoundError: a pattern matches no file.
      ValueError: the files hold no record, one that cannot be read, or more damaged places than
        may be; the proposals are not of these records; or the keypoints that are wanted are not
        those of the label map.
    """
    files = record_files.find(file_pattern)
    if proposals:
        proposals.check_records(files)
    if skip_corrupt_records:
        files = damage.usable(files, skip_corrupt_records)
    if through:
        files = service.absolute(files)
    mirrored_keypoints = label_map.keypoints.mirrored() if label_map.keypoints else ()
    if num_keypoints and len(mirrored_keypoints) != num_keypoints:
        raise ValueError(
            f"{num_keypoints} keypoints are wanted of the records, but their label map has "
            f"{len(mirrored_keypoints)}"
        )
    index = record_index.of_files(files)
    if not len(index.file):
        raise ValueError(_no_records(files))
    if canvas_sizes is None:
        choose = canvases.round_up
    else:
        choose = functools.partial(canvases.choose, canvases=canvas_sizes)

    def choose_canvas(size_hw: tf.Tensor, short_edge: tf.Tensor) -> tf.Tensor:
        if canvas_sizes is not None and len(canvas_sizes) == 1:  # where larger ones are cut
            return tf.tile(tf.constant(canvas_sizes), [tf.shape(size_hw)[0], 1])
        return choose(resized_hw(size_hw, short_edge[:, None]))

    def resized_hw(size_hw: tf.Tensor, short_edge: tf.Tensor) -> tf.Tensor:
        return preprocess.resized_size_hw(size_hw, short_edge, long_edge, resize_convention)

    lists = (schema.NEG_CLASSES, schema.NOT_EXHAUSTIVE_CLASSES) if include_lists else ()
    convention: dict[str, Any] = {
        "convention": resize_convention,
        "channel_order": channel_order,
        "pixel_mean": pixel_mean,
        "pixel_std": pixel_std,
    }

    def prepare_image(image: tf.Tensor, size_hw: tf.Tensor, canvas_hw: tf.Tensor) -> tf.Tensor:
        return preprocess.prepare_image(image, size_hw, canvas_hw, **convention)

    def load(row: order.Rows, serialized: tf.Tensor, seeds: tf.Tensor) -> dict[str, tf.Tensor]:
        """Decode and augment a record, and decide its size."""
        example = decoder.decode(
            serialized,
            label_ids=label_map.ids,
            include_masks=mask_arena_pixels > 0,
            include_lists=include_lists,
        )
        if num_keypoints:
            example |= keypoints.decode(serialized, example, num_keypoints)
        if proposals:
            example |= proposals.join(example)
        size_hw = resized_hw(tf.shape(example[schema.IMAGE])[:2], row.short_edge)
        if is_training:
            example = augment.random_flip_left_right(
                example, seeds, flip_probability, mirrored_keypoints
            )
            if scale_jitter:
                example, size_hw = augment.random_scale_and_crop(
                    example, seeds, size_hw, long_edge, scale_jitter
                )
            if any(color_jitter):
                example = augment.random_color(example, seeds, color_jitter)
        return example | {_SIZE_HW: size_hw}

    @tf.autograph.experimental.do_not_convert
    def finish(row: order.Rows, serialized: tf.Tensor) -> dict[str, tf.Tensor]:
        """Turn a record into a batch's row."""
        seeds = tf.stack([seed, row.position])
        if is_training:
            example = load(row, serialized, seeds)
        else:
            is_blank = row.position < 0
            blank = _blank_example()
            if num_keypoints:
                blank[schema.GT_KEYPOINTS] = tf.zeros([0, num_keypoints, 2])
                blank[schema.GT_KEYPOINTS_VALID] = tf.zeros([0, num_keypoints], tf.bool)
            blank |= dict.fromkeys(lists, tf.zeros([label_map.num_classes], tf.bool))
            if proposals:
                blank[schema.PROPOSAL_BOXES] = tf.zeros([0, 4])
            example = tf.cond(is_blank, lambda: blank, lambda: load(row, serialized, seeds))
        size_hw = example[_SIZE_HW]
        image = prepare_image(example[schema.IMAGE], size_hw, row.canvas_hw)
        if canvas_sizes is not None and len(canvas_sizes) == 1:
            image.set_shape([*canvas_sizes[0], 3])
        objects = preprocess.scale_objects(example, size_hw)
        objects = preprocess.pad_objects(
            objects, max_instances=max_instances, mask_arena_pixels=mask_arena_pixels
        )
        given = preprocess.prepare_proposals(example, size_hw, num_proposals) if proposals else {}
        for number, in_view in enumerate(prepare_views):
            given |= in_view(number, example[schema.IMAGE])
        given |= {key: example[key] for key in lists}
        return {schema.IMAGE: image} | objects | given | preprocess.identity(example, size_hw)

    @tf.autograph.experimental.do_not_convert
    def prepare(row: order.Rows, serialized: tf.Tensor) -> dict[str, tf.Tensor]:
        """Turn a record into an image that may be pasted onto, and pasted from."""
        example = load(row, serialized, tf.stack([seed, row.position]))
        size_hw = example[_SIZE_HW]
        image = prepare_image(example[schema.IMAGE], size_hw, row.canvas_hw)
        assert canvas_sizes is not None
        image.set_shape([*canvas_sizes[0], 3])
        return (
            {schema.IMAGE: image, _SIZE_HW: size_hw}
            | {_POSITION: row.position, _CANVAS_HW: row.canvas_hw}
            | preprocess.scale_objects(example, size_hw)
            | preprocess.identity(example, size_hw)
            | {key: example[key] for key in lists}
        )

    @tf.autograph.experimental.do_not_convert
    def paste(image: dict[str, tf.Tensor], before: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Paste objects of one image onto another, and turn that into a batch's row."""
        assert pasting is not None
        seeds = tf.stack([seed, image[_POSITION]])
        is_pasted = augment.random_is_pasted(seeds, pasting.probability)
        room = tf.where(is_pasted, max_instances - tf.size(image[schema.GT_CLASSES]), 0)
        objects, objects_before = (
            {key: part[key] for key in copy_paste.OBJECTS} for part in (image, before)
        )
        chosen = copy_paste.choose(objects_before, seeds, room)
        objects, lid = copy_paste.cover(objects, chosen, image[_CANVAS_HW], pasting)
        pasted = copy_paste.paste_pixels(image[schema.IMAGE], lid, before[schema.IMAGE])
        assert canvas_sizes is not None
        pasted.set_shape([*canvas_sizes[0], 3])
        size_hw = copy_paste.grown(image[_SIZE_HW], lid)
        objects = preprocess.pad_objects(
            objects, max_instances=max_instances, mask_arena_pixels=mask_arena_pixels
        )
        identity = {key: image[key] for key in (*preprocess.IDENTITY, *lists)}
        identity[schema.IMAGE_SIZE_HW] = tf.cast(size_hw, tf.float32)
        return {schema.IMAGE: pasted} | objects | identity

    prepare_views = [
        _view(
            *edges,
            has_buckets=canvas_sizes is not None,
            convention=resize_convention,
            prepare_image=prepare_image,
        )
        for edges in views
    ]
    share = per_replica_batch_size * num_replicas  # of the images of a step
    window = share * num_input_pipelines
    with tf.device("CPU:0"):
        size_hw = tf.constant(index.size_hw)

    repeats = None
    if is_training and repeat_threshold:
        repeats = repeat_factors.of_images(*record_index.categories(files), repeat_threshold)

    def of_epoch(epoch: tf.Tensor) -> order.Rows:
        return order.of_epoch(
            epoch,
            size_hw=size_hw,
            seed=seed,
            short_edges=short_edges,
            choose_canvas=choose_canvas,
            repeats=repeats,
        )

    begins_before = bool(pasting) and not through and first_step > 0
    if begins_before:
        first_step -= 1  # whose images are only pasted from
    if not is_training:
        rows = _in_order(size_hw, short_edges[0], choose_canvas)
    elif through:
        num_images = len(index.file) if repeats is None else round(repeats.sum())
        rows = service.blocks(num_images, first_step * window, of_epoch)
    else:
        has_one_canvas = canvas_sizes is not None and len(canvas_sizes) == 1
        same_canvases = repeats is None and (has_one_canvas or len(short_edges) == 1)
        rows = _stream(of_epoch, first_step, window, same_canvases)
    if through:  # makes whole steps
        rows = _group_by_canvas(rows, window, 1, 0, is_training)
    else:
        rows = _group_by_canvas(rows, share, num_input_pipelines, input_pipeline_id, is_training)
    dataset = _read(rows, index)
    if pasting:
        dataset = dataset.map(prepare, num_parallel_calls=tf.data.AUTOTUNE)
        in_step = window if through else share
        if not begins_before:
            dataset = _blanks(dataset.element_spec).repeat(in_step).concatenate(dataset)
        dataset = copy_paste.with_step_before(dataset, in_step)
        dataset = dataset.map(paste, num_parallel_calls=tf.data.AUTOTUNE)
    else:
        dataset = dataset.map(finish, num_parallel_calls=tf.data.AUTOTUNE)
    batch = tf.data.Dataset.padded_batch if views else tf.data.Dataset.batch
    dataset = batch(dataset, per_replica_batch_size, drop_remainder=True)
    if through:
        dataset = service.read(dataset, through)
    if is_training:
        # Said, or a distributed data set takes each batch for one that may be the last, in part,
        # and its tensors have no static shape.
        dataset = dataset.apply(
            tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY)
        )
    return dataset.prefetch(tf.data.AUTOTUNE)


def _view(
    short_edge: int,
    long_edge: int,
    *,
    has_buckets: bool,
    convention: str,
    prepare_image: Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor],
) -> Callable[[int, tf.Tensor], dict[str, tf.Tensor]]:
    """Return the function from a stored image to one of its views in a batch, without B."""
    choose = canvases.round_up
    if has_buckets:
        choose = functools.partial(
            canvases.choose, canvases=canvases.make((short_edge,), long_edge)
        )

    def view(number: int, image: tf.Tensor) -> dict[str, tf.Tensor]:
        size_hw = preprocess.resized_size_hw(tf.shape(image)[:2], short_edge, long_edge, convention)
        resized = prepare_image(image, size_hw, choose(size_hw))
        return {
            schema.view_image(number): resized,
            schema.view_size_hw(number): tf.cast(size_hw, tf.float32),
        }

    return view


def _no_records(files: list[str]) -> str:
    others = f" nor in the other {len(files) - 1}" if len(files) > 1 else ""
    return (
        f"no image in {files[0]!r}{others}: the record files are empty. Where they were made, "
        "the conversion was interrupted or had no images"
    )


def _stream(
    of_epoch: Callable[[tf.Tensor], order.Rows], first_step: int, window: int, same_canvases: bool
) -> tf.data.Dataset:
    """Return the endless stream of training images from a step on: `order.Rows` without `n`."""
    traced = tf.function(of_epoch, input_signature=[tf.TensorSpec([], tf.int64)], autograph=False)

    def in_numpy(epoch: int) -> order.Rows:
        with tf.device("CPU:0"):  # as in the data set
            return order.Rows(*(column.numpy() for column in traced(tf.constant(epoch, tf.int64))))

    place = order.place_after(first_step, window, in_numpy, same_canvases=same_canvases)

    @tf.autograph.experimental.do_not_convert
    def from_place(epoch: tf.Tensor) -> tf.data.Dataset:
        offset = tf.where(epoch == place.epoch, place.offset, 0)
        left = (column[offset:] for column in of_epoch(epoch))
        return tf.data.Dataset.from_tensor_slices(order.Rows(*left))

    epochs = tf.data.Dataset.range(place.epoch, tf.int64.max)
    waiting = tf.data.Dataset.from_tensor_slices(place.waiting)
    return waiting.concatenate(epochs.flat_map(from_place))


def _in_order(
    size_hw: tf.Tensor,
    short_edge: int,
    choose_canvas: Callable[[tf.Tensor, tf.Tensor], tf.Tensor],
) -> tf.data.Dataset:
    """Return every image once, in the order of the files: `order.Rows` without `n`."""
    count = size_hw.shape[0]
    with tf.device("CPU:0"):
        short_edges = tf.fill([count], short_edge)
        rows = order.Rows(
            position=tf.range(count, dtype=tf.int64),
            record=tf.range(count),
            short_edge=short_edges,
            canvas_hw=choose_canvas(size_hw, short_edges),
        )
    return tf.data.Dataset.from_tensor_slices(rows)


def _read(rows: tf.data.Dataset, index: record_index.RecordIndex) -> tf.data.Dataset:
    """Read the record of each row, several at once, in order: (row, string []); any of a blank."""
    with tf.device("CPU:0"):
        files, file = tf.constant(index.files), tf.constant(index.file)
        offset, length = tf.constant(index.offset), tf.constant(index.length)

    def read_one(record: tf.Tensor) -> tf.Tensor:
        # `tf.data.TFRecordDataset`, which cannot begin within a file, is this without offsets.
        variant = tf.raw_ops.TFRecordDatasetV2(
            filenames=tf.gather(files, file[record])[None],
            compression_type="",
            buffer_size=length[record] + record_index.AROUND,
            byte_offsets=offset[record][None],
        )
        found = tf.data.experimental.from_variant(variant, tf.TensorSpec([], tf.string))
        nothing = tf.data.Dataset.from_tensors("")
        serialized = found.concatenate(nothing).take(1).get_single_element()
        where = [files[file[record]], "has no record any more at byte", offset[record]]
        is_there = tf.debugging.Assert(
            tf.strings.length(serialized) > 0, ["changed while it is read:", *where]
        )
        with tf.control_dependencies([is_there]):
            return tf.identity(serialized)

    @tf.autograph.experimental.do_not_convert
    def read(row: order.Rows) -> tuple[order.Rows, tf.Tensor]:
        return row, read_one(tf.maximum(row.record, 0))

    return rows.map(read, num_parallel_calls=_READ_AT_ONCE, deterministic=True)


def _group_by_canvas(
    dataset: tf.data.Dataset, share: int, num_shares: int, share_id: int, is_training: bool
) -> tf.data.Dataset:
    """Reorder images so that each run of `share * num_shares` has one canvas; keep one share.

    In evaluation the last window of each canvas is filled up with blank images.
    """
    window_size = share * num_shares

    def key_of(row: order.Rows) -> tf.Tensor:
        canvas_hw = tf.cast(row.canvas_hw, tf.int64)
        return canvas_hw[0] * 2**32 + canvas_hw[1]

    def fill(key: tf.Tensor, window: tf.data.Dataset) -> tf.data.Dataset:
        if is_training:
            return window.skip(share_id * share).take(share)
        canvas_hw = tf.cast(tf.stack([key // 2**32, key % 2**32]), tf.int32)
        blank = tf.data.Dataset.from_tensors(
            order.Rows(
                position=tf.constant(-1, tf.int64),
                record=tf.constant(-1),
                short_edge=tf.constant(0),
                canvas_hw=canvas_hw,
            )
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


def _blanks(spec: dict[str, tf.TensorSpec]) -> tf.data.Dataset:
    """Return what has nothing that could be pasted."""

    def zeros(of: tf.TensorSpec) -> tf.Tensor:
        return tf.zeros([size or 0 for size in of.shape], of.dtype)

    return tf.data.Dataset.from_tensors(tf.nest.map_structure(zeros, spec))
