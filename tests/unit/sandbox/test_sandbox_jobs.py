"""What honest programs get: values, streams, errors with the line, and the same every time."""

import json
import os
import tempfile
import threading
from dataclasses import asdict
from pathlib import Path

import pytest

from workbench.core.errors import SandboxError
from workbench.sandbox import Call, Job, Limits, Result, Sandbox, server


def call(
    sandbox: Sandbox, source: str, *args: object, name: str = "f", limits: Limits | None = None
) -> Result:
    return sandbox.run(Job(source, (Call(name, args),), limits=limits or Limits()))


def test_each_call_gives_its_value(sandbox: Sandbox) -> None:
    result = sandbox.run(Job("def square(n): return n * n", tuple(Call("square", (n,)) for n in range(4))))
    assert (result.status, result.values, result.errors) == ("ok", (0, 1, 4, 9), (None,) * 4)


@pytest.mark.parametrize(
    "value", [None, True, 0, -1, 10**40, 1.25, "", "naïve \0 \ud800 🙂", [], [1, "a", None], {"k": [{}]}]
)
def test_json_values_travel_both_ways_unchanged(sandbox: Sandbox, value: object) -> None:
    got = call(sandbox, "def f(x): return x", value).values[0]
    assert (type(got), got) == (type(value), value)


def test_a_tuple_arrives_as_a_list(sandbox: Sandbox) -> None:
    assert call(sandbox, "def f(x): return (x, (1,))", (2, 3)).values == ([[2, 3], [1]],)


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("{1, 2}", "a value of type set"),
        ("object()", "a value of type object"),
        ("{1: 2}", "a key of type int"),
        ("b'x'", "a value of type bytes"),
        ("type('Evil', (int,), {})(5)", "a value of type Evil"),
        ("type('Word', (str,), {})('x')", "a value of type Word"),
        ("(lambda: (yield))()", "a value of type generator"),
    ],
)
def test_another_type_is_an_error_that_says_what_travels(
    sandbox: Sandbox, expression: str, words: str
) -> None:
    result = call(sandbox, f"def f(): return [{expression}]")
    assert (result.status, result.values) == ("error", (None,))
    assert words in str(result.error)
    assert "travel" in str(result.error)


def test_a_value_that_holds_itself_is_an_error(sandbox: Sandbox) -> None:
    assert "nested deeper than 100" in str(
        call(sandbox, "def f():\n  x = []\n  x.append(x)\n  return x").error
    )


def test_a_method_is_called_on_a_fresh_object(sandbox: Sandbox) -> None:
    source = (
        "class Solution:\n  def __init__(self): self.n = 1\n  def add(self, k): self.n += k; return self.n"
    )
    result = sandbox.run(Job(source, (Call("Solution.add", (1,)), Call("Solution.add", (1,)))))
    assert result.values == (2, 2)


def test_one_call_that_raises_leaves_the_others_their_values(sandbox: Sandbox) -> None:
    result = sandbox.run(
        Job("def f(n):\n    return 6 // n", (Call("f", (1,)), Call("f", (0,)), Call("f", (2,))))
    )
    assert (result.status, result.values) == ("error", (6, None, 3))
    text = "ZeroDivisionError: integer division or modulo by zero (line 2: return 6 // n)"
    assert result.errors == (None, text, None)
    assert (result.error, result.line) == (text, 2)


@pytest.mark.parametrize(
    ("source", "error", "line"),
    [
        ("x = 1\ndef f(:\n  pass", "SyntaxError: invalid syntax", 2),
        ("import torch", "ModuleNotFoundError: No module named 'torch' (line 1: import torch)", 1),
        ("y = 1", "NameError: the program defines no 'f'", None),
        ("f = 3", "TypeError: 'int' object is not callable", None),
        ("raise KeyboardInterrupt", "KeyboardInterrupt (line 1: raise KeyboardInterrupt)", 1),
        (
            "class E(Exception):\n  def __str__(self): raise self\nraise E",
            "E: (its message could not be shown)",
            3,
        ),
    ],
)
def test_an_error_names_the_programs_own_line(
    sandbox: Sandbox, source: str, error: str, line: int | None
) -> None:
    result = call(sandbox, source)
    assert result.status == "error"
    assert str(result.error).startswith(error)
    assert result.line == line


def test_a_program_is_run_once_for_each_text_and_its_output_is_the_value(sandbox: Sandbox) -> None:
    source = "import sys\nn = int(input())\nprint(sum(map(int, sys.stdin.read().split())) * n)"
    result = sandbox.run(Job(source, stdin=("2\n1 2\n3", "10\n4\n")))
    assert (result.status, result.values) == ("ok", ("12\n", "40\n"))


def test_every_way_to_read_the_input_works(sandbox: Sandbox) -> None:
    for read in ("open(0).read()", "sys.stdin.buffer.read().decode()", "os.read(0, 99).decode()", "input()"):
        assert sandbox.run(Job(f"import os, sys\nprint({read}, end='')", stdin=("été",))).values == ("été",)


def test_leaving_by_exit_is_a_normal_end_of_a_program(sandbox: Sandbox) -> None:
    for leave in ("exit()", "quit()", "import sys; sys.exit()", "raise SystemExit(0)"):
        result = sandbox.run(Job(f"print(1)\n{leave}\nprint(2)", stdin=("",)))
        assert (result.status, result.values) == ("ok", ("1\n",))
    assert sandbox.run(Job("exit(3)")).error == "SystemExit: 3 (line 1: exit(3))"


