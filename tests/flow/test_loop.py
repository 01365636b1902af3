"""The loop in this process, on tiny models of the real classes and small settings."""

import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.helpers import wait_until
from tests.tiny import ARCHITECTURES, SHAPE
from workbench.core.config import RunConfig
from workbench.core.errors import RewardError
from workbench.core.presets import presets
from workbench.launch import preflight
from workbench.models import embedded
from workbench.models.fast import layers
from workbench.record import checkpoints, rating
from workbench.record import folder as record
from workbench.record.control import Control
from workbench.record.folder import RunFolder
from workbench.record.reader import Reader
from workbench.record.status import Status
from workbench.train.checkpointing.export import export
from workbench.train.grpo import train

SMALL = {
    "steps": 2,
    "prompts_per_step": 4,
    "num_generations": 4,
    "max_completion_length": 48,
    "eval_problems": 4,
    "watched_prompts": 2,
    "watched_samples": 2,
    "eval_steps": 2,
    "save_steps": 2,
    "wandb": "off",
    "device": "cpu",
    "task": "chain",
    "seed": 3,
    "learning_rate": 1e-3,
    "lr_scheduler_type": "constant",
    "warmup_steps": 0,
}
QUICK = ("embedded", "dapo")
"""Presets that are run in the quick part of the suite too."""


def run(
    root: Path,
    preset: str = "trl-default",
    stop_after: int | None = None,
    folder: RunFolder | None = None,
    **changes: object,
) -> RunFolder:
    """Train in this process; `stop_after` asks for a stop once that many steps are done, `folder` resumes."""
    config = RunConfig.build(preset, {**SMALL, **changes})
    if folder is None:
        report = preflight.check(config)
        assert report.problems == {}
        folder = record.create(root, report.config, rewards=report.rewards, files=report.files)
    with Control(folder, Status()) as control:
        if stop_after is not None:
            watched = control.progress

            def progress(step: int, steps: int) -> None:
                watched(step, steps)
                if step == stop_after:
                    control.request_stop("the test asked for it")

            control.progress = progress  # type: ignore[method-assign]
        train(folder.config(), folder, control)
    return folder


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """Folders of tiny random models with the embedded model's tokenizer."""

    def make(architecture: str) -> Path:
        place = tmp_path_factory.mktemp(architecture)
        tokenizer = AutoTokenizer.from_pretrained(embedded.folder())
        model_class, config_class, extra = ARCHITECTURES[architecture]
        torch.manual_seed(1)
        shape = {
            **SHAPE,
            **extra,
            "vocab_size": len(tokenizer),
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
            "max_position_embeddings": 256,
            "tie_word_embeddings": True,
        }
        model_class(config_class(**shape)).save_pretrained(place)
        tokenizer.save_pretrained(place)
        return place

    return make


def weights(path: Path) -> dict[str, torch.Tensor]:
    return load_file(next(path.glob("*.safetensors")))


def values(folder: RunFolder, name: str) -> list[float]:
    frame = Reader(folder).metrics([name])
    return frame[frame["kind"] == "train"].sort_values("step")[name].tolist()


@pytest.mark.parametrize(
    "preset",
    [
        pytest.param(preset.name, marks=[] if preset.name in QUICK else pytest.mark.slow)
        for preset in presets()
    ],
)
def test_every_preset_runs_for_two_steps(preset, tmp_path):
    small = {
        **SMALL,
        "model": "embedded",
        "use_peft": False,
        "dtype": "float32",
        "steps_per_generation": min(2, RunConfig.build(preset).steps_per_generation),
    }
    folder = run(tmp_path, preset, **small)
    assert len(values(folder, "reward")) == 2
    assert (folder.final / "model.safetensors").is_file()


@pytest.mark.parametrize("architecture", ["llama", "qwen3", "mistral-sliding"])
def test_any_architecture_trains_and_its_final_folder_loads(architecture, tiny, tmp_path):
    place = tiny(architecture)
    folder = run(tmp_path, model=str(place), beta=0.04, rewards="format=1,correct=1")
    before, after = weights(place), weights(folder.final)
    assert before.keys() == after.keys()
    kl = values(folder, "kl")
    assert kl[0] == pytest.approx(0.0, abs=1e-6)  # the reference is the start
    final = AutoModelForCausalLM.from_pretrained(folder.final)
    assert sum(p.numel() for p in final.parameters()) == sum(
        p.numel() for p in AutoModelForCausalLM.from_pretrained(place).parameters()
    )


