"""Warm reward processes: the same scores as in a run, a few codes kept loaded, nothing left behind."""

from collections.abc import Iterator

import psutil
import pytest

from tests.helpers import wait_until
from tests.rewarding import group
from workbench.core.config import RewardSpec
from workbench.core.errors import RewardError
from workbench.rewards.api import reward_input, source
from workbench.rewards.runtime.process_cache import KEPT, SPARES, LoadedRewards, ProcessCache

CODE = "def f(completion, answer):\n    return float(completion == answer) + {n}\n"


@pytest.fixture
def process_cache() -> Iterator[ProcessCache]:
    made = ProcessCache(timeout=2.0, load_timeout=20.0, workers=1)
    yield made
    made.close()


def load(process_cache: ProcessCache, n: int, weight: float = 1.0) -> LoadedRewards:
    text = source.from_code(CODE.format(n=n), "f", "reward.py")
    return process_cache.load([RewardSpec(name="f", weight=weight)], [text])


def test_a_spare_process_takes_the_code_and_scores_as_a_new_one(process_cache: ProcessCache) -> None:
    process_cache.warm_up()
    wait_until(lambda: len(process_cache._spares) == SPARES, what="spare processes")
    spare = process_cache._spares[-1].pid
    ready = load(process_cache, 1)
    assert ready.pool.pids == {spare}
    scores = ready.pool.score_inputs(reward_input.of_groups([group("4", "5")], tokens=False))
    assert [score.reward for score in scores] == [2.0, 1.0]


def test_another_weight_runs_in_the_same_processes(process_cache: ProcessCache) -> None:
    first, second = load(process_cache, 1), load(process_cache, 1, weight=0.5)
    assert second.pool is first.pool and second.sources[0].weight == 0.5


def test_the_oldest_code_makes_room_and_closing_ends_every_process(process_cache: ProcessCache) -> None:
    loaded = [load(process_cache, n) for n in range(KEPT + 1)]
    pids = set().union(*(ready.pool.pids for ready in loaded))
    assert loaded[0].pool is not load(process_cache, 0).pool
    process_cache.close()
    wait_until(lambda: not any(psutil.pid_exists(pid) for pid in pids), what="their end")


def test_code_that_does_not_load_leaves_the_workshop_usable(process_cache: ProcessCache) -> None:
    bad = source.SourceText(b"import no_such_module\ndef f(completion): return 1\n", "f", "reward.py")
    with pytest.raises(RewardError, match=r"Line 1 of reward\.py"):
        process_cache.load([RewardSpec(name="f")], [bad])
    assert (
        load(process_cache, 0).pool.score_inputs(reward_input.of_groups([group("4")], tokens=False))[0].reward
        == 1.0
    )
