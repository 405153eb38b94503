"""A quantization in a process of its own that kills itself at a chosen moment: SIGKILL, nothing is cleaned up.

spilled         quantize_model with hidden states in files, which a tiny model's budget would never ask for
count_moments   how many moments a run has, if nothing stops it
run_killed      run it and kill it at one of them

A moment is right before a write, or right before the system opens, renames, truncates or removes a file of the output.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

from awq_ref.pipeline import quantize

CHILD = """
import json, os, signal, sys
options = json.loads(sys.argv[1])
kill_at, spill, where = options.pop("kill_at"), options.pop("spill"), options["destination"]
hidden = os.path.join(os.path.dirname(where), "." + os.path.basename(where))
import numpy as np
import awq_ref.pipeline
import awq_ref.checkpoint.disk, awq_ref.checkpoint.shards, awq_ref.checkpoint.journal, awq_ref.pipeline.states
moments = 0

def moment():
    global moments
    moments += 1
    if moments == kill_at:
        os.kill(os.getpid(), signal.SIGKILL)

def hook(event, arguments):
    if event in ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.link"):
        if any(str(a).startswith((where, hidden)) for a in arguments if isinstance(a, (str, os.PathLike))):
            moment()

def write_all(file, data, original=awq_ref.checkpoint.disk.write_all):
    moment()
    view = awq_ref.checkpoint.disk.byte_view(data)
    half = len(view) // 2
    original(file, view[:half])
    moment()  # in the middle of the bytes
    original(file, view[half:])

for module in ("checkpoint.disk", "checkpoint.shards", "checkpoint.journal", "pipeline.states"):
    setattr(sys.modules["awq_ref." + module], "write_all", write_all)
sys.addaudithook(hook)
options["calibration"] = np.array(options["calibration"], dtype=np.int64)
import helpers.killed
with helpers.killed.spilled(spill):
    awq_ref.pipeline.quantize_model(shown=False, **options)
print(moments)
"""


@contextmanager
def spilled(spill: bool) -> Iterator[None]:
    """Make quantize_model keep hidden states in files, or leave it as it is."""
    planned = quantize._planned

    def in_files(*arguments: Any) -> Any:
        plan = planned(*arguments)
        return replace(plan, spilled=True) if spill else plan

    with mock.patch.object(quantize, "_planned", in_files):
        yield


def _run(options: dict[str, Any], kill_at: int) -> subprocess.CompletedProcess[str]:
    ready = {name: str(value) if isinstance(value, Path) else value for name, value in options.items()}
    ready["calibration"] = ready["calibration"].tolist()
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-c",
        CHILD,
        json.dumps({"spill": False} | ready | {"kill_at": kill_at}),
    ]
    path = os.pathsep.join(sys.path)
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env=os.environ | {"PYTHONPATH": path},
    )


def count_moments(**options: Any) -> int:
    """Run to the end; return how many moments there were."""
    done = _run(options, 0)
    assert done.returncode == 0, done.stderr
    return int(done.stdout.split()[-1])


def run_killed(kill_at: int, **options: Any) -> None:
    """Run, and die at this moment."""
    done = _run(options, kill_at)
    assert done.returncode == -signal.SIGKILL, (done.returncode, done.stderr)
