"""An update shared out between processes is the update of one process; here the processes are threads around the same interface."""

import copy
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from tests.tiny import tiny_policy
from tests.unit.update.test_update import advantages, config, sampled, with_reference
from workbench.core.config import RunConfig
from workbench.core.types import Group
from workbench.train.distributed.messages import pack, unpack
from workbench.train.process_group import ProcessGroup
from workbench.train.update import Updater, UpdateResult

LOSSES = {
    "dapo": {},
    "grpo": {"loss_type": "grpo"},
    "dapo_group": {"loss_type": "dapo_group"},
    "dr_grpo": {"loss_type": "dr_grpo"},
    "luspo, whole ratios": {"loss_type": "luspo", "importance_sampling_level": "sequence"},
    "cispo": {"loss_type": "cispo", "epsilon_high": 5.0},
    "k3 and entropy": {"loss_type": "sapo", "beta": 0.3, "entropy_coef": 0.05},
    "four updates": {"num_iterations": 2, "steps_per_generation": 2, "beta": 0.1},
    "more ranks than groups": {"steps_per_generation": 4},
}


class Threads(ProcessGroup):
    """A rank among threads: everybody leaves what it has, and reads all when all have come."""

    def __init__(self, rank: int, size: int, meeting: threading.Barrier, table: list[Any]) -> None:
        self.rank, self.size, self.meeting, self.table = rank, size, meeting, table

    def _all(self, mine: Any) -> list[Any]:
        self.table[self.rank] = mine
        self.meeting.wait(60)
        everybody = list(self.table)
        self.meeting.wait(60)
        return everybody

    def shard(self, count: int) -> np.ndarray:
        return np.array_split(np.arange(count), self.size)[self.rank]

    def sum(self, numbers: Sequence[float]) -> list[float]:
        return [sum(column) for column in zip(*self._all(list(numbers)), strict=True)]

    def max(self, numbers: Sequence[float]) -> list[float]:
        return [max(column) for column in zip(*self._all(list(numbers)), strict=True)]

    def all_reduce(self, *tensors: torch.Tensor) -> None:
        for tensor in tensors:
            tensor.copy_(sum(self._all(tensor.clone())))

    def all_reduce_gradients(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            self.all_reduce(parameter.grad)


class LocalMeans(Threads):
    """What not to do: each rank divides by its own counts, and the gradients are averaged."""

    def sum(self, numbers: Sequence[float]) -> list[float]:
        return list(numbers)

    def all_reduce_gradients(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        super().all_reduce_gradients(parameters)
        for parameter in parameters:
            parameter.grad /= self.size


def updated(
    settings: RunConfig,
    groups: list[Group],
    group: Callable[..., ProcessGroup] | None = None,
    size: int = 2,
    prepare: Callable[[int, Updater], object] | None = None,
) -> tuple[list[torch.Tensor], UpdateResult]:
    """Gradients and result of one step, by one process or by threads."""
    meeting, table = threading.Barrier(size), [None] * size

    def one(rank: int) -> tuple[list[torch.Tensor], UpdateResult]:
        torch.set_num_threads(1)
        policy = copy.deepcopy(start)
        updater = Updater(policy, settings, group(rank, size, meeting, table) if group else None)
        if prepare:
            prepare(rank, updater)
        reference = updater.reference(groups, settings)
        seen: list[torch.Tensor] = []
        step = updater.optimizer.step

        def keep() -> None:
            seen.extend(parameter.grad.clone() for parameter in policy.trainable())
            step()

        updater.optimizer.step = keep  # type: ignore[method-assign]
        return seen, updater.step(groups, advantages(groups), settings, 0, reference_B_T=reference)

    start = with_reference(tiny_policy())
    if group is None:
        return one(0)
    with ThreadPoolExecutor(size) as pool:
        results = list(pool.map(one, range(size)))
    for other in results[1:]:  # everybody makes the very same update
        assert all(torch.equal(a, b) for a, b in zip(results[0][0], other[0], strict=True))
    return results[0]


@pytest.mark.parametrize("changes", LOSSES.values(), ids=LOSSES.keys())
def test_two_ranks_make_the_update_of_one_and_see_what_it_sees(changes):
    settings = config(learning_rate=1e-5, **changes)
    groups = sampled(tiny_policy(), settings)
    (alone, one), (together, two) = updated(settings, groups), updated(settings, groups, Threads)
    for ours, theirs in zip(together, alone, strict=True):
        np.testing.assert_allclose(ours.numpy(), theirs.numpy(), atol=1e-5 * float(theirs.abs().max()) + 1e-8)
    assert two.metrics == pytest.approx(one.metrics, abs=1e-5)
    np.testing.assert_allclose(two.gradient_share_B, one.gradient_share_B, atol=1e-6)
    for name in ("policy_logp", "entropy", "weight"):
        for ours, theirs in zip(getattr(two.tokens, name), getattr(one.tokens, name), strict=True):
            np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_one_rank_without_memory_tries_its_own_share_again_and_the_update_is_the_same():
    settings = config(learning_rate=1e-5)
    groups = sampled(tiny_policy(), settings)

    def small(rank: int, updater: Updater) -> None:
        if rank == 1:
            updater._accumulate = partial(short_of_memory, updater._accumulate)  # type: ignore[method-assign]

    def short_of_memory(real: Callable[..., Any], *arguments: Any) -> Any:
        done = real(*arguments)
        if arguments[-1] < 4:
            raise torch.OutOfMemoryError("no more")
        return done

    (plain, one), (cut, two) = (
        updated(settings, groups, Threads),
        updated(settings, groups, Threads, prepare=small),
    )
    for ours, theirs in zip(cut, plain, strict=True):
        np.testing.assert_allclose(ours.numpy(), theirs.numpy(), atol=1e-5 * float(theirs.abs().max()) + 1e-8)
    assert two.metrics == pytest.approx(one.metrics, abs=1e-5)


def test_averaging_the_means_of_ranks_would_be_another_objective():
    settings = config()
    groups = sampled(tiny_policy(), settings)
    (alone, _), (together, _) = updated(settings, groups), updated(settings, groups, LocalMeans)
    apart = sum(float((a - b).square().sum()) for a, b in zip(together, alone, strict=True)) ** 0.5
    size = sum(float(a.square().sum()) for a in alone) ** 0.5
    assert apart > 0.05 * size


def test_what_travels_between_processes_comes_back_as_it_was():
    arrays = {"a": np.arange(6, dtype=np.int32).reshape(2, 3).T, "none": np.zeros(0, np.float32)}
    words, back = unpack(pack({"do": "step", "text": "é", "beta": 0.1}, arrays))
    assert words == {"do": "step", "text": "é", "beta": 0.1}
    assert all(
        np.array_equal(back[name], array) and back[name].dtype == array.dtype
        for name, array in arrays.items()
    )
