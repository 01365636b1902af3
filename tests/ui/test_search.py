"""Finding samples in a real browser: by text and by number, through the hits, from link and keyboard, into a file."""

import json

import pytest
from playwright.sync_api import expect

from tests.fakes import write_fake_run
from tests.ui.reading import open_reader, query, record_rows, texts
from workbench.record.reader import Reader
from workbench.record.search import Filters

pytestmark = pytest.mark.ui


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_fake_run(
        tmp_path_factory.mktemp("search"), steps=12, groups=6, samples=8, failures=0.05, name="sought"
    )


@pytest.fixture(scope="module")
def served(dashboard, run):
    return dashboard(run.path.parent)


def test_slash_searches_and_n_walks_the_hits(page, served, run):
    open_reader(page, served, run)
    page.keyboard.press("/")
    expect(page.locator("[data-key=find-text]")).to_be_focused()
    page.keyboard.type("check")
    expect(page.locator(".viewsearch h1")).to_contain_text("hold “check”")
    hits = Reader(run).search("check", limit=50)
    expect(page.locator(".hits li")).to_have_count(len(hits))
    assert texts(page.locator(".hits mark"))[:3] == ["check"] * 3
    page.keyboard.press("Enter")  # leaves the field
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    for place in (1, 2):
        expect(page.locator(".hitbar b")).to_have_text(f"Hit {place + 1} of {len(hits)}+")
        at = query(page)
        assert (at["view"], int(at["step"]), at["prompt"], int(at["sample"])) == (
            "group",
            hits[place]["step"],
            hits[place]["prompt_id"],
            hits[place]["i"],
        )
        expect(page.locator(".card.picked .hd b").first).to_have_text(f"#{hits[place]['i'] + 1}")
        page.keyboard.press("n")
    page.keyboard.press("N")
    page.keyboard.press("Escape")
    expect(page.locator(".hits")).to_be_visible()
    assert query(page)["q"] == "check"


def test_filters_and_order_stand_in_the_address_and_come_back_from_it(page, served, run):
    open_reader(page, served, run, view="search")
    page.get_by_label("Reward, at most").fill("0")
    page.get_by_label("Ended").select_option("by itself")
    page.get_by_label("Sorted by").select_option("longest first")
    expect(page.locator(".viewsearch h1")).to_contain_text(
        "earned 0 or less and ended by themselves, longest first"
    )
    wanted = Reader(run).find("", Filters(reward_max=0.0, finish_reason="stop"), sort="longest").hits
    keys = [f"hit-{hit['id']}" for hit in wanted]
    expect(page.locator(".hits a").first).to_have_attribute("data-key", keys[0])
    assert page.locator(".hits a").evaluate_all("all => all.map(one => one.dataset.key)") == keys
    page.reload()
    expect(page.locator(".hits a").first).to_have_attribute("data-key", keys[0])
    expect(page.get_by_label("Reward, at most")).to_have_value("0")
    expect(page.get_by_label("Sorted by")).to_have_value("longest")


def test_more_hits_come_on_request_and_all_go_into_a_file(page, served, run):
    open_reader(page, served, run, view="search", q="check", find="words=ok&kind=train")
    expect(page.locator(".hits li")).to_have_count(50)
    page.get_by_role("button", name="Show more").click()
    expect(page.locator(".hits li").nth(50)).to_be_visible()
    with page.expect_download() as download:
        page.get_by_role("link", name="JSONL").click()
    rows = [json.loads(line) for line in download.value.path().read_text().splitlines()]
    [(count,)] = record_rows(
        run,
        "SELECT count(*) FROM samples s JOIN steps t ON t.id = s.step_id WHERE kind = 'train' AND completion LIKE '%check%' AND completion LIKE '%ok%'",
    )
    assert len(rows) == count > 50


def test_a_search_without_hits_says_so_and_a_phone_has_the_filters_in_a_fold(page, served, run):
    page.set_viewport_size({"width": 390, "height": 844})
    open_reader(page, served, run, view="search", q="zebra")
    expect(page.locator(".viewsearch h1")).to_have_text("No samples that hold “zebra”.")
    expect(page.get_by_label("Text in the sample or the question")).to_be_hidden()
    page.get_by_text("Filters", exact=True).click()
    page.get_by_role("button", name="Clear").click()
    expect(page.locator(".hits li")).to_have_count(50)
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
