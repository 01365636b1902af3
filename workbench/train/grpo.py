"""The GRPO loop: prompts -> rollouts -> rewards -> advantages -> losses -> update -> record.

In: a RunConfig, its run folder, and the `Control` through which a running process is steered. Out: the run folder, filled. A *step* is
one generation (`prompts_per_step` groups of `num_generations` completions) with all its optimiser updates; evaluations, checkpoints and
changes of settings happen at the boundaries between steps. (GRPO: 2402.03300, section 4)
"""

from functools import partial

import numpy as np

from workbench.algorithm import advantages, kl_controllers
from workbench.core.config import RunConfig
from workbench.core.types import StepRecord, group_ids
from workbench.models.load import save_policy
from workbench.record import checkpoints
from workbench.record.control import Control
from workbench.record.folder import RunFolder
from workbench.rewards.runtime.pool import error_share
from workbench.train import guards, heap
from workbench.train.compute_advantages import compute_advantages
from workbench.train.rollout_stage import ScoredGroups, rollout_stage
from workbench.train.setup import MakeProbeHandler, TrainingRun, training_run
from workbench.train.step_boundary import save_checkpoint, step_boundary
from workbench.train.update import UpdateResult, sampling_of


def train(
    config: RunConfig, folder: RunFolder, control: Control, probe_handler: MakeProbeHandler | None = None
) -> None:
    """Run to the last step, or to the boundary after a stop was requested. Raises WorkbenchError for what a user can mend."""
    heap.configure()
    with training_run(config, folder, control, probe_handler) as run:
        step = run.first
        while step_boundary(run, step):
            if not train_step(run, step):
                save_checkpoint(run, step)
                break
            step += 1
            control.progress(step, run.config.steps)
        run.recorder.wait()
        if step == run.config.steps:  # a stopped run has its checkpoint, and may go on
            run.clock.phase("save")
            write = partial(save_policy, run.policy)
            run.disk.written(partial(checkpoints.save_final, folder, step, write))


def train_step(run: TrainingRun, step: int) -> bool:
    """One generation and its updates. False: a stop came while rewards were waited for, and a resume makes this step again."""
    config, updater = run.config, run.updater
    run.clock.lap()

    # 1. prompts
    prompts = run.prompts.at(step)
    replacement_prompts = run.prompts.replacement_prompts(step) if config.dynamic_sampling else []

    # 2. rollouts and 3. rewards, which begin while other groups are still being sampled
    scored = rollout_stage(
        run.engine,
        run.reward_stage,
        prompts,
        replacement_prompts,
        config,
        sampling_of(config),
        step,
        run.clock.phase,
    )
    if run.reward_stage.interrupted:
        return False
    run.reward_stage.report_failures(scored.scores_B)

    # 4. advantages
    run.clock.phase("update")
    reference_B_T = updater.reference(scored.groups, config) if config.beta > 0 else None
    computed = compute_advantages(scored, config, run.reward_stage.names, updater, reference_B_T)
    advantages_B = np.asarray(computed.advantages_B, dtype=np.float64)

    # 5. losses and 6. update
    result = updater.step(
        scored.groups,
        advantages_B,
        config,
        step,
        reference_B_T=reference_B_T,
        excluded_B=_truncated(scored) if config.mask_truncated_completions else None,
        sample_weights_B=_prompt_weights(scored),
    )

    run.engine.sync(run.policy.version)

    # 7. record
    record = _step_record(run, step, scored, advantages_B, result)
    run.recorder.step(record, config, result.skipped)
    if updater.broken:
        raise guards.not_finite(result.skipped, checkpoints.latest(run.folder))
    if config.beta_controller != "fixed":
        run.config = next_beta(config, run.recorder.metrics(record))
    if config.sync_ref_model and (step + 1) % config.ref_model_sync_steps == 0:
        updater.move_reference(config.ref_model_mixup_alpha)
    return True


def _truncated(scored: ScoredGroups) -> np.ndarray:
    """(B,) bool: completions that ran into the length limit."""
    return np.array([r.finish_reason == "length" for group in scored.groups for r in group.rollouts])


def _prompt_weights(scored: ScoredGroups) -> np.ndarray | None:
    """(B,) weights that let every prompt count the same where groups differ in size; None where they do not."""
    if len({len(group) for group in scored.groups}) <= 1:
        return None
    ids_B = group_ids(scored.groups)
    return np.asarray(advantages.prompt_weights(ids_B, np.ones(len(ids_B))))


def _step_record(
    run: TrainingRun, step: int, scored: ScoredGroups, advantages_B: np.ndarray, result: UpdateResult
) -> StepRecord:
    """What the step leaves behind, as far as it is known before the post-update pass; notices go to the events."""
    record = StepRecord(
        step=step,
        kind="train",
        groups=scored.groups,
        scores_B=scored.scores_B,
        advantages_B=advantages_B,
        tokens=result.tokens,
        gradient_share_B=result.gradient_share_B,
        metrics=dict(result.metrics) | run.reward_stage.pool.metrics,
        accuracy_reward=run.accuracy_reward,
    )
    record.metrics |= {
        "beta": run.config.beta,
        "samples_drawn": float(scored.drawn),
        "groups_replaced": float(scored.replaced),
        "reward/errors": max(error_share(scored.scores_B).values(), default=0.0),
        "update/skipped": float(len(result.skipped)),
    }
    record.phases = run.clock.lap()
    if scored.replaced_samples:
        run.control.event("groups_replaced", {"answers": scored.replaced_samples})
    for reason in result.skipped:
        run.control.event("update_skipped", {"reason": reason})
    for text in run.engine.notices() + run.updater.notices():
        run.control.event("memory", {"text": text})
    return record


def next_beta(config: RunConfig, metrics: dict[str, float]) -> RunConfig:
    """The settings of the next step, with the beta of a controller that holds the KL at its target."""
    if config.beta_controller == "fixed" or config.kl_target is None or "kl" not in metrics:
        return config
    if config.beta_controller == "ziegler":
        beta = kl_controllers.ziegler(config.beta, metrics["kl_sequence"], config.kl_target)
    else:
        beta = kl_controllers.ppo_adaptive(config.beta, metrics["kl"], config.kl_target)
    return config.changed(beta=min(beta, 1000.0))
