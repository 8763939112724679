"""Flags of `predict` that contradict each other, or would do nothing."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([], "give one of --saved_model=FOLDER, --model=FILE and --server=HOST:PORT"),
        (["--saved_model="], "give one of --saved_model=FOLDER"),
        (["--model=", "--server="], "give one of --saved_model=FOLDER"),
        (["--saved_model=a", "--model=b"], "give one of --saved_model=FOLDER"),
        (["--model=a.tflite", "--protocol=rest"], "--protocol needs --server"),
        (["--model=a.tflite", "--overlap=0.3"], "--overlap needs --tiles"),
        (["--model=a.tflite", "--tiles=64"], "--tiles, --every_nth and --max_frames are not for"),
        (["--model=a.tflite", "--batch_size=2"], "--batch_size: a file for --model takes one"),
        (["--model=a.tflite"], "a.tflite"),
    ],
)
def test_one_line_and_exit_code_2(tmp_path, given, said):
    (tmp_path / "a.png").write_bytes(b"")
    command = [sys.executable, "-m", "mrcnn_tf.predict", f"--input={tmp_path}", *given]
    done = subprocess.run(
        [*command, f"--output_dir={tmp_path}/out"], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert said in done.stdout.splitlines()[-1]
    assert "Traceback" not in done.stderr
