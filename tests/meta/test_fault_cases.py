"""The fault suite is whole: 55 cases, each there, none of them skipped."""

import re
from pathlib import Path

FAULTS = Path(__file__).parents[1] / "faults"
SOURCES = {path.name: path.read_text() for path in FAULTS.glob("*.py")}


def test_every_one_of_the_55_cases_has_a_test() -> None:
    names = [
        name
        for source in SOURCES.values()
        for name in re.findall(r"^def test_case_(\d+)\w*_[a-z]\w+\(", source, re.M)
    ]
    assert {int(name) for name in names} == set(range(1, 56))


def test_every_case_has_a_test_that_plain_pytest_runs() -> None:
    quick = [
        number
        for source in SOURCES.values()
        for above, number in re.findall(r"^(.*)\ndef test_case_(\d+)\w*_[a-z]\w+\(", source, re.M)
        if above != "@pytest.mark.slow"
    ]
    assert {int(number) for number in quick} == set(range(1, 56))


def test_no_case_is_skipped_or_expected_to_fail() -> None:
    excuses = re.compile(r"skipif|pytest\.skip|xfail|importorskip|mark\.skip|pytest\.mark\.(ui|gpu|peer)")
    assert {name: found for name, source in SOURCES.items() if (found := excuses.findall(source))} == {}
