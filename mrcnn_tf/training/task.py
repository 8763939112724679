"""The Model Garden task: build model and inputs, one training step, one validation step."""

import functools

import numpy as np
import tensorflow as tf
import tf_keras
from official.core import base_task, task_factory

from mrcnn_tf import checkpoints
from mrcnn_tf.console.progress_bar import ProgressBar
from mrcnn_tf.data import pipeline, schema
from mrcnn_tf.data.label_map import LabelMap
from mrcnn_tf.experiment import fields, inputs, label_maps
from mrcnn_tf.experiment.experiment import Task
from mrcnn_tf.modeling import build
from mrcnn_tf.modeling import metrics as metrics_lib
from mrcnn_tf.modeling.detections import Detections
from mrcnn_tf.modeling.proposals import Proposals
from mrcnn_tf.staged.proposals import ProposalReader
from mrcnn_tf.training import (
    accumulation,
    background,
    decay,
    determinism,
    divergence,
    evaluators,
    network_input,
    training_images,
    validation_images,
)
from mrcnn_tf.training.workers import Workers
from mrcnn_tf.weights import fine_tune, pretrained

NO_DECAY = decay.Decay()
VALIDATION_LOSS = "validation_loss"  # sum of all terms, over the whole validation set
# What a loop's images lost: {what it is called: the batch's key that counts it}.
DROPPED = {
    "dropped_objects": schema.NUM_DROPPED_OBJECTS,  # beyond max_instances
    "dropped_masks": schema.NUM_DROPPED_MASKS,  # beyond mask_arena_pixels
}

# What places detections in the stored image.
_PLACES = (schema.SOURCE_ID, schema.IMAGE_SIZE_HW, schema.ORIGINAL_SIZE_HW)

_Weighted = tuple[tf.Tensor, tf.Tensor]  # a mean, and the number that it is a mean over
_ForwardBackward = tuple[dict[str, tf.Tensor], dict[str, _Weighted], list[tf.Tensor]]


