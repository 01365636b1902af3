"""The JSON routes below /wb/api: what the reader fetches, what its buttons and scripts send. Every answer
is plain data.

In: requests that passed the guard. Out: JSON, or `{"error": sentence, "problems": {setting: sentence}}`
with the fitting status.
"""

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from fastapi.responses import JSONResponse, Response, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import to_json

from workbench import launch
from workbench.core.config import RunConfig
from workbench.core.errors import ConfigError, RunError, WorkbenchError
from workbench.launch import preflight, steer
from workbench.record import rating
from workbench.record.notes import Notes
from workbench.record.reader import Reader
from workbench.view.ask import questions
from workbench.view.common import glossary as words
from workbench.view.common import run_data
from workbench.view.common.store import Store
from workbench.view.compare import comparison as comparing
from workbench.view.group import group_data
from workbench.view.group.reward_code import reward_code
from workbench.view.lab import routes as lab
from workbench.view.learn.theory import TheoryCheck
from workbench.view.live import delta as deltas
from workbench.view.search import find
from workbench.view.whatif.whatif import WhatIf

Kind = Literal["train", "eval"]
Mode = Literal["sampled", "greedy"]
Runs = Annotated[Sequence[str], Query(max_length=12)]
"""Ids, once for each run."""
Sets = Annotated[Sequence[str], Query(max_length=40)]
"""`name=value`, once for each setting."""
Step = Annotated[str, "a number or `latest`"]


class Answer(JSONResponse):
    """Plain data as JSON. The first page of a long run is some megabytes of numbers: pydantic writes them in a fifth of the
    standard library's time. A number that is none is null."""

    def render(self, content: Any) -> bytes:
        return to_json(content, inf_nan_mode="null")


class CommandBody(BaseModel):
    """A wish to a run."""

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


class StartBody(BaseModel):
    """A run to start."""

    model_config = ConfigDict(extra="forbid")
    preset: str | None = None
    settings: dict[str, Any] = Field(default_factory=dict)
    key: str | None = Field(None, max_length=100)


class RatingBody(BaseModel):
    """What a person says about answers of one group: by their place in it, good, bad or taken back, or their
    places."""

    model_config = ConfigDict(extra="forbid")
    step: int = Field(ge=0)
    k: int = Field(ge=0)
    kind: Kind = "train"
    mode: Mode | None = None
    thumbs: dict[int, bool | None] = Field(default_factory=dict, max_length=1000)
    places: dict[int, Annotated[int, Field(ge=1, le=1000)] | None] = Field(
        default_factory=dict, max_length=1000
    )


class ScoreBody(BaseModel):
    """A reward to score recorded answers with: of the catalogue, or path/file.py:function."""

    model_config = ConfigDict(extra="forbid")
    reward: str = Field(min_length=1, max_length=1000)


