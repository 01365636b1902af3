"""The table of engines: a run's `engine` setting names a factory, which makes the sampler for a policy."""

from collections.abc import Callable

from workbench.core.config import RunConfig
from workbench.models.fast.decoder import unsupported_reason
from workbench.models.policy import Policy
from workbench.record.folder import RunFolder
from workbench.rollouts.engine import Engine
from workbench.rollouts.local import LocalEngine
from workbench.rollouts.transformers import TransformersEngine

Factory = Callable[[RunConfig, Policy, RunFolder], Engine]


def _local(config: RunConfig, policy: Policy, folder: RunFolder) -> Engine:
    """The local engine; plain `generate` for a model that it cannot decode, which is noted in the policy."""
    reason = unsupported_reason(policy.model.config)
    if reason is None:
        return LocalEngine(policy)
    policy.notes.append(
        f"sampling through generate: the local engine cannot decode with this model, because {reason}"
    )
    return TransformersEngine(policy)


def _transformers(config: RunConfig, policy: Policy, folder: RunFolder) -> Engine:
    return TransformersEngine(policy)


ENGINES: dict[str, Factory] = {"local": _local, "transformers": _transformers}
"""Factories by the values of the setting `engine`."""


def make_engine(config: RunConfig, policy: Policy, folder: RunFolder) -> Engine:
    """The sampler that a run is set to. `folder`: where an engine may put what it needs on disk."""
    return ENGINES[config.engine](config, policy, folder)
