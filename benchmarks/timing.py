"""How benchmarks measure: clocks, memory, and what else the machine did meanwhile.

Standard library only, so that every contestant's environment has it.
"""

import dataclasses
import json
import os
import resource
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

READY = "ready"  # says a contestant that waits for its turn
CALM = 0.05  # of the machine's time may go elsewhere during a calm run


@dataclasses.dataclass
class _Clock:
    """Seconds: of the wall, of this process's CPUs, of all CPUs busy, of all CPUs stolen."""

    wall: float
    own: float
    busy: float
    stolen: float

    @classmethod
    def read(cls) -> "_Clock":
        """Read all clocks; without /proc/stat the machine's stand still."""
        busy = stolen = 0.0
        try:
            with open("/proc/stat") as file:
                ticks = [int(field) for field in file.readline().split()[1:9]]
            user, nice, system, _, _, irq, softirq, stolen_ticks = ticks
            tick = os.sysconf("SC_CLK_TCK")
            busy = (user + nice + system + irq + softirq) / tick
            stolen = stolen_ticks / tick
        except (OSError, ValueError):
            pass
        usage = [
            resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
        ]
        own = sum(u.ru_utime + u.ru_stime for u in usage)
        return cls(time.perf_counter(), own, busy, stolen)

    def since(self, start: "_Clock") -> "_Clock":
        """Return what has passed."""
        rows = zip(dataclasses.astuple(self), dataclasses.astuple(start), strict=True)
        return _Clock(*(now - then for now, then in rows))

    def elsewhere(self) -> float:
        """Return the part of the machine's time that others used or the host took, of a lapse."""
        others = max(self.busy - self.own, 0.0) + self.stolen
        return others / max(self.wall, 1e-9) / (os.cpu_count() or 1)


_start = _Clock.read()


@dataclasses.dataclass
class Runs:
    """What one function took.

    Attributes:
      seconds: of each run.
      elsewhere: part of the machine's time that went to others during each run.
    """

    seconds: list[float] = dataclasses.field(default_factory=list)
    elsewhere: list[float] = dataclasses.field(default_factory=list)

    @property
    def median(self) -> float:
        """Seconds."""
        return statistics.median(self.seconds)

    def summary(self) -> dict[str, Any]:
        """Return median, least and most seconds; `calm` is the median of the calm runs, or None."""
        calm = [s for s, e in zip(self.seconds, self.elsewhere, strict=True) if e < CALM]
        return {
            "median": round(self.median, 4),
            "min": round(min(self.seconds), 4),
            "max": round(max(self.seconds), 4),
            "runs": len(self.seconds),
            "calm": round(statistics.median(calm), 4) if calm else None,
            "calm_runs": len(calm),
        }


def in_turn(
    runs: dict[str, Callable[[], object]],
    rounds: int,
    warm_up: int = 1,
    before_each: Callable[[str], object] = lambda name: None,
) -> dict[str, Runs]:
    """Time functions in turn, A B A B ..., so that a drift of the machine meets all of them alike.

    Args:
      runs: {name: function}, each of which returns when its work is done.
      rounds: how often each is timed.
      warm_up: calls of each before that do not count.
      before_each: called with a function's name before each call of it, not timed.
    """
    for name, run in runs.items():
        for _ in range(warm_up):
            before_each(name)
            run()
    if "WAIT_FOR_TURN" in os.environ:
        # Contestants get ready, compile, say, side by side; whoever started them lets them run
        # one by one.
        print(READY, flush=True)
        sys.stdin.readline()
    taken = {name: Runs() for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            before_each(name)
            start = _Clock.read()
            run()
            lapse = _Clock.read().since(start)
            taken[name].seconds.append(lapse.wall)
            taken[name].elsewhere.append(lapse.elsewhere())
    return taken


def peak_memory_mib() -> float:
    """Largest resident size of this process so far."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)


def print_line(**fields: Any) -> None:
    """Print one JSON line, with what else used the machine since the last one, or the start."""
    global _start
    now = _Clock.read()
    lapse, _start = now.since(_start), now
    noise = {
        "wall_s": round(lapse.wall, 1),
        "own_cpu_s": round(lapse.own, 1),
        "other_cpu_s": round(max(lapse.busy - lapse.own, 0.0), 1),
        "stolen_s": round(lapse.stolen, 1),
    }
    print(json.dumps(fields | {"noise": noise}), flush=True)
