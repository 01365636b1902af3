"""The group lens and the prompt over time in a real browser, compared with the record and with numbers computed here."""

import json
import math
import re
import statistics

import pytest
from playwright.sync_api import expect

from tests.fakes import write_fake_run
from tests.ui.reading import GROUPS, MINUS, number, open_reader, query, record_rows, texts
from workbench.launch import probe_client
from workbench.record.reader import Reader

pytestmark = pytest.mark.ui
STEP = 12


@pytest.fixture(scope="module")
def recorded_run(tmp_path_factory):
    return write_fake_run(tmp_path_factory.mktemp("group"), steps=31, total=31, seed=2, name="chain-s2")


@pytest.fixture(scope="module")
def failing_run(recorded_run):
    """A reward that raised for some samples; below the same root."""
    return write_fake_run(recorded_run.path.parent, steps=3, total=3, failures=0.15, seed=3, name="failing")


@pytest.fixture(scope="module")
def served(dashboard, recorded_run, failing_run):
    return dashboard(recorded_run.path.parent)


@pytest.fixture(scope="module")
def group(recorded_run):
    """The group of the step with the largest share, as the record has it, token arrays included."""
    reader = Reader(recorded_run)
    return reader.group(STEP, reader.groups(STEP)[0]["k"], arrays=True)


def rewards(group) -> list[float]:
    return [sample["reward"] for sample in group["samples"]]


def test_the_formula_is_filled_with_the_numbers_of_this_group(page, served, recorded_run, group):
    open_reader(page, served, recorded_run, view="group", step=STEP, prompt=group["prompt_id"], sample=3)
    mean, sigma = statistics.fmean(rewards(group)), statistics.stdev(rewards(group))
    shown = [number(text) for text in texts(page.locator(".eq .v"))]
    reward = rewards(group)[3]
    advantage = (reward - mean) / (sigma + 1e-4)
    assert shown == pytest.approx([advantage, reward, mean, sigma, 1e-4], abs=0.006)
    assert shown[0] == pytest.approx(group["samples"][3]["advantage"], abs=0.006)
    expect(page.locator(".arith")).to_contain_text("Sample std (n − 1), as TRL.")


def test_picking_a_sample_changes_the_figures_and_not_the_layout(page, served, recorded_run, group):
    open_reader(page, served, recorded_run, view="group", step=STEP, prompt=group["prompt_id"], sample=0)
    before = page.locator(".eq").bounding_box()
    for key in "123456789":
        page.keyboard.press(key)
        expect(page.locator(".eq .n").first).to_have_text(f"advantage of #{key}")
        assert number(page.locator(".eq .v").first.inner_text()) == pytest.approx(
            group["samples"][int(key) - 1]["advantage"], abs=0.006
        )
        assert query(page)["sample"] == str(int(key) - 1)
    after = page.locator(".eq").bounding_box()
    assert (after["y"], after["height"]) == (before["y"], before["height"])


def test_another_divisor_shows_the_advantages_it_would_give(page, served, recorded_run, group):
    open_reader(page, served, recorded_run, view="group", step=STEP, prompt=group["prompt_id"], sample=0)
    mean = statistics.fmean(rewards(group))
    page.get_by_role("button", name="Nothing").click()
    expect(page.locator(".arithhead h2")).to_have_text("Advantage = reward − mean")
    assert number(page.locator(".eq .v").first.inner_text()) == pytest.approx(
        rewards(group)[0] - mean, abs=0.006
    )
    expect(page.locator(".eqnote")).to_contain_text("What if: this run divides by the group std")
    page.get_by_role("button", name="RLOO").click()
    others = [reward for i, reward in enumerate(rewards(group)) if i != 0]
    shown = [number(text) for text in texts(page.locator(".eq .v"))]
    assert shown == pytest.approx(
        [rewards(group)[0] - statistics.fmean(others), rewards(group)[0], statistics.fmean(others)], abs=0.006
    )


