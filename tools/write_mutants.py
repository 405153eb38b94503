"""Write docs/mutants.md: which case of the golden vectors kills each mutant of tests/mutants.

PYTHONPATH=tests python tools/write_mutants.py
"""

from mutants.table import PAGE, mutant_page

if __name__ == "__main__":
    PAGE.write_text(mutant_page(), encoding="utf-8")
