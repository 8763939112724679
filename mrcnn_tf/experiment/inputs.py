"""From an experiment's fields to the input pipeline of `data/pipeline.py`."""

import uuid

import tensorflow as tf

from mrcnn_tf.data import augment, canvases, copy_paste, pipeline, service
from mrcnn_tf.data.label_map import LabelMap
from mrcnn_tf.experiment import fields, sources
from mrcnn_tf.experiment.experiment import Task


def build(
    config: Task,
    data: fields.Data,
    label_map: LabelMap,
    input_context: tf.distribute.InputContext | None = None,
    first_step: int = 0,
    proposals: pipeline.Proposals | None = None,
    start: str = "",
) -> tf.data.Dataset:
    """Build the data set of one input pipeline; see `data/pipeline.py`.

    Args:
      config: the task.
      data: its `train_data` or `validation_data`.
      label_map: the network's classes, with the ids that these records have.
      input_context: which pipeline of how many.
      first_step: where a resumed run goes on.
      proposals: to join to the images, where the network makes none.
      start: what all pipelines of this start say, and those of no other start, to a tf.data
        service; only one pipeline may leave it out.

    Raises:
      ValueError: see `pipeline.build`.
    """
    model = config.model
    replicas = input_context.num_replicas_in_sync if input_context else 1
    pipelines = input_context.num_input_pipelines if input_context else 1
    edges = tuple(data.short_edges)
    scale_jitter = tuple(data.scale_jitter)
    if data.canvas == "exact":
        canvas_sizes = None
    elif scale_jitter:
        canvas_sizes = canvases.square(data.long_edge)
    else:
        canvas_sizes = canvases.make(edges, data.long_edge)
    return pipeline.build(
        sources.patterns(data),
        label_map=label_map,
        is_training=data.is_training,
        per_replica_batch_size=batch_size(data, replicas) // replicas,
        num_replicas=replicas // pipelines,
        num_input_pipelines=pipelines,
        input_pipeline_id=input_context.input_pipeline_id if input_context else 0,
        short_edges=edges,
        long_edge=data.long_edge,
        canvas_sizes=canvas_sizes,
        resize_convention=model.pixels.resize,
        channel_order=model.pixels.order,
        pixel_mean=tuple(model.pixels.mean),
        pixel_std=tuple(model.pixels.std),
        flip_probability=data.flip_probability,
        scale_jitter=scale_jitter,
        color_jitter=augment.ColorJitter(**vars(data.color_jitter)),
        pasting=copy_paste.CopyPaste(**vars(data.copy_paste))
        if data.copy_paste.probability
        else None,
        repeat_threshold=data.repeat_threshold,
        max_instances=model.max_instances,
        mask_arena_pixels=data.mask_arena_pixels,
        seed=data.seed,
        first_step=first_step,
        through=_service(data, input_context, start) if data.enable_tf_data_service else None,
        proposals=proposals,
        num_proposals=model.rpn.post_nms_top_k_train
        if data.is_training
        else model.rpn.post_nms_top_k_test,
        skip_corrupt_records=data.skip_corrupt_records,
        views=() if data.is_training else views(config),
        num_keypoints=model.keypoint_head.num_keypoints,
        include_lists=bool(model.federated.classes_per_image and model.federated.image_lists),
    )


def views(config: Task) -> tuple[tuple[int, int], ...]:
    """Return (short edge, longest long edge) of each size of test-time augmentation."""
    data = config.validation_data
    factor = data.long_edge / data.short_edges[0]
    return tuple((edge, round(edge * factor)) for edge in config.tta.short_edges)


def _service(
    data: fields.Data, input_context: tf.distribute.InputContext | None, start: str
) -> service.Service:
    """Say which part of a tf.data service's batches a pipeline reads."""
    address = data.tf_data_service_address or ""
    job_name = f"{data.tf_data_service_job_name or 'mrcnn_tf'}-{start or uuid.uuid4().hex}"
    if not input_context:
        return service.Service(address, job_name, 1, 0, 1)
    replicas = input_context.num_replicas_in_sync
    num_here = replicas // input_context.num_input_pipelines
    first = input_context.input_pipeline_id * num_here
    return service.Service(address, job_name, replicas, first, num_here)


def batch_size(data: fields.Data, replicas: int) -> int:
    """Images per step over all replicas.

    A training step has the images that the experiment says, to which its learning rate belongs. In
    validation their number changes no result, and blank images fill up the last batch: the replicas
    share it as evenly as they can, rounded up.

    Raises:
      ValueError: a training batch does not divide among the replicas, or an update's images into
        such batches.
    """
    at_once = _batch_size_at_once(data, replicas)
    if not data.images_per_update:
        return at_once
    if data.images_per_update % at_once:
        raise ValueError(
            f"task.train_data.images_per_update: {data.images_per_update} images are no multiple "
            f"of the {at_once} that go through the network at once. Make it "
            f"{-(-data.images_per_update // at_once) * at_once}, or change "
            "task.train_data.global_batch_size or images_per_replica"
        )
    return data.images_per_update


def parts(data: fields.Data, replicas: int) -> tuple[int, int]:
    """How many parts of a replica's batch go through the network one by one, of how many images."""
    at_once = _batch_size_at_once(data, replicas)
    return batch_size(data, replicas) // at_once, at_once // replicas


def _batch_size_at_once(data: fields.Data, replicas: int) -> int:
    if not data.global_batch_size:
        return data.images_per_replica * replicas
    per_replica, left = divmod(data.global_batch_size, replicas)
    if left and data.is_training:
        fitting = max(per_replica, 1) * replicas
        raise ValueError(
            f"task.train_data.global_batch_size: {data.global_batch_size} images do not divide "
            f"among {replicas} replicas (GPUs). Make it {fitting} or another multiple, or 0 for "
            "task.train_data.images_per_replica on each; learning rate and steps follow"
        )
    return (per_replica + bool(left)) * replicas
