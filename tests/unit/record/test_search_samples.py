"""Search finds by text and by number, newest first, page by page, also what the index does not know yet."""

import re
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fakes import fake_config, make_step, write_fake_run
from workbench.core.errors import RunError
from workbench.record import folder as record
from workbench.record.reader import Reader
from workbench.record.search import Filters, Sort
from workbench.record.writer import Writer


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Reader:
    return Reader(
        write_fake_run(tmp_path_factory.mktemp("runs"), steps=12, groups=6, samples=8, failures=0.05)
    )


def everything(reader: Reader) -> list[dict[str, object]]:
    return reader.search(limit=10_000)


@pytest.mark.parametrize("text", ["check", "8+4", "WAIT", "<answer>7</answer>", "=3\n", "+", "7+2*"])
def test_a_text_is_found_exactly_where_it_stands(reader: Reader, text: str) -> None:
    hits = {hit["id"] for hit in reader.search(text, limit=10_000)}
    expected = {
        hit["id"]
        for hit in everything(reader)
        if text.lower() in hit["text"].lower() or text.lower() in hit["question"].lower()
    }
    assert hits == expected and expected


@pytest.mark.parametrize("text", ["zebra", '"', "NEAR(", "* OR text", "'; DROP TABLE samples; --", "\0", "("])
def test_words_that_mean_something_to_the_index_are_only_words(reader: Reader, text: str) -> None:
    assert [hit for hit in reader.search(text) if text not in hit["text"]] == []


def test_pages_by_the_last_id_seen_give_every_hit(reader: Reader) -> None:
    pages: list[int] = []
    after = None
    while page := reader.search("check", after_id=after, limit=7):
        pages += [hit["id"] for hit in page]
        after = page[-1]["id"]
    assert pages == [hit["id"] for hit in reader.search("check", limit=10_000)]
    assert pages == sorted(pages, reverse=True)


@pytest.mark.parametrize(("filters", "true"), [
    (Filters(kind="eval"), lambda hit: hit["kind"] == "eval"),
    (Filters(step_min=3, step_max=5), lambda hit: 3 <= hit["step"] <= 5),
    (Filters(reward_min=1.0), lambda hit: hit["reward"] is not None and hit["reward"] >= 1),
    (Filters(reward_max=0.0, length_min=20), lambda hit: hit["reward"] == 0 and hit["length"] >= 20),
    (Filters(advantage="up"), lambda hit: (hit["advantage"] or 0) > 0),
    (Filters(advantage="down", length_max=9), lambda hit: (hit["advantage"] or 0) < 0 and hit["length"] < 10),
    (Filters(advantage="zero"), lambda hit: hit["advantage"] == 0),
    (Filters(right=False, style="direct"), lambda hit: hit["right"] is False and hit["style"] == "direct"),
    (Filters(finish_reason="stop"), lambda hit: hit["finish_reason"] == "stop"),
    (Filters(failed_reward="correct"), lambda hit: hit["right"] is None),
])  # fmt: skip
def test_a_filter_keeps_exactly_what_it_says(reader: Reader, filters: Filters, true: object) -> None:
    expected = [hit["id"] for hit in everything(reader) if true(hit)]  # type: ignore[operator]
    assert [hit["id"] for hit in reader.search(filters=filters, limit=10_000)] == expected and expected


def test_rewards_that_disagree_are_found(reader: Reader) -> None:
    hits = reader.search(filters=Filters(kind="train", disagree=("correct", "format")), limit=10_000)
    samples = reader.samples()
    odd = samples[(samples["rewards/correct"] > 0) != (samples["rewards/format"] > 0)]
    assert {hit["id"] for hit in hits} == set(odd[odd["rewards/correct"].notna()].id)


def test_all_samples_of_a_prompt_are_found(reader: Reader) -> None:
    prompt = reader.group(0, 0)["prompt_id"]
    hits = reader.search(filters=Filters(prompt_id=prompt), limit=10_000)
    assert len(hits) == sum(visit["n"] for visit in reader.prompt_history(prompt))
    assert {hit["prompt_id"] for hit in hits} == {prompt}


def test_what_is_not_indexed_yet_is_found_too(tmp_path: Path) -> None:
    folder = record.create(tmp_path, fake_config(groups=2, samples=4))
    with Writer(folder) as writer:
        writer.step(make_step(0, groups=2, samples=4))
        writer.flush()
        with sqlite3.connect(folder.db_path) as db:
            indexed = db.execute("SELECT count(*) FROM samples_fts_docsize").fetchone()[0]
        hits = Reader(folder).search("answer", limit=100)
    assert indexed == 0 and len(hits) >= 6


