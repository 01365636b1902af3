"""Live's two meters, against the recorded texts counted again."""

import re

import numpy as np
import pytest
from playwright.sync_api import expect

from tests.fakes import write_fake_run
from tests.ui.reading import open_reader, query, texts
from workbench.diagnose.text import R1_WORDS
from workbench.record.reader import Reader

pytestmark = [pytest.mark.ui, pytest.mark.timeout(600)]
LOOKS_BACK = re.compile(rf"\b({'|'.join(R1_WORDS)})\b", re.IGNORECASE)


def test_reflection_and_length_say_what_the_texts_say(page, dashboard, tmp_path):
    run = write_fake_run(tmp_path, steps=12, total=20, groups=8, samples=8, seed=3)
    reader = Reader(run)

    def samples(*steps):
        return [sample for step in steps for k in range(8) for sample in reader.group(step, k)["samples"]]

    def told(chosen):
        right = sum(sample["right"] for sample in chosen)
        return f"{right} of {len(chosen)} right ({right / len(chosen):.0%})".replace("%", " %")

    last = samples(*range(7, 12))
    having = [sample for sample in last if LOOKS_BACK.search(sample["text"])]
    lacking = [sample for sample in last if not LOOKS_BACK.search(sample["text"])]
    base = [sample for sample in samples(0) if LOOKS_BACK.search(sample["text"])]
    open_reader(page, dashboard(tmp_path), run)
    rows = page.locator(".detailrows dd")
    expect(rows.nth(0)).to_have_text(told(having))
    expect(rows.nth(1)).to_have_text(told(lacking))
    expect(rows.nth(2)).to_contain_text(f"{len(base)} of 64 at step 0")
    expect(page.locator(".detailline")).to_contain_text(f"{len(having) / len(last):.0%}".replace("%", " %"))
    newest = samples(11)
    for side in (True, False):
        lengths = [sample["length"] for sample in newest if sample["right"] is side]
        shown = texts(page.locator(f".len-{'right' if side else 'wrong'} text"))
        assert shown[1] == str(len(lengths))
        figures = [float(figure) for figure in shown[2].split(" · ")]
        assert figures == pytest.approx(np.percentile(lengths, [10, 50, 90]), abs=0.51)
    cut = "rows => [...rows.querySelectorAll('text')].filter(text => text.getBoundingClientRect().right > rows.getBoundingClientRect().right + 0.5).length"
    assert page.locator(".lengthrows").evaluate(cut) == 0
    page.locator(".stepdetails .link").click()  # the answers themselves
    expect(page.locator("#wb-reader")).to_have_attribute("data-view", "search")
    assert "step_min=7&step_max=11" in query(page)["find"] and "wait" in query(page)["find"]