def test_the_table_shows_advantages_and_the_effect_of_the_update(page, served, recorded_run, group):
    open_reader(page, served, recorded_run, view="group", step=STEP, prompt=group["prompt_id"])
    rows = {
        int(cells[0]): cells
        for cells in (texts(row.locator("td")) for row in page.locator(".sib tbody tr").all())
    }
    assert sorted(rows) == list(range(1, 13))
    for sample in group["samples"]:
        cells = rows[sample["i"] + 1]
        assert int(cells[3]) == sample["length"]
        assert number(cells[4]) == pytest.approx(sample["advantage"], abs=0.006)
        assert number(cells[5]) == pytest.approx(sample["delta_logp"], abs=0.006)
    moved = [sample for sample in group["samples"] if sample["advantage"]]
    against = [
        s for s in moved if (s["delta_logp"] > 0) != (s["advantage"] > 0) and abs(s["delta_logp"]) >= 5e-4
    ]
    start = (
        f"{len(moved) - len(against)} of {len(moved)} moved with their advantage."
        if against
        else f"All {len(moved)} moved with their advantage."
    )
    assert page.locator(".sentence").inner_text().startswith(start)
    assert page.locator(".sib .chip.warn").count() == len(against)


def test_only_the_cards_are_drawn_token_by_token_and_they_read_as_the_samples_do(
    page, served, recorded_run, group
):
    open_reader(page, served, recorded_run, view="group", step=STEP, prompt=group["prompt_id"], sample=2)
    cards = page.locator(".card")
    assert cards.count() == 3
    for card in cards.all():
        sample = group["samples"][int(card.get_attribute("data-card"))]
        assert card.locator("[data-tok]").count() == len(sample["token_ids"])
        spoken = "".join(
            card.locator("[data-tok]").evaluate_all("spans => spans.map(span => span.textContent)")
        )
        assert re.sub(r"\s", "", spoken) == re.sub(r"\s", "", sample["text"])


def test_the_lens_colours_each_token_by_its_own_value(page, served, recorded_run, group):
    open_reader(page, served, recorded_run, view="group", step=STEP, prompt=group["prompt_id"], sample=2)
    sample = group["samples"][2]

    def step(value: float) -> str:
        level = sum(abs(value) >= cut for cut in (0.04, 0.2, 0.5))
        return f"{'p' if value > 0 else 'n'}{level}" if level else ""

    def shown() -> list[str]:
        found = page.locator(".card[data-card='2'] [data-tok]").evaluate_all(
            "spans => spans.map(span => span.className)"
        )
        return [next(iter(re.findall(r"\b[npe][1-5]\b", classes)), "") for classes in found]

    push = [sample["advantage"] * (1 - math.exp(logp)) for logp in sample["policy_logp"]]
    assert shown() == [step(value) for value in push]
    page.get_by_role("button", name="Δ log p").click()
    assert query(page)["lens"] == "delta"
    moved = [
        after - before for after, before in zip(sample["after_logp"], sample["policy_logp"], strict=True)
    ]
    assert shown() == [step(value) for value in moved]
    page.get_by_role("button", name="Weight").click()
    lengths = record_rows(
        recorded_run,
        "SELECT sum(length) FROM samples WHERE step_id = (SELECT id FROM steps WHERE step = ? AND kind = 'train' AND current)",
        STEP,
    )
    assert shown() == [step(-weight * lengths[0][0]) for weight in sample["weight"]]
    page.get_by_role("button", name="Ratio").click()
    assert query(page)["lens"] == "ratio"
    ratios = [math.exp(change) for change in moved]
    assert shown() == [step(ratio - 1) for ratio in ratios]
    furthest = max(range(len(ratios)), key=lambda i: abs(ratios[i] - 1))
    page.locator(f".card[data-card='2'] [data-tok='{furthest}']").hover()
    expect(page.get_by_role("tooltip")).to_contain_text(f"Ratio: {ratios[furthest]:.3f}")
    page.keyboard.press("t")
    expect(page.get_by_role("button", name="Mismatch")).to_have_attribute("aria-pressed", "true")


def test_cards_part_where_the_tokens_do(page, served, recorded_run, group):
    open_reader(page, served, recorded_run, view="group", step=STEP, prompt=group["prompt_id"])
    ids = [
        group["samples"][int(card.get_attribute("data-card"))]["token_ids"]
        for card in page.locator(".card").all()
    ]
    shared = next(i for i, column in enumerate(zip(*ids, strict=False)) if len(set(column)) > 1)
    if shared:
        expect(page.locator(".cut").first).to_have_text(
            f"{shared} {'token' if shared == 1 else 'tokens'} shared, then"
        )
        assert page.locator(".card .tk.split").count() == 3
        expect(page.locator(".splitrow h3")).to_have_text(f"The split, token {shared + 1}")
    page.keyboard.press("d")
    assert page.locator(".card").count() == 2
    assert page.locator(".card .tk.differs").count() > 0


