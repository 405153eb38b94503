"""Between the embedding and the first block: multiplier, projection, learned positions, norm, where a family has them.

    Entrance        the arrays of it
    check_entrance  they are those that a configuration asks for
    widened         rows of a table as float32
    enter           rows of the embedding -> what the first block reads

Sources: Radford et al. 2019, Language Models are Unsupervised Multitask Learners (learned positions); Zhang et
al. 2022, arXiv:2205.01068 (projection); Le Scao et al. 2022, arXiv:2211.05100, section 3.2 (norm).
"""

from dataclasses import dataclass

import numpy as np

from awq_ref.checks import require_dtype, require_shape
from awq_ref.dtypes import F32, I64, AnyArray, AnyFloat
from awq_ref.errors import ShapeError
from awq_ref.model.config import ModelConfig
from awq_ref.model.ops import apply_norm
from awq_ref.spec import LinearOperator


@dataclass(frozen=True)
class Entrance:
    """What a family has between its embedding and its first block; None: nothing.

    positions       : any float dtype, (max_position_embeddings + position_offset, hidden_size)
    project         : the embedding's width -> hidden_size
    norm, norm_bias : float32 (hidden_size,)
    """

    positions: AnyFloat | None = None
    project: LinearOperator | None = None
    norm: F32 | None = None
    norm_bias: F32 | None = None


def check_entrance(entrance: Entrance, config: ModelConfig) -> None:
    """Raise ShapeError or DtypeError unless all parts are there that a configuration asks for, and fit."""
    family, hidden = config.family, config.hidden_size
    wanted = {
        "positions": bool(family.position_table),
        "project": config.projects,
        "norm": bool(family.embed_norm),
        "norm_bias": bool(family.embed_norm) and family.norm_bias,
    }
    for name, want in wanted.items():
        if (getattr(entrance, name) is not None) != want:
            raise ShapeError(f"Entrance: {name} must {'' if want else 'not '}be given.")
    if entrance.positions is not None:
        rows = config.max_position_embeddings + family.position_offset
        require_shape("Entrance", "positions", entrance.positions, (rows, hidden))
    if entrance.project is not None:
        sizes = (entrance.project.in_features, entrance.project.out_features)
        if sizes != (config.embedding_width, hidden):
            raise ShapeError(
                f"Entrance: project must map {config.embedding_width} features to {hidden}; got {sizes[0]} to "
                f"{sizes[1]}."
            )
    for name in ("norm", "norm_bias"):
        if getattr(entrance, name) is not None:
            require_shape("Entrance", name, getattr(entrance, name), (hidden,))
            require_dtype("Entrance", name, getattr(entrance, name), np.float32)


def widened(rows: AnyArray) -> F32:
    """Return rows of a table as float32: floats of any width, or bfloat16, which NumPy lacks, as uint16 words.

    Examples
    --------
    >>> widened(np.array([0x3F80, 0xC040], dtype=np.uint16)).tolist()
    [1.0, -3.0]
    """
    if rows.dtype == np.uint16:  # a bfloat16 is the upper half of a float32
        return (rows.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return rows.astype(np.float32, copy=False)


def enter(rows: F32, positions: I64, entrance: Entrance, config: ModelConfig) -> F32:
    """Return what the first block reads.

    Equation [LLM-8]  x_0 = m_e E[id];   [LLM-12]  x_0 = n_0(P E[id] + T[t + o]), each part where the family has it
        E[id] -> rows
        m_e   -> config.embedding_multiplier
        P     -> entrance.project
        T, o  -> entrance.positions, config.family.position_offset
        t     -> positions
        n_0   -> entrance.norm, entrance.norm_bias
    Source: docs/equations.md#llm-12.

    Parameters
    ----------
    rows : float32 array, shape (..., the embedding's width)
    positions : int64 array, broadcasts to rows.shape[:-1]

    Returns
    -------
    x : float32 array, shape (..., hidden_size)
    """
    x = rows if config.embedding_multiplier == 1.0 else rows * config.embedding_multiplier
    if entrance.project is not None:
        x = entrance.project(x)
    if entrance.positions is not None:
        learned = entrance.positions[positions + config.family.position_offset]
        x = x + learned.astype(np.float32, copy=False)
    if entrance.norm is not None:
        x = apply_norm(config.family.norm, x, entrance.norm, entrance.norm_bias, eps=config.rms_norm_eps)
    return x
