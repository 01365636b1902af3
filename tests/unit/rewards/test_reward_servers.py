"""Rewards that ask servers and models: a server of our own on the loopback, and tiny classifiers."""

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification

from workbench.core.errors import ModelError
from workbench.core.estimate import EMBEDDED
from workbench.rewards.api.outcome import INFRASTRUCTURE
from workbench.rewards.trial import try_reward
from workbench.scorers.sequence import SequenceScorer

Answer = tuple[int, Any]
ROWS = [{"prompt": "2+2?", "completion": text, "answer": "4", "level": 3} for text in ("4", "5", "4")]


class Server:
    """Answers POSTs with what a function says about their JSON, and keeps them."""

    def __init__(self, answer: Callable[[Any], Answer]) -> None:
        self.asked: list[Any] = []
        self.keys: set[str | None] = set()
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                question = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                server.asked.append(question)
                server.keys.add(self.headers["Authorization"])
                status, reply = answer(question)
                body = json.dumps(reply).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                """Quiet."""

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_port}"
        threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()


@pytest.fixture
def serve() -> Iterator[Callable[[Callable[[Any], Answer]], Server]]:
    servers: list[Server] = []

    def start(answer: Callable[[Any], Answer]) -> Server:
        servers.append(Server(answer))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


def reply(text: str) -> Answer:
    """What an OpenAI server says."""
    message = {"role": "assistant", "content": text}
    return 200, {
        "id": "1", "object": "chat.completion", "created": 0, "model": "m",
        "choices": [{"index": 0, "finish_reason": "stop", "message": message}],
    }  # fmt: skip


def test_an_http_reward_sends_everything_asks_the_same_once_and_tries_again_when_busy(serve, monkeypatch):
    monkeypatch.setenv("SCORE_KEY", "s3cret")
    times = []

    def answer(question: Any) -> Answer:
        times.append(1)
        return (503, {}) if len(times) == 1 else (200, {"score": float(question["completion"])})

    server = serve(answer)
    scores = try_reward(
        "http_score", ROWS, options={"url": server.url, "key_env": "SCORE_KEY"}, timeout=30
    ).scores
    assert [score.reward for score in scores] == [4.0, 5.0, 4.0], [score.reasons for score in scores]
    assert {"prompt": "2+2?", "completion": "5", "answer": "4", "columns": {"level": 3}} in server.asked
    assert server.keys == {"Bearer s3cret"}


def test_a_server_that_is_away_is_a_failure_of_the_infrastructure_and_a_refusal_is_the_rewards(serve):
    away = serve(lambda question: (200, 1.0))
    away.close()
    (score,) = try_reward("http_score", ROWS[:1], options={"url": away.url, "tries": 1}, timeout=30).scores
    assert score.reward is None and score.reasons["http_score"].startswith(INFRASTRUCTURE)
    refusing = serve(lambda question: (401, {}))
    (score,) = try_reward("http_score", ROWS[:1], options={"url": refusing.url}, timeout=30).scores
    assert "the server refused the question: 401" in score.reasons["http_score"]
    odd = serve(lambda question: (200, "good"))
    (score,) = try_reward("http_score", ROWS[:1], options={"url": odd.url}, timeout=30).scores
    assert 'the server answered "good", not a number' in score.reasons["http_score"]


def test_a_judge_scores_from_zero_to_one_and_says_so_when_it_cannot(serve):
    pytest.importorskip("openai")

    def answer(question: Any) -> Answer:
        asked = question["messages"][1]["content"]
        return reply('{"score": 8}' if ">>\n4\n<<" in asked else "I would rather not say.")

    server = serve(answer)
    options = {"base_url": server.url, "model": "m", "rubric": "Is the sum right?"}
    first, second, third = try_reward("judge", ROWS, options=options, timeout=60).scores
    assert (first.reward, third.reward) == (0.8, 0.8)
    assert "the judge gave no score: I would rather not say." in second.reasons["judge"]
    instruction, question = (message["content"] for message in server.asked[0]["messages"])
    assert instruction.startswith("You grade answers. Is the sum right?")
    code = question.partition("<<")[2].partition(">>")[0]
    assert question.count(f"<<{code}>>") == 2 and len(code) == 16, (
        "the answer stands between lines of its own"
    )


