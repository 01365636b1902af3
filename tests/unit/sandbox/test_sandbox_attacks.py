"""Every attack against the sandbox, every trick against a grader, and the honest programs that must work."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import workbench.sandbox
from tests.helpers import wait_until
from workbench.core.errors import SandboxError
from workbench.sandbox import Call, Job, Limits, Result, Sandbox, compare_exact, pool, probe, programs
from workbench.sandbox.programs import Program

LIMITS = Limits(wall_s=10.0, memory_mb=128)
ATTACKS, TRICKS, BENIGN = (programs.load(kind) for kind in ("attacks", "tricks", "benign"))
REAL = """
abstract_socket change_file change_mode connect_tcp daemonise fork_64 inherited_descriptors kill_victim
list_home list_processes outlive_parent read_environment read_passwd read_secret resolve_name run_shell
send_udp signal_by_descriptor signal_parents write_outside
"""
"""Attacks that any process can make, so they must reach their goal where nothing contains them."""


def names(found: list[Program]) -> list[str]:
    return [program.name for program in found]


def test_the_suite_is_as_large_as_it_claims() -> None:
    assert len(ATTACKS) >= 32
    assert len(BENIGN) == 4
    assert set(programs.CONTAINED) | programs.SLOW <= set(names([*ATTACKS, *TRICKS]))


@pytest.mark.parametrize("attack", ATTACKS, ids=names(ATTACKS))
def test_an_attack_is_contained(sandbox: Sandbox, attack: Program) -> None:
    assert probe.attempt(sandbox.run, [attack], LIMITS) == {}


@pytest.mark.parametrize("name", REAL.split())
def test_an_attack_reaches_its_goal_where_nothing_contains_it(name: str, tmp_path: Path) -> None:
    """Otherwise the test above would prove nothing."""
    attack = next(attack for attack in ATTACKS if attack.name == name)
    start = "import json, os\nprint(json.dumps([attack(json.loads(os.environ['TARGET'])), 'over']))"
    with probe.Targets() as targets, open(os.devnull) as inherited:
        done = subprocess.run(
            [sys.executable, "-c", f"{attack.source}\n{start}"],
            env={"TARGET": json.dumps(targets.paths), "HOME": str(tmp_path)},
            cwd=tmp_path,
            pass_fds=[inherited.fileno()]
            if name != "inherited_descriptors"
            else [os.open(tmp_path, os.O_RDONLY)],
            capture_output=True,
            timeout=60,
        )
    assert json.loads(done.stdout) == [True, "over"], done.stderr.decode()


def test_the_targets_show_what_was_done_to_them() -> None:
    attacks = {attack.name: attack for attack in ATTACKS}
    for name in (
        "change_file",
        "change_mode",
        "connect_tcp",
        "send_udp",
        "abstract_socket",
        "kill_victim",
        "write_outside",
    ):
        with probe.Targets() as targets:
            assert targets.untouched()
            space: dict[str, object] = {}
            exec(attacks[name].source, space)
            assert space["attack"](targets.paths)  # type: ignore[operator]
            wait_until(lambda targets=targets: not targets.untouched(), what=name)  # type: ignore[misc]


@pytest.mark.parametrize("trick", TRICKS, ids=names(TRICKS))
def test_a_trick_does_not_pass_a_grader(sandbox: Sandbox, trick: Program) -> None:
    result = sandbox.run(Job(trick.source, (Call("solve", (7,)),), limits=probe.limits_for(trick, LIMITS)))
    assert not compare_exact(49, result.values[0])
    assert result.status in ("ok", "error", "timeout"), "a failure of its own making is never excused"


@pytest.mark.parametrize("program", BENIGN, ids=names(BENIGN))
def test_an_honest_program_works(sandbox: Sandbox, program: Program) -> None:
    result = sandbox.run(Job(program.source, (Call("solve", (7,)),), limits=LIMITS))
    assert (result.status, result.values) == ("ok", (49,)), result.error


def test_a_job_may_not_have_more_threads_than_its_limit(sandbox: Sandbox) -> None:
    start = "for _ in range(12): threading.Thread(target=time.sleep, args=(9,)).start()"
    source = f"import threading, time\ndef f():\n  {start}\n  time.sleep(9)"
    result = sandbox.run(Job(source, (Call("f"),), limits=Limits(threads=8)))
    assert (result.status, result.error) == ("killed", "more than 8 threads were started")


def test_files_that_cannot_be_listed_are_counted_all_the_same(sandbox: Sandbox) -> None:
    fill = "for n in range(20_000): open(f'shut/{n}', 'w').close()"
    source = f"import os\ndef f():\n  os.mkdir('shut', 0o300)\n  {fill}"
    assert sandbox.run(Job(source, (Call("f"),), limits=LIMITS)).status == "output_limit"


def test_neither_installed_packages_nor_this_project_can_be_read(sandbox: Sandbox) -> None:
    """Answers lie in packages and data sets, too."""
    for path in (pytest.__file__, workbench.sandbox.__file__, __file__):
        result = sandbox.run(Job(f"def f(): return open({path!r}).read()", (Call("f"),)))
        assert result.values == (None,)
        assert str(result.error).startswith(("PermissionError", "FileNotFoundError"))
    for name in ("pytest", "workbench", "pip"):
        assert "ModuleNotFoundError" in str(sandbox.run(Job(f"import {name}")).error)


def test_the_badge_says_how_many_attempts_were_contained() -> None:
    with Sandbox(servers=1, backend="guard") as made:
        badge = made.badge
    assert badge.contained == badge.attempts >= 30
    assert badge.escaped == ()
    assert badge.message.endswith(f"{badge.attempts} of {badge.attempts} escape attempts failed.")


def test_an_attempt_that_gets_out_is_named_on_the_badge() -> None:
    badge = probe.probe(lambda job: Result("ok", values=(True,)), "guard")
    assert badge.contained == 0
    assert "read_passwd" in badge.escaped


def test_an_attempt_that_could_not_be_made_does_not_count_as_contained() -> None:
    broken = Result("infra_error", values=(None,))
    assert probe.probe(lambda job: broken, "guard").contained == 0


def test_a_sandbox_that_leaks_does_not_open(monkeypatch: pytest.MonkeyPatch) -> None:
    leaky = probe.Badge("guard", 1, 2, "", ("read_passwd",))
    monkeypatch.setattr(pool.probe, "probe", lambda run, backend: leaky)
    with pytest.raises(SandboxError, match="not tight on this machine: read_passwd got out"):
        Sandbox(servers=1, backend="guard")
