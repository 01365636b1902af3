"""Estimates of a run's memory and duration before anything is loaded: from config.json and safetensors headers alone.

In: a model's name and a RunConfig. Out: `ModelFacts`, `Memory`, `Duration`. No torch. A dry run on the longest prompts is the
measurement.
"""

import json
import math
import shutil
import struct
import subprocess
from collections import Counter
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from workbench.core.config import RunConfig
from workbench.core.errors import ModelError

EMBEDDED = Path(__file__).parents[1] / "models" / "embedded" / "chain"
GIB = 2**30
RUNTIME = 424 * 2**20
"""Resident bytes of a worker after importing torch and transformers."""
BLOCK_LOGITS = 1 << 22
"""Logits that exist at once in a packed update (`models/fast/fused_head.py`)."""
UPDATE_BLOCKS = 4
"""Blocks of logits at the update's peak: logits, probabilities, and buffers of the matrix products with the vocabulary.
Measured (`benchmarks/memory.py`)."""
WORKING = 94 * 2**20
"""Bytes of a worker beyond counted tensors: modules imported later, the record's writer, buffers of matrix products, heap
fragmentation. Measured with default malloc (`benchmarks/memory.py`)."""
PADDED = 1.15
"""Attention positions per token: completions of similar length are padded to the longest among them."""
CACHE_BLOCK = 64
"""Columns by which a KV cache grows (`models/fast/kv_cache.py`)."""
ROWS = 512
"""Completions that the local sampler holds at once; more are sampled in rounds."""
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

# Seconds per sample of the embedded model, one thread on a quiet 2-core machine: the median of the three runs behind
# presets/embedded.expected.json (50 steps, 16 x 12, samples of about 42 tokens). Start-up counts as evaluation, which draws
# 2 x 128 + 64 samples six times.
_SAMPLING_PER_SAMPLE = 25.8 / (50 * 192)
_UPDATE_PER_SAMPLE = 23.9 / (50 * 192)
_EVALUATION_PER_SAMPLE = 11.2 / (6 * (2 * 128 + 64))


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


class Lengths(NamedTuple):
    """Known token counts: of a prompt, and the mean of a completion (completions are assumed to end at a constant rate)."""

    prompt: int
    completion: float


class Memory(NamedTuple):
    """Bytes at the peak of a step. Sampling and update never overlap, so `total` counts the larger of the two; post-update
    log-probabilities are computed while the next samples are drawn."""

    weights: int
    gradients: int
    optimizer: int
    reference: int
    kv_cache: int
    decoder: int
    """The sampler's own copy of a small model's layers, and the logits it draws from."""
    post_update: int
    """Post-update log-probabilities of the last samples, computed while the next are drawn."""
    logits: int
    activations: int
    working: int
    """Beyond counted tensors, see `WORKING`."""
    runtime: int
    """Imports, see `RUNTIME`."""
    total: int

    @property
    def sampling(self) -> int:
        """What only the sampling needs."""
        return self.kv_cache + self.decoder + self.post_update

    @property
    def update(self) -> int:
        """What only the update needs."""
        return self.gradients + self.logits + self.activations


class Duration(NamedTuple):
    """Seconds of a whole run."""

    sampling: float
    update: float
    evaluation: float

    @property
    def total(self) -> float:
        return self.sampling + self.update + self.evaluation


class Device(NamedTuple):
    """Where the model would run, and its memory in bytes."""

    name: str
    bytes: int


def facts(model: str) -> ModelFacts | None:
    """The shape of `embedded`, a local folder, or a Hub id whose files are already on this machine; None
    where it is a Hub id that is not. Raises ModelError for a folder that is not a model."""
    folder = _folder(model)
    return None if folder is None else _read(folder)


