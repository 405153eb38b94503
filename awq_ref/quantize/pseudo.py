"""The float round trip: what quantization does to a weight, without the integers.

    pseudo_quantize   weight -> the weight that its codes would stand for

It is the inner loop of the AWQ search, so it is written for speed: a handful of in-place passes over the
result, tile by tile. The bits are those of `dequantize(quantize(...))`, which is the meaning; a property test
holds both together.
Sources: Lin et al. 2023, arXiv:2306.00978, section 3.
"""

import numpy as np

from awq_ref.dtypes import F32
from awq_ref.quantize.affine import row_tiles, split_groups
from awq_ref.quantize.grid import codes_of_range, group_range
from awq_ref.spec import QuantSpec


def pseudo_quantize(
    weight: F32, *, spec: QuantSpec, clip: F32 | None = None, extremes: tuple[F32, F32] | None = None
) -> F32:
    """Return the weight after a trip to its codes and back.

    Equations [AWQ-3] and [AWQ-4] in one, with the zero point moved from the codes to the ends of the grid:
    w_hat = clip(round(w / delta), -z, 2**bits - 1 - z) * delta
        w      -> weight        (out_features, in_features)
        delta  -> delta         (out_features, n_groups)
        z      -> zero_point    (out_features, n_groups)
    Source: Lin et al. 2023, arXiv:2306.00978, section 3; docs/equations.md#awq-3.

    Parameters
    ----------
    weight : float32 array, shape (out_features, in_features)
    spec : QuantSpec
    clip : float32 array, shape (out_features, n_groups), or None
        Largest magnitude kept in each group; infinity keeps all.
    extremes : (low, high), or None
        What `group_extremes` says of this weight, if it is known: who tries many clips need not look for them again.

    Returns
    -------
    weight : float32 array, shape (out_features, in_features)
        Bit for bit ``dequantize_linear(quantize_linear(weight, spec=spec, clip=clip))``.

    Raises
    ------
    DtypeError, ShapeError, RangeError
        As `choose_grid`.

    Notes
    -----
    Division by a positive number and rounding keep order. So the codes of weights clamped to [lo, hi] are the
    codes clamped to [round(lo / delta), round(hi / delta)]: clipping costs no pass of its own, and where no
    group reaches an end of its grid the pass for that end is left out.

    Examples
    --------
    >>> import numpy as np
    >>> from awq_ref.spec import QuantSpec
    >>> weight = np.array([[-1.0, -0.5, 0.3, 0.875]], dtype=np.float32)
    >>> pseudo_quantize(weight, spec=QuantSpec(bits=4, group_size=4)).tolist()
    [[-1.0, -0.5, 0.25, 0.875]]
    """
    who = "pseudo_quantize"
    low, high = group_range(weight, spec=spec, clip=clip, extremes=extremes, who=who)
    _, delta, lowest, first = codes_of_range(low, high, spec=spec, who=who)
    result = np.empty(weight.shape, dtype=np.float32)
    with np.errstate(over="ignore"):  # "minmax" alone: a far one-sided group; infinity becomes the grid's end
        highest, last = np.rint(high / delta), first + float(spec.qmax)
        below = clip is not None or (lowest < first).any()  # whether weights may lie beyond the ends
        above = clip is not None or (highest > last).any()
        bottom, top = np.maximum(lowest, first), np.maximum(np.minimum(highest, last), first)
        for rows in row_tiles(*weight.shape):
            tile = split_groups(result[rows], low.shape[1])  # (rows, n_groups, group_size), a view
            np.divide(split_groups(weight[rows], low.shape[1]), delta[rows, :, None], out=tile)
            np.rint(tile, out=tile)
            if below:
                np.maximum(tile, bottom[rows, :, None], out=tile)
            if above:
                np.minimum(tile, top[rows, :, None], out=tile)
            tile += 0.0  # a weight just below 0 has left -0.0, the difference of two codes gives +0.0
            tile *= delta[rows, :, None]
    return result
