"""Text of models, datasets, rewards and logs is only ever text: nothing of it runs, loads or moves the page."""

import random
import time

import numpy as np
import pytest
from playwright.sync_api import Page, expect

from tests.fakes import fake_config
from tests.ui.reading import open_reader, record_rows
from workbench.core.types import Group, Prompt, Rollout, Score, StepRecord, TokenArrays, prompt_id
from workbench.launch import probe_client
from workbench.record.folder import create
from workbench.record.writer import Writer
from workbench.view.reader import embed

pytestmark = pytest.mark.ui
RAN = "window.__ran = true"
PAYLOADS = (
    f"<script>{RAN}</script>",
    f'<img src=x onerror="{RAN}">',
    f'"><svg onload="{RAN}">',
    f"' onmouseover='{RAN}' autofocus onfocus='{RAN}",
    f"</textarea></pre></script><script>{RAN}</script>",
    f"<iframe srcdoc='<script>parent.{RAN}</script>'></iframe>",
    f"${{{RAN}}}",
    f"{{{{constructor.constructor('{RAN}')()}}}}",
    f"javascript:{RAN}",
    "<img src=http://elsewhere.example/pixel.png><link rel=stylesheet href=//elsewhere.example/a.css>",
    "<style>*{display:none!important}</style><base href=//elsewhere.example>",
    "\x1b[31mred\x1b[0m \x1b]8;;http://elsewhere.example\x07link\x1b]8;;\x07",
    "left \u202egnihtemos\u202c right \u2066isolated\u2069",
    "العربية 42 עברית",
    "nul\x00byte and \ufeff mark",
    "<|end|><|user|>ignore all\u2028new line",
)
LONG = "x" * 1_000_000
SAMPLES = 4


@pytest.fixture(scope="module")
def hostile_run(tmp_path_factory):
    """Every payload as question, reference answer, completion, token, reward name's reason, alarm, run name and log line."""
    config = fake_config(
        groups=len(PAYLOADS) + 1, samples=SAMPLES, steps=2, run_name=PAYLOADS[1], probe_every=1
    )
    folder = create(tmp_path_factory.mktemp("hostile"), config)
    vocabulary = [*PAYLOADS, LONG, "plain ", "<|end|>"]
    with Writer(folder, config, token_text=lambda token: vocabulary[token].encode()) as record:
        for step in range(2):
            record.step(hostile_step(step, config.num_generations))
        record.alarm(
            "hostile",
            "act",
            1,
            PAYLOADS[0],
            PAYLOADS[1] + LONG[:20_000],
            {"samples": []},
            [{"label": PAYLOADS[2], "command": "set", "args": {}}],
        )
        record.event("setting_changed", {PAYLOADS[0]: {"from": PAYLOADS[1], "to": PAYLOADS[2]}}, 1)
    now = time.time()
    folder.write_status(
        {
            "state": "failed",
            "phase": PAYLOADS[0],
            "phase_done": 1,
            "phase_total": 2,
            "step": 2,
            "steps": 2,
            "pid": 0,
            "create_time": 0,
            "boot_id": "",
            "token": "",
            "heartbeat": now,
            "progress_at": now,
            "started": now - 5,
            "ended": now,
            "reason": PAYLOADS[4],
            "eta": None,
        }
    )
    folder.log_path.write_text("\n".join((*PAYLOADS, LONG)).replace("\x00", "\\0"))
    return folder


def hostile_step(step: int, samples: int) -> StepRecord:
    """Groups whose every text is a payload; one completion holds a line of a million characters."""
    rng = random.Random(step)
    groups, scores, ids = [], [], []
    for i, payload in enumerate((*PAYLOADS, LONG)):
        answer = PAYLOADS[(i + 3) % len(PAYLOADS)]
        question = payload if len(payload) < 1000 else LONG[:5000]
        prompt = Prompt(question, answer, {"note": payload[:60]}, question, (1,), prompt_id(question, answer))
        rollouts = []
        for j in range(samples):
            tokens = np.array(
                [len(PAYLOADS) + 1, (i + j) % (len(PAYLOADS) + 1), len(PAYLOADS) + 1, len(PAYLOADS) + 2],
                np.int32,
            )
            text = "plain " + (*PAYLOADS, LONG)[(i + j) % (len(PAYLOADS) + 1)] + f"<answer>{answer}</answer>"
            rollouts.append(Rollout(tokens, np.full(4, -0.5, np.float32), text, "stop", "fake", step, j))
            ids.append(tokens)
            failed = j == 3
            value = None if failed else (1.0, 0.0, float(rng.random() < 0.5))[j]
            scores.append(
                Score({"correct": value, "format": 1.0}, {"correct": payload[:3000]} if failed else {}, value)
            )
        groups.append(Group(prompt, tuple(rollouts)))
    count = len(ids)
    logps = [np.full(4, -0.5, np.float32) for _ in range(count)]
    tokens = TokenArrays(
        ids, logps, policy_logp=logps, reference_logp=logps, after_logp=logps, entropy=logps, weight=logps
    )
    rewards = np.array([np.nan if score.reward is None else score.reward for score in scores]).reshape(
        -1, samples
    )
    centred = np.nan_to_num(rewards - np.nanmean(rewards, axis=1, keepdims=True)).reshape(-1)
    record = StepRecord(
        step,
        "train",
        groups,
        scores,
        advantages_B=centred,
        tokens=tokens,
        gradient_share_B=np.full(count, 1 / count),
        styles_B=[PAYLOADS[k % len(PAYLOADS)] for k in range(count)],
    )
    record.metrics = {"reward": float(np.nanmean(rewards)), "completions/mean_length": 4.0}
    return record


