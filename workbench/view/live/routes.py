"""A run while it trains: its state and curves, one step, its log, the commands sent to it, muted alarms, prompts that wait for ratings."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field

from workbench import launch
from workbench.launch import steer
from workbench.record import rating
from workbench.record.notes import Notes
from workbench.record.reader import Reader
from workbench.view.common import run_data
from workbench.view.common.routing import Kind, Mode, Step, accepted, json_route, step_number
from workbench.view.common.run_store import RunStore
from workbench.view.live import delta as deltas


class CommandBody(BaseModel):
    """A command to a run."""

    model_config = ConfigDict(extra="forbid")
    command: Literal["pause", "resume", "stop", "checkpoint", "set", "kill"]
    args: dict[str, Any] = Field(default_factory=dict)
    check: bool = False
    """Only say whether settings can be changed to this."""


class MuteBody(BaseModel):
    """An alarm not to be shown any more, or to be shown again."""

    model_config = ConfigDict(extra="forbid")
    alarm: str = Field(max_length=60)
    muted: bool = True


def router(store: RunStore) -> APIRouter:
    """The page's routes over the runs of `store`."""
    api = APIRouter()

    @api.get("/runs/{run}")
    @json_route
    def header(run: str) -> Any:
        return run_data.header(store.reader(run))

    @api.get("/runs/{run}/delta")
    @json_route
    def delta(run: str, since: str | None = None) -> Any:
        return deltas.delta(store, run, since)

    @api.get("/runs/{run}/steps/{step}")
    @json_route
    def step(run: str, step: Step, kind: Kind = "train", mode: Mode | None = None) -> Any:
        return run_data.step(store.reader(run), step_number(step), kind, mode)

    @api.get("/runs/{run}/log")
    @json_route
    def log(run: str, lines: Annotated[int, Query(ge=1, le=2000)] = 200) -> Any:
        return run_data.log(store.reader(run), lines)

    @api.post("/runs/{run}/commands")
    @json_route
    def command(run: str, body: CommandBody) -> Any:
        reader = store.reader(run)
        if body.check:
            steer.commands_for(reader.folder, body.args, fresh=False)
            return {"problems": {}}
        ids = send(reader, body)
        return accepted({"id": ids[-1] if ids else None, "ids": ids, "command": body.command})

    @api.post("/runs/{run}/mutes")
    @json_route
    def mute(run: str, body: MuteBody) -> Any:
        notes = Notes(store.folder(run))
        if body.muted:
            notes.keep(deltas.MUTE, body.alarm)
        else:
            notes.drop(deltas.MUTE, body.alarm)
        return {"alarm": body.alarm, "muted": body.muted}

    @api.get("/runs/{run}/waiting")
    @json_route
    def waiting(run: str) -> Any:
        return {"waiting": rating.of_waiting(store.reader(run))}

    @api.post("/runs/{run}/waiting/go-on")
    @json_route
    def go_on(run: str) -> Any:
        return {"step": rating.go_on(store.folder(run))}

    return api


def send(reader: Reader, body: CommandBody) -> list[str]:
    """Passes a command on to the run; the ids under which its replies will be recorded. Raises RunError where no worker is there to
    take it, ConfigError for a value that a setting cannot have."""
    if body.command == "resume" and launch.state(reader.folder).over:
        launch.resume(reader.folder)
        return []
    if body.command in ("stop", "kill"):
        launch.stop(reader.folder, grace=0.0 if body.command == "kill" else None, wait=False)
        return []
    if body.command == "set":
        return steer.send(reader.folder, body.args, fresh=False)
    return [launch.send(reader.folder, body.command, body.args)]
