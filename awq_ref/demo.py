"""The demo: quantize the embedded model before the reader's eyes and say how good it is.

    run_demo       what `awq-ref demo` and `make demo` do

Everything shown is computed on the spot; nothing is downloaded.
"""

import math
import shutil
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from awq_ref.checkpoint import demo_model_path
from awq_ref.dtypes import I64
from awq_ref.errors import OutputError
from awq_ref.matmul import Residency
from awq_ref.pipeline import Model, calibrate, evaluation_tokens, folder_bytes, load_model, quantize_model
from awq_ref.pipeline.outliers import grow_outliers
from awq_ref.report.perplexity import perplexity
from awq_ref.report.progress import progress
from awq_ref.report.tables import format_bytes, format_table

BITS = (4, 3, 2)
RECIPES = ("rtn", "awq")
GROUP_SIZE = 128
CALIBRATION_WINDOWS = 32
SEQ_LEN = 512
EVALUATION_TOKENS = 8192
DECODED_TOKENS = 32
MARKER = ".awq_ref_demo"  # a folder with this file is ours to replace
PROMPT = (
    'class Stack:\n    """A list of items, last in, first out."""\n\n    def __init__(self, items=None):\n'
)


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    name: str
    perplexity: float
    file_bytes: int
    resident_bytes: int
    bits_per_weight: float
    packed_rate: float | None  # decode tokens/s; None: a float model has no packed form
    dense_rate: float

    def cells(self, reference: float) -> list[str]:
        return [
            self.name,
            f"{self.perplexity:.3f}",
            f"{self.perplexity / reference - 1:+.2%}",
            format_bytes(self.file_bytes),
            format_bytes(self.resident_bytes),
            f"{self.bits_per_weight:.2f}",
            "-" if self.packed_rate is None else f"{self.packed_rate:.0f}",
            f"{self.dense_rate:.0f}",
        ]


INTRODUCTION = """\
The embedded model: a Llama of 5.8 M parameters that has read Python code. Perplexity: on library files it never saw,
so the numbers differ a little from one Python version to the next. Resident linears: the blocks' weights in memory,
packed (FP16 runs as float32). tok/s: decoding one text; in a model this small Python's overhead per layer outweighs
the bytes, so dense is faster here. RTN rounds to nearest; AWQ scales salient channels first, and clips."""
HEADERS = [
    "model",
    "perplexity",
    "to FP16",
    "file",
    "resident linears",
    "bits/weight",
    "packed tok/s",
    "dense tok/s",
]


def decode_rate(model: Model, prompt: I64) -> float:
    """Return decode tokens per second: the median over three runs, the prompt's time taken off."""
    rates = []
    for _ in range(3):
        stream = model.stream(prompt, max_new_tokens=DECODED_TOKENS, eos_token_ids=())
        next(stream)  # the prompt is read before the first token comes
        started = time.perf_counter()
        n_tokens = sum(1 for _ in stream)
        rates.append(n_tokens / (time.perf_counter() - started))
    return statistics.median(rates)


def measure(name: str, folder: Path, token_ids: I64, bits_per_weight: float) -> Row:
    """Load a checkpoint in its packed and in its dense residency and fill one row of the table."""
    model = load_model(folder, residency="packed")
    dense = load_model(folder, residency="dense")
    result = perplexity(model, token_ids, seq_len=SEQ_LEN, shown=False)
    prompt = token_ids[:16]
    return Row(
        name=name,
        perplexity=result.perplexity,
        file_bytes=folder_bytes(folder, "*.safetensors"),
        resident_bytes=model.resident_bytes()["linears"],
        bits_per_weight=bits_per_weight,
        packed_rate=decode_rate(model, prompt) if model.is_quantized else None,
        dense_rate=decode_rate(dense, prompt),
    )


def compare(source: Path, folder: Path, title: str) -> list[Row]:
    """Quantize with every recipe at every bit width, measure each, and print the table."""
    tokenizer = load_model(source).require_tokenizer()
    token_ids, _, _ = evaluation_tokens(tokenizer, None, limit=EVALUATION_TOKENS)
    observed = calibrate(source, samples=CALIBRATION_WINDOWS, seq_len=SEQ_LEN)
    rows = [measure("FP16", source, token_ids, 16.0)]
    jobs = [(bits, recipe) for bits in BITS for recipe in RECIPES]
    for bits, recipe in progress(jobs, total=len(jobs), label=title, unit="model"):
        target = folder / f"int{bits}-{recipe}"
        report = quantize_model(
            source, target, recipe=recipe, bits=bits, group_size=GROUP_SIZE, statistics=observed, shown=False
        )
        rows.append(measure(f"INT{bits} {recipe.upper()}", target, token_ids, report.bits_per_weight))
    print(f"\n{title}\n")
    print(format_table(HEADERS, [row.cells(rows[0].perplexity) for row in rows]), flush=True)
    return rows


def _recovered(rows: list[Row], bits: int) -> float:
    """Return the share of round-to-nearest's loss (in nats) that AWQ takes back."""
    nats = {row.name: math.log(row.perplexity) for row in rows}
    lost = nats[f"INT{bits} RTN"] - nats["FP16"]
    return (nats[f"INT{bits} RTN"] - nats[f"INT{bits} AWQ"]) / lost


def _continue_text(title: str, folder: Path, residency: Residency) -> None:
    model = load_model(folder, residency=residency)
    text = "".join(model.stream_text(PROMPT, max_new_tokens=80))
    print(f"\n--- {title} ---\n{PROMPT}{text}")


def _prepare_folder(out: Path) -> None:
    """Make the demo's folder, replacing only one that an earlier demo made."""
    if out.exists():
        if not (out / MARKER).exists():
            raise OutputError(
                f"demo: {out} must not exist, or be an earlier demo's; choose another with --out."
            )
        shutil.rmtree(out)
    out.mkdir(parents=True)
    (out / MARKER).write_text("made by awq-ref demo; replaced by the next run\n", encoding="utf-8")


def run_demo(out: Path) -> None:
    """Run the demo and leave the quantized checkpoints in a folder.

    Raises
    ------
    OutputError
        If the folder exists and is not an earlier demo's.
    """
    started = time.perf_counter()
    source = demo_model_path()
    _prepare_folder(out)
    print(INTRODUCTION)
    compare(source, out, "The model as it is")
    with tempfile.TemporaryDirectory() as scratch:
        grown = Path(scratch) / "outliers"
        grow_outliers(source, grown)
        rows = compare(
            grown, Path(scratch), "The same function with 2 % of the channels grown 32 times larger"
        )
    print(
        f"\nWith outliers, AWQ takes back {_recovered(rows, 4):.0%} of what rounding to INT4 loses (in nats per token)."
    )
    _continue_text("FP16", source, "dense")
    checkpoint = out / "int4-awq"
    _continue_text("INT4 AWQ, packed", checkpoint, "packed")
    print(f"\nThe int4 checkpoint: {checkpoint}   ({time.perf_counter() - started:.0f} s)\n\nNext:")
    print(f"    awq-ref inspect {checkpoint}")
    print(
        f'    awq-ref generate {checkpoint} --prompt "class Stack:" --temperature 0.8 --top-p 0.95 --seed 1'
    )
    print(f"    awq-ref quantize {source} my-int3 --bits 3 --verbose")
