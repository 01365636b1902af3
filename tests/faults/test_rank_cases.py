"""A training process of several that dies, under the real torchrun."""

from tests.flow.test_two_processes import alive, processes, start
from tests.helpers import wait_until
from workbench import launch


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
