"""What probes run on: settings, and the tokenizer, policy and engine that belong to them, loaded when first needed.

A probe worker loads a policy of its own; a training worker hands in its policy and runs probes between two steps.
"""

import contextlib
import dataclasses
import importlib
from collections.abc import Callable, Iterator
from typing import Any

from workbench.core.config import RunConfig
from workbench.core.errors import ModelError, WorkbenchError
from workbench.core.types import Prompt
from workbench.prompts import task_of
from workbench.record.control import Control
from workbench.record.folder import RunFolder

_MODEL_SETTINGS = (
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


class ProbeContext:
    """Settings, tokenizer, policy and engine for probes. Nothing heavy is imported or loaded, and no device taken, before a
    probe needs it."""

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
        self.owns_policy = policy is None
        """Whether the policy is a copy that probes may change."""
        self._policy = policy
        self._tokenizer: Any = None
        self._engine: Any = None
        self._take_device = take_device

    def use_settings(self, config: RunConfig) -> None:
        """Use other settings from now on; the model is loaded anew where it depends on them. Raises WorkbenchError in a
        training run."""
        if not self.owns_policy:
            raise WorkbenchError(
                "A training run answers about its own settings. Ask a probe worker about others."
            )
        if any(getattr(config, name) != getattr(self.config, name) for name in _MODEL_SETTINGS) or (
            config.needs_reference and not self.config.needs_reference
        ):
            self.drop_policy()
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
            self._engine = importlib.import_module("workbench.rollouts.registry").make_engine(
                self.config, self.policy, self.folder
            )
        self._engine.sync(self.policy.version)  # a training run updates the policy between two probes
        return self._engine

    @contextlib.contextmanager
    def sampler(self, *, base: bool = False) -> Iterator[Any]:
        """The engine; with `base` one that samples from the base model. Raises WorkbenchError where the run keeps no copy of
        it."""
        if not base or self.owns_policy:  # a probe worker was given the base model itself
            yield self.engine
            return
        if self.config.sync_ref_model or not (self.policy.is_lora or self.policy.reference is not None):
            raise WorkbenchError("This run keeps no copy of its base model. Ask again when it is over.")
        make_engine = importlib.import_module("workbench.rollouts.registry").make_engine
        with self.policy.reference_model() as model:
            yield make_engine(self.config, dataclasses.replace(self.policy, model=model), self.folder)

    @property
    def tokenizer(self) -> Any:
        """The tokenizer alone, where the model itself is not needed."""
        if self._policy is not None:
            return self._policy.tokenizer
        if self._tokenizer is None:
            self.control.phase("load tokenizer")
            place = importlib.import_module("workbench.models.load").model_source(self.config.model)
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
        """Prompts as the model reads them, without a limit on their length: the client is to see how long they are."""
        chat = importlib.import_module("workbench.models.chat")
        rendered: list[Prompt] = chat.render(
            prompts,
            self.tokenizer,
            self.config.template,
            task_of(self.config).system_prompt(self.config),
            None,
        )
        return rendered

    def drop_policy(self) -> None:
        """Forget the policy: a rehearsal has changed it, or other settings need another one."""
        self._policy = self._engine = self._tokenizer = None
