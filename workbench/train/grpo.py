"""The flow, top to bottom: prompts -> rollouts -> rewards -> advantages -> losses -> update -> record.

In: a RunConfig, its run folder, and the `Control` through which people steer. Out: the run folder, filled. A step is one generation
with its updates; checkpoints and commands lie between steps.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial

import numpy as np

from workbench.algorithm import advantages, kl_controllers
from workbench.core.config import RunConfig
from workbench.core.errors import DataError, RewardError
from workbench.core.types import Prompt, Score, StepRecord, group_ids
from workbench.diagnose.alarms.keeper import Keeper
from workbench.diagnose.alarms.remedies import Surroundings
from workbench.models import chat
from workbench.models.load import Policy, load_policy, save_final
from workbench.prompts import PromptStream, task_of
from workbench.record import checkpoints
from workbench.record.control import Control
from workbench.record.folder import Command, RunFolder
from workbench.record.wandb_sink import WandbSink
from workbench.record.writer import Writer
from workbench.rewards.runtime.pool import error_share
from workbench.rewards.runtime.registry import with_verifier
from workbench.rollouts.engine import Progress
from workbench.rollouts.make_engine import make_engine
from workbench.train import guards, live_settings
from workbench.train.checkpointing import checkpoint, resume
from workbench.train.compute_advantages import advantages_of
from workbench.train.distributed import followers
from workbench.train.evaluate import evaluate
from workbench.train.guards import Disk
from workbench.train.oom import FittingEngine, give_back, tidy_heap
from workbench.train.reward_pool import Pools
from workbench.train.reward_stage import MAX_FAILURES, Scoring
from workbench.train.rollout_stage import collect
from workbench.train.step_recorder import LookingBack, told
from workbench.train.update import sampling_of

ProbeAnswers = Callable[[RunConfig, RunFolder, Control, Policy], Callable[[Command], None]]
"""Makes what answers `probe` commands from a run's settings and policy: `worker.probes.handler_for_run`. The loop only calls it."""


