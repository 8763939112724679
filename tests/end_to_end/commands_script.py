"""Runs a command of the package with other flags, one after the other, each in its own process.

The processes are forks of this one, which has imported TensorFlow: seconds are saved for each.

    python -m tests.end_to_end.commands_script train '[["--experiment=a"], ["--experiment=b"]]'

prints a JSON line per command: {"code": exit code, "out": what it printed, errors included}.
"""

import importlib
import json
import os
import sys
import tempfile
from typing import Any

from absl import app


def run(module: Any, flags: list[str]) -> dict:
    """Run one command as the interpreter would."""
    with tempfile.TemporaryFile("w+") as out:
        child = os.fork()
        if child == 0:
            os.dup2(out.fileno(), 1)
            os.dup2(out.fileno(), 2)
            code = 1
            try:
                module.define_flags()
                app.run(module.main, argv=[module.__name__, *flags])
            except SystemExit as stop:
                if isinstance(stop.code, str):
                    print(stop.code, file=sys.stderr)
                else:
                    code = stop.code or 0
            except BaseException:
                sys.excepthook(*sys.exc_info())
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
        _, status = os.waitpid(child, 0)
        out.seek(0)
        return {"code": os.waitstatus_to_exitcode(status), "out": out.read()}


if __name__ == "__main__":
    command = importlib.import_module(f"mrcnn_tf.{sys.argv[1]}")
    for given in json.loads(sys.argv[2]):
        print(json.dumps(run(command, given)), flush=True)
