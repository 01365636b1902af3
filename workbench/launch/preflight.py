"""Everything that can be found wrong before a run folder exists, without torch: settings against model, machine, data,
rewards and disk.

In: a valid RunConfig. Out: a sentence per field, or a started run. Command line, New run form and notebook
all start runs here.
"""

import os
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tokenizers import Tokenizer

from workbench import launch
from workbench.core import estimate
from workbench.core.config import RunConfig
from workbench.core.errors import ConfigError, DataError, ModelError, RewardError, RunError
from workbench.core.estimate import ModelFacts
from workbench.launch import lease, model_files
from workbench.prompts import task_of
from workbench.prompts.data import ROW
from workbench.prompts.task import Split
from workbench.record.folder import Kind, RunFolder
from workbench.rewards import versions
from workbench.rewards.api.outcome import INFRASTRUCTURE, is_failure
from workbench.rewards.runtime import registry
from workbench.rewards.runtime.process import refuse_inside
from workbench.rewards.runtime.registry import RewardSource
from workbench.rewards.trial import dry_run, guesses

RECORD_BYTES = 64 * 2**20
"""Disk space that a run needs beside its checkpoints to be worth starting."""


SMALLEST_BF16_RATE = 1e-4
"""Learning rate below which weights in bfloat16 hardly move."""


class Report(NamedTuple):
    """What the checks found."""

    config: RunConfig
    """With paths made absolute, so that the run can go on from any working directory."""
    problems: dict[str, str]
    """A sentence per setting that stands in the way; empty: the run can start."""
    warnings: tuple[str, ...] = ()
    """What a person should know but need not change."""
    rewards: tuple[dict[str, Any], ...] = ()
    """The rewards as the run records them, the one that decides right or wrong in held-out evaluations among them."""
    files: Mapping[str, bytes] = {}
    """Their exact source, by path in the run folder."""


class CheckedRewards(NamedTuple):
    """Rewards of a run that were loaded and tried."""

    sources: Sequence[RewardSource] = ()
    files: Mapping[str, bytes] = {}
    """Their source, by path in the run folder."""


def check(config: RunConfig, parent: RunFolder | None = None, *, fresh: bool = False) -> Report:
    """Check everything that can be checked without loading the model. The user's reward files are run once, in a
    process of their own; a fork takes its parent's copies of them, unless it is to read them anew (`fresh`)."""
    config = _with_absolute_paths(config)
    problems: dict[str, str] = {}
    warnings: list[str] = []
    facts = check_model(config, problems, warnings)
    check_device(config, problems)
    check_processes(config, problems)
    if facts:
        check_lengths(config, facts, problems)
        check_precision(config, facts, problems)
        check_adapter(config, facts, problems)
    split = check_data(config, problems, warnings)
    if split and facts:
        check_prompts(config, facts, split, problems)
    rewards = CheckedRewards()
    try:
        rewards = check_rewards(config, split, parent, fresh, warnings)
    except RewardError as error:
        problems["rewards"] = str(error)
    records = tuple(source.to_record() for source in rewards.sources)
    return Report(config, problems, tuple(warnings), records, rewards.files)


def start(
    config: RunConfig,
    root: Path | str,
    kind: Kind = "train",
    parent: Mapping[str, Any] | None = None,
    *,
    key: str | None = None,
    worker: Sequence[str] | None = None,
) -> RunFolder:
    """Check, then start. Raises ConfigError with a sentence per field, or RunError where the runs root cannot be used;
    no run folder exists then."""
    return start_checked(check(config), root, kind, parent, key=key, worker=worker)


def start_checked(
    report: Report,
    root: Path | str,
    kind: Kind = "train",
    parent: Mapping[str, Any] | None = None,
    *,
    key: str | None = None,
    worker: Sequence[str] | None = None,
    prepare: Callable[[RunFolder], object] | None = None,
) -> RunFolder:
    """`start` for settings that have been checked already; `prepare` as in `launch.start`."""
    refuse_inside()
    if report.problems:
        raise ConfigError("\n".join(report.problems.values()), report.problems)
    root = Path(root).expanduser().absolute()
    check_disk_space(report.config, root)
    return launch.start(
        report.config, root, kind, parent, rewards=report.rewards, files=report.files, key=key, worker=worker,
        prepare=prepare,
    )  # fmt: skip


# -- one function a check ----------------------------------------------------------------------------------


