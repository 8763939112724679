"""The load tests, for seconds: what they count and notice, never times."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

FOLDER = pathlib.Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def base(export, tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model/1").symlink_to(export("image_bytes"))
    return tmp_path / "model"


def run(script, *flags):
    done = subprocess.run(
        [sys.executable, FOLDER / script, *map(str, flags)],
        capture_output=True,
        text=True,
        env=os.environ | {"CUDA_VISIBLE_DEVICES": ""},
    )
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return done, lines


@pytest.mark.slow
@pytest.mark.parametrize("protocol", ["grpc", "rest"])
def test_serving(base, protocol):
    done, lines = run(
        "serving.py", f"--model_base_path={base}", f"--protocol={protocol}",
        "--requests=8", "--memory_requests=20",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    first = [line for line in lines if line["benchmark"] == "first request"]
    assert [line["warm_up"] for line in first] == [False, True]
    assert all(len(line["seconds"]) == 3 for line in first)
    clients = [line for line in lines if line["benchmark"] == "clients"]
    assert [line["clients"] for line in clients] == [1, 2, 4, 8]
    assert all(line["photos_per_s"] > 0 for line in clients)
    batches = [line for line in lines if line["benchmark"] == "batches"]
    assert [(line["photos"], line["requests"]) for line in batches] == [
        (1, 8),
        (2, 4),
        (4, 2),
        (8, 2),
    ]
    (memory,) = (line for line in lines if line["benchmark"] == "memory")
    assert memory["requests"] == 20
    assert len(memory["mib"]) == 10
    assert memory["peak_mib"] >= max(memory["mib"]) > 100


@pytest.mark.slow
def test_soak(base):
    flags = ("--minutes=0.2", "--damaged=0.3")
    done, lines = run("soak.py", f"--model_base_path={base}", *flags)
    *minutes, result = lines
    assert len(minutes) >= 10
    assert result["wrong"] == []
    assert result["requests"] > result["refused"] > 0
    # So short a run may still be growing.
    assert done.returncode == int(result["growth"] > 0.02), done.stderr[-2000:]


@pytest.mark.slow
def test_soak_notices_a_server_that_is_not_ours(export_of_0_1_0, tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model/1").symlink_to(export_of_0_1_0("image_bytes"))
    done, lines = run("soak.py", f"--model_base_path={tmp_path / 'model'}", "--minutes=0.05")
    assert done.returncode == 1
    assert len(lines[-1]["wrong"]) == 4
    assert "export it again" in lines[-1]["wrong"][0]
