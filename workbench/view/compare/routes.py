"""Several runs beside each other: their curves, and their completions to one prompt."""

from typing import Any

from fastapi import APIRouter

from workbench.view.common.routing import Runs, json_route
from workbench.view.common.run_store import RunStore
from workbench.view.compare import comparison


def router(store: RunStore) -> APIRouter:
    """The page's routes over the runs of `store`."""
    api = APIRouter()

    @api.get("/compare")
    @json_route
    def compare(run: Runs) -> Any:
        return comparison.compare(store, run)

    @api.get("/compare/{prompt_id}")
    @json_route
    def compare_prompt(prompt_id: str, run: Runs, step: int | None = None) -> Any:
        return comparison.completions(store, run, prompt_id, step)

    return api
