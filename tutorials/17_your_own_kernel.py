# ---
# jupytext:
#   text_representation: {extension: .py, format_name: percent}
# kernelspec: {name: python3, display_name: Python 3, language: python}
# ---

# %% [markdown]
# # 17 Check your own kernel
#
# **Question.** You have written a kernel, in C, Rust, JavaScript or for a GPU. It runs. How do you know that it is right?

# %%
import ctypes
import shutil
import subprocess
import tempfile
from collections import Counter
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from awq_ref.paper.output import STYLE
from awq_ref.vectors import ProgramBackend, check_function, read_cases, run_cases, summary
from awq_ref.vectors.protocol import Hello

plt.rcParams.update(STYLE)

# %%
CASES = read_cases()
print("golden cases:", dict(Counter(case.level for case in CASES)))
TOOLS = {name: shutil.which(name) for name in ("gcc", "rustc", "node")}
print("here:", [name for name, path in TOOLS.items() if path])

# %%
KERNEL = """
void matmul(const float *x, const unsigned char *q, const float *scales, const unsigned char *zeros,
            float *y, int tokens, int rows, int columns, int group) {
    int groups = columns / group;
    for (int t = 0; t < tokens; t++)
        for (int r = 0; r < rows; r++) {
            float sum = 0;
            for (int g = 0; g < groups; g++) {
                float dot = 0, total = 0;
                for (int i = g * group; i < (g + 1) * group; i++) {
                    dot += q[r * columns + i] * x[t * columns + i];
                    total += x[t * columns + i];
                }
                sum += scales[r * groups + g] * (dot - zeros[r * groups + g] * total);
            }
            y[t * rows + r] = sum;
        }
}
"""

# %% [markdown]
# Twenty lines of C: the product of chapter 14, a byte per code. The golden vectors are nearly four hundred questions with
# their answers, made by oracles in plain Python and exact fractions, and nothing in them comes from a fast path, ours
# included. From Python a function is held to them by `check_function`, as in every chapter; a program in any language
# by `awq-ref conform --cmd PROGRAM`. Where a compiler is missing on your machine, the cells below say so, and NumPy
# stands in.
#
# ## The equation beside its line
#
# | equation | in words | line of the package | where |
# |---|---|---|---|
# | [AWQ-10](../docs/equations.md#awq-10) | what the kernel shall compute | `scales.astype(np.float32) * (dots - zero_point * x_sums)` | [packed_matmul_reference](../awq_ref/matmul/reference.py) |
# | [P-MATMUL](../docs/equations.md#p-matmul) | how far it may be from that | `np.abs(answer.astype(np.float64) - expected.array) <= expected.bound` | [_misses](../awq_ref/vectors/compare.py) |
#
# No two right kernels agree bit for bit: sums have an order. So every golden answer carries a *bound* for each of its
# elements, derived from the equation and from the precision that the case allows, for any order of summation.


# %%
class Library:
    """A kernel as a shared library; where it cannot be built, NumPy, with the same bug if there is one."""

    def __init__(self, source, language="c", options=("-O2",), name="C", bug=lambda q, scales: (q, scales)):
        compiler = {"c": "gcc", "rs": "rustc"}[language]
        self.__name__, self.bug, self.function = name, bug, None
        if TOOLS[compiler] is None:
            print(f"{compiler} is not here: NumPy stands in")
            return
        with tempfile.TemporaryDirectory() as folder:
            code, library = Path(folder) / f"kernel.{language}", Path(folder) / "kernel.so"
            code.write_text(source, encoding="utf-8")
            kind = ["-shared", "-fPIC"] if language == "c" else ["--crate-type=cdylib", "--edition=2021"]
            subprocess.run([compiler, *kind, *options, str(code), "-o", str(library)], check=True)
            self.function = ctypes.CDLL(str(library)).matmul

    def __call__(self, x, int_weight, scales, zero_point, group_size):
        size = x.shape[1] if group_size == -1 else group_size
        x, scales = (np.ascontiguousarray(a, dtype=np.float32) for a in (x, scales))
        if self.function is None:
            q, scales = self.bug(int_weight, scales)
            step, zero = (np.repeat(a.astype(np.float32), size, axis=1) for a in (scales, zero_point))
            return x @ ((q - zero) * step).T
        y = np.empty((len(x), len(int_weight)), dtype=np.float32)
        pointers = [a.ctypes.data_as(ctypes.c_void_p) for a in (x, int_weight, scales, zero_point, y)]
        self.function(*pointers, *y.shape, x.shape[1], size)
        return y


in_c = Library(KERNEL)
print(check_function("matmul", in_c))
assert check_function("matmul", in_c).is_right

# %% [markdown]
# The same in Rust, by the same interface:

