"""One reward, loaded from its saved copy and called inside a reward process.

In: which code it is, then groups. Out: one `CallResult` a call.
"""

import contextlib
import hashlib
import inspect
import linecache
import random
import sys
from collections.abc import Mapping
from typing import Any, NamedTuple

from workbench.rewards.api import dialects, outcome
from workbench.rewards.api.code import RewardCode, shorten
from workbench.rewards.api.importing import LoadError, find, load, why
from workbench.rewards.api.reward_input import RewardInput
from workbench.rewards.api.signature import Binder, MissingArgument, OfIndex, read_shape
from workbench.rewards.runtime.messages import CallResult, RunFacts


class Runner:
    """A reward that is ready to be called."""

    def __init__(self, code: RewardCode, facts: RunFacts) -> None:
        """Raises LoadError."""
        self.code = code
        self._facts = facts
        self._module = load(code)
        self._function = find(self._module, code)
        try:
            self.shape = read_shape(self._function, "".join(linecache.getlines(code.path)))
        except (TypeError, ValueError) as error:
            raise LoadError(f"{code.function} of {code.file} {error}") from None
        if facts.prepare:
            self._prepare()
        self._binder: Binder | None = None
        self._journal = Journal(0)

    def call(self, group: RewardInput, index: int | None, step: int) -> CallResult:
        """Score one sample, or the whole group where `index` is None. Never raises for what a reward does."""
        if self.shape.random:
            seed = sample_seed(self.code.name, step, group["id"], index)
            random.seed(seed)
            if (numpy := sys.modules.get("numpy")) is not None:
                numpy.random.seed(seed)
        if self._binder is None or self._binder.group is not group:
            self._binder = Binder(self.shape, group, self.code.options, self._of_run(group, step))
        if self.shape.kind == "list":
            return self._of_list(self._binder)
        if self.shape.kind == "group":
            return self._of_group(self._binder)
        if index is None:
            indices = list(range(len(group["completions"])))
            return self._of_samples(self._samples_at_once(self._binder, indices), indices)
        value = self._sample(self._binder, index)
        if type(value) is float and -outcome.LIMIT <= value <= outcome.LIMIT:  # the usual case, quickly
            return CallResult([value])
        return self._of_samples([value], [index])

    def finish(self) -> None:
        """Call the module's `finish`, where it has one: it gives back what its `prepare` took."""
        hook = getattr(self._module, "finish", None)
        if callable(hook):
            with contextlib.suppress(Exception):  # the process ends anyway
                hook()

    def _prepare(self) -> None:
        """Call the module's `prepare` (slow imports, models) before the first call is timed. Raises LoadError."""
        hook = getattr(self._module, "prepare", None)
        if not callable(hook):
            return
        parameters = inspect.signature(hook).parameters
        given = {name: value for name, value in self.code.options.items() if name in parameters}
        if any(item.default is item.empty and name not in given for name, item in parameters.items()):
            return  # a function of the same name with another purpose
        try:
            hook(**given)
        except BaseException as error:  # the reward boundary
            raise LoadError(why(error, self.code)) from None

    def _of_run(self, group: RewardInput, step: int) -> dict[str, OfIndex]:
        """The arguments that belong to the run, for a `Binder`."""

        def rng(index: int | None) -> random.Random:
            return random.Random(sample_seed(self.code.name, step, group["id"], index))

        if self.shape.kind == "list":
            return {
                "trainer_state": lambda _: dialects.TrainerState(step, self._facts.max_steps),
                "log_extra": lambda _: self._journal.extra,
                "log_metric": lambda _: self._journal.metric,
                "rng": rng,
            }
        limit = self._facts.max_length
        return {
            "step": lambda _: step,
            "max_length": lambda _: dialects.ABSENT if limit is None else limit,
            "rng": rng,
        }

    def _of_list(self, binder: Binder) -> CallResult:
        self._journal = Journal(binder.count)
        result = self._of_group(binder)
        return result._replace(logs=self._journal.logs, metrics=self._journal.metrics)

    def _sample(self, binder: Binder, index: int) -> Any:
        try:
            return self._function(**binder.arguments(index))
        except BaseException as error:  # the reward boundary: it costs this sample only
            return _Failed(self._reason(error))

    def _samples_at_once(self, binder: Binder, indices: list[int]) -> list[Any]:
        import asyncio  # noqa: PLC0415 - costs 50 ms; only asynchronous rewards need it

        async def one(index: int) -> Any:
            try:
                return await asyncio.wait_for(self._function(**binder.arguments(index)), self._facts.timeout)
            except BaseException as error:  # the reward boundary
                return _Failed(self._reason(error))

        async def together() -> list[Any]:
            return list(await asyncio.gather(*(one(index) for index in indices)))

        return asyncio.run(together())

    def _of_samples(self, raw: list[Any], indices: list[int]) -> CallResult:
        values: list[float | None] = []
        reasons: list[str] = []
        logs: dict[str, list[Any]] = {}
        for place, (value, index) in enumerate(zip(raw, indices, strict=True)):
            if isinstance(value, _Failed):
                number, reason = None, value.reason
            else:
                if isinstance(value, dict) and "score" in value:  # verl: the score and what else to record
                    for name, item in value.items():
                        if name != "score":
                            logs.setdefault(str(name), [None] * len(raw))[place] = storable(item)
                    value = value["score"]
                number, reason = outcome.one(value, index, self.code, self.shape.line)
            values.append(number)
            reasons.append(reason)
        return CallResult(values, reasons if any(reasons) else (), logs)

    def _of_group(self, binder: Binder) -> CallResult:
        try:
            arguments = binder.arguments()
            result = self._awaited(arguments) if self.shape.is_async else self._function(**arguments)
        except BaseException as error:  # the reward boundary: one call, so every sample has its reason
            return CallResult([None] * binder.count, [self._reason(error)] * binder.count)
        if isinstance(result, Mapping) and "rewards" in result:  # OpenRLHF
            result = result["rewards"]
        values, reasons = outcome.many(result, binder.count, self.code, self.shape.line)
        return CallResult(values, reasons if any(reasons) else ())

    def _awaited(self, arguments: dict[str, Any]) -> Any:
        import asyncio  # noqa: PLC0415 - costs 50 ms; only asynchronous rewards need it

        async def limited() -> Any:
            return await asyncio.wait_for(self._function(**arguments), self._facts.timeout)

        return asyncio.run(limited())

    def _reason(self, error: BaseException) -> str:
        if isinstance(error, MissingArgument):
            return f"{self.code.subject} cannot be called: {error}"
        if self.shape.is_async and isinstance(error, TimeoutError):
            return timed_out(self._facts.timeout)
        return outcome.raised(error, self.code)