def test_a_comparing_judge_ranks_the_group_and_shows_answers_in_both_places(serve):
    pytest.importorskip("openai")

    def answer(question: Any) -> Answer:
        first, second = (
            int(block.splitlines()[1]) for block in question["messages"][1]["content"].split("<<")[1::2]
        )
        return reply(
            json.dumps({"better": "equal" if first == second else ["second", "first"][first > second]})
        )

    server = serve(answer)
    rows = [{**ROWS[0], "completion": text} for text in ("1", "2", "3", "3")]
    options = {"base_url": server.url, "model": "m", "opponents": 3}
    scores = try_reward("judge_ranking", rows, options=options, timeout=60).scores
    assert [score.reward for score in scores] == pytest.approx([0.0, 1 / 3, 2.5 / 3, 2.5 / 3])


def test_a_reward_without_its_model_or_address_says_what_it_needs():
    (score,) = try_reward("http_score", ROWS[:1]).scores
    assert "needs the option `url`" in score.reasons["http_score"]


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    """A tiny random Llama classifier of one or two outputs, saved with the embedded tokenizer."""

    def make(labels: int) -> str:
        folder = tmp_path_factory.mktemp("classifier")
        tokenizer = AutoTokenizer.from_pretrained(EMBEDDED)
        torch.manual_seed(labels)
        config = LlamaConfig(
            vocab_size=len(tokenizer), hidden_size=16, intermediate_size=16, num_hidden_layers=1,
            num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=64, num_labels=labels,
            pad_token_id=tokenizer.pad_token_id,
        )  # fmt: skip
        LlamaForSequenceClassification(config).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return str(folder)

    return make


def test_a_reward_model_scores_each_answer_as_a_plain_forward_does_whatever_the_batch(classifier):
    folder = classifier(1)
    texts = ["4", "a much longer answer than that", "5"]
    scorer = SequenceScorer(folder, "cpu", batch_size=2)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = LlamaForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    expected = []
    for text in texts:
        messages = [{"role": "user", "content": "2+2?"}, {"role": "assistant", "content": text}]
        dialogue = tokenizer.apply_chat_template(messages, tokenize=False)
        with torch.inference_mode():
            expected.append(float(model(**_inputs(tokenizer, dialogue)).logits[0, 0]))
    assert scorer.rewards("2+2?", texts) == pytest.approx(expected, abs=1e-5)
    assert len(set(expected)) == 3


def test_a_reward_model_scores_what_was_said_in_a_process_of_its_own(
    classifier,
):
    rows = [{"prompt": "2+2?", "completion": f"<think>so</think>{text}"} for text in ("4", "5")]
    folder = classifier(1)
    scores = try_reward("reward_model", rows, options={"model": folder, "device": "cpu"}, timeout=120).scores
    expected = SequenceScorer(folder, "cpu").rewards("2+2?", ["4", "5"])
    assert [score.reward for score in scores] == pytest.approx(expected, abs=1e-5)


def _inputs(tokenizer, text):
    found = tokenizer(text, return_tensors="pt")
    return {name: found[name] for name in ("input_ids", "attention_mask")}


def test_a_classifier_gives_the_probability_of_its_label(classifier):
    scorer = SequenceScorer(classifier(2), "cpu")
    assert scorer.labels == ["LABEL_0", "LABEL_1"]
    texts = ["good", "bad"]
    zero, one = scorer.probabilities(texts, "LABEL_0"), scorer.probabilities(texts, "LABEL_1")
    assert [left + right for left, right in zip(zero, one, strict=True)] == pytest.approx([1.0, 1.0])
    with pytest.raises(ModelError, match=r"knows no label 'nice'\. It has: LABEL_0, LABEL_1"):
        scorer.probabilities(texts, "nice")
    with pytest.raises(ModelError, match="A reward model has one output, this one has 2"):
        scorer.rewards("2+2?", texts)


def test_a_language_model_without_a_trained_head_is_refused(tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(EMBEDDED)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=16, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=1,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"has no trained score head \(score\.weight missing\)"):
        SequenceScorer(str(tmp_path), "cpu")
    with pytest.raises(ModelError, match="cannot be loaded as a classifier"):
        SequenceScorer(str(tmp_path / "nothing"), "cpu")
