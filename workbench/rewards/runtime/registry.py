"""From the rewards of a config to sources that are saved with the run and ready for the pool.

In: `RewardSpec`s (catalogue names, `file.py:function`, functions declared in this process). Out: `RewardSource`s, plain and
picklable, each pointing at an exact copy of its code. A user's code is loaded once in a process of its own before anything is
written, so that a reward that cannot work is refused with its line, and nothing is half made.
"""

import difflib
import tempfile
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

from workbench.core.config import RewardSpec, RunConfig
from workbench.core.errors import RewardError
from workbench.prompts import TASKS
from workbench.rewards.api import signature, source
from workbench.rewards.api.code import RewardCode
from workbench.rewards.api.decorator import registered
from workbench.rewards.api.signature import Shape
from workbench.rewards.api.source import SourceText
from workbench.rewards.builtin import catalogue
from workbench.rewards.runtime.messages import RunFacts
from workbench.rewards.runtime.process import RewardProcess

DEFAULT_TIMEOUT = 10.0


@dataclass(frozen=True, slots=True)
class RewardSource(RewardCode):
    """One reward of a run: which saved code it is, how it is called, and how it counts."""

    weight: float
    enabled: bool
    shape: Shape

    def to_record(self) -> dict[str, Any]:
        """Plain JSON for config.json; the path is left out, since a run folder may move."""
        return {name: value for name, value in asdict(self).items() if name != "path"}

    @classmethod
    def of_record(cls, record: Mapping[str, Any], folder: Path) -> Self:
        """From `to_record()` and the folder of the sources. Raises RewardError for missing or changed code."""
        source.read_saved(folder, record["sha"], record["name"])
        path = str(source.saved_path(folder, record["sha"]))
        return cls(**{**record, "path": path, "shape": Shape.of_json(record["shape"])})


def resolve(
    specs: Sequence[RewardSpec], sources_dir: Path, columns: Collection[str] | None = None
) -> list[RewardSource]:
    """Find, check and save the rewards of a run.

    columns: of the data; None where they are not known yet, then a missing one shows with the first samples. Raises
    RewardError, with file, line and remedy for mistakes in the user's code; nothing is written then.
    """
    return save_checked(specs, [find(spec.name) for spec in specs], sources_dir, columns)


def find(name: str) -> SourceText:
    """The source behind a reward's name. Raises RewardError."""
    if name in registered:
        if name in catalogue.REWARDS:
            raise RewardError(f"Your reward {name} has the name of a catalogue reward. Give it another one.")
        return source.from_function(registered[name])
    if name in catalogue.REWARDS:
        return catalogue.source_of(name)
    if source.is_file(name):
        return source.from_file(name)
    known = [*registered, *catalogue.REWARDS]
    close = difflib.get_close_matches(name, known, n=1)
    hint = f" Did you mean {close[0]}?" if close else ""
    raise RewardError(
        f"Reward {name!r} is not known.{hint} There are: {', '.join(known)}; or write path/file.py:function."
    )


def save_checked(
    specs: Sequence[RewardSpec],
    texts: Sequence[SourceText],
    sources_dir: Path,
    columns: Collection[str] | None = None,
) -> list[RewardSource]:
    """`resolve` for sources that are already at hand; the names of the specs are not looked at."""
    with tempfile.TemporaryDirectory(prefix="workbench-reward-") as folder:
        codes = saved(specs, texts, Path(folder))
        sources = checked(specs, codes, _shapes(codes), columns)
    return [
        replace(one, path=str(path))
        for one, path in zip(sources, source.save(texts, sources_dir), strict=True)
    ]


def saved(specs: Sequence[RewardSpec], texts: Sequence[SourceText], folder: Path) -> list[RewardCode]:
    """The codes of these rewards, saved in a folder. Raises RewardError where it cannot be written."""
    return [
        RewardCode(
            name=name, path=str(path), function=text.function, file=text.file, ours=text.ours,
            options=spec.options, sha=text.sha,
        )
        for spec, text, name, path in zip(
            specs, texts, unique_names(texts), source.save(texts, folder), strict=True
        )
    ]  # fmt: skip


def checked(
    specs: Iterable[RewardSpec],
    codes: Iterable[RewardCode],
    shapes: Iterable[Shape],
    columns: Collection[str] | None = None,
) -> list[RewardSource]:
    """Saved codes with their shapes and weights. Raises RewardError for options and columns that do not fit."""
    found = []
    for spec, code, shape in zip(specs, codes, shapes, strict=True):
        problem = signature.problem(shape, spec.options, columns)
        if problem:
            raise RewardError(f"Reward {code.name} cannot be used: {problem}")
        found.append(
            RewardSource(
                name=code.name, path=code.path, function=code.function, file=code.file, ours=code.ours,
                options=code.options, sha=code.sha, weight=spec.weight, enabled=spec.enabled, shape=shape,
            )
        )  # fmt: skip
    return found


def unique_names(texts: Sequence[SourceText]) -> list[str]:
    """Function names; with the file where two are the same; numbered where even that is the same."""
    functions = [text.function for text in texts]
    names = [
        function if functions.count(function) == 1 else f"{function} ({text.file})"
        for function, text in zip(functions, texts, strict=True)
    ]
    return [
        name if names.count(name) == 1 else f"{name} {names[: place + 1].count(name)}"
        for place, name in enumerate(names)
    ]


def _shapes(codes: Sequence[RewardCode]) -> list[Shape]:
    """Of catalogue rewards by looking, of a user's code by loading it in a process of its own."""
    own = [code for code in codes if not code.ours]
    own_shapes: Iterable[Shape] = ()
    if own:
        process = RewardProcess(own, RunFacts(DEFAULT_TIMEOUT, prepare=False))
        try:
            own_shapes = process.shapes()
        finally:
            process.close()
    rest = iter(own_shapes)
    return [
        signature.read_shape(catalogue.function_of(code.function)) if code.ours else next(rest)
        for code in codes
    ]


def with_verifier(config: RunConfig) -> list[RewardSpec]:
    """The run's rewards and, disabled, the reward that decides right or wrong in evaluations, where it is not among them."""
    specs = list(config.rewards)
    known = {spec.name for spec in specs} | {spec.name.rpartition(":")[2] for spec in specs}
    task = TASKS.get(config.task)
    verifier = config.eval_reward or (
        task.rewards[0] if task and task.rewards[0] in catalogue.REWARDS else None
    )
    return (
        specs
        if verifier is None or verifier in known
        else [*specs, RewardSpec(name=verifier, weight=0.0, enabled=False)]
    )
