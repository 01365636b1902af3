"""Which run may use a device: one flock per device, and a queue of tickets in which the oldest living one is next.

Locks belong to open files, so the kernel frees them the moment their process dies; no stale lock can be left
behind. A queued run is a worker that waits here and has not imported torch.
"""

import fcntl
import importlib.metadata
import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Literal

from workbench.core.errors import RunError
from workbench.record.files import STATE_FOLDER

DeviceKind = Literal["cpu", "cuda", "mps"]
POLL_SECONDS = 0.2


class Lease:
    """A device that this process holds until `release`, or until it ends."""

    def __init__(self, device: str, file: IO[str]) -> None:
        self.device = device
        """cpu, mps or cuda:<index among the visible devices>."""
        self._file = file

    def release(self) -> None:
        """Give the device back."""
        self._file.close()


def device_kind(setting: str) -> DeviceKind:
    """What the setting `device` (auto | cpu | cuda | mps) will mean, found without importing torch.

    Where this says cuda and torch then falls back to the CPU, the run only waits longer."""
    if setting != "auto":
        return setting  # type: ignore[return-value]
    if platform.system() == "Darwin" and platform.machine() == "arm64":
        return "mps"
    return "cuda" if has_cuda() else "cpu"


def has_cuda() -> bool:
    """Whether a CUDA device is visible and PyTorch was built for one."""
    return bool(visible_cuda()) and not _torch_is_cpu_only()


def visible_cuda() -> list[str]:
    """Names of the CUDA devices this process may use, as CUDA_VISIBLE_DEVICES writes them."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return [name.strip() for name in chosen.split(",") if name.strip() not in ("", "-1")]
    found = [path.name.removeprefix("nvidia") for path in Path("/dev").glob("nvidia[0-9]*")]
    return sorted(found, key=int)


def _torch_is_cpu_only() -> bool:
    try:
        return importlib.metadata.version("torch").endswith("+cpu")
    except importlib.metadata.PackageNotFoundError:
        return True


def lease_folder(kind: DeviceKind, root: Path) -> Path:
    """Where the locks of a device lie: beside the runs for the CPU; one folder per user for accelerators, because
    several runs folders share those."""
    if kind == "cpu":
        folder = root / STATE_FOLDER
    else:
        base = Path(os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir())
        folder = base / f"grpo-workbench-{os.getuid()}"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise RunError(
            f"{folder} belongs to somebody else, so device locks in it cannot be trusted. Remove it, or set "
            "XDG_RUNTIME_DIR to a folder of your own."
        )
    return folder


def acquire(
    kind: DeviceKind,
    root: Path,
    run_id: str,
    give_up: Callable[[], bool],
    on_wait: Callable[[list[str]], None] = lambda ahead: None,
) -> Lease | None:
    """Wait for a device of that kind, first come first served. None when `give_up()` became true. `on_wait` gets the ids
    of the runs that are served first, the holder of the device included, at every look."""
    folder = lease_folder(kind, root)
    devices = [f"cuda:{index}" for index in range(max(1, len(visible_cuda())))] if kind == "cuda" else [kind]
    ticket = _take_ticket(folder, kind, run_id)
    try:
        while not give_up():
            ahead = _living_before(folder, kind, ticket.name)
            if not ahead:
                for device in devices:
                    if file := try_lock(folder / f"{_lock_name(device)}.lock"):
                        file.seek(0)
                        file.truncate()
                        file.write(run_id)
                        file.flush()
                        return Lease(device, file)
            on_wait([name for device in devices if (name := holder(folder, device))] + ahead)
            time.sleep(POLL_SECONDS)
        return None
    finally:
        Path(ticket.name).unlink(missing_ok=True)
        ticket.close()


def waiting(root: Path, device: str) -> list[str]:
    """Ids of the runs that wait for a device of this one's kind, first come first."""
    kind: DeviceKind = device.partition(":")[0]  # type: ignore[assignment]
    return _living_before(lease_folder(kind, root), kind, "\U0010ffff")


def holder(folder: Path, device: str) -> str:
    """Id of the run that holds the device, '' where it is free."""
    path = folder / f"{_lock_name(device)}.lock"
    if not path.exists():
        return ""
    if file := try_lock(path):
        file.close()
        return ""
    return path.read_text().strip()


def _lock_name(device: str) -> str:
    # cuda:1 of CUDA_VISIBLE_DEVICES=2,3 is the machine's device 3.
    if not device.startswith("cuda"):
        return device
    visible = visible_cuda()
    index = int(device.partition(":")[2])
    return f"cuda-{visible[index] if index < len(visible) else index}"


def _take_ticket(folder: Path, kind: DeviceKind, run_id: str) -> IO[str]:
    """A locked file whose number is above every other's. Counted, so that a clock that jumps back changes nothing."""
    with locked(folder / f"{kind}-tickets.lock"):
        numbers = [int(path.name.split("-")[1]) for path in _tickets(folder, kind)]
        path = folder / f"{kind}-{max(numbers, default=0) + 1:09d}-{run_id}.ticket"
        file = path.open("x")
        fcntl.flock(file, fcntl.LOCK_EX)
    return file


def _tickets(folder: Path, kind: DeviceKind) -> list[Path]:
    return sorted(folder.glob(f"{kind}-*.ticket"))


def _living_before(folder: Path, kind: DeviceKind, own: str) -> list[str]:
    """Run ids of the living tickets older than `own`; dead ones are removed."""
    ahead = []
    with locked(folder / f"{kind}-tickets.lock"):
        for path in _tickets(folder, kind):
            if str(path) >= own:
                break
            if file := try_lock(path):
                path.unlink(missing_ok=True)
                file.close()
            else:
                ahead.append(path.stem.split("-", 2)[2])
    return ahead


def try_lock(path: Path) -> IO[str] | None:
    """The open, locked file; None where another open file holds the lock."""
    file = path.open("a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock file for a moment."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
