"""The what-if drawer in a real browser: on Live over the curves, on Group beside the recorded advantages."""

import os
import re

import pytest
from playwright.sync_api import expect

from tests.fakes import write_fake_run
from tests.helpers import FAKE_WORKER, Yard, wait_until
from tests.ui.reading import number, open_reader, query, record_rows, texts
from workbench.launch import local
from workbench.record.folder import folders
from workbench.record.reader import Reader
from workbench.record.writer import Writer
from workbench.view.whatif.drawer import WhatIfDrawer

pytestmark = [pytest.mark.ui, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def served(dashboard, tmp_path_factory):
    root = tmp_path_factory.mktemp("whatif")
    run = write_fake_run(root, steps=24, groups=6, samples=8, seed=4)
    for step in range(9):
        os.unlink(run.tokens / f"step-{step:06d}.safetensors")
    return dashboard(root), run


def mean(values):
    return sum(values) / len(values)


def row(page, name):
    """A line of the drawer's table: all steps, then the step under the cursor."""
    return page.locator(".iftable tr", has=page.get_by_role("cell", name=name, exact=True)).first.locator(
        "td.r"
    )


def test_every_step_is_recomputed_with_a_smaller_group_and_drawn_over_the_curves(page, served):
    dashboard, run = served
    open_reader(page, dashboard, run)
    page.keyboard.press("w")
    page.get_by_label("Samples of a group, G′").fill("4")
    found = WhatIfDrawer().recompute(Reader(run), ["num_generations=4"], 23)
    dead = mean(found["asked"]["dead"])
    expect(row(page, "Dead groups").nth(0)).to_contain_text(f"{dead * 100:.0f} %")
    assert dead > mean(found["recorded"]["dead"])
    assert number(row(page, "Gradient that goes elsewhere").nth(0).inner_text()) == pytest.approx(
        mean(found["difference"]["moved"]), abs=0.0051
    )
    label = page.locator(".ch", has_text="Dead groups").locator(".ends span", has_text="what if")
    assert number(label.inner_text().removeprefix("what if")) == pytest.approx(
        found["asked"]["dead"][-1], abs=0.0051
    )
    expect(page.locator(".whatif")).to_contain_text("not how the run would have gone")
    fork = page.get_by_role("link", name="Fork from step 23 with these")
    assert (
        fork.get_attribute("href") == f"/new?fork={run.id}&step=23&set=%7B%22num_generations%22%3A%224%22%7D"
    )
    assert query(page)["whatif"] == "num_generations=4"
    page.reload()  # the question is part of the link
    expect(row(page, "Dead groups").nth(0)).to_contain_text(f"{dead * 100:.0f} %")
    page.get_by_role("button", name="As recorded").click()
    expect(label).to_have_count(0)
    page.keyboard.press("w")
    expect(page.locator(".whatif")).to_be_hidden()


@pytest.mark.slow
def test_tokens_are_only_spoken_of_where_they_are_kept(page, served):
    dashboard, run = served
    open_reader(page, dashboard, run, step=5, whatif="epsilon=0.01")
    expect(page.locator(".iftokens")).to_have_text(
        "Tokens are kept of 15 of 24 steps; the others are not included."
    )
    assert (
        row(page, "A further pass would clip, fell").nth(1).inner_text() == "–"
    )  # step 5 is among the others


def test_a_rewards_weight_and_a_reward_that_does_not_exist(page, served):
    dashboard, run = served
    open_reader(page, dashboard, run, whatif="")
    page.get_by_label("Count format").check()
    expect(row(page, "Mean reward").nth(0)).to_be_visible()
    assert query(page)["whatif"] == "rewards=correct%3D1%2Cformat%3D1"
    page.get_by_label("Another reward, path/file.py:function").fill("nowhere.py:no")
    page.keyboard.press("Enter")
    expect(page.locator(".ifstatus .crit")).to_contain_text("nowhere.py")


@pytest.mark.slow
def test_another_divisor_stands_beside_the_recorded_advantages(page, served):
    dashboard, run = served
    open_reader(page, dashboard, run, view="group", step=10)
    [(mixed, k)] = record_rows(
        run,
        "SELECT prompt_id, group_index FROM groups JOIN steps ON steps.id = step_id WHERE step = 10 AND kind = 'train' AND zero_std = '' ORDER BY group_index LIMIT 1",
    )
    open_reader(page, dashboard, run, view="group", step=10, prompt=mixed)
    rewards = [sample["reward"] for sample in Reader(run).group(10, k)["samples"]]
    plain = sorted(reward - mean(rewards) for reward in rewards)
    heads = texts(page.locator(".sib thead th"))
    assert "What if" not in heads
    page.locator(".divide button", has_text="Nothing").click()
    column = texts(page.locator(".sib thead th")).index("What if") + 1
    shown = sorted(number(text) for text in texts(page.locator(f".sib tbody td:nth-child({column})")))
    assert shown == pytest.approx(plain, abs=0.0051)
    # The drawer's question stands in the same place.
    page.keyboard.press("w")
    page.locator(".whatif").get_by_role("button", name="RLOO").click()
    expect(page.locator(".iftable tbody tr").first).to_be_visible()
    loo = sorted(value * len(rewards) / (len(rewards) - 1) for value in plain)
    shown = sorted(number(text) for text in texts(page.locator(f".sib tbody td:nth-child({column})")))
    assert shown == pytest.approx(loo, abs=0.0051)


def test_a_changed_live_setting_is_recomputed_as_each_step_had_it(page, served):
    dashboard, run = served  # step 20 set the temperature from 1.0 to 1.1; here beta moves too
    with Writer(run, run.config()) as record:
        record.event("setting_changed", {"beta": {"from": 0.0, "to": 0.04}}, 12)
    open_reader(page, dashboard, run, whatif="num_generations=4")
    beta = page.get_by_label("β", exact=True)
    expect(beta).to_have_value("")
    expect(beta).to_have_attribute("placeholder", "0 → 0.04")
    found = WhatIfDrawer().recompute(Reader(run), ["num_generations=4"])
    assert found["asked"]["pull"][11] == 0 < found["asked"]["pull"][12]  # the server takes what each step had
    beta.fill("0")  # the very value of the start is a question of its own now
    expect(row(page, "Penalty β × KL, nats a token").nth(0)).to_contain_text("→ 0")
    assert query(page)["whatif"] == "num_generations=4&beta=0"
    beta.fill("")
    expect(page.locator(".iftable")).to_be_visible()
    assert query(page)["whatif"] == "num_generations=4"


def test_start_on_a_fork_filled_in_by_the_drawer_starts_it(page, dashboard, tmp_path, monkeypatch):
    monkeypatch.setattr(local, "WORKER", FAKE_WORKER)  # a real process that only counts
    run = write_fake_run(tmp_path, steps=3, groups=6, samples=8, seed=4)
    yard = Yard(tmp_path)
    try:
        open_reader(page, dashboard(tmp_path), run, whatif="num_generations=3")
        page.get_by_role("link", name="Fork from step 2 with these").click()
        expect(page.locator("#f-num_generations input[type=number]")).to_have_value("3", timeout=60_000)
        page.locator("#wb-start").click()
        page.wait_for_url(re.compile(r"/\?run=\d{8}-"), timeout=60_000)
        [fork] = wait_until(lambda: [folder for folder in folders(tmp_path) if folder.id != run.id])
        yard.started.append(fork)
        assert query(page)["run"] == fork.id
        assert fork.config().num_generations == 3 and fork.about()["parent"]["run"] == run.id
        yard.goes_on(fork)
    finally:
        yard.close()
