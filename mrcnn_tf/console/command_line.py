"""The one way into every command, whether typed as `python -m mrcnn_tf.NAME` or as `mrcnn-NAME`.

absl describes the flags that the file defines which Python was started with. Of an installed
command that file is three lines written by pip, so help would name none; and of `python -m` it is
a path that nobody typed. Here both doors get the command's own text, all of its flags, and the
name under which it was called.
"""

import importlib.util
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from absl import app, flags

# What each extra of pyproject.toml installs, by the names under which it is imported.
_MODULES = {
    "train": ("official", "orbit", "yaml", "hotcoco"),
    "convert": ("safetensors",),
    "video": ("av",),
    "beam": ("apache_beam",),
}


def require(*extras: str) -> None:
    """End the command unless the packages of these extras are installed.

    To be called before they are imported: "No module named 'orbit'" would have the user install a
    package of that name, which is another one.
    """
    names = [name for extra in extras for name in _MODULES[extra]]
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    if missing:
        with_extras = f"[{','.join(extras)}]"
        raise SystemExit(
            f"error: {_program()} needs packages that are not installed ({', '.join(missing)}). "
            f"They come with\n  pip install 'mrcnn-tf{with_extras}'\n"
            f"or in a checkout\n  pip install '.{with_extras}'"
        )


def run(
    description: str | None, define_flags: Callable[[], None], main: Callable[..., Any]
) -> None:
    """Define the flags, parse the command line, call `main`, and exit with what it returns.

    A full disk, or a folder that cannot be written, may stop any command anywhere: that is one
    line, which names the file.

    Args:
      description: the command's module text, shown above the flags by `--help`.
      define_flags: defines the command's flags. A function, so that importing a command claims no
        flag names.
      main: gets what is left of the command line, the program's name first; returns the exit code,
        None for 0.
    """
    sys.argv[0] = program = _program()
    known = set(flags.FLAGS)
    define_flags()
    for name in set(flags.FLAGS) - known:
        flags.FLAGS.register_key_flag_for_module(program, flags.FLAGS[name])
    # absl fills in the program's name for every "%s" of this text.
    sys.modules["__main__"].__doc__ = (description or "").replace("%", "%%")
    if signal.getsignal(signal.SIGINT) is _end_quietly:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        app.run(main)
    except KeyboardInterrupt as interrupt:
        raise SystemExit(130) from interrupt
    except Exception as error:
        text = _of_a_file(error)
        if text is None:
            raise
        raise SystemExit(f"error: {text}") from error


def _of_a_file(error: Exception) -> str | None:
    """What Python or `tf.io.gfile` says of a file that it cannot read or write; None else."""
    if isinstance(error, OSError):
        return str(error)
    tensorflow = sys.modules.get("tensorflow")
    if tensorflow is not None and isinstance(error, tensorflow.errors.OpError):
        errors = tensorflow.errors
        is_a_bug = isinstance(
            error, errors.InvalidArgumentError | errors.InternalError | errors.UnimplementedError
        )
        text = error.message.strip()
        is_of_a_graph = error.op is not None or text.startswith("Graph execution error")
        return None if is_a_bug or is_of_a_graph else text.splitlines()[0]
    return None


STAGE = "MRCNN_TF_STAGE"  # set in the environment of a command that another one runs


def print_next(text: str) -> None:
    """Say what to type next, unless another command runs this one and knows by itself."""
    if STAGE not in os.environ:
        print(f"\nNext, {text}")


def _program() -> str:
    """Return what was typed to start this process."""
    module = sys.modules["__main__"].__spec__
    if module is not None:
        return f"python -m {module.name}"
    given = sys.argv[0]
    return f"python {given}" if given.endswith(".py") else os.path.basename(given)


def _end_quietly(number: int, _: object) -> None:
    os._exit(128 + number)


# Every command imports this module first, and TensorFlow for seconds behind it. Ctrl-C then ends it
# without the traceback of whatever was just imported; `run` gives Ctrl-C its meaning back. Where a
# command is imported by something else, or SIGINT is ignored, nothing is touched.
if (
    _program().startswith(("python -m mrcnn_tf.", "mrcnn-"))
    and signal.getsignal(signal.SIGINT) is signal.default_int_handler
):
    signal.signal(signal.SIGINT, _end_quietly)
