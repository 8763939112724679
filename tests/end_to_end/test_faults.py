"""Damaged folders, full disks and signals, as the command meets them."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest
import tensorflow as tf

from mrcnn_tf import checkpoints
from tests.end_to_end.conftest import ROOT
from tests.end_to_end.test_runs import commands, contents, flags_of, rows_of, start

SIX = {"trainer.train_steps": 6, "trainer.validation_interval": 4}
EIGHT = {"trainer.train_steps": 8, "trainer.validation_interval": 4}


@pytest.fixture(scope="module")
def run_of_six(override, tmp_path_factory):
    """A run of six steps: checkpoints after 2, 4 and 6, evaluations after 4 and 6."""
    run = tmp_path_factory.mktemp("runs") / "six"
    ((code, out),) = commands(flags_of(override, run, **SIX))
    assert code == 0, out
    assert steps_of(run, "metrics.jsonl") == [4, 6]
    return run


def steps_of(run, name):
    return [row["step"] for row in rows_of(run / name)]


def data_of(run, step):
    return run / f"ckpt-{step}.data-00000-of-00001"


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x10
    path.write_bytes(content)


@pytest.mark.slow
def test_a_damaged_folder_is_mended_or_refused_and_never_begun_anew(run_of_six, override, tmp_path):
    """One process each: what breaks, what is said, at which step it goes on."""

    def truncated(run):
        cut(data_of(run, 6))

    def two_of_three(run):
        flip(data_of(run, 6))
        data_of(run, 4).unlink()

    def all_of_them(run):
        for step in (2, 4, 6):
            flip(data_of(run, step))

    cases = {
        "list lost": (
            lambda run: (run / "checkpoint").unlink(),
            r"checkpoint, which says which checkpoint is the newest, is lost: taking .*ckpt-6",
            6,
        ),
        "newest cut": (
            truncated,
            r"ckpt-6 is damaged \(.*\): taking the one before, \S+ckpt-4",
            4,
        ),
        "two of three": (two_of_three, r"ckpt-4 is damaged .*: taking the one before.*ckpt-2", 2),
        "info.json cut": (
            lambda run: cut(run / "best" / "info.json"),
            r"info.json cannot be read \(.*\): the numbers of \S+ are taken from metrics.jsonl",
            6,
        ),
        "all": (all_of_them, r"error: \S+ckpt-6 is damaged(?s:.*)Nothing was changed", None),
        "label map cut": (
            lambda run: cut(run / "label_map.json"),
            r"error: \S+label_map.json: not a label map",
            None,
        ),
        "params cut": (
            lambda run: (run / "params.yaml").write_text("task:\n  name: [half"),
            r"error: \S+params.yaml: cannot be read as YAML",
            None,
        ),
        "params no fields": (
            lambda run: (run / "params.yaml").write_text("task"),
            r"error: \S+params.yaml: expected fields, got str",
            None,
        ),
        "params emptied": (
            lambda run: (run / "params.yaml").write_text(""),
            r"error: \S+params.yaml: there are no fields of 'task' in it",
            None,
        ),
        "no text": (
            lambda run: (run / "label_map.json").write_bytes(b"\xff\xfe\x00"),
            r"error: \S+label_map.json: not a label map",
            None,
        ),
    }
    runs, before = {}, {}
    for name, (break_, _, _) in cases.items():
        runs[name] = tmp_path / name.replace(" ", "-")
        shutil.copytree(run_of_six, runs[name])
        break_(runs[name])
        before[name] = contents(runs[name])
    answers = commands(*(flags_of(override, runs[name], **EIGHT) for name in cases))
    for (name, (_, message, step)), (code, out) in zip(cases.items(), answers, strict=True):
        run = runs[name]
        assert "Traceback" not in out, out
        assert re.search(message, out), (name, out)
        if step is None:
            assert code == 1, (name, out)
            assert contents(run) == before[name], name
            continue
        assert code == 0, (name, out)
        assert f"going on at step {step}, after {2 * step} images" in out
        assert steps_of(run, "train.jsonl") == [2, 4, 6, 8], name
        assert steps_of(run, "metrics.jsonl") == ([4, 8] if step < 6 else [4, 6, 8]), name
        assert checkpoints.find_newest(str(run)) == (f"{run}/ckpt-8", {}, True)
        known = json.loads((run / "best" / "info.json").read_text())
        best = f"{run}/best/best_ckpt-{known['best_ckpt_global_step']:.0f}"
        assert checkpoints.find_newest(str(run / "best")) == (best, {}, True)
    assert {path.name for path in runs["two of three"].glob("*.damaged")} == {
        "ckpt-4.index.damaged",
        "ckpt-6.index.damaged",
        "ckpt-6.data-00000-of-00001.damaged",
    }


def variables(checkpoint):
    opened = checkpoints.reader(str(checkpoint))
    names = [name for name in opened.get_variable_to_shape_map() if checkpoints.VALUE in name]
    return {n: opened.get_tensor(n).tobytes() for n in names if not n.startswith("save_counter")}


@pytest.mark.slow
def test_deterministic_runs_have_the_same_bits(override, tmp_path):
    """With four threads, in whole and in two parts; the field is the flag."""
    fields = {"trainer.train_steps": 20, "trainer.validation_interval": 20}
    flags = ["--threads=4", "--deterministic"]
    *_, (code, out) = commands(
        [*flags_of(override, tmp_path / "a", **fields), *flags],
        [*flags_of(override, tmp_path / "b", **fields | {"trainer.train_steps": 10}), *flags],
        [*flags_of(override, tmp_path / "b", **fields), *flags],
    )
    assert code == 0, out
    assert "going on at step 10" in out
    assert "deterministic: true" in (tmp_path / "a" / "params.yaml").read_text()
    one, other = (variables(tmp_path / name / "ckpt-20") for name in "ab")
    assert len(one) > 100
    assert one == other
    one, other = (rows_of(tmp_path / name / "metrics.jsonl")[-1] for name in "ab")
    assert one == other


@contextlib.contextmanager
def small_disk(folder, options):
    """A disk of its own, if this user may mount one."""
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "none", str(folder)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("mounting a small disk needs root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def one_line_of_error(code, out):
    assert code == 1, out
    assert "Traceback" not in out, out
    *_, last = out.strip().splitlines()
    assert last.startswith("error: "), out
    return last


@pytest.mark.slow
@pytest.mark.skipif(os.getuid() != 0, reason="mounting a small disk needs root")
def test_a_full_disk_costs_no_more_than_what_found_no_room(override, tmp_path):
    """The disk grows in small steps; each time the run gets further, and ends as with room."""
    flags = ["--threads=1"]
    ((code, out),) = commands([*flags_of(override, tmp_path / "wide", **EIGHT), *flags])
    assert code == 0, out
    needed = sum(path.stat().st_size for path in (tmp_path / "wide").rglob("*") if path.is_file())
    with small_disk(tmp_path / "disk", "size=16k") as disk:
        run = disk / "run"
        lines, step = [], 0
        for size in range(16, 4 * needed // 1024, max(16, needed // 1024 // 7)):
            remount = ["mount", "-o", f"remount,size={size}k", str(disk)]
            subprocess.run(remount, check=True)
            ((code, out),) = commands([*flags_of(override, run, **EIGHT), *flags])
            if code == 0:
                break
            lines.append(one_line_of_error(code, out))
            assert re.search("[Nn]o space left", lines[-1]), out
            newest = checkpoints.find_newest(str(run))
            assert newest.damaged == {}
            now = checkpoints.position(newest.checkpoint).step if newest.checkpoint else 0
            assert now >= step
            step = now
        assert code == 0, lines
        assert len(lines) >= 3, lines
        assert len({re.sub(r"\d+", "N", line) for line in lines}) > 1, lines  # in several places
        assert variables(run / "ckpt-8") == variables(tmp_path / "wide" / "ckpt-8")
        assert steps_of(run, "train.jsonl") == [2, 4, 6, 8]
        assert rows_of(run / "metrics.jsonl") == rows_of(tmp_path / "wide" / "metrics.jsonl")
        names = [{p.name for p in one.iterdir()} for one in (run, tmp_path / "wide")]
        assert names[0] == names[1]


@pytest.mark.slow
@pytest.mark.skipif(os.getuid() != 0, reason="mounting a small disk needs root")
def test_a_folder_that_cannot_be_written(override, run_of_six, tmp_path):
    """Root may write everywhere but on a disk that is read-only."""
    (tmp_path / "file").write_text("no folder")
    with small_disk(tmp_path / "disk", "size=64m") as disk:
        shutil.copytree(run_of_six, disk / "run")
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        before = contents(disk / "run")
        answers = commands(
            flags_of(override, disk / "run", **EIGHT),
            flags_of(override, disk / "new", **EIGHT),
            flags_of(override, disk / "run", mode="eval", **EIGHT),
            flags_of(override, tmp_path / "file" / "run", **EIGHT),
        )
        for (code, out), name in zip(answers, ("run", "new", "run", "file"), strict=True):
            assert name in one_line_of_error(code, out)
        assert contents(disk / "run") == before


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_during_an_evaluation_gives_it_up_and_the_next_run_makes_it(
    number, override, tmp_path
):
    run = tmp_path / "run"
    fields = {"trainer.train_steps": 4, "trainer.validation_interval": 4}
    flags = flags_of(override, run, **fields)
    with start(flags) as process:
        for line in process.stdout:
            if line.startswith("step 4/4"):
                break
        while not (run / "ckpt-4.index").exists():
            time.sleep(0.01)
        time.sleep(0.5)  # it is being traced
        process.send_signal(number)
        rest = process.stdout.read()
    assert process.returncode == 128 + number, rest
    name = signal.Signals(number).name
    assert re.search(rf"stopped by {name} (before|during) an evaluation; the same command", rest)
    assert "Traceback" not in rest
    assert not (run / "metrics.jsonl").exists()
    ((code, out),) = commands(flags)
    assert code == 0, out
    assert steps_of(run, "metrics.jsonl") == [4]


@pytest.mark.slow
def test_who_scores_beside_a_run_outlives_damage_and_says_that_it_was_stopped(
    run_of_six, override, tmp_path
):
    run = tmp_path / "run"
    shutil.copytree(run_of_six, run)
    (run / "metrics.jsonl").unlink()
    flip(data_of(run, 6))
    with start(flags_of(override, run, mode="continuous_eval", **EIGHT)) as process:
        out = ""
        for line in process.stdout:
            out += line
            if line.startswith("evaluated at step 4"):
                process.send_signal(signal.SIGTERM)
                break
        rest = process.stdout.read()
    assert process.returncode == 128 + signal.SIGTERM, out + rest
    assert re.search(r"ckpt-6 is damaged \(.*\): taking the one before, \S+ckpt-4", out), out
    said = "stopped by SIGTERM while waiting for a checkpoint; the same command goes on"
    assert rest.splitlines()[-1] == said, rest
    assert "Traceback" not in out + rest
    assert steps_of(run, "metrics.jsonl") == [4]


@pytest.mark.slow
def test_evaluations_come_at_multiples_of_the_interval_wherever_a_run_was_stopped(
    override, tmp_path
):
    """Stopped by Ctrl-C at a step that is none; saved there, and evaluated at 8 and 16."""
    run = tmp_path / "run"
    fields = {"trainer.train_steps": 18, "trainer.validation_interval": 8}
    flags = flags_of(override, run, **fields, **{"trainer.checkpoint_interval": 100})
    with start(flags) as process:
        for line in process.stdout:
            if line.startswith("step 10/18"):
                process.send_signal(signal.SIGINT)
                break
        rest = process.stdout.read()
    assert process.returncode == 130, rest
    stopped = re.search(r"stopped by SIGINT at step (\d+), saved as (\S+);", rest)
    assert stopped, rest
    assert int(stopped[1]) % 8
    assert tf.train.latest_checkpoint(str(run)) == stopped[2]
    ((code, out),) = commands(flags)
    assert code == 0, out
    assert steps_of(run, "metrics.jsonl") == [8, 16, 18]
    assert steps_of(run, "train.jsonl") == list(range(2, 19, 2))


@pytest.mark.slow
def test_kills_at_random_moments_change_nothing(tmp_path):
    """A few of them; docs/reliability.md has the results of many."""
    command = [sys.executable, "benchmarks/kills.py", "--kills=4", "--seed=5"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    line = json.loads(done.stdout.splitlines()[-1])
    assert line["kills"] >= 4
    assert line["differences"] == []
