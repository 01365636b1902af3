"""The processes that train one run together: reductions over ranks, and messages from rank 0 to the others.

With one process every call is the identity. Several ranks meet through torchrun's environment (gloo, loopback only). Messages are
bytes and tensors, never pickles: any program on this machine can reach the port.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta

import numpy as np
import psutil
import torch
import torch.distributed as dist
from accelerate import PartialState
from numpy.typing import NDArray
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from workbench.core.errors import RunError

TIMEOUT = timedelta(minutes=20)
"""A process that hangs or loses its link ends the run after this; a dead one ends it at once."""
POLL = timedelta(seconds=30)


class ProcessGroup:
    """One process: every reduction is the identity, every broadcast has no receiver."""

    rank = 0
    size = 1

    def shard(self, count: int) -> NDArray[np.int64]:
        """Indices of this rank's part of `count` items: one contiguous block of nearly equal size per rank."""
        return np.arange(count)

    def sum(self, numbers: Sequence[float]) -> list[float]:
        """Each number summed over all ranks."""
        return list(numbers)

    def max(self, numbers: Sequence[float]) -> list[float]:
        """Each number's maximum over all ranks."""
        return list(numbers)

    def all_reduce(self, *tensors: Tensor) -> None:
        """Replace each tensor by its sum over all ranks, bit for bit the same in each."""

    def all_reduce_gradients(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        """Replace each gradient by its sum over all ranks; one that is missing counts as zero."""

    def broadcast_tensors(self, tensors: Sequence[Tensor]) -> None:
        """Give every rank the values of rank 0."""

    def all_gather(self, data: bytes) -> list[bytes]:
        """The bytes of every rank, in rank order."""
        return [data]

    def broadcast(self, message: bytes) -> None:
        """Rank 0: send the next instruction to the other ranks."""

    def receive(self) -> bytes:
        """Other ranks: the next instruction, however long it takes."""
        raise NotImplementedError("a single process receives no instructions")


class _Distributed(ProcessGroup):
    """Several ranks. Every call but `broadcast` and `receive` is made by all of them, in the same order."""

    def __init__(self, store: Store, rank: int, size: int) -> None:
        self.rank, self.size = rank, size
        self._store = store
        self._messages = 0

    def shard(self, count: int) -> NDArray[np.int64]:
        return np.asarray(np.array_split(np.arange(count), self.size)[self.rank])

    def sum(self, numbers: Sequence[float]) -> list[float]:
        return self._reduced(numbers, dist.ReduceOp.SUM)

    def max(self, numbers: Sequence[float]) -> list[float]:
        return self._reduced(numbers, dist.ReduceOp.MAX)

    def all_reduce(self, *tensors: Tensor) -> None:
        with _missing_ranks_explained():
            for tensor in tensors:
                dist.all_reduce(tensor)

    def all_reduce_gradients(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        vector = parameters_to_vector(gradients)
        self.all_reduce(vector)
        vector_to_parameters(vector, gradients)

    def broadcast_tensors(self, tensors: Sequence[Tensor]) -> None:
        with _missing_ranks_explained(), torch.no_grad():
            for tensor in tensors:
                dist.broadcast(tensor, src=0)

    def all_gather(self, data: bytes) -> list[bytes]:
        lengths = [torch.zeros(1, dtype=torch.int64) for _ in range(self.size)]
        with _missing_ranks_explained():
            dist.all_gather(lengths, torch.tensor([len(data)]))
            longest = int(max(lengths))
            padded = torch.from_numpy(np.frombuffer(data.ljust(longest, b"\0"), np.uint8).copy())
            parts = [torch.zeros(longest, dtype=torch.uint8) for _ in range(self.size)]
            dist.all_gather(parts, padded)
        return [part[: int(length)].numpy().tobytes() for part, length in zip(parts, lengths, strict=True)]

    def broadcast(self, message: bytes) -> None:
        with _missing_ranks_explained():
            self._store.set(self._key(), str(len(message)))
            self._send_or_receive(torch.from_numpy(np.frombuffer(message, np.uint8).copy()))

    def receive(self) -> bytes:
        # Waiting for a key of the store is no collective: those time out, and a paused run may send nothing for days.
        while True:
            try:
                self._store.wait([self._key()], POLL)
                break
            except dist.DistStoreError:
                continue
        with _missing_ranks_explained():
            buffer = torch.zeros(int(self._store.get(self._key())), dtype=torch.uint8)
            return self._send_or_receive(buffer).numpy().tobytes()

    def _key(self) -> str:
        return f"message/{self._messages}"

    def _send_or_receive(self, message: Tensor) -> Tensor:
        """The broadcast itself; once it is through, every rank has received all earlier messages."""
        dist.broadcast(message, src=0)
        if self.rank == 0 and self._messages:
            self._store.delete_key(f"message/{self._messages - 1}")
        self._messages += 1
        return message

    def _reduced(self, numbers: Sequence[float], how: dist.ReduceOp.RedOpType) -> list[float]:
        tensor = torch.tensor(numbers, dtype=torch.float64)
        with _missing_ranks_explained():
            dist.all_reduce(tensor, how)
        return [float(number) for number in tensor]


@contextmanager
def process_group(size: int) -> Iterator[ProcessGroup]:
    """The group of `size` processes this one belongs to. Raises RunError where the others cannot be found."""
    if size == 1:
        yield ProcessGroup()
        return
    # Without this gloo listens on the address of the host name, which other machines can reach.
    os.environ.setdefault("GLOO_SOCKET_IFNAME", _loopback())
    with _missing_ranks_explained():
        store, rank, found = next(rendezvous("env://", timeout=TIMEOUT))
        if found != size:
            raise RunError(
                f"nproc = {size}, but {found} processes have come. Start the run with `workbench run`, which starts them all."
            )
        # It opens the group that torchrun's environment describes; a run has it as its first state, before the device is looked for.
        state = PartialState(cpu=True, backend="gloo", store=PrefixStore("group", store), timeout=TIMEOUT)
    if (state.process_index, state.num_processes) != (rank, size):
        raise RunError("This process has already been set up to work alone, so it cannot be one of several.")
    try:
        yield _Distributed(PrefixStore("messages", store), state.process_index, state.num_processes)
    finally:
        state.destroy_process_group()


@contextmanager
def _missing_ranks_explained() -> Iterator[None]:
    """Turns what torch raises when a rank is missing into one sentence that says what to do."""
    try:
        yield
    except (dist.DistError, RuntimeError) as error:
        raise RunError(
            "A training process of this run is gone, so the others end too: worker.log says why. "
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
