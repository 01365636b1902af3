"""Every setting of a run: name, type, default, range, label, help, core or advanced, changeable during the run or not.

The command line, the New run form, notebooks, the docs table and validation all read `RunConfig`. Where a setting means the
same as in TRL it has TRL's name and default (TRL 1.16); presets change defaults sparsely. Imports no ML library.
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from workbench.core import renamed
from workbench.core.errors import ConfigError
from workbench.core.presets import DEFAULT_PRESET, load_preset
from workbench.core.setting import SettingInfo, describe, explain, setting
from workbench.core.variants import (
    Aggregation,
    Baseline,
    Correction,
    KlEstimator,
    LossType,
    RatioLevel,
    Scale,
    Std,
)


class RewardSpec(BaseModel):
    """One reward of a run: a catalogue name, or `path/to/file.py:function`; its weight; whether it counts."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    name: str
    weight: float = 1.0
    enabled: bool = True
    """False: computed and recorded, but not part of the total reward."""
    options: dict[str, int | float | str | bool] = Field(default_factory=dict)
    """Keyword arguments of the reward itself (a length limit, a language)."""
    version: str = ""
    """Hash of the run's copy of its code in rewards/; '' for the copy the run started with."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """From `name`, `name=weight` or `file.py:name=weight`."""
        name, _, weight = text.strip().partition("=")
        try:
            return cls(name=name.strip(), weight=float(weight) if weight else 1.0)
        except ValueError as error:
            raise ValueError(f"reward {text!r}: write name=weight, for example correct=1.0") from error


class RunConfig(BaseModel):
    """All settings of a run. `RunConfig.build(preset, overrides)` is the usual way to make one."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, validate_default=True)

    # -- model ---------------------------------------------------------------------------------------------------
    model: str = setting(
        "embedded",
        "Base model",
        "`embedded`, a local folder, or a Hugging Face id.",
        "model",
        core=True,
        min_length=1,
    )
    dtype: Literal["float32", "bfloat16", "auto"] = setting(
        "float32", "Precision", "Type of the weights in training; `auto` keeps the stored one.", "model"
    )
    update_dtype: Literal["same", "bfloat16"] = setting(
        "same",
        "Update precision",
        "bfloat16: layers compute in it; weights, LM head and optimiser states keep theirs. Noisier gradients: "
        "watch the sampler mismatch.",
        "model",
    )
    reference_dtype: Literal["same", "bfloat16"] = setting(
        "same",
        "Reference precision",
        "bfloat16 halves the reference model's memory and time; its log-probabilities then differ by about .006 a "
        "token.",
        "model",
    )
    use_peft: bool = setting(
        False,
        "LoRA",
        "Train a low-rank adapter; the model with the adapter disabled is the reference.",
        "model",
        core=True,
    )
    lora_r: int = setting(16, "LoRA rank", "Rank of the adapter.", "model", ge=1, le=1024)
    lora_alpha: int = setting(32, "LoRA alpha", "Scale of the adapter: alpha / rank.", "model", ge=1)
    lora_target_modules: str = setting(
        "all-linear", "LoRA targets", "`all-linear`, or module names separated by commas.", "model"
    )
    gradient_checkpointing: bool = setting(
        False,
        "Gradient checkpointing",
        "Recompute activations in the backward pass: less memory, about a third slower.",
        "model",
    )

    # -- data ----------------------------------------------------------------------------------------------------
    task: str = setting("chain", "Task", "A bundled task, or `data` for your own prompts.", "data", core=True)
    data: str | None = setting(
        None,
        "Your data",
        "With task `data`: a JSONL, CSV or Parquet file, a dataset folder, or a Hub dataset.",
        "data",
        core=True,
    )
    data_split: str = setting("train", "Split", "Split of a dataset that holds several.", "data")
    heldout: str | None = setting(
        None,
        "Held-out data",
        "A split name or a file for held-out evaluation; without it a tenth of the prompts, drawn by seed, is set "
        "aside.",
        "data",
    )
    prompt_column: str | None = setting(
        None, "Prompt column", "Column with the prompt; guessed from usual names when empty.", "data"
    )
    answer_column: str | None = setting(
        None,
        "Answer column",
        "Column with the reference answer; guessed from usual names when empty.",
        "data",
    )
    system_prompt: str | None = setting(
        None, "System prompt", "Put before every prompt; empty means the task's own.", "data"
    )
    template: Literal["chat", "r1-zero", "plain"] = setting(
        "chat", "Template", "The model's chat template, an R1-Zero style dialogue, or the bare text.", "data"
    )
    max_prompt_length: int | None = setting(
        None,
        "Max prompt length",
        "Prompts with more tokens are refused before the start; empty means the context length.",
        "data",
        ge=1,
    )
    train_problems: int = setting(
        256,
        "Training problems",
        "Size of the training split of generated tasks, drawn by seed.",
        "data",
        ge=2,
        le=1_000_000,
    )
    min_level: int | None = setting(
        None,
        "Easiest level",
        "Lowest difficulty of generated tasks; empty means the task's own (chain: 3 operations).",
        "data",
        ge=1,
        le=64,
    )
    max_level: int | None = setting(
        None,
        "Hardest level",
        "Highest difficulty of generated tasks; empty means the task's own (chain: 9 operations).",
        "data",
        ge=1,
        le=64,
    )

    # -- reward --------------------------------------------------------------------------------------------------
    rewards: list[RewardSpec] = setting(
        [RewardSpec(name="correct")],
        "Rewards",
        "Catalogue names or file.py:function, each with a weight.",
        "reward",
        core=True,
        live=True,
    )
    multi_objective_aggregation: Aggregation = setting(
        "sum_then_normalize",
        "Reward aggregation",
        "Sum the weighted rewards, then normalise in the group; or normalise each reward first (GDPO).",
        "reward",
    )
    reward_clip: float | None = setting(
        None, "Reward clip", "Total rewards are clipped to plus or minus this; empty is off.", "reward", gt=0
    )
    reward_timeout: float = setting(
        10.0,
        "Reward timeout",
        "Seconds one reward call may take; after that its value is absent.",
        "reward",
        gt=0,
        le=3600,
    )
    human_timeout: float = setting(
        600.0,
        "Rating timeout",
        "Seconds a step waits for people to rate its samples, where a reward asks for that; samples without a "
        "rating then have no value.",
        "reward",
        ge=0,
        le=86400,
    )
    reward_workers: int = setting(
        1, "Reward processes", "Processes that score samples.", "reward", ge=1, le=64
    )
    reward_error_policy: Literal["mask", "stop"] = setting(
        "mask",
        "Failed rewards",
        "Leave failed samples out of the group (mask), or stop the run above 5 % failures.",
        "reward",
    )

    # -- group ---------------------------------------------------------------------------------------------------
    prompts_per_step: int = setting(
        8,
        "Prompts per step",
        "Groups in each step. Samples per step = prompts x samples per group.",
        "group",
        core=True,
        ge=1,
        le=4096,
    )
    num_generations: int = setting(
        8,
        "Samples per group G",
        "Samples drawn for each prompt and compared with each other.",
        "group",
        core=True,
        live=True,
        ge=2,
        le=1024,
        remedy="A group needs at least 2 samples, or there is nothing to compare; 8 is usual",
    )
    temperature: float = setting(
        1.0,
        "Temperature",
        "Sampling temperature; log-probabilities in training use it too.",
        "group",
        core=True,
        live=True,
        gt=0,
        le=10,
    )
    top_p: float = setting(1.0, "Top-p", "Nucleus sampling; 1 is off.", "group", gt=0, le=1)
    top_k: int = setting(0, "Top-k", "Sample among the k likeliest tokens; 0 is off.", "group", ge=0)
    min_p: float = setting(
        0.0, "Min-p", "Drop tokens below this share of the likeliest one; 0 is off.", "group", ge=0, le=1
    )
    max_completion_length: int = setting(
        512,
        "Max completion length",
        "Tokens a sample may have; longer ones are cut and marked truncated.",
        "group",
        core=True,
        live=True,
        ge=1,
    )
    mask_truncated_completions: bool = setting(
        False,
        "Mask truncated samples",
        "Leave truncated samples out of the loss (they still count in the group mean).",
        "group",
    )
    dynamic_sampling: bool = setting(
        False,
        "Dynamic sampling",
        "Replace groups whose rewards are all equal by new prompts (DAPO).",
        "group",
    )
    max_resample_rounds: int = setting(
        3, "Max resampling rounds", "Most rounds of dynamic sampling in a step.", "group", ge=1, le=20
    )
    adaptive_group_max: int | None = setting(
        None,
        "Max adaptive group size",
        "Extend groups whose rewards are all equal, up to this many samples; empty is off.",
        "group",
        ge=2,
        le=4096,
    )

    # -- update --------------------------------------------------------------------------------------------------
    steps: int = setting(
        100,
        "Steps",
        "Each draws a batch of samples and trains on it.",
        "update",
        core=True,
        ge=1,
        le=10_000_000,
    )
    learning_rate: float = setting(
        1e-6,
        "Learning rate",
        "Peak learning rate of the optimiser.",
        "update",
        core=True,
        live=True,
        gt=0,
        le=1,
    )
    lr_scheduler_type: Literal["constant", "linear", "cosine"] = setting(
        "linear", "LR schedule", "Learning rate after the warm-up.", "update"
    )
    warmup_steps: int = setting(0, "Warm-up steps", "Steps of linear warm-up.", "update", ge=0)
    optim: Literal["adamw_torch_fused", "adamw_torch", "adafactor", "sgd"] = setting(
        "adamw_torch_fused",
        "Optimiser",
        "AdamW keeps two numbers a weight; adafactor a row and a column a matrix, its rate being relative to the "
        "weights' size; sgd nothing. The last two ignore the Adam settings.",
        "update",
    )
    weight_decay: float = setting(
        0.0,
        "Weight decay",
        "Shrinks weights by learning rate x this at each update; sgd adds it to the gradient.",
        "update",
        ge=0,
    )
    adam_beta1: float = setting(
        0.9, "Adam beta 1", "AdamW first moment; ignored by adafactor and sgd.", "update", ge=0, lt=1
    )
    adam_beta2: float = setting(
        0.999, "Adam beta 2", "AdamW second moment; ignored by adafactor and sgd.", "update", ge=0, lt=1
    )
    adam_epsilon: float = setting(
        1e-8,
        "Adam epsilon",
        "Added to AdamW's divisor. Larger values keep late steps small, when most groups agree and the gradient is mostly noise. "
        "Ignored by adafactor and sgd.",
        "update",
        gt=0,
        le=1,
    )
    max_grad_norm: float = setting(
        1.0, "Max gradient norm", "Gradients with a larger norm are scaled down to it.", "update", gt=0
    )
    num_iterations: int = setting(
        1,
        "Iterations per generation μ",
        "Passes over each generation; above 1 the ratio leaves 1 and the clip takes effect.",
        "update",
        ge=1,
        le=64,
    )
    steps_per_generation: int = setting(
        1,
        "Updates per iteration",
        "Mini-batches, whole groups each, that one pass over a generation is split into; one optimiser update "
        "each.",
        "update",
        ge=1,
        le=64,
    )
    micro_batch_tokens: int | None = setting(
        None,
        "Tokens per microbatch",
        "Most tokens in one forward pass; empty means 1,024 on a CPU and 8,192 elsewhere. Changes memory and "
        "speed, not the objective.",
        "update",
        ge=64,
    )
    loss_type: LossType = setting(
        "dapo", "Loss", "What each token contributes, and what the sum is divided by.", "update", core=True
    )
    importance_sampling_level: RatioLevel = setting(
        "token", "Importance ratio", "Of each token, or of the whole sample (GSPO).", "update"
    )
    epsilon: float = setting(
        0.2, "Clip ε below", "Ratios below 1 - ε are clipped where A < 0.", "update", ge=0, le=1
    )
    epsilon_high: float | None = setting(
        None,
        "Clip ε above",
        "Ratios above 1 + this are clipped where A > 0; empty means ε. CISPO: the cap itself.",
        "update",
        ge=0,
    )
    delta: float | None = setting(
        None,
        "Two-sided clip δ",
        "Caps the ratio also where A < 0 (INTELLECT-2 uses 4); empty is off.",
        "update",
        gt=1,
    )
    dual_clip: float | None = setting(
        None,
        "Dual clip",
        "Lower bound of the objective where A < 0, as a multiple of A; empty is off.",
        "update",
        gt=1,
    )
    sapo_temperature_pos: float = setting(
        1.0, "SAPO temperature, A > 0", "Only for loss sapo.", "update", gt=0
    )
    sapo_temperature_neg: float = setting(
        1.05, "SAPO temperature, A < 0", "Only for loss sapo.", "update", gt=0
    )
    scale_rewards: Scale = setting(
        "group",
        "Advantage scaling",
        "What the centred rewards are divided by: the group's std, the batch's std, or nothing (Dr. GRPO).",
        "update",
        core=True,
    )
    advantage_std: Std = setting(
        "sample", "Std convention", "sample divides by n - 1 (TRL), population by n (the papers).", "update"
    )
    advantage_eps: float = setting(
        1e-4, "Advantage ε", "Added to the std that advantages are divided by.", "update", ge=0, le=1
    )
    advantage_baseline: Baseline = setting(
        "mean",
        "Advantage baseline",
        "Subtracted from each reward: the group's mean, or the mean of the other samples (RLOO).",
        "update",
    )
    importance_sampling_correction: Correction = setting(
        "off",
        "Sampler correction",
        "Importance sampling: weight by trainer / sampler probability where the two differ for the same token.",
        "update",
    )
    importance_sampling_clip_max: float = setting(
        3.0, "Max importance weight", "Largest weight of that correction.", "update", gt=0
    )
    importance_sampling_clip_min: float | None = setting(
        None, "Min importance weight", "Smallest weight of that correction; empty is off.", "update", ge=0
    )
    off_policy_mask_threshold: float | None = setting(
        None,
        "Off-policy mask",
        "Leave out samples with A < 0 that the policy has moved away from by this many nats a token; empty is "
        "off.",
        "update",
        gt=0,
    )
    entropy_coef: float = setting(
        0.0, "Entropy bonus", "Weight of the mean token entropy in the objective.", "update", ge=0
    )

    # -- reference -----------------------------------------------------------------------------------------------
    beta: float = setting(
        0.0,
        "KL coefficient β",
        "Weight of the KL(policy || reference) penalty.",
        "reference",
        core=True,
        live=True,
        ge=0,
        le=1000,
        remedy="β is the weight of a penalty and cannot be negative; 0 switches it off, papers use .001 to .04",
    )
    kl_estimator: KlEstimator = setting(
        "k3",
        "KL estimator",
        "Estimate of KL(policy || reference) from sampled tokens; k3 is GRPO's.",
        "reference",
    )
    kl_in: Literal["loss", "reward"] = setting(
        "loss", "KL penalty in", "The loss, or each sample's reward.", "reference"
    )
    record_kl: bool = setting(
        True,
        "Record KL at β = 0",
        "One forward pass of the reference model a step, so that drift is seen even where it is not penalised "
        "(and drift from the start, where the reference moves).",
        "reference",
    )
    beta_controller: Literal["fixed", "ziegler", "ppo"] = setting(
        "fixed", "KL controller", "Keep β fixed, or adapt it towards a KL target.", "reference"
    )
    kl_target: float | None = setting(
        None,
        "KL target",
        "For adaptive β: nats per sample (ziegler) or per token (ppo).",
        "reference",
        gt=0,
    )
    sync_ref_model: bool = setting(
        False,
        "Sync reference model",
        "Mix the policy into the reference model now and then; with LoRA this keeps a second copy of the model.",
        "reference",
    )
    ref_model_mixup_alpha: float = setting(
        0.6,
        "Reference mixup α",
        "reference = α x policy + (1 - α) x reference; 1 replaces it.",
        "reference",
        gt=0,
        le=1,
    )
    ref_model_sync_steps: int = setting(
        512, "Reference sync interval", "Steps between two syncs of the reference model.", "reference", ge=1
    )

    # -- evaluation ---------------------------------------------------------------------------------------------------
    eval_steps: int = setting(
        10,
        "Evaluation interval",
        "Steps between held-out evaluations; the base model is evaluated before step 0.",
        "evaluation",
        ge=1,
    )
    eval_problems: int = setting(
        128,
        "Held-out problems",
        "Problems in each evaluation, never trained on.",
        "evaluation",
        ge=0,
        le=100_000,
    )
    eval_reward: str | None = setting(
        None,
        "Accuracy reward",
        "Reward that decides right or wrong in evaluations; empty means the task's verifier.",
        "evaluation",
    )
    watched_prompts: int = setting(
        16,
        "Watched prompts",
        "Held-out prompts whose samples are recorded at every evaluation.",
        "evaluation",
        ge=0,
        le=256,
    )
    watched_samples: int = setting(
        4,
        "Watched samples",
        "Samples of each watched prompt, at every evaluation.",
        "evaluation",
        ge=1,
        le=64,
    )

    # -- record --------------------------------------------------------------------------------------------------
    probe_every: int = setting(
        1,
        "Post-update log-prob interval",
        "Steps between passes that recompute the log-probabilities of a step's tokens after its update; 0 is off.",
        "record",
        ge=0,
    )
    keep_token_steps: int = setting(
        200,
        "Steps with token arrays",
        "Newest steps whose token arrays are kept; every tenth older one is kept too.",
        "record",
        ge=1,
    )
    save_steps: int = setting(10, "Checkpoint interval", "Steps between checkpoints.", "record", ge=1)
    save_total_limit: int = setting(
        2, "Checkpoints kept", "Newest checkpoints that stay, beside the best held-out one.", "record", ge=1
    )
    wandb: Literal["offline", "online", "off"] = setting(
        "offline", "wandb", "Weights & Biases logging.", "record"
    )
    wandb_project: str = setting(
        "grpo-workbench", "wandb project", "Project name in Weights & Biases.", "record", min_length=1
    )
    run_name: str | None = setting(
        None, "Run name", "A name for people; the run's id stays unique.", "record", max_length=120
    )

    # -- machine -------------------------------------------------------------------------------------------------
    seed: int = setting(
        42, "Seed", "The same seed gives the same run.", "machine", core=True, ge=0, le=2**31 - 1
    )
    device: Literal["auto", "cpu", "cuda", "mps"] = setting(
        "auto", "Device", "Where the model runs.", "machine"
    )
    engine: Literal["local", "transformers"] = setting(
        "local",
        "Sampler",
        "`local` is the workbench's decode loop; `transformers` is `generate`, the slow reference path.",
        "machine",
    )
    packed_update: bool = setting(
        True,
        "Packed update",
        "Compute each prompt once for its whole group and fuse LM head and loss; off is plain autograd on padded "
        "samples: slower, the same result.",
        "machine",
    )
    threads: int | None = setting(
        None,
        "CPU threads",
        "Threads of the training process; empty means all but one, at least 1.",
        "machine",
        ge=1,
        le=512,
    )
    nproc: int = setting(
        1,
        "Processes",
        "Training processes on this machine (torchrun, CPU): each samples and trains on its share of the prompts.",
        "machine",
        ge=1,
        le=64,
    )

    @field_validator("rewards", mode="before")
    @classmethod
    def _rewards_from_text(cls, value: Any) -> Any:
        if isinstance(value, str):
            value = [part for part in value.split(",") if part.strip()]
        if isinstance(value, list | tuple):
            return [RewardSpec.parse(item) if isinstance(item, str) else item for item in value]
        return value

    @field_validator("*", mode="before")
    @classmethod
    def _empty_text_is_none(cls, value: Any, info: ValidationInfo) -> Any:
        # Forms and shells have no None: an empty field, or the word none, means it where None is allowed.
        optional = cls.model_fields[str(info.field_name)].default is None
        return (
            None
            if optional and isinstance(value, str) and value.strip().lower() in ("", "none", "null")
            else value
        )

    @model_validator(mode="after")
    def _settings_agree(self) -> Self:
        problems = dict(self._contradictions())
        if problems:
            raise ConfigError("; ".join(problems.values()), problems)
        return self

    def _contradictions(self) -> list[tuple[str, str]]:
        found: list[tuple[str, str]] = []
        if self.min_level is not None and self.max_level is not None and self.max_level < self.min_level:
            found.append(
                (
                    "max_level",
                    f"max_level = {self.max_level} is below min_level = {self.min_level}. Set it to "
                    f"{self.min_level} or more.",
                )
            )
        if self.task == "data" and not self.data:
            found.append(
                (
                    "data",
                    "task = data needs your prompts: set data to a file, a dataset folder or a Hub dataset.",
                )
            )
        if not any(spec.enabled and spec.weight for spec in self.rewards):
            found.append(
                (
                    "rewards",
                    "No reward counts: every one is off or has weight 0. Switch one on, for example correct=1.",
                )
            )
        names = [spec.name for spec in self.rewards]
        if len(set(names)) < len(names):
            found.append(
                ("rewards", f"A reward is listed twice: {', '.join(names)}. Give each once, with one weight.")
            )
        if self.adaptive_group_max is not None and self.adaptive_group_max <= self.num_generations:
            found.append(
                (
                    "adaptive_group_max",
                    f"adaptive_group_max = {self.adaptive_group_max} must be above num_generations = "
                    f"{self.num_generations}, where groups start. Raise it or leave it empty.",
                )
            )
        if self.beta_controller != "fixed" and (self.kl_target is None or self.beta == 0):
            found.append(
                (
                    "kl_target",
                    f"beta_controller = {self.beta_controller} needs a kl_target and a beta above 0 to start from.",
                )
            )
        if self.kl_in == "reward" and self.multi_objective_aggregation == "normalize_then_sum":
            found.append(
                (
                    "kl_in",
                    "kl_in = reward would be normalised like a reward of its own under normalize_then_sum, so beta would mean "
                    "nothing. Set kl_in to loss, or aggregate with sum_then_normalize.",
                )
            )
        if self.steps_per_generation > self.prompts_per_step:
            found.append(
                (
                    "steps_per_generation",
                    f"steps_per_generation = {self.steps_per_generation}, but a step has only "
                    f"{self.prompts_per_step} groups to split. Set it to {self.prompts_per_step} or less.",
                )
            )
        if self.prompts_per_step % self.nproc:
            found.append(
                (
                    "nproc",
                    f"prompts_per_step = {self.prompts_per_step} does not divide by nproc = {self.nproc}.",
                )
            )
        return found

    @property
    def samples_per_step(self) -> int:
        """Samples drawn in a step, before any resampling or extension."""
        return self.prompts_per_step * self.num_generations

    @property
    def clip_high(self) -> float:
        """Upper clip distance: `epsilon_high`, or `epsilon` where it is empty."""
        return self.epsilon if self.epsilon_high is None else self.epsilon_high

    @property
    def needs_reference(self) -> bool:
        """Whether each step computes log-probabilities under the reference model."""
        return self.beta > 0 or self.record_kl

    @property
    def keeps_reference(self) -> bool:
        """Whether a second copy of the model is kept as the reference: with LoRA the model without its adapter is the reference, unless it
        is synced."""
        return self.needs_reference and (self.sync_ref_model or not self.use_peft)

    @property
    def records_initial_kl(self) -> bool:
        """Whether KL to the initial model is recorded too, because the reference moves away from it."""
        return self.sync_ref_model and self.record_kl

    @classmethod
    def build(cls, preset: str | None = None, overrides: Mapping[str, Any] | None = None) -> Self:
        """Defaults, then a preset's settings (`embedded` where none is named), then `overrides`. Raises ConfigError."""
        values = {**load_preset(preset or DEFAULT_PRESET).settings, **(overrides or {})}
        return cls.parse(values)

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> Self:
        """From plain values (JSON, form fields, command-line text). Raises ConfigError with a message per setting."""
        try:
            return cls.model_validate(renamed.keys(values, renamed.SETTINGS))
        except ValidationError as error:
            problems = {}
            for item in error.errors():
                cause = item.get("ctx", {}).get("error")
                if isinstance(
                    cause, ConfigError
                ):  # settings that contradict each other name their own fields
                    problems.update(cause.problems)
                    continue
                name = str(item["loc"][0]) if item["loc"] else "settings"
                problems.setdefault(name, explain(name, item, cls.model_fields))
            raise ConfigError("\n".join(problems.values()), problems) from None

    def changed(self, **values: Any) -> Self:
        """A validated copy with some settings changed. Raises ConfigError."""
        return self.parse({**self.model_dump(), **values})

    def live_changed(self, values: Mapping[str, Any]) -> Self:
        """A copy with settings changed during the run. Raises ConfigError for those that cannot change then."""
        live = [info.name for info in settings() if info.live]
        problems = {
            name: f"{name} cannot change while a run goes on; these can: {', '.join(live)}. Fork the run to change it."
            for name in values
            if name in type(self).model_fields and name not in live
        }
        if problems:
            raise ConfigError("\n".join(problems.values()), problems)
        return self.changed(**values)


def settings() -> list[SettingInfo]:
    """Every setting of RunConfig in order, with what a form or a docs table needs."""
    return [describe(name, info, _schema()[name]) for name, info in RunConfig.model_fields.items()]


@lru_cache(maxsize=1)
def _schema() -> dict[str, Any]:
    """JSON schema of every setting; making it takes 50 ms, and forms ask for each setting in turn."""
    properties: dict[str, Any] = RunConfig.model_json_schema()["properties"]
    return properties
