"""A user's own prompts: formats, columns, held-out parts, and errors that name the file and the rows."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import pandas
import pytest

from workbench.core.config import RunConfig
from workbench.core.errors import DataError
from workbench.prompts import TASKS, rows

Write = Callable[[str, str], Path]
SUMS = [{"question": f"{number} + 1", "answer": str(number + 1), "level": number % 3} for number in range(20)]


@pytest.fixture
def datasets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """The optional library, with a cache of its own."""
    library = pytest.importorskip("datasets")
    monkeypatch.setattr(library.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    return library


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write_file(name: str, text: str) -> Path:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write_file


def jsonl(values: list[Any]) -> str:
    return "".join(json.dumps(value) + "\n" for value in values)


def load(path: Path | str, **settings: Any) -> Any:
    return TASKS["data"].load(RunConfig(task="data", data=str(path), **settings))


def both(split: Any) -> list[Any]:
    return sorted(split.train + split.heldout, key=lambda prompt: prompt.columns["row"])


@pytest.fixture(params=["jsonl", "json", "csv", "tsv", "parquet", "folder"])
def sums(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    frame = pandas.DataFrame(SUMS)
    path = tmp_path / f"sums.{request.param}"
    match request.param:
        case "jsonl":
            path.write_text(jsonl(SUMS))
        case "json":
            path.write_text(json.dumps(SUMS))
        case "csv":
            path.write_text("\ufeff" + frame.to_csv(index=False), encoding="utf-8")
        case "tsv":
            frame.to_csv(path, sep="\t", index=False)
        case "parquet":
            frame.to_parquet(path)
        case "folder":
            path = tmp_path / "saved"
            pytest.importorskip("datasets").Dataset.from_list(SUMS).save_to_disk(str(path))
    return path


def test_every_format_gives_the_same_prompts(sums: Path) -> None:
    split = load(sums)
    prompts = both(split)
    assert [(prompt.question, prompt.answer) for prompt in prompts] == [
        (r["question"], r["answer"]) for r in SUMS
    ]
    assert [int(prompt.columns["level"]) for prompt in prompts] == [row["level"] for row in SUMS]
    assert split.warnings == ()


def test_a_tenth_is_set_aside_the_same_for_every_seed_and_row_order(write: Write) -> None:
    one = load(write("a.jsonl", jsonl(SUMS)), seed=1)
    other = load(write("b.jsonl", jsonl(SUMS[::-1])), seed=2)
    assert len(one.heldout) == 2
    assert {p.question for p in one.heldout} == {p.question for p in other.heldout}
    assert not {p.question for p in one.train} & {p.question for p in one.heldout}


def test_equal_questions_with_several_reference_answers_stay_on_one_side(write: Write) -> None:
    twins = [{"prompt": f"q{number // 2}", "answer": str(number)} for number in range(40)]
    split = load(write("a.jsonl", jsonl(twins)))
    assert len(split.train) + len(split.heldout) == 40
    assert not {p.question for p in split.train} & {p.question for p in split.heldout}


def test_nothing_is_set_aside_when_nothing_is_checked(write: Write) -> None:
    split = load(write("a.jsonl", jsonl(SUMS)), eval_problems=0)
    assert (len(split.train), split.heldout) == (20, [])


def test_a_held_out_file_is_used_and_its_prompts_are_not_trained_on(write: Write) -> None:
    check = write("check.csv", "question,answer,level\n3 + 1,4,0\n99 + 1,100,0\n")
    split = load(write("a.jsonl", jsonl(SUMS)), heldout=str(check))
    assert [prompt.question for prompt in split.heldout] == ["3 + 1", "99 + 1"]
    assert len(split.train) == 19
    assert "1 prompts are also in the held-out data" in split.warnings[0]


def test_a_held_out_split_of_a_dataset_folder_is_used(datasets: Any, tmp_path: Path) -> None:
    dataset = datasets.DatasetDict(
        {"train": datasets.Dataset.from_list(SUMS[:15]), "test": datasets.Dataset.from_list(SUMS[15:])}
    )
    dataset.save_to_disk(str(tmp_path / "saved"))
    split = load(tmp_path / "saved", heldout="test")
    assert (len(split.train), len(split.heldout)) == (15, 5)
    with pytest.raises(DataError, match=r"no split 'dev'\. It has train, test"):
        load(tmp_path / "saved", data_split="dev")


def test_a_folder_of_data_files_is_read(datasets: Any, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "train.jsonl").write_text(jsonl(SUMS))
    assert len(both(load(folder))) == 20


def test_a_file_has_no_splits_to_hold_out(write: Write) -> None:
    with pytest.raises(DataError, match="single file and has no splits"):
        load(write("a.jsonl", jsonl(SUMS)), heldout="test")


def test_columns_can_be_chosen_and_all_others_stay_under_their_own_names(write: Write) -> None:
    text = jsonl(
        [
            {"frage": "2+2", "loesung": 4, "source": "book", "tags": ["easy"]},
            {"frage": "1+2", "loesung": 3, "source": None, "tags": []},
        ]
    )
    prompts = both(load(write("a.jsonl", text), prompt_column="frage", answer_column="loesung"))
    assert [prompt.answer for prompt in prompts] == ["4", "3"]
    assert prompts[0].columns == {"source": "book", "tags": ["easy"], "row": 1}


def test_values_that_json_cannot_hold_become_text(tmp_path: Path) -> None:
    frame = pandas.DataFrame(
        {"prompt": ["a", "b"], "answer": ["1", "2"], "day": pandas.to_datetime(["2026-01-02", "2026-01-03"])}
    )
    frame.to_parquet(tmp_path / "days.parquet")
    assert both(load(tmp_path / "days.parquet"))[0].columns["day"].startswith("2026-01-02")


def test_rows_are_numbered_as_a_person_counts_them(write: Write) -> None:
    prompts = both(load(write("a.csv", "prompt,answer\na,1\n\nb,2\n")))
    assert [prompt.columns["row"] for prompt in prompts] == [2, 4]


def test_quoted_cells_may_hold_line_breaks_and_separators(write: Write) -> None:
    prompts = both(load(write("a.csv", 'prompt,answer\n"one,\ntwo",1\nthree,2\n')))
    assert prompts[0].question == "one,\ntwo"


def test_a_line_separator_inside_a_json_string_does_not_end_the_line(write: Write) -> None:
    text = '{"prompt": "a\u2028b", "answer": "1"}\n{"prompt": "c", "answer": "2"}\n'
    assert both(load(write("a.jsonl", text)))[0].question == "a\u2028b"


def test_chat_prompts_are_kept_whole_and_shown_by_their_question(write: Write) -> None:
    single = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "2+2?"}]
    turns = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello"},
        {"role": "user", "content": "2+3?"},
    ]
    prompts = both(
        load(write("a.jsonl", jsonl([{"prompt": single, "answer": "4"}, {"prompt": turns, "answer": "5"}])))
    )
    assert prompts[0].question == "2+2?"
    assert prompts[0].columns["prompt_messages"] == single
    assert prompts[1].question == "user: Hi\nassistant: Hello\nuser: 2+3?"


def test_repeated_rows_are_left_out_with_a_warning(write: Write) -> None:
    split = load(write("a.jsonl", jsonl([*SUMS, SUMS[0], SUMS[4]])))
    assert len(both(split)) == 20
    assert "rows 21, 22: the same prompt and answer" in split.warnings[0]


def test_data_without_reference_answers_is_allowed_with_a_warning(write: Write) -> None:
    split = load(write("a.csv", "prompt,mood\na,x\nb,y\n"))
    assert {prompt.answer for prompt in both(split)} == {None}
    assert "It has prompt, mood: set answer_column" in split.warnings[0]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.jsonl", "", "no rows"),
        ("a.csv", "prompt,answer\n", "no rows"),
        ("a.json", "[]", "no rows"),
        ("a.jsonl", '{"text": "a", "label": "b"}\n', "It has text, label: set prompt_column"),
        ("a.jsonl", '{"prompt": "a"}\nnot json\n[1]\n', r"a.jsonl, rows 2, 3: no JSON object"),
        ("a.jsonl", "[" * 100_000, "row 1: no JSON object"),
        ("a.json", "{", "not valid JSON"),
        ("a.json", '{"prompt": "a"}', "holds no list"),
        ("a.json", '[{"prompt": "a"}, 3]', "row 2: no object"),
        (
            "a.jsonl",
            jsonl([{"prompt": "a", "answer": "1"}, {"prompt": "b"}]),
            "row 2: other columns than row 1 .*lacks answer",
        ),
        ("a.jsonl", jsonl([{"prompt": "a"}, {"prompt": "b", "x": 1}]), "row 2 adds x"),
        ("a.csv", "prompt,answer\na,1\nb\nc,3,4\n", "rows 3, 4: not the 2 cells of the header"),
        ("a.csv", "prompt,prompt\na,1\n", "'prompt' is there twice"),
        ("a.csv", 'prompt,answer\n"a"b,1\n', "not a valid table"),
        (
            "a.jsonl",
            jsonl([{"prompt": p, "answer": "1"} for p in ("a", "", "  ", None, "b")]),
            "rows 2, 3, 4: prompt is empty",
        ),
        ("a.jsonl", jsonl([{"prompt": [], "answer": "1"}]), "row 1: prompt is empty"),
        (
            "a.jsonl",
            jsonl([{"prompt": "a", "answer": "1"}, {"prompt": 3, "answer": "1"}]),
            "row 2: prompt is no text",
        ),
        (
            "a.jsonl",
            jsonl([{"prompt": "a"}, {"prompt": "b"}, {"prompt": [{"role": "user", "content": "c"}]}]),
            "row 3: prompt mixes",
        ),
        ("a.jsonl", jsonl([{"prompt": [{"role": "user", "content": 3}]}]), "row 1: not a chat"),
        ("a.jsonl", jsonl([{"prompt": [{"role": "root", "content": "a"}]}]), "row 1: not a chat"),
        ("a.jsonl", jsonl([{"prompt": [{"role": "assistant", "content": "a"}]}]), "row 1: not a chat"),
        ("a.jsonl", jsonl([{"prompt": ["a"]}]), "row 1: not a chat"),
        (
            "a.jsonl",
            jsonl([{"prompt": "a", "answer": "1"}, {"prompt": "b", "answer": None}]),
            "row 2: answer is empty",
        ),
        ("a.jsonl", jsonl([{"prompt": "a", "answer": "1"}]), "no prompts are left to train on"),
        ("a.xlsx", "x", "files ending in '.xlsx' are not read"),
        ("a.parquet", "x", "not a readable Parquet file"),
    ],
)
def test_bad_data_is_refused_before_the_start(write: Write, name: str, text: str, message: str) -> None:
    path = write(name, text)
    with pytest.raises(DataError, match=message) as caught:
        load(path)
    assert str(path) in str(caught.value)


def test_many_bad_rows_are_counted_not_listed(write: Write) -> None:
    with pytest.raises(DataError, match=r"rows 1, 2, 3, 4, 5 and 7 more: prompt is empty"):
        load(write("a.jsonl", jsonl([{"prompt": ""}] * 12)))


def test_a_named_column_that_is_not_there_is_refused_with_those_that_are(write: Write) -> None:
    path = write("a.jsonl", jsonl(SUMS))
    with pytest.raises(
        DataError, match=r"no column 'frage'\. It has question, answer, level: set prompt_column"
    ):
        load(path, prompt_column="frage")
    with pytest.raises(DataError, match=r"no column 'gold'.*set answer_column"):
        load(path, answer_column="gold")


def test_a_missing_file_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none.jsonl: there is no such file"):
        load(tmp_path / "none.jsonl")


def test_text_in_another_encoding_is_refused(tmp_path: Path) -> None:
    for name in ("a.csv", "a.json", "a.jsonl"):
        (tmp_path / name).write_bytes('[{"prompt": "größer"}]'.encode("latin-1"))
        with pytest.raises(DataError, match="not UTF-8 text at byte"):
            load(tmp_path / name)


def test_an_empty_folder_is_refused(datasets: Any, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="Check the folder or the name"):
        load(tmp_path / "empty")


def test_a_hub_name_without_a_network_fails_at_once(datasets: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise ConnectionError("no route")

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", unreachable)
    with pytest.raises(DataError, match="the Hub cannot be reached"):
        load("no-user/none-here")
    assert datasets.config.HF_HUB_OFFLINE is False


def test_without_the_datasets_extra_a_hub_name_is_refused_with_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match=r"grpo-workbench\[datasets\]"):
        load("no-user/none-here")


def test_a_name_that_is_no_repository_is_a_missing_path(datasets: Any) -> None:
    with pytest.raises(DataError, match="there is no such file or folder"):
        load("./no such/folder/at all")


def test_rows_are_read_under_their_numbers(write: Write) -> None:
    table = rows.read_table(str(write("a.csv", "prompt,answer\na,1\n")), "train")
    assert table.columns == ("prompt", "answer")
    assert table.rows == [rows.Row(2, {"prompt": "a", "answer": "1"})]


@pytest.mark.parametrize(
    "row", ['{"prompt": "\\ud83d", "answer": "1"}', '{"prompt": {"a": ["\\udc00"]}, "answer": "1"}']
)
def test_half_a_character_is_found_with_its_row(tmp_path: Path, row: str) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text('{"prompt": "\\ud83d\\ude00", "answer": "1"}\n' + row)
    with pytest.raises(DataError, match=r"row 2: half a character"):
        rows.read_table(str(file), "train")


def test_a_cell_of_any_length_is_read(tmp_path: Path) -> None:
    file = tmp_path / "long.csv"
    file.write_text("prompt,answer\n" + "x" * 200_000 + ",1\n")
    assert len(rows.read_table(str(file), "train").rows[0].values["prompt"]) == 200_000