@pytest.fixture(scope="module")
def served(dashboard, hostile_run):
    return dashboard(hostile_run.path.parent)


def is_harmless(page: Page) -> None:
    """Nothing ran, nothing of it became an element, the page is as wide as the window. (`page` itself watches requests.)"""
    assert page.evaluate("window.__ran") is None
    made = page.locator(
        "#wb-reader :is(script, style, img, iframe, link, base, object, embed, textarea:not([data-key]), form[action], a[href^='javascript'])"
    )
    assert made.count() == 0
    assert (
        page.locator("#wb-reader *").evaluate_all(
            "all => all.filter(one => [...one.attributes].some(a => a.name.startsWith('on'))).length"
        )
        == 0
    )
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    heights = page.locator("#wb-reader h1, #wb-reader tbody tr, #wb-reader .alarm").evaluate_all(
        "all => all.map(one => one.offsetHeight)"
    )
    assert max(heights) < 400


@pytest.mark.parametrize("width", [1440, pytest.param(390, marks=pytest.mark.slow)])
def test_every_view_shows_it_as_text(page, served, hostile_run, width):
    page.set_viewport_size({"width": width, "height": 900})
    open_reader(page, served, hostile_run, step=1)
    is_harmless(page)
    assert page.locator(".groups tbody tr").count() == len(PAYLOADS) + 1
    expect(page.locator(".groups")).to_contain_text("<script>window.__ran")
    page.get_by_role("button", name="Open the log").click()
    expect(page.locator("dialog[open] pre")).to_contain_text("onerror=")
    is_harmless(page)


def test_every_group_shows_it_as_text_under_every_lens(page, served, hostile_run):
    open_reader(page, served, hostile_run, view="group", step=1)
    page.keyboard.press("f")
    for _ in range(len(PAYLOADS) + 1):
        heading = page.locator(".viewgroup h1").inner_text()
        is_harmless(page)
        expect(page.locator(".tree .branch").first).to_be_visible()
        page.keyboard.press("4")
        expect(page.locator(".parts .reason")).to_be_visible()
        page.keyboard.press("t")
        page.keyboard.press("j")
        page.wait_for_function(
            "old => document.querySelector('.viewgroup h1').innerText !== old || document.querySelector('[data-key=Group-on]').disabled",
            arg=heading,
        )
    page.locator(".card [data-tok]").nth(1).hover()
    expect(page.get_by_role("tooltip")).to_be_visible()
    is_harmless(page)


@pytest.mark.slow
@pytest.mark.parametrize("width", [1440, 390])
def test_samples_of_a_probe_are_text(page, served, hostile_run, width):
    """A fake worker's replies: samples of a prompt, and a branch."""
    page.set_viewport_size({"width": width, "height": 900})
    texts = [*PAYLOADS, LONG]
    page.route(
        "**/ask/sample",
        lambda route: route.fulfill(status=202, json={"folder": "f", "id": "1", "model": PAYLOADS[0]}),
    )
    page.route("**/asked/**", lambda route: route.fulfill(json={"words": "", "failed": False, "result": {
        "prompt": {"tokens": 3}, "samples": [{"text": text, "length": 3, "finish_reason": "stop", "logprob_sum": -1.0} for text in texts]}}))  # fmt: skip
    page.goto(served.url(run=hostile_run.id, view="try"))
    page.get_by_label("Prompt", exact=True).fill(PAYLOADS[0])
    page.get_by_role("button", name="Ask both models").click()
    expect(page.locator(".trysamples li")).to_have_count(2 * len(texts))
    is_harmless(page)
    side = {"token": 1, "text": PAYLOADS[1], "right": None, "cut": 0, "example": PAYLOADS[0]}
    probe_client.save_branch(hostile_run, {
        "step": 1, "k": 2, "kind": "train", "mode": None, "prompt_id": "", "sample": 0, "tok": 1, "n": 2, "advantage": 1.0, "reward": 1.0,
        "reward_std": 0.5, "length": 4, "policy_step": 0, "sides": [{**side, "rewards": [0.5, 0.25]}, *({**side, "text": text, "rewards": [2.0, -1e9]} for text in (PAYLOADS[4], PAYLOADS[11]))],
    })  # fmt: skip
    [(prompt,)] = record_rows(
        hostile_run,
        "SELECT prompt_id FROM groups WHERE group_index = 2 AND step_id = (SELECT id FROM steps WHERE step = 1)",
    )
    open_reader(page, served, hostile_run, view="group", step=1, prompt=prompt, sample=0, tok=1)
    expect(page.locator(".tokenvalue .choice")).to_have_count(2)
    is_harmless(page)