def check_model(config: RunConfig, problems: dict[str, str], warnings: list[str]) -> ModelFacts | None:
    """The model folder is complete and its tokenizer fits. Returns the model's shape; None where it is not on this machine."""
    try:
        facts = estimate.facts(config.model)
    except ModelError as error:
        problems["model"] = str(error)
        return None
    if facts is None:
        warnings.append(
            f"{config.model} is not on this machine yet; it is fetched when the run starts, and checked then."
        )
        return None
    if config.model != "embedded" and not Path(config.model).is_dir():
        return facts  # a Hub cache may hold a part of the files; the worker fetches the rest
    problem = model_files.problem_of(facts)
    if problem:
        problems["model"] = f"model = {config.model!r}: {problem}"
    elif config.template == "chat" and not model_files.has_chat_template(facts.folder):
        problems["template"] = (
            "This model has no chat template, so template = chat cannot be used. Set template to plain "
            "(the bare text) or r1-zero (a dialogue), or choose an instruction-tuned model."
        )
    if not problem and not model_files.has_pad_token(facts.folder):
        warnings.append(
            "The model names no pad token; its end-of-sequence token stands in. Padding never reaches the "
            "loss."
        )
    return facts


def check_device(config: RunConfig, problems: dict[str, str]) -> None:
    """The device that the settings name is here."""
    if config.device == "cuda" and not lease.has_cuda():
        problems["device"] = (
            "device = cuda, but no CUDA device can be used here (none is visible, or PyTorch is a CPU "
            "build). Set auto or cpu."
        )
    if config.device == "mps" and lease.device_kind("auto") != "mps":
        problems["device"] = "device = mps, but this is no Mac with Apple silicon. Set auto or cpu."


def check_processes(config: RunConfig, problems: dict[str, str]) -> None:
    """Several training processes can share the device."""
    if config.nproc > 1 and (kind := lease.device_kind(config.device)) != "cpu":
        problems["nproc"] = (
            f"nproc = {config.nproc} with device = {kind}: several processes train on the CPU only in this version. Set nproc to 1, "
            "or device to cpu."
        )


def check_lengths(config: RunConfig, facts: ModelFacts, problems: dict[str, str]) -> None:
    """Prompt and completion both fit into the model's context."""
    if config.max_completion_length >= facts.context:
        problems["max_completion_length"] = (
            f"max_completion_length = {config.max_completion_length}, but this model reads at most "
            f"{facts.context} tokens, prompt included. Set less."
        )
    elif (
        config.max_prompt_length is not None
        and config.max_prompt_length + config.max_completion_length > facts.context
    ):
        problems["max_prompt_length"] = (
            f"max_prompt_length = {config.max_prompt_length} and max_completion_length = "
            f"{config.max_completion_length} are more than the {facts.context} tokens that this model reads. "
            "Lower one of them."
        )


def check_precision(config: RunConfig, facts: ModelFacts, problems: dict[str, str]) -> None:
    """The updates are not rounded away: a weight in bfloat16 has 8 bits, and AdamW moves it by about the learning rate."""
    stored = config.dtype == "auto" and facts.bytes_per_weight == 2
    if (
        (config.dtype == "bfloat16" or stored)
        and not config.use_peft
        and config.learning_rate < SMALLEST_BF16_RATE
    ):
        problems["dtype"] = (
            f"dtype = {config.dtype}{' (stored as bfloat16)' if stored else ''} with learning_rate = {config.learning_rate:g}: weights in "
            f"bfloat16 would round most updates below {SMALLEST_BF16_RATE:g} away and not move. Set dtype to float32 (update_dtype = "
            "bfloat16 keeps the layers fast), turn on use_peft, whose adapter stays in float32, or raise the rate."
        )


def check_adapter(config: RunConfig, facts: ModelFacts, problems: dict[str, str]) -> None:
    """The modules that an adapter is to be put on are there."""
    if not config.use_peft or config.lora_target_modules == "all-linear":
        return
    targets = [name.strip() for name in config.lora_target_modules.split(",") if name.strip()]
    unknown, known = model_files.unknown_modules(facts.folder, targets)
    if unknown:
        problems["lora_target_modules"] = (
            f"lora_target_modules names {', '.join(unknown)}, but the model's files hold no such matrix (a tied output head is none of "
            f"its own). There are: {', '.join(known)}. Name some of these, or set all-linear."
        )


def check_data(config: RunConfig, problems: dict[str, str], warnings: list[str]) -> Split | None:
    """The data can be read and holds enough prompts for a step. Returns the prompts; None where there are none."""
    try:
        split = task_of(config).load(config)
    except ConfigError as error:
        problems.update(error.problems or {"task": str(error)})
        return None
    except DataError as error:
        problems[_field_of(str(error), config)] = str(error)
        return None
    if len(split.train) < config.prompts_per_step:
        problems["prompts_per_step"] = (
            f"prompts_per_step = {config.prompts_per_step}, but there are only {len(split.train)} prompts "
            "to train on. Lower it or add prompts."
        )
    warnings += split.warnings
    return split


