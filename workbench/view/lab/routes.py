"""The lab's routes below /wb/api/lab: drafts, versions, trials, attacks. They run the owner's code, behind the guard and its token.
Everything that writes or runs is a POST, which the guard of a read-only dashboard refuses.

In: JSON. Out: JSON, or lines of JSON while a trial runs.
"""

import hashlib
from typing import Any

from fastapi import APIRouter, Query
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from workbench import launch
from workbench.core.errors import RewardError, RunError, WorkbenchError
from workbench.core.presets import presets
from workbench.record import folder as record
from workbench.rewards.builtin.catalogue import REWARDS
from workbench.view.common.routing import json_route
from workbench.view.common.run_store import RunStore
from workbench.view.lab import reward_source, trial_json
from workbench.view.lab.drafts import MAX_CODE_BYTES, Case, Drafts, RewardCode
from workbench.view.lab.running_trial import RunningTrial
from workbench.view.lab.trial_samples import Choice
from workbench.view.lab.trials import SECONDS, Trials, TryBody

MAX_RUNS = 40
"""Runs to choose from, newest first."""


class DraftBody(BaseModel):
    """The editor's text."""

    model_config = ConfigDict(extra="forbid")
    written: RewardCode
    base: int | None = None
    revision: int = 0


class KeepBody(BaseModel):
    """A version to save."""

    model_config = ConfigDict(extra="forbid")
    written: RewardCode
    title: str = Field("", max_length=200)


class AddBody(BaseModel):
    """A catalogue reward to add to the code."""

    model_config = ConfigDict(extra="forbid")
    code: str
    name: str


class CasesBody(BaseModel):
    """All test cases."""

    model_config = ConfigDict(extra="forbid")
    cases: list[Case] = Field(max_length=500)


class PeekBody(BaseModel):
    """Samples to show."""

    model_config = ConfigDict(extra="forbid")
    on: Choice


def router(store: RunStore) -> APIRouter:
    """The page's routes; drafts, versions and cases lie below the root of `store`."""
    api = APIRouter(prefix="/lab")
    drafts = Drafts(store.root)
    trials = Trials(store, drafts)

    @api.get("")
    @json_route
    def everything() -> Any:
        return {
            "place": hashlib.sha256(str(drafts.folder).encode()).hexdigest()[:12],
            "draft": drafts.draft(),
            "versions": [version.json() for version in drafts.versions()],
            "cases": [case.model_dump() for case in drafts.cases()],
            "catalogue": [
                {"name": one.name, "title": one.title, "family": one.family, "about": one.about, "weakness": one.weakness}
                for one in REWARDS.values()
            ],
            "runs": _runs(store),
            "presets": [{"name": one.name, "title": one.title} for one in presets()],
            "limits": {"seconds": SECONDS, "bytes": MAX_CODE_BYTES},
        }  # fmt: skip

    @api.post("/draft")
    @json_route
    def write(body: DraftBody) -> Any:
        return {**drafts.write(body.written, body.base, body.revision), **_examine(body.written)}

    @api.post("/look")
    @json_route
    def look(body: RewardCode) -> Any:
        trials.warm_up()  # the page has been opened
        return _examine(body)

    @api.post("/versions")
    @json_route
    def keep(body: KeepBody) -> Any:
        return drafts.keep(body.written, body.title).json()

    @api.post("/add")
    @json_route
    def add(body: AddBody) -> Any:
        return {"code": reward_source.added(body.code, body.name)}

    @api.post("/cases")
    @json_route
    def cases(body: CasesBody) -> Any:
        drafts.write_cases(body.cases)
        return {"cases": len(body.cases)}

    @api.post("/try")
    @json_route
    def run(body: TryBody) -> Any:
        return StreamingResponse(RunningTrial(trials, body).lines(), media_type="application/x-ndjson")

    @api.post("/peek")
    @json_route
    def peek(body: PeekBody) -> Any:
        return trials.peek(body.on)

    @api.post("/attack")
    @json_route
    def attack(body: TryBody) -> Any:
        try:
            return trials.attack(body)
        except (RewardError, RunError) as error:
            return trial_json.refused(error)

    @api.get("/trials/{trial}/groups/{k}")
    @json_route
    def group(trial: str, k: int) -> Any:
        found = trials.get(trial)
        if not 0 <= k < len(found.samples.groups):
            raise RunError(f"There is no group {k}: they are numbered 0 to {len(found.samples.groups) - 1}.")
        return trial_json.group(found, k)

    @api.get("/trials/{trial}/forecast")
    @json_route
    def forecast(trial: str, size: int = Query(ge=2, le=1024)) -> Any:
        return trial_json.forecast(trials.get(trial), size)

    return api


def _examine(written: RewardCode) -> dict[str, Any]:
    """The functions of the code, or what is wrong with it; nothing is executed."""
    try:
        return {
            "functions": [
                {"name": one.name, "line": one.line, "asks": one.required}
                for one in reward_source.functions(written.checked().code)
            ],
            "problem": None,
        }
    except WorkbenchError as error:
        return {"functions": None, "problem": {"text": str(error), "line": reward_source.line_of(str(error))}}


def _runs(store: RunStore) -> list[dict[str, Any]]:
    """Runs with recorded steps."""
    found: list[dict[str, Any]] = []
    for folder in record.folders(store.root):
        if len(found) == MAX_RUNS:
            break
        try:
            reader = store.reader(folder.id)
            about = folder.about()
            last = reader.last_step()
            if about.get("kind", "train") != "train" or last is None:
                continue
            config = reader.config
            state = launch.state(folder)
            found.append({
                "id": folder.id, "name": config.run_name or folder.id, "model": config.model, "last": last,
                "size": config.num_generations, "state": state.state, "alive": state.alive and not state.over,
            })  # fmt: skip
        except RunError:
            continue
    return found
