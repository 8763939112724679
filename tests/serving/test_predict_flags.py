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
        (["--model=a.tflite", "--tta"], "--tta needs --saved_model: servers and files look at an"),
        (["--model=a.tflite", "--overlap=0.3"], "--overlap needs --tiles"),
        (["--model=a.tflite", "--tiles=64"], "--tiles, --every_nth and --max_frames are not for"),
        (["--model=a.tflite", "--batch_size=2"], "--batch_size: a file for --model takes one"),
        (["--model=a.tflite"], "a.tflite"),
        (["--model=."], "is a folder: name the .tflite or .onnx file in it"),
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


@pytest.mark.parametrize("what", ["film.mp4", "7"])
def test_films_and_cameras_are_not_for_files_of_devices(tmp_path, what):
    (tmp_path / "film.mp4").write_bytes(b"\0\0\0\x20ftypisom")
    source = what if what.isdigit() else tmp_path / what
    command = [sys.executable, "-m", "mrcnn_tf.predict", "--model=a.tflite", f"--input={source}"]
    command += [f"--output_dir={tmp_path}/out"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert "a film or a camera needs --saved_model or --server" in done.stdout
    assert not (tmp_path / "out").exists()
