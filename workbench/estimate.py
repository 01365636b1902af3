"""Whether a run fits and how long it takes, before anything is loaded: from config.json and safetensors
headers alone.

In: a model's name and a RunConfig. Out: `ModelFacts`, `Memory`, `Duration`. No torch; figures are estimates
by arithmetic and say so; a dry run on the longest prompts is the measurement.
"""

import json
import shutil
import struct
import subprocess
from collections import Counter
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from workbench.config import RunConfig
from workbench.errors import ModelError

EMBEDDED = Path(__file__).parent / "models" / "embedded" / "chain"
GIB = 2**30
RUNTIME = 424 * 2**20
"""Resident bytes of a worker that has imported torch and transformers and done nothing else."""
BLOCK_LOGITS = 1 << 22
"""Logits that exist at once in a packed update (`models/head.py`)."""
ROWS = 512
"""Answers that the local sampler holds at once; more are sampled in rounds."""
_HEADER_LIMIT = 100 * 2**20
_BYTES = {
    "F64": 8,
    "F32": 4,
    "F16": 2,
    "BF16": 2,
    "I64": 8,
    "I32": 4,
    "I16": 2,
    "I8": 1,
    "U8": 1,
    "BOOL": 1,
    "F8_E4M3": 1,
    "F8_E5M2": 1,
}
_SETTING_BYTES = {"float32": 4, "bfloat16": 2}

# Seconds per answer of the embedded model, one thread on a quiet 2-core machine: the median of the three runs behind
# presets/embedded.expected.json (50 steps, 16 x 12, answers of about 42 tokens). What the start takes is counted to the checks,
# which draw 2 x 128 and 64 further answers six times.
_SAMPLING_PER_ANSWER = 25.8 / (50 * 192)
_UPDATE_PER_ANSWER = 23.9 / (50 * 192)
_CHECK_PER_ANSWER = 11.2 / (6 * (2 * 128 + 64))


class ModelFacts(NamedTuple):
    """The shape of a causal language model."""

    parameters: int
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_size: int
    intermediate: int
    vocab: int
    context: int
    bytes_per_weight: int
    """As stored."""
    architecture: str
    stored_bytes: int
    folder: Path


class Memory(NamedTuple):
    """Bytes at the peak of a step. Sampling and update never overlap, so `total` counts the larger of the
    two."""

    weights: int
    gradients: int
    optimizer: int
    reference: int
    kv_cache: int
    logits: int
    activations: int
    runtime: int
    total: int


class Duration(NamedTuple):
    """Seconds of a whole run."""

    sampling: float
    update: float
    checks: float

    @property
    def total(self) -> float:
        return self.sampling + self.update + self.checks


class Device(NamedTuple):
    """Where the model would run, and how many bytes there are."""

    name: str
    bytes: int


def facts(model: str) -> ModelFacts | None:
    """The shape of `embedded`, a local folder, or a Hub id whose files are already on this machine; None
    where it is a Hub id that is not. Raises ModelError for a folder that is no model."""
    folder = _folder(model)
    return None if folder is None else _read(folder)


