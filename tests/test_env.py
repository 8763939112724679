"""`python -m mrcnn_tf.env`: what a report of an error needs, and nothing of who makes it."""

import os
import pathlib
import re
import subprocess
import sys
import tomllib

import pytest
from packaging.requirements import Requirement

from mrcnn_tf import env

ROOT = pathlib.Path(__file__).resolve().parents[1]

# A TensorFlow with a GPU, as far as the command asks.
WITH_GPU = """
import os, sys
print("noise of C++", file=sys.stderr)
class _:
    GIT_VERSION = "v2.20.0-1-gabc"
    name = "/physical_device:GPU:0"
    def get_build_info():
        return {"is_cuda_build": True, "cuda_version": "12.5.1", "cudnn_version": "9"}
    def list_physical_devices():
        return [_]
    def get_device_details(device):
        return {"device_name": "NVIDIA H100", "compute_capability": (9, 0)}
sysconfig = version = config = _
_.experimental = _
__version__ = "2.20.0"
"""
BROKEN = {
    "raise ImportError('DLL of ' + __file__ + '\\nis missing')": (
        r"fails, ImportError: DLL of ~/fake/tensorflow/__init__.py is missing"
    ),
    "import os, sys; print('no AVX', file=sys.stderr, flush=True); os.kill(os.getpid(), 4)": (
        "fails, ended by SIGILL: no AVX"
    ),
    "import os; os._exit(3)": "fails, ended with exit code 3",
    "import sys; sys.exit('too old')": "fails, SystemExit: too old",
}
SMI = """#!/bin/sh
echo "0, NVIDIA H100 80GB HBM3, 81559 MiB, 512 MiB, 550.54.15"
echo "1, NVIDIA H100 80GB HBM3, 81559 MiB, 0 MiB, 550.54.15"
"""


def _run(folder: pathlib.Path, tensorflow: str | None, **environment: str) -> dict[str, str]:
    """Run the command with a TensorFlow of this content: {name of a line: the rest}."""
    home = folder / "jane"
    if tensorflow is not None:
        package = home / "fake" / "tensorflow"
        package.mkdir(parents=True)
        (package / "__init__.py").write_text(tensorflow)
        environment["PYTHONPATH"] = f"{ROOT}:{package.parent}"
    tools = home / "bin"
    tools.mkdir(parents=True)
    (tools / "nvidia-smi").write_text(SMI)
    (tools / "nvidia-smi").chmod(0o755)
    done = subprocess.run(
        [sys.executable, "-m", "mrcnn_tf.env"],
        cwd=folder if tensorflow is not None else ROOT,
        env={"PATH": f"{tools}:{os.environ['PATH']}", "HOME": str(home)} | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "jane" not in done.stdout
    found: dict[str, str] = {}
    for line in done.stdout.splitlines():
        name, _, value = line.strip().partition("  ")
        assert name not in found
        found[name] = value.strip()
    return found


def test_versions_devices_and_environment(tmp_path):
    cluster = '{"cluster": {"worker": ["a:1"]}}'
    found = _run(
        tmp_path,
        WITH_GPU,
        TF_CONFIG=cluster,
        XLA_FLAGS=f"--xla_dump_to={tmp_path}/jane/xla --b=/home/bob/x:/Users/eve,c",
        TF_SECRET_TOKEN="hidden",
        UNRELATED="1",
    )
    assert re.match(r"0\.2\.\d+, a checkout at [0-9a-f]{7,}", found["mrcnn-tf"])
    assert found["Python"].startswith("3.1")
    assert re.fullmatch(r".+\d+ cores.*", found["processor"])
    assert re.match(r"\d+\.\d GiB", found["memory"])
    assert found["numpy"] == env.importlib.metadata.version("numpy")
    assert found["import"] == "2.20.0 (v2.20.0-1-gabc)"
    assert found["built"] == "with CUDA 12.5.1, cuDNN 9"
    assert found["GPU:0"] == "NVIDIA H100, compute capability 9.0"
    assert found["driver"] == "550.54.15"
    assert found["driver's GPU 1"] == "NVIDIA H100 80GB HBM3, 81559 MiB, 0 MiB in use"
    assert found["TF_CONFIG"] == cluster
    assert found["XLA_FLAGS"] == "--xla_dump_to=~/xla --b=~/x:~,c"
    assert found["TF_SECRET_TOKEN"] == "(set)"
    assert found["PYTHONPATH"].endswith(":~/fake")
    assert "UNRELATED" not in found


@pytest.mark.parametrize("content", BROKEN)
def test_a_tensorflow_that_cannot_be_imported_is_said_and_the_rest_printed(content, tmp_path):
    found = _run(tmp_path, content)
    assert found["import"] == BROKEN[content]
    assert found["driver"] == "550.54.15"
    assert found["numpy"] == env.importlib.metadata.version("numpy")


@pytest.mark.slow
def test_the_tensorflow_that_is_here(tmp_path):
    found = _run(tmp_path, None, CUDA_VISIBLE_DEVICES="", TF_CPP_MIN_LOG_LEVEL="0")
    assert found["import"].startswith(env.importlib.metadata.version("tensorflow"))
    assert found["built"].startswith("with")
    assert found["CPU:0"] == "there"
    assert found["TF_CPP_MIN_LOG_LEVEL"] == "0"


def test_names_of_homes_and_users_are_left_out(monkeypatch):
    monkeypatch.setenv("HOME", "/data/homes/jane")
    monkeypatch.setenv("LOGNAME", "jane")
    for text, left in {
        "/data/homes/jane/x": "~/x",
        "/data/homes/jane": "~",
        "/data/homes/janet/x": "/data/homes/janet/x",  # not of this user, nor a usual place
        "/home/janet/x": "~/x",
        "/scratch/jane/tf:/scratch/jane": "/scratch/USER/tf:/scratch/USER",
        "jane eats": "jane eats",
    }.items():
        assert env.without_names(text) == left


def test_every_dependency_is_asked_for():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = project["optional-dependencies"]
    lines = [
        *project["dependencies"],
        *(x for name in extras if name not in ("dev", "docs") for x in extras[name]),
    ]
    assert {Requirement(line).name for line in lines} <= set(env.PACKAGES)
