"""Runs commands of `mrcnn_tf.train` one after the other, each in a process of its own.

The processes are forks of this one, which has imported TensorFlow: seconds are saved for each.

    python -m tests.end_to_end.commands_script '[["--experiment=a"], ["--experiment=b", ...]]'

prints a JSON line per command: {"code": exit code, "out": what it printed, errors included}.
"""

import json
import os
import sys
import tempfile

from absl import app

from mrcnn_tf import train


def run(flags: list[str]) -> dict:
    """Run one command as the interpreter would."""
    with tempfile.TemporaryFile("w+") as out:
        child = os.fork()
        if child == 0:
            os.dup2(out.fileno(), 1)
            os.dup2(out.fileno(), 2)
            code = 1
            try:
                train.define_flags()
                app.run(train.main, argv=["train", *flags])
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
    for given in json.loads(sys.argv[1]):
        print(json.dumps(run(given)), flush=True)
