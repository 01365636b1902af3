"""The table of engines: a run's `engine` setting names a factory, which makes the sampler for a policy."""

from collections.abc import Callable

from workbench.core.config import RunConfig
from workbench.core.errors import ModelError
from workbench.models.fast.decoder import unsupported_reason
from workbench.models.policy import Policy
from workbench.record.folder import RunFolder
from workbench.rollouts import trial
from workbench.rollouts.engine import Engine
from workbench.rollouts.local import LocalEngine
from workbench.rollouts.transformers import TransformersEngine

Factory = Callable[[RunConfig, Policy, RunFolder], Engine]


def _local(config: RunConfig, policy: Policy, folder: RunFolder) -> Engine:
    """The local engine; plain `generate` for a model that it cannot decode, which is noted in the policy."""
    reason = unsupported_reason(policy.model) or trial.problem_of(LocalEngine(trial.quiet(policy)), policy)
    if not reason:
        return LocalEngine(policy)
    engine = _transformers(config, policy, folder)
    note = f"sampling through generate: the local engine cannot decode with this model, because {reason}"
    if note not in policy.notes:
        policy.notes.append(note)
    return engine


def _transformers(config: RunConfig, policy: Policy, folder: RunFolder) -> Engine:
    if reason := trial.problem_of(TransformersEngine(trial.quiet(policy)), policy):
        raise ModelError(
            f"This model ({policy.model.config.model_type}) cannot be sampled from: through the library's own generate, {reason}. "
            "Training on such samples would go astray. Choose another model."
        )
    return TransformersEngine(policy)


ENGINES: dict[str, Factory] = {"local": _local, "transformers": _transformers}
"""Factories by the values of the setting `engine`."""


def _tried(engine: Engine, policy: Policy) -> Engine:
    kind = TransformersEngine if engine.name == TransformersEngine.name else LocalEngine
    return kind(trial.quiet(policy))


def make_engine(config: RunConfig, policy: Policy, folder: RunFolder) -> Engine:
    """The sampler that a run is set to, tried on a few made-up prompts. `folder`: where an engine may put what it needs on disk.
    Raises ModelError for a model that no engine can sample from, or that the update would read wrongly."""
    engine = ENGINES[config.engine](config, policy, folder)
    if reason := trial.trainer_problem(_tried(engine, policy), policy):
        raise ModelError(
            f"This model ({policy.model.config.model_type}) cannot be trained here: the update reads completions side by side, and {reason}. "
            "Choose another model."
        )
    return engine
