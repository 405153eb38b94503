"""Train the model that ships inside awq_ref: a Llama of 5.8 M parameters that has read Python.

    python tools/train_demo_model.py --work build/training            # train; the same line resumes
    python tools/train_demo_model.py --work build/training --export awq_ref/assets/demo_model
    python tools/train_demo_model.py --work build/training --model sibling   # another shape and seed, to compare with

Text       the standard library of the Python that runs this (awq_ref.text.corpus says which files are held out),
           plus the packages of PACKAGES, taken from the package index; files that share many lines with a held-out
           file are left out.
Tokenizer  byte-level BPE, 4096 entries; digits in threes; a newline and the indentation after it are one piece.
Phases     rows of MODELS. First Muon (momentum, then an approximately orthogonal update) for the matrices of the
           blocks, AdamW for the rest, with a rate that falls to zero. Then AdamW alone, with uniform noise on the
           matrices as large as rounding errors are, and an average of the weights.

Why the noise: after the first phase rounding to INT4 costs 3.5 % of perplexity, 2.2 % with AWQ. Noise and averaging
look for a flatter minimum, at the price of some perplexity of the float model.

It needs torch; nothing else in the project does. Sources: K. Jordan et al. 2024, "Muon: an optimizer for hidden
layers"; J. Liu et al. 2025, arXiv:2502.16982 (the 0.2 sqrt(max(rows, columns)) step size); A. Fan et al. 2020,
arXiv:2004.07320 (training with quantization noise); P. Izmailov et al. 2018, arXiv:1803.05407 (averaging).
"""

import argparse
import contextlib
import hashlib
import json
import math
import platform
import random
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.numpy import save_file
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import nn

from awq_ref.text import corpus

# Permissively licensed (BSD, MIT, Apache-2.0, PSF) packages with much Python source and none of the standard library's.
PACKAGES = (
    "aiohttp==3.14.5", "astropy==8.0.2", "bokeh==3.10.2", "click==8.5.1", "dask==2026.8.0", "django==6.1.3",
    "flask==3.1.3", "ipython==9.18.1", "jinja2==3.1.6", "matplotlib==3.11.2", "mypy==2.4.1", "networkx==3.7",
    "nltk==3.10.4", "numpy==2.5.5", "pandas==3.1.1", "pygments==2.21.0", "pytest==9.2.0", "rich==15.0.0",
    "scikit-learn==1.9.1", "scipy==1.18.1", "sphinx==9.1.1", "sqlalchemy==2.1.9", "statsmodels==0.15.0",
    "sympy==1.14.0", "tornado==6.6.1", "twisted==26.10.0", "werkzeug==3.1.9", "xarray==2026.9.0",
)  # fmt: skip
WHEEL_PLATFORMS = (
    "manylinux_2_28_x86_64",
    "manylinux_2_27_x86_64",
    "manylinux_2_24_x86_64",
    "manylinux2014_x86_64",
)
END_OF_TEXT = "<|endoftext|>"
# One piece each: newlines with the indentation after them; a word with at most one character before it; up to three
# digits; a run of punctuation; blanks.
PIECES = r"(?:\r?\n[ \t]*)+|[^\s\p{L}\p{N}]?\p{L}+| \p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+|[ \t]+|\s"
LARGEST_FILE = 400_000  # characters; longer ones are tables
SHINGLE_LINES = 5
LARGEST_OVERLAP = 0.05  # of a training file's shingles that may also stand in a held-out file


@dataclass(frozen=True)
class Shape:
    vocab_size: int = 4096
    hidden_size: int = 256
    intermediate_size: int = 768
    num_hidden_layers: int = 6
    num_attention_heads: int = 8
    num_key_value_heads: int = 4
    head_dim: int = 32
    rms_norm_eps: float = 1e-5
    rope_theta: float = 10000.0
    max_position_embeddings: int = 512


