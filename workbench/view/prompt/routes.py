"""One prompt over time."""

from typing import Any

from fastapi import APIRouter

from workbench.view.common.routing import json_route
from workbench.view.common.run_store import RunStore
from workbench.view.prompt.prompt_data import prompt_history


def router(store: RunStore) -> APIRouter:
    """The page's routes over the runs of `store`."""
    api = APIRouter()

    @api.get("/runs/{run}/prompts/{prompt_id}")
    @json_route
    def prompt(run: str, prompt_id: str) -> Any:
        return prompt_history(store.reader(run), prompt_id)

    return api
