"""The Model Garden task: build model and inputs, one training step, one validation step."""

import os

import numpy as np
import tensorflow as tf
import tf_keras
from official.core import base_task, task_factory

from mrcnn_tf import layout
from mrcnn_tf.data import augment, canvases, coco_json, pipeline, schema
from mrcnn_tf.data.label_map import LabelMap
from mrcnn_tf.evaluation import coco, ground_truth
from mrcnn_tf.evaluation import proposals as proposal_evaluation
from mrcnn_tf.experiment import fields
from mrcnn_tf.experiment.experiment import Task
from mrcnn_tf.modeling import backbones, build
from mrcnn_tf.modeling import metrics as metrics_lib
from mrcnn_tf.training import divergence, progress, validation_images
from mrcnn_tf.weights import fine_tune

VALIDATION_LOSS = "validation_loss"  # sum of all terms, over the whole validation set
# What a loop's images lost: {what it is called: the batch's key that counts it}.
DROPPED = {
    "dropped_objects": schema.NUM_DROPPED_OBJECTS,  # beyond max_instances
    "dropped_masks": schema.NUM_DROPPED_MASKS,  # beyond mask_arena_pixels
}

# What places detections in the stored image.
_PLACES = (schema.SOURCE_ID, schema.IMAGE_SIZE_HW, schema.ORIGINAL_SIZE_HW)

Evaluator = coco.CocoEvaluator | proposal_evaluation.ProposalEvaluator

_Weighted = tuple[tf.Tensor, tf.Tensor]  # a mean, and the number that it is a mean over
_ForwardBackward = tuple[dict[str, tf.Tensor], dict[str, _Weighted], list[tf.Tensor]]


class SumOfMeans(tf_keras.metrics.MeanTensor):
    """The sum of several running means, each weighted by its own counts."""

    def result(self) -> tf.Tensor:
        """Return float32 []."""
        return tf.reduce_sum(super().result())


