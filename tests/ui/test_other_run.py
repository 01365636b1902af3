"""Two runs beside each other: the same prompt of another run below a river, and what parts two runs."""

import sqlite3
from contextlib import closing

import pytest
from playwright.sync_api import expect

from tests.fakes import write_fake_run
from tests.ui.reading import GROUPS, open_reader, record_rows, texts

pytestmark = [pytest.mark.ui, pytest.mark.timeout(600)]


def test_the_same_prompt_of_another_run_stands_below(page, dashboard, tmp_path):
    first, second = (
        write_fake_run(tmp_path, steps=steps, groups=4, samples=4, eval_steps=3, seed=seed, name=name)
        for steps, seed, name in ((6, 1, "one"), (9, 2, "two"))
    )
    watched = f"SELECT prompt_id FROM {GROUPS} WHERE mode = 'sampled' LIMIT 1"
    [(prompt,)] = record_rows(first, watched)
    open_reader(page, dashboard(tmp_path), first, view="prompt", prompt=prompt, mode="sampled")
    page.locator(".otherrun select").select_option(second.id)
    visits = record_rows(
        second,
        f"SELECT step, correct_count, size FROM {GROUPS} WHERE prompt_id = ? AND mode = 'sampled' ORDER BY step",
        prompt,
    )
    columns = page.locator(".otherrun .river [data-visit]")
    expect(columns).to_have_count(len(visits))
    note = texts(page.locator(".otherrun .note"))[-1]
    for step, right, n in visits:
        assert f"step {step} {round(100 * right / n)} %" in note
    before = page.url
    columns.first.click()  # another run's visits are no place of this one
    assert page.url == before
    expect(page.locator(".otherrun a", has_text="Open it there")).to_have_attribute(
        "href", f"/?run={second.id}&view=prompt&prompt={prompt}"
    )


def test_runs_with_changed_live_settings_are_not_called_the_same(page, dashboard, tmp_path):
    """Two runs from one config; the temperature of the first was changed at step 20."""
    changed = write_fake_run(tmp_path, steps=21, seed=2, groups=3, samples=4)
    left = write_fake_run(tmp_path, steps=21, seed=2, groups=3, samples=4)
    with closing(sqlite3.connect(left.db_path)) as database, database:
        database.execute("DELETE FROM events WHERE kind = 'setting_changed'")
    page.goto(f"{dashboard(tmp_path).url('/compare', run=changed.id)}&run={left.id}")
    expect(page.locator(".cmphead h1")).to_contain_text(
        "2 runs, alike until step 20: A temperature 1 → 1.1.", timeout=60_000
    )
    expect(page.locator(".cmpsettings")).to_contain_text("The same settings at the start")
    expect(page.locator(".cmpsettings")).not_to_contain_text("so the same run")
