"""Probes of a run's model from a page: fresh completions of a prompt, and continuations from a token of a recorded completion.

In: the body of a request. Out: where the worker's reply will be recorded; then the reply as plain JSON, branches with the mean reward
of each side and its 95 % interval.
"""

import statistics
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from workbench import launch
from workbench.core.errors import RunError
from workbench.diagnose.interval import wilson
from workbench.launch import probe_client
from workbench.record import checkpoints as stored_checkpoints
from workbench.record import folder as record
from workbench.record.folder import RunFolder
from workbench.view.common.temporary_probe import describe

Json = dict[str, Any]


class SampleBody(BaseModel):
    """Fresh completions of a prompt."""

    model_config = ConfigDict(extra="forbid")
    prompt: str = Field(min_length=1, max_length=20_000)
    n: int = Field(4, ge=1, le=16)
    temperature: float | None = Field(None, ge=0, le=5)
    seed: int | None = Field(None, ge=0, lt=2**31)
    step: int | None = Field(None, ge=0)
    base: bool = False


class BranchBody(BaseModel):
    """Continuations of a recorded completion from one of its tokens, to estimate what the choice there was worth."""

    model_config = ConfigDict(extra="forbid")
    step: int = Field(ge=0)
    k: int = Field(ge=0)
    kind: Literal["train", "eval"] = "train"
    mode: Literal["sampled", "greedy"] | None = None
    sample: int = Field(ge=0)
    tok: int = Field(ge=0)
    n: int = Field(16, ge=2, le=256)


def checkpoints(run: RunFolder) -> Json:
    """The steps whose checkpoints can be sampled from."""
    return {"checkpoints": [found.step for found in stored_checkpoints.listing(run) if not found.problem]}


def submit(run: RunFolder, body: SampleBody | BranchBody) -> Json:
    """Sends the probe to a worker. `{folder, id}` names the reply to come; `model` describes the weights it comes from."""
    args = {name: value for name, value in body.model_dump().items() if value is not None}
    sent = probe_client.send_probe(run, "sample" if isinstance(body, SampleBody) else "branch", **args)
    return {"folder": sent.folder.id, "id": sent.id, "model": sent.model}


def reply(run: RunFolder, folder: str, id: str) -> Json:
    """Progress or reply of the probe `id` that was sent to the worker of `folder`: `{words, result, failed}`. A branch is saved in the
    run's notes when its reply is first read."""
    place = record.find_id(folder, run.root)
    state = launch.state(place)
    found = probe_client.SentProbe(place, id).poll()
    if found is None:
        if state.over:
            return {"words": "The worker ended before it replied. Ask again.", "result": None, "failed": True}
        return {"words": _progress(place, run, state), "result": None, "failed": False}
    if not found["ok"]:
        return {"words": found["text"], "result": None, "failed": True}
    result = dict(found["result"])
    if found["args"].get("probe") == "branch":
        if place != run and found["args"].get("run") != str(run.path.absolute()):
            raise RunError(f"That reply belongs to another run than {run.id}.")
        probe_client.save_branch(run, result)
        result = with_intervals(result)
    return {"words": found["text"], "result": result, "failed": False}


def saved_branches(run: RunFolder, step: int, k: int, kind: str, mode: str | None) -> Json:
    """The branches of one group that were sampled before."""
    return {
        "branches": [with_intervals(one) for one in probe_client.saved_branches(run, step, k, kind, mode)]
    }


def with_intervals(branch: Json) -> Json:
    """A branch with the mean reward of each side and its 95 % interval in place of the single rewards."""
    return {**branch, "sides": [_side(side) for side in branch["sides"]]}


def _side(side: Json) -> Json:
    known = [reward for reward in side["rewards"] if reward is not None]
    n, mean = len(known), statistics.fmean(known)
    if n == 1:  # the completion ended at this token: there was nothing to sample
        low = high = mean
    elif set(known) <= {0.0, 1.0}:
        interval = wilson(sum(known), n)
        low, high = interval.low, interval.high
    else:
        half = 1.96 * statistics.stdev(known) / n**0.5
        low, high = mean - half, mean + half
    return {
        **{name: value for name, value in side.items() if name != "rewards"},
        "n": n, "failed": len(side["rewards"]) - n, "value": mean, "low": low, "high": high,
    }  # fmt: skip


def _progress(place: RunFolder, run: RunFolder, state: launch.RunState) -> str:
    if state.phase == "branch":
        return f"Continuing: {state.phase_done} of {state.phase_total} samples…"
    if place == run and state.phase != "score":
        return f"The run replies between two steps; it is at step {state.step} now…"
    return "Scoring…" if state.phase == "score" else describe(state)
