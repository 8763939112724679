"""Benchmarks import each other as scripts of one folder do."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

FOLDER = pathlib.Path(__file__).resolve().parents[2] / "benchmarks"
sys.path.insert(0, str(FOLDER))


@pytest.fixture
def measure():
    """Run a script of the folder as a user does; return the JSON lines that it prints."""

    def run(script, *flags, python=sys.executable):
        done = subprocess.run(
            [python, FOLDER / script, *map(str, flags)],
            capture_output=True,
            text=True,
            env=os.environ | {"CUDA_VISIBLE_DEVICES": ""},
        )
        assert done.returncode == 0, done.stderr[-2000:]
        lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
        assert lines
        for line in lines:
            assert line["noise"]["wall_s"] > 0
        return lines

    return run
