"""What the JSON routes of all pages share: plain data as a response, a user's mistake as JSON, the parameters that several routes take.

In: what a route returns or raises. Out: JSON, or `{"error": sentence, "problems": {setting: sentence}}` with the fitting status.
"""

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

from fastapi import Query
from fastapi.responses import JSONResponse, Response
from pydantic_core import to_json

from workbench.core.errors import ConfigError, RunError, WorkbenchError
from workbench.core.types import GroupKind
from workbench.record.reader import Reader

Kind = Literal["train", "eval"]
Mode = Literal["sampled", "greedy"]
Runs = Annotated[Sequence[str], Query(max_length=12)]
"""Ids, once for each run."""
Sets = Annotated[Sequence[str], Query(max_length=40)]
"""`name=value`, once for each setting."""
Step = Annotated[str, "a number or `latest`"]


class PlainJSON(JSONResponse):
    """Plain data as JSON; NaN and infinities become null. The first page of a long run is some megabytes of numbers, and pydantic
    writes them in a fifth of the standard library's time."""

    def render(self, content: Any) -> bytes:
        return to_json(content, inf_nan_mode="null")


def json_route(route: Callable[..., Any]) -> Callable[..., Any]:
    """Writes what the route returns as JSON, and an error that the user can mend with a fitting status. Any other exception is a bug
    and stays a server error."""

    @functools.wraps(route)
    def respond(*args: Any, **kwargs: Any) -> Any:
        try:
            found = route(*args, **kwargs)
            # Plain data already: FastAPI's own encoder would walk through megabytes of numbers once more.
            return found if isinstance(found, Response) else PlainJSON(found)
        except ConfigError as error:
            return problem(400, error)
        except RunError as error:
            changes = "body" in kwargs
            return problem(409 if changes else 404, error)
        except WorkbenchError as error:
            return problem(400, error)

    respond.__signature__ = inspect.signature(route)  # type: ignore[attr-defined]
    return respond


def accepted(content: Any) -> JSONResponse:
    """202: the command was passed on and is not carried out yet."""
    return JSONResponse(content, status_code=202)


def problem(status: int, error: WorkbenchError) -> JSONResponse:
    """The error's sentence, and one per setting where it names them."""
    return JSONResponse({"error": str(error), "problems": getattr(error, "problems", {})}, status_code=status)


def requested_step(reader: Reader, step: str, kind: GroupKind = "train") -> int:
    """The number of the step that a path names. Raises RunError for what is no step, and for `latest` before the first one."""
    if step == "latest":
        found = reader.last_step(kind)
        if found is None:
            raise RunError("Nothing is recorded yet: the first step is still under way.")
        return found
    if not (step.isascii() and step.isdigit() and len(step) < 12):
        raise RunError(f"step = {step[:40]!r}: give a step's number, or latest.")
    return int(step)
