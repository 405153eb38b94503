"""Each chapter of the course runs as a plain script, without a screen and without a network, within a minute."""

import os
import subprocess
import sys

import pytest
from helpers.hub_server import NAME, HubServer
from helpers.notebooks import CHAPTERS
from helpers.source import ROOT, relative

from awq_ref.checkpoint import demo_model_path

SECONDS = 60  # what a reader is promised


def run_chapter(chapter, folder, **changes):
    """Run a chapter as a script in a folder; return the finished process."""
    threads = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"), "2")
    environment = {
        **os.environ,
        **threads,
        "MPLBACKEND": "Agg",
        "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": str(ROOT),
        "TMPDIR": str(folder),
        **changes,
    }
    return subprocess.run(
        [sys.executable, "-W", "error", str(chapter)],
        cwd=folder,
        env=environment,
        timeout=SECONDS,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("chapter", CHAPTERS, ids=relative)
def test_a_chapter_runs(chapter, tmp_path):
    done = run_chapter(chapter, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout
    assert not any(tmp_path.iterdir()), "a chapter leaves nothing behind"


def test_the_chapter_on_checkpoints_takes_a_name_on_the_hub(tmp_path):
    home, work = tmp_path / "home", tmp_path / "work"
    work.mkdir()
    with HubServer() as server:
        server.put(NAME, demo_model_path())
        hub = {
            "HF_ENDPOINT": f"http://127.0.0.1:{server.port}",
            "HF_HOME": str(home),
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": "1",
            "NO_PROXY": "*",
            "no_proxy": "*",
            "AWQ_REF_MODEL": NAME,
        }
        done = run_chapter(ROOT / "tutorials" / "16_a_real_checkpoint.py", work, **hub)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{NAME}: ")
    assert server.asked("storage"), "the weights came from the hub"