def test_lora_uses_the_switched_off_adapter_as_reference_and_merges_on_export(tiny, tmp_path):
    place = tiny("qwen3")
    folder = run(
        tmp_path / "runs",
        model=str(place),
        use_peft=True,
        lora_r=4,
        beta=0.04,
        learning_rate=0.05,
        rewards=f"{_length_reward(tmp_path)}:short=1",
    )
    kl = values(folder, "kl")
    assert kl[0] == pytest.approx(0.0, abs=1e-6) and kl[1] > 1e-6
    assert (folder.final / "adapter_config.json").is_file()
    target = tmp_path / "merged"
    export(folder, target, merge=True)
    merged, base = AutoModelForCausalLM.from_pretrained(target), AutoModelForCausalLM.from_pretrained(place)
    with_adapter = AutoModelForCausalLM.from_pretrained(folder.final)
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        torch.testing.assert_close(merged(ids).logits, with_adapter(ids).logits, atol=1e-4, rtol=1e-4)
        assert (merged(ids).logits - base(ids).logits).abs().max() > 1e-3


def test_a_stopped_and_resumed_run_ends_bit_equal_to_an_uninterrupted_one(tmp_path):
    straight = run(
        tmp_path / "a", "embedded", **SMALL | {"steps": 4, "num_iterations": 2, "steps_per_generation": 2}
    )
    broken = run(
        tmp_path / "b",
        "embedded",
        stop_after=1,
        **SMALL | {"steps": 4, "num_iterations": 2, "steps_per_generation": 2},
    )
    assert [kept.step for kept in checkpoints.listing(broken)] == [1]
    assert not (broken.final / "config.json").exists()
    run(tmp_path / "b", folder=broken)
    ours, theirs = weights(straight.final), weights(broken.final)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    for step in range(4):
        one, two = (
            Reader(folder)
            .samples(step=step)
            .sort_values("id")[["text", "reward", "advantage", "logprob_sum"]]
            .to_numpy()
            for folder in (straight, broken)
        )
        assert one.tolist() == two.tolist()


