"""Rewards compared with human ratings, and the ratings as preference pairs."""

import json
from pathlib import Path

import pytest

from tests.unit.diagnose.test_rescoring import LENGTH, write
from workbench import cli
from workbench.api import Run
from workbench.core.errors import RunError
from workbench.diagnose.agreement import agreement
from workbench.record import preferences, rating
from workbench.record.notes import Notes, Visit
from workbench.record.reader import Reader


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Step 0: 1+1? with a:1 bb:0 ccc:0 dddd:1, 2+2? with e:0 ff:0 ggg:0; step 1: 3+3? and 1+1? again."""
    return Run(write(tmp_path / "runs"))


def test_thumbs_agree_where_the_group_mean_lies_on_the_right_side(run: Run) -> None:
    # Lengths 1, 2, 3, 4 of the first group: the mean is 2.5.
    run.rate(0, 0, 0, False)
    run.rate(0, 0, 1, True)
    run.rate(0, 0, 3, True)
    run.rate(0, 1, 1, True)  # 1, 2, 3: exactly the mean, so the reward would not push it
    found = run.agreement(LENGTH)
    assert (found.agree, found.total) == (2, 4)
    assert [(one.step, one.k, one.sample, one.text, one.judgement) for one in found.disagreements] == [
        (0, 0, 1, "bb:0", "good"),
        (0, 1, 1, "ff:0", "good"),
    ]
    assert [(one.value, one.against) for one in found.disagreements] == [(2.0, 2.5), (2.0, 2.0)]


def test_places_agree_pair_by_pair(run: Run) -> None:
    for sample, place in (
        (0, 2),
        (1, 1),
        (3, 1),
    ):  # bb and dddd before a: a is short, bb longer, dddd longest
        run.rate(0, 0, sample, place=place)
    found = agreement(run.reader, LENGTH)
    assert (found.agree, found.total) == (2, 2)
    run.rate(0, 0, 0, place=1)
    run.rate(0, 0, 1, place=2)  # now a and dddd before bb
    found = agreement(run.reader, LENGTH)
    assert (found.agree, found.total) == (1, 2)
    (wrong,) = found.disagreements
    assert (wrong.text, wrong.judgement, wrong.other, wrong.value, wrong.against) == (
        "a:1",
        "better",
        "bb:0",
        1,
        2,
    )


def test_completions_without_a_value_count_neither_way_and_no_ratings_are_no_agreement(run: Run) -> None:
    assert agreement(run.reader, LENGTH) == (0, 0, [], 0)
    run.rate(0, 0, 0, True)
    run.rate(0, 0, 3, True)
    nothing = "def f(completion):\n    return None if completion[0] == 'a' else float(len(completion))\n"
    found = agreement(run.reader, nothing)
    assert (found.agree, found.total, found.absent) == (1, 1, 1)


def test_good_over_bad_and_better_over_worse_become_pairs(run: Run) -> None:
    run.rate(0, 0, 0, True)
    run.rate(0, 0, 1, False)
    run.rate(1, 1, 1, False)  # the same prompt a step later
    run.rate(0, 1, 0, place=1)
    run.rate(0, 1, 1, place=2)
    run.rate(0, 1, 2, place=2)
    found = [
        (pair.chosen, pair.rejected, pair.how) for pair in preferences.pairs(Notes(run.folder).ratings())
    ]
    assert sorted(found) == [
        ("a:1", "bb:0", "thumb"),
        ("a:1", "jjjjj:0", "thumb"),
        ("e:0", "ff:0", "rank"),
        ("e:0", "ggg:0", "rank"),
    ]


def test_a_pair_that_was_rated_both_ways_is_left_out(run: Run) -> None:
    run.rate(0, 0, 0, True)
    run.rate(0, 0, 1, False)
    run.rate(0, 0, 1, place=1)
    run.rate(0, 0, 0, place=2)
    assert preferences.pairs(Notes(run.folder).ratings()) == []


def test_pairs_are_written_in_the_form_that_preference_trainers_read(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    with pytest.raises(RunError, match=r"No sample of run .* is rated above another yet"):
        run.preferences(path)
    run.rate(0, 0, 0, True)
    run.rate(0, 0, 1, False)
    Notes(run.folder).thumb(Visit(0), "a prompt that was never recorded", "x", True)
    Notes(run.folder).thumb(Visit(0), "a prompt that was never recorded", "y", False)
    assert run.preferences(path) == 1
    (row,) = [json.loads(line) for line in path.read_text().splitlines()]
    prompt = run.group(0, 0)["prompt"]
    assert (row["prompt"], row["chosen"], row["rejected"]) == (prompt, "a:1", "bb:0")
    assert (row["question"], row["answer"], row["how"], row["step"]) == ("1+1?", "4", "thumb", 0)


def test_a_rating_belongs_to_the_words_wherever_they_come_again(run: Run) -> None:
    run.rate(0, 0, 0, True)
    shown = rating.ratings_of_group(run.reader, run.group(1, 1))
    assert shown == [{"thumb": True, "place": None}, {"thumb": None, "place": None}]
    run.rate(1, 1, 0, None)
    assert rating.ratings_of_group(run.reader, run.group(0, 0))[0]["thumb"] is None
    assert Notes(run.folder).ratings() == []


def test_a_completion_that_is_not_there_cannot_be_rated(run: Run) -> None:
    with pytest.raises(RunError, match="Group 0 of step 0 has no sample 7: its samples are numbered 0 to 3"):
        run.rate(0, 0, 7, True)
    with pytest.raises(RunError, match="There is no step 9 in this run"):
        run.rate(9, 0, 0, True)


def test_the_command_line_rates_lists_checks_and_exports(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    at = [run.id, "--runs", str(run.folder.root)]
    assert cli.main(["rate", *at, "--step", "0", "--group", "0", "--sample", "3", "--good"]) == 0
    assert cli.main(["rate", *at, "--step", "0", "--group", "0", "--sample", "0", "--bad"]) == 0
    assert cli.main(["rate", *at, "--step", "0", "--group", "1", "--sample", "2", "--place", "1"]) == 0
    capsys.readouterr()
    reward = tmp_path / "length.py"
    reward.write_text(LENGTH)
    pairs = tmp_path / "pairs.jsonl"
    options = ["ratings", *at, "--reward", str(reward), "--pairs", str(pairs), "--json"]
    assert cli.main(options) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (found["ratings"], found["good"], found["bad"], found["ranked"], found["pairs"]) == (3, 1, 1, 1, 1)
    assert (found["agree"], found["of"], found["disagreements"]) == (2, 2, [])
    assert len(pairs.read_text().splitlines()) == 1
    assert cli.main(["rate", *at, "--step", "0", "--group", "0", "--sample", "0", "--bad", "--good"]) == 2
    assert "one of --good, --bad, --place and --clear" in capsys.readouterr().err


def test_notes_are_read_with_the_run_they_belong_to(run: Run) -> None:
    run.rate(0, 0, 2, place=3)
    frame = run.ratings()
    assert frame[["step", "kind", "text", "place"]].values.tolist() == [[0, "train", "ccc:0", 3]]
    assert Reader(run.folder).steps() == [0, 1]