def train(
    config: RunConfig, folder: RunFolder, control: Control, probe_handler: ProbeAnswers | None = None
) -> None:
    """Run to the last step, or to the boundary after a stop was asked for. Raises WorkbenchError for what a user can mend."""
    tidy_heap()
    with ExitStack() as stack:
        control.phase("load model")
        team = stack.enter_context(followers.leading(config))
        policy = load_policy(config)
        updater = followers.updater(policy, config, team)
        control.phase("prepare")
        prompts, heldout = rendered(config, policy)
        needs = resume.needs_of(folder, config, [*prompts, *heldout])
        started = config
        first, config, replay, notes = resume.begin(
            folder, config, policy, updater, needs, warm=control.warm_start
        )
        followers.meet(team, policy, updater)
        stream = PromptStream(prompts, config.prompts_per_step, config.seed)
        accuracy_reward = config.eval_reward or task_of(config).rewards[0]
        pools = stack.enter_context(
            Pools(started, folder.about()["rewards"], folder.rewards, with_verifier, recorded=replay.scores)
        )
        record = stack.enter_context(Writer(folder, config, token_text=chat.token_text(policy.tokenizer)))
        control.record_to(record.event)
        stack.callback(control.close_inbox)
        tracker = stack.enter_context(WandbSink(folder, config))
        engine = followers.engine(FittingEngine(make_engine(config.engine, policy)), team, policy)
        if replay.begun:
            record.supersede(first)
        control.event(
            "resumed" if replay.begun else "started", {"step": first, "notes": policy.notes + notes}
        )
        around = surroundings(config, policy, prompts, accuracy_reward)
        alarms = Keeper(folder, record, config, around, first)
        looking_back = stack.enter_context(LookingBack(updater, record, tracker, alarms))
        answer_probe = probe_handler(config, folder, control, policy) if probe_handler else None
        scoring = Scoring(pools.of(config), pools.sources, config, folder, control, replay)
        clock = Clock(control)
        disk = Disk(folder, control, record)

        def save_checkpoint(step: int) -> None:
            clock.phase("checkpoint")
            looking_back.wait()
            disk.written(record.flush)
            write = partial(checkpoint.write, policy=policy, updater=updater, config=config, step=step)
            keep = config.save_total_limit
            disk.written(
                partial(
                    checkpoints.save, folder, step, write, {checkpoints.NEEDS: needs._asdict()}, keep=keep
                )
            )
            control.event("checkpoint", {"step": step})

        for step in range(first, config.steps + 1):
            # -- between steps: checks, the end, people's wishes
            disk.wait()
            checked = step == first and replay.checked  # before the checkpoint, with the settings of then
            if (step % config.eval_steps == 0 or step == config.steps) and not checked:
                for check in evaluate(engine, scoring, heldout, accuracy_reward, config, step, clock.phase):
                    check.phases = clock.lap()
                    record.step(check)
                    alarms.check(check)
                    tracker.log(check)
                    print(told(check), flush=True)
            save = step == config.steps or (step > first and step % config.save_steps == 0)
            before = config
            if due := replay.due(step):
                config = config.live_changed(due)
            for command in control.poll(step):
                if command.command == "probe" and answer_probe:
                    answer_probe(command)
                elif command.command == "checkpoint":
                    save_checkpoint(step)  # at once: a paused run stays in this line of people
                    control.reply(command, True, f"checkpoint after step {step} written")
                else:
                    changed = live_settings.apply(command, config, control, pools, policy.context)
                    if changed is not config:
                        replay.forget(step, command.args)
                    config = changed
            if pools.of(config) is not scoring.pool:
                scoring = Scoring(pools.of(config), pools.sources, config, folder, control, replay)
            if config is not before:
                disk.written(
                    record.flush
                )  # whoever goes on from an earlier checkpoint must know of the change
            if save or control.stop_requested:
                save_checkpoint(step)
            if step == config.steps or control.stop_requested:
                break

            # -- prompts, rollouts, rewards
            clock.lap()
            sampling = sampling_of(config)
            spare = stream.spare(step) if config.dynamic_sampling else []
            found = collect(engine, scoring, stream.at(step), spare, config, sampling, step, clock.phase)
            if scoring.gave_up:  # stopped while it waited: a resume samples and scores this step again
                save_checkpoint(step)
                break
            report_failures(found.scores_B, config, control)

            # -- advantages
            clock.phase("update")
            looking_back.wait()  # the weights it reads are about to move
            give_back()
            reference_B_T = updater.reference(found.groups, config) if config.beta > 0 else None
            give_back()
            asked = advantages_of(found, config, pools.names, updater, reference_B_T)

            # -- losses and update
            cut_B = np.array(
                [rollout.finish_reason == "length" for group in found.groups for rollout in group.rollouts]
            )
            sizes_differ = len({len(group) for group in found.groups}) > 1
            ids_B = group_ids(found.groups)
            result = updater.step(
                found.groups,
                np.asarray(asked.advantages_B),
                config,
                step,
                reference_B_T=reference_B_T,
                excluded_B=cut_B if config.mask_truncated_completions else None,
                sample_weights_B=advantages.prompt_weights(ids_B, np.ones(len(ids_B)))
                if sizes_differ
                else None,
            )
            give_back()

            # -- record
            done = StepRecord(
                step=step,
                kind="train",
                groups=found.groups,
                scores_B=found.scores_B,
                advantages_B=np.asarray(asked.advantages_B, dtype=np.float64),
                tokens=result.tokens,
                gradient_share_B=result.gradient_share_B,
                metrics=dict(result.metrics) | scoring.pool.metrics,
                accuracy_reward=accuracy_reward,
            )
            done.metrics |= {
                "beta": config.beta,
                "samples_drawn": float(found.drawn),
                "groups_replaced": float(found.replaced),
                "reward/errors": max(error_share(found.scores_B).values(), default=0.0),
                "update/skipped": float(len(result.skipped)),
            }
            done.phases = clock.lap()
            if found.wasted:
                control.event("groups_replaced", {"answers": found.wasted})
            for reason in result.skipped:
                control.event("update_skipped", {"reason": reason})
            for text in engine.pieces.news() + updater.pieces.news():
                control.event("memory", {"text": text})
            looking_back.begin(done, config)
            if result.skipped:
                looking_back.wait()
                guards.dump(folder, done, result.skipped)
                if updater.broken:
                    raise guards.not_finite(result.skipped, checkpoints.latest(folder))
            if config.beta_controller != "fixed" or config.sync_ref_model:
                looking_back.wait()
                config = steer(config, done.metrics)
                if config.sync_ref_model and (step + 1) % config.ref_model_sync_steps == 0:
                    updater.move_reference(config.ref_model_mixup_alpha)
            control.progress(step + 1, config.steps)

        looking_back.wait()
        alarms.end()
        if step == config.steps:  # a stopped run has its checkpoint, and may go on
            clock.phase("save")
            save_final(policy, folder.final)


