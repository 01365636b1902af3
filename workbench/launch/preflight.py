"""Everything that can be found wrong before a run folder exists, without torch: settings against model, data,
rewards and disk.

In: a valid RunConfig. Out: a sentence per field, or a started run. Command line, New run form and notebook
all start runs here.
"""

import json
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
from workbench.launch import lease
from workbench.prompts import task_of
from workbench.prompts.data import ROW
from workbench.prompts.task import Split
from workbench.record.folder import Kind, RunFolder
from workbench.rewards import versions
from workbench.rewards.api.outcome import INFRASTRUCTURE
from workbench.rewards.runtime import registry as rewards
from workbench.rewards.runtime.process import refuse_inside
from workbench.rewards.trial import dry_run

SPARE_BYTES = 64 * 2**20
"""Room that a run needs beside its checkpoints to be worth starting."""
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.pkl")
_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "spiece.model", "sentencepiece.bpe.model")


class Report(NamedTuple):
    """What was found."""

    config: RunConfig
    """With paths made absolute, so that the run can go on from any working directory."""
    problems: dict[str, str]
    """A sentence per setting that stands in the way; empty: the run can start."""
    warnings: tuple[str, ...] = ()
    """What a person should know but need not change."""
    rewards: tuple[dict[str, Any], ...] = ()
    """The rewards as the run records them, the one that decides right or wrong in held-out checks among them.
    """
    files: Mapping[str, bytes] = {}
    """Their exact source, by path in the run folder."""


def check(config: RunConfig, parent: RunFolder | None = None, *, fresh: bool = False) -> Report:
    """Look at everything that can be seen without loading the model. Own reward files are run once, in a
    process of their own; a fork takes its parent's copies of them, unless it is to read them anew (`fresh`)."""
    config = _absolute(config)
    problems: dict[str, str] = {}
    warnings: list[str] = []
    facts = _model(config, problems, warnings)
    _machine(config, problems)
    if facts:
        check_lengths(config, facts, problems)
    split = _data(config, problems)
    if split:
        warnings += split.warnings
        if facts:
            _long_prompts(config, facts, split, problems)
    records: tuple[dict[str, Any], ...] = ()
    files: dict[str, bytes] = {}
    try:
        records, files = _rewards(config, split, parent, fresh, warnings)
    except RewardError as error:
        problems["rewards"] = str(error)
    return Report(config, problems, tuple(warnings), records, files)


def start(
    config: RunConfig,
    root: Path | str,
    kind: Kind = "train",
    parent: Mapping[str, Any] | None = None,
    *,
    key: str | None = None,
    worker: Sequence[str] | None = None,
) -> RunFolder:
    """Check, then start. Raises ConfigError with a sentence per field, or RunError where the runs root is no
    good; no run folder exists then."""
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
    _room(report.config, root)
    return launch.start(
        report.config, root, kind, parent, rewards=report.rewards, files=report.files, key=key, worker=worker,
        prepare=prepare,
    )  # fmt: skip


# -- model -------------------------------------------------------------------------------------------------


def _model(config: RunConfig, problems: dict[str, str], warnings: list[str]) -> ModelFacts | None:
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
    problem = _weights(facts.folder) or _tokenizer(facts)
    if problem:
        problems["model"] = f"model = {config.model!r}: {problem}"
    elif config.template == "chat" and not _chat_template(facts.folder):
        problems["template"] = (
            "This model has no chat template, so template = chat cannot be used. Set template to plain "
            "(the bare "
            "text) or r1-zero (a dialogue), or choose an instruction-tuned model."
        )
    if not problem and _named(facts.folder, "pad_token", "pad_token_id") is None:
        warnings.append(
            "The model names no pad token; its end-of-sequence token stands in. Padding never reaches the "
            "loss."
        )
    return facts


def _weights(folder: Path) -> str:
    if any(folder.glob("*.safetensors")):
        return ""
    pickles = sorted(path.name for pattern in _PICKLES for path in folder.glob(pattern))
    if pickles:
        return (
            f"its weights are pickle files ({', '.join(pickles[:3])}), which can run any code when they are "
            "opened. Convert them to "
            "safetensors (save_pretrained does), or choose another copy."
        )
    return "the folder holds no *.safetensors weights. Choose the folder that save_pretrained wrote."


