"""Questions to a model outside training: what it reads, what a step costs, what it answers.

In: `probe` commands from the inbox. Out: their answers as events of the run. A bench worker answers them with
a policy of its own; a training worker hands in its policy and answers between two steps.
"""

import contextlib
import dataclasses
import importlib
import resource
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from workbench.config import RunConfig
from workbench.control import Control
from workbench.errors import ModelError, WorkbenchError
from workbench.prompts import task_of
from workbench.prompts.stream import PromptStream
from workbench.record.folder import Command, RunFolder
from workbench.record.redact import redact_text
from workbench.rewards.wire import plain
from workbench.types import Prompt, Request, Sampling, sample_seed

SHOWN_PROMPTS = 5
MOST_SAMPLES = 64
MOST_PROMPTS = 64
_OF_THE_MODEL = (
    "model",
    "dtype",
    "device",
    "engine",
    "use_peft",
    "lora_r",
    "lora_alpha",
    "lora_target_modules",
    "gradient_checkpointing",
)
"""Settings that a loaded policy depends on."""


class Bench:
    """Answers probes. Nothing heavy is imported or loaded, and no device taken, before a probe needs it."""

    def __init__(
        self,
        config: RunConfig,
        folder: RunFolder,
        control: Control,
        *,
        policy: Any = None,
        take_device: Callable[[RunConfig], bool] = lambda config: True,
    ) -> None:
        self.config = config
        self.folder = folder
        self.control = control
        self._owned = policy is None
        self._policy = policy
        self._tokenizer: Any = None
        self._engine: Any = None
        self._take_device = take_device

    def answer(self, command: Command) -> None:
        """Answer one probe. `args`: its name as `probe`, what it takes, and as `config` the settings it asks
        about (else the bench's own). A failure is an answer too."""
        name = str(command.args.get("probe", ""))
        handler = HANDLERS.get(name)
        if command.command != "probe" or handler is None:
            self.control.answer(
                command,
                False,
                f"There is no probe {name or command.command!r}. There are: {', '.join(HANDLERS)}.",
            )
            return
        started = time.monotonic()
        try:
            if "config" in command.args:
                self._ask_about(RunConfig.parse(command.args["config"]))
            result = handler(self, command.args)
        except WorkbenchError as error:
            self.control.answer(command, False, redact_text(str(error)))
        except Exception as error:  # process boundary: the asker gets the reason, the log the whole of it
            print(redact_text(traceback.format_exc()), file=sys.stderr, flush=True)
            self.control.answer(command, False, redact_text(f"{type(error).__name__}: {error}"))
        else:
            seconds = time.monotonic() - started
            self.control.answer(
                command, True, f"{name} took {seconds:.1f} s", {**result, "seconds_taken": seconds}
            )

    def _ask_about(self, config: RunConfig) -> None:
        if not self._owned:
            raise WorkbenchError("A training run answers about its own settings. Ask a bench about others.")
        if any(getattr(config, name) != getattr(self.config, name) for name in _OF_THE_MODEL) or (
            config.needs_reference and not self.config.needs_reference
        ):
            self.forget()
        self.config = config

    # -- loaded when first needed: torch takes seconds -----------------------------------------------------

    @property
    def policy(self) -> Any:
        """The model, its tokenizer and its reference."""
        if self._policy is None:
            if self.control.lease is None and not self._take_device(self.config):
                raise WorkbenchError("Stopped while waiting for the device.")
            self.control.running()
            self.control.phase("load model")
            self._policy = importlib.import_module("workbench.models.load").load_policy(self.config)
        return self._policy

    @property
    def engine(self) -> Any:
        """The sampler of the policy."""
        if self._engine is None:
            self._engine = importlib.import_module("workbench.rollouts.choose").make_engine(
                self.config.engine, self.policy
            )
        return self._engine

    @contextlib.contextmanager
    def sampler(self, *, base: bool = False) -> Iterator[Any]:
        """The engine, or one of the reference instead. Raises WorkbenchError where there is none that stood
        still."""
        if not base or self._owned:  # a bench was given the base model itself
            yield self.engine
            return
        if self.config.sync_ref_model or not (self.policy.is_lora or self.policy.reference is not None):
            raise WorkbenchError("This run keeps no copy of its base model. Ask again when it is over.")
        make_engine = importlib.import_module("workbench.rollouts.choose").make_engine
        with self.policy.as_reference() as model:
            yield make_engine(self.config.engine, dataclasses.replace(self.policy, model=model))

    @property
    def tokenizer(self) -> Any:
        """The tokenizer alone, where the model itself is not needed."""
        if self._policy is not None:
            return self._policy.tokenizer
        if self._tokenizer is None:
            self.control.phase("load tokenizer")
            place = importlib.import_module("workbench.models.load").locate(self.config.model)
            try:
                self._tokenizer = importlib.import_module("transformers").AutoTokenizer.from_pretrained(
                    place, padding_side="left", trust_remote_code=False
                )
            except (OSError, ValueError) as error:
                raise ModelError(
                    f"The tokenizer of {self.config.model} could not be loaded: {str(error).splitlines()[0]}"
                ) from error
        return self._tokenizer

    def render(self, prompts: list[Prompt]) -> list[Prompt]:
        """Prompts as the model reads them, without a limit on their length: that is for the asker to see."""
        chat = importlib.import_module("workbench.models.chat")
        rendered: list[Prompt] = chat.render(
            prompts,
            self.tokenizer,
            self.config.template,
            task_of(self.config).system_prompt(self.config),
            None,
        )
        return rendered

    def forget(self) -> None:
        """Drop the policy: a rehearsal has changed it, or another one is asked about."""
        self._policy = self._engine = self._tokenizer = None