# %%
RUST = """
#[no_mangle]
pub unsafe extern "C" fn matmul(x: *const f32, q: *const u8, scales: *const f32, zeros: *const u8,
                                y: *mut f32, tokens: i32, rows: i32, columns: i32, group: i32) {
    let (groups, at) = (columns / group, |i: i32| i as usize);
    for t in 0..tokens {
        for r in 0..rows {
            let mut sum = 0.0;
            for g in 0..groups {
                let (mut dot, mut total) = (0.0, 0.0);
                for i in g * group..(g + 1) * group {
                    let xi = *x.add(at(t * columns + i));
                    dot += *q.add(at(r * columns + i)) as f32 * xi;
                    total += xi;
                }
                let k = at(r * groups + g);
                sum += *scales.add(k) * (dot - *zeros.add(k) as f32 * total);
            }
            *y.add(at(t * rows + r)) = sum;
        }
    }
}
"""
in_rust = Library(RUST, "rs", ("-O",), name="Rust")
print(check_function("matmul", in_rust))
assert check_function("matmul", in_rust).is_right

# %% [markdown]
# JavaScript has no shared libraries, so it speaks the protocol: a request is a line of JSON, an answer is one. Arrays
# are hexadecimal. What a program does not do it calls `unsupported`, and nobody minds.

# %%
SCRIPT = """
const floats = (a) => new Float32Array(new Uint8Array(Buffer.from(a.data, 'hex')).buffer);
function answer({ op, params, inputs }) {
  if (op === 'hello') return { status: 'ok', protocol: 1, name: 'mine', version: '0', ops: ['rms_norm'], layouts: [] };
  if (op !== 'rms_norm') return { status: 'unsupported' };
  const x = floats(inputs.x), weight = floats(inputs.weight), n = weight.length, y = new Float32Array(x.length);
  for (let t = 0; t < x.length; t += n) {
    let sum = 0;
    for (let i = 0; i < n; i++) sum += x[t + i] * x[t + i];
    for (let i = 0; i < n; i++) y[t + i] = weight[i] * x[t + i] / Math.sqrt(sum / n + params.eps);
  }
  const data = Buffer.from(y.buffer).toString('hex');
  return { status: 'ok', outputs: { y: { dtype: 'float32', shape: inputs.x.shape, data } } };
}
const lines = require('readline').createInterface({ input: process.stdin });
lines.on('line', (line) => console.log(JSON.stringify(answer(JSON.parse(line)))));
"""
level = [case for case in CASES if case.level == "L5"]
if TOOLS["node"]:
    with tempfile.TemporaryDirectory() as folder:
        (script := Path(folder) / "mine.cjs").write_text(SCRIPT, encoding="utf-8")
        outcomes = run_cases(ProgramBackend(f"node {script}"), level)
    told = Counter(outcome.status for outcome in outcomes)
    print("awq-ref conform --cmd 'node mine.cjs' --run 'L5/*':", dict(told))
    assert told["passed"] == sum(case.op == "rms_norm" for case in level) and told["failed"] == 0
else:
    print("node is not here: it would be asked", len(level), "cases")

# %% [markdown]
# Whole backends, one file each, that answer the levels L0 to L3: [examples/backends](../examples/backends/README.md).
#
# ## The effect, seen
#
# How much of its bound does a kernel use? Each dot is one golden case of `matmul`: the worst error of any element,
# divided by what is allowed there. Above the line is wrong.


# %%
def share_of_bound(kernel):
    """Return for every valid case that the kernel can be asked the largest |error| / bound."""
    shares = {}
    for case in CASES:
        names = {"x", "int_weight", "scales", "zero_point"}
        if case.op != "matmul" or not case.is_valid or set(case.inputs) != names:
            continue
        expected = case.expected["y"]
        y = kernel(**case.inputs, group_size=case.params["group_size"]).astype(np.float64)
        shares[case.id] = float((np.abs(y - expected.array) / expected.bound).max())
    return shares


def in_half(x, int_weight, scales, zero_point, group_size):
    """Dequantized, multiplied and added in float16, as a careless GPU kernel does."""
    size = x.shape[1] if group_size == -1 else group_size
    step, zero = (np.repeat(a, size, axis=1).astype(np.float16) for a in (scales, zero_point))
    weight = (int_weight.astype(np.float16) - zero) * step
    return np.cumsum(x.astype(np.float16)[:, None] * weight, axis=2)[..., -1].astype(np.float32)


