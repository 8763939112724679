"""How a run starts, stops, goes on and ends, as the command says it."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys

import pytest
import tensorflow as tf

from mrcnn_tf.data import schema
from mrcnn_tf.data.label_map import LabelMap
from tests.end_to_end.conftest import ROOT


def flags_of(override, model_dir, experiment="maskrcnn_shapes", mode="train_and_eval", **fields):
    given = json.dumps(json.loads(override) | fields)
    return [
        f"--experiment={experiment}",
        f"--mode={mode}",
        f"--model_dir={model_dir}",
        f"--params_override={given}",
    ]


def commands(*flags):
    """Run commands; return [(exit code, what each printed)]."""
    script = [sys.executable, "-m", "tests.end_to_end.commands_script", "train", json.dumps(flags)]
    done = subprocess.run(script, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    return [(answer["code"], answer["out"]) for answer in answers]


def rows_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def contents(folder):
    """{file: its bytes}."""
    return {p: p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def copy_records(source, target, change, **label_map):
    """Write records again, each changed by a function of its features."""
    target.mkdir()
    for file in source:
        with tf.io.TFRecordWriter(str(target / file.name)) as writer:
            for serialized in tf.data.TFRecordDataset(str(file)).as_numpy_iterator():
                example = tf.train.Example.FromString(serialized)
                change(example.features.feature)
                writer.write(example.SerializeToString())
    text = (source[0].parent / schema.LABEL_MAP_FILE).read_text()
    ours = LabelMap.from_json(text)
    theirs = LabelMap(label_map.get("ids", ours.ids), label_map.get("names", ours.names))
    (target / schema.LABEL_MAP_FILE).write_text(theirs.to_json())
    return target


@pytest.fixture(scope="module")
def faulty(shapes, tmp_path_factory):
    """{name of a fault: folder of records with it, train and val}."""
    folder = tmp_path_factory.mktemp("faulty")
    source = sorted((shapes / "records").glob("*.tfrecord"))

    def without_masks(features):
        for key in (schema.MASK_CROP, schema.MASK_NUM_RUNS, schema.MASK_RUNS):
            features.pop(key)

    def all_crowd(features):
        crowds = features[schema.IS_CROWD].int64_list
        crowds.value[:] = [1] * len(crowds.value)

    def same_id(features):
        features[schema.IMAGE_SOURCE_ID].bytes_list.value[:] = [b"7"]

    ids = LabelMap.from_json((shapes / "records" / schema.LABEL_MAP_FILE).read_text()).ids
    return {
        "boxes only": copy_records(source, folder / "boxes", without_masks),
        "all crowd": copy_records(source, folder / "crowd", all_crowd),
        "same id": copy_records(source, folder / "same", same_id),
        "other names": copy_records(
            source, folder / "names", lambda _: None, names=("date", "fig", "kiwi", "lime", "plum")
        ),
        "no objects": copy_records(source, folder / "none", clear_objects),
        "ids": ids,
    }


def clear_objects(features):
    for key in list(features):
        if key.startswith("image/object/"):
            features.pop(key)


def test_what_evaluation_needs_is_looked_at_before_the_first_step(
    faulty, override, shapes, tmp_path
):
    """One process, one answer each, and nothing is written."""
    annotations = json.loads((shapes / "coco/annotations/instances_val.json").read_text())
    for name, change in (("sizes", {"height": 65}), ("ids", {"id": 900})):
        changed = json.loads(json.dumps(annotations))
        if name == "ids":
            changed["annotations"] = changed["annotations"][1:]
        changed["images"][0] |= change
        kept = {image["id"] for image in changed["images"]}
        changed["annotations"] = [a for a in changed["annotations"] if a["image_id"] in kept]
        (tmp_path / f"{name}.json").write_text(json.dumps(changed))
    (ring,) = [c for c in annotations["categories"] if c["name"] == "ring"]
    annotations["annotations"] = [
        a for a in annotations["annotations"] if a["category_id"] != ring["id"]
    ]
    (tmp_path / "no object.json").write_text(json.dumps(annotations))
    annotations["categories"].remove(ring)
    (tmp_path / "no category.json").write_text(json.dumps(annotations))
    train, val = "task.train_data.input_path", "task.validation_data.input_path"
    file = "task.annotation_file"
    best = "trainer.best_checkpoint_eval_metric"
    cases = [
        (
            {train: f"{faulty['boxes only']}/train*"},
            r"none of the objects in task.train_data.*Faster",
        ),
        (
            {val: f"{faulty['boxes only']}/val*"},
            r"none of the objects in task.validation_data.*Faster",
        ),
        ({train: f"{faulty['all crowd']}/train*"}, "nothing to learn from.*crowd regions only"),
        ({val: f"{faulty['all crowd']}/val*"}, "nothing to score.*crowd regions only"),
        ({train: f"{faulty['no objects']}/train*"}, "nothing to learn from.*no object at all"),
        ({val: f"{faulty['same id']}/val*"}, "image 7 occurs more than once"),
        ({val: f"{faulty['other names']}/val*"}, "categories that what is trained .*'date', 'fig'"),
        ({file: f"{tmp_path}/sizes.json"}, r"does not\s+fit task.annotation_file.*64"),
        ({file: f"{tmp_path}/ids.json"}, "is not in the ground truth"),
        ({file: f"{tmp_path}/none.json"}, "none.json.*is not there"),
        ({best: "mask_ap60"}, "'mask_ap60' is nothing"),
        *(
            ({file: f"{tmp_path}/{name}.json", best: "mask_ap/ring"}, "has no object of 'ring'")
            for name in ("no object", "no category")
        ),
        ({"trainer.best_checkpoint_eval_metric": "validation_loss"}, "keep the worst checkpoint"),
        (
            {
                "task.validation_loss": False,
                "trainer.best_checkpoint_eval_metric": "mask_loss",
                "trainer.best_checkpoint_metric_comp": "lower",
            },
            "got 'mask_loss', but task.validation_loss: false computes no losses in evaluations",
        ),
        ({"runtime.worker_hosts": "a:1,b:1"}, "worker_hosts.*names 2 machines.*task_index"),
        ({"runtime.task_index": 1}, "task_index: 1 of which machines"),
        ({"runtime.distribution_strategy": "multi_worker_mirrored"}, "needs to know its machines"),
        ({"task.init_checkpoint": "nowhere/ckpt-1"}, "no checkpoint: 'nowhere/ckpt-1'"),
        ({"runtime.num_gpus": 3}, "runtime.num_gpus: 3, but TensorFlow sees 0 GPUs"),
    ]
    run = tmp_path / "run"
    answers = commands(*(flags_of(override, run, **fields) for fields, _ in cases))
    for (fields, message), (code, out) in zip(cases, answers, strict=True):
        assert code == 1, (fields, out)
        assert "Traceback" not in out, (fields, out)
        assert re.search("(?s)error: .*" + message, out), (fields, out)
    assert not run.exists()


def test_flags_that_are_not_read_are_refused(override, tmp_path):
    flags = flags_of(override, tmp_path / "run")
    for (code, out), name in zip(
        commands(*([*flags, f"--{n}=x"] for n in ("tpu", "gin_file", "tf_data_service"))),
        ("tpu", "gin_file", "tf_data_service"),
        strict=True,
    ):
        assert code == 1
        assert f"error: --{name} would not be read: " in out


@pytest.fixture(scope="module")
def trained(override, tmp_path_factory):
    """A run of two steps and its evaluation, by the command: (its folder, what it printed)."""
    run = tmp_path_factory.mktemp("runs") / "tiny"
    short = {"trainer.train_steps": 2, "trainer.validation_interval": 2}
    ((code, out),) = commands(flags_of(override, run, **short))
    assert code == 0, out
    return run, out


SHORT = {"trainer.train_steps": 2, "trainer.validation_interval": 2}


@pytest.mark.slow
def test_a_folder_is_not_taken_for_what_it_is_not(trained, faulty, override, tmp_path):
    """Another network, other classes, another optimizer: refused, the folder as it was.

    The last two are reruns of the same: they say that all is done, and touch nothing.
    """
    run, _ = trained
    before = contents(run)
    names = ("b", "a", "c", "d", "e")
    source = sorted((faulty["same id"].parent / "names").glob("*.tfrecord"))
    other = copy_records(source, tmp_path / "other", lambda _: None, names=names)
    records = {
        "task.train_data.input_path": f"{other}/train*",
        "task.validation_data.input_path": f"{other}/val*",
    }
    cases = [
        ({"task.model.backbone.base_width": 16}, r"task.model.backbone.base_width: 8 -> 16"),
        ({"task.model.pixels.order": "rgb"}, r"task.model.pixels.order: bgr -> rgb"),
        (records, r"classes: \[.*'ring'.*\] -> \['b', 'a', 'c', 'd', 'e'\]"),
        ({"trainer.optimizer_config.optimizer.type": "sgd"}, r"optimizer.type: adam -> sgd"),
        ({"task.train_data.flip_probability": 0.25}, r"flip_probability: 0.5 -> 0.25"),
        (None, "finished, at step 2, after 4 images. Nothing to do"),
        (None, f"worker 1: {run}: finished, at step 2, after 4 images. Nothing to do"),
    ]
    flags = [flags_of(override, run, **(SHORT | (fields or {}))) for fields, _ in cases]
    # The second of two machines, the first of which is not there: killed when the run ended.
    alone = {"runtime.worker_hosts": "127.0.0.1:1,127.0.0.1:2", "runtime.task_index": 1}
    alone["runtime.distribution_strategy"] = "multi_worker_mirrored"
    flags[-1] = flags_of(override, run, **SHORT, **alone)
    flags[1] += ["--params_override=" + json.dumps(json.loads(override) | SHORT | cases[1][0])]
    for (fields, message), (code, out) in zip(cases, commands(*flags), strict=True):
        assert code == (1 if fields else 0), (fields, out)
        assert "Traceback" not in out, out
        assert re.search(message, out), (fields, out)
        if fields:
            assert "Nothing was changed. Take another --model_dir" in out
    assert contents(run) == before


@pytest.mark.slow
def test_an_evaluation_that_was_lost_is_made_up(trained, override, tmp_path):
    """Nothing is trained again; and its start, a checkpoint that is gone by now, is not needed."""
    run = tmp_path / "run"
    shutil.copytree(trained[0], run)
    before = rows_of(run / "metrics.jsonl")
    (run / "metrics.jsonl").unlink()
    shutil.rmtree(run / "best")
    fields = SHORT | {"task.init_checkpoint": "gone/ckpt-1"}
    ((code, out),) = commands(flags_of(override, run, **fields))
    assert code == 0, out
    assert "going on at step 2, after 4 images" in out
    assert "evaluated at step 2: " in out
    (again,) = rows_of(run / "metrics.jsonl")
    for name in ("step", "images", "box_ap", "validation_loss"):
        assert again[name] == pytest.approx(before[-1][name], abs=1e-6)
    assert rows_of(run / "train.jsonl") == rows_of(trained[0] / "train.jsonl")
    assert (run / "best" / "info.json").exists()


@pytest.mark.slow
def test_what_is_only_scored_needs_no_best_metric(trained, override, tmp_path):
    """Nothing is kept by the loss that is not computed; the line says what type it is of."""
    run = tmp_path / "run"
    shutil.copytree(trained[0], run)
    fields = {
        "task.validation_loss": False,
        "trainer.best_checkpoint_eval_metric": "validation_loss",
        "trainer.best_checkpoint_metric_comp": "lower",
    }
    ((code, out),) = commands(flags_of(override, run, mode="eval", **fields))
    assert code == 0, out
    before, row = rows_of(run / "metrics.jsonl")
    assert row["box_ap"] == pytest.approx(before["box_ap"], abs=1e-6)
    assert "validation_loss" not in row
    assert before["precision"] == row["precision"] == "float32"
    assert contents(run / "best") == contents_of(trained[0] / "best", run / "best")


def contents_of(folder, as_if_in):
    """`contents` of a folder, named as in another."""
    return {as_if_in / path.relative_to(folder): value for path, value in contents(folder).items()}


@pytest.mark.slow
def test_tensorboard_shows_training_images_with_their_targets(trained):
    """Four of them after the first loop, augmented as the network saw them: enlarged 64 pixels."""
    found = {}
    for file in (trained[0] / "train").glob("events*"):
        for event in tf.compat.v1.train.summary_iterator(str(file)):
            for value in event.summary.value:
                if value.tag.startswith("training/"):
                    found[value.tag, event.step] = value.tensor.string_val[2]
    assert set(found) >= {(f"training/{k}", 2) for k in (1, 2, 3, 4)}
    for png in found.values():
        picture = tf.io.decode_png(png).numpy()
        assert picture.shape[1] == 512
        assert picture.shape[0] > 512
        assert picture.std() > 10


@pytest.mark.slow
def test_a_run_that_was_stopped_early_says_so_and_stays(trained, override, tmp_path):
    """By its lines of evaluations alone; more patience has it go on."""
    run = tmp_path / "run"
    shutil.copytree(trained[0], run)
    (row,) = rows_of(run / "metrics.jsonl")
    earlier = [row | {"step": 1, "images": 2, "mask_ap": 0.5}]
    text = "".join(json.dumps(line) + "\n" for line in [*earlier, row | {"mask_ap": 0.5}])
    (run / "metrics.jsonl").write_text(text)
    before = contents(run)
    fields = {"trainer.train_steps": 4, "trainer.validation_interval": 2}
    stopped = flags_of(override, run, **fields, **{"trainer.patience": 1})
    patient = flags_of(override, run, **fields, **{"trainer.patience": 2})
    ((code, out),) = commands(stopped)
    assert code == 0, out
    assert contents(run) == before
    assert re.search(
        r"run: stopped early, at step 2, after 4 images: mask_ap was best at step 1 \(0.5\) and "
        r"not better in the 1 evaluations since \(trainer.patience: 1\). Nothing to do; with a "
        "larger",
        out,
    )
    ((code, out),) = commands(patient)
    assert code == 0, out
    assert "going on at step 2" in out
    assert [line["step"] for line in rows_of(run / "metrics.jsonl")] == [1, 2, 4]
    assert "stopping early" not in out  # it was at its end anyway


@pytest.mark.slow
def test_killed_and_continued_it_stops_early_at_the_same_step(override, tmp_path):
    """With a rate of 0 no evaluation is better than the first: 2 is the best, 8 the end."""
    fields = {
        "trainer.train_steps": 40,
        "trainer.validation_interval": 2,
        "trainer.patience": 3,
        "trainer.best_checkpoint_eval_metric": "validation_loss",
        "trainer.best_checkpoint_metric_comp": "lower",
        "trainer.optimizer_config.learning_rate.type": "constant",
        "trainer.optimizer_config.learning_rate.constant.learning_rate": 0.0,
        "trainer.optimizer_config.warmup.type": None,
    }
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    ((code, out),) = commands(flags_of(override, whole, **fields))
    assert code == 0, out
    for line in ("evaluated at step 4: ", "evaluated at step 6: "):
        with start(flags_of(override, killed, **fields)) as process:
            for said in process.stdout:
                if said.startswith(line):
                    process.kill()
                    break
            process.stdout.read()
        assert process.returncode == -signal.SIGKILL
    ((code, last),) = commands(flags_of(override, killed, **fields))
    assert code == 0, last
    message = (
        r"stopping early, at step 8: validation_loss was best at step 2 \(\S+\) and not better in "
        "the 3"
    )
    assert re.search(message, out), out
    assert re.search(message, last), last
    for run in (whole, killed):
        assert [row["step"] for row in rows_of(run / "metrics.jsonl")] == [2, 4, 6, 8]
        assert tf.train.latest_checkpoint(str(run)).endswith("ckpt-8")
        assert tf.train.latest_checkpoint(str(run / "best")).endswith("best/best_ckpt-2")
        assert json.loads((run / "best/info.json").read_text())["best_ckpt_global_step"] == 2
    before = contents(killed)
    ((code, out),) = commands(flags_of(override, killed, **fields))
    assert code == 0
    assert "stopped early, at step 8, after 16 images" in out
    assert contents(killed) == before


@pytest.mark.slow
def test_find_lr_touches_nothing_of_a_run(trained, override, tmp_path):
    """It writes its folder, in a new run and beside one that has begun, which then goes on."""
    new, begun = tmp_path / "new", tmp_path / "begun"
    shutil.copytree(trained[0], begun)
    before = contents(begun)
    flags = [flags_of(override, run, mode="find_lr", **SHORT) for run in (new, begun)]
    flags.append(flags_of(override, begun, **SHORT))
    *found, (code, out) = commands(*flags)
    for answer, said in found:
        assert answer == 0, said
        assert "find_lr on 1 CPU in float32, 2 images a step" in said
        assert "suggested learning rate: " in said
    assert code == 0
    assert "finished, at step 2, after 4 images. Nothing to do" in out
    files = {"find_lr.json", "losses.csv", "plot.png"}
    assert {path.name for path in (begun / "find_lr").iterdir()} == files
    assert {path.name for path in new.iterdir()} == {"find_lr"}
    after = {p: value for p, value in contents(begun).items() if p.parent.name != "find_lr"}
    assert after == before
    lines = (new / "find_lr" / "losses.csv").read_text().splitlines()
    assert lines[0] == "step,learning_rate,loss,smoothed_loss"
    rates = [float(line.split(",")[1]) for line in lines[1:]]
    assert rates[0] == 1e-6
    assert rates[-1] > 1e-3
    suggestion = json.loads((new / "find_lr" / "find_lr.json").read_text())["suggestion"]
    assert 1e-5 < suggestion < 0.1  # Adam's


@pytest.mark.slow
def test_the_fine_tuning_report_and_a_loss_beyond_bounds_reach_the_person(
    trained, override, tmp_path
):
    """What is printed while weights are loaded, and how a loss that explodes ends a run."""
    fields = {
        "task.init_checkpoint": str(trained[0]),
        "trainer.loss_upper_bound": 0.5,
        "trainer.checkpoint_interval": 1,
    }
    scaled = {"runtime.mixed_precision_dtype": "float16", "runtime.loss_scale": 1e30}
    (code, out), (scaled_code, scaled_out) = commands(
        flags_of(override, tmp_path / "run", mode="train", **fields),
        flags_of(override, tmp_path / "scaled", mode="train", **scaled),
    )
    assert scaled_code == 1
    assert "With the fixed runtime.loss_scale of 1e+30, gradients beyond float16's" in scaled_out
    assert code == 1
    assert re.search(r"ckpt-2: \d+ tensors loaded", out), out
    assert "Traceback" not in out
    found = re.search(
        r"error: the loss was beyond trainer.loss_upper_bound \(0.5\) at step 1: \w+_loss "
        r"[\d.]+; images \d+, \d+\. Nothing of this was saved: there is no checkpoint",
        out,
    )
    assert found, out
    assert tf.train.latest_checkpoint(str(tmp_path / "run")) is None


def start(flags):
    return subprocess.Popen(
        [sys.executable, "-u", "-m", "mrcnn_tf.train", *flags],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.slow
def test_stopped_then_killed_in_the_last_evaluation_then_finished(override, tmp_path):
    """SIGTERM saves, SIGKILL costs the evaluation only; the same command does the rest."""
    run = tmp_path / "run"
    fields = {"trainer.train_steps": 12, "trainer.validation_interval": 12}
    flags = flags_of(override, run, **fields, **{"trainer.checkpoint_interval": 100})
    with start(flags) as process:
        for line in process.stdout:
            if line.startswith("step  2/12"):
                process.send_signal(signal.SIGTERM)
                break
        rest = process.stdout.read()
    assert process.returncode == 128 + signal.SIGTERM, rest
    assert "SIGTERM: stopping after this loop of steps; again to stop at once" in rest
    stopped = re.search(r"stopped by SIGTERM at step (\d+), saved as (\S+);", rest)
    assert stopped, rest
    assert os.path.exists(stopped[2] + ".index")

    with start(flags) as process:
        out = []
        for line in process.stdout:
            out.append(line)
            if line.startswith("step 12/12"):
                break
        # A checkpoint counts from when this file names it.
        while 'model_checkpoint_path: "ckpt-12"' not in (run / "checkpoint").read_text():
            assert process.poll() is None, "".join(out)
        process.kill()
    assert f"going on at step {stopped[1]}, after {2 * int(stopped[1])} images" in "".join(out)
    assert not (run / "metrics.jsonl").exists()

    ((code, out),) = commands(flags)
    assert code == 0
    assert "evaluated at step 12: " in out
    assert [row["step"] for row in rows_of(run / "train.jsonl")] == [2, 4, 6, 8, 10, 12]
    assert [row["step"] for row in rows_of(run / "metrics.jsonl")] == [12]


@pytest.mark.slow
def test_records_that_were_added_are_said_once(override, shapes, tmp_path):
    """Six images, then ten: the run goes on, and from then on these are its records.

    An RPN, which is traced sooner.
    """
    run = tmp_path / "run"
    rpn = {"task.model.system": "rpn", "trainer.best_checkpoint_eval_metric": "ar_1000"}
    more = {"task.train_data.input_path": [f"{shapes}/records/{n}-*" for n in ("train", "val")]}
    answers = commands(
        *(
            flags_of(override, run, mode="train", **{"trainer.train_steps": steps}, **rpn | records)
            for steps, records in ((2, {}), (4, more), (6, more))
        )
    )
    assert [code for code, _ in answers] == [0, 0, 0], answers
    line = "other than before: records of task.train_data: 6 -> 10. What comes next"
    assert [line in out for _, out in answers] == [False, True, False]
    assert "records of task.train_data" not in answers[2][1]
    assert [row["step"] for row in rows_of(run / "train.jsonl")] == [2, 4, 6]
    assert json.loads((run / "train_records.json").read_text())["records"] == 10


@pytest.mark.slow
def test_another_process_scores_what_comes_and_keeps_the_best(trained, override, tmp_path):
    """It ends with the run, does not score twice, and needs nothing of the run's beginning."""
    run = tmp_path / "run"
    shutil.copytree(trained[0], run)
    before = rows_of(run / "metrics.jsonl")
    (run / "metrics.jsonl").unlink()
    shutil.rmtree(run / "best")
    fields = SHORT | {"task.init_checkpoint": "gone/ckpt-1"}
    flags = flags_of(override, run, mode="continuous_eval", **fields)
    (first, out), (second, _) = commands(flags, flags)
    assert (first, second) == (0, 0), out
    (row,) = rows_of(run / "metrics.jsonl")
    assert row["box_ap"] == pytest.approx(before[-1]["box_ap"], abs=1e-6)
    best = json.loads((run / "best" / "info.json").read_text())
    assert best["box_ap"] == pytest.approx(row["box_ap"])
    assert tf.train.latest_checkpoint(str(run / "best"))


