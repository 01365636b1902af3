"""Samples that a reward is tried on: recorded groups of a run, new samples of a base model, or the user's test cases.

In: the page's choice. Out: `TrialSamples`: groups as the reward pool takes them, with recorded rewards, correctness and ratings.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from workbench.algorithm import advantages
from workbench.core import estimate
from workbench.core.config import RunConfig
from workbench.core.errors import RunError
from workbench.core.variants import Scale
from workbench.diagnose import rescoring
from workbench.record import folder as record
from workbench.record import notes
from workbench.record.files import make_folder, write_json
from workbench.record.folder import RunFolder
from workbench.rewards.api.reward_input import Ratings, RewardInput
from workbench.rewards.builtin.text import final_answer
from workbench.view.common import temporary_probe
from workbench.view.common.run_store import RunStore
from workbench.view.lab.drafts import Case, Drafts

MAX_SAMPLES = 10_000
"""Samples of one trial, about."""
_MAX_HASHED_BYTES = 256 * 2**20
_RUNS_WITH_RATINGS = 20
"""Newest runs whose ratings count for samples that belong to no run."""
Json = dict[str, Any]


class Recorded(BaseModel):
    """Samples of a run's newest steps."""

    model_config = ConfigDict(extra="forbid")
    kind: Literal["run"]
    run: str
    last: int = Field(5, ge=1, le=100_000)


class Fresh(BaseModel):
    """New samples of a base model, for the prompts of a run's first step."""

    model_config = ConfigDict(extra="forbid")
    kind: Literal["base"]
    of: str = "preset:embedded"
    """`preset:NAME` or `run:ID`: whose model, prompts and sampling."""
    prompts: int = Field(16, ge=1, le=64)
    n: int = Field(12, ge=2, le=64)


class Cases(BaseModel):
    """The user's test cases."""

    model_config = ConfigDict(extra="forbid")
    kind: Literal["cases"]


Choice = Annotated[Recorded | Fresh | Cases, Field(discriminator="kind")]


