"""The vectors catch bugs: backends with one bug each, and not one survives."""

from mutants.table import MUTANTS, PAGE, mutant_page


def test_there_are_many_and_no_name_twice():
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS) >= 60
    assert all(mutant.bug for mutant in MUTANTS)


def test_every_mutant_is_killed_and_the_page_says_where():
    assert mutant_page() == PAGE.read_text(encoding="utf-8"), "PYTHONPATH=tests python tools/write_mutants.py"
