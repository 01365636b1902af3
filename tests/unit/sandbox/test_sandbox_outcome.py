"""How the parent reads what a job left behind, byte by byte, without running anything."""

import json
import signal

from workbench.sandbox import Call, Limits
from workbench.sandbox.outcome import read_calls, read_program
from workbench.sandbox.server import Raw

NONCE, LIMITS, CALLS = "n0nce", Limits(wall_s=2.0, memory_mb=256), (Call("f"), Call("f"))
OK = {"done": "ok"}


def left(
    *messages: object,
    extra: bytes = b"",
    code: int = 0,
    stopped: str | None = None,
    cpu: float = 0.01,
    maxrss: int = 1,
) -> Raw:
    report = (
        b"".join(f"{NONCE} {json.dumps(message)}\n".encode() for message in ({"begun": True}, *messages))
        + extra
    )
    return Raw(b"out", b"err", report, code, stopped, 0.1, cpu, maxrss)


def value(call: int, given: object) -> dict[str, object]:
    return {"call": call, "value": given}


def test_values_come_back_in_the_order_of_the_calls() -> None:
    result = read_calls(left(value(1, [2]), value(0, 1), OK), NONCE, CALLS, LIMITS)
    assert (result.status, result.values, result.errors) == ("ok", (1, [2]), (None, None))


def test_exit_code_zero_without_a_result_is_an_error() -> None:
    result = read_calls(left(value(0, 1)), NONCE, CALLS, LIMITS)
    assert result.status == "error"
    assert result.values == (1, None)
    assert result.errors[1] is not None
    assert "leaving early" in result.errors[1]


def test_a_line_with_another_nonce_spoils_the_whole_result() -> None:
    forged = b'guess {"call": 0, "value": 1}\n'
    result = read_calls(left(value(0, 1), value(1, 2), OK, extra=forged), NONCE, CALLS, LIMITS)
    assert (result.status, result.values) == ("error", (None, None))
    assert result.error == "the program wrote to the result channel by itself"


def test_bytes_that_are_not_json_spoil_the_result() -> None:
    for extra in (b"\xff\xfe\n", b"\n", b"n0nce {\n", b"n0nce []\n", b"x", b"n0nce " + b"[" * 50_000 + b"\n"):
        assert read_calls(left(value(0, 1), OK, extra=extra), NONCE, CALLS, LIMITS).status == "error"


def test_values_nested_too_deep_to_handle_are_not_taken() -> None:
    deep = f'{NONCE} {{"call": 0, "value": {"[" * 300}{"]" * 300}}}\n'.encode()
    assert read_calls(left(OK, extra=deep), NONCE, CALLS, LIMITS).status == "error"


def test_indices_that_are_no_calls_are_passed_over() -> None:
    odd = [value(-1, 9), value(2, 9), {"call": True, "value": 9}, {"call": "0", "value": 9}]
    assert read_calls(left(*odd, OK), NONCE, CALLS, LIMITS).values == (None, None)


def test_passing_a_limit_is_told_before_whatever_the_program_reported() -> None:
    for stopped, status in (("output", "output_limit"), ("disk", "output_limit"), ("threads", "killed")):
        assert read_calls(left(OK, stopped=stopped, code=-9), NONCE, CALLS, LIMITS).status == status


def test_a_job_that_finished_as_the_time_ran_out_has_finished() -> None:
    assert read_calls(left(value(0, 1), OK, stopped="timeout", code=-9), NONCE, CALLS, LIMITS).status == "ok"
    late = read_calls(left(value(0, 1), stopped="timeout", code=-9), NONCE, CALLS, LIMITS)
    assert (late.status, late.values) == ("timeout", (1, None))
    assert late.errors == (None, "not done after 2 s")


def test_a_signal_is_a_crash_or_the_memory_or_the_time() -> None:
    cases = [
        (left(code=-signal.SIGSEGV), "killed"),
        (left(code=-signal.SIGKILL), "killed"),
        (left(code=-signal.SIGSEGV, maxrss=250 << 20), "memory"),
        (left(code=-signal.SIGKILL, cpu=3.1), "timeout"),
    ]
    assert [read_calls(raw, NONCE, CALLS, LIMITS).status for raw, _ in cases] == [
        status for _, status in cases
    ]


def test_a_guard_that_failed_says_nothing_about_the_program() -> None:
    result = read_calls(left(code=125)._replace(report=b""), NONCE, CALLS, LIMITS)
    assert result.status == "infra_error"
    assert result.error == "the job's process failed before the program ran: err"


def test_a_program_cannot_pass_its_failure_off_as_ours() -> None:
    assert read_calls(left(code=125), NONCE, CALLS, LIMITS).status == "error"


def test_what_a_program_printed_counts_only_if_it_came_to_its_end() -> None:
    assert read_program(left(OK), NONCE, LIMITS).values == ("out",)
    assert read_program(left(), NONCE, LIMITS).values == (None,)
    assert read_program(left({"done": "error", "error": "E"}), NONCE, LIMITS).values == (None,)


def test_error_texts_can_be_stored() -> None:
    result = read_calls(left({"done": "error", "error": "a\0b\ud800", "line": 3}), NONCE, CALLS, LIMITS)
    assert result.error == "a\\x00b\\ud800"
    assert result.line == 3
    result.error.encode("utf-8")


def test_only_the_end_of_what_was_printed_is_kept_and_always_as_text() -> None:
    raw = left(OK)._replace(stdout=b"\xff" * 10_000 + b"end")
    tail = read_program(raw, NONCE, LIMITS).stdout_tail
    assert len(tail) == 4000
    assert tail.endswith("�end")