def surroundings(
    config: RunConfig, policy: Policy, prompts: Sequence[Prompt], accuracy_reward: str
) -> Surroundings:
    """What remedies of alarms must keep to."""
    asked = [int(prompt.columns["level"]) for prompt in prompts if "level" in prompt.columns]
    offered = task_of(config).levels
    return Surroundings(
        policy.context,
        (min(asked), max(asked)) if asked and offered else None,
        offered or range(0),
        accuracy_reward,
    )


def rendered(config: RunConfig, policy: Policy) -> tuple[list[Prompt], list[Prompt]]:
    """The task's training and held-out prompts as this model reads them. Raises DataError, ConfigError, ModelError."""
    task = task_of(config)
    split = task.load(config)
    room = policy.context - 1 if config.max_prompt_length is None else config.max_prompt_length
    train, heldout = (
        chat.render(part, policy.tokenizer, config.template, task.system_prompt(config), room)
        for part in (split.train, split.heldout)
    )
    if len(train) < config.prompts_per_step:
        raise DataError(
            f"prompts_per_step = {config.prompts_per_step}, but there are only {len(train)} prompts to train on. Lower it or "
            "add prompts."
        )
    return train, heldout


def steer(config: RunConfig, metrics: dict[str, float]) -> RunConfig:
    """The next step's beta where a controller holds the KL at its target."""
    if config.beta_controller == "fixed" or config.kl_target is None or "kl" not in metrics:
        return config
    if config.beta_controller == "ziegler":
        beta = kl_controllers.ziegler(config.beta, metrics["kl_sequence"], config.kl_target)
    else:
        beta = kl_controllers.ppo_adaptive(config.beta, metrics["kl"], config.kl_target)
    return config.changed(beta=min(beta, 1000.0))


def report_failures(scores_B: Sequence[Score], config: RunConfig, control: Control) -> None:
    """Say in the events which rewards failed too often in this step. Raises RewardError where the run is to stop then."""
    failing = {name: share for name, share in error_share(scores_B).items() if share > MAX_FAILURES}
    if not failing:
        return
    told = ", ".join(f"{name} on {share:.0%} of the answers" for name, share in failing.items())
    control.event("reward_failed", {"text": f"Rewards failed: {told}.", "share": failing})
    if config.reward_error_policy == "stop":
        raise RewardError(
            f"Rewards failed: {told}; the run stops above {MAX_FAILURES:.0%}. The samples' own pages give the reasons. Mend the reward, or set "
            "reward_error_policy to mask."
        )


class Clock:
    """Times the phases of a step and tells people where it stands."""

    def __init__(self, control: Control) -> None:
        self.control = control
        self.seconds: dict[str, float] = {}
        self.name, self.since = "", time.perf_counter()

    def phase(self, name: str) -> Progress:
        """A phase begins; the one before ends."""
        self._close()
        self.name = name
        self.control.phase(name)
        return lambda done, total: self.control.phase(name, done, total)

    def lap(self) -> dict[str, float]:
        """Seconds in each phase since the last lap."""
        self._close()
        seconds, self.seconds, self.name = self.seconds, {}, ""
        return seconds

    def _close(self) -> None:
        now = time.perf_counter()
        if self.name:
            self.seconds[self.name] = self.seconds.get(self.name, 0.0) + now - self.since
        self.since = now
