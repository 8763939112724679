"""Every check across the fields of an experiment: what cannot work is refused before it starts."""

from mrcnn_tf.experiment import precision, ranges, sources, unread
from mrcnn_tf.experiment.experiment import Experiment, Task
from mrcnn_tf.experiment.fields import MODULES, Data, MaskHead, Model, RoIAlign
from mrcnn_tf.modeling import backbones, mask_classes, mask_heads, normalization, roi_pooling


def check(experiment: Experiment) -> None:
    """Refuse an experiment that cannot work.

    Raises:
      ValueError: with the field, the value received and what is allowed.
    """
    ranges.check(experiment, skipped=unread.UNREAD)
    model = experiment.task.model
    _one_of("task.model.system", model.system, ("mask_rcnn", "faster_rcnn", "rpn"))
    _one_of("task.model.proposals", model.proposals, ("rpn", "file"))
    _one_of("stages.schedule", experiment.stages.schedule, ("joint", "separate", "alternating"))
    _one_of("task.cocoeval", experiment.task.cocoeval, ("hotcoco", "pycocotools"))
    _one_of("task.model.pixels.order", model.pixels.order, ("rgb", "bgr"))
    _one_of("task.model.pixels.resize", model.pixels.resize, ("detectron2", "torchvision"))
    _one_of("task.model.roi_align.type", model.roi_align.type, roi_pooling.POOLINGS)
    _one_of("task.model.roi_align.aggregate", model.roi_align.aggregate, ("average", "max"))
    _check_pooling(model.roi_align)
    _one_of("task.model.mask_head.type", model.mask_head.type, mask_heads.MASK_HEADS)
    _one_of("task.model.mask_head.classes", model.mask_head.classes, mask_classes.KINDS)
    _one_of("task.model.mask_head.target", model.mask_head.target, ("detectron2", "torchvision"))
    _one_of(
        "task.model.detection.mask_paste",
        model.detection.mask_paste,
        ("pixel_centres", "torchvision"),
    )
    _one_of("task.model.rpn.anchor_strides", model.rpn.anchor_strides, ("level", "grid"))
    _one_of(
        "task.model.rpn.loss_normalizer",
        model.rpn.loss_normalizer,
        ("sampled", "anchors_per_image"),
    )
    precision.check(experiment.runtime)
    backbones.check(model.backbone)
    _one_of("task.model.backbone.norm", model.backbone.norm, normalization.KINDS)
    for part in ("fpn", "box_head", "mask_head"):
        _one_of(f"task.model.{part}.norm", getattr(model, part).norm, ("", *normalization.KINDS))
    _check_norms(model)
    _one_of("task.model.backbone.weights", model.backbone.weights, ("", "auto", "imagenet"))
    for field in ("train_data", "validation_data"):
        data = getattr(experiment.task, field)
        _check_data(f"task.{field}", data)
    if experiment.runtime.deterministic and experiment.task.train_data.enable_tf_data_service:
        raise ValueError(
            "runtime.deterministic: the order in which the workers of a tf.data service send "
            "images is another one in every run. Set it, or "
            "task.train_data.enable_tf_data_service, to false"
        )
    _check_accumulation(experiment)
    _check_system(experiment)
    _check_federated(experiment.task.model)
    _check_cascade(experiment.task.model)
    _check_point_rend(experiment.task.model)
    _check_mask_scoring(experiment.task)
    _check_keypoints(experiment.task)
    _check_tta(experiment.task)
    _check_metric(experiment)
    _check_stages(experiment)
    _check_parts(experiment)
    _check_start(experiment)
    _check_schedule(experiment)
    unread.check(experiment)