@dataclass
class TrialSamples:
    """B samples in flat order, group after group, and what is known about each."""

    key: str
    """Equal samples have equal keys."""
    title: str
    groups: list[RewardInput]
    config: RunConfig
    reward_B: NDArray[np.float64] | None = None
    """(B,) as recorded; None where they were never scored."""
    advantage_B: NDArray[np.float64] | None = None
    """(B,) as recorded."""
    right_B: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    """(B,) 1 right, 0 wrong, NaN unknown."""
    steps: list[int | None] = field(default_factory=list)
    """Step of each group; None for samples of no run."""
    rating_B: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    """(B,) ratings: 1 good, 0 bad, between by rank; NaN not rated."""
    tokens: Callable[[], list[list[list[int]] | None]] | None = None
    """Reads each group's token ids, which few rewards use and which are most of the bytes."""

    @property
    def sizes(self) -> list[int]:
        """Samples in each group."""
        return [len(group["completions"]) for group in self.groups]

    @property
    def group_ids_B(self) -> NDArray[np.int64]:
        """(B,) group of each sample."""
        return np.repeat(np.arange(len(self.groups)), self.sizes)

    @property
    def columns(self) -> set[str]:
        """Names of the data's columns beside prompt and reference answer."""
        return {name for group in self.groups for name in group["columns"]}

    def with_tokens(self) -> list[RewardInput]:
        """The groups, token ids included where they are recorded."""
        if self.tokens is None:
            return self.groups
        return [
            RewardInput(**{**group, "tokens": ids})
            for group, ids in zip(self.groups, self.tokens(), strict=True)
        ]

    def advantages(
        self, rewards_B_F: NDArray[np.float64], weights_F: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """(B,) advantages of these rewards under the run's settings, computed step by step as the run does."""
        config, ids_B, arguments = self.config, self.group_ids_B, self.advantage_arguments()
        cut_B = np.array([reason == "length" for group in self.groups for reason in group["finish_reasons"]])
        found_B = np.zeros(len(ids_B))
        step_B = np.repeat([-1 if step is None else step for step in self.steps], self.sizes)
        for step in dict.fromkeys(step_B.tolist()):
            rows = np.flatnonzero(step_B == step)
            found_B[rows] = advantages.from_rewards(
                rewards_B_F[rows],
                weights_F,
                ids_B[rows],
                aggregation=config.multi_objective_aggregation,
                excluded_B=cut_B[rows] if config.mask_truncated_completions else None,
                **arguments,
            ).advantages_B
        return found_B

    def advantage_arguments(self) -> Json:
        """Arguments of `advantages.compute` under the run's settings."""
        scale: Scale = self.config.scale_rewards
        return {
            "scale": scale,
            "std": self.config.advantage_std,
            "eps": self.config.advantage_eps,
            "baseline": self.config.advantage_baseline,
        }


def load(store: RunStore, drafts: Drafts, choice: Choice) -> Iterator[str | TrialSamples]:
    """Progress messages while it takes time, and finally the samples. Raises RunError and ConfigError."""
    if isinstance(choice, Cases):
        yield of_cases(drafts.cases())
    elif isinstance(choice, Recorded):
        yield of_run(store, choice)
    else:
        yield from fresh(store, drafts, choice)


def state_of(store: RunStore, choice: Recorded) -> str:
    """A text that changes whenever the run records something or one of its samples is rated. Raises RunError."""
    folder = store.folder(choice.run)
    found = []
    for path in (folder.db_path, folder.notes_path):
        for file in (path, path.with_name(path.name + "-wal")):
            about = file.stat() if file.exists() else None
            found.append(f"{about.st_mtime_ns}/{about.st_size}" if about else "")
    return " ".join(found)


def of_run(store: RunStore, choice: Recorded) -> TrialSamples:
    """Recorded groups. Raises RunError."""
    reader = store.reader(choice.run)
    steps = reader.steps()[-choice.last :]
    if not steps:
        raise RunError("Nothing is recorded yet: the first step is still running.")
    ratings = _ratings([reader.folder])
    rows: list[Json] = []
    for step in reversed(steps):  # newest first, so that the limit drops old ones
        rows = [*reader.completions(step, step), *rows]
        if sum(len(row["texts"]) for row in rows) >= MAX_SAMPLES:
            break
    groups = [rescoring.as_reward_input(row, ratings) for row in rows]
    name = reader.config.run_name or reader.folder.id
    first = rows[0]["step"]
    return TrialSamples(
        key=f"run/{reader.folder.id}/{first}-{steps[-1]}/{rows[-1]['ids'][-1]}",
        title=f"{f'step {first}' if first == steps[-1] else f'steps {first} to {steps[-1]}'} of {name}",
        groups=groups,
        config=reader.config,
        reward_B=_floats(value for row in rows for value in row["rewards"]),
        advantage_B=_floats(value for row in rows for value in row["advantages"]),
        right_B=_floats(value for row in rows for value in row["rights"]),
        steps=[row["step"] for row in rows],
        rating_B=_rating_values(groups),
        tokens=lambda: [row["tokens"] for row in reader.completions(first, steps[-1], tokens=True)],
    )


def of_cases(cases: Sequence[Case]) -> TrialSamples:
    """Test cases; those with the same prompt and reference answer form a group. Raises RunError where there is none."""
    rows = [case for case in cases if case.prompt or case.answer or case.completion]
    if not rows:
        raise RunError(
            "There are no cases yet. Type a prompt, its reference answer and a completion, or add a sample with n."
        )
    by_prompt: dict[tuple[str, str], list[str]] = {}
    for case in rows:
        by_prompt.setdefault((case.prompt, case.answer), []).append(case.completion)
    found: list[Json] = [
        {"prompt_id": str(i), "question": prompt, "text": prompt, "answer": answer or None, "columns": {}}
        for i, (prompt, answer) in enumerate(by_prompt)
    ]
    groups = [
        _group(row, [{"text": text, "length": len(text.split()), "finish_reason": "stop"} for text in texts])
        for row, texts in zip(found, by_prompt.values(), strict=True)
    ]
    content = json.dumps([case.model_dump() for case in rows])
    return TrialSamples(
        key=f"cases/{hashlib.sha256(content.encode()).hexdigest()}",
        title=f"{len(rows)} {'case' if len(rows) == 1 else 'cases'} of yours",
        groups=groups,
        config=RunConfig.build(None),
        right_B=_is_right(groups),
        steps=[None] * len(groups),
        rating_B=_rating_values(groups),
    )


def fresh(store: RunStore, drafts: Drafts, choice: Fresh) -> Iterator[str | TrialSamples]:
    """Samples that a probe worker draws now, or that it drew before from the same weights with the same settings."""
    config, path = _cache_path(store, drafts, choice)
    rows = _cached(path)
    if rows is None:
        yield "Starting a worker…"
        for progress in temporary_probe.run(
            config, store.root, "fresh", often=True, prompts=choice.prompts, n=choice.n
        ):
            if progress.failed:
                raise RunError(progress.words)
            if progress.result is not None:
                rows = progress.result["groups"]
            else:
                yield progress.words
        if rows is None:
            raise RunError("The worker ended without a result. Try again.")
        make_folder(path.parent)
        write_json(path, {"groups": rows})
    ratings = _ratings(record.folders(store.root)[:_RUNS_WITH_RATINGS])
    groups = [_group(row, row["samples"], ratings) for row in rows]
    tokens = [[sample["tokens"] for sample in row["samples"]] for row in rows]
    name = "the embedded model" if config.model == "embedded" else Path(config.model).name
    yield TrialSamples(
        key=f"base/{path.stem}",
        title=f"{sum(len(group['completions']) for group in groups)} samples of {name}",
        groups=groups,
        config=config,
        right_B=_is_right(groups),
        steps=[None] * len(groups),
        rating_B=_rating_values(groups),
        tokens=lambda: list(tokens),
    )


def is_cached(store: RunStore, drafts: Drafts, choice: Fresh) -> bool:
    """Whether these samples are on disk already. Raises RunError, ConfigError."""
    return _cached(_cache_path(store, drafts, choice)[1]) is not None


def _cache_path(store: RunStore, drafts: Drafts, choice: Fresh) -> tuple[RunConfig, Path]:
    config = config_of(store, choice.of).changed(
        num_generations=choice.n, prompts_per_step=choice.prompts, use_peft=False, beta=0.0
    )
    return config, drafts.folder / "base" / f"{_key(config)}.json"


def config_of(store: RunStore, of: str) -> RunConfig:
    """The settings behind `preset:NAME` or `run:ID`. Raises RunError, ConfigError."""
    kind, _, name = of.partition(":")
    if kind == "run":
        return store.folder(name).config()
    if kind == "preset":
        return RunConfig.build(name)
    raise RunError(f"{of[:80]!r} names no model. Give preset:NAME or run:ID.")


def _key(config: RunConfig) -> str:
    """Hash of the model and the sampling settings: everything that samples depend on."""
    relevant = {
        name: getattr(config, name)
        for name in (
            "task", "data", "data_split", "prompt_column", "answer_column", "heldout", "min_level", "max_level", "template", "seed",
            "temperature", "top_p", "top_k", "min_p", "max_completion_length", "num_generations", "prompts_per_step", "dtype", "model",
        )
    }  # fmt: skip
    data = Path(config.data) if config.data else None
    when = data.stat().st_mtime_ns if data is not None and data.exists() else 0
    text = json.dumps([relevant, when, fingerprint(config.model)], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def fingerprint(model: str) -> str:
    """Hash of the weights on this machine: of their bytes, or of names, sizes and times where they are large. '' where they are not here yet."""
    facts = estimate.facts(model)
    if facts is None:
        return ""
    files = sorted(facts.folder.glob("*.safetensors"))
    digest = hashlib.sha256()
    small = sum(file.stat().st_size for file in files) <= _MAX_HASHED_BYTES
    for file in files:
        about = file.stat()
        digest.update(
            file.read_bytes() if small else f"{file.name}/{about.st_size}/{about.st_mtime_ns}".encode()
        )
    return digest.hexdigest()


def _cached(path: Path) -> list[Json] | None:
    try:
        rows = json.loads(path.read_bytes())["groups"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return list(rows)


def _group(row: Json, samples: Sequence[Json], ratings: Ratings | None = None) -> RewardInput:
    known = ratings or {}
    return RewardInput(
        id=str(row["prompt_id"]),
        prompt=str(row["question"] or ""),
        rendered=str(row["text"] or ""),
        answer=row["answer"],
        columns=row["columns"],
        completions=[str(sample["text"] or "") for sample in samples],
        tokens=None,
        lengths=[sample["length"] for sample in samples],
        finish_reasons=[str(sample["finish_reason"]) for sample in samples],
        ratings=[known.get((str(row["prompt_id"]), sample["text"])) for sample in samples],
    )


def _is_right(groups: Sequence[RewardInput]) -> NDArray[np.float64]:
    """(B,) whether a sample's final answer is the reference answer; NaN where there is none."""
    return _floats(
        None if group["answer"] is None else float(final_answer(text).strip() == group["answer"].strip())
        for group in groups
        for text in group["completions"]
    )


def _ratings(folders: Iterable[RunFolder]) -> Ratings:
    """Ratings of samples by prompt id and text, from all these runs."""
    found: dict[tuple[str, str], float] = {}
    for folder in folders:
        if folder.notes_path.exists():
            found |= notes.values(notes.Notes(folder).ratings())
    return found


def _rating_values(groups: Sequence[RewardInput]) -> NDArray[np.float64]:
    return _floats(value for group in groups for value in group["ratings"])


def _floats(values: Iterable[float | bool | None]) -> NDArray[np.float64]:
    return np.array([np.nan if value is None else float(value) for value in values], dtype=np.float64)
