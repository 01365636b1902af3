"""One reward, loaded from its saved source and called inside a reward process.

In: the path of the saved copy, the function's name, options. Out: for each call the values, the reason of
each None, and what the reward logged.
"""

import contextlib
import hashlib
import inspect
import sys
from collections.abc import Mapping
from typing import Any, NamedTuple, NotRequired, TypedDict

from workbench.rewards.api import dialects, outcome
from workbench.rewards.api.importing import LoadError, find, load, shape_of, why
from workbench.rewards.api.outcome import Origin
from workbench.rewards.api.reward_input import RewardInput
from workbench.rewards.api.signature import AskedTooMuch, Binder


class Answer(TypedDict):
    """What one call said: one value for one sample, or one for each of the group."""

    values: list[float | None]
    reasons: NotRequired[list[str]]
    logs: NotRequired[dict[str, list[Any]]]
    metrics: NotRequired[dict[str, list[float]]]
    printed: NotRequired[str]


class Description(TypedDict):
    """A reward as its process needs it; plain JSON."""

    name: str
    path: str
    function: str
    file: str
    ours: bool
    options: dict[str, Any]


class RunFacts(NamedTuple):
    """What rewards may know about the run."""

    timeout: float
    """Seconds for one call."""
    max_steps: int = 0
    prepare: bool = True
    """Whether modules get ready to score; a look at a reward's signature needs no model."""
    max_length: int | None = None
    """Tokens an answer may have; None = not known, for recorded samples and own cases."""


class Loaded:
    """A reward that is ready to be called."""

    def __init__(self, description: Description, facts: RunFacts) -> None:
        self.facts = facts
        self.name = description["name"]
        self.options = description["options"]
        who = f"The reward {self.name}" if description["ours"] else "Your reward"
        self.origin = Origin(who, description["file"], description["path"])
        self._module = load(description["path"], self.origin)
        self.function = find(self._module, description["function"], self.origin)
        self.shape = shape_of(self.function, description["function"], self.origin)
        if facts.prepare:
            self._prepare()
        with open(description["path"], "rb") as file:
            self.seeded = b"random" in file.read()
        """Whether its random numbers must be the same on every visit to a sample."""
        self._binder: Binder | None = None

    def call(self, group: RewardInput, index: int | None, step: int) -> Answer:
        """Score one sample, or the whole group where `index` is None. Never raises for what a reward does."""
        if self.seeded:
            _seed(f"{self.name}/{step}/{group['id']}/{index}")
        if self.shape.kind == "list":
            journal = Journal(len(group["completions"]))
            tools = {
                "trainer_state": dialects.TrainerState(step, self.facts.max_steps),
                "log_extra": journal.extra,
                "log_metric": journal.metric,
            }
            answer = self._of_group(Binder(self.shape, group, self.options, tools))
            return {**answer, **journal.kept()}  # type: ignore[typeddict-item]
        if self._binder is None or self._binder.group is not group:
            limit = self.facts.max_length
            given = {"step": step, "max_length": dialects.ABSENT if limit is None else limit}
            self._binder = Binder(self.shape, group, self.options, given)
        if self.shape.kind == "group":
            return self._of_group(self._binder)
        if index is not None:
            value = self._sample(self._binder, index)
            if (
                type(value) is float and -outcome.LIMIT <= value <= outcome.LIMIT
            ):  # the usual case, and the quick way
                return Answer(values=[value])
            return self._of_samples([value], [index])
        indices = list(range(len(group["completions"])))
        return self._of_samples(self._samples_at_once(self._binder, indices), indices)

    def _prepare(self) -> None:
        """Slow imports and models, before the clock of the first call runs. Raises LoadError."""
        hook = getattr(self._module, "prepare", None)
        if not callable(hook):
            return
        parameters = inspect.signature(hook).parameters
        given = {name: value for name, value in self.options.items() if name in parameters}
        if any(item.default is item.empty and name not in given for name, item in parameters.items()):
            return  # a function of the same name with other duties
        try:
            hook(**given)
        except BaseException as error:  # the reward boundary
            raise LoadError(why(error, self.origin)) from None

    def finish(self) -> None:
        """Let the module give back what its `prepare` took, where it has a `finish`."""
        hook = getattr(self._module, "finish", None)
        if callable(hook):
            with contextlib.suppress(Exception):  # the process ends anyway
                hook()

    def _sample(self, binder: Binder, index: int) -> Any:
        try:
            return self.function(**binder.arguments(index))
        except BaseException as error:  # the reward boundary: whatever it is, it is this sample's reason
            return _Failed(self._reason(error))

    def _samples_at_once(self, binder: Binder, indices: list[int]) -> list[Any]:
        import asyncio  # noqa: PLC0415 - costs 50 ms; only asynchronous rewards need it

        async def one(index: int) -> Any:
            try:
                return await asyncio.wait_for(self.function(**binder.arguments(index)), self.facts.timeout)
            except BaseException as error:  # the reward boundary
                return _Failed(self._reason(error))

        async def together() -> list[Any]:
            return list(await asyncio.gather(*(one(index) for index in indices)))

        return asyncio.run(together())

    def _of_samples(self, raw: list[Any], indices: list[int]) -> Answer:
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
                number, reason = outcome.one(value, index, self.origin, self.shape.line)
            values.append(number)
            reasons.append(reason)
        answer = Answer(values=values)
        if any(reasons):
            answer["reasons"] = reasons
        if logs:
            answer["logs"] = logs
        return answer

    def _of_group(self, binder: Binder) -> Answer:
        count = len(binder.group["completions"])
        try:
            arguments = binder.arguments()
            result = self._awaited(arguments) if self.shape.is_async else self.function(**arguments)
        except BaseException as error:  # the reward boundary: one call, so every sample has its reason
            return Answer(values=[None] * count, reasons=[self._reason(error)] * count)
        if isinstance(result, Mapping) and "rewards" in result:  # OpenRLHF
            result = result["rewards"]
        values, reasons = outcome.many(result, count, self.origin, self.shape.line)
        return Answer(values=values, reasons=reasons) if any(reasons) else Answer(values=values)

    def _awaited(self, arguments: dict[str, Any]) -> Any:
        import asyncio  # noqa: PLC0415 - costs 50 ms; only asynchronous rewards need it

        async def limited() -> Any:
            return await asyncio.wait_for(self.function(**arguments), self.facts.timeout)

        return asyncio.run(limited())

    def _reason(self, error: BaseException) -> str:
        if isinstance(error, AskedTooMuch):
            return f"{self.origin.who} cannot be called: {error}"
        if self.shape.is_async and isinstance(error, TimeoutError):
            return too_late(self.facts.timeout)
        return outcome.raised(error, self.origin)