def router(store: Store) -> APIRouter:
    """All routes over the runs of `store`."""
    api = APIRouter()
    whatif = WhatIf()
    check = TheoryCheck(store.root)

    @api.get("/runs")
    @_answered
    def runs() -> Any:
        return run_data.runs(store)

    @api.get("/compare")
    @_answered
    def compare(run: Runs) -> Any:
        return comparing.compare(store, run)

    @api.get("/compare/{prompt_id}")
    @_answered
    def compare_prompt(prompt_id: str, run: Runs, step: int | None = None) -> Any:
        return comparing.answers(store, run, prompt_id, step)

    @api.get("/runs/{run}")
    @_answered
    def header(run: str) -> Any:
        return run_data.header(store.reader(run))

    @api.get("/runs/{run}/delta")
    @_answered
    def delta(run: str, since: str | None = None) -> Any:
        return deltas.delta(store, run, since)

    @api.get("/runs/{run}/steps/{step}")
    @_answered
    def step(run: str, step: Step, kind: Kind = "train", mode: Mode | None = None) -> Any:
        return run_data.step(store.reader(run), _number(step), kind, mode)

    @api.get("/runs/{run}/steps/{step}/groups/{k}")
    @_answered
    def group(
        run: str, step: Step, k: int, kind: Kind = "train", mode: Mode | None = None, tokens: bool = False
    ) -> Any:
        return group_data.group(store.reader(run), _number(step), k, kind, mode, tokens)

    @api.get("/runs/{run}/prompts/{prompt_id}")
    @_answered
    def prompt(run: str, prompt_id: str) -> Any:
        return group_data.prompt(store.reader(run), prompt_id)

    @api.get("/runs/{run}/rewards/{name}")
    @_answered
    def code(run: str, name: str, step: int | None = None) -> Any:
        return reward_code(store.reader(run), name, step)

    @api.get("/runs/{run}/whatif")
    @_answered
    def ask(run: str, set: Sets = (), step: int | None = None) -> Any:
        return whatif.answer(store.reader(run), set, step)

    @api.post("/runs/{run}/whatif/score")
    @_answered
    def score(run: str, body: ScoreBody) -> Any:
        whatif.score(store.reader(run), body.reward)
        return JSONResponse({"reward": body.reward}, status_code=202)

    @api.get("/runs/{run}/whatif/tokens")
    @_answered
    def ask_tokens(run: str, set: Sets = (), after: int = -1) -> Any:
        return whatif.tokens(store.reader(run), set, after)

    @api.get("/runs/{run}/search")
    @_answered
    def search(run: str, query: Annotated[find.PageQuery, Query()]) -> Any:
        return find.hits(store.reader(run), query)

    @api.get("/runs/{run}/search/choices")
    @_answered
    def search_choices(run: str) -> Any:
        return find.choices(store.reader(run))

    @api.get("/runs/{run}/search/file")
    @_answered
    def search_file(run: str, query: Annotated[find.FileQuery, Query()]) -> Any:
        reader = store.reader(run)
        query.filters()  # what cannot be asked is said now, not in the middle of a file
        headers = {"content-disposition": f'attachment; filename="{reader.folder.id}-samples.{query.format}"'}
        kind = "application/x-ndjson" if query.format == "jsonl" else "application/vnd.apache.parquet"
        return StreamingResponse(find.file(reader, query, query.format), media_type=kind, headers=headers)

    @api.get("/runs/{run}/ask/choices")
    @_answered
    def ask_choices(run: str) -> Any:
        return questions.choices(store.folder(run))

    @api.post("/runs/{run}/ask/sample")
    @_answered
    def ask_sample(run: str, body: questions.SampleBody) -> Any:
        return JSONResponse(questions.put(store.folder(run), body), status_code=202)

    @api.post("/runs/{run}/ask/branch")
    @_answered
    def ask_branch(run: str, body: questions.BranchBody) -> Any:
        return JSONResponse(questions.put(store.folder(run), body), status_code=202)

    @api.get("/runs/{run}/asked/{folder}/{id}")
    @_answered
    def asked(run: str, folder: str, id: str) -> Any:
        return questions.told(store.folder(run), folder, id)

    @api.get("/runs/{run}/steps/{step}/groups/{k}/branches")
    @_answered
    def branches(run: str, step: int, k: int, kind: Kind = "train", mode: Mode | None = None) -> Any:
        return questions.kept(store.folder(run), step, k, kind, mode)

    @api.get("/runs/{run}/log")
    @_answered
    def log(run: str, lines: Annotated[int, Query(ge=1, le=2000)] = 200) -> Any:
        return run_data.log(store.reader(run), lines)

    @api.get("/theory")
    @_answered
    def theory() -> Any:
        return check.answer()

    @api.post("/theory")
    @_answered
    def check_theory() -> Any:
        return JSONResponse(check.start(), status_code=202)

    @api.get("/glossary")
    @_answered
    def glossary() -> Any:
        return words.glossary()

    @api.post("/runs/{run}/commands")
    @_answered
    def command(run: str, body: CommandBody) -> Any:
        reader = store.reader(run)
        if body.check:
            steer.commands_for(reader.folder, body.args, fresh=False)
            return {"problems": {}}
        ids = send(reader, body)
        return JSONResponse(
            {"id": ids[-1] if ids else None, "ids": ids, "command": body.command}, status_code=202
        )

    @api.post("/runs/{run}/mutes")
    @_answered
    def mute(run: str, body: MuteBody) -> Any:
        notes = Notes(store.folder(run))
        if body.muted:
            notes.keep(deltas.MUTE, body.alarm)
        else:
            notes.drop(deltas.MUTE, body.alarm)
        return {"alarm": body.alarm, "muted": body.muted}

    @api.get("/runs/{run}/waiting")
    @_answered
    def waiting(run: str) -> Any:
        return {"waiting": rating.of_waiting(store.reader(run))}

    @api.post("/runs/{run}/waiting/go-on")
    @_answered
    def go_on(run: str) -> Any:
        return {"step": rating.go_on(store.folder(run))}

    @api.post("/runs/{run}/ratings")
    @_answered
    def rate(run: str, body: RatingBody) -> Any:
        at = (body.step, body.k, body.thumbs, body.places, body.kind, body.mode)
        rating.rate_group(store.reader(run), *at)
        return {"rated": len(body.thumbs) + len(body.places)}

    @api.post("/runs")
    @_answered
    def start(body: StartBody) -> Any:
        config = RunConfig.build(body.preset, body.settings)
        return JSONResponse({"id": preflight.start(config, store.root, key=body.key).id}, status_code=201)

    api.include_router(lab.router(store, _answered), prefix="/lab")
    return api


def send(reader: Reader, body: CommandBody) -> list[str]:
    """Passes a wish on to the run; the ids by which it will be answered. Raises RunError where nobody is there, ConfigError for
    a setting that cannot be."""
    if body.command == "resume" and launch.state(reader.folder).over:
        launch.resume(reader.folder)
        return []
    if body.command in ("stop", "kill"):
        launch.stop(reader.folder, grace=0.0 if body.command == "kill" else None, wait=False)
        return []
    if body.command == "set":
        return steer.send(reader.folder, body.args, fresh=False)
    return [launch.send(reader.folder, body.command, body.args)]


def _answered(route: Callable[..., Any]) -> Callable[..., Any]:
    """Turns what a user can put right into JSON with a fitting status; everything else is a fault of ours."""

    @functools.wraps(route)
    def answered(*args: Any, **kwargs: Any) -> Any:
        try:
            found = route(*args, **kwargs)
            # Plain data already: FastAPI's own encoder would walk through megabytes of numbers once more.
            return found if isinstance(found, Response) else Answer(found)
        except ConfigError as error:
            return problem(400, error)
        except RunError as error:
            changes = "body" in kwargs
            return problem(409 if changes else 404, error)
        except WorkbenchError as error:
            return problem(400, error)

    answered.__signature__ = inspect.signature(route)  # type: ignore[attr-defined]
    return answered


def problem(status: int, error: WorkbenchError) -> JSONResponse:
    """The error's sentence, and one per setting where it names them."""
    return JSONResponse({"error": str(error), "problems": getattr(error, "problems", {})}, status_code=status)


def _number(step: str) -> int | None:
    if step == "latest":
        return None
    if not (step.isascii() and step.isdigit() and len(step) < 12):
        raise RunError(f"step = {step[:40]!r}: give a step's number, or latest.")
    return int(step)