@dataclass(frozen=True)
class Phase:
    """One stretch of training; optimizers start afresh.

    peak_rate    : learning rate after the warm-up
    fall         : where the rate begins to fall, and where it would be zero, as shares of the steps; floor: the least
                   share of the peak
    stdlib_share : of the windows; the rest comes from tests and packages. library_only: in the last such share of
                   the steps all windows are the library's own
    noise        : on the matrices, drawn for every step: a key of NOISES and its size
    average      : the phase ends with the average of about the last such share of its steps; 0: with the last step
    seeds        : of the choice of source, of the library's windows, of the others'
    """

    name: str
    steps: int
    seeds: tuple[int, int, int]
    tokens_per_step: int = 6144
    window: int = 256
    last_window: int = 512  # in the last fifth of the steps
    muon: bool = True
    peak_rate: float = 4e-3
    weight_decay: float = 0.1
    warmup_steps: int = 100
    fall: tuple[float, float] = (0.4, 1.0)
    floor: float = 0.0
    stdlib_share: float = 0.4
    library_only: float = 0.1
    noise: tuple[str, float] = ("uniform", 0.0)
    average: float = 0.0

    @property
    def tokens(self) -> int:
        return self.steps * self.tokens_per_step

    def window_at(self, step: int) -> int:
        return self.last_window if step >= 0.8 * self.steps else self.window

    def factor(self, step: int) -> float:
        """Learning rate of a step as a share of the peak."""
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        begin, zero = self.fall
        return min(1.0, max(self.floor, (zero - step / self.steps) / (zero - begin)))


NEVER = (1.0, 2.0)  # for `fall`
# AdamW in small steps, so that there are many, on noisy matrices.
FLAT = Phase(
    "", 0, (0, 0, 0), tokens_per_step=3072, window=512, muon=False, peak_rate=1.5e-3, warmup_steps=40,
    fall=NEVER, stdlib_share=0.5, library_only=0.0, average=0.4,
)  # fmt: skip

SETTLING = replace(FLAT, fall=(0.0, 1.0), floor=0.1, stdlib_share=0.8)

# model -> shape, phases. Those of the embedded model were found by trial, one after the other: they are its history.
MODELS: dict[str, tuple[Shape, tuple[Phase, ...]]] = {
    "demo": (
        Shape(),
        (
            Phase("1 learn", 2604, (1, 2, 3)),
            replace(
                FLAT, name="2 leave the minimum", steps=900, seeds=(3, 11, 12), noise=("uniform", 2.0),
                peak_rate=2e-3, fall=(0.0, 2.67), average=0.0,
            ),
            replace(FLAT, name="3 average", steps=600, seeds=(4, 21, 22), noise=("uniform", 2.0)),
            replace(FLAT, name="4 more noise", steps=800, seeds=(6, 31, 32), noise=("uniform", 4.0)),
            replace(
                SETTLING, name="5 more library", steps=800, seeds=(8, 41, 42), noise=("uniform", 3.5), fall=(0.0, 2.5)
            ),
            replace(SETTLING, name="6 settle", steps=1600, seeds=(9, 51, 52), noise=("normal", 0.4), fall=(0.0, 1.06)),
        ),
    ),
    "sibling": (
        Shape(
            intermediate_size=1024, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2, head_dim=64
        ),
        (Phase("1 learn", 600, (101, 102, 103)),),
    ),
}  # fmt: skip


# ---- text -----------------------------------------------------------------------------------------------------------


def download_packages(folder: Path) -> list[Path]:
    if not any(folder.glob("*.whl")):
        platforms = [word for name in WHEEL_PLATFORMS for word in ("--platform", name)]
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:"]
        command += ["--python-version", "3.12", *platforms, "-d", str(folder), *PACKAGES]
        subprocess.run(command, check=True)
    return sorted(folder.glob("*.whl"))


def package_texts(wheels: list[Path]) -> Iterator[str]:
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as archive:
            for name in sorted(archive.namelist()):
                folders = set(PurePosixPath(name).parts[:-1])
                if name.endswith(".py") and not folders & (
                    corpus.TEST_FOLDERS | {"_vendor", "typeshed", "locale"}
                ):
                    with contextlib.suppress(UnicodeDecodeError):
                        yield archive.read(name).decode("utf-8")


def shingles(text: str) -> set[int]:
    lines = [line.strip() for line in text.splitlines() if len(line.strip()) > 3]
    return {hash(tuple(lines[i : i + SHINGLE_LINES])) for i in range(len(lines) - SHINGLE_LINES + 1)}


def without_copies(texts: Iterator[str], held_out: set[int]) -> list[str]:
    """Drop empty and oversized texts and those that share more than LARGEST_OVERLAP with the held-out files."""
    kept = []
    for text in texts:
        mine = shingles(text)
        if 0 < len(text) <= LARGEST_FILE and (
            not mine or len(mine & held_out) <= LARGEST_OVERLAP * len(mine)
        ):
            kept.append(text)
    return kept