def test_a_token_says_its_probability_before_and_after(page, served, recorded_run, group):
    open_reader(page, served, recorded_run, view="group", step=STEP, prompt=group["prompt_id"], sample=2)
    page.locator(".card[data-card='2'] [data-sample-tokens]").press("ArrowRight")
    page.locator(".card[data-card='2'] [data-sample-tokens]").press("ArrowRight")
    tip = page.get_by_role("tooltip")
    sample = group["samples"][2]
    expect(tip).to_contain_text(f"token 2 of {len(sample['token_ids'])}")
    expect(tip).to_contain_text(f"{math.exp(sample['policy_logp'][1]):.3f}")
    expect(tip).to_contain_text(f"{math.exp(sample['after_logp'][1]):.3f}")
    assert query(page)["tok"] == "1"


def test_a_deep_link_restores_everything(page, served, recorded_run, group):
    open_reader(
        page,
        served,
        recorded_run,
        view="group",
        step=STEP,
        prompt=group["prompt_id"],
        sample=4,
        lens="kl",
        tok=3,
    )
    expect(page.locator(".viewgroup h1")).to_have_text(group["question"])
    expect(page.locator(".live.parked")).to_have_text(f"Parked at step {STEP}")
    expect(page.get_by_role("button", name="KL", exact=True)).to_have_attribute("aria-pressed", "true")
    expect(page.locator(".card.picked")).to_have_attribute("data-card", "4")
    expect(page.locator(".card.picked .tk.picked")).to_have_attribute("data-tok", "3")


def test_an_address_copied_before_a_restart_opens_the_same_token_after_it(
    page, served, dashboard, recorded_run, group
):
    cursor = {
        "view": "group",
        "step": STEP,
        "prompt": group["prompt_id"],
        "sample": 4,
        "lens": "kl",
        "tok": 3,
    }
    open_reader(page, served, recorded_run, **cursor)
    expect(page.locator(".card.picked .tk.picked")).to_have_attribute("data-tok", "3")
    kept = query(page)
    again = dashboard(recorded_run.path.parent)
    assert again.token != served.token
    page.goto(again.url(**kept))
    expect(page.locator(".card.picked")).to_have_attribute("data-card", "4")
    expect(page.locator(".card.picked .tk.picked")).to_have_attribute("data-tok", "3")
    expect(page.get_by_role("button", name="KL", exact=True)).to_have_attribute("aria-pressed", "true")
    assert query(page) == kept


def test_steps_and_groups_are_walked_with_hl_and_jk(page, served, recorded_run, group):
    open_reader(page, served, recorded_run, view="group", step=STEP, prompt=group["prompt_id"])
    order = [
        row[0]
        for row in record_rows(
            recorded_run,
            f"SELECT question FROM {GROUPS} WHERE step = ? AND kind = 'train' ORDER BY zero_std != '', gradient_share DESC",
            STEP,
        )
    ]
    page.keyboard.press("j")
    expect(page.locator(".viewgroup h1")).to_have_text(order[1])
    page.keyboard.press("l")
    expect(page.locator(".step b").first).to_have_text(f"Step {STEP + 1}")
    expect(page.locator(".step b").nth(1)).to_have_text("Group 2 of 16")
    page.keyboard.press("h")
    expect(page.locator(".viewgroup h1")).to_have_text(order[1])


def test_shares_of_the_gradient_are_those_of_the_record(page, served, recorded_run, group):
    open_reader(page, served, recorded_run, view="group", step=STEP, prompt=group["prompt_id"])
    expect(page.locator(".sec", has_text="Share of the gradient").locator("p")).to_have_text(
        f"This group is {round(group['gradient_share'] * 100)} % of step {STEP}, rank 1 of 16."
    )


