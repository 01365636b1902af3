"""Starting a run without the form: for scripts."""

from typing import Any

from fastapi import APIRouter
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from workbench.core.config import RunConfig
from workbench.launch import preflight
from workbench.view.common.routing import json_route
from workbench.view.common.run_store import RunStore


class StartBody(BaseModel):
    """A run to start."""

    model_config = ConfigDict(extra="forbid")
    preset: str | None = None
    settings: dict[str, Any] = Field(default_factory=dict)
    key: str | None = Field(None, max_length=100)


def router(store: RunStore) -> APIRouter:
    """The page's routes over the runs of `store`."""
    api = APIRouter()

    @api.post("/runs")
    @json_route
    def start(body: StartBody) -> Any:
        config = RunConfig.build(body.preset, body.settings)
        return JSONResponse({"id": preflight.start(config, store.root, key=body.key).id}, status_code=201)

    return api
