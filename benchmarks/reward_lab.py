"""How long the reward lab takes from Run to the first scored group, and to all of 10,000 recorded answers: `python benchmarks/reward_lab.py [--json]`.

Asked over HTTP as the page asks, code changed before each run, processes warm; figures go to results/reward_lab.json with hardware, versions, load.
"""

import json
import logging
import os
import statistics
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any

import uvicorn

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.fakes import write_fake_run
from workbench.record.provenance import hardware, versions
from workbench.view.server import app, serve

RESULT = Path(__file__).parent / "results" / "reward_lab.json"
ROUNDS = 15
CODE = """import re

FINAL = re.compile(r"<answer>([^<]*)</answer>\\s*$")


def correct(completion: str, answer: str) -> float:
    found = FINAL.search(completion)
    return float(found is not None and found[1] == answer)


def shows_work(completion: str) -> float:
    return min(completion.count("="), 6) / 6  # round {n}
"""


def main() -> None:
    """Writes the figures and prints them."""
    logging.getLogger("httpx").setLevel(logging.WARNING)
    with tempfile.TemporaryDirectory() as folder:
        run = write_fake_run(Path(folder), steps=53, groups=16, samples=12)
        listener = serve.listen("127.0.0.1", 0)
        address = f"http://127.0.0.1:{listener.getsockname()[1]}/wb/api/lab"
        served = uvicorn.Server(uvicorn.Config(app.build(folder, token=None), log_level="warning"))
        thread = threading.Thread(target=served.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        while not served.started:
            time.sleep(0.05)
        figures = {"last_5_steps": measure(address, run.id, 5), "all_steps": measure(address, run.id, 53)}
        served.should_exit = True
        thread.join(5)
    found = {
        "hardware": hardware(),
        "versions": versions(),
        "load": os.getloadavg()[0],
        "milliseconds": figures,
    }
    RESULT.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1) if "--json" in sys.argv else figures)


def measure(address: str, run: str, last: int) -> dict[str, Any]:
    """Median and worst milliseconds to the first group and to the end, the first round left out."""
    list(ask(address + "/look", {"code": CODE, "parts": []}))
    time.sleep(3)  # spare processes start
    firsts, wholes, samples = [], [], 0
    for n in range(ROUNDS + 1):
        body = {
            "written": {"code": CODE.replace("{n}", str(n + 100 * last)), "parts": []},
            "on": {"kind": "run", "run": run, "last": last},
        }
        started = time.perf_counter()
        for line in ask(address + "/try", body):
            piece = json.loads(line)
            if piece["type"] == "group":
                firsts.append(1000 * (time.perf_counter() - started))
                samples = piece["samples"]
        assert piece["type"] == "done", piece
        wholes.append(1000 * (time.perf_counter() - started))
        time.sleep(1.5)  # a person reads; spare processes start
    return {
        "samples": samples,
        "first_group": {"median": statistics.median(firsts[1:]), "worst": max(firsts[1:])},
        "all": {"median": statistics.median(wholes[1:]), "worst": max(wholes[1:])},
    }


def ask(address: str, body: Any) -> Any:
    """Lines of the answer as they come."""
    request = urllib.request.Request(
        address,
        json.dumps(body).encode(),
        {"Content-Type": "application/json", "Origin": address.split("/wb/")[0]},
    )
    with urllib.request.urlopen(request) as answer:
        yield from answer


if __name__ == "__main__":
    main()