def test_a_failed_reward_keeps_its_text_and_says_why_it_has_no_score(page, served, failing_run):
    [(sample, step, prompt, place)] = record_rows(
        failing_run,
        f"""
        SELECT s.id, g.step, g.prompt_id, s.sample_index - (SELECT min(sample_index) FROM samples WHERE group_id = g.id) FROM samples s
        JOIN {GROUPS} g ON g.id = s.group_id WHERE s.reward IS NULL AND g.kind = 'train' AND g.zero_std = '' LIMIT 1""",
    )
    open_reader(page, served, failing_run, view="group", step=step, prompt=prompt, sample=place)
    expect(page.locator(".parts")).to_contain_text("error: no score")
    expect(page.locator(".parts .reason")).to_have_text("ValueError: no answer tag (reward.py line 3)")
    expect(page.locator(".arith")).to_contain_text("has no score: it has no advantage")
    expect(page.locator(".arith")).to_contain_text("left out of mean and std")
    expect(page.locator(".card.picked .hd")).to_contain_text("no score")
    [(text,)] = record_rows(
        failing_run, "SELECT completion FROM samples WHERE reward IS NULL AND id = ?", sample
    )
    assert page.locator(".card.picked .toks").inner_text().replace("\n", "") == text.replace("\n", "")


def test_a_held_out_prompt_is_followed_from_the_base_model_on(page, served, recorded_run):
    [(prompt, question)] = record_rows(
        recorded_run,
        f"SELECT prompt_id, question FROM {GROUPS} WHERE kind = 'eval' AND mode = 'sampled' AND group_index = 0 AND step = 0",
    )
    open_reader(page, served, recorded_run, view="prompt", prompt=prompt)
    visits = record_rows(
        recorded_run,
        f"SELECT step, correct_count, size FROM {GROUPS} WHERE prompt_id = ? AND mode = 'sampled' ORDER BY step",
        prompt,
    )
    expect(page.locator(".viewprompt h1")).to_have_text(question)
    assert page.locator(".river .visit").count() == len(visits) == 4
    first, last = (f"{round(right / n * 100)} %" for _, right, n in (visits[0], visits[-1]))
    expect(page.locator(".riverpanel h2").first).to_have_text(f"{first} → {last} right in 4 visits.")
    texts_of_run = {
        json.dumps(text)
        for (text,) in record_rows(
            recorded_run,
            "SELECT completion FROM samples JOIN groups ON groups.id = group_id WHERE prompt_id = ?",
            prompt,
        )
    }
    for frame in page.locator(".frame pre").all():
        assert json.dumps(frame.text_content()) in texts_of_run
    page.locator(".river .visit").nth(1).click()
    expect(page.locator(".film h2")).to_have_text("Step 0 beside step 10")


def test_signed_figures_carry_a_real_minus(page, served, recorded_run, group):
    open_reader(page, served, recorded_run, view="group", step=STEP, prompt=group["prompt_id"])
    figures = texts(page.locator(".sib td.neg")) + texts(page.locator(".picture text.neg"))
    assert figures and all(figure.startswith(MINUS) for figure in figures)


def paths(group, length: int) -> set[tuple[int, ...]]:
    return {
        tuple(sample["token_ids"][:length])
        for sample in group["samples"]
        if len(sample["token_ids"]) >= length
    }


def test_the_tree_forks_where_the_samples_diverge_and_is_coloured_by_mean_advantage(
    page, served, recorded_run, group
):
    open_reader(page, served, recorded_run, view="group", step=STEP, prompt=group["prompt_id"])
    page.keyboard.press("f")
    boxes = page.locator(".tree [role=treeitem]").evaluate_all(
        "all => all.map(one => [one.dataset.branch, one.getAttribute('aria-label'), one.querySelector('rect').getAttribute('class') ?? ''])"
    )
    starts = {}
    for key, label, colour in boxes:
        start, first = (int(part) for part in key.split("-"))
        prefix = group["samples"][first]["token_ids"][: start + 1]
        below = [sample for sample in group["samples"] if sample["token_ids"][: start + 1] == prefix]
        mean = statistics.fmean(sample["advantage"] for sample in below)
        level = sum(abs(mean) >= cut for cut in (0.04, 0.2, 0.5))
        assert colour == (f"{'p' if mean > 0 else 'n'}{level}" if level else "")
        assert f"{sum(sample['right'] for sample in below)} of {len(below)} right" in label
        starts.setdefault(start, []).append(tuple(prefix))
    forks = [
        n
        for n in range(max(len(sample["token_ids"]) for sample in group["samples"]))
        if len(paths(group, n + 1)) > len(paths(group, n))
    ]
    assert sorted(starts) == sorted({0, *forks})
    assert all(set(prefixes) <= paths(group, start + 1) for start, prefixes in starts.items())