def _tokenizer(facts: ModelFacts) -> str:
    if not any((facts.folder / name).is_file() for name in _TOKENIZERS):
        return (
            "the folder holds no tokenizer (tokenizer.json). Save the model's tokenizer into the same folder."
        )
    if _named(facts.folder, "eos_token", "eos_token_id") is None:
        return (
            "it names no end-of-sequence token, so answers could not end. Set eos_token in its "
            "tokenizer_config.json or eos_token_id "
            "in its generation_config.json."
        )
    highest = _highest_token(facts.folder / "tokenizer.json")
    if highest is not None and highest >= facts.vocab:
        return (
            f"its tokenizer has token {highest}, but the network knows only {facts.vocab}. They do not "
            "belong together: save the "
            "right tokenizer into the folder."
        )
    return ""


def _named(folder: Path, token: str, token_id: str) -> Any:
    """The token as any of the model's files names it; None where none does."""
    places = (
        ("tokenizer_config.json", token),
        ("special_tokens_map.json", token),
        ("generation_config.json", token_id),
        ("config.json", token_id),
    )
    return next((value for name, key in places if (value := _json(folder / name).get(key)) is not None), None)


def _chat_template(folder: Path) -> bool:
    return (
        (folder / "chat_template.jinja").is_file()
        or (folder / "chat_template.json").is_file()
        or bool(_json(folder / "tokenizer_config.json").get("chat_template"))
        or (folder / "additional_chat_templates").is_dir()
    )


def _highest_token(path: Path) -> int | None:
    content = _json(path)
    vocab = content.get("model", {}).get("vocab") if isinstance(content.get("model"), dict) else None
    added = [
        int(token["id"])
        for token in content.get("added_tokens", [])
        if isinstance(token, dict) and isinstance(token.get("id"), int)
    ]
    if isinstance(vocab, dict) and vocab:
        return max([*added, *(int(value) for value in vocab.values())])
    if isinstance(vocab, list) and vocab:  # unigram: a list of [piece, score]
        return max([*added, len(vocab) - 1])
    return None


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def check_lengths(config: RunConfig, facts: ModelFacts, problems: dict[str, str]) -> None:
    """Adds a sentence where prompt and answer cannot both fit into what the model reads."""
    if config.max_completion_length >= facts.context:
        problems["max_completion_length"] = (
            f"max_completion_length = {config.max_completion_length}, but this model reads at most "
            f"{facts.context} tokens, prompt "
            "included. Set less."
        )
    elif (
        config.max_prompt_length is not None
        and config.max_prompt_length + config.max_completion_length > facts.context
    ):
        problems["max_prompt_length"] = (
            f"max_prompt_length = {config.max_prompt_length} and max_completion_length = "
            f"{config.max_completion_length} are more than the "
            f"{facts.context} tokens that this model reads. Lower one of them."
        )


def _long_prompts(config: RunConfig, facts: ModelFacts, split: Split, problems: dict[str, str]) -> None:
    """Prompts that cannot fit even before the template is put around them; the worker counts exactly."""
    room = config.max_prompt_length or facts.context - 1
    # A token holds at least one byte, so only these need counting; and the Rust tokenizer needs no torch.
    suspects = [prompt for prompt in (*split.train, *split.heldout) if len(prompt.question.encode()) > room]
    path = facts.folder / "tokenizer.json"
    if not suspects or not path.is_file():
        return
    tokenizer = Tokenizer.from_file(str(path))
    counts = [len(found.ids) for found in tokenizer.encode_batch([prompt.question for prompt in suspects])]
    long = [
        f"{f'row {prompt.columns[ROW]}' if ROW in prompt.columns else prompt.question[:40]} ({count} tokens)"
        for prompt, count in zip(suspects, counts, strict=True)
        if count > room
    ]
    if long:
        field = "data" if config.max_prompt_length is None else "max_prompt_length"
        more = f" and {len(long) - 5} more" if len(long) > 5 else ""
        problems[field] = (
            f"{len(long)} prompts are longer than the {room} tokens that fit: {', '.join(long[:5])}{more}. "
            "Shorten or remove them, raise max_prompt_length, or choose a model with a longer context."
        )


# -- machine -----------------------------------------------------------------------------------------------