def train_tokenizer(texts: list[str], vocab_size: int) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=[END_OF_TEXT], initial_alphabet=alphabet
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def encode(tokenizer: Tokenizer, texts: list[str]) -> np.ndarray:
    """Concatenate the texts' ids, each text after one END_OF_TEXT."""
    parts = []
    for start in range(0, len(texts), 256):
        for encoding in tokenizer.encode_batch(texts[start : start + 256], add_special_tokens=False):
            parts.append(np.array([0, *encoding.ids], dtype=np.uint16))
    return np.concatenate(parts)


def prepare(work: Path, vocab_size: int) -> tuple[Tokenizer, dict[str, np.ndarray]]:
    """Return the tokenizer and the ids of each part, made on the first call and read from the work folder later."""
    parts = ("library", "tests_and_packages", "validation")
    if not all((work / f"{part}.npy").exists() for part in parts):
        held_out_texts = [t for s in ("validation", "calibration") for t in corpus.stdlib_texts(s)]
        held_out = set().union(*map(shingles, held_out_texts))
        library = without_copies(corpus.stdlib_texts("train"), held_out)
        tests = set(corpus.stdlib_texts("train", with_tests=True)) - set(library)
        wheels = download_packages(work / "wheels")
        others = without_copies((t for g in (sorted(tests), package_texts(wheels)) for t in g), held_out)
        tokenizer = train_tokenizer(library, vocab_size)
        tokenizer.save(str(work / "tokenizer.json"))
        texts = {
            "library": library,
            "tests_and_packages": others,
            "validation": list(corpus.stdlib_texts("validation")),
        }
        for part in parts:
            ids = encode(tokenizer, texts[part])
            np.save(work / f"{part}.npy", ids)
            characters = sum(map(len, texts[part]))
            print(f"{part}: {len(texts[part])} files, {characters} characters, {len(ids)} tokens", flush=True)
    tokenizer = Tokenizer.from_file(str(work / "tokenizer.json"))
    return tokenizer, {part: np.load(work / f"{part}.npy") for part in parts}


class Windows:
    """Random windows of a token stream, without repetition until the stream is used up."""

    def __init__(self, ids: np.ndarray, seed: int) -> None:
        self.ids, self.random = ids, random.Random(seed)
        self.length, self.starts = 0, [0]

    def next(self, length: int) -> np.ndarray:
        if not self.starts or length != self.length:
            self.length = length
            self.starts = list(range(self.random.randrange(length), len(self.ids) - length - 1, length))
            self.random.shuffle(self.starts)
        start = self.starts.pop()
        return self.ids[start : start + length + 1].astype(np.int64)


# ---- model ----------------------------------------------------------------------------------------------------------


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


