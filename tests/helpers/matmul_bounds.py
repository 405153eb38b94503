"""The product of activations and a quantized layer in float64, and how far a float32 product may be from it.

exact_product        y = x W^T + b in float64, from codes, scales and zero points
factored_bound       largest error of scales and zero points outside of the inner sum [AWQ-10]
dequantized_bound    largest error of dequantize, then multiply, both in float32

Derivation. u = 2**-24 is the unit roundoff of float32 and gamma_k = k u / (1 - k u). A computed sum of products, in
whatever order it is added and with or without fused multiply-add, is the exact sum of its terms, each times its own
(1 + theta), |theta| <= gamma_k, where k is the largest number of roundings that a term passes (Higham 2002, lemma
3.1). There are G groups of g weights, and P planes (2 for 3 bits, else 1). A plane has fields of b bits, F = 8 / b to a
byte. The fast factored form adds v_k c_k [AWQ-11] in place of q x; v_k < 2^(b (k + 1)), so
    |v_k c_k| < 2^b |x_k| + |x_(k+1)|,  and over a group  sum |v_k c_k| <= m sum |x|,  m = 2^b + 1
(m = 255 where a code has its byte alone; for 3 bits 5 + 4 * 3 of the two planes). The other sum is that of the groups'
t sum(x), t = o - s z, an offset o where there is one, computed once for all tokens. Roundings in the factored form:
    term v c of a plane   1 of c, 1 product, g - 1 additions, P - 1 to the other plane, 1 by the scale      g + P + 1
    term t x of a group   g - 1 additions, 1 of s z, 1 of o - s z if there is an o, 1 product by t          g + 1 (+ 1)
    both                  G - 1 additions over groups, 1 of the two sums, 1 of the bias                     G + 1
    the bias              1 addition
so with k = g + G + P + 2, which is no less than g + G + 3,
    |y_hat - y| <= gamma_k ( sum_g ( s_g (m + z_g) + |o_g| ) sum_j |x_j|  +  |b| ).
(s z is exact for a scale that was float16: 11 bits times 8.) The readable form adds q x itself, at most 2^b - 1 times
|x|, and takes z sum(x) away, times the scale, plus o sum(x), group by group:
    term q x              1 product, g - 1 + P - 1 additions, 1 of z sum(x), 1 product by the scale         g + P + 1
    term z x              g - 1 additions, 1 product by z, 1 to the other sum, 1 product by the scale       g + 2
    both, and o x         1 of o sum(x) if there is an o, G - 1 additions over groups, 1 of the bias        G (+ 1)
so the same k bounds it. Masked bytes and float16 scales widened to float32 are exact. The two sums may cancel: the
bound carries m + z where the result carries |q - z|. With the scale
rounded into the weight first, k = n + 2 (n - 1 additions and a product, the weight's own rounding, the bias) and
    |y_hat - y| <= gamma_k ( sum_j |q_j - z| s |x_j|  +  |b| ).
The float64 product is off by gamma_(n+2) of float64, which one more unit in k covers for n < 2**28. Underflow is
left out: x is 0 or at least 2**-100 in magnitude. Where there is an offset, a dequantized weight is rounded once more:
k grows by 1 there, and s |q - z| by |o|.
"""

import numpy as np
from numpy.typing import NDArray

from awq_ref.spec import QuantizedLinear

F64 = NDArray[np.float64]
UNIT = 2.0**-24
MOST = {2: 5.0, 3: 17.0, 4: 17.0, 8: 255.0}  # m of the derivation, by bits


def gamma(k: int) -> float:
    return k * UNIT / (1.0 - k * UNIT)


def _by_weight(per_group: NDArray, linear: QuantizedLinear) -> F64:
    """(out, groups) -> float64 (out, in)."""
    return np.repeat(per_group.astype(np.float64), linear.group_size, axis=1)


def _bias(linear: QuantizedLinear) -> F64:
    zeros = np.zeros(linear.out_features, dtype=np.float64)
    return zeros if linear.bias is None else linear.bias.astype(np.float64)


def exact_product(x: NDArray, linear: QuantizedLinear) -> F64:
    steps = linear.int_weight.astype(np.float64) - _by_weight(linear.zero_point, linear)
    weight = steps * _by_weight(linear.scales, linear)  # exact: 9 bits times at most 24
    weight += _offset(linear)
    return in_order(x, linear).astype(np.float64) @ weight.T + _bias(linear)


def in_order(x: NDArray, linear: QuantizedLinear) -> NDArray:
    """The activations as the columns of the integers meet them."""
    return x if linear.input_order is None else np.stack([x[:, i] for i in linear.input_order], axis=1)


def _offset(linear: QuantizedLinear) -> F64:
    if linear.offset is None:
        return np.zeros(linear.int_weight.shape, dtype=np.float64)
    return _by_weight(linear.offset, linear)


def factored_bound(x: NDArray, linear: QuantizedLinear, *, nested: bool = True) -> F64:
    n_planes = 2 if linear.spec.bits == 3 else 1
    k = linear.group_size + linear.n_groups + n_planes + 3
    most = MOST[linear.spec.bits] if nested else linear.int_weight.astype(np.float64)
    weight = most + _by_weight(linear.zero_point, linear)
    weight *= np.abs(_by_weight(linear.scales, linear))
    weight += np.abs(_offset(linear))
    x = np.abs(in_order(x, linear)).astype(np.float64)
    return gamma(k) * (x @ weight.T + np.abs(_bias(linear)))


def dequantized_bound(x: NDArray, linear: QuantizedLinear) -> F64:
    steps = linear.int_weight.astype(np.float64) - _by_weight(linear.zero_point, linear)
    weight = np.abs(steps * _by_weight(linear.scales, linear)) + np.abs(_offset(linear))
    x = np.abs(in_order(x, linear)).astype(np.float64)
    k = linear.in_features + 3 + (linear.offset is not None)
    return gamma(k) * (x @ weight.T + np.abs(_bias(linear)))


def random_linear(
    spec, *, out_features: int, n_groups: int, bias: bool = False, seed: int = 0
) -> QuantizedLinear:
    """A QuantizedLinear of free codes, scales and zero points: no quantizer was involved."""
    rng = np.random.default_rng(seed)
    group = spec.group_size if spec.group_size != -1 else 131  # a prime, for one group per row
    codes = rng.integers(0, spec.qmax + 1, (out_features, n_groups * group), dtype=np.uint8)
    zero_point = rng.integers(0, spec.qmax + 1, (out_features, n_groups), dtype=np.uint8)
    scales = (2.0 ** rng.uniform(-10, 0, (out_features, n_groups))).astype(spec.scale_dtype)
    b = rng.normal(0, 1, out_features).astype(np.float32) if bias else None
    return QuantizedLinear(codes, scales, zero_point, spec, b)