def _check_schedule(experiment: Experiment) -> None:
    """Refuse a schedule that could not be kept."""
    trainer = experiment.trainer
    if trainer.ema_decay == 1.0:
        raise ValueError(f"trainer.ema_decay: got {trainer.ema_decay}, needs 0 to below 1")
    if trainer.patience and not trainer.best_checkpoint_eval_metric:
        raise ValueError(
            f"trainer.patience: {trainer.patience}, but trainer.best_checkpoint_eval_metric is "
            "empty: by what would an evaluation be better? Set it, to mask_ap for one"
        )
    if trainer.summary_interval % trainer.steps_per_loop:
        raise ValueError(
            f"trainer.summary_interval: got {trainer.summary_interval}, must be a multiple of "
            f"trainer.steps_per_loop, {trainer.steps_per_loop}: curves are written between loops"
        )


def _check_system(experiment: Experiment) -> None:
    """Refuse a network whose parts do not fit together."""
    model, task = experiment.task.model, experiment.task
    if model.features == "fpn" and len(model.rpn.anchor_sizes) != 5:
        raise ValueError(
            "task.model.rpn.anchor_sizes: one size for each of P2..P6 is needed, got "
            f"{len(model.rpn.anchor_sizes)}: {tuple(model.rpn.anchor_sizes)}"
        )
    if model.features != "c4" and model.mask_head.mask_size % 2:
        raise ValueError(
            f"task.model.mask_head.mask_size: got {model.mask_head.mask_size}, needs an even number"
        )
    c4_heads = model.features == "c4" and model.system != "rpn"
    if c4_heads:
        backbones.check_roi_stage(model.backbone)
    if c4_heads and model.box_head.pool_size % 2:
        raise ValueError(
            f"task.model.box_head.pool_size: got {model.box_head.pool_size}, but with features: c4 "
            "stage 5 halves it: it needs an even number, 14 in the paper's code, and so does "
            "task.model.mask_head.mask_size, which is the same"
        )
    side = model.mask_head.mask_size
    if c4_heads and model.system == "mask_rcnn" and side != model.box_head.pool_size:
        raise ValueError(
            f"task.model.mask_head.mask_size: got {side}, but with features: c4 a mask is as large "
            f"as the pooled RoI, box_head.pool_size, now {model.box_head.pool_size}. Set both to "
            f"14, or use features: fpn for {side} x {side} masks"
        )
    if model.features == "dc5":
        backbones.check_dilation(model.backbone)
    if model.features != "fpn" and model.fpn.frozen:
        last = 4 if model.features == "c4" else 5
        raise ValueError(
            f"task.model.fpn.frozen: features: {model.features} has no pyramid; set it to false, "
            f"and freeze the backbone up to stage {last} by backbone.freeze_at: {last}"
        )
    if model.system == "rpn" and model.proposals == "file":
        raise ValueError(
            "task.model.proposals: 'file' is for a detector; an RPN makes its own. Set it to rpn"
        )
    for field in ("train_data", "validation_data"):
        path = getattr(task, field).proposals
        if model.proposals == "file" and not path:
            raise ValueError(
                f"task.{field}.proposals: task.model.proposals: file needs the folder of proposals "
                "that an RPN wrote (python -m mrcnn_tf.write_proposals). The whole schedule is run "
                "by python -m mrcnn_tf.train_stages"
            )
        if model.proposals == "rpn" and path:
            raise ValueError(
                f"task.{field}.proposals: {path!r} would not be used: with task.model.proposals: "
                "rpn the network makes its own. Set that to file, or leave this empty"
            )


def _check_norms(model: Model) -> None:
    """Refuse norms of convolutions that there are not."""
    without = {
        "mask_head": "mask_head.type: mlp has no convolutions to normalise. Set it to '', or type "
        "to fcn"
        if model.mask_head.type == "mlp"
        else _no_convolutions("mask_head", model, model.mask_head.conv_layers),
        "box_head": _no_convolutions("box_head", model, model.box_head.conv_layers),
        "fpn": f"features: {model.features} has no pyramid" if model.features != "fpn" else "",
    }
    for part, why in without.items():
        norm = getattr(model, part).norm
        if norm and why:
            raise ValueError(f"task.model.{part}.norm: {norm!r} would not be read: {why}")