def test_a_branch_is_reached_by_arrows_and_shows_its_samples(page, served, recorded_run, group):
    open_reader(page, served, recorded_run, view="group", step=STEP, prompt=group["prompt_id"])
    page.get_by_role("button", name="Tree").click()
    items = page.locator(".tree [role=treeitem]")
    assert page.locator(".tree [tabindex='0']").count() == 1
    page.locator(".tree [tabindex='0']").focus()
    page.keyboard.press("ArrowRight")
    start, first = (int(part) for part in page.evaluate("document.activeElement.dataset.branch").split("-"))
    assert start > 0
    prefix = group["samples"][first]["token_ids"][: start + 1]
    below = {sample["i"] for sample in group["samples"] if sample["token_ids"][: start + 1] == prefix}
    page.keyboard.press("Enter")
    expect(page.locator(".cardshead b").first).to_have_text(
        f"Branch of {len(below)} {'sample' if len(below) == 1 else 'samples'}"
    )
    assert {
        int(card) for card in page.locator(".card").evaluate_all("all => all.map(one => one.dataset.card)")
    } <= below
    assert {int(row) - 1 for row in page.locator(".sib tr.on td:first-child").all_text_contents()} == below
    assert query(page)["tok"] == str(start)
    page.keyboard.press("Enter")  # the same branch again closes it
    expect(page.locator(".sib tr.on")).to_have_count(3)
    assert items.count() > 3


def test_a_saved_branch_is_drawn_again_with_its_intervals(page, served, recorded_run, group):
    """Rewards by hand: before 6 of 8 right, after 1 of 8; Wilson's intervals for them are 0.41-0.93 and 0.02-0.47."""
    sample, tok = 2, 3
    side = {"text": "", "cut": 0, "example": ""}
    probe_client.save_branch(recorded_run, {
        "step": STEP, "k": group["group"], "kind": "train", "mode": None, "prompt_id": group["prompt_id"], "sample": sample, "tok": tok,
        "n": 8, "advantage": 0.5, "reward": 1.0, "reward_std": 0.5, "length": 20, "policy_step": 10,
        "sides": [{**side, "token": None, "rewards": [1.0] * 6 + [0.0] * 2, "right": 6},
                  {**side, "token": 7, "text": "7", "rewards": [1.0] + [0.0] * 7, "right": 1}],
    })  # fmt: skip
    open_reader(
        page, served, recorded_run, view="group", step=STEP, prompt=group["prompt_id"], sample=sample, tok=tok
    )
    value = page.locator(".tokenvalue")
    expect(value.locator("h3")).to_have_text("Token 4 of #3: it lost 63 points (75 % → 13 %)")
    expect(value).to_contain_text("8 continuations a side; the tick is 75 % (41 % to 93 %)")
    expect(value.locator(".outcome")).to_have_text("13 % right 2 % to 47 %")
    # (0.125 - 0.75) / 0.5 against the flat 0.5; half widths 0.26 and 0.225 add up to 0.343 / 0.5
    expect(value).to_contain_text(
        "worth −1.25 ± 0.69; GRPO gave it, like every token of the sample, A = +0.50"
    )
    expect(value).to_contain_text("Continued by the policy after 10 steps; the sample is from step 12.")
    page.keyboard.press("1")
    expect(value.get_by_role("button", name="#3 token 4")).to_be_visible()
    value.get_by_role("button", name="#3 token 4").click()
    expect(value.locator("h3")).to_contain_text("it lost 63 points")


