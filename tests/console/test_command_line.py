"""Both doors into a command: the same text, the same flags, the same exit code."""

import pathlib
import re
import signal
import subprocess
import sys
import textwrap

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROGRAM = textwrap.dedent('''
    """Count. 1 % stays, so does 5 % some."""
    import sys
    from absl import app, flags
    from mrcnn_tf.console import command_line

    def _define_flags():
        flags.DEFINE_integer("upto", None, "How far.", required=True)

    def main(argv):
        if len(argv) > 1:
            raise app.UsageError(f"not a flag: {argv[1]!r}")
        print(flags.FLAGS.upto)
        return flags.FLAGS.upto % 7

    def run_main():
        command_line.run(__doc__, _define_flags, main)

    if __name__ == "__main__":
        run_main()
''')
SCRIPT = "#!{python}\nimport sys\nfrom counting.count import run_main\nsys.exit(run_main())\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A package `counting` with a command, and `count-up` as pip would write it."""
    folder = tmp_path_factory.mktemp("commands")
    (folder / "counting").mkdir()
    (folder / "counting" / "__init__.py").write_text("")
    (folder / "counting" / "count.py").write_text(PROGRAM)
    (folder / "count-up").write_text(SCRIPT.format(python=sys.executable))
    return folder


DOORS = {
    "python -m counting.count": ["-m", "counting.count"],
    "count-up": ["count-up"],
    "python counting/count.py": ["counting/count.py"],
}


def _run(folder, door, *flags):
    return subprocess.run(
        [sys.executable, *DOORS[door], *flags],
        cwd=folder,
        env={"PYTHONPATH": f"{ROOT}:{folder}"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize(("upto", "code"), [(3, 3), (7, 0)])
def test_the_exit_code_is_what_main_returns(folder, door, upto, code):
    done = _run(folder, door, f"--upto={upto}")
    assert (done.returncode, done.stdout, done.stderr) == (code, f"{upto}\n", "")


@pytest.mark.parametrize("door", DOORS)
def test_help_has_the_text_the_flags_and_the_name_that_was_typed(folder, door):
    done = _run(folder, door, "--help")
    assert done.stdout.startswith("Count. 1 % stays, so does 5 % some.\n")
    assert f"\n{door}:\n  --upto: How far.\n" in done.stdout


FAILING = """
import sys
from mrcnn_tf.console import command_line
def main(argv):
    {}
command_line.run("Fails.", lambda: None, main)
"""


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("open('nowhere/a.json', 'w')", r"error: \[Errno 2\] .*: 'nowhere/a.json'\n"),
        (
            "import tensorflow as tf; tf.io.gfile.GFile('nowhere/a.json').read()",
            r"(?s).*error: \S*nowhere/a.json; No such file or directory\n",
        ),
        ("raise TypeError('a bug')", r"(?s)Traceback .*TypeError: a bug\n"),
        (
            "import tensorflow as tf; tf.function(tf.io.decode_jpeg)(tf.constant('none'))",
            r"(?s).*Traceback .*InvalidArgumentError: .*",
        ),
    ],
)
def test_what_a_file_system_refuses_is_one_line_and_a_bug_is_not(statement, said, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", FAILING.format(statement)],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert re.fullmatch(said, done.stderr), done.stderr
    assert ("Traceback" in done.stderr) == ("Traceback" in said)


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("flags", [[], ["--upto=x"], ["--nowhere=1"], ["--upto=1", "stray"]])
def test_mistakes_are_answered_alike_at_every_door(folder, door, flags):
    done, other = _run(folder, door, *flags), _run(folder, "python -m counting.count", *flags)
    assert done.returncode == other.returncode == 1
    assert done.stderr.replace(door, "python -m counting.count") == other.stderr
    assert "Traceback" not in done.stderr


COMMANDS = ("train", "export", "train_stages", "convert_weights", "write_proposals")
# It reads its flags first, as it may do without TensorFlow, and then says what ends it.
PREDICT = ["predict", "--saved_model=a", "--input=b", "--output_dir=c"]


@pytest.mark.parametrize(
    ("command", "said"), [*(([name], "") for name in COMMANDS), (PREDICT, "interrupted\n")]
)
def test_ctrl_c_while_tensorflow_is_imported_ends_without_a_traceback(command, said, tmp_path):
    """A package of that name, found first, stands for the seconds that the real one takes."""
    package = tmp_path / "tensorflow"
    package.mkdir()
    (package / "__init__.py").write_text(
        "import time\nprint('importing', flush=True)\ntime.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-m", f"mrcnn_tf.{command[0]}", *command[1:]],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout.readline() == "importing\n"
        process.send_signal(signal.SIGINT)
        assert process.stdout.read() == said
    assert process.returncode == 130


def test_ctrl_c_in_a_command_that_does_not_expect_it(folder):
    (folder / "counting" / "wait.py").write_text(
        "import time\nfrom mrcnn_tf.console import command_line\n"
        "def main(argv):\n    print('waiting', flush=True)\n    time.sleep(60)\n"
        "command_line.run('Wait.', lambda: None, main)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-m", "counting.wait"],
        cwd=folder,
        env={"PYTHONPATH": f"{ROOT}:{folder}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout.readline() == "waiting\n"
        process.send_signal(signal.SIGINT)
        assert process.stdout.read() == ""
    assert process.returncode == 130


def test_importing_a_command_leaves_ctrl_c_alone(folder):
    script = (
        "import signal; from mrcnn_tf.console import command_line; "
        "print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "True\n"
