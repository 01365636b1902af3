"""Probes of a run's model: fresh completions of a prompt, branches at a token, and their replies."""

from typing import Any

from fastapi import APIRouter

from workbench.view.ask import probes
from workbench.view.common.routing import Kind, Mode, accepted, json_route
from workbench.view.common.run_store import RunStore


def router(store: RunStore) -> APIRouter:
    """The page's routes over the runs of `store`."""
    api = APIRouter()

    @api.get("/runs/{run}/ask/choices")
    @json_route
    def choices(run: str) -> Any:
        return probes.checkpoints(store.folder(run))

    @api.post("/runs/{run}/ask/sample")
    @json_route
    def sample(run: str, body: probes.SampleBody) -> Any:
        return accepted(probes.submit(store.folder(run), body))

    @api.post("/runs/{run}/ask/branch")
    @json_route
    def branch(run: str, body: probes.BranchBody) -> Any:
        return accepted(probes.submit(store.folder(run), body))

    @api.get("/runs/{run}/asked/{folder}/{id}")
    @json_route
    def reply(run: str, folder: str, id: str) -> Any:
        return probes.reply(store.folder(run), folder, id)

    @api.get("/runs/{run}/steps/{step}/groups/{k}/branches")
    @json_route
    def branches(run: str, step: int, k: int, kind: Kind = "train", mode: Mode | None = None) -> Any:
        return probes.saved_branches(store.folder(run), step, k, kind, mode)

    return api
