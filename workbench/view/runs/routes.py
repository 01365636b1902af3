"""The list of runs."""

from typing import Any

from fastapi import APIRouter

from workbench.view.common import run_data
from workbench.view.common.routing import json_route
from workbench.view.common.run_store import RunStore


def router(store: RunStore) -> APIRouter:
    """The page's routes over the runs of `store`."""
    api = APIRouter()

    @api.get("/runs")
    @json_route
    def runs() -> Any:
        return run_data.runs(store)

    return api
