"""Secrets do not reach the disk: by key, by pattern, by the values of this process's own variables."""

import pytest

from tests.fakes import fake_config
from workbench.record import folder as record
from workbench.record.redact import HIDDEN, redact, redact_text

WANDB_KEY = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize(
    "key", ["api_key", "WANDB_API_KEY", "hf_token", "password", "client_secret", "Authorization", "token"]
)
def test_a_value_under_a_secret_name_is_replaced(key: str) -> None:
    assert redact({"deep": [{key: "whatever it is"}]}) == {"deep": [{key: HIDDEN}]}


@pytest.mark.parametrize(
    "key", ["micro_batch_tokens", "keep_token_steps", "num_tokens", "token_ids", "max_tokens"]
)
def test_settings_that_only_sound_secret_stay(key: str) -> None:
    assert redact({key: "8192"}) == {key: "8192"}


@pytest.mark.parametrize(
    "secret",
    [
        "hf_" + "aB3" * 10,
        "sk-" + "x1Y" * 8,
        "AKIAABCDEFGHIJKLMNOP",
        "ghp_" + "a1" * 18,
        f"wandb login {WANDB_KEY}",
        "password=hunter22",
        "Bearer abcdefghijkl",
        "api_key: 'zzzyyyxxx'",
    ],
)
def test_known_patterns_in_free_text_are_hidden(secret: str) -> None:
    redacted = redact_text(f"error at line 3 {secret} end")
    assert HIDDEN in redacted and secret.split()[-1].split("=")[-1] not in redacted
    assert redacted.startswith("error at line 3") and redacted.endswith("end")


def test_a_commit_is_not_a_wandb_key() -> None:
    assert redact({"git": {"commit": WANDB_KEY}}) == {"git": {"commit": WANDB_KEY}}
    assert redact_text(f"at commit {WANDB_KEY}") == f"at commit {WANDB_KEY}"
    assert HIDDEN in redact_text(f"WANDB_API_KEY={WANDB_KEY}")


def test_the_values_of_secret_variables_are_hidden_wherever_they_stand(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MY_JUDGE_API_KEY", "plain-looking-words")
    assert redact_text("GET /?k=plain-looking-words HTTP/1.1") == f"GET /?k={HIDDEN} HTTP/1.1"


def test_config_json_holds_no_secret(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "canary-in-the-mine")
    folder = record.create(
        str(tmp_path), fake_config(model="org/model?canary-in-the-mine"), rewards=[{"api_key": "k"}]
    )
    assert "canary" not in folder.config_path.read_text()
    assert folder.about()["rewards"] == [{"api_key": HIDDEN}]


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("Authorization: Bearer abcdefghijk1234567", "abcdefghijk1234567"),
        ("{'Authorization': 'Basic dXNlcjpwYXNz'}", "dXNlcjpwYXNz"),
        ("authorization=Token shrt", "shrt"),
        ("no route to https://user:s3cret@judge.example/v1", "s3cret"),
        ("postgres://reader:p-w@db/x failed", "p-w"),
        ("GET http://host/score?a=1&token=abcdef&b=2", "abcdef"),
        ("GET http://host/score?api_key=abcdef", "abcdef"),
    ],
)
def test_secrets_of_headers_and_addresses_are_hidden(text: str, secret: str) -> None:
    assert secret not in redact_text(text) and HIDDEN in redact_text(text)


def test_the_value_of_a_key_variable_is_hidden_and_plain_addresses_stay(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("JUDGE_KEY", "abcd1234efgh5678")
    assert (
        redact_text("Incorrect API key provided: abcd1234efgh5678") == f"Incorrect API key provided: {HIDDEN}"
    )
    plain = "https://judge.example:8000/v1?step=3 for a basic test"
    assert redact_text(plain) == plain
