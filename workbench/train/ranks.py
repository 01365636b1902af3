"""Processes that train one run together: numbers are added up over them, and rank 0 tells the others what to do.

With one process every call is the identity. Several meet through torchrun's environment (gloo, loopback only). What travels
is bytes and tensors, never pickles: any program on this machine can reach the port.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta

import numpy as np
import psutil
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from workbench.core.errors import RunError

TIMEOUT = timedelta(minutes=20)
"""A process that hangs or loses its link ends the run after this; a dead one ends it at once."""
LOOK = timedelta(seconds=30)


class Team:
    """One process: nothing to share, nobody to tell."""

    rank = 0
    size = 1

    def own(self, count: int) -> NDArray[np.int64]:
        """Which of `count` things are this process's share: one contiguous block of nearly equal size per rank."""
        return np.arange(count)

    def total(self, numbers: Sequence[float]) -> list[float]:
        """Each number summed over all processes."""
        return list(numbers)

    def largest(self, numbers: Sequence[float]) -> list[float]:
        """Each number's maximum over all processes."""
        return list(numbers)

    def add_up(self, *tensors: Tensor) -> None:
        """Replace each tensor by its sum over all processes, bit for bit the same in each."""

    def add_up_gradients(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        """Replace each gradient by its sum over all processes; one that is missing counts as zero."""

    def same(self, tensors: Sequence[Tensor]) -> None:
        """Give every process rank 0's values."""

    def exchange(self, data: bytes) -> list[bytes]:
        """Everybody's bytes, by rank."""
        return [data]

    def tell(self, message: bytes) -> None:
        """Rank 0: the next thing to do."""

    def hear(self) -> bytes:
        """The others: the next thing to do, however long it takes."""
        raise NotImplementedError("one process has nobody to listen to")


class _Ranks(Team):
    """Several processes. Every call but `tell` and `hear` is made by all of them, in the same order."""

    def __init__(self, store: Store, rank: int, size: int) -> None:
        self.rank, self.size = rank, size
        self._store = store
        self._told = 0

    def own(self, count: int) -> NDArray[np.int64]:
        return np.asarray(np.array_split(np.arange(count), self.size)[self.rank])

    def total(self, numbers: Sequence[float]) -> list[float]:
        return self._reduced(numbers, dist.ReduceOp.SUM)

    def largest(self, numbers: Sequence[float]) -> list[float]:
        return self._reduced(numbers, dist.ReduceOp.MAX)

    def add_up(self, *tensors: Tensor) -> None:
        with _whole():
            for tensor in tensors:
                dist.all_reduce(tensor)

    def add_up_gradients(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        vector = parameters_to_vector(gradients)
        self.add_up(vector)
        vector_to_parameters(vector, gradients)

    def same(self, tensors: Sequence[Tensor]) -> None:
        with _whole(), torch.no_grad():
            for tensor in tensors:
                dist.broadcast(tensor, src=0)

    def exchange(self, data: bytes) -> list[bytes]:
        lengths = [torch.zeros(1, dtype=torch.int64) for _ in range(self.size)]
        with _whole():
            dist.all_gather(lengths, torch.tensor([len(data)]))
            room = int(max(lengths))
            padded = torch.from_numpy(np.frombuffer(data.ljust(room, b"\0"), np.uint8).copy())
            parts = [torch.zeros(room, dtype=torch.uint8) for _ in range(self.size)]
            dist.all_gather(parts, padded)
        return [part[: int(length)].numpy().tobytes() for part, length in zip(parts, lengths, strict=True)]

    def tell(self, message: bytes) -> None:
        with _whole():
            self._store.set(self._bell(), str(len(message)))
            self._passed(torch.from_numpy(np.frombuffer(message, np.uint8).copy()))

    def hear(self) -> bytes:
        # The bell is no collective: those time out, and a paused run says nothing for days.
        while True:
            try:
                self._store.wait([self._bell()], LOOK)
                break
            except dist.DistStoreError:
                continue
        with _whole():
            room = torch.zeros(int(self._store.get(self._bell())), dtype=torch.uint8)
            return self._passed(room).numpy().tobytes()

    def _bell(self) -> str:
        return f"told/{self._told}"

    def _passed(self, message: Tensor) -> Tensor:
        """Rank 0's message; with it everybody has heard all earlier ones."""
        dist.broadcast(message, src=0)
        if self.rank == 0 and self._told:
            self._store.delete_key(f"told/{self._told - 1}")
        self._told += 1
        return message

    def _reduced(self, numbers: Sequence[float], how: dist.ReduceOp.RedOpType) -> list[float]:
        tensor = torch.tensor(numbers, dtype=torch.float64)
        with _whole():
            dist.all_reduce(tensor, how)
        return [float(number) for number in tensor]


@contextmanager
def joined(size: int) -> Iterator[Team]:
    """This process's place among `size` that train together. Raises RunError where the others cannot be found."""
    if size == 1:
        yield Team()
        return
    # Gloo would listen on the address that the machine's name stands for; nobody outside has business here.
    os.environ.setdefault("GLOO_SOCKET_IFNAME", _loopback())
    with _whole():
        store, rank, found = next(rendezvous("env://", timeout=TIMEOUT))
        if found != size:
            raise RunError(
                f"nproc = {size}, but {found} processes have come. Start the run with `workbench run`, which starts them all."
            )
        dist.init_process_group(
            "gloo",
            store=PrefixStore("group", store),
            rank=rank,
            world_size=size,
            timeout=TIMEOUT,
        )
    try:
        yield _Ranks(PrefixStore("bell", store), rank, size)
    finally:
        dist.destroy_process_group()


@contextmanager
def _whole() -> Iterator[None]:
    """What torch says when a process is missing, as the one sentence a person needs."""
    try:
        yield
    except (dist.DistError, RuntimeError) as error:
        raise RunError(
            "A training process of this run is gone, so the others end too: worker.log holds its last words. "
            f"Resume from the last checkpoint. ({str(error).splitlines()[0] if str(error) else type(error).__name__})"
        ) from error


def _loopback() -> str:
    """Name of the interface that has 127.0.0.1."""
    return next(
        (
            name
            for name, addresses in psutil.net_if_addrs().items()
            if any(address.address == "127.0.0.1" for address in addresses)
        ),
        "lo",
    )