@task_factory.register_task_cls(Task)
class MaskRCNNTask(base_task.Task):
    """Trains and evaluates Mask R-CNN.

    With one replica, `train_step`'s forward and backward pass are one function. With several, the
    numbers that losses are divided by are summed over all replicas between the two, and the
    gradients afterwards, so that the step does not depend on how the images are spread.
    """

    def __init__(
        self,
        params: Task,
        weight_decay: float = 0.0,
        enable_xla: bool = False,
        logging_dir: str | None = None,
        label_map: LabelMap | None = None,
    ):
        """Read the label map, so that the number of classes is known.

        Args:
          params: the task's part of the experiment.
          weight_decay: see `Trainer`.
          enable_xla: compile forward and backward pass and inference with XLA.
          logging_dir: the run's folder.
          label_map: the classes of the network; default those of the records.
        """
        # The name stays the class's: TensorFlow wants an identifier, an experiment may be "my-run".
        super().__init__(params, logging_dir=logging_dir)
        self.label_map = label_map or read_label_map(params)
        self.loss_names = build.loss_names(params.model)
        self._weight_decay = weight_decay
        self._enable_xla = enable_xla
        self._evaluator: Evaluator | None = None
        self.evaluation_table = ""  # of the last evaluation, to print
        # Set by who trains, under the strategy's scope: its variables are one set per replica.
        self.first_non_finite: divergence.FirstNonFinite | None = None
        self._images: validation_images.ValidationImages | None = None
        if params.allow_image_summary and params.model.system != "rpn":
            self._images = validation_images.ValidationImages(
                self.label_map,
                channel_order=params.model.pixels.order,
                pixel_mean=tuple(params.model.pixels.mean),
                pixel_std=tuple(params.model.pixels.std),
                mask_paste=params.model.detection.mask_paste,
            )

    def build_model(self) -> build.Model:
        """Build the model, its variables created and randomly initialised."""
        tf_keras.utils.set_random_seed(self.task_config.seed)
        return build.build_model(self.task_config.model, self.label_map.num_classes)

    def initialize(self, model: build.Model) -> None:
        """Load the weights that training starts from; called where there is nothing to resume.

        Raises:
          ValueError: `init_checkpoint` does not exist or does not fit.
        """
        config = self.task_config
        parts = config.loaded_parts()
        if config.model.backbone.weights == "imagenet" and "backbone" not in parts:
            backbones.entry_of(model.backbone).weights_module().load_imagenet(model.backbone)
        if config.init_checkpoint and not config.init_checkpoint_modules:
            theirs = label_map_of(config.init_checkpoint)
            print(fine_tune.load_what_fits(model, config.init_checkpoint, self.label_map, theirs))
        elif parts:
            load_checkpoint(model, config.init_checkpoint, parts)

    def build_inputs(
        self,
        params: fields.Data,
        input_context: tf.distribute.InputContext | None = None,
        first_step: int = 0,
    ) -> tf.data.Dataset:
        """Build the data set of one input pipeline; see `data/pipeline.py`.

        Args:
          params: `train_data` or `validation_data`.
          input_context: which pipeline of how many.
          first_step: where a resumed run goes on.
        """
        model, rpn = self.task_config.model, self.task_config.model.rpn
        replicas = input_context.num_replicas_in_sync if input_context else 1
        pipelines = input_context.num_input_pipelines if input_context else 1
        edges = tuple(params.short_edges)
        scale_jitter = tuple(params.scale_jitter)
        if params.canvas == "exact":
            canvas_sizes = None
        elif scale_jitter:
            canvas_sizes = canvases.square(params.long_edge)
        else:
            canvas_sizes = canvases.make(edges, params.long_edge)
        return pipeline.build(
            params.input_path,
            label_map=self.label_map,
            is_training=params.is_training,
            per_replica_batch_size=batch_size(params, replicas) // replicas,
            num_replicas=replicas // pipelines,
            num_input_pipelines=pipelines,
            input_pipeline_id=input_context.input_pipeline_id if input_context else 0,
            short_edges=edges,
            long_edge=params.long_edge,
            canvas_sizes=canvas_sizes,
            resize_convention=model.pixels.resize,
            channel_order=model.pixels.order,
            pixel_mean=tuple(model.pixels.mean),
            pixel_std=tuple(model.pixels.std),
            flip_probability=params.flip_probability,
            scale_jitter=scale_jitter,
            color_jitter=augment.ColorJitter(**vars(params.color_jitter)),
            shuffle_buffer=params.shuffle_buffer_size,
            max_instances=model.max_instances,
            mask_arena_pixels=params.mask_arena_pixels,
            # Another order than the run began with, or it would see the same images again.
            seed=params.seed if params.exact_resume else params.seed + first_step,
            first_step=first_step if params.exact_resume else 0,
            proposals=params.proposals or None,
            num_proposals=rpn.post_nms_top_k_train
            if params.is_training
            else rpn.post_nms_top_k_test,
        )

    def build_metrics(self, training: bool = True) -> list[tf_keras.metrics.Metric]:
        """One running mean per loss; of training, of measures too, and what was dropped.

        Of validation, the sum of the losses' means under the name by which Model Garden's trainer
        would report a mean over batches.
        """
        names = self.loss_names
        if training:
            names += build.metric_names(self.task_config.model)
        metrics = [tf_keras.metrics.Mean(name, dtype=tf.float32) for name in names]
        if not training:
            return [*metrics, SumOfMeans(VALIDATION_LOSS, tf.float32, shape=[len(names)])]
        return metrics + [tf_keras.metrics.Sum(name, dtype=tf.float32) for name in DROPPED]

    # AutoGraph is off in both steps: nothing here branches on a tensor in Python, converting the
    # source takes time, and it reads the files as they are at the first evaluation: an edit made
    # while a run trains would end it there.
    @tf.autograph.experimental.do_not_convert
    def train_step(
        self,
        inputs: dict[str, tf.Tensor],
        model: build.Model,
        optimizer: tf_keras.optimizers.Optimizer,
        metrics: list[tf_keras.metrics.Metric] | None = None,
    ) -> dict[str, tf.Tensor]:
        """One step on one replica.

        Args:
          inputs: a batch as in `data/schema.py`.
          model: the network.
          optimizer: sums the gradients of all replicas.
          metrics: of `build_metrics`.

        Returns:
          {"loss": float32 []}.
        """
        terms, watched, gradients = self.forward_backward(inputs, model, optimizer)
        if self.first_non_finite:
            step = tf.cast(optimizer.iterations, tf.int64) + 1
            self.first_non_finite.update(step, terms, inputs[schema.SOURCE_ID])
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
        watched |= {name: (term, 1.0) for name, term in terms.items()}
        watched |= {name: (tf.reduce_sum(inputs[key]), 1.0) for name, key in DROPPED.items()}
        _update(metrics, watched)
        return {self.loss: terms[self.loss]}

    def forward_backward(
        self,
        inputs: dict[str, tf.Tensor],
        model: build.Model,
        optimizer: tf_keras.optimizers.Optimizer,
    ) -> _ForwardBackward:
        """Losses and gradients of one replica, without the update.

        Returns:
          terms: the losses and their sum, {name: float32 []}.
          watched: `metrics.measures`.
          gradients: one per trainable variable; their sum over the replicas is the gradient of the
            step.
        """
        step = tf.cast(optimizer.iterations, tf.int64)
        replicas = tf.distribute.get_replica_context().num_replicas_in_sync

        def forward(inputs, step):
            outputs = model.train_forward(inputs, self.task_config.seed, step)
            return model.losses_of(outputs), metrics_lib.metrics(outputs)

        def both(inputs, step) -> _ForwardBackward:
            with tf.GradientTape() as tape:
                sums, watched = run_forward(inputs, step)
                counts = {name: term.count for name, term in sums.items()}
                if replicas > 1:
                    counts = tf.distribute.get_replica_context().all_reduce("sum", counts)
                terms = {n: s._replace(count=counts[n]).mean() for n, s in sums.items()}
                loss = tf.add_n(list(terms.values()))
                scaled = loss
                if isinstance(optimizer, tf_keras.mixed_precision.LossScaleOptimizer):
                    scaled = optimizer.get_scaled_loss(loss)
            gradients = tape.gradient(scaled, model.trainable_variables)
            if isinstance(optimizer, tf_keras.mixed_precision.LossScaleOptimizer):
                gradients = optimizer.get_unscaled_gradients(gradients)
            gradients = self._decay(gradients, model.trainable_variables, replicas)
            # Every replica holds a part of each loss; the trainer averages what they report.
            terms = {name: value * replicas for name, value in (terms | {self.loss: loss}).items()}
            return terms, watched, gradients

        run_forward = forward
        if not self._enable_xla or (replicas > 1 and self._has_synchronised_norms()):
            return both(inputs, step)
        if replicas > 1:
            # An all-reduce has no place in a compiled function; the tape differentiates the
            # compiled forward pass into a compiled backward pass.
            run_forward = tf.function(forward, jit_compile=True, autograph=False)
            return both(inputs, step)
        return tf.function(both, jit_compile=True, autograph=False)(inputs, step)

    def _has_synchronised_norms(self) -> bool:
        """Whether norms sum statistics over the replicas, which no compiled function can do."""
        model = self.task_config.model
        parts = (model.backbone, model.fpn, model.box_head, model.mask_head)
        return any(part.norm == "sync_batch_norm" for part in parts)

    def _decay(
        self, gradients: list[tf.Tensor], variables: list[tf.Variable], replicas: int
    ) -> list[tf.Tensor]:
        """Add weight decay to the gradients, so that momentum sees it, as Caffe2 and PyTorch do.

        Norm scales and offsets do not decay (Detectron2's `WEIGHT_DECAY_NORM` 0).
        """
        decayed = []
        for gradient, variable in zip(gradients, variables, strict=True):
            if gradient is None:
                raise ValueError(f"{variable.name} gets no gradient")
            gradient = tf.convert_to_tensor(gradient)
            if not variable.name.split("/")[-1].startswith(("gamma", "beta")):
                gradient += self._weight_decay / replicas * tf.cast(variable, gradient.dtype)
            decayed.append(gradient)
        return decayed

    @tf.autograph.experimental.do_not_convert
    def validation_step(
        self,
        inputs: dict[str, tf.Tensor],
        model: build.Model,
        metrics: list[tf_keras.metrics.Metric] | None = None,
    ) -> dict[str, tf.Tensor]:
        """What the network finds in one batch on one replica, and its losses there.

        The losses go to the metrics, weighted by what they are a mean over, so that those of the
        whole set do not depend on how its images are batched. They are not returned: the trainer
        would average them over batches.

        Returns:
          The fields of `Detections` (an RPN's: `Proposals`) and what places them in the stored
          image; with `allow_image_summary` also what drawings need, which stays on the device
          unless it is drawn.
        """

        def forward(inputs, is_real):
            found = model.infer(inputs)
            outputs = model.train_forward(
                inputs, self.task_config.seed, tf.constant(0, tf.int64), training=False
            )
            # The fillers of an evaluation's last batch are no images.
            return found, model.losses_of(outputs.of_images(is_real))

        if self._enable_xla:
            forward = tf.function(forward, jit_compile=True, autograph=False)
        on_device = {k: v for k, v in inputs.items() if k != schema.SOURCE_ID}
        found, sums = forward(on_device, tf.reduce_any(inputs[schema.SOURCE_ID] > 0, axis=1))
        terms = {name: (sums[name].mean(), sums[name].count) for name in self.loss_names}
        _update(
            metrics, terms | {VALIDATION_LOSS: tf.unstack(tf.stack(list(terms.values())), axis=1)}
        )
        keys = {*_PLACES, *(validation_images.BATCH_KEYS if self._images else ())}
        found = {key: value for key, value in found._asdict().items() if value is not None}
        return {key: inputs[key] for key in keys} | found

    def aggregate_logs(
        self, state: Evaluator | None, step_logs: dict[str, tuple[tf.Tensor, ...]]
    ) -> Evaluator:
        """Hand one step's detections or proposals, a tuple entry per replica, to the evaluator."""
        if state is None:
            state = self._get_evaluator()
            state.reset()
            self._evaluation_progress = progress.ImageProgress("evaluating", state.num_images)
            if self._images:
                self._images.reset()
        for replica in range(len(step_logs[schema.SOURCE_ID])):
            logs = {key: values[replica] for key, values in step_logs.items()}
            drawn = {*validation_images.BATCH_KEYS} - {*_PLACES}
            state.add(**{k: np.asarray(v) for k, v in logs.items() if k not in drawn})
            if self._images:
                self._images.add(logs)
        self._evaluation_progress.show(state.num_added)
        return state

    def reduce_aggregated_logs(
        self, aggregated_logs: Evaluator, global_step: tf.Tensor | None = None
    ) -> dict[str, float]:
        """Score everything that was added."""
        numbers = aggregated_logs.evaluate()
        self.evaluation_table = aggregated_logs.table()
        if self._images:
            self._images.write(global_step)
        return numbers

    def _get_evaluator(self) -> Evaluator:
        """Read the ground truth once; what the network finds decides how it is scored."""
        if self._evaluator is None:
            config = self.task_config
            has_masks = config.model.system == "mask_rcnn"
            if config.annotation_file:
                truth = ground_truth.from_annotation_file(config.annotation_file, has_masks)
            else:
                truth = ground_truth.from_records(
                    config.validation_data.input_path, self.label_map, has_masks
                )
            if config.model.system == "rpn":
                self._evaluator = proposal_evaluation.ProposalEvaluator(truth)
            else:
                self._evaluator = coco.CocoEvaluator(
                    truth,
                    self.label_map,
                    include_masks=has_masks,
                    max_detections=max(100, config.model.max_instances),
                    mask_paste=config.model.detection.mask_paste,
                )
        return self._evaluator


