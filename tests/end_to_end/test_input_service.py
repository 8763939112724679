"""Training on a tf.data service: its processes are started as docs/many-machines.md says."""

import collections
import contextlib
import json
import os
import re
import signal
import subprocess
import sys

import pytest

from benchmarks.worker_processes import Workers, die_with_parent, free_ports
from mrcnn_tf.data import service_processes
from tests.end_to_end.conftest import ROOT
from tests.end_to_end.test_workers import ALONE, RPN, command, rows_of

pytestmark = pytest.mark.slow

_STARTED = re.compile(r"```sh\n(CUDA_VISIBLE_DEVICES= python -c .*?)```", re.DOTALL)


class InputService:
    """A dispatcher and two workers, each a process; another folder is theirs."""

    def __init__(self, folder):
        text = (ROOT / "docs" / "many-machines.md").read_text()
        self._dispatch, self._work = _STARTED.findall(text)
        self._folder, self.ports = folder, free_ports(3)
        self.address = f"grpc://localhost:{self.ports[0]}"
        self.processes = [self.start(k) for k in range(3)]

    def start(self, k):
        """Start the dispatcher, 0, or a worker."""
        shell = self._work if k else self._dispatch
        for name, value in {
            "THIS_HOST:5051": f"localhost:{self.ports[k]}",
            "DISPATCHER:5050": f"localhost:{self.ports[0]}",
            "port=5051": f"port={self.ports[k]}",
            "port=5050": f"port={self.ports[k]}",
            "= python": f"= exec {sys.executable}",
        }.items():
            shell = shell.replace(name, value)
        return subprocess.Popen(["bash", "-c", shell], cwd=self._folder, preexec_fn=die_with_parent)

    def kill(self, k):
        """Kill one of them."""
        self.processes[k].kill()
        self.processes[k].wait()

    @property
    def fields(self):
        """What a run is told."""
        return {
            "task.train_data.enable_tf_data_service": True,
            "task.train_data.tf_data_service_address": self.address,
        }


@contextlib.contextmanager
def running(folder):
    """A service, until it is not needed any more."""
    started = InputService(folder)
    try:
        service_processes.find(started.address, patience=300.0)
        yield started
    finally:
        for k in range(3):
            started.kill(k)


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    """A dispatcher and two workers, for all tests."""
    with running(tmp_path_factory.mktemp("elsewhere")) as started:
        yield started


def test_two_workers_train_on_what_two_others_read(service, override, tmp_path):
    """And go on: steps are there once, and the run says what its order is worth."""
    for steps in (3, 5):
        fields = RPN | service.fields | {"trainer.train_steps": steps}
        given = [command(override, tmp_path / "run", mode="train", **fields)] * 2
        with Workers(given, tmp_path / f"logs {steps}") as workers:
            codes = workers.wait()
            printed = workers.printed(0)
            assert codes == [0, 0], printed + workers.printed(1)
        assert f"images come from 2 workers of the tf.data service at {service.address}" in printed
    assert "going on at step 3" in printed
    rows = rows_of(tmp_path / "run" / "train.jsonl")
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5]


def test_a_worker_of_the_service_that_is_killed_is_done_without(service, override, tmp_path):
    """One process trains; then two, whose images of a step come from one worker."""
    steps = 60
    fields = RPN | service.fields | {"trainer.train_steps": steps}
    for name, count in (("one", 1), ("two", 2)):
        alone = ALONE if count == 1 else {}
        given = [command(override, tmp_path / name, mode="train", **fields, **alone)] * count
        with Workers(given, tmp_path / f"logs {name}") as workers:
            workers.wait_for("step  3/60")
            service.kill(2)
            codes = workers.wait()
            assert codes == [0] * count, workers.printed(0)
        service.processes[2] = service.start(2)
        rows = rows_of(tmp_path / name / "train.jsonl")
        assert [row["step"] for row in rows] == list(range(1, steps + 1))


def test_a_service_that_is_gone_ends_the_run_which_goes_on_with_another(override, tmp_path):
    """After two minutes in which TensorFlow, by itself, would say nothing and wait."""
    run = tmp_path / "run"

    def started(service, steps, name):
        fields = RPN | service.fields | {"trainer.train_steps": steps}
        given = [command(override, run, mode="train", **fields)] * 2
        return Workers(given, tmp_path / name)

    (tmp_path / "a").mkdir()
    with running(tmp_path / "a") as service, started(service, 50_000, "first") as workers:
        workers.wait_for("step      3/50,000")
        service.kill(1)
        service.kill(2)
        codes = workers.wait()
        printed = workers.printed(0) + workers.printed(1)
    assert codes == [42, 42], printed
    assert "Traceback" not in printed
    why = rf"'{service.address}': none of its workers \(\S+, \S+\) answers\. docs/many-machines.md"
    end = r".*The same command goes on from the newest checkpoint"
    assert re.search(rf"the tf.data service is gone for 120 s: \S+ {why}{end}", printed), printed

    saved = max(int(path.stem.removeprefix("ckpt-")) for path in run.glob("ckpt-*.index"))
    (tmp_path / "b").mkdir()
    with running(tmp_path / "b") as service, started(service, saved + 2, "second") as workers:
        codes = workers.wait()
        printed = workers.printed(0) + workers.printed(1)
    assert codes == [0, 0], printed
    assert f"going on at step {saved:,}, " in printed
    assert [row["step"] for row in rows_of(run / "train.jsonl")] == list(range(1, saved + 3))


