"""A training process of several that dies, under the real torchrun."""

import os
import signal

from tests.fakes import fake_config
from tests.flow.test_two_processes import alive, processes, start
from tests.helpers import wait_until
from workbench import launch
from workbench.core.errors import RunError
from workbench.record import folder as record
from workbench.record.control import Control
from workbench.record.status import Status
from workbench.worker import entry


def test_case_31_where_one_of_several_processes_dies_all_end_and_one_error_is_shown(tmp_path):
    folder = start(tmp_path, steps=10_000, eval_problems=0)
    wait_until(lambda: launch.state(folder).step >= 1 or launch.state(folder).over, 120)
    ranks = processes(folder)
    assert sorted(ranks) == [0, 1]
    ranks[1].kill()
    wait_until(lambda: launch.state(folder).over, 60)
    ended = launch.state(folder)
    assert ended.state == "failed" and ("gone" in ended.reason or "died" in ended.reason)
    assert folder.error()["sentence"] == ended.reason
    wait_until(lambda: not any(alive(process) for process in ranks.values()), 60)


def test_a_signal_to_end_while_an_error_is_recorded_does_not_lose_the_final_status(tmp_path, monkeypatch):
    def lost(*_: object) -> None:
        raise RunError("One of the run's training processes died.")

    def record_error(folder: object, error: BaseException) -> str:
        os.kill(os.getpid(), signal.SIGTERM)
        return str(error)

    monkeypatch.setattr(entry, "record_error", record_error)
    before = signal.signal(signal.SIGTERM, lost)
    try:
        folder = record.create(tmp_path, fake_config())
        with Control(folder, Status()) as control:
            found = entry._outcome(folder, control, lost, idle=1.0)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert found == ("failed", "One of the run's training processes died.")