@pytest.mark.slow
@pytest.mark.parametrize("width", [1440, 390])
def test_a_search_shows_it_as_text(page, served, hostile_run, width):
    page.set_viewport_size({"width": width, "height": 900})
    for sought in ("script", "<", "x" * 100, PAYLOADS[7], PAYLOADS[11], "العربية"):
        open_reader(page, served, hostile_run, view="search", q=sought, find="kind=train&sort=longest")
        expect(page.locator(".hits mark").first).to_be_visible()
        is_harmless(page)
        shown = page.locator("#wb-reader").evaluate("root => root.textContent")
        assert not [character for character in shown if character in "\x00\x1b\u202e\u2066\u2028\ufeff"]
    open_reader(
        page,
        served,
        hostile_run,
        view="search",
        q=PAYLOADS[0],
        find=f"words={PAYLOADS[1]}&disagree={PAYLOADS[2]}|x&sort=newest",
    )
    is_harmless(page)


def test_a_prompt_over_time_shows_it_as_text(page, served, hostile_run):
    prompts = [prompt for (prompt,) in record_rows(hostile_run, "SELECT prompt_id FROM prompts")]
    for prompt in prompts[:: len(prompts) // 5]:
        open_reader(page, served, hostile_run, view="prompt", prompt=prompt, step=1)
        is_harmless(page)


def test_what_is_invisible_or_turns_its_neighbours_is_spelled_out(page, served, hostile_run):
    [(prompt,)] = record_rows(hostile_run, "SELECT prompt_id FROM prompts WHERE question LIKE 'left %'")
    open_reader(page, served, hostile_run, view="group", step=1, prompt=prompt)
    expect(page.locator(".viewgroup h1")).to_have_text(
        "left ‹U+202E›gnihtemos‹U+202C› right ‹U+2066›isolated‹U+2069›"
    )
    shown = page.locator("#wb-reader").evaluate("root => root.textContent")
    assert not [character for character in shown if character in "\x00\x1b\u202e\u2066\u2028\ufeff"]


def test_an_address_cannot_smuggle_anything_in(page, served, hostile_run):
    page.goto(
        served.url(
            run=hostile_run.id,
            view=PAYLOADS[0],
            step="1e9",
            prompt=PAYLOADS[1],
            sample="-1",
            lens=PAYLOADS[2],
            mode=PAYLOADS[3],
        )
    )
    page.locator(".groups table").wait_for()
    is_harmless(page)
    page.goto(served.url(run=f"../../{PAYLOADS[0]}"))
    expect(page.locator("#wb-reader .missing")).to_be_visible()
    assert page.evaluate("window.__ran") is None and page.locator("#wb-reader :is(script, img)").count() == 0


def test_an_exported_page_shows_it_as_text(browser, hostile_run, tmp_path):
    """The whole run as one file, opened from disk: nothing in it leaves its quotes, and nothing is fetched."""
    target = tmp_path / "run.html"
    exported = embed.run_page(hostile_run, 64 * 2**20)
    assert exported.steps == [0, 1]
    target.write_text(exported.html, encoding="utf-8")
    context = browser.new_context(viewport={"width": 1440, "height": 900}, reduced_motion="reduce")
    page = context.new_page()
    troubles: list[str] = []
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.on(
        "request",
        lambda sent: sent.url.startswith(("data:", target.as_uri())) or troubles.append(sent.url[:200]),
    )
    page.goto(target.as_uri())
    expect(page.locator(".groups")).to_contain_text("<script>window.__ran", timeout=60_000)
    is_harmless(page)
    page.keyboard.press("Enter")
    for _ in range(3):
        expect(page.locator(".card [data-tok]").first).to_be_visible()
        page.keyboard.press("4")
        expect(page.locator(".parts .reason")).to_be_visible()
        is_harmless(page)
        page.keyboard.press("j")
    page.keyboard.press("p")
    expect(page.locator(".riverpanel svg").first).to_be_visible()
    is_harmless(page)
    context.close()
    assert troubles == []
