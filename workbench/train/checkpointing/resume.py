"""Where a run begins: at its start, or after its newest intact checkpoint, once everything else it needs is proved unchanged.

In: a run folder, the loaded policy and its prompts. Out: the step to go on from, the settings there, and what to replay. A run that
could not go on exactly is refused with the name of what is missing or changed, unless a warm start was asked for.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from workbench.core import estimate
from workbench.core.config import RunConfig
from workbench.core.errors import RunError
from workbench.core.types import Prompt
from workbench.models.policy import Policy
from workbench.record import checkpoints
from workbench.record.checkpoints import Checkpoint
from workbench.record.files import sha256
from workbench.record.folder import RunFolder
from workbench.record.provenance import versions
from workbench.record.reader import Reader
from workbench.train.checkpointing import checkpoint
from workbench.train.checkpointing.fingerprint import digests
from workbench.train.checkpointing.replay import Replay
from workbench.train.update import Updater

EXACT = ("torch", "transformers", "numpy")
"""Libraries whose version may change the last digits of a number."""
MODEL_FILES = (
    "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "tokenizer.model", "vocab.json", "vocab.txt", "merges.txt",
)  # fmt: skip
"""Beside its weights and templates: what decides how a model reads, computes and ends."""


class Needs(NamedTuple):
    """What a run needs beside its checkpoints to go on exactly: each thing's name for people, with a hash of its content."""

    run: dict[str, str]
    """Settings and prompts: a fork has its own."""
    model: dict[str, str]
    """The base model, whose weights a checkpoint of an adapter is nothing without; a fork has its parent's."""


class Beginning(NamedTuple):
    """Where a run stands when its loop begins."""

    step: int
    """Finished steps."""
    config: RunConfig
    replay: Replay
    notes: list[str]
    """What is not as it was, for the record."""


def begin(
    folder: RunFolder,
    config: RunConfig,
    policy: Policy,
    updater: Updater,
    needs: Needs,
    *,
    warm_start: bool = False,
) -> Beginning:
    """Load the newest whole checkpoint, if there is any, into `policy` and `updater`.

    `needs`: what `needs_of` says of the run now. `warm_start`: go on although something is missing or was changed. Raises RunError.
    """
    found, damaged = checkpoints.newest(folder)
    notes = [f"Checkpoint {torn.path.name} was passed over: {torn.problem}" for torn in damaged]
    if found is None and damaged:
        if not warm_start:
            raise RunError(
                f"No checkpoint of run {folder.id} is whole. Newest: {damaged[0].path.name}: {damaged[0].problem} Put the file back, "
                "or go on without it by a warm start (workbench resume RUN --warm-start)."
            )
        found = _model_of(damaged)
    found, gap = _with_whole_record(folder, found)
    notes += [gap] if gap else []
    step = 0
    if found is not None:
        changed = _changed(found, needs)
        if changed and not warm_start:
            raise RunError(
                f"Run {folder.id} cannot go on exactly: {'; '.join(changed)}. Put it back as it was, or accept the difference by a warm "
                "start (workbench resume RUN --warm-start)."
            )
        step, saved, missing = checkpoint.restore(found, policy, updater, config if warm_start else None)
        if not any(change.startswith("config.json ") for change in changed):
            config = saved
        if checkpoints.NEEDS not in _manifest(found).get("meta", {}):
            notes.append(
                "An earlier version wrote the checkpoint: that settings, prompts and base model are the same is not proved"
            )
        notes += changed + [f"{name} was missing" for name in missing] + _other_versions(found)
    return Beginning(step, config, Replay(folder, step), notes)


def _with_whole_record(folder: RunFolder, found: Path | None) -> tuple[Path | None, str]:
    """The newest checkpoint before which no step is missing from the record, and what was missing: after a power cut the record may
    end earlier than the checkpoint. Its steps are then computed again; where no earlier checkpoint is there, from the start."""
    if found is None:
        return None, ""
    step, start = int(found.name.rpartition("-")[2]), int((folder.about().get("parent") or {}).get("step", 0))
    there = set(Reader(folder).steps("train"))
    missing = [number for number in range(start, step) if number not in there]
    if not missing:
        return found, ""
    lost = f"The record lacks steps {missing[0]} to {missing[-1]}, which lie before checkpoint {found.name}"
    earlier, _ = checkpoints.newest(folder, up_to=missing[0])
    if earlier is None and start:
        return found, f"{lost}; there is no earlier checkpoint, so they stay missing"
    return earlier, f"{lost}; they are computed again from {earlier.name if earlier else 'the base model'} on"


def needs_of(folder: RunFolder, config: RunConfig, prompts: Sequence[Prompt]) -> Needs:
    """What a run needs now. (Rewards lie in the run folder under their own hash.)"""
    facts = estimate.facts(config.model)
    files = [] if facts is None else [path for path in sorted(facts.folder.iterdir()) if _is_of_model(path)]
    return Needs(
        {
            "config.json": sha256(folder.config_path),
            f"the prompts of {config.data or config.task}": _prompts_hash(prompts),
        },
        {
            f"{path.name} of the base model {config.model}": digest
            for path, digest in digests(files, folder.root).items()
        },
    )


def _prompts_hash(prompts: Sequence[Prompt]) -> str:
    """Everything of the prompts that models and rewards see."""
    digest = hashlib.sha256()
    for prompt in prompts:
        seen = [prompt.id, prompt.question, prompt.token_ids, dict(prompt.columns)]
        digest.update(json.dumps(seen, sort_keys=True, default=repr).encode())
    return digest.hexdigest()


def _is_of_model(path: Path) -> bool:
    return path.is_file() and (path.suffix in (".safetensors", ".jinja") or path.name in MODEL_FILES)


def _changed(found: Path, needs: Needs) -> list[str]:
    """For each thing that is not what it was when the checkpoint was written, what happened to it."""
    before: Mapping[str, Mapping[str, str]] = _manifest(found).get("meta", {}).get(checkpoints.NEEDS, {})
    return [
        f"{name} {'is missing' if name not in now else 'changed after the checkpoint was written'}"
        for kind, now in needs._asdict().items()
        for name, content in before.get(kind, {}).items()
        if now.get(name) != content
    ]


def _other_versions(found: Path) -> list[str]:
    before, now = _manifest(found).get("versions", {}), versions()
    return [
        f"{name} {before[name]} -> {now.get(name)}: the last digits may differ"
        for name in EXACT
        if before.get(name) and before[name] != now.get(name)
    ]


def _manifest(found: Path) -> dict[str, Any]:
    try:
        manifest = json.loads((found / checkpoints.MANIFEST).read_bytes())
    except (OSError, ValueError):
        return {}  # only a warm start comes here
    return manifest if isinstance(manifest, dict) else {}


def _model_of(damaged: Sequence[Checkpoint]) -> Path | None:
    """The newest damaged checkpoint whose weights at least are what they were; None: from the base model on."""
    for torn in damaged:
        files = _manifest(torn.path).get("files", {})
        weights = [
            name
            for name in files
            if name.startswith(("model", "adapter_model")) and name.endswith(".safetensors")
        ]
        if weights and all(not checkpoints.problem_of(torn.path, name, files[name]) for name in weights):
            return torn.path
    return None