class Block(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        kv = shape.num_key_value_heads * shape.head_dim
        self.input_layernorm = nn.RMSNorm(shape.hidden_size, eps=shape.rms_norm_eps)
        self.q_proj = nn.Linear(shape.hidden_size, shape.hidden_size, bias=False)
        self.k_proj = nn.Linear(shape.hidden_size, kv, bias=False)
        self.v_proj = nn.Linear(shape.hidden_size, kv, bias=False)
        self.o_proj = nn.Linear(shape.hidden_size, shape.hidden_size, bias=False)
        self.post_attention_layernorm = nn.RMSNorm(shape.hidden_size, eps=shape.rms_norm_eps)
        self.gate_proj = nn.Linear(shape.hidden_size, shape.intermediate_size, bias=False)
        self.up_proj = nn.Linear(shape.hidden_size, shape.intermediate_size, bias=False)
        self.down_proj = nn.Linear(shape.intermediate_size, shape.hidden_size, bias=False)

    def forward(self, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        batch, length, _ = x.shape
        h = self.input_layernorm(x)
        heads = [
            p(h).view(batch, length, -1, self.shape.head_dim).transpose(1, 2)
            for p in (self.q_proj, self.k_proj)
        ]
        q, k = (rotate(head, cos, sin) for head in heads)
        v = self.v_proj(h).view(batch, length, -1, self.shape.head_dim).transpose(1, 2)
        shared = self.shape.num_attention_heads // self.shape.num_key_value_heads
        k, v = k.repeat_interleave(shared, dim=1), v.repeat_interleave(shared, dim=1)
        # Written out: with heads this small it is faster on a CPU than torch's fused attention.
        scores = (q * self.shape.head_dim**-0.5) @ k.transpose(-1, -2)
        seen = torch.ones(length, length, dtype=torch.bool, device=x.device).tril()
        attention = scores.masked_fill(~seen, -1e4).softmax(dim=-1).to(v.dtype) @ v
        x = x + self.o_proj(attention.transpose(1, 2).reshape(batch, length, -1))
        h = self.post_attention_layernorm(x)
        return x + self.down_proj(F.silu(self.gate_proj(h)) * self.up_proj(h))


class Llama(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.embed_tokens = nn.Embedding(shape.vocab_size, shape.hidden_size)
        self.layers = nn.ModuleList(Block(shape) for _ in range(shape.num_hidden_layers))
        self.norm = nn.RMSNorm(shape.hidden_size, eps=shape.rms_norm_eps)
        for name, parameter in self.named_parameters():
            if parameter.ndim == 2:
                last = name.endswith(("o_proj.weight", "down_proj.weight"))
                nn.init.normal_(
                    parameter, std=0.02 / math.sqrt(2 * shape.num_hidden_layers) if last else 0.02
                )
        half = torch.arange(0, shape.head_dim, 2, dtype=torch.float32) / shape.head_dim
        angles = torch.outer(torch.arange(shape.max_position_embeddings).float(), shape.rope_theta**-half)
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)

    def forward(self, ids: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return the mean loss in nats per token."""
        x = self.embed_tokens(ids)
        for layer in self.layers:
            x = layer(x, self.cos[: ids.shape[1]], self.sin[: ids.shape[1]])
        logits = F.linear(self.norm(x), self.embed_tokens.weight)
        return F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten())


# ---- optimizer ------------------------------------------------------------------------------------------------------


def orthogonalized(update: torch.Tensor, steps: int = 5) -> torch.Tensor:
    """Push the singular values of each matrix (..., rows, columns) towards 1 by a quintic Newton-Schulz iteration."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = update.bfloat16()
    tall = x.shape[-2] > x.shape[-1]
    x = x.mT if tall else x
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.mT if tall else x).float()


class Muon(torch.optim.Optimizer):
    def __init__(
        self, parameters: list[nn.Parameter], *, rate: float, weight_decay: float, momentum: float = 0.95
    ):
        super().__init__(parameters, {"lr": rate, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        for group in self.param_groups:
            for shape in sorted({tuple(p.shape) for p in group["params"]}):
                alike = [p for p in group["params"] if tuple(p.shape) == shape]
                self._step_alike(alike, group)

    def _step_alike(self, parameters: list[nn.Parameter], group: dict) -> None:
        looks_ahead = []
        for p in parameters:
            moment = self.state[p].setdefault("moment", torch.zeros_like(p))
            moment.lerp_(p.grad, 1 - group["momentum"])
            looks_ahead.append(p.grad.lerp(moment, group["momentum"]))
        updates = orthogonalized(torch.stack(looks_ahead))
        size = 0.2 * math.sqrt(max(parameters[0].shape))
        for p, update in zip(parameters, updates, strict=True):
            p.mul_(1 - group["lr"] * group["weight_decay"]).add_(update, alpha=-group["lr"] * size)


def matrices(model: Llama) -> list[nn.Parameter]:
    """Return the weights of the blocks' linear layers."""
    return [p for p in model.layers.parameters() if p.ndim == 2]


def optimizers(model: Llama, phase: Phase) -> list[torch.optim.Optimizer]:
    norms = [p for p in model.parameters() if p.ndim == 1]
    rest = [{"params": [model.embed_tokens.weight]}, {"params": norms}]
    decayed = [{"params": matrices(model), "weight_decay": phase.weight_decay}]
    adamw = torch.optim.AdamW(
        rest if phase.muon else decayed + rest, lr=phase.peak_rate, betas=(0.9, 0.95), weight_decay=0.0
    )
    if not phase.muon:
        return [adamw]
    return [Muon(matrices(model), rate=phase.peak_rate, weight_decay=phase.weight_decay), adamw]


def uniform_noise(p: torch.Tensor, width: float) -> torch.Tensor:
    """Return uniform noise, `width` steps of an INT4 grid with groups of 128 wide: as large as its rounding errors."""
    groups = p.reshape(len(p), -1, 128)  # (rows, n_groups, 128)
    span = groups.amax(-1, keepdim=True).clamp(min=0) - groups.amin(-1, keepdim=True).clamp(max=0)
    return ((torch.rand_like(groups) - 0.5) * span * (width / 15)).reshape(p.shape)


def normal_noise(p: torch.Tensor, size: float) -> torch.Tensor:
    """Return normal noise, its deviation `size` times the root mean square of the row."""
    return torch.randn_like(p) * (size * p.square().mean(1, keepdim=True).sqrt())


NOISES = {"uniform": uniform_noise, "normal": normal_noise}


@contextlib.contextmanager
def noise_on(parameters: list[nn.Parameter], noise: tuple[str, float]) -> Iterator[None]:
    """Add noise to the parameters; take it away in the end."""
    kind, size = noise
    if not size:
        yield
        return
    kept = [p.detach().clone() for p in parameters]
    with torch.no_grad():
        for p in parameters:
            p.add_(NOISES[kind](p, size))
    yield
    with torch.no_grad():
        for p, weight in zip(parameters, kept, strict=True):
            p.copy_(weight)


class Average:
    """The running average of a model's weights over about the last `share` of the steps; the model itself without."""

    EVERY = 4  # steps

    def __init__(self, model: Llama, share: float) -> None:
        self.model, self.share = model, share
        self.state = {name: p.clone() for name, p in model.state_dict().items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        if not self.share:
            self.state = self.model.state_dict()
        elif step % self.EVERY == 0:
            weight = min(1.0, self.EVERY / (self.share * (step + 1)))
            for name, p in self.model.state_dict().items():
                self.state[name].lerp_(p, weight)


# ---- training -------------------------------------------------------------------------------------------------------


def batches(phase: Phase, data: dict[str, np.ndarray]) -> Iterator[np.ndarray]:
    """Yield one (windows, window + 1) batch per step, the same ones on every run."""
    choice, of_library, of_others = phase.seeds
    choose = random.Random(choice)
    library = Windows(data["library"], of_library)
    others = Windows(data["tests_and_packages"], of_others)
    for step in range(phase.steps):
        share = 1.0 if step >= (1 - phase.library_only) * phase.steps else phase.stdlib_share
        length = phase.window_at(step)
        sources = [
            library if choose.random() < share else others for _ in range(phase.tokens_per_step // length)
        ]
        yield np.stack([source.next(length) for source in sources])


@torch.no_grad()
def validation_loss(model: Llama, ids: np.ndarray, length: int, n_windows: int) -> float:
    starts = np.linspace(0, len(ids) - length - 2, n_windows).astype(int)
    losses = []
    for first in range(0, n_windows, 16):
        windows = np.stack([ids[s : s + length + 1].astype(np.int64) for s in starts[first : first + 16]])
        x = torch.from_numpy(windows)
        losses.append(model(x[:, :-1], x[:, 1:]).item() * len(windows))
    return sum(losses) / n_windows


def save_checkpoint(path: Path, state: dict) -> None:
    torch.save(state, path.with_suffix(".tmp"))
    path.with_suffix(".tmp").replace(path)


class Log:
    """Losses and speed, a line every 50 steps."""

    def __init__(self, path: Path, phase: Phase, first: int) -> None:
        self.path, self.phase, self.first = path, phase, first
        self.losses: list[float] = []
        self.started = time.time()

    def write(self, step: int, **more: float) -> None:
        tokens = self.phase.tokens_per_step
        rate = (step + 1 - self.first) * tokens / (time.time() - self.started)
        row = {"phase": self.phase.name, "step": step + 1, "tokens": (step + 1) * tokens}
        row |= {
            "train_loss": round(float(np.mean(self.losses[-50:])), 4),
            "tokens_per_second": round(rate),
            **more,
        }
        with self.path.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(row, flush=True)


def averaged_loss(model: Llama, average: Average, data: dict[str, np.ndarray], length: int) -> float:
    """Return the validation loss of what the phase would end with now."""
    probe = Llama(model.shape).to(model.cos.device)
    probe.load_state_dict(average.state)
    return round(validation_loss(probe, data["validation"], length, 64), 4)


def run_phase(
    model: Llama, phase: Phase, data: dict[str, np.ndarray], work: Path, device: str, start: dict | None
) -> None:
    """Train one phase, from its beginning or from a checkpoint of it; leave its result in the model."""
    tools, average, first = optimizers(model, phase), Average(model, phase.average), 0
    if start:
        model.load_state_dict(start["model"])
        average.state, first = start["average"], start["step"]
        for tool, saved in zip(tools, start["optimizers"], strict=True):
            tool.load_state_dict(saved)
    compiled, log = torch.compile(model, dynamic=False), Log(work / "log.jsonl", phase, first)
    for step, batch in enumerate(batches(phase, data)):
        if step < first:
            continue
        x = torch.from_numpy(batch).to(device)
        with noise_on(matrices(model), phase.noise):
            with torch.autocast(device, dtype=torch.bfloat16):
                loss = compiled(x[:, :-1], x[:, 1:])
            loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for tool in tools:
            for group in tool.param_groups:
                group["lr"] = phase.peak_rate * phase.factor(step)
            tool.step()
            tool.zero_grad()
        average.update(step)
        log.losses.append(loss.item())
        if (step + 1) % 250 == 0 or step + 1 == phase.steps:
            log.write(step, validation_loss=averaged_loss(model, average, data, phase.last_window))
            state = {"phase": asdict(phase), "step": step + 1, "model": model.state_dict()}
            state |= {"average": average.state, "optimizers": [tool.state_dict() for tool in tools]}
            save_checkpoint(work / "checkpoint.pt", state)
        elif (step + 1) % 50 == 0:
            log.write(step)
    model.load_state_dict(average.state)


def train(
    model: Llama, phases: tuple[Phase, ...], data: dict[str, np.ndarray], work: Path, device: str
) -> None:
    """Train all phases, or those that are left: checkpoint.pt says where a stopped run stood."""
    path = work / "checkpoint.pt"
    start = torch.load(path, map_location=device) if path.exists() else None
    done = 0
    if start:
        rows = [asdict(phase) for phase in phases]
        if start["phase"] not in rows:
            sys.exit(f"{path} was made with {start['phase']}: give the same arguments, or another --work")
        done = rows.index(start["phase"])
    for number, phase in enumerate(phases):
        if number >= done:
            run_phase(model, phase, data, work, device, start if number == done else None)


# ---- export ---------------------------------------------------------------------------------------------------------

CARD = Path(__file__).with_name("demo_model_card.md")


def hub_name(name: str) -> str:
    """Translate a parameter's name to Hugging Face's."""
    parts = name.split(".")
    if parts[0] == "layers" and parts[2].endswith("_proj"):
        parts.insert(2, "self_attn" if parts[2][0] in "qkvo" else "mlp")
    return "model." + ".".join(parts)


def configs(shape: Shape) -> dict[str, dict]:
    ids = {"bos_token_id": 0, "eos_token_id": 0}
    same = {"attention_bias": False, "mlp_bias": False, "attention_dropout": 0.0, "initializer_range": 0.02}
    special = {"bos_token": END_OF_TEXT, "eos_token": END_OF_TEXT}
    return {
        "config.json": {
            "architectures": ["LlamaForCausalLM"], "model_type": "llama", **asdict(shape), "hidden_act": "silu",
            "rope_scaling": None, "tie_word_embeddings": True, "torch_dtype": "float16", "use_cache": True,
            **same, **ids,
        },
        "generation_config.json": {"do_sample": False, **ids},
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": shape.max_position_embeddings,
            "clean_up_tokenization_spaces": False, **special,
        },
    }  # fmt: skip


def with_first_token(tokenizer: Tokenizer) -> Tokenizer:
    """Put END_OF_TEXT before every text, as in training."""
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{END_OF_TEXT} $A",
        pair=f"{END_OF_TEXT} $A {END_OF_TEXT} $B",
        special_tokens=[(END_OF_TEXT, 0)],
    )
    return tokenizer


def loss_curve(log: Path) -> str:
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    shown = [row for row in rows if "validation_loss" in row]
    return "\n".join(
        f"| {row['phase']} | {row['step']} | {row['train_loss']:.3f} | {row['validation_loss']:.3f} |"
        for row in shown
    )


def phase_row(phase: Phase) -> str:
    """Return a phase as a row of the card's table."""
    tool = "Muon for matrices, AdamW for the rest" if phase.muon else "AdamW"
    course = "constant"
    if phase.fall[0] < 1.0:
        course = f"falling after {phase.fall[0]:.0%} to {phase.factor(phase.steps - 1):.0%}"
    windows = (
        f"{phase.window}, then {phase.last_window}" if phase.window != phase.last_window else phase.window
    )
    noise = " ".join(map(str, phase.noise)) if phase.noise[1] else "none"
    averaged = f"about the last {phase.average:.0%}" if phase.average else "no"
    cells = [
        phase.name, f"{phase.tokens:,}", tool, f"{phase.peak_rate:g}, {course}",
        phase.tokens_per_step, windows, noise, averaged,
    ]  # fmt: skip
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


def model_card(
    model: Llama, phases: tuple[Phase, ...], data: dict[str, np.ndarray], work: Path, nats: float, device: str
) -> str:
    shape, window = model.shape, phases[-1].last_window
    n_bytes = sum(len(text.encode()) for text in corpus.stdlib_texts("validation"))
    n_tokens = len(data["validation"])
    percent = ", ".join(str(value) for value in corpus.SPLIT_PERCENT.values())
    return CARD.read_text().format(
        parameters=sum(p.numel() for p in model.parameters()), layers=shape.num_hidden_layers, hidden=shape.hidden_size,
        heads=shape.num_attention_heads, kv_heads=shape.num_key_value_heads, intermediate=shape.intermediate_size,
        vocab=shape.vocab_size, context=shape.max_position_embeddings, nats=nats, perplexity=math.exp(nats),
        bits_per_byte=nats / math.log(2) * n_tokens / n_bytes, bytes_per_token=n_bytes / n_tokens,
        tokens=sum(phase.tokens for phase in phases), validation_tokens=n_tokens,
        python=platform.python_version(), window=window, library_tokens=len(data["library"]),
        other_tokens=len(data["tests_and_packages"]), packages=", ".join(PACKAGES), split=percent,
        split_names=", ".join(corpus.SPLIT_PERCENT), overlap=LARGEST_OVERLAP, shingle=SHINGLE_LINES,
        phases="\n".join(map(phase_row, phases)), device=device, curve=loss_curve(work / "log.jsonl"),
    )  # fmt: skip


def export(
    model: Llama,
    tokenizer: Tokenizer,
    phases: tuple[Phase, ...],
    data: dict[str, np.ndarray],
    work: Path,
    folder: Path,
    device: str,
) -> None:
    """Write the model folder and, beside it, the list of its files' SHA-256."""
    model.load_state_dict(torch.load(work / "checkpoint.pt", map_location=device)["average"])
    folder.mkdir(parents=True, exist_ok=True)
    window = phases[-1].last_window
    n_windows = (len(data["validation"]) - 1) // window
    nats = validation_loss(model, data["validation"], window, n_windows)
    tensors = {hub_name(n): p.detach().cpu().half().numpy() for n, p in model.state_dict().items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with_first_token(tokenizer).save(str(folder / "tokenizer.json"))
    for name, config in configs(model.shape).items():
        (folder / name).write_text(json.dumps(config, indent=2) + "\n")
    (folder / "README.md").write_text(model_card(model, phases, data, work, nats, device))
    sums = [f"{hashlib.sha256(p.read_bytes()).hexdigest()}  {p.name}\n" for p in sorted(folder.iterdir())]
    folder.with_suffix(".sha256").write_text("".join(sums))
    print(f"{folder}: {nats:.4f} nats per token over {n_windows} windows")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--work",
        type=Path,
        required=True,
        help="folder for packages and tokens, and a folder per model in it",
    )
    parser.add_argument("--model", choices=MODELS, default="demo")
    parser.add_argument("--device", default="cpu")
    parser.add_argument(
        "--export", type=Path, help="write the trained checkpoint's model folder here and stop"
    )
    arguments = parser.parse_args()
    shape, phases = MODELS[arguments.model]
    work = arguments.work / arguments.model
    work.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(phases[0].seeds[0])
    tokenizer, data = prepare(arguments.work, shape.vocab_size)
    model = Llama(shape).to(arguments.device)
    if arguments.export:
        export(model, tokenizer, phases, data, work, arguments.export, arguments.device)
        return
    train(model, phases, data, work, arguments.device)


if __name__ == "__main__":
    main()
