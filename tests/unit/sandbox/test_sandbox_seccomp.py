"""The system-call filters of both processors, run by a small interpreter."""

import errno
import socket
import struct
from collections.abc import Sequence
from pathlib import Path

import pytest

from workbench.sandbox.inside import seccomp, syscalls

PID = 4711
DENIED, ABSENT, ALLOWED, KILLED = "denied", "absent", "allowed", "killed"
VERDICTS = {
    0x7FFF0000: ALLOWED,
    0x80000000: KILLED,
    0x00050000 | errno.EPERM: DENIED,
    0x00050000 | errno.ENOSYS: ABSENT,
}
HEADERS = Path(__file__).parents[2] / "data" / "sandbox"
MACHINES = ("x86_64", "aarch64")


def header(machine: str) -> dict[str, int]:
    """The kernel's own numbers."""
    lines = (HEADERS / f"syscalls-{machine}.txt").read_text().splitlines()
    return {name: int(number) for name, number in (line.split() for line in lines)}


def verdict(code: bytes, arch: int, number: int, arguments: Sequence[int] = ()) -> str:
    """What the kernel would return: classic BPF over struct seccomp_data, as linux/filter.h defines it."""
    padded = [value & (1 << 64) - 1 for value in (*arguments, *[0] * 6)][:6]
    data = struct.pack("<IIQ6Q", number & (1 << 32) - 1, arch, 0, *padded)
    steps = [struct.unpack_from("=HBBI", code, at) for at in range(0, len(code), 8)]
    accumulator, at = 0, 0
    while True:
        operation, if_true, if_false, value = steps[at]
        at += 1
        if operation == 0x20:
            (accumulator,) = struct.unpack_from("<I", data, value)
        elif operation == 0x54:
            accumulator &= value
        elif operation == 0x06:
            return VERDICTS[value]
        else:
            holds = {0x15: accumulator == value, 0x25: accumulator > value, 0x35: accumulator >= value}[
                operation
            ]
            at += if_true if holds else if_false


def ask(machine: str, name: str, *arguments: int) -> str:
    return verdict(
        seccomp.program(machine, PID), seccomp.AUDIT_ARCH[machine], header(machine)[name], arguments
    )


@pytest.mark.parametrize("machine", MACHINES)
def test_the_numbers_are_those_of_the_kernel_headers(machine: str) -> None:
    numbers = header(machine)
    assert {name: numbers[name] for name in seccomp.NUMBERS[machine]} == seccomp.NUMBERS[machine]


@pytest.mark.parametrize("machine", MACHINES)
def test_exactly_the_listed_calls_pass_without_a_look_at_their_arguments(machine: str) -> None:
    code, arch = seccomp.program(machine, PID), seccomp.AUDIT_ARCH[machine]
    checked = {*seccomp.checked_calls(PID), "clone3"}
    passing = {name for name, number in header(machine).items() if verdict(code, arch, number) == ALLOWED}
    assert passing - checked == {name for name in syscalls.ALLOWED if name in header(machine)}


OUTSIDE = """
execve execveat ptrace socket connect bind sendmsg mount unshare setns prctl setrlimit fchmodat fchownat
utimensat setxattr truncate symlinkat linkat memfd_create shmget io_uring_setup bpf keyctl process_vm_readv
pidfd_send_signal rt_sigqueueinfo tkill timer_create setsid setpriority open_by_handle_at userfaultfd seccomp
personality
"""


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("name", OUTSIDE.split())
def test_a_call_that_reaches_outside_is_denied(machine: str, name: str) -> None:
    assert ask(machine, name) == DENIED


@pytest.mark.parametrize("name", ["fork", "vfork", "chmod", "symlink", "link", "arch_prctl", "modify_ldt"])
def test_the_old_calls_of_x86_are_denied_too(name: str) -> None:
    assert ask("x86_64", name) == DENIED


@pytest.mark.parametrize("machine", MACHINES)
def test_a_thread_may_be_made_and_a_process_may_not(machine: str) -> None:
    thread = 0x003D0F00  # what the C library passes to clone for a thread
    assert ask(machine, "clone", thread) == ALLOWED
    assert ask(machine, "clone", 17) == DENIED  # SIGCHLD: a fork
    for namespace in (0x20000, 0x10000000, 0x20000000, 0x40000000):
        assert ask(machine, "clone", thread | namespace) == DENIED
    assert ask(machine, "clone3", 0, 88) == ABSENT


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("name", ["kill", "tgkill"])
def test_only_its_own_process_may_be_signalled(machine: str, name: str) -> None:
    assert ask(machine, name, PID, 9) == ALLOWED
    for other in (PID + 1, 1, 0, -1, -PID):
        assert ask(machine, name, other, 9) == DENIED


@pytest.mark.parametrize("machine", MACHINES)
def test_limits_may_be_read_and_never_set(machine: str) -> None:
    assert ask(machine, "prlimit64", 0, 9, 0, 0x7FFF0000) == ALLOWED
    assert ask(machine, "prlimit64", 0, 9, 0x7FFF0000, 0) == DENIED
    assert ask(machine, "prlimit64", 0, 9, 0x100000000, 0) == DENIED  # a pointer whose low half is zero
    assert ask(machine, "prlimit64", PID + 1, 9, 0, 0x7FFF0000) == DENIED


@pytest.mark.parametrize("machine", MACHINES)
def test_a_descriptor_cannot_be_made_to_send_signals(machine: str) -> None:
    for command, outcome in (
        (1, ALLOWED),
        (4, ALLOWED),
        (1030, ALLOWED),
        (8, DENIED),
        (10, DENIED),
        (15, DENIED),
    ):
        assert ask(machine, "fcntl", 3, command) == outcome


@pytest.mark.parametrize("machine", MACHINES)
def test_input_cannot_be_pushed_into_a_terminal(machine: str) -> None:
    assert ask(machine, "ioctl", 0, 0x5401) == ALLOWED  # TCGETS: is this a terminal?
    assert ask(machine, "ioctl", 0, 0x5412) == DENIED  # TIOCSTI
    assert ask(machine, "ioctl", 0, 0x8901) == DENIED  # FIOSETOWN


@pytest.mark.parametrize("machine", MACHINES)
def test_only_a_connected_stream_pair_may_be_made(machine: str) -> None:
    unix, stream, datagram = int(socket.AF_UNIX), int(socket.SOCK_STREAM), int(socket.SOCK_DGRAM)
    assert ask(machine, "socketpair", unix, stream) == ALLOWED
    assert ask(machine, "socketpair", unix, stream | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK) == ALLOWED
    assert ask(machine, "socketpair", unix, datagram) == DENIED
    assert ask(machine, "socketpair", int(socket.AF_INET), stream) == DENIED


@pytest.mark.parametrize("machine", MACHINES)
def test_numbers_nobody_knows_are_denied(machine: str) -> None:
    code, arch = seccomp.program(machine, PID), seccomp.AUDIT_ARCH[machine]
    for number in (470, 1000, 0x40000000, 0x40000000 + 39, 0xFFFFFFFF):  # x32 calls among them
        assert verdict(code, arch, number) == DENIED


def test_another_architectures_calls_end_the_process() -> None:
    code = seccomp.program("x86_64", PID)
    i386 = 0x40000003
    assert verdict(code, i386, header("x86_64")["read"]) == KILLED
    assert verdict(code, seccomp.AUDIT_ARCH["aarch64"], 63) == KILLED
