"""A run on several machines: real processes, each with an address of its own on this one."""

import json
import os
import re
import shutil
import signal

import pytest

from benchmarks.worker_processes import Workers, free_ports
from tests.end_to_end.conftest import script

pytestmark = pytest.mark.slow

# Step by step, so that each has its line.
FIELDS = {
    "runtime.distribution_strategy": "multi_worker_mirrored",
    "task.train_data.global_batch_size": 4,
    "trainer.reference_batch_size": 4,
    "trainer.steps_per_loop": 1,
    "trainer.summary_interval": 1,
}


def command(override, model_dir, *flags, mode="train_and_eval", **fields):
    given = json.dumps(json.loads(override) | FIELDS | fields)
    return [
        *("-m", "mrcnn_tf.train", "--experiment=maskrcnn_shapes", f"--mode={mode}"),
        *(f"--model_dir={model_dir}", f"--params_override={given}", "--threads=1", *flags),
    ]


# An RPN is traced in a third of the time, and stops and goes on like everything else.
RPN = {"task.model.system": "rpn", "trainer.best_checkpoint_eval_metric": "ar_1000"}
ALONE = {"runtime.distribution_strategy": "mirrored"}


def rows_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def run(commands, folder, **options):
    """Run workers to their end; return their exit codes and what each printed."""
    with Workers(commands, folder, **options) as workers:
        codes = workers.wait()
        return codes, [workers.printed(k) for k in range(len(commands))]