def _update(metrics: list[tf_keras.metrics.Metric] | None, watched: dict[str, _Weighted]) -> None:
    for metric in metrics or []:
        value, weight = watched[metric.name]
        metric.update_state(value, sample_weight=weight)


def batch_size(data: fields.Data, replicas: int) -> int:
    """Images per step over all replicas.

    Raises:
      ValueError: `global_batch_size` does not divide among the replicas.
    """
    if not data.global_batch_size:
        return data.images_per_replica * replicas
    if data.global_batch_size % replicas:
        raise ValueError(
            f"global_batch_size: {data.global_batch_size} images do not divide among {replicas} "
            "replicas"
        )
    return data.global_batch_size


def read_label_map(config: Task) -> LabelMap:
    """Return the label map beside the records; generic names if the experiment gives a number.

    Records of other converters have no label map: then the categories of `annotation_file` are it.

    Raises:
      ValueError: there is none, or its classes are not as many as the experiment says.
    """
    found = _find_label_map(config)
    if found:
        path, label_map = found
        if config.model.num_classes not in (0, label_map.num_classes):
            raise ValueError(
                f"task.model.num_classes is {config.model.num_classes}, but {path} has "
                f"{label_map.num_classes - 1} categories: it must be {label_map.num_classes} "
                "(background counts), or 0 to take it from there"
            )
        return label_map
    if config.model.num_classes:
        ids = tuple(range(1, config.model.num_classes))
        return LabelMap(ids, tuple(f"class {i}" for i in ids))
    folder = os.path.dirname(config.train_data.input_path) or "."
    converter = " ".join(layout.data_prep_command("create_coco_tfrecord"))
    raise ValueError(
        f"no {schema.LABEL_MAP_FILE} in {folder!r} (task.train_data.input_path is "
        f"{config.train_data.input_path!r}). Make the records first:\n"
        f"  python {converter} --image_dir=DIR "
        f"--object_annotations_file=FILE.json --output_file_prefix={folder}/train\n"
        "or, where another converter made them, give the COCO file with their categories as "
        "task.annotation_file"
    )


