"""One group, a reward's code, and ratings of completions."""

from typing import Annotated, Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from workbench.record import rating
from workbench.view.common.routing import Kind, Mode, Step, json_route, requested_step
from workbench.view.common.run_store import RunStore
from workbench.view.group.group_data import group_details
from workbench.view.group.reward_code import reward_code


class RatingBody(BaseModel):
    """A user's rating of completions of one group, by their index in it: good, bad or taken back; or their rank."""

    model_config = ConfigDict(extra="forbid")
    step: int = Field(ge=0)
    k: int = Field(ge=0)
    kind: Kind = "train"
    mode: Mode | None = None
    thumbs: dict[int, bool | None] = Field(default_factory=dict, max_length=1000)
    places: dict[int, Annotated[int, Field(ge=1, le=1000)] | None] = Field(
        default_factory=dict, max_length=1000
    )


def router(store: RunStore) -> APIRouter:
    """The page's routes over the runs of `store`."""
    api = APIRouter()

    @api.get("/runs/{run}/steps/{step}/groups/{k}")
    @json_route
    def group(
        run: str, step: Step, k: int, kind: Kind = "train", mode: Mode | None = None, tokens: bool = False
    ) -> Any:
        reader = store.reader(run)
        return group_details(reader, requested_step(reader, step, kind), k, kind, mode, tokens)

    @api.get("/runs/{run}/rewards/{name}")
    @json_route
    def code(run: str, name: str, step: int | None = None) -> Any:
        return reward_code(store.reader(run), name, step)

    @api.post("/runs/{run}/ratings")
    @json_route
    def rate(run: str, body: RatingBody) -> Any:
        at = (body.step, body.k, body.thumbs, body.places, body.kind, body.mode)
        rating.rate_group(store.reader(run), *at)
        return {"rated": len(body.thumbs) + len(body.places)}

    return api
