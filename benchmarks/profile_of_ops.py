"""Where the time of one call goes, op by op, from TensorFlow's profiler.

At each instant the time is shared out evenly among the ops that run just then, so that the shares
of all ops and of `idle` add up to the time of the call, however many run at once. An op belongs to
the line of this project that made it; the gradient of one belongs to the layer whose name it
carries.
"""

import collections
import dataclasses
import pathlib
import re
import tempfile
from collections.abc import Callable, Iterable

import tensorflow as tf

_PACKAGE = str(pathlib.Path(__file__).resolve().parents[1] / "mrcnn_tf")
_LAYERS = re.compile("Conv2D|MatMul")
# Names of layers, wherever they stand in an op's.
LAYERS = ("backbone", "pyramid", "rpn", "box head", "mask head")
_SCOPES = (
    ("resnet/", "backbone"),
    ("fpn/", "pyramid"),
    ("rpn_head/", "rpn"),
    ("box_head/", "box head"),
    ("mask_head/", "mask head"),
)
# What a file of the package does; files that serve several parts are not here, and the line that
# called them decides.
_FILES = {
    "modeling/resnet.py": "backbone",
    "modeling/fpn.py": "pyramid",
    "modeling/proposals.py": "proposals",
    "ops/nms.py": "NMS",
    "ops/anchors.py": "anchors",
    "ops/matching.py": "targets",
    "ops/sampling.py": "targets",
    "modeling/targets.py": "targets",
    "ops/masks.py": "mask targets",
    "ops/candidates.py": "detections",
    "ops/roi_align.py": "RoIAlign",
    "ops/adaptive_pooling.py": "RoIAlign",
    "ops/adaptive_taps.py": "RoIAlign",
    "ops/weighted_gather.py": "RoIAlign",
    "modeling/roi_pooling.py": "RoIAlign",
    "modeling/losses.py": "losses",
    "modeling/metrics.py": "metrics",
    "modeling/detections.py": "detections",
    "modeling/roi_heads.py": "heads",
    "modeling/rpn.py": "rpn",
    "modeling/mask_rcnn.py": "network",
    "training/decay.py": "update",
}


@dataclasses.dataclass
class Op:
    """One op of the call.

    Attributes:
      name: in the graph, as optimized.
      kind: its type.
      part: of the network.
      backward: whether it computes a gradient.
      seconds: its share of the time of the call.
    """

    name: str
    kind: str
    part: str
    backward: bool
    seconds: float

    @property
    def is_of_layer(self) -> bool:
        """Whether it is a layer's convolution or matrix product, fused with what follows or not.

        Products that serve something else, RoIAlign's interpolation say, are not.
        """
        return bool(_LAYERS.search(self.kind)) and self.part in LAYERS


def profile(call: Callable[[], object], graph: tf.Graph, calls: int) -> tuple[list[Op], float]:
    """Run a function `calls` times under the profiler.

    Args:
      call: runs a graph, and returns when it is done.
      graph: of the function that it runs, before TensorFlow optimizes it.
      calls: how often.

    Returns:
      the ops, the longest first, with seconds per call; and the seconds per call during which none
      ran.
    """
    with tempfile.TemporaryDirectory() as folder:
        tf.profiler.experimental.start(folder)
        for step in range(calls):
            with tf.profiler.experimental.Trace("call", step_num=step):
                call()
        tf.profiler.experimental.stop()
        [file] = pathlib.Path(folder).glob("**/*.xplane.pb")
        seconds, idle = _shares(file.read_bytes())
    where = _Where(graph)
    ops = [
        Op(name, kind, *where.find(name), taken / calls) for (name, kind), taken in seconds.items()
    ]
    return sorted(ops, key=lambda op: -op.seconds), idle / calls


def _shares(xplane: bytes) -> tuple[dict[tuple[str, str], float], float]:
    """Seconds of each (name, type), and those in which no op ran."""
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    space = xplane_pb2.XSpace.FromString(xplane)
    [plane] = [plane for plane in space.planes if plane.name == "/host:CPU"]
    ops, calls = {}, set()
    for number, metadata in plane.event_metadata.items():
        name, separator, kind = metadata.name.rpartition(":")
        if metadata.name == "call":
            calls.add(number)
        elif separator and metadata.display_name and not kind.startswith(":") and " " not in kind:
            ops[number] = (name, kind)
    changes: list[tuple[int, int, int]] = []  # (time, thread, op that now runs there or -1)
    total = 0
    for thread, line in enumerate(plane.lines):
        origin = line.timestamp_ns * 1000
        events = []
        for event in line.events:
            if event.metadata_id in calls:
                total += event.duration_ps
            if event.metadata_id in ops:
                start = origin + event.offset_ps
                events.append((start, start + event.duration_ps, event.metadata_id))
        changes += ((time, thread, op) for time, op in _innermost(sorted(events)))
    taken: collections.Counter[tuple[str, str]] = collections.Counter()
    running: dict[int, int] = {}
    before, busy = 0, 0
    for time, thread, op in sorted(changes, key=lambda change: change[0]):
        if running:
            busy += time - before
            for active in running.values():
                taken[ops[active]] += (time - before) / len(running)
        before = time
        if op < 0:
            running.pop(thread, None)
        else:
            running[thread] = op
    return {op: ps * 1e-12 for op, ps in taken.items()}, max(total - busy, 0) * 1e-12


def _innermost(events: list[tuple[int, int, int]]) -> Iterable[tuple[int, int]]:
    """Of one thread's events (start, end, op): when which op is the innermost one, -1 for none."""
    stack: list[tuple[int, int]] = []  # (end, op)
    for start, end, op in events:
        while stack and stack[-1][0] <= start:
            ended, _ = stack.pop()
            yield ended, stack[-1][1] if stack else -1
        stack.append((end, op))
        yield start, op
    while stack:
        ended, _ = stack.pop()
        yield ended, stack[-1][1] if stack else -1


class _Where:
    """Which part of the network an op belongs to."""

    def __init__(self, graph: tf.Graph):
        self._made = {op.name: _origin(op) for op in graph.get_operations()}

    def find(self, name: str) -> tuple[str, bool]:
        """Return part and direction of an op of the optimized graph."""
        part, backward = self._origin_of(name)
        backward |= "gradient_tape/" in name
        for scope, of_scope in _SCOPES:
            if scope in name and (part is None or part in ("heads", "network", "other")):
                return of_scope, backward
        return part or "other", backward

    def _origin_of(self, name: str) -> tuple[str | None, bool]:
        # What is inlined carries its caller's name in front, what is rewritten the rewriter's.
        pieces = name.split("/")
        for end in range(len(pieces), 0, -1):
            if (found := self._made.get("/".join(pieces[:end]))) is not None:
                return found
        for start in range(1, len(pieces)):
            if (found := self._made.get("/".join(pieces[start:]))) is not None:
                return found
        return None, False


def _origin(op: tf.Operation) -> tuple[str, bool]:
    """Part and direction of an op, from the lines that made it."""
    part, backward = "", False
    for frame in reversed(op.traceback):
        if frame.filename.startswith(_PACKAGE):
            file = frame.filename[len(_PACKAGE) + 1 :]
            part = part or _FILES.get(file, "")
            if file == "ops/masks.py":  # samples as RoIAlign does, by the same files
                part = "mask targets"
        elif frame.filename.endswith("eager/backprop.py") and frame.name == "gradient":
            backward = True
        elif "/optimizers/" in frame.filename and frame.name == "apply_gradients":
            part = part or "update"
    return part or "other", backward