def _no_convolutions(part: str, model: Model, conv_layers: int) -> str:
    """Why a head has nothing to normalise; "" if it has."""
    if model.features == "c4":
        return "with features: c4 stage 5 takes the place of the heads' convolutions. Set it to ''"
    if not conv_layers:
        return f"{part}.conv_layers: 0 leaves no convolution to normalise. Set one of the two"
    return ""


def _check_federated(model: Model) -> None:
    """Refuse a federated loss that cannot be."""
    number = model.federated.classes_per_image
    if number and model.system == "rpn":
        raise ValueError(
            f"task.model.federated.classes_per_image: got {number}, but an RPN knows no classes. "
            "Leave it 0"
        )


def _check_cascade(model: Model) -> None:
    """Refuse box heads that cannot follow each other."""
    ious, factors = model.cascade.positive_ious, model.cascade.regression_factors
    if len(ious) != len(factors):
        raise ValueError(
            f"task.model.cascade: positive_ious {tuple(ious)} and regression_factors "
            f"{tuple(factors)}: each further box head needs one of both"
        )
    if not ious:
        return
    if model.system == "rpn" or model.features != "fpn":
        raise ValueError(
            f"task.model.cascade.positive_ious: got {tuple(ious)}, but box heads follow each other "
            "only in system: mask_rcnn or faster_rcnn on features: fpn. Leave it empty"
        )
    if not model.box_head.class_agnostic:
        raise ValueError(
            "task.model.box_head.class_agnostic: needs to be true with task.model.cascade: the "
            "next box head looks at one box per RoI, not at one per class"
        )


def _check_point_rend(model: Model) -> None:
    """Refuse a mask branch by points that cannot work."""
    points = model.point_rend
    if not points.num_points:
        return
    where = f"task.model.point_rend.num_points: got {points.num_points}"
    if model.system != "mask_rcnn" or model.features != "fpn":
        raise ValueError(
            f"{where}, but PointRend is a mask branch for system: mask_rcnn on features: fpn. "
            "Leave it 0"
        )
    if model.cascade.positive_ious:
        raise ValueError(
            f"{where}, but a network with task.model.cascade has the mask head of mask_head. Leave "
            "it 0, or empty cascade.positive_ious"
        )
    # Widths alone come along with an experiment that this one is based on.
    read = ("target", "target_sampling_ratio", "conv_channels", "fc_channels")
    for field, value in vars(model.mask_head).items():
        default = getattr(MaskHead, field)
        if field not in read and value != default:
            raise ValueError(
                f"{where}, but PointRend takes the place of task.model.mask_head, whose {field} "
                f"({value!r}) would not be read. Leave one of the two out: num_points 0, or "
                f"{field} {default!r}"
            )


def _check_mask_scoring(task: Task) -> None:
    """Refuse to score masks that there are not."""
    model = task.model
    if not model.mask_scoring.conv_layers:
        return
    where = f"task.model.mask_scoring.conv_layers: got {model.mask_scoring.conv_layers}"
    others = {
        "system": model.system != "mask_rcnn",
        "features": model.features != "fpn",
        "cascade.positive_ious": bool(model.cascade.positive_ious),
        "point_rend.num_points": bool(model.point_rend.num_points),
    }
    against = [field for field, differs in others.items() if differs]
    if against:
        raise ValueError(
            f"{where}, but masks are scored only of mask_head, in system: mask_rcnn on features: "
            f"fpn, without cascade and point_rend; look at {', '.join(against)}, or leave it 0"
        )
    if model.mask_head.mask_size % 4:
        raise ValueError(
            f"{where}: the head looks at masks of half the size and halves that once more, so "
            "task.model.mask_head.mask_size needs to be a multiple of 4, not "
            f"{model.mask_head.mask_size}"
        )
    if task.tta.short_edges:
        raise ValueError(
            f"{where}, but the mean of several views' masks is not scored: leave "
            "task.tta.short_edges empty"
        )