def test_a_worker_of_the_service_that_is_stopped_is_named(override, tmp_path):
    """Both processes wait for its batches, then do without it: it is killed."""
    run, steps = tmp_path / "run", 60
    (tmp_path / "a").mkdir()
    with running(tmp_path / "a") as service:
        fields = RPN | service.fields | {"trainer.train_steps": steps}
        given = [command(override, run, mode="train", **fields)] * 2
        with Workers(given, tmp_path / "logs") as workers:
            workers.wait_for("step  3/60")
            service.processes[2].send_signal(signal.SIGSTOP)
            named = f"worker localhost:{service.ports[2]} of the tf.data service has not answered"
            workers.wait_for(f"{named} for 60 s, and is waited for.")
            assert "step 60/60" not in workers.printed(0)
            service.kill(2)
            codes = workers.wait()
            assert codes == [0, 0], workers.printed(0) + workers.printed(1)
            assert workers.printed(0).count(named) == 1
    assert [row["step"] for row in rows_of(run / "train.jsonl")] == list(range(1, steps + 1))


# Prints each batch of one pipeline: its canvas, its image, and what augmentation made of it.
_PART = """
import json, sys, zlib
import tensorflow as tf
from mrcnn_tf.data import schema
from mrcnn_tf.experiment import loading
from mrcnn_tf.training.task import MaskRCNNTask

override, pipelines, part, replicas, count = sys.argv[1], *map(int, sys.argv[2:])
experiment = loading.load("maskrcnn_shapes", params_override=override)
context = tf.distribute.InputContext(pipelines, part, replicas)
task = MaskRCNNTask(experiment.task)
data = task.build_inputs(experiment.task.train_data, context, start=f"start {replicas}")
for batch in data.take(count).as_numpy_iterator():
    (source_id,) = batch[schema.SOURCE_ID]
    canvas, image = batch[schema.IMAGE].shape[1:3], bytes(source_id).decode().rstrip(chr(0))
    print(json.dumps([canvas, image, zlib.crc32(batch[schema.IMAGE].tobytes())]))
"""


def batches_of(override, folder, pipelines, replicas, count):
    """Return what `_PART` prints in each of so many processes; an image is a batch."""
    parts = [
        ["-c", _PART, override, *map(str, (pipelines, k, replicas, count))]
        for k in range(pipelines)
    ]
    with Workers(parts, folder) as workers:
        codes = workers.wait()
        printed = [workers.printed(k) for k in range(pipelines)]
    assert codes == [0] * pipelines, printed
    lines = [[line for line in text.splitlines() if line.startswith("[")] for text in printed]
    return [[json.loads(line) for line in of_part] for of_part in lines]


@pytest.mark.parametrize(("pipelines", "replicas"), [(1, 1), (2, 4)])
def test_images_come_once_an_epoch_and_those_of_a_step_on_one_canvas(
    service, override, tmp_path, pipelines, replicas
):
    """Six images of two canvases; two pipelines of two replicas each are two machines."""
    fields = {"global_batch_size": replicas, "short_edges": [64, 128], "long_edge": 128}
    fields["color_jitter.brightness"] = 0.5
    given = json.loads(override) | {f"task.train_data.{key}": v for key, v in fields.items()}
    here, epochs = replicas // pipelines, 100
    steps = 6 * epochs // replicas
    parts = batches_of(
        json.dumps(given | service.fields), tmp_path, pipelines, replicas, here * steps
    )
    canvases = [
        {tuple(canvas) for part in parts for canvas, *_ in part[k * here : (k + 1) * here]}
        for k in range(steps)
    ]
    assert all(len(of_step) == 1 for of_step in canvases)
    assert len(set.union(*canvases)) == 2
    seen = collections.Counter(image for part in parts for _, image, _ in part)
    assert len(seen) == 6
    # What workers have taken and not yet sent when reading ends is missing, and what they took
    # after it came in its place: how much depends on buffers and on who is faster. So the times
    # that each image has come by then can only be asked for within some epochs; that nothing
    # comes twice is asked for exactly, below.
    assert epochs - 15 <= min(seen.values()) <= max(seen.values()) <= epochs + 15
    # No place in the order comes twice: each has a brightness of its own.
    assert len({looks for part in parts for *_, looks in part}) == 6 * epochs


def test_what_cannot_work_is_said_before_anything_is_written(service, shapes, override, tmp_path):
    """A path that leads each process into a folder of its own; and a port where nobody is."""
    (free,) = free_ports(1)
    here = "/proc/self/cwd/records/train-*.tfrecord"
    for changed, text in (
        (
            {"task.train_data.input_path": here},
            r"cannot read '/proc/self/cwd/.*'; its workers need .* No such file or directory",
        ),
        (
            {"task.train_data.tf_data_service_address": f"grpc://localhost:{free}"},
            rf"'grpc://localhost:{free}': no dispatcher answers .* docs/many-machines.md",
        ),
    ):
        given = command(override, tmp_path / "run", **RPN, **ALONE, **service.fields | changed)
        done = subprocess.run(
            [sys.executable, *given],
            cwd=shapes,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 1, done.stdout + done.stderr
        assert re.search(rf"^error: .*{text}", done.stderr, re.MULTILINE), done.stderr
        assert not (tmp_path / "run").exists()