def files_of(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def trained(override, tmp_path_factory):
    """Two workers of two images, and one process of four: (folder of both, their output)."""
    folder = tmp_path_factory.mktemp("workers")
    codes, out = run([command(override, folder / "two")] * 2, folder / "logs")
    assert codes == [0, 0], out
    codes, alone = run([command(override, folder / "one", **ALONE)], folder / "logs one")
    assert codes == [0], alone
    return folder, out


def test_two_workers_of_two_images_are_one_process_of_four(trained):
    """The images are the same; sums over workers are rounded in another order."""
    folder, _ = trained
    one, two = (rows_of(folder / name / "train.jsonl") for name in ("one", "two"))
    assert [row["step"] for row in two] == [1, 2, 3, 4]
    names = [name for name in one[0] if name.endswith("loss")]
    assert len(names) > 5
    for step, (alone, together) in enumerate(zip(one, two, strict=True)):
        for name in names:
            tolerance = 2e-6 if step == 0 else 1e-3  # training enlarges the last bit
            assert together[name] == pytest.approx(alone[name], rel=tolerance), (step, name)
    for alone, together in zip(
        *(rows_of(folder / name / "metrics.jsonl") for name in ("one", "two")), strict=True
    ):
        assert alone.keys() == together.keys()


def test_the_chief_alone_writes(trained):
    folder, (chief, other) = trained
    plain = [
        sorted(re.sub(r"tfevents.*", "tfevents", name) for name in files_of(folder / which))
        for which in ("one", "two")
    ]
    assert plain[0] == plain[1]
    params = (folder / "two" / "params.yaml").read_text()
    assert params == (folder / "one" / "params.yaml").read_text()  # good for any machines
    assert "worker 0: evaluated at step 4: " in chief
    assert all(line.startswith("worker 0: ") for line in chief.splitlines() if "step" in line)
    assert "worker 1: maskrcnn_shapes: train_and_eval on 2 CPUs" in other
    assert "evaluated at" not in other
    assert "loss" not in other


@pytest.fixture(scope="module")
def five(tmp_path_factory):
    """Five validation images, high ones and wide ones: no two canvases have the same number."""
    folder = tmp_path_factory.mktemp("five")
    numbers = ("--num_train=0", "--num_val=5", "--image_size=40-96", "--seed=2")
    script("data_prep/create_shapes_coco.py", f"--output_dir={folder}", *numbers)
    annotations = folder / "annotations" / "instances_val.json"
    script(
        "data_prep/create_coco_tfrecord.py",
        f"--image_dir={folder / 'val'}",
        f"--object_annotations_file={annotations}",
        f"--output_file_prefix={folder / 'records' / 'val'}",
        "--num_shards=2",
    )
    images = json.loads(annotations.read_text())["images"]
    assert {image["height"] > image["width"] for image in images} == {True, False}
    return {
        "task.validation_data.input_path": f"{folder}/records/val-*.tfrecord",
        "task.validation_data.long_edge": 128,
        "task.validation_data.global_batch_size": 0,
        "task.validation_data.images_per_replica": 1,
    }


def test_evaluation_is_shared_out_and_scores_as_one_process(trained, override, five, tmp_path):
    """In a run's folder; AP and AR to the last digit, losses up to the network's own rounding.

    Two workers have an odd number of images between them, on several canvases, so one of them is
    given blank ones.
    """
    folder, _ = trained
    rows = []
    for name, count in (("one", 1), ("two", 2)):
        run_dir = shutil.copytree(folder / "one", tmp_path / name)
        before = files_of(run_dir)
        strategy = ALONE if count == 1 else {}
        eval_ = command(override, run_dir, mode="eval", **five, **strategy)
        codes, out = run([eval_] * count, tmp_path / f"logs {name}", knows="fields")
        assert codes == [0] * count, out
        assert f"eval of {run_dir}/ckpt-4" in out[0]
        assert all("tfevents" in file for file in files_of(run_dir) - before)
        *_, row = rows_of(run_dir / "metrics.jsonl")
        assert len(rows_of(run_dir / "metrics.jsonl")) == 2  # training's own, and this one
        rows.append(row)
    losses = [{k: row.pop(k) for k in list(row) if k.endswith("loss")} for row in rows]
    assert losses[0]["validation_loss"] > 0
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    assert rows[0]["box_ar100"] > 0
    assert rows[0] == rows[1]


def best_of(run_dir):
    """Step of the best checkpoint: what info.json says, and what is there."""
    (file,) = (run_dir / "best").glob("best_ckpt-*.index")
    step = json.loads((run_dir / "best" / "info.json").read_text())["best_ckpt_global_step"]
    assert file.name == f"best_ckpt-{step:.0f}.index"
    return step


def test_a_worker_that_gets_a_signal_takes_all_of_them_along_and_they_go_on(override, tmp_path):
    long = RPN | {"trainer.train_steps": 2000, "trainer.checkpoint_interval": 2000}
    long["trainer.validation_interval"] = 50  # in between there is time for a signal
    run_dir = tmp_path / "run"
    with Workers([command(override, run_dir, **long)] * 2, tmp_path / "logs") as workers:
        workers.wait_for("evaluated at step 50")
        workers.send(signal.SIGTERM, 1)
        assert workers.wait() == [42, 42]
        host = workers.hosts[1]
        chief, other = workers.printed(0), workers.printed(1)
    assert "worker 1: SIGTERM: stopping after this loop of steps" in other
    (line,) = [x for x in chief.splitlines() if "stopped by" in x]
    found = re.fullmatch(
        rf"worker 0: stopped by SIGTERM to worker 1 \({host}\) at step (\d+), saved as "
        rf"{run_dir}/ckpt-(\d+); the same command goes on from there",
        line,
    )
    assert found, line
    step = int(found[1])
    assert found[2] == found[1]
    assert [row["step"] for row in rows_of(run_dir / "train.jsonl")] == list(range(1, step + 1))
    assert best_of(run_dir) == 50
    # Restarted, they go on, and Ctrl-C at one of them ends both.
    with Workers([command(override, run_dir, **long)] * 2, tmp_path / "interrupted") as workers:
        workers.wait_for(f"step {step + 1:5d}/2,000")
        workers.send(signal.SIGINT, 0)
        assert workers.wait() == [130, 130]
        chief, other = workers.printed(0), workers.printed(1)
    for k, out in enumerate((chief, other)):
        assert f"worker {k}: going on at step {step}" in out
        assert f"worker {k}: stopped by SIGINT to worker 0 (" in out
    step = rows_of(run_dir / "train.jsonl")[-1]["step"]
    # And once more, to an end that is near.
    short = RPN | {"trainer.train_steps": step + 2, "trainer.validation_interval": step + 2}
    codes, (chief, other) = run([command(override, run_dir, **short)] * 2, tmp_path / "again")
    assert codes == [0, 0], chief + other
    for k, out in enumerate((chief, other)):
        assert f"worker {k}: going on at step {step}" in out
    rows = rows_of(run_dir / "train.jsonl")
    assert [row["step"] for row in rows] == list(range(1, step + 3))
    *before, last = rows_of(run_dir / "metrics.jsonl")
    assert last["step"] == step + 2
    best = max(before, key=lambda row: row["ar_1000"])  # the first of equal ones
    is_better = last["ar_1000"] > best["ar_1000"] or last["ar_1000"] == 0
    assert best_of(run_dir) == (last if is_better else best)["step"]
    # And once more there is nothing to do, not even to wait: one was killed while the other left.
    hosts = [f"127.0.0.1:{port}" for port in free_ports(2)]
    for index in (0, 1):
        where = {"runtime.worker_hosts": ",".join(hosts), "runtime.task_index": index}
        alone = command(override, run_dir, **short, **where)
        codes, (out,) = run([alone], tmp_path / f"alone {index}", seconds=200.0)
        assert codes == [0], out
        assert out.startswith(f"worker {index}: {run_dir}: finished, at step {step + 2}, after ")


@pytest.mark.parametrize("killed", [0, 1])
def test_who_is_left_over_says_who_is_gone(override, tmp_path, killed):
    long = RPN | {"trainer.train_steps": 2000, "trainer.validation_interval": 2000}
    left = 1 - killed
    with Workers([command(override, tmp_path / "run", **long)] * 2, tmp_path / "logs") as workers:
        workers.wait_for("step     3/2,000")
        workers.send(signal.SIGKILL, killed)
        codes = workers.wait(seconds=120.0)  # "within seconds", on a machine that does much else
        out, host = workers.printed(left), workers.hosts[killed]
    assert codes[killed] == -signal.SIGKILL
    assert codes[left] == 42, out
    assert "Traceback" not in out
    (line,) = [x for x in out.splitlines() if "gone" in x]
    assert line.startswith(f"worker {left}: worker {killed} ({host}) is gone: ")


def test_ctrl_c_before_the_first_step_ends_all_for_good(override, tmp_path):
    """With 130 and 1, after which no supervisor starts anything again."""
    with Workers([command(override, tmp_path / "run", **RPN)] * 2, tmp_path / "logs") as workers:
        workers.wait_for("worker 1: maskrcnn_shapes: train_and_eval on 2 CPUs", 1)
        workers.send(signal.SIGINT, 1)
        codes = workers.wait(seconds=120.0)
        chief, other, host = workers.printed(0), workers.printed(1), workers.hosts[1]
    assert codes == [1, 130], chief + other
    assert other.splitlines()[-1] == "worker 1: stopped by SIGINT"
    assert f"worker 0: worker 1 ({host}) failed: stopped by SIGINT\n" in chief
    assert "Traceback" not in chief + other


def test_workers_that_were_not_started_by_the_same_command_say_so(override, tmp_path):
    commands = [
        command(override, tmp_path / "run", **RPN),
        command(override, tmp_path / "run", **RPN, **{"trainer.train_steps": 5}),
    ]
    codes, out = run(commands, tmp_path / "logs")
    assert codes == [1, 1]
    assert re.search(r"worker 1 \(.*\): trainer.train_steps: 5; the chief has 4\n", "".join(out)), (
        out
    )
    assert all("started by the same command on the same records" in text for text in out)
    assert not (tmp_path / "run").exists()


def test_an_error_of_one_worker_ends_all(override, tmp_path):
    """Its command line names a set of weights that is not there, on that machine."""
    commands = [
        command(override, tmp_path / "run", **RPN),
        command(override, tmp_path / "run", **RPN, **{"task.init_checkpoint": "nowhere/ckpt-1"}),
    ]
    codes, (chief, other) = run(commands, tmp_path / "logs")
    assert codes == [1, 1], chief
    assert "worker 1: error: no checkpoint: 'nowhere/ckpt-1'" in other
    assert re.search(r"worker 0: worker 1 \(.*\) failed: no checkpoint: 'nowhere/ckpt-1'\n", chief)
    assert "Traceback" not in chief
    assert not (tmp_path / "run").exists()


# Leaves; the chief, on a busy machine, has not fetched what the others said for a while.
_LEAVE = """
import time
import tensorflow as tf

resolver = tf.distribute.cluster_resolver.TFConfigClusterResolver()
strategy = tf.distribute.MultiWorkerMirroredStrategy(resolver)
from mrcnn_tf.training import workers

me = workers.Workers(strategy)
if me.is_chief:
    gather = me.gather

    def slow(value):
        answer = gather(value)
        time.sleep(5.0)
        print("has everything at", time.monotonic(), flush=True)
        return answer

    me.gather = slow
me.leave()
print("may go at", time.monotonic(), flush=True)
"""


def test_who_has_everything_waits_for_the_others_before_leaving(tmp_path):
    """Its process would be gone where the others still fetch its words."""
    codes, (chief, other) = run([["-c", _LEAVE]] * 2, tmp_path)
    assert codes == [0, 0], chief + other
    has = float(re.search(r"has everything at (\S+)", chief)[1])
    left = [float(re.search(r"may go at (\S+)", out)[1]) for out in (chief, other)]
    assert min(left) > has  # of one clock


def test_a_record_that_one_worker_cannot_read_ends_all_with_its_words(override, shapes, tmp_path):
    """Its copy is cut while they train, when the places of the records are known."""
    theirs = shutil.copytree(shapes / "records", tmp_path / "copy")
    long = RPN | {"trainer.train_steps": 2000, "trainer.validation_interval": 2000}
    texts = (override, override.replace(f"{shapes}/records", str(theirs)))
    commands = [command(text, tmp_path / "run", **long) for text in texts]
    with Workers(commands, tmp_path / "logs") as workers:
        workers.wait_for("step     3/2,000")
        for file in theirs.glob("train-*.tfrecord"):
            os.truncate(file, 60)
        codes = workers.wait()
        chief, other = workers.printed(0), workers.printed(1)
    assert codes == [1, 1], chief + other
    said = rf"2 of 2 record files do not fit {theirs}/train.manifest.json: .*train-00000"
    assert re.search(rf"worker 1: error: {said}", other), other
    assert re.search(rf"worker 0: .*worker 1 \(.*\) failed: {said}", chief), chief
    assert "Traceback" not in chief + other


def test_workers_that_start_from_other_weights_say_so(trained, override, tmp_path):
    """Paths may differ from machine to machine; what is behind them may not."""
    commands = [
        command(override, tmp_path / "run", **RPN, **{"task.init_checkpoint": str(path)})
        for path in (trained[0] / "one" / "ckpt-2", trained[0] / "one")
    ]
    codes, out = run(commands, tmp_path / "logs")
    assert codes == [1, 1], out
    for text in out:
        assert "error: the workers do not stand at the same weights" in text
        assert re.search(
            r"worker 1 \(.*\): [\d,]+ of [\d,]+ variables are not those of the chief", text
        )
    assert not (tmp_path / "run").exists()
