"""A run while it trains: its state and curves, one step, its log, the commands sent to it, muted alarms, prompts that wait for ratings."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field

from workbench import launch
from workbench.launch import steer
from workbench.record import rating
from workbench.record.notes import Notes
from workbench.record.reader import Reader
from workbench.view.common.routing import Kind, Mode, Step, accepted, json_route, requested_step
from workbench.view.common.run_header import run_header
from workbench.view.common.run_store import RunStore
from workbench.view.live.delta import MUTE, read_delta
from workbench.view.live.step_groups import step_groups


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
        return run_header(store.reader(run))

    @api.get("/runs/{run}/delta")
    @json_route
    def delta(run: str, since: str | None = None) -> Any:
        return read_delta(store, run, since)

    @api.get("/runs/{run}/steps/{step}")
    @json_route
    def step(run: str, step: Step, kind: Kind = "train", mode: Mode | None = None) -> Any:
        reader = store.reader(run)
        return step_groups(reader, requested_step(reader, step, kind), kind, mode)

    @api.get("/runs/{run}/log")
    @json_route
    def log(run: str, lines: Annotated[int, Query(ge=1, le=2000)] = 200) -> Any:
        folder = store.folder(run)
        path = folder.log_path
        return {"lines": folder.log_tail(lines), "size": path.stat().st_size if path.exists() else 0}

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
            notes.keep(MUTE, body.alarm)
        else:
            notes.drop(MUTE, body.alarm)
        return {"alarm": body.alarm, "muted": body.muted}

    @api.get("/runs/{run}/waiting")
    @json_route
    def waiting(run: str) -> Any:
        return {"waiting": rating.waiting_groups(store.reader(run))}

    @api.post("/runs/{run}/waiting/go-on")
    @json_route
    def go_on(run: str) -> Any:
        return {"step": rating.stop_waiting(store.folder(run))}

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