def prompts(bench: Bench, args: Mapping[str, Any]) -> dict[str, Any]:
    """What the model will read: a few prompts with their token counts, and the longest of all."""
    split = task_of(bench.config).load(bench.config)
    train, heldout = bench.render(split.train), bench.render(split.heldout)
    lengths = sorted(len(prompt.token_ids) for prompt in [*train, *heldout])
    longest = max(train, key=lambda prompt: len(prompt.token_ids))
    shown = [_prompt(prompt) for prompt in train[: int(args.get("count", SHOWN_PROMPTS))]]
    return {
        "prompts": shown,
        "longest": _prompt(longest),
        "train": len(train),
        "heldout": len(heldout),
        "tokens": {"min": lengths[0], "median": lengths[len(lengths) // 2], "max": lengths[-1]},
        "warnings": list(split.warnings),
    }


def rehearsal(bench: Bench, args: Mapping[str, Any]) -> dict[str, Any]:
    """One whole step on the longest prompts: seconds and peak memory of sampling and of the update. The
    policy it changed is thrown away."""
    if not bench._owned:
        raise WorkbenchError(
            "A rehearsal changes weights, so a training run cannot do it. Ask a bench worker."
        )
    update = importlib.import_module("workbench.update")
    numpy = importlib.import_module("numpy")
    config = bench.config
    split = task_of(config).load(config)
    asked = sorted(bench.render(split.train), key=lambda prompt: -len(prompt.token_ids))[
        : config.prompts_per_step
    ]
    requests = [
        Request(
            prompt, tuple(sample_seed(config.seed, -2, prompt.id, i) for i in range(config.num_generations))
        )
        for prompt in asked
    ]
    engine, updater = bench.engine, update.Updater(bench.policy, config)
    meter = Meter(bench.policy.device)
    bench.control.phase("sample")
    groups = engine.generate(
        requests, update.sampling_of(config), lambda done, total: bench.control.phase("sample", done, total)
    )
    sampled = meter.lap()
    # Without a reward every other answer counts as right: the cost of an update does not depend on which.
    advantages_B = numpy.concatenate(
        [numpy.where(numpy.arange(len(group)) % 2, 1.0, -1.0) for group in groups]
    )
    bench.control.phase("update")
    reference = updater.reference(groups, config) if config.needs_reference else None
    updater.step(groups, advantages_B, config, 0, reference_B_T=reference)
    updated = meter.lap()
    lengths = [rollout.length for group in groups for rollout in group.rollouts]
    bench.forget()
    return {
        "sample": sampled,
        "update": updated,
        "seconds": sampled["seconds"] + updated["seconds"],
        "peak_bytes": max(sampled["peak_bytes"], updated["peak_bytes"]),
        "answers": len(lengths),
        "mean_length": sum(lengths) / len(lengths),
        "longest_answer": max(lengths),
        "longest_prompt": len(asked[0].token_ids),
        "step_seconds_at_limit": _at_limit(sampled, updated, lengths, config),
    }


def sample(bench: Bench, args: Mapping[str, Any]) -> dict[str, Any]:
    """Fresh answers to `prompt` (a question, rendered like the run's own): `n` of them, with `temperature`,
    `seed`, `max_completion_length`. `base`: of the model the run began with, where the worker has it as its
    reference."""
    question = str(args.get("prompt") or "").strip()
    if not question:
        raise WorkbenchError("The probe `sample` needs a prompt: the question as a person would write it.")
    count = min(MOST_SAMPLES, max(1, int(args.get("n", 1))))
    config, seed = bench.config, int(args.get("seed", bench.config.seed))
    [prompt] = bench.render([Prompt(question, args.get("answer"))])
    sampling = Sampling(
        float(args.get("temperature", config.temperature)),
        config.top_p,
        config.top_k,
        config.min_p,
        int(args.get("max_completion_length", config.max_completion_length)),
    )
    request = Request(prompt, tuple(sample_seed(seed, -3, prompt.id, index) for index in range(count)))
    with bench.sampler(base=bool(args.get("base"))) as engine:
        [group] = engine.generate(
            [request], sampling, lambda done, total: bench.control.phase("sample", done, total)
        )
    return {
        "prompt": _prompt(prompt),
        "samples": [
            {
                "text": rollout.text,
                "length": rollout.length,
                "finish_reason": rollout.finish_reason,
                "seed": rollout.seed,
                "logprob_sum": float(rollout.logprobs.sum()),
            }
            for rollout in group.rollouts
        ],
    }


def branch(bench: Bench, args: Mapping[str, Any]) -> dict[str, Any]:
    """Credit at a token; see `branching.branch`."""
    # Rewards are needed by no other probe.
    found: dict[str, Any] = importlib.import_module("workbench.branching").branch(bench, args)
    return found


def fresh(bench: Bench, args: Mapping[str, Any]) -> dict[str, Any]:
    """Answers of the model to the prompts of the first step: `n` to each of `prompts` of them, as a run with these settings would
    sample them. For trying rewards on, so with all that a reward may ask for."""
    config = bench.config
    count = min(MOST_SAMPLES, max(1, int(args.get("n", config.num_generations))))
    train = task_of(config).load(config).train
    wanted = min(MOST_PROMPTS, len(train), max(1, int(args.get("prompts", config.prompts_per_step))))
    asked = bench.render(PromptStream(train, wanted, config.seed).at(0))
    requests = [
        Request(prompt, tuple(sample_seed(config.seed, 0, prompt.id, index) for index in range(count)))
        for prompt in asked
    ]
    sampling = Sampling(
        config.temperature, config.top_p, config.top_k, config.min_p, config.max_completion_length
    )
    groups = bench.engine.generate(
        requests, sampling, lambda done, total: bench.control.phase("sample", done, total)
    )
    return {
        "groups": [
            {
                "prompt_id": group.prompt.id,
                "question": group.prompt.question,
                "text": group.prompt.text,
                "answer": group.prompt.answer,
                "columns": plain(group.prompt.columns),
                "samples": [
                    {
                        "text": rollout.text,
                        "length": rollout.length,
                        "finish_reason": rollout.finish_reason,
                        "tokens": rollout.token_ids.tolist(),
                    }
                    for rollout in group.rollouts
                ],
            }
            for group in groups
        ]
    }


HANDLERS: dict[str, Callable[[Bench, Mapping[str, Any]], dict[str, Any]]] = {
    "branch": branch,
    "prompts": prompts,
    "rehearsal": rehearsal,
    "sample": sample,
    "fresh": fresh,
}
"""Every probe by name."""


class Meter:
    """Seconds and peak bytes since the last lap: of the device where it counts them, else of this process."""

    def __init__(self, device: Any) -> None:
        self._cuda = importlib.import_module("torch").cuda if device.type == "cuda" else None
        self._start()

    def lap(self) -> dict[str, float]:
        """What happened since the last one."""
        if self._cuda:
            self._cuda.synchronize()
        found = {"seconds": time.monotonic() - self._began, "peak_bytes": float(self._peak())}
        self._start()
        return found

    def _start(self) -> None:
        self._began = time.monotonic()
        if self._cuda:
            self._cuda.reset_peak_memory_stats()
            return
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")  # Linux: the high-water mark begins anew

    def _peak(self) -> int:
        if self._cuda:
            return int(self._cuda.max_memory_allocated())
        try:
            lines = Path("/proc/self/status").read_text().splitlines()
            return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
        except (OSError, StopIteration):
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (
                1 if sys.platform == "darwin" else 1024
            )


def _prompt(prompt: Prompt) -> dict[str, Any]:
    return {
        "id": prompt.id,
        "question": prompt.question,
        "text": prompt.text,
        "answer": prompt.answer,
        "tokens": len(prompt.token_ids),
    }


def _at_limit(
    sampled: Mapping[str, float], updated: Mapping[str, float], lengths: list[int], config: RunConfig
) -> float:
    """Seconds of a step in which every answer runs to the limit: sampling grows with the longest answer, the
    update with the mean."""
    longest, mean = max(1, max(lengths)), max(1.0, sum(lengths) / len(lengths))
    return (
        sampled["seconds"] * config.max_completion_length / longest
        + updated["seconds"] * config.max_completion_length / mean
    )