def _check_keypoints(task: Task) -> None:
    """Refuse a keypoint branch where there can be none."""
    model = task.model
    where = f"task.model.keypoint_head.num_keypoints: got {model.keypoint_head.num_keypoints}"
    if not model.keypoint_head.num_keypoints:
        return
    if model.system == "rpn" or model.features != "fpn":
        raise ValueError(
            f"{where}, but there is a keypoint branch only in system: mask_rcnn or faster_rcnn on "
            "features: fpn. Set it to 0"
        )
    others = {
        "task.model.cascade": bool(model.cascade.positive_ious),
        "task.model.point_rend": bool(model.point_rend.num_points),
        "task.model.mask_scoring": bool(model.mask_scoring.conv_layers),
    }
    for other, is_there in others.items():
        if is_there:
            raise ValueError(
                f"{where}, but a network with {other} has no keypoint branch. Leave one of them out"
            )
    if task.train_data.copy_paste.probability:
        raise ValueError(
            f"{where}, but objects are pasted (task.train_data.copy_paste) without keypoints. "
            "Leave one of them out"
        )
    if task.tta.short_edges:
        raise ValueError(
            f"{where}, but test-time augmentation (task.tta.short_edges) does not unite keypoints. "
            "Leave one of them out"
        )


def _check_tta(task: Task) -> None:
    """Refuse test-time augmentation of what it cannot be made for."""
    edges, model = tuple(task.tta.short_edges), task.model
    if not edges:
        return
    if model.system == "rpn" or model.proposals == "file":
        raise ValueError(
            f"task.tta.short_edges: got {edges}, but test-time augmentation is for detectors with "
            "an RPN of their own (system: mask_rcnn or faster_rcnn, proposals: rpn). Leave it empty"
        )
    if model.detection.soft_nms_sigma:
        raise ValueError(
            f"task.tta.short_edges: got {edges}, but the boxes of several views are united by NMS, "
            "which would undo Soft-NMS. Set task.model.detection.soft_nms_sigma to 0, or leave "
            "this empty"
        )


def _check_pooling(pooling: RoIAlign) -> None:
    """Refuse samples that there are not."""
    if pooling.type == "roi_pool" and pooling.aggregate != "max":
        raise ValueError(
            f"task.model.roi_align.aggregate: got {pooling.aggregate!r}, but RoIPool takes the "
            "largest pixel of each bin: set it to max, or type to roi_align"
        )
    if pooling.type != "roi_pool" and pooling.aggregate == "max" and pooling.sampling_ratio < 1:
        raise ValueError(
            f"task.model.roi_align.sampling_ratio: got {pooling.sampling_ratio}, which is "
            "adaptive; the maximum (aggregate: max) needs a fixed number of samples, 2 for one"
        )


def _check_metric(experiment: Experiment) -> None:
    """Refuse to choose the best checkpoint by a number that the network is not scored with."""
    model, metric = experiment.task.model, experiment.trainer.best_checkpoint_eval_metric
    begins: tuple[str, ...] = {
        "mask_rcnn": ("mask_", "box_"),
        "faster_rcnn": ("box_",),
        "rpn": ("ar_",),
    }[model.system]
    if experiment.task.boundary_ap:
        if model.system != "mask_rcnn":
            raise ValueError(
                f"task.boundary_ap: true, but task.model.system: {model.system} makes no masks"
            )
        begins += ("boundary_",)
    if model.keypoint_head.num_keypoints:
        begins = (*begins, "keypoint_")
    if metric and not (metric.startswith(begins) or metric.endswith("_loss")):
        raise ValueError(
            f"trainer.best_checkpoint_eval_metric: got {metric!r}, but task.model.system: "
            f"{model.system} is scored by {', '.join(f'{b}...' for b in begins)}: set it to "
            f"{ {'mask_rcnn': 'mask_ap', 'faster_rcnn': 'box_ap', 'rpn': 'ar_1000'}[model.system] }"
        )


