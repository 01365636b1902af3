"""The JSON routes below /wb/api: those of every page in the table, and those that belong to none."""

from typing import Any

from fastapi import APIRouter

from workbench.view.common.glossary import glossary
from workbench.view.common.routing import json_route
from workbench.view.common.run_store import RunStore
from workbench.view.server.pages import PAGES


def router(store: RunStore) -> APIRouter:
    """All routes over the runs of `store`."""
    api = APIRouter()
    for page in PAGES:
        for routes in page.routes:
            api.include_router(routes(store))

    @api.get("/glossary")
    @json_route
    def definitions() -> Any:
        return glossary()

    return api
