"""What `awq-ref bench` measures: a model or a shape, how it stays in memory, how many tokens.

Job             one process's work: what can be said in JSON
bench_shapes    name -> configuration
require_shape_name  raise unless it is one of these
"""

from dataclasses import dataclass

from awq_ref.checks import require_between, require_one_of
from awq_ref.matmul import RESIDENCIES, Residency
from awq_ref.model import ModelConfig
from awq_ref.paper.shapes import SHAPES
from awq_ref.pipeline.tables import HEADS, Head

WHO = "awq-ref bench"
BITS, GROUP_SIZE = 4, 128  # of what is made or rounded here
LEAST_NEW = 3  # two steps after the first token: quartiles need them


def bench_shapes() -> dict[str, ModelConfig]:
    """Return the shapes that the experiments know, and `llama-7b`, which has the sizes of Llama 2."""
    return SHAPES | {"llama-7b": SHAPES["llama-2-7b"]}


def require_shape_name(name: str) -> None:
    """Raise RangeError unless it is the name of a shape."""
    require_one_of(WHO, "--shape", name, bench_shapes())


@dataclass(frozen=True)
class Job:
    """What one process measures.

    folder    : quantized checkpoint; "" for random weights of a shape
    shape     : its name, if there is no folder
    residency : "packed", "codes" or "dense"
    head      : "float" or "int8"
    layers    : of the shape, measured instead of all; 0 for all
    prompt    : tokens that are read at once
    new       : tokens that are then generated
    threads   : of the process

    Raises RangeError if a value lies outside its range.
    """

    folder: str
    shape: str
    residency: Residency
    head: Head
    layers: int
    prompt: int
    new: int
    threads: int

    def __post_init__(self) -> None:
        require_one_of(WHO, "--residency", self.residency, RESIDENCIES)
        require_one_of(WHO, "--head", self.head, HEADS)
        require_between(WHO, "--layers", self.layers, 0, 2**31)
        require_between(WHO, "--prompt", self.prompt, 1, 2**31)
        require_between(WHO, "--new", self.new, LEAST_NEW, 2**31)
        require_between(WHO, "--threads", self.threads, 1, 2**31)