class SumOfMeans(tf_keras.metrics.MeanTensor):
    """The sum of several running means, each weighted by its own counts."""

    def result(self) -> tf.Tensor:
        """Return a sum [], of the metric's type."""
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
        weight_decay: decay.Decay = NO_DECAY,
        enable_xla: bool = False,
        logging_dir: str | None = None,
        label_map: LabelMap | None = None,
    ):
        """Read the label map, so that the number of classes is known.

        Args:
          params: the task's part of the experiment.
          weight_decay: of kernels and biases, and the rate of the latter.
          enable_xla: compile forward and backward pass and inference with XLA.
          logging_dir: the run's folder.
          label_map: the classes of the network; default those of the records.
        """
        # The name stays the class's: TensorFlow wants an identifier, an experiment may be "my-run".
        super().__init__(params, logging_dir=logging_dir)
        self.label_map = label_map or label_maps.of_experiment(params)
        self.loss_names = build.loss_names(params.model)
        self._weight_decay = weight_decay
        self._enable_xla = enable_xla
        augmented = build.augmented_inference(params.model, params.tta)
        self._infer = augmented.infer if augmented else _infer
        self._evaluator: evaluators.Evaluator | None = None
        self._background = background.Background()
        self._progress: ProgressBar | None = None
        self.evaluation_table = ""  # of the last evaluation, to print
        # Set by who trains, under the strategy's scope: its variables are one set per replica.
        self.first_divergence: divergence.FirstDivergence | None = None
        self._images: validation_images.ValidationImages | None = None
        self.training_images: training_images.TrainingImages | None = None
        if params.allow_image_summary:
            drawn = network_input.NetworkInput(
                self.label_map,
                channel_order=params.model.pixels.order,
                pixel_mean=tuple(params.model.pixels.mean),
                pixel_std=tuple(params.model.pixels.std),
            )
            self.training_images = training_images.TrainingImages(drawn)
            if params.model.system != "rpn":
                paste = params.model.detection.mask_paste
                self._images = validation_images.ValidationImages(drawn, paste)

    def build_model(self) -> build.Model:
        """Build the model, its variables created and randomly initialised."""
        tf_keras.utils.set_random_seed(self.task_config.seed)
        return build.build_model(
            self.task_config.model, self.label_map.num_classes, self.label_map.image_counts
        )

    def initialize(self, model: build.Model) -> None:
        """Load the weights that training starts from; called where there is nothing to resume.

        Raises:
          ValueError: `init_checkpoint` does not exist or does not fit.
        """
        config = self.task_config
        parts = config.loaded_parts()
        if "backbone" not in parts:
            pretrained.load(model.backbone, config.model)
        if config.init_checkpoint and not config.init_checkpoint_modules:
            theirs = checkpoints.label_map_of(config.init_checkpoint)
            print(fine_tune.load_what_fits(model, config.init_checkpoint, self.label_map, theirs))
        elif parts:
            whole = set(parts) == set(fields.MODULES)
            checkpoints.load(model, config.init_checkpoint, () if whole else parts)

    def build_inputs(
        self,
        params: fields.Data,
        input_context: tf.distribute.InputContext | None = None,
        first_step: int = 0,
        start: str = "",
    ) -> tf.data.Dataset:
        """Build the data set of one input pipeline; see `experiment/inputs.py`.

        Args:
          params: `train_data` or `validation_data`.
          input_context: which pipeline of how many.
          first_step: where a resumed run goes on.
          start: see `experiment/inputs.py`.
        """
        config = self.task_config
        # What was converted apart may number the same names otherwise.
        label_map = label_maps.of_records(config, params, self.label_map)
        proposals: pipeline.Proposals | None = None
        if params.proposals:
            proposals = ProposalReader(params.proposals)
        dataset = inputs.build(
            config, params, label_map, input_context, first_step, proposals, start
        )
        if params.is_training and self.training_images:
            return self.training_images.watch(dataset)
        return dataset

    def build_metrics(self, training: bool = True) -> list[tf_keras.metrics.Metric]:
        """One running mean per loss; of training, of accuracies and recalls too; what was dropped.

        Of validation, the sum of the losses' means under the name by which Model Garden's trainer
        would report a mean over batches; nothing without `validation_loss`.
        """
        if not training and not self.task_config.validation_loss:
            return []
        names = self.loss_names
        if training:
            names += build.metric_names(self.task_config.model)
        if not training:
            # Adding float32 numbers up in float64 hardly ever rounds, so that the order in which
            # replicas and workers do it does not show.
            means = [tf_keras.metrics.Mean(name, dtype=tf.float64) for name in names]
            return [*means, SumOfMeans(VALIDATION_LOSS, tf.float64, shape=[len(names)])]
        metrics = [tf_keras.metrics.Mean(name, dtype=tf.float32) for name in names]
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
        terms, values, gradients = self.forward_backward(inputs, model, optimizer)
        if self.first_divergence:
            step = tf.cast(optimizer.iterations, tf.int64) + 1
            self.first_divergence.update(step, terms, inputs[schema.SOURCE_ID])
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
        values |= {name: (term, 1.0) for name, term in terms.items()}
        values |= {name: (tf.reduce_sum(inputs[key]), 1.0) for name, key in DROPPED.items()}
        _update(metrics, values)
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
          values: `metrics.metrics`, what the curves show beside the losses.
          gradients: one per trainable variable; their sum over the replicas is the gradient of the
            step.
        """
        step = tf.cast(optimizer.iterations, tf.int64)
        replicas = tf.distribute.get_replica_context().num_replicas_in_sync

        def forward(inputs, step):
            outputs = model.train_forward(inputs, self.task_config.seed, step)
            return model.losses_of(outputs), metrics_lib.metrics(outputs)

        def over_replicas(counts):
            if replicas == 1:
                return counts
            return tf.distribute.get_replica_context().all_reduce("sum", counts)

        def counts_of(sums):
            return {name: term.count for name, term in sums.items()}

        def gradients_of(inputs, step, counts=None) -> _ForwardBackward:
            with tf.GradientTape() as tape:
                sums, values = run_forward(inputs, step)
                if counts is None:
                    counts = over_replicas(counts_of(sums))
                terms = {n: s._replace(count=counts[n]).mean() for n, s in sums.items()}
                loss = determinism.sum_in_order(list(terms.values()))
                scaled = loss
                if isinstance(optimizer, tf_keras.mixed_precision.LossScaleOptimizer):
                    scaled = optimizer.get_scaled_loss(loss)
            return terms, values, tape.gradient(scaled, model.trainable_variables)

        def in_parts(inputs, step) -> _ForwardBackward:
            nothing = tf.zeros([])
            values = build.metric_names(self.task_config.model)
            return accumulation.in_parts(
                inputs,
                parts,
                counts_of=lambda part: counts_of(run_forward(part, step)[0]),
                over_replicas=over_replicas,
                gradients_of=lambda part, counts: gradients_of(part, step, counts),
                like=(
                    dict.fromkeys(self.loss_names, nothing),
                    dict.fromkeys(values, (nothing, nothing)),
                    list(model.trainable_variables),
                ),
            )

        parts = self._parts(replicas)
        in_one = parts[0] == 1

        def both(inputs, step) -> _ForwardBackward:
            terms, values, gradients = (gradients_of if in_one else in_parts)(inputs, step)
            if isinstance(optimizer, tf_keras.mixed_precision.LossScaleOptimizer):
                gradients = optimizer.get_unscaled_gradients(gradients)
            gradients = self._weight_decay.apply(gradients, model.trainable_variables, replicas)
            # Every replica holds a part of each loss; the trainer averages what they report.
            loss = determinism.sum_in_order(list(terms.values()))
            terms = {name: value * replicas for name, value in (terms | {self.loss: loss}).items()}
            return terms, values, gradients

        run_forward = forward
        if not self._enable_xla or (replicas > 1 and self._has_synchronised_norms()):
            return both(inputs, step)
        if replicas > 1:
            # An all-reduce has no place in a compiled function; the tape differentiates the
            # compiled forward pass into a compiled backward pass.
            run_forward = tf.function(forward, jit_compile=True, autograph=False)
            return both(inputs, step)
        return tf.function(both, jit_compile=True, autograph=False)(inputs, step)

    def _parts(self, replicas: int) -> tuple[int, int]:
        return inputs.parts(self.task_config.train_data, replicas)

    def _has_synchronised_norms(self) -> bool:
        """Whether norms sum statistics over the replicas, which no compiled function can do."""
        model = self.task_config.model
        parts = (model.backbone, model.fpn, model.box_head, model.mask_head)
        return any(part.norm == "sync_batch_norm" for part in parts)

    @tf.autograph.experimental.do_not_convert
    def validation_step(
        self,
        inputs: dict[str, tf.Tensor],
        model: build.Model,
        metrics: list[tf_keras.metrics.Metric] | None = None,
    ) -> dict[str, tf.Tensor]:
        """What the network finds in one batch on one replica; its losses, unless switched off.

        Both look at the same features. The losses go to the metrics, weighted by what they are a
        mean over, so that those of the whole set do not depend on how its images are batched. They
        are not returned: the trainer would average them over batches.

        Returns:
          The fields of `Detections` (an RPN's: `Proposals`) and what places them in the stored
          image; with `allow_image_summary` also what drawings need, which stays on the device
          unless it is drawn.
        """

        def forward(inputs, is_real):
            if not self.task_config.validation_loss:
                return self._infer(model, inputs), {}
            features = model.features(inputs[schema.IMAGE], training=False)
            detections = self._infer(model, inputs, features)
            step = tf.constant(0, tf.int64)
            outputs = model.train_forward(
                inputs, self.task_config.seed, step, training=False, features=features
            )
            # The fillers of an evaluation's last batch are no images.
            return detections, model.losses_of(outputs.of_images(is_real))

        if self._enable_xla:
            forward = tf.function(forward, jit_compile=True, autograph=False)
        on_device = {k: v for k, v in inputs.items() if k != schema.SOURCE_ID}
        detections, sums = forward(on_device, tf.reduce_any(inputs[schema.SOURCE_ID] > 0, axis=1))
        if sums:
            terms = {name: (sums[name].mean(), sums[name].count) for name in self.loss_names}
            total = tf.unstack(tf.stack(list(terms.values())), axis=1)
            _update(metrics, terms | {VALIDATION_LOSS: total})
        keys = {*_PLACES, *(network_input.keys_in(inputs) if self._images else ())}
        rows = {key: value for key, value in detections._asdict().items() if value is not None}
        return {key: inputs[key] for key in keys} | rows

    @property
    def evaluator(self) -> evaluators.Evaluator | None:
        """What scores, with the detections of the last evaluation; None before the first."""
        return self._evaluator

    def make_evaluator(self) -> evaluators.Truth:
        """Read the ground truth, for the evaluations to come; return it.

        Raises:
          ValueError: see `evaluators.build`.
        """
        self._evaluator, truth = evaluators.build(self.task_config, self.label_map)
        return truth

    def aggregate_logs(
        self, state: evaluators.Evaluator | None, step_logs: dict[str, tuple[tf.Tensor, ...]]
    ) -> evaluators.Evaluator:
        """Have one step's detections or proposals, a tuple entry per replica, taken down.

        That happens on another thread while the network goes on with the next batch.

        Raises:
          ValueError: the step before had something that cannot be scored.
        """
        if state is None:
            self._background.abandon()  # what is left of an evaluation that was stopped
            if self._evaluator is None:
                self.make_evaluator()
            state = self._evaluator
            assert state is not None
            state.reset()
            workers = Workers(tf.distribute.get_strategy())
            share = -(-state.num_images // workers.count)  # about
            self._progress = None
            if workers.is_chief:
                self._progress = ProgressBar("evaluating", share, "images")
            if self._images:
                self._images.reset()
        self._background.run(functools.partial(self._take_down, state, step_logs))
        return state

    def _take_down(
        self, state: evaluators.Evaluator, step_logs: dict[str, tuple[tf.Tensor, ...]]
    ) -> None:
        before = state.num_added
        for replica in range(len(step_logs[schema.SOURCE_ID])):
            logs = {key: values[replica] for key, values in step_logs.items()}
            drawn = {*network_input.keys_in(logs)} - {*_PLACES}
            state.add(**{k: np.asarray(v) for k, v in logs.items() if k not in drawn})
            if self._images:
                self._images.add(logs)
        if self._progress:
            self._progress.add(state.num_added - before)

    def reduce_aggregated_logs(
        self, aggregated_logs: evaluators.Evaluator, global_step: tf.Tensor | None = None
    ) -> dict[str, float]:
        """Score everything that was added, on all workers together: the chief does it."""
        self._background.wait()
        if self._progress:
            self._progress.close()
        workers = Workers(tf.distribute.get_strategy())
        numbers: dict[str, float] = {}
        for part in workers.to_chief(iter(()) if workers.is_chief else aggregated_logs.parts()):
            aggregated_logs.add_part(part)
        if workers.is_chief:
            numbers = aggregated_logs.evaluate()
            self.evaluation_table = aggregated_logs.table()
        numbers = workers.from_chief(numbers)
        if self._images:
            self._images.write(global_step)
        return numbers


def _infer(
    model: build.Model,
    inputs: dict[str, tf.Tensor],
    features: dict[int, tf.Tensor] | None = None,
) -> Detections | Proposals:
    return model.infer(inputs, features)


def _update(metrics: list[tf_keras.metrics.Metric] | None, values: dict[str, _Weighted]) -> None:
    for metric in metrics or []:
        value, weight = values[metric.name]
        metric.update_state(value, sample_weight=weight)
