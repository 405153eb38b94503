"""Each chapter of the course runs as a plain script, without a screen and without a network, within a minute."""

import os
import subprocess
import sys

import pytest
from helpers.notebooks import CHAPTERS
from helpers.source import ROOT, relative

SECONDS = 60  # what a reader is promised


@pytest.mark.parametrize("chapter", CHAPTERS, ids=relative)
def test_a_chapter_runs(chapter, tmp_path):
    threads = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"), "2")
    environment = {
        **os.environ,
        **threads,
        "MPLBACKEND": "Agg",
        "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": str(ROOT),
        "TMPDIR": str(tmp_path),
    }
    done = subprocess.run(
        [sys.executable, "-W", "error", str(chapter)],
        cwd=tmp_path,
        env=environment,
        timeout=SECONDS,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout
    assert not any(tmp_path.iterdir()), "a chapter leaves nothing behind"
