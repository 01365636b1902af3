"""The theory page's check: what the last one found, and a new one."""

from typing import Any

from fastapi import APIRouter

from workbench.view.common.routing import accepted, json_route
from workbench.view.common.run_store import RunStore
from workbench.view.learn.theory import TheoryCheck


def router(store: RunStore) -> APIRouter:
    """The page's routes; the check's result lies below the root of `store`."""
    api = APIRouter()
    check = TheoryCheck(store.root)

    @api.get("/theory")
    @json_route
    def theory() -> Any:
        return check.status()

    @api.post("/theory")
    @json_route
    def start() -> Any:
        return accepted(check.start())

    return api