class _Failed(NamedTuple):
    """In place of a value: why there is none."""

    reason: str


class Journal:
    """What a reward records beside its values: TRL's `log_extra` and `log_metric`."""

    def __init__(self, count: int) -> None:
        self._count = count
        self.logs: dict[str, list[Any]] = {}
        self.metrics: dict[str, list[float]] = {}

    def extra(self, column: str, values: list[Any]) -> None:
        """One value a completion."""
        if len(values) != self._count:
            raise ValueError(f"log_extra({column!r}) got {len(values)} values for {self._count} completions")
        self.logs[str(column)] = [storable(value) for value in values]

    def metric(self, name: str, value: float) -> None:
        """One number a call, averaged over the step."""
        number, _ = outcome.as_number(value)
        if number is not None:
            self.metrics.setdefault(str(name), []).append(number)


def timed_out(timeout: float) -> str:
    """The reason of a sample whose reward did not return in time."""
    return f"No answer within {timeout:g} s."


def storable(value: Any) -> Any:
    """A logged value as JSON can hold it."""
    if value is None or isinstance(value, bool | str):
        return shorten(value, 2000) if isinstance(value, str) else value
    number, problem = outcome.as_number(value)
    return number if not problem else shorten(str(value), 2000)


def sample_seed(name: str, step: int, group_id: str, index: int | None) -> int:
    """The same random numbers for the same sample, whichever process draws them and however often: 32 bits of a hash."""
    text = f"{name}/{step}/{group_id}/{index}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "little")