def test_hits_of_a_replaced_attempt_are_gone(tmp_path: Path) -> None:
    folder = record.create(tmp_path, fake_config(groups=2, samples=4))
    with Writer(folder) as writer:
        for step in range(3):
            writer.step(make_step(step, groups=2, samples=4))
        writer.start_attempt(1)
    assert {hit["step"] for hit in Reader(folder).search("answer", limit=100)} == {0}


@pytest.mark.parametrize("limit", [0, -1, 10_001])
def test_a_page_has_a_size(reader: Reader, limit: int) -> None:
    with pytest.raises(RunError, match="a page holds 1 to 10000"):
        reader.search(limit=limit)


def test_a_place_in_a_group_is_the_one_its_group_shows(reader: Reader) -> None:
    for hit in reader.search(filters=Filters(kind="train"), limit=20):
        assert reader.group(hit["step"], hit["k"])["samples"][hit["i"]]["id"] == hit["id"]


@pytest.mark.parametrize(("sort", "keys"), [
    ("oldest", lambda hit: (hit["id"],)),
    ("best", lambda hit: (-hit["reward"], -hit["length"], -hit["id"])),
    ("worst", lambda hit: (hit["reward"], hit["length"], hit["id"])),
    ("longest", lambda hit: (-hit["length"], -hit["id"])),
    ("shortest", lambda hit: (hit["length"], hit["id"])),
    ("up", lambda hit: (-hit["advantage"], -hit["id"])),
    ("down", lambda hit: (hit["advantage"], hit["id"])),
])  # fmt: skip
@pytest.mark.parametrize("text", ["", "check"])
def test_every_order_pages_through_all_that_have_its_number(
    reader: Reader, sort: str, keys: object, text: str
) -> None:
    filters = Filters(kind="train", length_min=5)
    pages: list[dict[str, object]] = []
    after = None
    while True:
        page = reader.find(text, filters, after, 11, sort)  # type: ignore[arg-type]
        pages += page.hits
        after = page.after
        if after is None:
            break
    number = {"best": "reward", "worst": "reward", "up": "advantage", "down": "advantage"}.get(sort, "id")
    fitting = [hit for hit in reader.search(text, filters, limit=10_000) if hit[number] is not None]
    assert [hit["id"] for hit in pages] == [hit["id"] for hit in sorted(fitting, key=keys)]  # type: ignore[arg-type]
    assert page.ranked is None


@pytest.mark.parametrize("sort", ["newest", "oldest", "longest", "worst"])
@pytest.mark.parametrize(("filters", "true"), [
    (Filters(failed_reward="correct"), lambda rewards: rewards["correct"] is None),
    (Filters(disagree=("format", "correct")),
     lambda rewards: None not in (rewards["format"], rewards["correct"]) and (rewards["format"] > 0) != (rewards["correct"] > 0)),
    (Filters(failed_reward="correct", disagree=("format", "correct")), lambda rewards: False),
])  # fmt: skip
def test_what_rewards_gave_narrows_every_order_and_page(
    reader: Reader, filters: Filters, true: Callable[[dict[str, float | None]], bool], sort: Sort
) -> None:
    found: list[int] = []
    after = None
    while True:
        page = reader.find(filters=filters, after=after, limit=3, sort=sort)
        found += [hit["id"] for hit in page.hits]
        after = page.after
        if after is None:
            break
    everyone = [hit["id"] for hit in reader.hits(sort=sort) if true(hit["rewards"])]
    assert found == everyone
    if sort == "newest" and not (filters.failed_reward and filters.disagree):
        assert everyone


def test_marker_words_are_whole_words_known_to_the_index_or_not(tmp_path: Path) -> None:
    config = fake_config(groups=3, samples=8, steps=2)
    folder = record.create(tmp_path, config)
    with Writer(folder, config) as writer:
        for step in range(2):
            writer.step(make_step(step, groups=3, samples=8, config=config))
    found = Reader(folder)
    everywhere = {hit["id"]: str(hit["text"]) for hit in found.search(limit=1000)}
    for words in (("check", "wait"), ("chec",), ("OK",), ("8",)):
        pattern = re.compile(rf"\b({'|'.join(words)})\b", re.IGNORECASE)
        expected = {id for id, text in everywhere.items() if pattern.search(text)}
        indexed = {hit["id"] for hit in found.search(filters=Filters(words=words), limit=1000)}
        with sqlite3.connect(folder.db_path) as db:
            db.execute("INSERT INTO samples_fts (samples_fts) VALUES ('delete-all')")
        assert (
            {hit["id"] for hit in found.search(filters=Filters(words=words), limit=1000)}
            == expected
            == indexed
        )
        with sqlite3.connect(folder.db_path) as db:
            db.execute("INSERT INTO samples_fts (samples_fts) VALUES ('rebuild')")


def test_a_place_of_another_order_is_refused(reader: Reader) -> None:
    with pytest.raises(RunError, match="does not belong to the order 'best'"):
        reader.find(after=(3,), sort="best")
