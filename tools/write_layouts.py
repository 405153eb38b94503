"""Write the generated parts of the pages of layouts: drawings, ids of vectors, the matrix of conversions.

PYTHONPATH=tests python tools/write_layouts.py
"""

from helpers.layout_pages import PAGES, generated


def main() -> int:
    for path in PAGES:
        path.write_text(generated(path.read_text(encoding="utf-8")), encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
