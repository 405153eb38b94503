"""What every rival's process prints: one line of JSON."""

import json
import sys
from pathlib import Path


def options():
    """Return what the process was asked to do."""
    return json.loads(sys.argv[1])


def peak_bytes():
    """Return the most memory that this process has had (Linux)."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["VmHWM"].split()[0]) * 1024


def text_rates(times_of_prompts):
    """Return tokens/s by prompt length, from the clock before the prompt and after each new token."""
    return {
        str(prompt): {
            "prompt": prompt / (times[1] - times[0]),
            "new": (len(times) - 2) / (times[-1] - times[1]),
        }
        for prompt, times in times_of_prompts.items()
    }


def report(**found):
    """Print what was measured, with the peak of the memory."""
    print(json.dumps(found | {"memory": peak_bytes()}))
