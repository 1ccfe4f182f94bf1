"""Hostile and broken files, at every place where a command reads one.

An error in a line, and nothing else.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from tests.hostile.arena import Case, complaint
from tests.hostile.configurations import configurations
from tests.hostile.entries import Entry, entries, material
from tests.hostile.files import ANY
from tests.hostile.records import record_cases

PARTS, EVERY = 5, 10  # tests of records, and how many times as many there are for all of them
SHORTENED = ("is cut in half", "lacks its end", "has its first bytes only")


@pytest.fixture(scope="session")
def places(tmp_path_factory) -> list[Entry]:
    return entries(material(tmp_path_factory.mktemp("material")))


def test_what_is_not_spoilt_is_taken(places: list[Entry], tmp_path: Path) -> None:
    """Or a refusal would prove nothing."""
    wrong = []
    for number, entry in enumerate(places):
        case = Case(entry.kind, entry.command, entry.argv, partial(entry.build, spoil=lambda path: None))
        found = complaint(case, tmp_path / str(number))
        if found != "is taken as if nothing were wrong":
            wrong.append(f"{entry.kind}: {found}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("how", ANY)
def test_files_of_any_kind(how: str, places: list[Entry], tmp_path: Path) -> None:
    """A sixth of the places for each, others for the next; `test_every_place` has them all."""
    first = list(ANY).index(how) % 6
    check(how, places[first::6], tmp_path)


@pytest.mark.long
@pytest.mark.parametrize("how", ANY)
def test_every_place(how: str, places: list[Entry], tmp_path: Path) -> None:
    check(how, places, tmp_path)


def check(how: str, places: list[Entry], folder: Path) -> None:
    """Fail where a command takes a file that is spoilt in this way otherwise than by an error in a line."""
    wrong = []
    for number, entry in enumerate(places):
        build = partial(entry.build, spoil=ANY[how])
        fine = "other bytes" in how or (entry.is_text and how in SHORTENED)
        case = Case(f"{entry.kind} {how}", entry.command, entry.argv, build, fine)
        found = complaint(case, folder / str(number))
        if found is not None:
            wrong.append(f"{case.name}: {found}")
    assert not wrong, "\n".join(wrong)


def test_configurations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What they name could be imported: the folder a command works in is where Python looks first."""
    monkeypatch.syspath_prepend("")
    wrong = []
    for number, case in enumerate(configurations()):
        found = complaint(case, tmp_path / str(number))
        if found is not None:
            wrong.append(f"{case.name}: {found}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("part", range(PARTS))
def test_records(part: int, places: list[Entry], tmp_path: Path) -> None:
    """One in several of them; `test_every_record` has them all."""
    check_cases(record_cases(places)[part :: PARTS * EVERY], tmp_path)


@pytest.mark.long
@pytest.mark.parametrize("part", range(PARTS * EVERY))
def test_every_record(part: int, places: list[Entry], tmp_path: Path) -> None:
    check_cases(record_cases(places)[part :: PARTS * EVERY], tmp_path)


def check_cases(cases: list[Case], folder: Path) -> None:
    """Fail where a command takes a case otherwise than by an error in a line."""
    wrong = []
    for number, case in enumerate(cases):
        found = complaint(case, folder / str(number))
        if found is not None:
            wrong.append(f"{case.name}: {found}")
    assert not wrong, "\n".join(wrong)
