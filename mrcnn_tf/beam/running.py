"""Runs a pipeline with Beam's own options, and says in a line what went wrong."""

import os
import pathlib
from collections.abc import Callable, Sequence

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions
from apache_beam.runners.runner import PipelineResult, PipelineState

from mrcnn_tf.console import layout


class PipelineError(RuntimeError):
    """The pipeline did not end well; the text says why. Beam has logged its traceback.

    Attributes:
      may_go_on: the job was not seen to end; where the runner is another machine's, it may work on.
    """

    def __init__(self, why: str, may_go_on: bool = False) -> None:
        super().__init__(why)
        self.may_go_on = may_go_on


class Interrupt(KeyboardInterrupt):
    """Ctrl-C while a pipeline was given to its runner, or ran there.

    Attributes:
      may_go_on: as that of `PipelineError`.
    """

    may_go_on = True


def options(arguments: Sequence[str]) -> PipelineOptions:
    """Read Beam's options.

    Those that Beam does not know are printed if a runner is named, which may know them; Beam
    itself passes over them.

    Args:
      arguments: what stood behind `--` on the command line.

    Raises:
      ValueError: an argument is no option, or Beam does not know one and no runner is named: with a
        letter missing in `--runner`, all would be done on this machine.
    """
    odd = [text for text in arguments if not text.startswith("--")]
    if odd:
        raise ValueError(f"{odd[0]!r}: Beam's options are written --name=value, behind --")
    given = PipelineOptions([*arguments])
    known = given.get_all_options()
    names = given.get_all_options(retain_unknown_options=True).keys() - known.keys()
    unknown = " ".join(text for text in arguments if _name_of(text) in names)
    if unknown and not known["runner"]:
        raise ValueError(f"{unknown}: not options of Beam's, and there is no --runner=NAME")
    if unknown:
        print(f"not options of Beam's, perhaps of the runner's: {unknown}", flush=True)
    return given


def _name_of(argument: str) -> str:
    return argument.removeprefix("--").partition("=")[0].replace("-", "_")


def runner_of(given: PipelineOptions) -> str:
    """Return the runner's name, as it was given."""
    return given.view_as(StandardOptions).runner or StandardOptions.DEFAULT_RUNNER


def is_local(runner: str) -> bool:
    """Whether a runner's jobs end with the command. Beam takes its name without "Runner", too."""
    name = runner.rpartition(".")[2].lower()
    local = [known.lower() for known in StandardOptions.LOCAL_RUNNERS]
    return name in local or f"{name}runner" in local


def run(build: Callable[[beam.Pipeline], None], given: PipelineOptions) -> None:
    """Build a pipeline, run it and wait for its end.

    Args:
      build: applies the transforms.
      given: Beam's options.

    Raises:
      PipelineError: it failed or was cancelled.
      Interrupt: Ctrl-C.
    """
    _let_local_workers_import_us()
    job = None
    try:
        pipeline = beam.Pipeline(options=given)
        build(pipeline)
        try:
            job = pipeline.run()
            state = job.wait_until_finish()
        except KeyboardInterrupt as error:
            raise Interrupt from error
    except Exception as error:  # whatever a worker raised, in as many forms as there are runners
        may_go_on = job is not None and not _has_ended(job)
        raise PipelineError(_reason(error), may_go_on) from error
    if state not in (PipelineState.DONE, None):
        raise PipelineError(f"it ended as {state}")


def _has_ended(job: PipelineResult) -> bool:
    try:
        return PipelineState.is_terminal(job.state)
    except Exception:  # whatever a runner's client raises that cannot ask
        return False


def _reason(error: Exception) -> str:
    """Return the last line of an error's text, where Beam puts what a worker raised."""
    lines = (line.partition(" [while running")[0].strip() for line in str(error).splitlines())
    telling = [line for line in lines if line]
    return telling[-1] if telling else type(error).__name__


def _let_local_workers_import_us() -> None:
    """Tell worker processes of this machine where a checkout is, if we run in one."""
    data_prep, package = layout.folder("data_prep"), pathlib.Path(__file__).resolve().parents[1]
    known = os.environ.get("PYTHONPATH", "")
    root = str(package.parent)
    if data_prep.parent == package or root in known.split(os.pathsep):
        return  # of an installation, which every process finds
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (root, known)))
