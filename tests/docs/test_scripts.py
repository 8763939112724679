"""The supervisors of docs/many-machines.md, with stand-ins for what they start.

A stand-in `python` notes what it was started with and ends with the exit codes that the test names.
"""

import json
import os
import pathlib
import subprocess

import pytest
import yaml

from tests.docs import pages

PAGE = pages.read("docs/many-machines.md")
RUN, LOOP, SSH, SLURM = (block.text for block in PAGE.blocks if block.language == "bash")

PYTHON = """#!/bin/bash
echo "$TF_CONFIG" >> "$NOTES/configs"
printf '%s\\n' "$@" > "$NOTES/arguments"
left=($(cat "$NOTES/codes"))
echo "${left[@]:1}" > "$NOTES/codes"
exit ${left[0]}
"""
STAND_INS = {
    "python": PYTHON,
    "sleep": '#!/bin/bash\necho "$1" >> "$NOTES/slept"\n',
    "ssh": '#!/bin/bash\necho "$1: $2" >> "$NOTES/ssh"\n',
    "scontrol": (
        '#!/bin/bash\n[ "$1" = show ] || exec echo "$*" >> "$NOTES/requeued"\necho a\necho b\n'
    ),
    # One task after the other; the code of the first that fails, as srun has it.
    "srun": (
        "#!/bin/bash\nshift\nworst=0\nfor SLURM_PROCID in 0 1; do export SLURM_PROCID\n"
        '"$@" || worst=$?; done\nexit $worst\n'
    ),
}


@pytest.fixture
def notes(tmp_path) -> pathlib.Path:
    """Folder of the notes; `bin/` in it has the stand-ins."""
    (tmp_path / "bin").mkdir()
    for name, text in STAND_INS.items():
        path = tmp_path / "bin" / name
        path.write_text(text)
        path.chmod(0o755)
    return tmp_path


def bash(script: str, notes: pathlib.Path, *arguments: str, codes: str, **variables: str) -> int:
    """Run a script; return its exit code."""
    (notes / "codes").write_text(codes)
    environment = {"PATH": f"{notes / 'bin'}:{os.environ['PATH']}", "NOTES": str(notes)} | variables
    command = ["bash", "-c", script, "train.sh", *arguments]
    return subprocess.run(command, env=environment, cwd=notes, check=False).returncode


def configs(notes: pathlib.Path) -> list[dict]:
    return [json.loads(line) for line in (notes / "configs").read_text().splitlines()]


@pytest.mark.parametrize(("codes", "code"), [("42 137 0", 0), ("1", 1), ("143 130", 130)])
def test_the_loop_over_ssh_starts_again_until_there_is_nothing_to_mend(notes, codes, code):
    assert bash(RUN + LOOP, notes, "1", codes=codes) == code
    started = configs(notes)
    assert len(started) == len(codes.split())
    workers = {"worker": ["a:2222", "b:2222"]}
    assert started[0] == {"cluster": workers, "task": {"type": "worker", "index": 1}}
    arguments = (notes / "arguments").read_text().splitlines()
    assert arguments[:2] == ["-m", "mrcnn_tf.train"]
    assert (notes / "codes").read_text().split() == []


def test_each_machine_gets_its_number(notes):
    assert bash(SSH, notes, codes="") == 0
    lines = (notes / "ssh").read_text().splitlines()
    assert [line[:2] for line in lines] == ["a:", "b:"]
    assert ["./train.sh 0 > worker0.log" in lines[0], "./train.sh 1 > worker1.log" in lines[1]]
    assert all(line.endswith("2>&1 &") for line in lines)


@pytest.mark.parametrize(
    ("codes", "code", "requeued"), [("0 0", 0, False), ("1 1", 1, False), ("42 42", 0, True)]
)
def test_slurm_queues_again_what_may_go_on(notes, codes, code, requeued):
    variables = {"SLURM_JOB_NODELIST": "a,b", "SLURM_JOB_ID": "7"}
    assert bash(RUN + SLURM, notes, codes=codes, **variables) == code
    indices = [config["task"]["index"] for config in configs(notes)]
    assert indices == [0, 1]
    assert configs(notes)[0]["cluster"] == {"worker": ["a:2222", "b:2222"]}
    assert (notes / "requeued").exists() == requeued


def test_pods_of_kubernetes_find_each_other(notes):
    (block,) = [block for block in PAGE.blocks if block.language == "yaml"]
    service, job = yaml.safe_load_all(block.text)
    (container,) = job["spec"]["template"]["spec"]["containers"]
    (script,) = container["args"]
    assert container["command"] == ["bash", "-c"]
    assert bash(script, notes, codes="42", JOB_COMPLETION_INDEX="3") == 42
    (config,) = configs(notes)
    names = [f"{job['metadata']['name']}-{i}.{service['metadata']['name']}:2222" for i in range(4)]
    assert config["cluster"]["worker"] == names
    assert config["task"]["index"] == 3
    assert job["spec"]["completions"] == len(names)
    assert job["spec"]["podFailurePolicy"]["rules"][0]["onExitCodes"]["values"] == [1, 130]
