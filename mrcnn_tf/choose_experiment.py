r"""Choose an experiment for a set of photos and a machine, and write it down with its reasons.

Used as

    python -m mrcnn_tf.choose_experiment --images=photos --annotations=split/train.json \
        --train_records='records/train-*.tfrecord' --val_records='records/val-*.tfrecord' \
        --output_file=photos.yaml [--weights=auto] [--minutes=30]

Looks at the objects of the training photos (image size, anchors, room for objects and masks), takes
a few training steps to see how fast this machine is, and from the minutes that are given says how
many steps there can be. The file is the person's own from then on; every line says why it is so.
"""

import json
import math
import os
import pathlib
import signal
import statistics
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Sequence
from typing import Any

from mrcnn_tf.console import command_line, threads

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before TensorFlow is imported
command_line.require("train")  # before its packages are

import tensorflow as tf
from absl import app, flags

from mrcnn_tf.console import whole_file
from mrcnn_tf.data import coco_json
from mrcnn_tf.experiment import choices, loading, precision
from mrcnn_tf.experiment.choices import Choice, Objects
from mrcnn_tf.experiment.fields import RPN, Data
from mrcnn_tf.images.image_folder import ImageFolder

BASE = "maskrcnn_lite0_fpn_finetune"
EVALUATIONS = 8
_TRIAL_STEPS, _TRIAL_LOOP = 6, 2  # the first loop traces the graph and does not count


def _define_flags() -> None:
    # In a function: importing this module must not claim flag names.
    flags.DEFINE_string("images", None, "Folder of the training photos.", required=True)
    flags.DEFINE_string("annotations", None, "COCO JSON of the training photos.", required=True)
    flags.DEFINE_string("train_records", None, "Pattern of the training records.", required=True)
    flags.DEFINE_string("val_records", None, "Pattern of the validation records.", required=True)
    flags.DEFINE_string("output_file", None, "The experiment, a YAML file.", required=True)
    flags.DEFINE_string(
        "weights",
        "auto",
        "What training starts from: auto, the best weights that can be had; none, random numbers; "
        "or a folder that mrcnn_tf.convert_weights or a training run wrote.",
    )
    flags.DEFINE_float("minutes", 30.0, "Of training, evaluations not counted.", lower_bound=0.1)
    threads.define_flag()


def main(argv: list[str]) -> None:
    """Choose, and write the file."""
    if len(argv) > 1:
        raise app.UsageError(f"not a flag: {argv[1]!r}")
    values = flags.FLAGS
    threads.use(values.threads)  # the trial inherits it
    if not values.output_file.endswith(".yaml"):
        raise SystemExit(f"error: --output_file={values.output_file}: has to end in .yaml")
    try:
        folder = ImageFolder(values.images)
        data = coco_json.read(values.annotations, size_of=folder.size_of)
        objects = choices.objects_of(data)
        base, chosen = _starting_point(values.weights)
        chosen.append(_precision())
        chosen += _choose(
            objects, base, chosen, values.train_records, values.val_records, values.minutes
        )
    except (ValueError, OSError) as error:
        raise SystemExit(f"error: {error}") from error
    head = (
        f"For {len(objects.image_sizes_hw):,} photos with {len(objects.boxes):,} objects of "
        f"{objects.num_classes:,} classes, {values.minutes:g} min of training."
    )
    text = to_text(head, base, chosen)
    pathlib.Path(values.output_file).parent.mkdir(parents=True, exist_ok=True)
    whole_file.write(values.output_file, text)
    loading.load(values.output_file)
    print(f"{text}\nwritten to {values.output_file}; change in it what you like")


def _starting_point(weights: str) -> tuple[str, list[Choice]]:
    """The experiment that is the base, and what the weights ask for.

    Raises:
      ValueError: there is nothing usable in the folder.
    """
    if weights == "auto":
        return BASE, []
    if weights == "none":
        reason = "as wanted: random numbers, which take far longer to learn anything"
        return BASE, [
            Choice("task.model.backbone.weights", "", reason),
            Choice("task.model.backbone.norm", "group_norm", "frozen norms need trained weights"),
            Choice("task.model.backbone.freeze_at", 0, "nothing is worth keeping yet"),
        ]
    folder = pathlib.Path(weights)
    params = folder / "params.yaml"
    if not params.is_file():
        raise ValueError(
            f"--weights={weights}: neither auto nor none, nor a folder with a params.yaml, as "
            "mrcnn_tf.convert_weights and mrcnn_tf.train write it"
        )
    finetune, trained = loading.load(BASE), loading.load(str(params))
    optimizer = finetune.trainer.optimizer_config.as_dict()
    reason = f"that of {BASE}, for few photos"
    return str(params.resolve()), [
        Choice("task.init_checkpoint", str(folder.resolve()), "where training starts"),
        Choice("task.model.num_classes", 0, "from the label map of the photos"),
        Choice(
            "task.model.rpn.anchor_sizes",
            list(trained.task.model.rpn.anchor_sizes),
            "those that the RPN was trained on",
        ),
        Choice("task.annotation_file", "", "scored against the validation records"),
        *_leaves("trainer.optimizer_config", optimizer, reason),
        Choice("trainer.weight_decay", finetune.trainer.weight_decay, "likewise"),
    ]


