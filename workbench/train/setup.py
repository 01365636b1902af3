"""Everything a run is made of, assembled before its first step: model, prompts, rewards, record, and where it goes on from.

In: a RunConfig, its run folder and the `Control` of its process. Out: a `TrainingRun`, whose parts are closed in reverse order.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from workbench.core.config import RunConfig
from workbench.core.errors import DataError
from workbench.core.types import Prompt
from workbench.diagnose.alarms.recorder import AlarmRecorder
from workbench.diagnose.alarms.remedies import RunLimits
from workbench.models import chat
from workbench.models.load import load_policy
from workbench.models.policy import Policy
from workbench.prompts import PromptStream, task_of
from workbench.record.control import Control
from workbench.record.folder import Command, RunFolder
from workbench.record.wandb_sink import WandbSink
from workbench.record.writer import Writer
from workbench.rollouts.engine import Engine
from workbench.rollouts.registry import make_engine
from workbench.train.checkpointing import resume
from workbench.train.checkpointing.replay import Replay
from workbench.train.clock import Clock
from workbench.train.distributed.leader import broadcast_state, leading, leading_engine, leading_updater
from workbench.train.guards import Disk
from workbench.train.oom import OomRetryEngine
from workbench.train.reward_pools import RewardPools
from workbench.train.reward_stage import RewardStage
from workbench.train.step_recorder import StepRecorder
from workbench.train.update import Updater

ProbeHandler = Callable[[Command], None]
MakeProbeHandler = Callable[[RunConfig, RunFolder, Control, Policy], ProbeHandler]
"""Makes what replies to `probe` commands from a run's settings and policy: `worker.probes.handler_for_run`. The loop only calls it."""


@dataclass
class TrainingRun:
    """The parts of a run, and its settings as they are now."""

    config: RunConfig
    """Changes at step boundaries only: by live settings and by KL controllers."""
    first: int
    """The step it begins with; above 0 for a resumed run."""
    folder: RunFolder
    control: Control
    policy: Policy
    updater: Updater
    engine: Engine
    prompts: PromptStream
    heldout: Sequence[Prompt]
    reward_stage: RewardStage
    accuracy_reward: str
    """Name of the reward that decides right or wrong."""
    recorder: StepRecorder
    replay: Replay
    needs: resume.Needs
    clock: Clock
    disk: Disk
    handle_probe: ProbeHandler | None


@contextmanager
def training_run(
    config: RunConfig, folder: RunFolder, control: Control, probe_handler: MakeProbeHandler | None = None
) -> Iterator[TrainingRun]:
    """Assemble a run, from its start or from its newest checkpoint. Raises WorkbenchError for what a user can mend."""
    with ExitStack() as stack:
        control.phase("load model")
        ranks = stack.enter_context(leading(config))
        policy = load_policy(config)
        updater = leading_updater(policy, config, ranks)
        control.phase("prepare")
        train_prompts, heldout = rendered(config, policy)
        needs = resume.needs_of(folder, config, [*train_prompts, *heldout])
        initial = config
        first, config, replay, notes = resume.begin(
            folder, config, policy, updater, needs, warm_start=control.warm_start
        )
        broadcast_state(ranks, policy, updater)
        # Scores go by the function's name, also where the setting is `file.py:function`.
        accuracy_reward = (config.eval_reward or task_of(config).rewards[0]).rpartition(":")[2]
        reward_pools = stack.enter_context(
            RewardPools(initial, folder.about()["rewards"], folder.rewards, recorded=replay.scores)
        )
        writer = stack.enter_context(Writer(folder, config, token_text=chat.token_text(policy.tokenizer)))
        control.record_to(writer.event)
        stack.callback(control.close_inbox)
        tracker = stack.enter_context(WandbSink(folder, config))
        engine = leading_engine(OomRetryEngine(make_engine(config, policy, folder)), ranks, policy)
        if replay.begun:
            writer.start_attempt(first)
        control.event(
            "resumed" if replay.begun else "started", {"step": first, "notes": policy.notes + notes}
        )
        surroundings = _surroundings(config, policy, train_prompts, accuracy_reward)
        alarms = AlarmRecorder(folder, writer, config, surroundings, first)
        recorder = stack.enter_context(StepRecorder(folder, updater, engine, writer, tracker, alarms))
        reward_stage = RewardStage(reward_pools, folder, control, replay)
        reward_stage.configure(config)
        yield TrainingRun(
            config=config,
            first=first,
            folder=folder,
            control=control,
            policy=policy,
            updater=updater,
            engine=engine,
            prompts=PromptStream(train_prompts, config.prompts_per_step, config.seed),
            heldout=heldout,
            reward_stage=reward_stage,
            accuracy_reward=accuracy_reward,
            recorder=recorder,
            replay=replay,
            needs=needs,
            clock=Clock(control),
            disk=Disk(folder, control, writer),
            handle_probe=probe_handler(config, folder, control, policy) if probe_handler else None,
        )


def rendered(config: RunConfig, policy: Policy) -> tuple[list[Prompt], list[Prompt]]:
    """The task's training and held-out prompts as this model reads them. Raises DataError, ConfigError, ModelError."""
    task = task_of(config)
    split = task.load(config)
    longest = policy.context - 1 if config.max_prompt_length is None else config.max_prompt_length
    train, heldout = (
        chat.render(
            part, policy.tokenizer, config.template, task.system_prompt(config), longest, policy.notes
        )
        for part in (split.train, split.heldout)
    )
    if len(train) < config.prompts_per_step:
        raise DataError(
            f"prompts_per_step = {config.prompts_per_step}, but there are only {len(train)} prompts to train on. Lower it or "
            "add prompts."
        )
    short = [
        left
        for prompt in (*train, *heldout)
        if (left := policy.context - len(prompt.token_ids)) < config.max_completion_length
    ]
    if short:
        policy.notes.append(
            f"the context of {policy.context} tokens leaves {len(short)} of {len(train) + len(heldout)} prompts less room than "
            f"max_completion_length = {config.max_completion_length}: their completions are cut off after {min(short)} tokens or more. "
            "Lower max_completion_length, shorten the prompts, or choose a model with a longer context"
        )
    return train, heldout


def _surroundings(
    config: RunConfig, policy: Policy, prompts: Sequence[Prompt], accuracy_reward: str
) -> RunLimits:
    """What remedies of alarms must keep to."""
    levels = [int(prompt.columns["level"]) for prompt in prompts if "level" in prompt.columns]
    offered = task_of(config).levels
    return RunLimits(
        policy.context,
        (min(levels), max(levels)) if levels and offered else None,
        offered or range(0),
        accuracy_reward,
    )
