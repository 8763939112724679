"""The checkpoints of another process, as who scores them sees them; no training."""

import signal

import pytest

from mrcnn_tf.training import checkpoints_to_come
from mrcnn_tf.training.stopping import Stopped, StopRequest
from tests.training.test_checkpoint_folder import saved


class Script(StopRequest):
    """Does the next of some things at each look, as another process would; at last, a signal."""

    def __init__(self, *things):
        super().__init__()
        self._things = list(things)

    def check(self, text=""):
        if self._things:
            self._things.pop(0)()
        else:
            self.number = signal.SIGTERM
        super().check(text)


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    monkeypatch.setattr(checkpoints_to_come, "_SECONDS_BETWEEN_LOOKS", 0.0)


def nothing():
    pass


def test_damage_is_said_and_the_next_one_waited_for(tmp_path, capsys):
    """4 is damaged when it comes: 2, which was had, is not given again; 6 is."""
    data = tmp_path / "run" / "ckpt-4.data-00000-of-00001"

    def damaged():
        saved(tmp_path / "run", 4)
        data.write_bytes(data.read_bytes()[:-3])

    stop = Script(
        nothing,  # there is no folder yet
        lambda: saved(tmp_path / "run", 2),
        nothing,
        damaged,
        nothing,
        lambda: saved(tmp_path / "run", 6),
    )
    come = checkpoints_to_come.each(str(tmp_path / "run"), 60.0, stop)
    assert [next(come), next(come)] == [f"{tmp_path}/run/ckpt-2", f"{tmp_path}/run/ckpt-6"]
    with pytest.raises(Stopped, match="^stopped by SIGTERM while waiting for a check") as stopped:
        next(come)
    assert stopped.value.exit_code == 143
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(f"{tmp_path}/run/ckpt-4 is damaged (")
    assert line.endswith(f"): taking the one before, {tmp_path}/run/ckpt-2")


def test_the_one_before_a_damaged_newest_is_the_first(tmp_path):
    saved(tmp_path, 2, 4)
    (tmp_path / "ckpt-4.index").write_bytes(b"nonsense")
    assert next(checkpoints_to_come.each(str(tmp_path), 60.0, Script(nothing))) == (
        f"{tmp_path}/ckpt-2"
    )


def test_nothing_comes(tmp_path):
    assert list(checkpoints_to_come.each(str(tmp_path / "none"), 0.01, StopRequest())) == []