def _check_stages(experiment: Experiment) -> None:
    """Refuse a schedule of several runs that cannot be made."""
    stages, model = experiment.stages, experiment.task.model
    if stages.schedule != "joint":
        if not stages.rpn_experiment:
            raise ValueError(
                f"stages.rpn_experiment: schedule {stages.schedule!r} needs the experiment that "
                "trains the RPN, rpn_r50_fpn for one"
            )
        if model.system == "rpn":
            raise ValueError(
                f"stages.schedule: {stages.schedule!r} trains a detector after its RPN, but "
                "task.model.system is rpn. Set the schedule to joint to train the RPN alone"
            )
        if model.proposals == "file":
            raise ValueError(
                f"stages.schedule: {stages.schedule!r} makes its own proposals: set "
                "task.model.proposals to rpn, or the schedule to joint to train on those there are"
            )
    if stages.rpn_checkpoint and not stages.rpn_experiment:
        raise ValueError(
            "stages.rpn_checkpoint: which network is it of? Give stages.rpn_experiment too, the "
            "params.yaml beside it for one"
        )


def _check_parts(experiment: Experiment) -> None:
    """Refuse to load parts that there are not."""
    task, model = experiment.task, experiment.task.model
    where = f"task.init_checkpoint_modules: got {task.init_checkpoint_modules!r}"
    if task.init_checkpoint_modules and not task.init_checkpoint:
        raise ValueError(f"{where}, but task.init_checkpoint names no checkpoint to take them from")
    unknown = [part for part in task.loaded_parts() if part not in MODULES]
    if unknown:
        raise ValueError(f"{where}; allowed are 'all', or with commas between {', '.join(MODULES)}")
    if task.init_checkpoint_modules in ("", "all"):
        return
    if "roi_heads" in task.loaded_parts() and model.system == "rpn":
        raise ValueError(f"{where}, but an RPN alone (task.model.system: rpn) has no roi_heads")
    if "rpn" in task.loaded_parts() and model.proposals == "file":
        raise ValueError(f"{where}, but with task.model.proposals: file there is no rpn to load")


def _check_start(experiment: Experiment) -> None:
    """Refuse weights to start from that do not fit, or do not exist."""
    model = experiment.task.model
    if model.backbone.weights == "imagenet":
        backbones.check_imagenet(model)
    from_scratch = not model.backbone.weights and "backbone" not in experiment.task.loaded_parts()
    if from_scratch:
        backbones.check_random(model.backbone)
    if model.fpn.frozen and "pyramid" not in experiment.task.loaded_parts():
        raise ValueError(
            "task.model.fpn.frozen: would freeze random weights; give the network whose pyramid is "
            "to stay as task.init_checkpoint, or set this to false"
        )


def _check_data(where: str, data: Data) -> None:
    sources.check(where, data)
    _one_of(f"{where}.canvas", data.canvas, ("bucket", "exact"))
    if not data.short_edges or max(data.short_edges) > data.long_edge:
        raise ValueError(
            f"{where}: short_edges {tuple(data.short_edges)} must not be empty or exceed "
            f"long_edge {data.long_edge}"
        )
    scales = tuple(data.scale_jitter)
    if scales and not (len(scales) == 2 and scales[0] <= scales[1]):
        raise ValueError(f"{where}.scale_jitter: got {scales}, needs (smallest, largest), or ()")
    if scales and data.canvas != "bucket":
        raise ValueError(
            f"{where}.scale_jitter: needs canvas: bucket, not {data.canvas!r}, which would make "
            "batches of images of one size only"
        )
    if data.skip_corrupt_records and not data.is_training:
        raise ValueError(
            f"{where}.skip_corrupt_records: got {data.skip_corrupt_records}, must be 0 in "
            "validation: a score on fewer images is another score"
        )
    _check_service(where, data)
    if not data.is_training and (scales or any(vars(data.color_jitter).values())):
        raise ValueError(
            f"{where}: scale_jitter and color_jitter are for training, this has is_training: false"
        )
    _check_copy_paste(where, data)
    if data.repeat_threshold and not data.is_training:
        raise ValueError(
            f"{where}.repeat_threshold: got {data.repeat_threshold}, but this has is_training: "
            "false: an evaluation needs every image exactly once. Leave it 0"
        )


