"""Faults 1 to 13: what model-written code may do to the sandbox, and what must come of it.

Against the guard alone, which exists everywhere; tests/unit/sandbox attacks every back-end that works here.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Set
from dataclasses import asdict
from pathlib import Path

import psutil
import pytest

from tests.helpers import wait_until
from workbench.core.errors import SandboxError
from workbench.sandbox import Call, Job, Limits, Result, Sandbox, compare_exact, pool, server

ROOT = Path(__file__).parents[2]
SHORT = Limits(wall_s=0.5, memory_mb=128)
FINE = Job("def f(): return 'fine'", (Call("f"),))


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(backend="guard", probed=False) as made:
        yield made


def run(sandbox: Sandbox, body: str, limits: Limits = SHORT) -> Result:
    """Run `def f()` with this body after `import os, sys`."""
    lines = "\n  ".join(body.splitlines())
    return sandbox.run(Job(f"import os, sys\ndef f():\n  {lines}", (Call("f"),), limits=limits))


def jobs_of(sandbox: Sandbox, but: Set[int] = frozenset()) -> list[psutil.Process]:
    """The jobs that run now, but those of some servers."""
    found = []
    for pid in set(sandbox.server_pids) - but:
        with contextlib.suppress(psutil.NoSuchProcess):
            found += psutil.Process(pid).children(recursive=True)
    return found


def test_case_01_an_endless_loop_that_ignores_signals_times_out_and_the_batch_goes_on(
    sandbox: Sandbox,
) -> None:
    ignore = "for n in range(1, 32):\n  try: signal.signal(n, signal.SIG_IGN)\n  except OSError: pass"
    results = sandbox.run_many(
        [FINE, Job(f"import signal\n{ignore}\nwhile True: pass", (Call("f"),), limits=SHORT), FINE, FINE]
    )
    assert [result.status for result in results] == ["ok", "timeout", "ok", "ok"]
    assert results[1].wall <= SHORT.wall_s + 0.5
    assert results[1].error == "not done after 0.5 s"


@pytest.mark.parametrize("take", ["x = bytearray(10 << 30)", "x = []\nwhile True: x.append('x' * 1_000_000)"])
def test_case_02_taking_all_memory_ends_the_job_and_not_the_trainer(sandbox: Sandbox, take: str) -> None:
    before = psutil.Process().memory_info().rss
    result = run(sandbox, take, Limits(wall_s=10, memory_mb=128))
    assert result.status == "memory"
    assert result.maxrss < 128 << 20
    assert psutil.Process().memory_info().rss - before < 16 << 20


def test_case_03_no_process_can_be_made_and_none_survives(sandbox: Sandbox) -> None:
    fork = "try:\n    if os.fork() == 0: os._exit(0)\n    made += 1\n  except PermissionError: pass"
    bomb = f"made = 0\nfor _ in range(64):\n  {fork}\nreturn made"
    assert run(sandbox, bomb, Limits()).values == (0,)
    assert "PermissionError" in str(run(sandbox, "os.setsid()").error)
    assert "PermissionError" in str(
        run(sandbox, "import subprocess\nsubprocess.run(['/bin/true'])", Limits()).error
    )
    assert jobs_of(sandbox) == []


def test_case_04_endless_printing_is_stopped_and_little_is_kept(sandbox: Sandbox) -> None:
    for stream in ("stdout", "stderr"):
        result = run(sandbox, f"while True: sys.{stream}.write('x' * 10_000)", Limits())
        assert result.status == "output_limit"
        assert result.error == "more than 1,000,000 bytes were printed or returned"
        assert len(result.stdout_tail) + len(result.stderr_tail) <= 1_000_000
    program = Job("while True: print('x' * 10_000)", stdin=("",))
    assert sandbox.run(program).values == (None,)


def test_case_05_no_secret_can_be_read(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = tmp_path / "token"
    token.write_text("hf_secret")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    with Sandbox(servers=1, backend="guard", probed=False) as after_the_token:
        for path in (
            "/etc/passwd",
            str(token),
            f"/proc/{os.getpid()}/environ",
            "/proc/self/environ",
            "/proc/self/maps",
        ):
            for made in (sandbox, after_the_token):
                assert "PermissionError" in str(run(made, f"return open({path!r}).read()").error)
        assert "PermissionError" in str(
            run(after_the_token, "return open(f'/proc/{os.getppid()}/environ').read()").error
        )
        assert run(after_the_token, "return dict(os.environ)").values == ({},)


def test_case_06_no_network_and_no_names(sandbox: Sandbox) -> None:
    for body in (
        "import socket\nsocket.socket()",
        "import socket\nsocket.socket(socket.AF_INET, socket.SOCK_DGRAM)",
        "import socket\nsocket.socket(socket.AF_UNIX)",
    ):
        assert "PermissionError" in str(run(sandbox, body, Limits()).error)
    assert "gaierror" in str(
        run(sandbox, "import socket\nsocket.getaddrinfo('localhost', 80)", Limits()).error
    )


def test_case_07_nobody_can_be_killed_or_traced(sandbox: Sandbox) -> None:
    for pid in ("os.getppid()", str(os.getpid()), "1", "0", "-1"):
        assert "PermissionError" in str(run(sandbox, f"os.kill({pid}, 0)").error)
    trace = f"import ctypes\nreturn ctypes.CDLL(None).ptrace(16, {os.getpid()}, None, None)"
    assert run(sandbox, trace, Limits()).values == (-1,)


@pytest.mark.parametrize(
    "leave", ["os._exit(0)", "sys.exit(0)", "raise SystemExit", "os.kill(os.getpid(), 9)"]
)
def test_case_08_leaving_early_with_success_is_a_failure(sandbox: Sandbox, leave: str) -> None:
    result = run(sandbox, leave)
    assert result.status in ("error", "killed")
    assert result.values == (None,)
    assert result.error is not None
    assert not compare_exact(0, result.values[0])


@pytest.mark.parametrize(
    "cheat",
    [
        "return type('Any', (), {'__eq__': lambda self, other: True})()",
        "return type('Evil', (int,), {'__eq__': lambda self, other: True})(5)",
        "print('PASSED', 5, flush=True)",
        "import __main__\n__main__.run_tests = sys.modules['solution'].run_tests = lambda *_: True",
        'os.write(3, b\'{"call": 0, "value": 5}\\n\')\nos._exit(0)',
        "return 5.0",
        "return True",
    ],
)
def test_case_09_a_cheat_is_not_the_answer(sandbox: Sandbox, cheat: str) -> None:
    assert not compare_exact(5, run(sandbox, cheat).values[0])


def test_case_10_a_crash_ends_the_job_alone(sandbox: Sandbox) -> None:
    pids = sandbox.server_pids
    crash = run(sandbox, "import ctypes\nctypes.string_at(0)", Limits())
    assert (crash.status, crash.error) == ("killed", "crashed with SIGSEGV")
    deep = run(sandbox, "return f()", Limits())
    assert deep.status == "error"
    assert "RecursionError" in str(deep.error)
    endless = "sys.setrecursionlimit(10**9)\ndef g(x): return [g((x,))]\ng(())"
    assert run(sandbox, endless, Limits(wall_s=20, memory_mb=128)).status in ("memory", "killed", "error")
    assert sandbox.run(FINE).values == ("fine",)
    assert sandbox.server_pids == pids


def test_case_11_a_killed_fork_server_is_replaced_and_its_job_done_again() -> None:
    with Sandbox(servers=1, backend="guard", probed=False) as made:
        (before,) = made.server_pids
        results: list[Result] = []
        slow = Job("import time\ndef f():\n  time.sleep(1)\n  return 'done'", (Call("f"),))
        asking = threading.Thread(target=lambda: results.append(made.run(slow)))
        asking.start()
        (job,) = wait_until(lambda: jobs_of(made), what="the job runs")
        os.kill(before, signal.SIGKILL)
        asking.join()
        assert [result.values for result in results] == [("done",)]
        assert made.server_pids != [before]
        wait_until(lambda: not job.is_running(), what="the first attempt died with its server")


def test_case_11_a_fork_server_killed_twice_says_nothing_about_the_program() -> None:
    with Sandbox(servers=1, backend="guard", probed=False) as made:
        results: list[Result] = []
        asking = threading.Thread(target=lambda: results.append(made.run(Job("while True: pass"))))
        asking.start()
        killed: set[int] = set()
        for _ in range(2):
            (job,) = wait_until(lambda: jobs_of(made, but=killed), what="the job runs")
            (fork_server,) = made.server_pids
            killed.add(fork_server)
            os.kill(fork_server, signal.SIGKILL)
            wait_until(lambda job=job: not job.is_running(), what="the job died with its server")
        asking.join()
        assert (results[0].status, results[0].values) == ("infra_error", (None,))
        assert "tried twice" in str(results[0].error)
        assert made.run(FINE).values == ("fine",)


def test_case_11_no_job_outlives_a_killed_trainer(tmp_path: Path) -> None:
    script = (
        "import sys, threading\nfrom workbench.sandbox import *\n"
        "s = Sandbox(servers=1, backend='guard', probed=False)\n"
        "endless = Job('while True: pass', limits=Limits(wall_s=60))\n"
        "threading.Thread(target=s.run, args=(endless,), daemon=True).start()\n"
        "print(s.server_pids[0], flush=True)\nsys.stdin.read()"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)}
    trainer = subprocess.Popen(
        [sys.executable, "-c", script],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert trainer.stdout is not None
    fork_server = psutil.Process(int(trainer.stdout.readline()))
    (job,) = wait_until(lambda: fork_server.children(), what="the job runs")
    trainer.kill()
    trainer.communicate()
    wait_until(lambda: not fork_server.is_running() and not job.is_running(), what="both are gone")


NO_LANDLOCK = """
import ctypes, struct
from workbench.core.errors import SandboxError
from workbench.sandbox import Sandbox
def op(code, value, yes=0, no=0): return struct.pack("=HBBI", code, yes, no, value)
code = op(0x20, 0) + op(0x15, 444, 0, 1) + op(0x06, 0x50000 | 38) + op(0x06, 0x7FFF0000)  # 444 answers ENOSYS
program = ctypes.create_string_buffer(code, len(code))
header = ctypes.create_string_buffer(struct.pack("@HP", len(code) // 8, ctypes.addressof(program)))
zero, one, two = ctypes.c_ulong(0), ctypes.c_ulong(1), ctypes.c_ulong(2)
libc = ctypes.CDLL(None)
assert libc.prctl(38, one, zero, zero, zero) == 0 and libc.prctl(22, two, header, zero, zero) == 0
try:
    Sandbox()
except SandboxError as error:
    print(error)
"""


def test_case_12_without_landlock_nothing_is_run_and_the_message_says_why() -> None:
    done = subprocess.run(
        [sys.executable, "-c", NO_LANDLOCK],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert "cannot be contained here: this kernel has no Landlock" in done.stdout
    assert "Allowed is Linux 5.13 or newer" in done.stdout
    assert "leave out rewards that run code" in done.stdout


def test_case_12_a_fork_server_that_cannot_confine_itself_does_not_serve(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    broken = [sys.executable, "-c", "import sys; sys.exit('no namespaces here')"]
    monkeypatch.setattr(server, "server_command", lambda *_: broken)
    with pytest.raises(SandboxError, match=r"The sandbox cannot start: .*no namespaces here.* not run"):
        Sandbox(servers=1, backend="guard")


def test_case_12_another_system_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workbench.sandbox.backend.sys.platform", "darwin")
    with pytest.raises(SandboxError, match="this system is darwin"):
        pool.Sandbox()


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("x = '\udcff\udcfe'\ndef f(): return 1", "UnicodeEncodeError"),
        ("x = '\ud800'", "UnicodeEncodeError"),
        ("x = 1\0", "null bytes"),
        (
            "x = '\ufeff\u202e'\ndef f(): raise ValueError('\\ud800\\0\u202e')",
            "ValueError: \\ud800\\x00\u202e",
        ),
    ],
)
def test_case_13_odd_text_is_handled_and_can_be_stored(sandbox: Sandbox, source: str, words: str) -> None:
    result = sandbox.run(Job(source, (Call("f"),)))
    assert result.status == "error"
    assert words in str(result.error)
    assert json.loads(json.dumps(asdict(result)))["status"] == "error"
    str(result.error).encode()


def test_case_13_five_megabytes_of_code_run(sandbox: Sandbox) -> None:
    source = "# " + "x" * 5_000_000 + "\ndef f(): return 'fine'"
    assert sandbox.run(Job(source, (Call("f"),), limits=Limits(wall_s=20))).values == ("fine",)


def test_case_13_output_that_is_not_text_is_shown_replaced(sandbox: Sandbox) -> None:
    result = run(sandbox, "os.write(1, b'\\xff\\x00ok')")
    assert (result.status, result.stdout_tail) == ("ok", "�\0ok")
