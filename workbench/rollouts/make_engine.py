"""Which engine a run gets."""

from workbench.models.fast.decoder import drivable
from workbench.models.load import Policy
from workbench.rollouts.engine import Engine
from workbench.rollouts.local import LocalEngine
from workbench.rollouts.transformers import PlainEngine


def make_engine(name: str, policy: Policy) -> Engine:
    """The local engine, or plain `generate` where that is asked for or the local one cannot drive the model (noted then)."""
    if name == "local":
        reason = drivable(policy.model.config)
        if reason is None:
            return LocalEngine(policy)
        policy.notes.append(
            f"sampling through generate: the local engine cannot drive this model, because {reason}"
        )
    return PlainEngine(policy)