def _leaves(field: str, value: Any, reason: str) -> list[Choice]:
    """A choice for each field below a group of them that says something."""
    if isinstance(value, dict):
        return [c for name, v in value.items() for c in _leaves(f"{field}.{name}", v, reason)]
    return [] if value is None else [Choice(field, value, reason)]


def _precision() -> Choice:
    """The type to train in."""
    dtype = precision.fastest()
    half = "what this machine is fastest in; weights, losses and results stay float32"
    full = "this machine has no instructions for half precision"
    return Choice(precision.FIELD, dtype, full if dtype == precision.NONE else half)


def _choose(
    objects: Objects,
    base: str,
    given: Sequence[Choice],
    train_records: str,
    val_records: str,
    minutes: float,
) -> list[Choice]:
    """Everything that depends on the photos and on the machine."""
    rpn = loading.load(base).task.model.rpn
    finetune = loading.load(BASE)
    recipe, augmentation = finetune.trainer, finetune.task.train_data
    replicas = max(1, len(tf.config.list_physical_devices("GPU")))
    batch = math.ceil(recipe.reference_batch_size / replicas) * replicas
    chosen = [
        Choice("task.train_data.input_path", os.path.abspath(train_records), "the training photos"),
        Choice("task.validation_data.input_path", os.path.abspath(val_records), "the others"),
        Choice(
            "task.train_data.global_batch_size",
            batch,
            "photos in a step: few, so that the minutes hold many steps",
        ),
        Choice("task.validation_data.global_batch_size", batch, "likewise"),
        Choice("trainer.reference_batch_size", batch, "what rate and steps below are meant for"),
        choices.max_instances(objects),
        *choices.mask_arena_pixels(objects),
    ]
    wanted = choices.short_edge(objects)

    def with_edge(edge: int) -> list[Choice]:
        return [*given, *chosen, *_of_edge(objects, edge, wanted, rpn, augmentation, given)]

    def seconds_of(edge: int) -> float:
        print(f"taking some training steps at a short edge of {edge} pixels", flush=True)
        text = to_text("A trial.", base, with_edge(edge))
        speed = _images_per_second(text, may_fail=edge > choices.SHORT_EDGES[0])
        return batch / speed if speed else math.inf

    images = len(objects.image_sizes_hw)
    least_steps = choices.least_steps(images, batch)
    possible = choices.possible_edges(objects)
    pace, measured = choices.pace(wanted.value, possible, minutes, least_steps, seconds_of)
    each = max(1, int(60 * minutes / pace.seconds / EVALUATIONS))
    steps = each * EVALUATIONS
    tried = "; ".join(
        f"{m.seconds:.2f} s a step at {m.short_edge}"
        if math.isfinite(m.seconds)
        else f"not enough memory at {m.short_edge}"
        for m in measured
    )
    schedule = recipe.optimizer_config.learning_rate
    return [
        *with_edge(pace.short_edge)[len(given) :],
        Choice(
            "trainer.train_steps",
            steps,
            f"{minutes:g} min on this machine: {tried}. Each photo is seen "
            f"{steps * batch / images:.0f} times",
        ),
        Choice(
            f"trainer.optimizer_config.learning_rate.{schedule.type}.initial_learning_rate",
            schedule.get().initial_learning_rate,
            "found good for this recipe; mrcnn_tf.train --mode=find_lr tries others on your photos",
        ),
        Choice(
            f"trainer.optimizer_config.learning_rate.{schedule.type}.decay_steps",
            steps,
            "the learning rate falls until the end",
        ),
        Choice(
            "trainer.optimizer_config.warmup.linear.warmup_steps",
            max(1, min(100, steps // 10)),
            "a tenth of the steps, at most 100",
        ),
        Choice("trainer.validation_interval", each, f"{EVALUATIONS} evaluations"),
        Choice("trainer.checkpoint_interval", each, "with each evaluation"),
        Choice("trainer.patience", EVALUATIONS // 2, "ends early when nothing gets better"),
    ]


def _of_edge(
    objects: Objects,
    edge: int,
    wanted: Choice,
    rpn: RPN,
    augmentation: Data,
    given: Sequence[Choice],
) -> list[Choice]:
    """The fields that follow from the size of the images."""
    reason = wanted.reason
    if edge > wanted.value:
        reason += f"; {edge}, because the minutes hold enough steps for sharper outlines"
    if edge < wanted.value:
        reason += f"; {edge}, because larger ones leave too few steps or too little memory"
    low, high = augmentation.scale_jitter
    found = [
        Choice("task.train_data.short_edges", [edge], reason),
        Choice(
            "task.train_data.long_edge",
            edge,
            f"training sees squares of this side, cut out of photos that are {low:g} to {high:g} "
            "times as large as fits into one: fewer pixels a step, and never the same picture",
        ),
        Choice("task.train_data.scale_jitter", [low, high], "see long_edge"),
        *_leaves(
            "task.train_data.color_jitter",
            vars(augmentation.color_jitter),
            "other light than on the day of the photos",
        ),
        Choice("task.validation_data.short_edges", [edge], "what training is for"),
        Choice("task.validation_data.long_edge", choices.long_edge_of(edge), "in proportion"),
    ]
    if not any(choice.field == "task.model.rpn.anchor_sizes" for choice in given):
        found.append(choices.anchor_sizes(objects, edge, rpn))
    return found


def _images_per_second(text: str, may_fail: bool) -> float:
    """How fast an experiment trains, by the command that will train it.

    Args:
      text: the experiment.
      may_fail: return 0 where memory does not suffice.

    Raises:
      ValueError: no step was possible; says why.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "trial.yaml"
        path.write_text(text, encoding="utf-8")
        override = {
            "trainer.train_steps": _TRIAL_STEPS,
            "trainer.steps_per_loop": _TRIAL_LOOP,
            "trainer.summary_interval": _TRIAL_LOOP,
        }
        command = ["-m", "mrcnn_tf.train", f"--experiment={path}", "--mode=train"]
        command += [f"--model_dir={folder}/run", f"--params_override={json.dumps(override)}"]
        done = subprocess.run([sys.executable, *command], capture_output=True, text=True)
        if done.returncode:
            said = (done.stdout + done.stderr)[-2000:]
            if may_fail and (done.returncode == -signal.SIGKILL or "ResourceExhausted" in said):
                return 0.0
            raise ValueError(f"no training step was possible:\n{said}")
        rows = [
            json.loads(line)
            for line in (pathlib.Path(folder) / "run" / "train.jsonl").read_text().splitlines()
        ]
    return statistics.median(r["images_per_second"] for r in rows if not r["first_loop"])


def to_text(head: str, base: str, chosen: Sequence[Choice]) -> str:
    """The experiment as YAML, each field below the reason for its value.

    Args:
      head: the first comment.
      base: the experiment that it differs from.
      chosen: a later choice of a field replaces an earlier one.
    """
    tree: dict[str, Any] = {}
    for choice in chosen:
        node = tree
        *above, name = choice.field.split(".")
        for part in above:
            node = node.setdefault(part, {})
        node[name] = choice
    lines = [f"# {line}" for line in textwrap.wrap(head, 96)]
    lines += [
        "# Yours from here on: change what you like.",
        f"base: {json.dumps(base, ensure_ascii=False)}",
    ]
    _write(tree, 0, lines)
    return "\n".join(lines) + "\n"


def _write(tree: dict[str, Any], depth: int, lines: list[str]) -> None:
    indent = "  " * depth
    for name, node in tree.items():
        if isinstance(node, dict):
            lines.append(f"{indent}{name}:")
            _write(node, depth + 1, lines)
        else:
            lines += [f"{indent}# {line}" for line in textwrap.wrap(node.reason, 94 - len(indent))]
            lines.append(
                f"{indent}{name}: {json.dumps(node.value, ensure_ascii=False)}"
            )  # JSON is YAML


def run_main() -> None:
    """Run the command that was typed."""
    command_line.run(__doc__, _define_flags, main)


if __name__ == "__main__":
    run_main()
