"""The list of runs."""

from typing import Any

from fastapi import APIRouter

from workbench.view.common.routing import json_route
from workbench.view.common.run_store import RunStore
from workbench.view.runs.run_list import run_list


def router(store: RunStore) -> APIRouter:
    """The page's routes over the runs of `store`."""
    api = APIRouter()

    @api.get("/runs")
    @json_route
    def runs() -> Any:
        return run_list(store)

    return api