def _find_label_map(config: Task) -> tuple[str, LabelMap] | None:
    for data in (config.train_data, config.validation_data):
        path = os.path.join(os.path.dirname(data.input_path), schema.LABEL_MAP_FILE)
        if tf.io.gfile.exists(path):
            with tf.io.gfile.GFile(path) as file:
                return path, LabelMap.from_json(file.read(), path)
    if config.annotation_file:
        return config.annotation_file, coco_json.read_label_map(config.annotation_file)
    return None


def label_map_of(checkpoint: str) -> LabelMap | None:
    """Return the label map that training or conversion left beside a checkpoint, if there is one.

    Args:
      checkpoint: a checkpoint or a run's folder.
    """
    folder = checkpoint if tf.io.gfile.isdir(checkpoint) else os.path.dirname(checkpoint)
    for candidate in (folder, os.path.dirname(folder)):  # best/ckpt-1 lies one folder down
        path = os.path.join(candidate, schema.LABEL_MAP_FILE)
        if tf.io.gfile.exists(path):
            with tf.io.gfile.GFile(path) as file:
                return LabelMap.from_json(file.read(), path)
    return None


def load_checkpoint(
    model: tf_keras.Model, path: str, parts: tuple[str, ...] = fields.MODULES
) -> str:
    """Load a model's weights from a checkpoint of a run.

    Args:
      model: its variables exist.
      path: a checkpoint, or a folder whose newest is taken.
      parts: the attributes of the model to load, `fields.MODULES` or some of them; the others stay
        as they are.

    Returns:
      The checkpoint that was read.

    Raises:
      ValueError: there is no checkpoint, or a variable of these parts is not in it or has another
        shape there.
    """
    found = tf.train.latest_checkpoint(path) if tf.io.gfile.isdir(path) else path
    if not found or not tf.io.gfile.exists(found + ".index"):
        raise ValueError(f"no checkpoint: {path!r}")
    whole = set(parts) == set(fields.MODULES)
    wanted = model
    if not whole:
        wanted = tf.train.Checkpoint(
            **{part: getattr(model, part) for part in parts if getattr(model, part) is not None}
        )
    try:
        status = tf.train.Checkpoint(model=wanted).read(found)
        status.expect_partial().assert_existing_objects_matched()
    except (AssertionError, ValueError) as error:  # something is missing, or has another shape
        what = "this model" if whole else f"{', '.join(parts)} of this model"
        wrong = fine_tune.differences(model, found)
        lines = [f"  {name}: {why}" for name, why in wrong.items() if name.startswith(parts)]
        more = [f"  and {len(lines) - 10} more"] if len(lines) > 10 else []
        raise ValueError(
            "\n".join([f"{found} does not fit {what}:", *lines[:10], *more])
        ) from error
    return found
