"""What happens between two steps: the disk is checked, the policy evaluated, commands applied, a checkpoint written.

Nothing of a generation is pending here, so a checkpoint at a boundary is all a resume needs.
"""

from functools import partial

from workbench.record import checkpoints
from workbench.train import live_settings
from workbench.train.checkpointing import checkpoint
from workbench.train.evaluate import evaluate
from workbench.train.setup import TrainingRun


def step_boundary(run: TrainingRun, step: int) -> bool:
    """Before step `step` (after the last one: `step` = config.steps). Returns whether the run goes on."""
    run.disk.wait()
    last = step == run.config.steps
    evaluated = step == run.first and run.replay.checked  # before the checkpoint, with the settings of then
    if (step % run.config.eval_steps == 0 or last) and not evaluated:
        for record in evaluate(
            run.engine,
            run.reward_stage,
            run.heldout,
            run.accuracy_reward,
            run.config,
            step,
            run.clock.phase,
        ):
            record.phases = run.clock.lap()
            run.recorder.evaluation(record)
    checkpoint_due = last or (step > run.first and step % run.config.save_steps == 0)
    apply_commands(run, step)
    if checkpoint_due or run.control.stop_requested:
        save_checkpoint(run, step)
    return not (last or run.control.stop_requested)


def apply_commands(run: TrainingRun, step: int) -> None:
    """Apply the changes that a resumed run repeats at this step, then the commands in the inbox; waits here while paused."""
    before = run.config
    if due := run.replay.due(step):
        run.config = run.config.live_changed(due)
    for command in run.control.poll(step):
        if command.command == "probe" and run.handle_probe:
            run.handle_probe(command)
        elif command.command == "checkpoint":
            save_checkpoint(run, step)  # at once: a paused run stays in this loop
            run.control.reply(command, True, f"checkpoint after step {step} written")
        else:
            changed = live_settings.apply(
                command, run.config, run.control, run.reward_stage.reward_pools, run.policy.context
            )
            if changed is not run.config:
                run.replay.forget(step, command.args)
            run.config = changed
    run.reward_stage.configure(run.config)
    if run.config is not before:
        # A resume from an earlier checkpoint must know of the change.
        run.disk.written(run.recorder.writer.flush)


def save_checkpoint(run: TrainingRun, step: int) -> None:
    """The state after `step` finished steps, once everything up to it is recorded; waits while the disk is full."""
    run.clock.phase("checkpoint")
    run.recorder.wait()
    run.disk.written(run.recorder.writer.flush)
    write = partial(checkpoint.write, policy=run.policy, updater=run.updater, config=run.config, step=step)
    meta = {checkpoints.NEEDS: run.needs._asdict()}
    keep = run.config.save_total_limit
    run.disk.written(partial(checkpoints.save, run.folder, step, write, meta, keep=keep))
    run.control.event("checkpoint", {"step": step})