def test_the_same_seed_gives_the_same_run_and_another_seed_another(tmp_path):
    one, two, other = (
        run(tmp_path / name, "embedded", **SMALL | {"seed": seed})
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    assert all(torch.equal(a, weights(two.final)[name]) for name, a in weights(one.final).items())
    assert any(not torch.equal(a, weights(other.final)[name]) for name, a in weights(one.final).items())


def test_adaptive_groups_extend_only_while_all_answers_score_the_same(tmp_path):
    folder = run(tmp_path, "embedded", **SMALL | {"adaptive_group_max": 12, "steps": 1})
    frame = Reader(folder).samples(step=0)
    sizes = frame.groupby("k").size()
    first = frame.sort_values("id").groupby("k").head(4).groupby("k")["reward"].nunique()
    assert set(sizes[first > 1]) == {4}
    assert (sizes[first == 1] > 4).all() and len(sizes[first == 1])
    assert values(folder, "samples_drawn") == [float(sizes.sum())]


def test_dynamic_sampling_replaces_groups_without_signal(tmp_path):
    folder = run(
        tmp_path, "embedded", **SMALL | {"dynamic_sampling": True, "max_resample_rounds": 20, "steps": 1}
    )
    frame = Reader(folder).samples(step=0)
    assert (frame.groupby("k")["reward"].nunique() == 2).all() and frame["k"].nunique() == 4
    assert values(folder, "groups_replaced")[0] > 0
    assert values(folder, "samples_drawn")[0] == 4 * (4 + values(folder, "groups_replaced")[0])
    [event] = Reader(folder).events(kind="groups_replaced")
    assert set(event["data"]["answers"].values()) <= {4, 8}  # a prompt may come up twice
    assert sum(event["data"]["answers"].values()) == 4 * values(folder, "groups_replaced")[0]


def test_a_kl_target_steers_beta(tmp_path):
    folder = run(
        tmp_path,
        "embedded",
        **SMALL | {"beta": 0.5, "beta_controller": "ziegler", "kl_target": 8.0, "steps": 3},
    )
    beta = values(folder, "beta")
    assert beta == pytest.approx(
        [0.5, 0.5 * 0.98, 0.5 * 0.98**2]
    )  # far below the target: the largest step down


@pytest.mark.parametrize("use_peft", [False, True], ids=["full", "adapter"])
def test_a_replaced_reference_makes_the_next_steps_kl_zero_and_drift_from_the_start_goes_on(
    use_peft, tmp_path
):
    sync = {"sync_ref_model": True, "ref_model_mixup_alpha": 1.0, "ref_model_sync_steps": 2, "steps": 4}
    adapter = {"use_peft": True, "learning_rate": 0.02} if use_peft else {}
    folder = run(tmp_path, "embedded", **SMALL | sync | adapter)
    kl, drift = values(folder, "kl"), values(folder, "kl_initial")
    assert kl[0] == pytest.approx(0.0, abs=1e-7) and kl[2] == pytest.approx(0.0, abs=1e-7)
    assert kl[1] > 1e-6 and kl[3] > 1e-6
    assert drift[:2] == pytest.approx(kl[:2], abs=1e-7)  # nothing has moved yet
    assert drift[2] > 1e-6 and drift[3] > 1e-6


def test_a_resumed_run_finds_its_moved_reference_again(tmp_path):
    sync = {"sync_ref_model": True, "ref_model_sync_steps": 1, "steps": 3, "beta": 0.04}
    straight = run(tmp_path / "a", "embedded", **SMALL | sync)
    broken = run(tmp_path / "b", "embedded", stop_after=2, **SMALL | sync)
    run(tmp_path / "b", folder=broken)
    assert values(straight, "kl")[2] == values(broken, "kl")[2] > 0
    assert values(straight, "kl_initial")[2] == values(broken, "kl_initial")[2]


def test_kl_in_the_reward_lowers_the_rewards_that_drifted(tmp_path):
    plain, penalised = (
        run(
            tmp_path / where,
            "embedded",
            **SMALL | {"beta": 0.5, "kl_in": where, "kl_estimator": "k1", "steps": 2},
        )
        for where in ("loss", "reward")
    )
    first = [Reader(folder).samples(step=0)["advantage"].to_numpy(float) for folder in (plain, penalised)]
    np.testing.assert_allclose(*first, atol=1e-4)  # no drift yet
    second = [Reader(folder).samples(step=1) for folder in (plain, penalised)]
    assert not np.allclose(
        second[0]["advantage"].to_numpy(float), second[1]["advantage"].to_numpy(float), atol=1e-4
    )


def test_gradient_checkpointing_changes_no_number(tiny, tmp_path, monkeypatch):
    # Both through the library's layers: ours differ by rounding, which Adam's division makes visible in weights without gradient.
    monkeypatch.setattr(layers, "can_run", lambda *_: False)
    place = str(tiny("llama"))
    plain, spare = (
        run(
            tmp_path / str(on),
            model=place,
            gradient_checkpointing=on,
            rewards="format=1,correct=1",
            **{"beta": 0.1},
        )
        for on in (False, True)
    )
    ours, theirs = weights(plain.final), weights(spare.final)
    assert all(torch.allclose(ours[name], theirs[name], atol=1e-6) for name in ours)


def test_a_run_stops_when_a_reward_fails_too_often_and_it_was_told_to(tmp_path):
    broken = tmp_path / "broken.py"
    # Only on the empty answer among those it is tried on before the start, so never in the run.
    broken.write_text(
        '"""Works for nothing."""\n\n\ndef broken(completion: str) -> float:\n    return 0.0 if not completion else 1 / 0\n'
    )
    with pytest.raises(RewardError, match="broken on 100% of the samples"):
        run(
            tmp_path,
            "embedded",
            **SMALL | {"rewards": f"correct=1,{broken}:broken=1", "reward_error_policy": "stop"},
        )


def _length_reward(folder: Path) -> Path:
    path = folder / "short.py"
    path.write_text(
        '"""Shorter is better."""\n\n\ndef short(length: int) -> float:\n    return -float(length)\n'
    )
    return path


def test_a_run_waits_for_people_and_asks_the_same_answers_after_a_stop(tmp_path):
    asked: list[dict] = []

    def people(folder: RunFolder, stop_at: int | None) -> None:
        """Rate every second answer of what waits good, the others bad; at step `stop_at` stop instead."""
        while True:
            found = wait_until(lambda: rating.waiting(folder))
            asked.append(found)
            if found["step"] == stop_at:
                folder.put("stop")
                return
            for group in found["groups"]:
                for i in range(len(group["texts"])):
                    rating.rate(Reader(folder), found["step"], group["k"], i, i % 2 == 0)
            wait_until(
                lambda found=found: (
                    (rating.waiting(folder) or found) != found or not folder.waiting_path.exists()
                )
            )
            if found["step"] == 1:
                return

    settings = {"rewards": "correct=1,human=0.5", "human_timeout": 300, "eval_problems": 0}
    config = RunConfig.build("trl-default", {**SMALL, **settings})
    report = preflight.check(config)
    folder = record.create(tmp_path, report.config, rewards=report.rewards, files=report.files)
    for stop_at in (1, None):
        thread = threading.Thread(target=people, args=(folder, stop_at), daemon=True)
        thread.start()
        run(tmp_path, folder=folder)
        thread.join(60)
        assert checkpoints.latest(folder).name == ("step-000001" if stop_at else "step-000002")
    assert [found["step"] for found in asked] == [0, 1, 1]
    assert asked[1]["groups"] == asked[2]["groups"], "the same answers are asked again"
    for step in (0, 1):
        for k in range(4):
            samples = Reader(folder).group(step, k)["samples"]
            said = {sample["text"]: sample["rewards"]["human"] for sample in samples}
            assert set(said.values()) <= {0.0, 1.0} and said[samples[-1]["text"]] == 0.0, (
                "the last word counts"
            )
