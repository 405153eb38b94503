"""Run the chapters of the course as notebooks, as Jupyter does, and leave nothing behind.

    python tools/run_tutorials.py                                    all chapters
    python tools/run_tutorials.py tutorials/02_*.py --figures OUT    some, and their figures as PNG files

Needs the dependency group `tutorial`.
"""

import argparse
import base64
import sys
import time
from pathlib import Path

import jupytext
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

ROOT = Path(__file__).resolve().parents[1]
SECONDS = 60  # for a cell; the promise is for the chapter and is checked by tests/end_to_end


def save_figures(notebook, stem: str, folder: Path) -> None:
    """Write every figure that a notebook shows."""
    folder.mkdir(parents=True, exist_ok=True)
    shown = [out for cell in notebook.cells if cell.cell_type == "code" for out in cell.outputs]
    figures = [out.data["image/png"] for out in shown if "image/png" in out.get("data", {})]
    for number, figure in enumerate(figures, start=1):
        (folder / f"{stem}_{number}.png").write_bytes(base64.b64decode(figure))


def run_chapter(path: Path, figures: Path | None) -> bool:
    """Run one chapter; return whether every cell worked."""
    notebook = jupytext.read(path, fmt="py:percent")
    started = time.perf_counter()
    client = NotebookClient(
        notebook, timeout=SECONDS, kernel_name="python3", resources={"metadata": {"path": str(path.parent)}}
    )
    try:
        client.execute()
    except CellExecutionError as error:
        print(f"FAIL  {path.name}: {error}")
        return False
    if figures is not None:
        save_figures(notebook, path.stem, figures)
    print(f"ok    {path.name} ({time.perf_counter() - started:.1f} s)", flush=True)
    return True


def main() -> int:
    """Run the chapters that were asked for; the exit code says whether all worked."""
    parser = argparse.ArgumentParser(description="Run the chapters of the course as notebooks.")
    parser.add_argument("chapters", nargs="*", type=Path, help="default: all")
    parser.add_argument("--figures", type=Path, help="a folder for their figures")
    arguments = parser.parse_args()
    chapters = arguments.chapters or sorted((ROOT / "tutorials").glob("[0-9][0-9]_*.py"))
    worked = [run_chapter(path.resolve(), arguments.figures) for path in chapters]
    return 0 if all(worked) else 1


if __name__ == "__main__":
    sys.exit(main())
