"""PackedLinear: what it takes, what it holds, and its numbers in every shape that its loops treat apart."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from helpers.assertions import assert_close, assert_same_bits, frozen
from helpers.matmul_bounds import dequantized_bound, exact_product, factored_bound, random_linear

from awq_ref.errors import DtypeError, RangeError, ShapeError, UnsupportedError
from awq_ref.matmul.packed import FEW_TOKENS, THREADED_WEIGHTS, PackedLinear
from awq_ref.spec import QuantizedLinear, QuantSpec


def activations(*shape, seed=1):
    return np.random.default_rng(seed).normal(0, 1, shape).astype(np.float32)


def bound(x, linear):
    return factored_bound(x, linear) if len(x) <= FEW_TOKENS else dequantized_bound(x, linear)


def check(operator, x, linear):
    y = operator(frozen(x))
    assert y.dtype == np.float32
    assert y.flags.c_contiguous
    assert_close(y, exact_product(x, linear), atol=bound(x, linear))


@pytest.mark.parametrize("residency", ["packed", "codes"])
@pytest.mark.parametrize("n_tokens", [1, FEW_TOKENS + 1])
def test_by_hand(residency, n_tokens):
    # As in test_reference: codes 0..15 twice, s = 0.5, z = 8, x = 1 gives 0.5 * (240 - 256) = -8; bias 100.
    linear = QuantizedLinear(
        int_weight=np.tile(np.arange(16, dtype=np.uint8), 2)[None],
        scales=np.array([[0.5]], dtype=np.float16),
        zero_point=np.array([[8]], dtype=np.uint8),
        spec=QuantSpec(group_size=32),
        bias=np.array([100.0], dtype=np.float32),
    )
    y = PackedLinear.from_quantized(linear, residency=residency)(np.ones((n_tokens, 32), dtype=np.float32))
    assert_same_bits(y, np.full((n_tokens, 1), 92.0, dtype=np.float32))


@pytest.mark.parametrize("n_tokens", [1, 2, FEW_TOKENS, FEW_TOKENS + 1])
@pytest.mark.parametrize("group_size", [128, 384])
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_within_the_bound(bits, group_size, n_tokens):
    spec = QuantSpec(bits=bits, group_size=group_size)
    linear = random_linear(spec, out_features=9, n_groups=2, bias=True)
    x = activations(n_tokens, 2 * group_size)
    for residency in ("packed", "codes"):
        check(PackedLinear.from_quantized(linear, residency=residency), x, linear)


# One output, more than a small product takes, more than one tile with outputs to fill it up; more groups than are cast
# at a time; long groups, small groups, groups that only just fill bytes, float32 scales, no zero point.
@pytest.mark.parametrize(
    ("out_features", "n_groups", "spec"),
    [
        (1, 1, QuantSpec(group_size=32)),
        (128, 3, QuantSpec(group_size=128)),
        (300, 2, QuantSpec(group_size=128)),
        (1100, 4, QuantSpec(group_size=128)),
        (4099, 2, QuantSpec(group_size=32)),
        (4096, 9, QuantSpec(group_size=32)),
        (7, 3, QuantSpec(group_size=6)),
        (5, 2, QuantSpec(group_size=2048)),
        (40, 9, QuantSpec(group_size=32, scale_dtype="float32")),
        (40, 2, QuantSpec(bits=2, group_size=64, symmetric=True)),
    ],
)
def test_shapes_that_the_loops_treat_apart(out_features, n_groups, spec):
    linear = random_linear(spec, out_features=out_features, n_groups=n_groups)
    operator = PackedLinear.from_quantized(linear)
    for n_tokens in (1, 3, FEW_TOKENS + 1):
        check(operator, activations(n_tokens, linear.in_features), linear)


@pytest.mark.parametrize("group_size", [1, 5, 24, 200, -1])  # -1: one group of 131, a prime
@pytest.mark.parametrize("bits", [3, 4])
def test_codes_take_any_group_size(bits, group_size):
    spec = QuantSpec(bits=bits, group_size=group_size)
    linear = random_linear(spec, out_features=6, n_groups=1 if group_size == -1 else 4)
    operator = PackedLinear.from_quantized(linear, residency="codes")
    for n_tokens in (1, FEW_TOKENS + 1):
        check(operator, activations(n_tokens, linear.in_features), linear)


@pytest.mark.parametrize("n_threads", [1, 2, 3])
@pytest.mark.parametrize("n_tokens", [1, FEW_TOKENS + 1])
def test_a_layer_large_enough_for_threads(n_tokens, n_threads):
    linear = random_linear(QuantSpec(group_size=128), out_features=4104, n_groups=4)
    assert linear.int_weight.size >= THREADED_WEIGHTS
    operator = PackedLinear.from_quantized(linear, n_threads=n_threads)
    assert operator.n_threads == n_threads
    check(operator, activations(n_tokens, linear.in_features), linear)


@pytest.mark.parametrize("bits", [3, 4])
def test_the_number_of_threads_does_not_change_the_sums_of_few_tokens(bits):
    # Tiles of 3072, 2304 and 3072 outputs: multiples of 192, so that every width at which a BLAS kernel ends divides
    # them. At another width the last outputs of a tile may be summed in another order: see the test above.
    linear = random_linear(QuantSpec(bits=bits, group_size=64), out_features=9216, n_groups=4, bias=True)
    operators = [PackedLinear.from_quantized(linear, n_threads=n) for n in (1, 2, 3)]
    assert [operator.weight.width for operator in operators] == [3072, 2304, 3072]
    for n_tokens in (1, 2, FEW_TOKENS):
        x = activations(n_tokens, linear.in_features)
        one, *others = (operator(x) for operator in operators)
        for y in others:
            assert_same_bits(y, one)


def test_a_small_layer_uses_one_thread():
    linear = random_linear(QuantSpec(group_size=128), out_features=8, n_groups=2)
    assert PackedLinear.from_quantized(linear, n_threads=4).n_threads == 1


def test_tiles_are_as_many_for_each_thread_and_filled_up():
    linear = random_linear(QuantSpec(group_size=1024), out_features=2051, n_groups=1)
    weight = PackedLinear.from_quantized(linear, n_threads=2).weight
    assert (weight.n_tiles, weight.width) == (2, 1026)
    assert not weight.scales[1, :, 1025].any()
    assert PackedLinear.from_quantized(linear, n_threads=1).weight.n_tiles == 1


def test_calls_at_the_same_time_do_not_meet():
    linear = random_linear(QuantSpec(group_size=128), out_features=4104, n_groups=4)
    operator = PackedLinear.from_quantized(linear, n_threads=2)
    batches = [activations(1, linear.in_features, seed=seed) for seed in range(12)]
    with ThreadPoolExecutor(4) as pool:
        for x, y in zip(batches, pool.map(operator, batches), strict=True):
            assert_close(y, exact_product(x, linear), atol=factored_bound(x, linear))


def test_leading_axes():
    linear = random_linear(QuantSpec(group_size=32), out_features=3, n_groups=2)
    operator = PackedLinear.from_quantized(linear)
    x = activations(2, 4, 64)
    assert_same_bits(operator(x), operator(x.reshape(8, 64)).reshape(2, 4, 3))
    assert operator(x[0, 0]).shape == (3,)


@pytest.mark.parametrize("shape", [(0, 64), (2, 0, 64)])
def test_an_empty_batch(shape):
    linear = random_linear(QuantSpec(group_size=32), out_features=3, n_groups=2, bias=True)
    y = PackedLinear.from_quantized(linear)(np.zeros(shape, dtype=np.float32))
    assert y.dtype == np.float32
    assert y.shape == (*shape[:-1], 3)


@pytest.mark.parametrize("n_tokens", [3, FEW_TOKENS + 1])
def test_activations_need_not_be_contiguous(n_tokens):
    linear = random_linear(QuantSpec(group_size=32), out_features=3, n_groups=2)
    operator = PackedLinear.from_quantized(linear)
    wide = activations(n_tokens, 128)
    expected = operator(np.ascontiguousarray(wide[:, ::2]))
    # another memory order may add in another order: both are within the bound of the exact product
    for x in (wide[:, ::2], np.asfortranarray(wide[:, ::2]), wide[::-1, ::-2][::-1, ::-1][:, :64]):
        assert x.shape == expected.shape[:1] + (64,)
        check(operator, x, linear)


def test_what_it_holds():
    linear = random_linear(QuantSpec(group_size=128), out_features=6, n_groups=2, bias=True)
    packed = PackedLinear.from_quantized(linear)
    assert (packed.in_features, packed.out_features, packed.residency) == (256, 6, "packed")
    groups = 6 * 2 * (4 + 1 + 4)  # scale, zero point, their product
    assert packed.resident_bytes == 6 * 256 // 2 + groups + 6 * 4  # and planes, bias
    codes = PackedLinear.from_quantized(linear, residency="codes")
    assert (codes.residency, codes.resident_bytes) == ("codes", 6 * 256 + groups + 6 * 4)


def test_three_bits_take_three_bits():
    linear = random_linear(QuantSpec(bits=3, group_size=128), out_features=8, n_groups=1)
    assert PackedLinear.from_quantized(linear).resident_bytes == 8 * 128 * 3 // 8 + 8 * 9


@pytest.mark.parametrize("residency", ["packed", "codes"])
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_gives_its_codes_back(bits, residency):
    linear = random_linear(QuantSpec(bits=bits, group_size=512), out_features=5, n_groups=2)
    operator = PackedLinear.from_quantized(linear, residency=residency)
    assert_same_bits(operator.int_weight(), linear.int_weight)


def test_infinite_and_nan_activations_stay_in_their_token():
    linear = random_linear(QuantSpec(group_size=32), out_features=3, n_groups=2)
    operator = PackedLinear.from_quantized(linear)
    x = activations(2, 64)
    x[1, 5] = np.nan
    y = operator(x)
    assert np.isfinite(y[0]).all()
    assert np.isnan(y[1]).all()


def test_refuses():
    linear = random_linear(QuantSpec(group_size=48), out_features=3, n_groups=2)
    odd = random_linear(QuantSpec(group_size=5), out_features=3, n_groups=2)
    with pytest.raises(UnsupportedError, match='4-bit codes hold 2 of a group.* Use residency="codes"'):
        PackedLinear.from_quantized(odd)
    with pytest.raises(RangeError, match="residency must be one of 'packed', 'codes'; got 'dense'"):
        PackedLinear.from_quantized(linear, residency="dense")
    operator = PackedLinear.from_quantized(linear, residency="codes")
    with pytest.raises(DtypeError, match="PackedLinear: x must be float32; got float64"):
        operator(np.zeros((1, 96), dtype=np.float64))
    with pytest.raises(ShapeError, match=r"PackedLinear: x must have shape \(2, 96\); got \(2, 95\)"):
        operator(np.zeros((2, 95), dtype=np.float32))
    with pytest.raises(ShapeError, match=r"PackedLinear: x must have shape \(96\); got \(\)"):
        operator(np.zeros((), dtype=np.float32))
