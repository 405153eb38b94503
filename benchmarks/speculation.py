"""What guessing tokens from the text gains, by the kind of text, on the embedded model.

    python benchmarks/speculation.py [--guesses 2 4 8] [--new 96] [--prompts 5] [--model MODEL] [--quick]

Three kinds of prompt, all from the running Python, so that nothing is downloaded:

    code       the first lines of held-out files of the standard library
    prose      paragraphs of Python's language reference, as `help()` prints it
    editing    some lines of a held-out file, and its first line once more: what comes is mostly a copy

Every prompt is continued greedily without guesses and with them, in turns. Printed per kind and number of guesses:
the tokens that a pass gave, the share of guesses that were right, the median over the prompts of the time without
guesses by the time with them, and how many of the texts are the same.
"""

import argparse
import pydoc_data.topics
import statistics
import time

import numpy as np

from awq_ref.checkpoint import demo_model_path
from awq_ref.model import Speculation
from awq_ref.pipeline import Model, evaluation_tokens, load_model
from awq_ref.report.tables import format_table

PROMPT_TOKENS = 96
PROSE = (
    "assignment",
    "exprlists",
    "naming",
    "execmodel",
    "objects",
    "try",
    "with",
    "import",
    "strings",
    "types",
)


def prompts_of(model: Model, count: int) -> dict[str, list[list[int]]]:
    """Return some prompts of each kind, as token ids."""
    tokenizer = model.require_tokenizer()
    ids, _, _ = evaluation_tokens(tokenizer, None, limit=None)
    starts = np.linspace(0, len(ids) - 2 * PROMPT_TOKENS, count + 1, dtype=np.int64)[:-1]
    code = [ids[start : start + PROMPT_TOKENS].tolist() for start in starts]
    topics = [name for name in PROSE if name in pydoc_data.topics.topics][:count]
    prose = [tokenizer.encode(pydoc_data.topics.topics[name])[:PROMPT_TOKENS].tolist() for name in topics]
    editing = [[*part, *part[:8]] for part in code]
    return {"code": code, "prose": prose, "editing": editing}


def run(model: Model, prompt: list[int], new: int, speculation: Speculation) -> tuple[float, list[int]]:
    """Return the seconds of the tokens behind the first one, and all of them."""
    stream = model.stream(prompt, max_new_tokens=new, eos_token_ids=(), speculate=speculation)
    first = next(stream)  # the prompt is read before it comes
    started = time.perf_counter()
    rest = list(stream)
    return time.perf_counter() - started, [first, *rest]


def measure(model: Model, kinds: dict[str, list[list[int]]], guesses: list[int], new: int) -> list[list[str]]:
    rows = []
    for kind, prompts in kinds.items():
        sums = {n: Speculation(n) for n in guesses}
        gains: dict[int, list[float]] = {n: [] for n in guesses}
        same = dict.fromkeys(guesses, 0)
        for prompt in prompts:
            plain, text = run(model, prompt, new, Speculation(0))
            for n in guesses:
                spent, guessed = run(model, prompt, new, sums[n])
                gains[n].append(plain / spent)
                same[n] += text == guessed
        for n in guesses:
            right = sums[n].accepted / max(1, sums[n].guessed)
            cells = [f"{sums[n].tokens_per_step:.2f}", f"{right:.0%}", f"{statistics.median(gains[n]):.2f}"]
            rows.append([kind, str(n), *cells, f"{same[n]} of {len(prompts)}"])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--guesses", type=int, nargs="+", default=[2, 4, 8])
    parser.add_argument("--new", type=int, default=96, help="tokens behind each prompt")
    parser.add_argument("--prompts", type=int, default=5, help="of each kind, at most 10")
    parser.add_argument(
        "--model", default=demo_model_path(), help="one that reads Python; default: the embedded one"
    )
    parser.add_argument("--residency", default="packed", choices=("packed", "codes", "dense"))
    parser.add_argument("--quick", action="store_true", help="one short text of each kind: only that it runs")
    arguments = parser.parse_args()
    model = load_model(arguments.model, residency=arguments.residency)
    guesses, new, count = arguments.guesses, arguments.new, arguments.prompts
    if arguments.quick:
        guesses, new, count = [4], 8, 1
    headers = ["text", "guesses", "tokens per pass", "right", "times as fast", "same text"]
    print(format_table(headers, measure(model, prompts_of(model, count), guesses, new)))


if __name__ == "__main__":
    main()
