"""Rewards that ask a server over HTTP, and what every reward that does so shares.

Requests run concurrently, are tried again when a server is busy, and the same content is sent only once. A server that cannot be
reached is a failure of the infrastructure, never a score. Keys come from the environment.
"""

import asyncio
import functools
import hashlib
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from workbench.core.errors import RewardError
from workbench.rewards.api.code import shorten
from workbench.rewards.api.decorator import reward
from workbench.rewards.api.outcome import Unavailable

_WAITS = (0.5, 1.0, 2.0, 4.0)
"""Seconds before each further try."""
_KEPT = 50_000
_CONCURRENT = 16


class ReplyCache:
    """Replies by content, the oldest dropped first."""

    def __init__(self, size: int = _KEPT) -> None:
        self._size = size
        self._replies: dict[str, Any] = {}

    def get(self, content: Any, fetch: Callable[[], Any]) -> Any:
        """The remembered reply, or that of `fetch`."""
        key = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
        if key not in self._replies:
            self._replies[key] = fetch()
            if len(self._replies) > self._size:
                del self._replies[next(iter(self._replies))]
        return self._replies[key]


reply_cache = ReplyCache()
_threads = ThreadPoolExecutor(_CONCURRENT, thread_name_prefix="ask")


@reward(
    title="HTTP API",
    range=(0.0, 1.0),
    alone=True,
    weakness="As good as the server; a slow one holds up every step, so raise reward_timeout with care.",
)
async def http_score(
    prompt: str,
    completion: str,
    answer: str | None,
    columns: Mapping[str, Any],
    *,
    url: str = "",
    key_env: str = "",
    tries: int = 3,
) -> float | None:
    """The number that a server replies to a POST of prompt, completion, `answer` and columns as JSON.

    It replies with a number, or with `{"score": number}`; null means that it does not apply: None. `key_env`
    names an environment variable whose content is sent as bearer token.
    """
    if not url:
        raise RewardError("This reward needs the option `url`, where it sends its requests.")
    question = {"prompt": prompt, "completion": completion, "answer": answer, "columns": dict(columns)}
    post = functools.partial(_post, url, question, secret(key_env), tries)
    reply = await in_thread(reply_cache.get, [url, question], post)
    value = reply["score"] if isinstance(reply, dict) and "score" in reply else reply
    if value is None or (isinstance(value, int | float) and not isinstance(value, bool)):
        return value
    raise ValueError(
        f'the server answered {shorten(json.dumps(reply), 80)}, not a number or {{"score": number}}'
    )


async def in_thread(function: Callable[..., Any], *given: Any) -> Any:
    """Run in one of this module's threads: when it ends, the event loop would wait for a late call in a thread of its own."""
    return await asyncio.get_running_loop().run_in_executor(_threads, functools.partial(function, *given))


def secret(name: str) -> str:
    """What an environment variable holds; '' where it is not set or none is named."""
    return os.environ.get(name, "") if name else ""


def _post(url: str, question: Any, key: str, tries: int) -> Any:
    """POST and read JSON; tried again while the server is away or busy. Raises Unavailable, ValueError."""
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
    if not url.startswith(("http://", "https://")):
        raise RewardError(f"url is {url!r}: write http://... or https://...")
    request = urllib.request.Request(url, json.dumps(question).encode(), headers)
    for attempt in range(max(1, tries)):
        try:
            with urllib.request.urlopen(request, timeout=60) as reply:
                return json.loads(reply.read())
        except urllib.error.HTTPError as error:
            if error.code < 500 and error.code != 429:
                raise ValueError(f"the server refused the question: {error.code} {error.reason}") from None
            failure = f"{error.code} {error.reason}"
        except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
            failure = str(getattr(error, "reason", error))
        if attempt + 1 < tries:
            time.sleep(_WAITS[min(attempt, len(_WAITS) - 1)])
    raise Unavailable(f"{url} did not answer after {tries} tries: {failure}")