def memory(config: RunConfig, model: ModelFacts, lengths: Lengths | None = None) -> Memory:
    """Bytes of one process at its peak: as expected where `lengths` are known, else with every completion at its maximum length."""
    width = _SETTING_BYTES.get(config.dtype, model.bytes_per_weight)
    trained = _adapter_parameters(config, model) if config.use_peft else model.parameters
    weights = (model.parameters + (trained if config.use_peft else 0)) * width
    gradients = trained * width
    optimizer = _moments(config, model, trained) * width
    halved = width // 2 if config.reference_dtype == "bfloat16" and width == 4 else width
    reference = model.parameters * (
        config.keeps_reference * halved + (config.records_initial_kl and not config.use_peft) * width
    )

    prompt = lengths.prompt if lengths else config.max_prompt_length or model.context
    max_length = min(model.context, prompt + config.max_completion_length)
    rows = min(ROWS, max(config.samples_per_step, config.eval_problems) // config.nproc)
    row_token = (
        2 * model.layers * model.kv_heads * model.head_size * width
    )  # a key and a value in every layer
    kv_cache = _cached_tokens(rows, prompt, max_length, lengths) * row_token
    # Next logits, the last ones, and their exponentials, float32.
    decoder = 3 * 4 * rows * model.vocab
    if _copied(config, model, width):
        decoder += (model.parameters - model.vocab * model.hidden) * width

    tokens = max(config.micro_batch_tokens or 1024, max_length)
    if lengths:  # as many complete groups as fit
        group = lengths.prompt + config.num_generations * lengths.completion
        groups = min(config.prompts_per_step, tokens // group)
        tokens = min(tokens, int(groups * group or tokens))
    if config.packed_update:  # LM head and loss run on one block of tokens at a time
        block = 4 * min(tokens * model.vocab, BLOCK_LOGITS)
        logits = UPDATE_BLOCKS * block
    else:  # logits, their log-softmax and its gradient, all float32, with prompts counted in
        block = 4 * tokens * model.vocab
        logits = 3 * block
    per_layer = _kept_floats(model)
    kept_layers = 1 if config.gradient_checkpointing else model.layers
    layer_inputs = model.hidden * model.layers if config.gradient_checkpointing else 0
    activations = tokens * width * (per_layer * kept_layers + layer_inputs)
    # One layer at a time and two blocks of logits; 0 where neither the policy nor the reference is run after the update.
    runs_after_update = config.probe_every > 0 or (config.needs_reference and not config.beta)
    post_update = runs_after_update * (tokens * width * per_layer + 2 * block)
    optimizer_step = (
        3 * width * model.vocab * model.hidden if config.optim == "adafactor" else 0
    )  # temporaries of its largest matrix
    phase = max(kv_cache + decoder + post_update, gradients + max(logits + activations, optimizer_step))
    total = RUNTIME + weights + reference + optimizer + WORKING + phase
    return Memory(
        weights, gradients, optimizer, reference, kv_cache, decoder, post_update, logits, activations, WORKING, RUNTIME, total
    )  # fmt: skip


def _moments(config: RunConfig, model: ModelFacts, trained: int) -> int:
    """Numbers in the optimiser's state."""
    if config.optim == "sgd":
        return 0
    if config.optim == "adafactor":  # a row and a column of each matrix
        return model.layers * sum(map(sum, _shapes(model).values())) + model.vocab + model.hidden
    return 2 * trained  # AdamW: both moments, in the type of its parameters


def _cached_tokens(rows: int, prompt: int, max_length: int, lengths: Lengths | None) -> int:
    """Columns x rows of the KV cache at its largest: it grows by blocks, and the old buffer is freed after the new one is filled."""
    most = 0
    for end in range(-(-(prompt + 1) // CACHE_BLOCK) * CACHE_BLOCK, max_length + CACHE_BLOCK, CACHE_BLOCK):
        grown_at = max(0, end - CACHE_BLOCK - prompt)  # completion tokens by then
        running = (
            math.exp(-grown_at / lengths.completion)
            if lengths and lengths.completion < max_length - prompt
            else 1.0
        )
        most = max(most, int(rows * running * (2 * end - CACHE_BLOCK)))
    return most


def _copied(config: RunConfig, model: ModelFacts, width: int) -> bool:
    """Whether the sampler decodes through a copy of the layers (`models/fast/cpu_decoder.py`)."""
    body = model.parameters - model.vocab * model.hidden
    return config.engine == "local" and width == 4 and body <= 64_000_000 and config.device in ("auto", "cpu")


def _kept_floats(model: ModelFacts) -> int:
    """Numbers per token that one layer keeps for its backward pass (`models/fast/layers.py`)."""
    queries, keys = model.heads * model.head_size, 2 * model.kv_heads * model.head_size
    projected = model.hidden + (
        queries + keys
    )  # the input, and its projections before norm and rotary embedding
    # Rotated queries, keys and values; keys and values once more behind those of the prompt; the attention output.
    attended = PADDED * (queries + keys + queries) + 2 * PADDED * keys
    return int(projected + attended + model.hidden + 2 * model.intermediate)  # MLP input, gate and up


def duration(config: RunConfig, model: ModelFacts | None) -> Duration | None:
    """How long the run takes on a quiet CPU core. None for models that were not measured: a dry run measures them."""
    if model is None or model.folder != EMBEDDED or config.device in ("cuda", "mps"):
        return None
    samples = config.steps * config.samples_per_step
    # The embedded model was measured with at most 256 tokens; a shorter limit cuts samples, a longer one hardly lengthens them.
    share = min(1.0, config.max_completion_length / 64)
    evaluations = config.steps // config.eval_steps + 1
    watched = config.watched_prompts * config.watched_samples
    return Duration(
        sampling=samples * _SAMPLING_PER_SAMPLE * share,
        update=samples * config.num_iterations * _UPDATE_PER_SAMPLE * share,
        evaluation=evaluations * (2 * config.eval_problems + watched) * _EVALUATION_PER_SAMPLE * share,
    )


def device(setting: str = "auto") -> Device:
    """The device that a run with this setting would use, found without torch."""
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
        output = subprocess.run(
            [program, "--query-gpu=memory.total", "--format=csv,noheader,nounits"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        ).stdout
        return int(output.split()[0]) * 2**20
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return 0


def _adapter_parameters(config: RunConfig, model: ModelFacts) -> int:
    """Weights of a LoRA adapter on every linear layer of the decoder: rank x (in + out) each."""
    wanted = {name.strip() for name in config.lora_target_modules.split(",")}
    chosen = [
        shape
        for name, shape in _shapes(model).items()
        if config.lora_target_modules == "all-linear" or name in wanted
    ]
    return model.layers * config.lora_r * sum(a + b for a, b in chosen)


def _shapes(model: ModelFacts) -> dict[str, tuple[int, int]]:
    """(in, out) of each linear layer of one decoder layer."""
    queries, keys = model.heads * model.head_size, model.kv_heads * model.head_size
    return {
        "q_proj": (model.hidden, queries),
        "k_proj": (model.hidden, keys),
        "v_proj": (model.hidden, keys),
        "o_proj": (queries, model.hidden),
        "gate_proj": (model.hidden, model.intermediate),
        "up_proj": (model.hidden, model.intermediate),
        "down_proj": (model.intermediate, model.hidden),
    }


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


def _refuse_adapter(folder: Path) -> None:
    try:
        base = json.loads((folder / "adapter_config.json").read_text()).get("base_model_name_or_path")
    except (OSError, ValueError, AttributeError):
        return
    raise ModelError(
        f"{folder} holds an adapter of {base!r}, not a model. Give its base as model, or merge the two first: for a run of the workbench "
        "`workbench export RUN --model FOLDER --merge`, else merge_and_unload() of PEFT, saved with the tokenizer."
    )


def _read(folder: Path) -> ModelFacts:
    _refuse_adapter(folder)
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text())
    except FileNotFoundError:
        raise ModelError(
            f"{folder} has no config.json, so it is not a Hugging Face model folder. Choose the folder that "
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
    ):  # config without weights (a Hub id of which only the config is here): assume a gated decoder
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
            f"{path} is not a complete safetensors file ({error}). Download or save the model again."
        ) from None