def _machine(config: RunConfig, problems: dict[str, str]) -> None:
    if config.device == "cuda" and not lease.has_cuda():
        problems["device"] = (
            "device = cuda, but no CUDA device can be used here (none is visible, or PyTorch is a CPU "
            "build). Set auto or cpu."
        )
    if config.nproc > 1 and (kind := lease.device_kind(config.device)) != "cpu":
        problems["nproc"] = (
            f"nproc = {config.nproc} with device = {kind}: several processes train on the CPU only in this version. Set nproc to 1, "
            "or device to cpu."
        )
    if config.device == "mps" and lease.device_kind("auto") != "mps":
        problems["device"] = "device = mps, but this is no Mac with Apple silicon. Set auto or cpu."


def _room(config: RunConfig, root: Path) -> None:
    """Refuses a full disk while nothing has been written. Raises RunError."""
    place = next(path for path in (root, *root.parents) if path.is_dir())
    facts = estimate.facts(config.model)
    # A checkpoint holds the weights and both moments of the optimiser; one more than kept lies there while
    # the newest is written.
    checkpoint = 3 * 4 * facts.parameters if facts and not config.use_peft else 0
    need = SPARE_BYTES + (config.save_total_limit + 1) * checkpoint
    try:
        free = shutil.disk_usage(place).free
    except OSError:
        return  # what is really wrong shows when the folder is made
    if free < need:
        raise RunError(
            f"{root} has {free / 2**20:.0f} MiB free, and this run needs about {need / 2**20:.0f} MiB for "
            "its checkpoints and its "
            "record. Make room, or choose another folder with --runs DIR."
        )


# -- data and rewards --------------------------------------------------------------------------------------


def _data(config: RunConfig, problems: dict[str, str]) -> Split | None:
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
            "to train "
            "on. Lower it or add prompts."
        )
    return split


def _field_of(message: str, config: RunConfig) -> str:
    """The setting that a message about the data tells people to change."""
    named = re.search(r"\bset (prompt_column|answer_column)\b|^(heldout|data_split)\b", message)
    if named:
        return str(named[1] or named[2])
    return (
        "heldout"
        if config.heldout and message.startswith(config.heldout)
        else "data"
        if config.task == "data"
        else "task"
    )


def _rewards(
    config: RunConfig, split: Split | None, parent: RunFolder | None, fresh: bool, warnings: list[str]
) -> tuple[tuple[dict[str, Any], ...], dict[str, bytes]]:
    """The run's rewards and their source, the reward that decides right or wrong in held-out checks
    included. Own code is called on a few stand-in answers first: what fails on all of them is refused."""
    columns = None
    if split:
        columns = {name for prompt in [*split.train[:1], *split.heldout[:1]] for name in prompt.columns}
    with tempfile.TemporaryDirectory(prefix="workbench-rewards-") as folder:
        specs = rewards.with_verifier(config)
        place, records = (parent.rewards, parent.about()["rewards"]) if parent else (Path(folder), ())
        texts = [versions.current_text(spec, place, records, fresh=fresh) for spec in specs]
        sources = rewards.save_checked(specs, texts, Path(folder), columns)
        own = [source for source in sources if not source.ours]
        tried = dry_run(
            own,
            split.train if split else [],
            timeout=config.reward_timeout,
            max_length=config.max_completion_length,
        )
        for name, reason in tried.items():
            if not reason.startswith(INFRASTRUCTURE):
                raise RewardError(
                    f"Reward {name} fails on every answer it was tried on, so the run would learn nothing. {reason}"
                )
            warnings.append(f"Reward {name} cannot be tried now. {reason}")
        files = {
            f"rewards/{path.name}": path.read_bytes()
            for path in sorted(Path(folder).iterdir())
            if path.is_file()
        }
    return tuple(source.to_record() for source in sources), files


def _absolute(config: RunConfig) -> RunConfig:
    """Paths as they will still be understood after a change of the working directory."""
    changes = {
        name: os.path.abspath(Path(value).expanduser())
        for name in ("model", "data", "heldout")
        if (value := getattr(config, name))
        and Path(value).expanduser().exists()
        and not _is_word(name, value)
    }
    return config.changed(**changes) if changes else config


def _is_word(name: str, value: str) -> bool:
    # A folder that happens to be called `embedded` or `validation` must not change what these words mean.
    return (name == "model" and value == "embedded") or (name == "heldout" and not Path(value).suffix)