@pytest.mark.slow
@pytest.mark.parametrize(
    "fields",
    [
        {},
        {
            "trainer.optimizer_config.optimizer.type": "adamw",
            "runtime.mixed_precision_dtype": "bfloat16",
        },
    ],
    ids=["sgd", "adamw in bfloat16"],
)
def test_going_on_with_two_replicas_keeps_the_place_in_the_schedule(override, tmp_path, fields):
    """Eight images, four of them in steps of one, four in steps of two: one curve."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.end_to_end.replicas_script", override, str(tmp_path)]
        + [json.dumps(fields)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    assert "going on at step 2, after 4 images" in done.stdout
    rows = rows_of(tmp_path / "run" / "train.jsonl")
    assert [(row["step"], row["images"]) for row in rows] == [(2, 2), (4, 4), (4, 8)]
    drawn = [
        event.step
        for file in sorted((tmp_path / "run" / "train").glob("events*"))
        for event in tf.compat.v1.train.summary_iterator(str(file))
        if any(value.tag == "training_loss" for value in event.summary.value)
    ]
    assert sorted(drawn) == [2, 4, 4]  # those of before, in steps of one image, stay
    assert tf.train.latest_checkpoint(str(tmp_path / "run")).endswith("ckpt-4")
    reader = tf.train.load_checkpoint(str(tmp_path / "run"))
    value = "/.ATTRIBUTES/VARIABLE_VALUE"
    assert reader.get_tensor("global_step" + value) == 4
    assert reader.get_tensor("images_per_step" + value) == 2
    assert reader.get_tensor("optimizer/iter" + value) == 4
    # Declared for one image a step: 0.01 up to the sixth image, then a tenth; twice that in steps
    # of two images.
    rates = [row["learning_rate"] for row in rows]
    assert rates == pytest.approx([0.01, 0.01, 0.002])


@pytest.mark.slow
def test_going_back_right_after_a_change_of_the_batch(override, tmp_path):
    """Two steps of two images are four of one: the loss that is lost in step 6 goes back to 4."""
    run, lr = tmp_path / "run", "trainer.optimizer_config.learning_rate.cosine"
    begun = flags_of(override, run, mode="train", **{"trainer.train_steps": 2})
    fields = {
        "task.train_data.global_batch_size": 1,
        "trainer.train_steps": 8,
        "trainer.recovery_max_trials": 1,
        f"{lr}.initial_learning_rate": 1e30,
        "trainer.optimizer_config.warmup.type": None,
    }
    (code, _), (ended, out) = commands(begun, flags_of(override, run, mode="train", **fields))
    assert code == 0
    assert ended == 1
    assert "going on at step 4, after 4 images" in out
    assert re.search(r"not finite at step 6: .*Going back to .*ckpt-2", out), out
    assert re.search(r"error: the loss was not finite at step 6: ", out), out
    assert [row["images"] for row in rows_of(run / "train.jsonl")][0] == 4


@pytest.mark.slow
def test_a_run_whose_files_lie_in_memory(override, shapes, tmp_path):
    """ram:// stands for every file system of `tf.io.gfile`: records, annotations, the run."""
    script = [sys.executable, "-m", "tests.end_to_end.ram_script", override, str(shapes)]
    done = subprocess.run(script, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    assert "finished, at step 2" in done.stdout
