"""Search over a run's recorded completions, and what was found as a file."""

from typing import Annotated, Any

from fastapi import APIRouter, Query
from fastapi.responses import StreamingResponse

from workbench.view.common.routing import json_route
from workbench.view.common.run_store import RunStore
from workbench.view.search.query import FileQuery, PageQuery, find, find_all, form_choices


def router(store: RunStore) -> APIRouter:
    """The page's routes over the runs of `store`."""
    api = APIRouter()

    @api.get("/runs/{run}/search")
    @json_route
    def search(run: str, query: Annotated[PageQuery, Query()]) -> Any:
        return find(store.reader(run), query)

    @api.get("/runs/{run}/search/choices")
    @json_route
    def choices(run: str) -> Any:
        return form_choices(store.reader(run))

    @api.get("/runs/{run}/search/file")
    @json_route
    def file(run: str, query: Annotated[FileQuery, Query()]) -> Any:
        reader = store.reader(run)
        query.filters()  # a query that cannot be run is refused now, not in the middle of a file
        headers = {"content-disposition": f'attachment; filename="{reader.folder.id}-samples.{query.format}"'}
        kind = "application/x-ndjson" if query.format == "jsonl" else "application/vnd.apache.parquet"
        return StreamingResponse(find_all(reader, query), media_type=kind, headers=headers)

    return api