kernels = {"C": in_c, "Rust": in_rust, "sums in float16": in_half}
shares = {name: share_of_bound(kernel) for name, kernel in kernels.items()}
labels = [name.split("/")[2] for name in shares["C"]]
figure, axes = plt.subplots(figsize=(7.4, 3.8), layout="constrained")
for i, (name, found) in enumerate(shares.items()):
    used = np.maximum(list(found.values()), 1e-4)
    axes.semilogy(np.arange(len(labels)) + 0.1 * (i - 1), used, "o", ms=5, label=name)
axes.axhline(1.0, color="0.3", lw=1)
axes.text(-0.4, 1.2, "the bound", color="0.4", fontsize=8)
axes.set_xticks(range(len(labels)), labels, rotation=60, fontsize=8, ha="right")
axes.set(ylabel="error / bound", title="Each case has a bound of its own")
axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
assert max(shares["C"].values()) <= 1.0 and max(shares["Rust"].values()) <= 1.0
assert shares["sums in float16"]["L3/matmul/float16"] <= 1.0  # where float16 was asked for, it will do
assert shares["sums in float16"]["L3/matmul/batch"] > 1.0  # where float32 was, it will not

# %% [markdown]
# Sums in float16 pass where the case says `precision: float16`, and fail where it says float32, by factors of twenty to
# two hundred. A tolerance of 1e-2 everywhere, as many tests of kernels have it, would let both pass.
#
# ## Predict, then run
#
# Compile the C with `-O3 -ffast-math`: the compiler may now reorder every sum, and fuse multiplication and addition.
# **Before you run the next cell:** are its results the same bits? Does it still pass?

# %%
fast = Library(KERNEL, "c", ("-O3", "-ffast-math", "-march=native"), "C, sums in any order")
asked = {**next(case.inputs for case in CASES if case.id == "L3/matmul/long-sum"), "group_size": 128}
print("largest difference of the two builds:", np.abs(fast(**asked) - in_c(**asked)).max())
print(check_function("matmul", fast))
assert check_function("matmul", fast).is_right

# %% [markdown]
# Other bits, as a rule, and it passes: the bound admits every order of summation.
#
# ## Break it
#
# In C a `char` has a sign on most machines, and on ARM it has none. Leave `unsigned` away from the codes. Which cases
# will notice?

# %%
signed = Library(
    KERNEL.replace("const unsigned char *q", "const signed char *q"),
    name="C, codes with a sign",
    bug=lambda q, scales: (q.view(np.int8), scales),
)
verdict = check_function("matmul", signed)
print(verdict)
bits = {outcome.case.params["bits"] for outcome in verdict.failed}
assert bits == {8}  # the symptom: with 2, 3 and 4 bits all is well

# %% [markdown]
# Codes of 4 bits end at 15, so nobody sees the sign; codes of 8 bits above 127 turn negative. A test with 4 bits alone
# would have let it through. That is why vectors are many and small, each made for a bug that happened somewhere. What
# each of them catches: [docs/mutants.md](../docs/mutants.md).
#
# ## Check yourself
#
# Your own kernel, in the language of your choice. `Library(source)` builds C, `Library(source, "rs")` Rust; anything
# else that Python can call will do too.


# %%
def my_kernel(x, int_weight, scales, zero_point, group_size):
    """Return y (tokens, rows)."""
    raise NotImplementedError("your turn")


print(check_function("matmul", my_kernel))


# %% tags=["hide-input"] jupyter={"source_hidden": true}
# One solution adds in double; the planted bug takes the scale of the group before.
doubles = KERNEL.replace("float sum", "double sum").replace("float dot", "double dot")
in_double = Library(doubles, name="C, sums in double")
late = Library(
    KERNEL.replace("scales[r * groups + g]", "scales[r * groups + (g ? g - 1 : 0)]"),
    name="a pointer that moves on too late",
    bug=lambda q, scales: (q, np.concatenate([scales[:, :1], scales[:, :-1]], axis=1)),
)
right = check_function("matmul", in_double)
wrong = check_function("matmul", late)
print(right, wrong, sep="\n\n")
assert right.is_right
assert not wrong.is_right

# %% [markdown]
# ## Exercises
#
# 1. `summary` is what `awq-ref conform` prints of a run. Print it for the C kernel.
# 2. A kernel reads nibbles from words, not bytes. With which operation would you begin, with `matmul_packed`?

# %% tags=["hide-input"] jupyter={"source_hidden": true}
# 1. The outcomes of a verdict are those of a run; `--report tap` or `junit` tells them to a CI.
print(summary(Hello("c_kernel", "1"), check_function("matmul", in_c).outcomes))
# 2. No: with `unpack`. It is exact, shows the first element that differs in hexadecimal, and a level stands on the ones
#    before it. What the kernel cannot do it answers with `unsupported`, which is no failure.
assert {case.level for case in CASES if case.op in ("unpack", "matmul_packed")} == {"L0", "L3"}
