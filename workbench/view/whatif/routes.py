"""What recorded steps would have been with other settings or another reward."""

from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from workbench.view.common.routing import Sets, accepted, json_route
from workbench.view.common.run_store import RunStore
from workbench.view.whatif.drawer import WhatIfDrawer


class ScoreBody(BaseModel):
    """A reward to score recorded completions with: of the catalogue, or path/file.py:function."""

    model_config = ConfigDict(extra="forbid")
    reward: str = Field(min_length=1, max_length=1000)


def router(store: RunStore) -> APIRouter:
    """The page's routes over the runs of `store`."""
    api = APIRouter()
    drawer = WhatIfDrawer()

    @api.get("/runs/{run}/whatif")
    @json_route
    def recompute(run: str, set: Sets = (), step: int | None = None) -> Any:
        return drawer.recompute(store.reader(run), set, step)

    @api.post("/runs/{run}/whatif/score")
    @json_route
    def score(run: str, body: ScoreBody) -> Any:
        drawer.score(store.reader(run), body.reward)
        return accepted({"reward": body.reward})

    @api.get("/runs/{run}/whatif/tokens")
    @json_route
    def tokens(run: str, set: Sets = (), after: int = -1) -> Any:
        return drawer.recompute_tokens(store.reader(run), set, after)

    return api
