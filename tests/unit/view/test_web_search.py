"""Search over the routes: conditions stand in the address, hits are short rows, all of them a file."""

import io
import json
from typing import Any

import pyarrow.parquet as pq
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from workbench.record.folder import RunFolder
from workbench.record.reader import Reader
from workbench.view.common.run_store import RunStore
from workbench.view.search.query import AROUND, SHOWN
from workbench.view.server import routes


@pytest.fixture(scope="module")
def client(store: RunStore) -> TestClient:
    app = FastAPI()
    app.include_router(routes.router(store))
    return TestClient(app)


def found(client: TestClient, run: RunFolder, **query: object) -> Any:
    response = client.get(f"/runs/{run.id}/search", params=query)  # type: ignore[arg-type]
    assert response.status_code == 200, response.text
    return response.json()


def test_hits_say_where_they_are_and_pages_join_up(client: TestClient, run: RunFolder) -> None:
    whole = found(client, run, text="check", sort="longest", limit=200)
    pages, after = [], None
    while True:
        page = found(
            client, run, text="check", sort="longest", limit=7, **({"after": after} if after else {})
        )
        pages += page["hits"]
        after = page["after"]
        if after is None:
            break
    assert pages == whole["hits"][: len(pages)] and len(pages) == len(whole["hits"]) > 7
    hit = pages[3]
    group = Reader(run).group(hit["step"], hit["k"], hit["kind"], hit["mode"])
    assert group["samples"][hit["index"]]["id"] == hit["id"] and group["prompt_id"] == hit["prompt_id"]


def test_a_hit_shows_the_surroundings_of_what_was_found(client: TestClient, run: RunFolder) -> None:
    for hit in found(client, run, text="</answer>", limit=200)["hits"]:
        text = Reader(run).group(hit["step"], hit["k"], hit["kind"], hit["mode"])["samples"][hit["index"]][
            "text"
        ]
        assert hit["text"] == text[hit["at"] : hit["at"] + SHOWN] and "</answer>" in hit["text"]
        assert hit["at"] == max(0, text.index("</answer>") - AROUND) and hit["characters"] == len(text)


@pytest.mark.parametrize("query", [
    {"sort": "prettiest"}, {"reward_min": "nan"}, {"limit": 0}, {"limit": 201}, {"finish": "never"}, {"colour": "red"},
])  # fmt: skip
def test_a_search_that_cannot_be_is_refused(
    client: TestClient, run: RunFolder, query: dict[str, object]
) -> None:
    assert client.get(f"/runs/{run.id}/search", params=query).status_code == 422  # type: ignore[arg-type]


@pytest.mark.parametrize("query", [{"disagree": "correct"}, {"after": "1;2"}, {"after": "1,2,3"}])
def test_a_search_that_fits_nothing_here_is_a_sentence(
    client: TestClient, run: RunFolder, query: dict[str, str]
) -> None:
    response = client.get(f"/runs/{run.id}/search", params=query)
    assert response.status_code == 404 and response.json()["error"]


def test_all_hits_come_as_json_lines_and_as_parquet(client: TestClient, run: RunFolder) -> None:
    query = {"text": "check", "kind": "train", "disagree": "correct|format"}
    lines = client.get(f"/runs/{run.id}/search/file", params=query)
    rows = [json.loads(line) for line in lines.text.splitlines()]
    assert lines.headers["content-disposition"] == f'attachment; filename="{run.id}-samples.jsonl"'
    assert rows and all((row["rewards"]["correct"] > 0) != (row["rewards"]["format"] > 0) for row in rows)
    assert [row["id"] for row in rows] == [
        hit["id"] for hit in found(client, run, **query, limit=200)["hits"]
    ]
    table = pq.read_table(
        io.BytesIO(client.get(f"/runs/{run.id}/search/file", params={**query, "format": "parquet"}).content)
    )
    for column in ("id", "text", "reward", "step", "question"):
        assert table[column].to_pylist() == [row[column] for row in rows]
    assert table["rewards/format"].to_pylist() == [row["rewards"]["format"] for row in rows]


def test_a_file_of_no_hits_is_empty(client: TestClient, run: RunFolder) -> None:
    assert client.get(f"/runs/{run.id}/search/file", params={"text": "zebra"}).content == b""
    empty = client.get(f"/runs/{run.id}/search/file", params={"text": "zebra", "format": "parquet"}).content
    assert pq.read_table(io.BytesIO(empty)).num_rows == 0
