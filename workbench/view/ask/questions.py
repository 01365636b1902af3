"""Questions to a run's model from a page: fresh answers to a prompt, and what a token was worth.

In: what was asked over the network. Out: where its answer will stand; and once it is there, the answer as plain JSON,
branches with their values and margins.
"""

import statistics
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from workbench import launch
from workbench.core.errors import RunError
from workbench.diagnose.interval import wilson
from workbench.launch import probe_client
from workbench.record import checkpoints
from workbench.record import folder as record
from workbench.record.folder import RunFolder
from workbench.view.common.temporary_probe import describe

Json = dict[str, Any]


class SampleBody(BaseModel):
    """Fresh answers to a prompt of one's own."""

    model_config = ConfigDict(extra="forbid")
    prompt: str = Field(min_length=1, max_length=20_000)
    n: int = Field(4, ge=1, le=16)
    temperature: float | None = Field(None, ge=0, le=5)
    seed: int | None = Field(None, ge=0, lt=2**31)
    step: int | None = Field(None, ge=0)
    base: bool = False


class BranchBody(BaseModel):
    """What a token of a recorded answer was worth."""

    model_config = ConfigDict(extra="forbid")
    step: int = Field(ge=0)
    k: int = Field(ge=0)
    kind: Literal["train", "eval"] = "train"
    mode: Literal["sampled", "greedy"] | None = None
    sample: int = Field(ge=0)
    tok: int = Field(ge=0)
    n: int = Field(16, ge=2, le=256)


def choices(run: RunFolder) -> Json:
    """The checkpoints that can be asked."""
    return {"checkpoints": [found.step for found in checkpoints.listing(run) if not found.problem]}


def put(run: RunFolder, body: SampleBody | BranchBody) -> Json:
    """Puts the question. `{folder, id}` names the answer to come; `model` says whose it is."""
    args = {name: value for name, value in body.model_dump().items() if value is not None}
    asked = probe_client.send_probe(run, "sample" if isinstance(body, SampleBody) else "branch", **args)
    return {"folder": asked.folder.id, "id": asked.id, "model": asked.model}


def told(run: RunFolder, folder: str, id: str) -> Json:
    """Where a question stands: `{words, result, failed}`. A branch is kept in the run's notes when it is first
    seen."""
    place = record.find_id(folder, run.root)
    state = launch.state(place)
    answer = probe_client.SentProbe(place, id).poll()
    if answer is None:
        if state.over:
            return {
                "words": "The worker ended before it answered. Ask again.",
                "result": None,
                "failed": True,
            }
        return {"words": _doing(place, run, state), "result": None, "failed": False}
    if not answer["ok"]:
        return {"words": answer["text"], "result": None, "failed": True}
    result = dict(answer["result"])
    if answer["args"].get("probe") == "branch":
        of = answer["args"].get("run")
        if place != run and of != str(run.path.absolute()):
            raise RunError(f"That answer belongs to another run than {run.id}.")
        probe_client.save_branch(run, result)
        result = branch(result)
    return {"words": answer["text"], "result": result, "failed": False}


def kept(run: RunFolder, step: int, k: int, kind: str, mode: str | None) -> Json:
    """The branches of one group that were asked before."""
    return {"branches": [branch(one) for one in probe_client.saved_branches(run, step, k, kind, mode)]}


def branch(result: Json) -> Json:
    """A branch with the mean of each side and its 95 % margins, the single rewards left out."""
    return {**result, "sides": [_side(side) for side in result["sides"]]}


def _side(side: Json) -> Json:
    known = [reward for reward in side["rewards"] if reward is not None]
    n, mean = len(known), statistics.fmean(known)
    if n == 1:  # the answer was over: nothing was left to chance
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


def _doing(place: RunFolder, run: RunFolder, state: launch.RunState) -> str:
    if state.phase == "branch":
        return f"Continuing: {state.phase_done} of {state.phase_total} answers…"
    if place == run and state.phase != "score":
        return f"The run answers between two steps; it is at step {state.step} now…"
    return "Scoring…" if state.phase == "score" else describe(state).replace(" to the longest prompts", "")
