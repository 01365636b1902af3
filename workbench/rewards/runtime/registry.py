"""From the rewards of a config to sources that are saved with the run and ready for the pool.

In: `RewardSpec`s (catalogue names, `file.py:function`, functions declared in this process). Out:
`RewardSource`s, plain and picklable, each pointing at an exact copy of its code. Own code is loaded once in a
process of its own before anything is written, so a reward that cannot work is refused with its line, and
nothing is half made.
"""

import difflib
import hashlib
import tempfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from workbench.core.config import RewardSpec, RunConfig
from workbench.core.errors import RewardError
from workbench.prompts import TASKS
from workbench.rewards.api import signature, source
from workbench.rewards.api.decorator import registered
from workbench.rewards.api.signature import Shape
from workbench.rewards.api.source import SourceText
from workbench.rewards.builtin import catalogue
from workbench.rewards.runtime.process import RewardProcess
from workbench.rewards.runtime.runner import Description, RunFacts

DEFAULT_TIMEOUT = 10.0


@dataclass(frozen=True, slots=True)
class RewardSource:
    """One reward of a run: what it is called, which saved code it is, and how it counts."""

    name: str
    """The key of its values, unique within the run."""
    path: str
    """Absolute, `<sources_dir>/<first 16 of sha>.py`."""
    function: str
    weight: float
    enabled: bool
    options: Mapping[str, Any]
    sha: str
    file: str
    """The name of the code for people: `reward.py`."""
    ours: bool
    """From the catalogue."""
    shape: Shape

    def description(self) -> Description:
        """What its process needs to know."""
        return Description(
            name=self.name,
            path=self.path,
            function=self.function,
            file=self.file,
            ours=self.ours,
            options=dict(self.options),
        )

    def to_record(self) -> dict[str, Any]:
        """Plain JSON for config.json; the path is left out, since a run folder may move."""
        return {name: value for name, value in asdict(self).items() if name != "path"}

    @classmethod
    def of_record(cls, record: Mapping[str, Any], folder: Path) -> Self:
        """From `to_record()` and the folder of the sources. Raises RewardError for missing or changed code."""
        path = (folder / f"{record['sha'][:16]}.py").resolve()
        try:
            sha = hashlib.sha256(path.read_bytes()).hexdigest()
        except OSError:
            raise RewardError(
                f"The code of reward {record['name']} is missing: {path}. Restore it, or give a new one."
            ) from None
        if sha != record["sha"]:
            raise RewardError(
                f"The saved code of reward {record['name']} was changed: {path}. Restore it, or give "
                "a new one."
            )
        return cls(**{**record, "path": str(path), "shape": Shape.of_json(record["shape"])})


def resolve(
    specs: Sequence[RewardSpec], sources_dir: Path, columns: Collection[str] | None = None
) -> list[RewardSource]:
    """Find, check and save the rewards of a run.

    columns: of the data; None where they are not known yet, then a missing one shows with the first samples.
    Raises RewardError, with file, line and remedy for mistakes in own code; nothing is written then.
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
    names = unique_names(texts)
    return save_shaped(specs, texts, names, _shapes(specs, texts, names), sources_dir, columns)


def save_shaped(
    specs: Sequence[RewardSpec],
    texts: Sequence[SourceText],
    names: Sequence[str],
    shapes: Sequence[Shape],
    sources_dir: Path,
    columns: Collection[str] | None = None,
) -> list[RewardSource]:
    """`save_checked` for sources whose `unique_names` and shapes are known."""
    for spec, name, shape in zip(specs, names, shapes, strict=True):
        problem = signature.problem(shape, spec.options, columns)
        if problem:
            raise RewardError(f"Reward {name} cannot be used: {problem}")
    paths = source.save(texts, sources_dir)
    return [
        RewardSource(
            name=name, path=str(path), function=text.function, weight=spec.weight, enabled=spec.enabled,
            options=spec.options, sha=text.sha, file=text.file, ours=text.ours, shape=shape,
        )
        for spec, text, name, path, shape in zip(specs, texts, names, paths, shapes, strict=True)
    ]  # fmt: skip


def unique_names(texts: Sequence[SourceText]) -> list[str]:
    """Function names; with the file where two are the same; numbered where even that is the same."""
    functions = [text.function for text in texts]
    labels = [
        function if functions.count(function) == 1 else f"{function} ({text.file})"
        for function, text in zip(functions, texts, strict=True)
    ]
    return [
        label if labels.count(label) == 1 else f"{label} {labels[: place + 1].count(label)}"
        for place, label in enumerate(labels)
    ]


def _shapes(specs: Sequence[RewardSpec], texts: Sequence[SourceText], names: Sequence[str]) -> list[Shape]:
    """How each is called: catalogue rewards by looking, own code by loading it in a process of its own."""
    own = [place for place, text in enumerate(texts) if not text.ours]
    shapes: dict[int, Shape] = {
        place: signature.read_shape(catalogue.function_of(text.function))
        for place, text in enumerate(texts)
        if text.ours
    }
    if own:
        with tempfile.TemporaryDirectory(prefix="workbench-reward-") as folder:
            paths = source.save([texts[place] for place in own], Path(folder))
            descriptions = [
                Description(
                    name=names[place],
                    path=str(path),
                    function=texts[place].function,
                    file=texts[place].file,
                    ours=False,
                    options=dict(specs[place].options),
                )
                for place, path in zip(own, paths, strict=True)
            ]
            process = RewardProcess(descriptions, RunFacts(DEFAULT_TIMEOUT, prepare=False))
            try:
                for place, shape in zip(own, process.shapes(), strict=True):
                    shapes[place] = Shape.of_json(shape)
            finally:
                process.close()
    return [shapes[place] for place in range(len(texts))]


def with_verifier(config: RunConfig) -> list[RewardSpec]:
    """The run's rewards, and as a watched one the reward that decides right or wrong, where it is not among
    them."""
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