def _check_accumulation(experiment: Experiment) -> None:
    """Refuse gradient accumulation where a step in parts would not be the step of the whole."""
    where, data = "task.train_data.images_per_update", experiment.task.train_data
    if experiment.task.validation_data.images_per_update:
        raise ValueError("task.validation_data.images_per_update: there is no update in validation")
    if not data.images_per_update:
        return
    for part in ("backbone", "fpn", "box_head", "mask_head"):
        norm = getattr(experiment.task.model, part).norm
        if norm in ("batch_norm", "sync_batch_norm"):
            raise ValueError(
                f"{where}: with task.model.{part}.norm: {norm} the statistics would be those of "
                "the images that go through the network at once, not of the update; take "
                "group_norm or frozen_batch_norm, or set this to 0"
            )


def _check_copy_paste(where: str, data: Data) -> None:
    pasting = data.copy_paste
    if not pasting.probability:
        return
    if not data.is_training:
        raise ValueError(f"{where}.copy_paste: is for training, this has is_training: false")
    if not data.mask_arena_pixels:
        raise ValueError(
            f"{where}.copy_paste: objects are cut out by masks; mask_arena_pixels is 0"
        )
    if not data.scale_jitter:
        raise ValueError(
            f"{where}.copy_paste: needs scale_jitter, with which all images share one canvas; "
            "[1.0, 1.0] jitters nothing"
        )
    if data.proposals:
        raise ValueError(
            f"{where}.copy_paste: the proposals of {data.proposals} are of the images as they are, "
            "without what is pasted; set copy_paste.probability to 0"
        )


def _check_service(where: str, data: Data) -> None:
    """Refuse a tf.data service that would not be read, or could not be."""
    if not data.enable_tf_data_service:
        for field in ("tf_data_service_address", "tf_data_service_job_name"):
            if getattr(data, field):
                raise ValueError(
                    f"{where}.{field}: {getattr(data, field)!r} would not be read: set "
                    f"{where}.enable_tf_data_service to true, or leave it out"
                )
        return
    if not data.is_training:
        raise ValueError(
            f"{where}.enable_tf_data_service: is for training: an evaluation needs every image "
            "exactly once, which the service does not promise"
        )
    if not data.tf_data_service_address:
        raise ValueError(
            f"{where}.tf_data_service_address: enable_tf_data_service needs the address of the "
            "dispatcher, grpc://HOST:PORT"
        )
    if data.proposals:
        raise ValueError(
            f"{where}.enable_tf_data_service: proposals from a folder ({data.proposals!r}) are "
            "joined in the process that trains. Set it to false"
        )
    if data.skip_corrupt_records:
        raise ValueError(
            f"{where}.skip_corrupt_records: got {data.skip_corrupt_records}, but what is left of a "
            "damaged file is copied on this machine, where the workers of "
            f"{where}.enable_tf_data_service do not see it. Mend the file, or set one of them to "
            "0 or false"
        )


def _one_of(field: str, value: object, allowed: object) -> None:
    if value not in allowed:  # type: ignore[operator]
        raise ValueError(f"{field}: got {value!r}, allowed are {', '.join(map(repr, allowed))}")  # type: ignore[call-overload]
