"""Loading: the device, the size and whether it fits, weights straight onto the device, adapters that begin alike."""

import os
import subprocess
import sys

import pytest
import torch
from accelerate import PartialState
from transformers import AutoConfig, AutoModelForCausalLM

from tests.tiny import NumberTokenizer, tiny_model
from workbench.core.config import RunConfig
from workbench.core.errors import ModelError
from workbench.models import device, embedded
from workbench.models.load import load_policy, load_pretrained

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("accelerator", "setting", "expected"),
    [
        ("cpu", "auto", "cpu"),
        ("cpu", "cpu", "cpu"),
        ("cuda", "auto", "cuda"),
        ("cuda", "cuda", "cuda"),
        ("cuda", "cpu", "cpu"),
        ("mps", "auto", "mps"),
        ("mps", "cpu", "cpu"),
        ("xpu", "auto", "cpu"),  # nothing here was ever run on one
    ],
)
def test_the_device_is_the_setting_or_the_accelerator_that_is_there(
    accelerator: str, setting: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PartialState, "default_device", torch.device(accelerator))
    assert device.find_device(setting) == torch.device(expected)


def test_a_device_that_is_not_there_is_refused_with_those_that_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PartialState, "default_device", torch.device("mps"))
    with pytest.raises(ModelError, match=r"device = cuda, but this machine has none\. Here: mps, cpu\."):
        device.find_device("cuda")


def test_what_an_outer_launcher_left_in_the_environment_opens_no_process_group() -> None:
    code = (
        "import os, torch.distributed as dist; from workbench.models.device import find_device, process_state; "
        "print(find_device('auto').type, find_device('cpu').type, process_state().num_processes, dist.is_initialized(), "
        "os.environ['LOCAL_RANK'])"
    )
    outer = {
        "RANK": "1",
        "LOCAL_RANK": "1",
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": "1",
    }
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
        env={**os.environ, **outer},
    )
    assert done.stdout.split()[1:] == ["cpu", "1", "False", "1"]


def test_the_size_is_counted_without_weights_or_random_numbers() -> None:
    config = AutoConfig.from_pretrained(embedded.folder())
    before = torch.get_rng_state()
    size = device.model_size(config, torch.float32)
    assert torch.equal(before, torch.get_rng_state())
    buffers = 32 // 2  # frequencies of the rotary embedding, and their originals
    assert size == device.ModelSize(336_480, 4 * (336_480 + 2 * buffers))
    assert device.model_size(config, torch.bfloat16).bytes == 2 * 336_480 + 4 * 2 * buffers


def test_weights_that_do_not_fit_are_refused_before_they_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "free_bytes", lambda where: 1_000_000)
    with pytest.raises(
        ModelError, match=r"'embedded' has 336,480 parameters.*cpu has 0\.0 GiB free.*bfloat16"
    ):
        load_pretrained("embedded")
    load_pretrained("embedded", "bfloat16")


def test_weights_read_onto_the_device_are_those_of_the_library_and_carry_no_hooks() -> None:
    model, _ = load_pretrained("embedded", "float32", CPU)
    plain = AutoModelForCausalLM.from_pretrained(embedded.folder(), dtype=torch.float32)
    for ours, theirs in zip(model.parameters(), plain.parameters(), strict=True):
        assert torch.equal(ours, theirs) and ours.device == CPU
    assert not any(hasattr(module, "_hf_hook") for module in model.modules())


def test_adapters_of_one_seed_begin_alike_and_leave_the_random_state_alone() -> None:
    def adapter(seed: int) -> list[torch.Tensor]:
        config = RunConfig.build("trl-default", {"use_peft": True, "device": "cpu", "seed": seed})
        model = tiny_model()
        torch.rand(seed)  # whatever was drawn before
        before = torch.get_rng_state()
        policy = load_policy(config, model=model, tokenizer=NumberTokenizer())
        assert torch.equal(before, torch.get_rng_state())
        return [parameter.detach() for parameter in policy.trainable()]

    one, again, other = adapter(3), adapter(3), adapter(4)
    assert all(torch.equal(a, b) for a, b in zip(one, again, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