def check_prompts(config: RunConfig, facts: ModelFacts, split: Split, problems: dict[str, str]) -> None:
    """No prompt is too long even before the template is put around it; the worker counts exactly."""
    limit = config.max_prompt_length or facts.context - 1
    # A token holds at least one byte, so only these need counting; and the Rust tokenizer needs no torch.
    suspects = [prompt for prompt in (*split.train, *split.heldout) if len(prompt.question.encode()) > limit]
    path = facts.folder / "tokenizer.json"
    if not suspects or not path.is_file():
        return
    tokenizer = Tokenizer.from_file(str(path))
    counts = [len(found.ids) for found in tokenizer.encode_batch([prompt.question for prompt in suspects])]
    long = [
        f"{f'row {prompt.columns[ROW]}' if ROW in prompt.columns else prompt.question[:40]} ({count} tokens)"
        for prompt, count in zip(suspects, counts, strict=True)
        if count > limit
    ]
    if long:
        field = "data" if config.max_prompt_length is None else "max_prompt_length"
        more = f" and {len(long) - 5} more" if len(long) > 5 else ""
        problems[field] = (
            f"{len(long)} prompts are longer than the {limit} tokens that fit: {', '.join(long[:5])}{more}. "
            "Shorten or remove them, raise max_prompt_length, or choose a model with a longer context."
        )


def check_rewards(
    config: RunConfig, split: Split | None, parent: RunFolder | None, fresh: bool, warnings: list[str]
) -> CheckedRewards:
    """The rewards can be loaded, and the user's own score made-up completions. The reward that decides right or wrong in
    held-out evaluations is added to them. Raises RewardError where one cannot be loaded or fails on every completion."""
    columns = None
    if split:
        columns = {
            name
            for prompt in [*split.train[:1], *split.heldout[:1]]
            for name in {**prompt.own_names, **prompt.columns}
        }
    with tempfile.TemporaryDirectory(prefix="workbench-rewards-") as name:
        folder = Path(name)
        specs = registry.with_verifier(config)
        kept, records = (parent.rewards, parent.about()["rewards"]) if parent else (folder, ())
        texts = [versions.current_text(spec, kept, records, fresh=fresh) for spec in specs]
        sources = registry.save_checked(specs, texts, folder, columns)
        failures = dry_run(
            [source for source in sources if not source.ours],
            split.train if split else [],
            timeout=config.reward_timeout,
            max_length=config.max_completion_length,
        )
        for reward, reason in failures.items():
            if not is_failure(reason):
                warnings.append(
                    f"Reward {reward} has no value for any completion it was tried on: not scored. {reason}"
                )
                continue
            if not reason.startswith(INFRASTRUCTURE):
                raise RewardError(
                    f"Reward {reward} fails on every answer it was tried on, so the run would learn nothing. {reason}"
                )
            warnings.append(f"Reward {reward} cannot be tried now. {reason}")
        warnings += guesses(sources)
        files = {
            f"rewards/{path.name}": path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()
        }
    return CheckedRewards(sources, files)


def check_disk_space(config: RunConfig, root: Path) -> None:
    """The disk has room for the run's checkpoints and its record. Raises RunError."""
    existing = next(path for path in (root, *root.parents) if path.is_dir())
    facts = estimate.facts(config.model)
    # A checkpoint holds the weights and both moments of the optimiser as float32; while the newest is written there is
    # one more of them than are kept.
    checkpoint = 3 * 4 * facts.parameters if facts and not config.use_peft else 0
    need = RECORD_BYTES + (config.save_total_limit + 1) * checkpoint
    try:
        free = shutil.disk_usage(existing).free
    except OSError:
        return  # what is wrong there shows when the folder is made
    if free < need:
        raise RunError(
            f"{root} has {free / 2**20:.0f} MiB free, and this run needs about {need / 2**20:.0f} MiB for "
            "its checkpoints and its record. Make room, or choose another folder with --runs DIR."
        )


# -- inside ------------------------------------------------------------------------------------------------


def _field_of(message: str, config: RunConfig) -> str:
    """The setting that a message about the data asks the user to change."""
    named = re.search(r"\bset (prompt_column|answer_column)\b|^(heldout|data_split)\b", message)
    if named:
        return str(named[1] or named[2])
    if config.heldout and message.startswith(config.heldout):
        return "heldout"
    return "data" if config.task == "data" else "task"


def _with_absolute_paths(config: RunConfig) -> RunConfig:
    """Paths as they will still be understood after a change of the working directory."""
    changes = {
        name: os.path.abspath(Path(value).expanduser())
        for name in ("model", "data", "heldout")
        if (value := getattr(config, name))
        and Path(value).expanduser().exists()
        and not _is_keyword(name, value)
    }
    return config.changed(**changes) if changes else config


def _is_keyword(name: str, value: str) -> bool:
    # A folder that happens to be called `embedded` or `validation` must not change what these words mean.
    return (name == "model" and value == "embedded") or (name == "heldout" and not Path(value).suffix)