def memory(config: RunConfig, model: ModelFacts) -> Memory:
    """Bytes of one process at its peak, worst case: every answer as long as allowed."""
    width = _SETTING_BYTES.get(config.dtype, model.bytes_per_weight)
    trained = _adapter_parameters(config, model) if config.use_peft else model.parameters
    weights = (model.parameters + (trained if config.use_peft else 0)) * width
    gradients = trained * width
    optimizer = 2 * trained * width  # AdamW keeps both moments in the type of its parameters
    copies = config.keeps_reference + (config.records_initial_kl and not config.use_peft)
    reference = copies * model.parameters * width

    longest = min(model.context, (config.max_prompt_length or model.context) + config.max_completion_length)
    rows = min(ROWS, max(config.samples_per_step, config.eval_problems) // config.nproc)
    kv_cache = rows * longest * model.layers * 2 * model.kv_heads * model.head_size * width

    tokens = max(config.micro_batch_tokens or 1024, longest)
    # Logits, their log-softmax and its gradient, all float32; with prompts counted in, because how long
    # they are is not known here.
    table = tokens * model.vocab
    if config.packed_update:  # head and loss go through one block of tokens at a time
        table = min(table, BLOCK_LOGITS)
    logits = 3 * 4 * table
    # What a decoder layer keeps for its backward pass: attention in and out (about 8 hidden-wide tensors
    # with queries, keys and values) and the three wide ones of a gated MLP.
    per_layer = 8 * model.hidden + 3 * model.intermediate
    kept_layers = 1 if config.gradient_checkpointing else model.layers
    activations = (
        tokens
        * width
        * (per_layer * kept_layers + (model.hidden * model.layers if config.gradient_checkpointing else 0))
    )
    total = RUNTIME + weights + reference + optimizer + max(kv_cache, gradients + logits + activations)
    return Memory(weights, gradients, optimizer, reference, kv_cache, logits, activations, RUNTIME, total)


def seconds(config: RunConfig, model: ModelFacts | None) -> Duration | None:
    """How long the run takes on a quiet CPU core. None for models nobody has measured: a dry run tells."""
    if model is None or model.folder != EMBEDDED or config.device in ("cuda", "mps"):
        return None
    answers = config.steps * config.samples_per_step
    # The embedded model was measured with at most 256 tokens; a shorter limit cuts answers, a longer one
    # hardly lengthens them.
    share = min(1.0, config.max_completion_length / 64)
    checks = config.steps // config.eval_steps + 1
    watched = config.watched_prompts * config.watched_samples
    return Duration(
        sampling=answers * _SAMPLING_PER_ANSWER * share,
        update=answers * config.num_iterations * _UPDATE_PER_ANSWER * share,
        checks=checks * (2 * config.eval_problems + watched) * _CHECK_PER_ANSWER * share,
    )


def device(setting: str = "auto") -> Device:
    """The device that a run with this setting would take, found without torch."""
    if setting in ("auto", "cuda"):
        total = _cuda_bytes()
        if total:
            return Device("GPU", total)
    return Device("this machine", psutil.virtual_memory().total)


@lru_cache(maxsize=1)
def _cuda_bytes() -> int:
    """Memory of the first NVIDIA card, 0 where there is none."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return 0
    try:
        answer = subprocess.run(
            [program, "--query-gpu=memory.total", "--format=csv,noheader,nounits"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        ).stdout
        return int(answer.split()[0]) * 2**20
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return 0


def _adapter_parameters(config: RunConfig, model: ModelFacts) -> int:
    """Weights of a LoRA adapter on every linear layer of the decoder: rank x (in + out) each."""
    queries, keys = model.heads * model.head_size, model.kv_heads * model.head_size
    shapes = {
        "q_proj": (model.hidden, queries),
        "k_proj": (model.hidden, keys),
        "v_proj": (model.hidden, keys),
        "o_proj": (queries, model.hidden),
        "gate_proj": (model.hidden, model.intermediate),
        "up_proj": (model.hidden, model.intermediate),
        "down_proj": (model.intermediate, model.hidden),
    }
    wanted = {name.strip() for name in config.lora_target_modules.split(",")}
    chosen = [
        shape
        for name, shape in shapes.items()
        if config.lora_target_modules == "all-linear" or name in wanted
    ]
    return model.layers * config.lora_r * sum(a + b for a, b in chosen)


def _folder(model: str) -> Path | None:
    if model == "embedded":
        return EMBEDDED
    path = Path(model).expanduser()
    if path.is_dir():
        return path.resolve()
    if path.is_absolute() or model.startswith((".", "~")) or model.count("/") != 1:
        raise ModelError(
            f"model = {model!r}: there is no such folder. Give `embedded`, a folder that holds config.json "
            "and *.safetensors, or a Hugging Face id such as Qwen/Qwen2.5-0.5B-Instruct."
        )
    # About 0.3 s of import that only Hub ids need.
    from huggingface_hub import try_to_load_from_cache  # noqa: PLC0415
    from huggingface_hub.errors import HFValidationError  # noqa: PLC0415

    try:
        config = try_to_load_from_cache(model, "config.json")
    except HFValidationError:
        raise ModelError(
            f"model = {model!r} is neither a folder here nor a Hugging Face id (owner/name)."
        ) from None
    return Path(config).parent if isinstance(config, str) else None


def _read(folder: Path) -> ModelFacts:
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text())
    except FileNotFoundError:
        raise ModelError(
            f"{folder} holds no config.json, so it is no Hugging Face model folder. Choose the folder that "
            "`save_pretrained` wrote."
        ) from None
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read: {error}. Download or save the model again.") from None
    text = config.get("text_config", config)  # vision-language models keep the decoder's shape one level down

    def number(*names: str, default: int | None = None) -> int:
        for name in names:
            if isinstance(text.get(name), int):
                return int(text[name])
        if default is None:
            raise ModelError(
                f"{path} does not say {names[0]}; the workbench trains decoder-only language models."
            )
        return default

    hidden, heads = number("hidden_size", "n_embd"), number("num_attention_heads", "n_head")
    layers, vocab = number("num_hidden_layers", "n_layer"), number("vocab_size")
    intermediate = number("intermediate_size", "n_inner", default=4 * hidden)
    head_size, kv_heads = (
        number("head_dim", default=hidden // heads),
        number("num_key_value_heads", default=heads),
    )
    parameters, stored, width = _weights(folder)
    if (
        not parameters
    ):  # config without weights (a Hub id of which only the config is here): the usual gated decoder
        projections = hidden * head_size * (2 * heads + 2 * kv_heads) + 3 * hidden * intermediate + 2 * hidden
        parameters = (
            layers * projections + hidden + vocab * hidden * (1 if text.get("tie_word_embeddings") else 2)
        )
        width = 4 if str(text.get("dtype", text.get("torch_dtype"))) == "float32" else 2
    return ModelFacts(
        parameters=parameters,
        layers=layers,
        hidden=hidden,
        heads=heads,
        kv_heads=kv_heads,
        head_size=head_size,
        intermediate=intermediate,
        vocab=vocab,
        context=number("max_position_embeddings", "n_positions", default=2048),
        bytes_per_weight=width,
        architecture=next(iter(config.get("architectures") or ["unknown architecture"])),
        stored_bytes=stored,
        folder=folder,
    )


def _weights(folder: Path) -> tuple[int, int, int]:
    """Parameters, bytes on disk, and bytes of the commonest weight type; zeros where no safetensors file
    lies there."""
    parameters = stored = 0
    types: Counter[str] = Counter()
    for path in sorted(folder.glob("*.safetensors")):
        stored += path.stat().st_size
        for kind, shape in _tensors(path):
            size = 1
            for length in shape:
                size *= length
            parameters += size
            types[kind] += size
    return parameters, stored, _BYTES.get(types.most_common(1)[0][0], 2) if types else 2


def _tensors(path: Path) -> Iterator[tuple[str, list[int]]]:
    """(type, shape) of each tensor of a safetensors file, from its header: 8 bytes of length, then JSON."""
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > _HEADER_LIMIT:
                raise ValueError("its header is too long")
            header: dict[str, Any] = json.loads(file.read(length))
        for name, tensor in header.items():
            if name != "__metadata__":
                yield str(tensor["dtype"]), [int(side) for side in tensor["shape"]]
    except (OSError, ValueError, KeyError, TypeError, struct.error) as error:
        raise ModelError(
            f"{path} is not a whole safetensors file ({error}). Download or save the model again."
        ) from None