class _Failed:
    def __init__(self, reason: str) -> None:
        self.reason = reason


def too_late(timeout: float) -> str:
    """The reason of a sample whose reward did not answer in time."""
    return f"No answer within {timeout:g} s."


class Journal:
    """What a reward records beside its values: TRL's `log_extra` and `log_metric`."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._logs: dict[str, list[Any]] = {}
        self._metrics: dict[str, list[float]] = {}

    def extra(self, column: str, values: list[Any]) -> None:
        """One value a completion."""
        if len(values) != self._count:
            raise ValueError(f"log_extra({column!r}) got {len(values)} values for {self._count} completions")
        self._logs[str(column)] = [storable(value) for value in values]

    def metric(self, name: str, value: float) -> None:
        """One number a call, averaged over the step."""
        number, _ = outcome.as_number(value)
        if number is not None:
            self._metrics.setdefault(str(name), []).append(number)

    def kept(self) -> dict[str, Any]:
        """The parts of an `Answer` that are not empty."""
        return {name: kept for name, kept in (("logs", self._logs), ("metrics", self._metrics)) if kept}


def storable(value: Any) -> Any:
    """A logged value as JSON can hold it."""
    if value is None or isinstance(value, bool | str):
        return outcome.shorten(value, 2000) if isinstance(value, str) else value
    number, problem = outcome.as_number(value)
    return number if not problem else outcome.shorten(str(value), 2000)


def _seed(text: str) -> None:
    """The same random numbers for the same sample, whichever process draws them and however often."""
    import random  # noqa: PLC0415 - only rewards that draw need it

    number = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "little")
    random.seed(number)
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        numpy.random.seed(number)