def test_b_goes_to_the_fork_and_shows_why_no_worker_can_branch(page, served, recorded_run, group):
    open_reader(page, served, recorded_run, view="group", step=STEP, prompt=group["prompt_id"])
    page.route(
        "**/ask/branch", lambda route: route.fulfill(status=409, json={"error": "No room for a worker."})
    )
    page.keyboard.press("b")
    at = query(page)
    ids = group["samples"][int(at["sample"])]["token_ids"]
    assert any(other["token_ids"][: int(at["tok"])] == ids[: int(at["tok"])] and other["token_ids"][int(at["tok"])] != ids[int(at["tok"])]
               for other in group["samples"] if len(other["token_ids"]) > int(at["tok"]))  # fmt: skip
    expect(page.locator(".tokenvalue h3")).to_contain_text("What was this token worth?")
    page.keyboard.press("b")
    expect(page.locator(".tokenvalue [role=alert]")).to_have_text("No room for a worker.")


@pytest.mark.parametrize("width", [611, 320])
def test_the_picture_of_a_dead_group_is_drawn_whole(page, served, recorded_run, width):
    """A dead group's picture says in words why every advantage is 0; the console stays empty."""
    [dead] = record_rows(
        recorded_run,
        f"SELECT step, prompt_id FROM {GROUPS} WHERE kind = 'train' AND zero_std != '' LIMIT 1",
    )
    errors: list[str] = []
    page.on("console", lambda message: message.type == "error" and errors.append(message.text))
    page.set_viewport_size({"width": width, "height": 844})
    open_reader(page, served, recorded_run, view="group", step=dead[0], prompt=dead[1])
    picture = page.locator("svg.picture")
    expect(picture).to_contain_text("so every advantage is 0.")
    frame = picture.bounding_box()
    for words in picture.locator("text").all():
        box = words.bounding_box()
        assert frame["x"] <= box["x"] and box["x"] + box["width"] <= frame["x"] + frame["width"] + 0.5
    assert [text for text in errors if "svg" in text] == []


def test_a_long_sample_is_drawn_on_scroll_or_on_request(page, served, recorded_run, group):
    """1,000 tokens: the first 320 at once, the next when their button comes into sight or is pressed; none is lost or doubled."""
    open_reader(page, served, recorded_run, view="group", step=STEP, prompt=group["prompt_id"])
    page.evaluate(
        """async () => {
          const { tokenText } = await import("/wb/static/group/tokens.js");
          const text = Array.from({ length: 1000 }, (_, i) => ` w${i}`);
          const sample = { index: 0, text: text.join(""), advantage: 1, finish_reason: "length", tokens: { text, sampler: text.map(() => -1) } };
          const box = document.createElement("div");
          box.id = "long";
          box.style.cssText = "position: fixed; inset: 0 0 auto 0; height: 120px; overflow: auto; z-index: 9";
          box.append(tokenText(sample, { lens: "push" }));
          document.querySelector("#wb-reader").append(box);
        }"""
    )
    drawn = page.locator("#long [data-tok]")
    more = page.locator("#long .moretokens")
    expect(more).to_have_text("… 680 more tokens")
    assert drawn.count() == 320
    more.focus()
    page.keyboard.press("Enter")
    expect(drawn).to_have_count(640)
    page.locator("#long").evaluate("box => (box.scrollTop = box.scrollHeight)")
    expect(drawn).to_have_count(960)
    page.locator("#long").evaluate("box => (box.scrollTop = box.scrollHeight)")
    expect(drawn).to_have_count(1000)
    expect(more).to_have_count(0)
    words = drawn.evaluate_all("spans => spans.map(span => span.textContent.trim())")
    assert words == [f"w{i}" for i in range(1000)]


def test_the_browsers_own_search_finds_samples_without_a_card_and_opens_them(page, served, recorded_run):
    open_reader(page, served, recorded_run, view="group", step=12)
    cards = page.locator(".card")
    hidden = page.locator("[hidden=until-found]")
    size = page.locator(".sib tbody tr").count()
    expect(hidden).to_have_count(size - cards.count())
    assert (
        hidden.first.evaluate("(node) => getComputedStyle(node).contentVisibility") == "hidden"
    )  # kept for the search, not laid out
    name, _, text = hidden.first.text_content().partition(" ")
    assert text.split() and page.locator(f".card[aria-label='Sample {name}']").count() == 0
    hidden.first.evaluate(
        "(node) => node.dispatchEvent(new Event('beforematch'))"
    )  # what the search does before it shows a find
    expect(page.locator(f".card[aria-label='Sample {name}']")).to_be_visible()
    assert query(page)["sample"] == str(int(name.removeprefix("#")) - 1)