def test_a_program_that_works_in_a_thread_is_waited_for(sandbox: Sandbox) -> None:
    main = "def main():\n  time.sleep(0.05)\n  print(input())"
    source = f"import threading, time\n{main}\nthreading.Thread(target=main).start()"
    assert sandbox.run(Job(source, stdin=("late",))).values == ("late\n",)


def test_calls_import_the_program_and_stdin_runs_it_as_main(sandbox: Sandbox) -> None:
    source = "def f(): return __name__\nif __name__ == '__main__': print('main')"
    assert call(sandbox, source).values == ("solution",)
    assert call(sandbox, source).stdout_tail == ""
    assert sandbox.run(Job(source)).values == ("main\n",)


def test_a_reply_has_no_value_before_its_program_came_to_its_end(sandbox: Sandbox) -> None:
    result = sandbox.run(Job("print(input())\nraise ValueError('no')", stdin=("a", "b")))
    assert (result.status, result.values) == ("error", (None, None))
    assert result.stdout_tail == "a\n"


def test_streams_are_kept_apart_and_undecodable_bytes_replaced(sandbox: Sandbox) -> None:
    source = "import sys, os\ndef f():\n  os.write(1, b'a\\xff')\n  print('e', file=sys.stderr, flush=True)"
    result = call(sandbox, source)
    assert (result.stdout_tail, result.stderr_tail) == ("a�", "e\n")


def test_the_same_program_gives_the_same_result_in_every_sandbox(sandbox: Sandbox) -> None:
    source = "import random\ndef f(): return [str({'a', 'b', 'c', 'd', 'e'}), random.random(), hash('x')]"
    first = call(sandbox, source).values
    assert call(sandbox, source).values == first
    with Sandbox(servers=1, backend="guard", probed=False) as another:
        assert call(another, source).values == first


def test_no_job_sees_what_another_left(sandbox: Sandbox) -> None:
    imports = "import os, sys, builtins\n"
    leave = imports + "def f():\n  open('left', 'w').write('x')\n  sys.left = builtins.left = 1\n  return 0"
    look = imports + "def f(): return [os.listdir('.'), hasattr(sys, 'left'), hasattr(builtins, 'left')]"
    for _ in range(4):
        assert call(sandbox, leave).values == (0,)
        assert call(sandbox, look).values == ([[], False, False],)


def test_the_time_and_the_memory_it_took_are_reported(sandbox: Sandbox) -> None:
    result = call(
        sandbox, "import time\ndef f():\n  x = b'1' * 50_000_000\n  time.sleep(0.1)\n  return len(x)"
    )
    assert 0.1 <= result.wall < 5
    assert 0 < result.cpu < result.wall + 0.1
    assert 50_000_000 < result.maxrss < 200_000_000


def test_many_jobs_come_back_in_their_order(sandbox: Sandbox) -> None:
    results = sandbox.run_many(Job(f"def f(): return {n}", (Call("f"),)) for n in range(24))
    assert [result.values for result in results] == [(n,) for n in range(24)]


def test_a_sandbox_may_be_used_from_several_threads(sandbox: Sandbox) -> None:
    got: dict[int, object] = {}

    def ask(n: int) -> None:
        got[n] = call(sandbox, "def f(n): return n + 1", n).values[0]

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == {n: n + 1 for n in range(12)}


def test_a_job_of_limits_that_are_out_of_range_is_refused() -> None:
    for name, value in (
        ("wall_s", 0),
        ("memory_mb", 1),
        ("threads", True),
        ("files", "many"),
        ("wall_s", float("nan")),
    ):
        with pytest.raises(SandboxError, match=f"{name} was .*; allowed are .* Choose"):
            Limits(**{name: value})  # type: ignore[arg-type]


def test_arguments_that_are_not_json_are_refused() -> None:
    with pytest.raises(SandboxError, match="arguments of 'f' cannot go into the sandbox"):
        Job("", (Call("f", ({1},)),))


def test_calls_and_stdin_together_are_refused() -> None:
    with pytest.raises(SandboxError, match="both calls and stdin"):
        Job("", (Call("f"),), ("x",))


def test_a_program_that_is_too_long_is_refused_without_running(sandbox: Sandbox) -> None:
    result = sandbox.run(Job("#" * 8_000_001))
    assert result.status == "refused"
    assert "8,000,001 characters; at most 8,000,000" in str(result.error)


def test_a_result_can_be_written_as_json(sandbox: Sandbox) -> None:
    result = call(sandbox, "def f(): return ['\\ud800', float('nan')]")
    assert json.loads(json.dumps(asdict(result)))["values"][0][0] == "\ud800"


def test_the_smallest_memory_still_runs_python(sandbox: Sandbox) -> None:
    assert call(sandbox, "def f(): return 1", limits=Limits(memory_mb=96)).values == (1,)


def test_an_interrupt_in_the_middle_leaves_a_sandbox_that_works(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with Sandbox(servers=1, backend="guard", probed=False) as made:
        before = made.server_pids
        with monkeypatch.context() as patch:
            patch.setattr(server.Server, "_follow", interrupted)
            with pytest.raises(KeyboardInterrupt):
                call(made, "while True: pass")
        assert call(made, "def f(): return 1").values == (1,)
        assert made.server_pids != before


def test_closing_ends_the_servers_and_removes_their_folders() -> None:
    before = set(Path(tempfile.gettempdir()).glob("workbench-sandbox-*"))
    made = Sandbox(probed=False)
    pids = made.server_pids
    mine = set(Path(tempfile.gettempdir()).glob("workbench-sandbox-*")) - before
    assert len(mine) >= 2
    made.close()
    made.close()
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    assert made.server_pids == []
    with pytest.raises(SandboxError, match="closed"):
        made.run(Job(""))
