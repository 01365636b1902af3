"""What a newcomer waits for: from `python app.py` to a usable page, and from Start to the first group on screen.

`python benchmarks/first_minute.py [--json]`, in real chromium; figures go to results/first_minute.json with hardware, versions, load.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from playwright.sync_api import sync_playwright
from surroundings import surroundings

from workbench import launch
from workbench.record.folder import folders

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "benchmarks" / "results" / "first_minute.json"
CHROMIUM = "/usr/bin/chromium"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--chromium", default=CHROMIUM)
    options = parser.parse_args()
    around = surroundings()
    with tempfile.TemporaryDirectory() as runs, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=options.chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        began = time.perf_counter()
        app = subprocess.Popen(
            [sys.executable, "app.py", "--runs", runs, "--port", "0"],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert app.stdout is not None
        url = next(line for line in app.stdout if "http://" in line).split()[-1]
        page.goto(url)
        page.locator("#wb-start:has-text('steps')").wait_for(timeout=120_000)
        usable = time.perf_counter() - began
        began = time.perf_counter()
        page.locator("#wb-start").click()
        page.locator(".groups tbody tr").first.wait_for(timeout=300_000)
        group = time.perf_counter() - began
        for folder in folders(runs):
            launch.stop(folder, grace=0, kill_after=5)
        browser.close()
        app.terminate()
        app.wait(20)
    result = {
        **around,
        "app_to_usable_page_seconds": round(usable, 2),
        "start_to_first_group_seconds": round(group, 2),
    }
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    print(
        json.dumps(result)
        if options.json
        else f"page usable after {usable:.1f} s, first group {group:.1f} s after Start"
    )


if __name__ == "__main__":
    main()
