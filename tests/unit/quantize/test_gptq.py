import numpy as np
import pytest
from helpers.gptq_oracle import oracle_gptq

from awq_ref.errors import DtypeError, RangeError, ShapeError
from awq_ref.quantize import choose_grid, dequantize, feedback_factor, quantize_linear, round_with_feedback
from awq_ref.quantize.gptq import _blocks
from awq_ref.spec import QuantSpec


def correlated(seed, rows, in_features, tokens=None):
    """A weight and the Gram matrix of inputs that share directions, some channels much larger than others."""
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(in_features, in_features)) / in_features**0.5 + np.eye(in_features)
    x = rng.normal(size=(tokens or 4 * in_features, in_features)) @ mixing
    x *= np.exp(rng.normal(size=in_features))
    return rng.normal(size=(rows, in_features)).astype(np.float32), (x.T @ x / len(x)).astype(np.float32)


def test_the_factor_of_a_two_by_two_matrix():
    # C = [[2, 1], [1, 2]]: C^-1 = [[2, -1], [-1, 2]] / 3 = U^T U with U = [[sqrt(2/3), -1/sqrt(6)], [0, 1/sqrt(2)]]
    factor = feedback_factor(np.array([[2.0, 1.0], [1.0, 2.0]], dtype=np.float32), damping=0.0)
    assert factor.upper.dtype == np.float32
    expected = [[(2 / 3) ** 0.5, -(6**-0.5)], [0.0, 2**-0.5]]
    np.testing.assert_allclose(factor.upper, expected, rtol=0, atol=2**-23)
    # 1 / U_ii^2: 3/2 is C_11 - C_12^2 / C_22, what is left of column 1 when column 2 answers; the last column has C_22
    np.testing.assert_allclose(factor.importance, [1.5, 2.0], rtol=2**-22)


def test_the_factor_is_that_of_the_damped_inverse():
    gram = correlated(1, 1, 48)[1]
    factor = feedback_factor(gram, act_order=True, damping=0.1)
    damped = gram.astype(np.float64) + 0.1 * np.diag(gram).astype(np.float64).mean() * np.eye(48)
    inverse = np.linalg.inv(damped)[np.ix_(factor.order, factor.order)]
    upper = factor.upper.astype(np.float64)
    # U is rounded to float32: each of 48 products is off by 2 u of itself at most, u = 2^-24
    bound = 48 * 2 * 2**-24 * (np.abs(upper).T @ np.abs(upper)).max()
    assert np.abs(upper.T @ upper - inverse).max() <= bound
    assert factor.damping == 0.1


def test_act_order_is_falling_and_stable():
    gram = np.diag(np.array([1.0, 3.0, 2.0, 3.0], dtype=np.float32))
    assert feedback_factor(gram, act_order=True).order.tolist() == [1, 3, 2, 0]
    assert feedback_factor(gram).order.tolist() == [0, 1, 2, 3]


def test_a_channel_that_was_never_active_is_rounded_to_nearest_and_answers_nothing():
    weight, gram = correlated(2, 3, 8)
    gram[3], gram[:, 3] = 0.0, 0.0
    factor = feedback_factor(gram)
    others = [0, 1, 2, 4, 5, 6, 7]
    assert (factor.upper[3, others] == 0.0).all() and (factor.upper[others, 3] == 0.0).all()
    spec = QuantSpec(bits=4, group_size=8)
    grid = choose_grid(weight, spec=spec)
    codes, *_ = round_with_feedback(weight, factor, spec=spec, grid=grid)
    nearest = quantize_linear(weight, spec=spec).int_weight
    assert (codes[:, 3] == nearest[:, 3]).all()


def test_no_activity_at_all_is_round_to_nearest():
    weight = correlated(3, 4, 16)[0]
    spec = QuantSpec(bits=3, group_size=8)
    codes, scales, zero_point = round_with_feedback(
        weight, feedback_factor(np.zeros((16, 16), dtype=np.float32)), spec=spec
    )
    nearest = quantize_linear(weight, spec=spec)
    assert (codes == nearest.int_weight).all()
    assert (scales == nearest.scales).all() and (zero_point == nearest.zero_point).all()


def test_damping_grows_until_the_factor_exists():
    # eigenvalues 2.05 and -0.05, mean diagonal 1: 0.01 is too little, 0.1 is enough
    gram = np.array([[1.0, 1.05], [1.05, 1.0]], dtype=np.float32)
    assert feedback_factor(gram, damping=0.01).damping == pytest.approx(0.1)


def test_a_matrix_that_is_no_gram_matrix_is_an_error():
    with pytest.raises(RangeError, match=r"positive definite with 0.01 to 1 of its mean diagonal"):
        feedback_factor(np.array([[1.0, 3.0], [3.0, 1.0]], dtype=np.float32))


def test_bad_gram_matrices():
    with pytest.raises(ShapeError, match=r"gram must have shape \(2, 2\); got \(2, 3\)"):
        feedback_factor(np.ones((2, 3), dtype=np.float32))
    with pytest.raises(DtypeError, match="gram must be float32"):
        feedback_factor(np.eye(2))
    with pytest.raises(RangeError, match=r"the diagonal of gram must be finite; got nan at index \(1,\)"):
        feedback_factor(np.diag(np.array([1.0, np.nan], dtype=np.float32)))
    with pytest.raises(RangeError, match="damping must lie in"):
        feedback_factor(np.eye(2, dtype=np.float32), damping=-1.0)


def test_the_second_weight_answers_the_first_by_hand():
    # w = (0.4, 0.4), delta 1 (z 0), C = [[1, 1/2], [1/2, 1]]: 0.4 -> 0, its error 0.4. The best answer of w_2 is
    # C_12 / C_22 = 1/2 of it: 0.4 + 0.2 = 0.6 -> 1. To nearest both are 0.
    gram = np.array([[1.0, 0.5], [0.5, 1.0]], dtype=np.float32)
    grid = np.ones((1, 1), dtype=np.float16), np.zeros((1, 1), dtype=np.uint8)
    weight = np.array([[0.4, 0.4]], dtype=np.float32)
    spec = QuantSpec(bits=4, group_size=2)
    codes, *_ = round_with_feedback(weight, feedback_factor(gram, damping=0.0), spec=spec, grid=grid)
    assert codes.dtype == np.uint8
    assert codes.tolist() == [[0, 1]]


@pytest.mark.parametrize(
    ("in_features", "group_size", "sizes"),
    [
        (256, 64, [128, 128]),
        (256, 256, [128, 128]),
        (192, 96, [96, 96]),  # a block holds whole groups
        (320, 160, [128, 32, 128, 32]),  # a group of more than a block starts with one
        (96, 32, [96]),
    ],
)
def test_groups_start_where_everything_is_up_to_date(in_features, group_size, sizes):
    blocks = list(_blocks(in_features, group_size))
    assert [block.stop - block.start for block in blocks] == sizes
    assert np.concatenate([np.arange(b.start, b.stop) for b in blocks]).tolist() == list(range(in_features))


@pytest.mark.parametrize("act_order", [False, True])
@pytest.mark.parametrize(("group_size", "bits"), [(32, 4), (64, 3), (128, 4), (160, 2), (320, 3)])
def test_it_is_the_plain_algorithm(act_order, group_size, bits):
    """Equal codes: no quotient of these cases comes nearer to a tie than float32 can move it."""
    in_features = 640 if group_size == 128 else 320
    weight, gram = correlated(group_size + bits, 3, in_features)
    codes, rounded, closest = oracle_gptq(weight, gram, bits=bits, group_size=group_size, act_order=act_order)
    # What is left of a weight is a sum of up to in_features float32 terms; random-walk rounding moves it by about
    # sqrt(in_features) u of its size. 1e-5 of a step is 6 times that here; the oracle must stay farther from a tie.
    assert closest > 1e-5, "choose another seed: this case is decided by rounding"
    spec = QuantSpec(bits=bits, group_size=group_size)
    grid = choose_grid(weight, spec=spec) if act_order else None
    result = round_with_feedback(weight, feedback_factor(gram, act_order=act_order), spec=spec, grid=grid)
    assert (result[0] == codes).all()
    assert np.abs(dequantize(*result) - rounded).max() <= 1e-4 * np.abs(weight).max()


def test_reordered_columns_need_a_grid():
    weight, gram = correlated(5, 2, 8)
    with pytest.raises(RangeError, match="grid must be given when columns are reordered"):
        round_with_feedback(
            weight, feedback_factor(gram, act_order=True), spec=QuantSpec(bits=4, group_size=4)
        )


def test_bad_weights_and_grids():
    weight, gram = correlated(6, 2, 8)
    factor, spec = feedback_factor(gram), QuantSpec(bits=4, group_size=4)
    with pytest.raises(ShapeError, match=r"weight must have shape \(any, 8\)"):
        round_with_feedback(weight[:, :4].copy(), factor, spec=spec)
    with pytest.raises(ShapeError, match=r"scales must have shape \(2, 2\)"):
        grid = choose_grid(weight, spec=QuantSpec(bits=4, group_size=8))
        round_with_feedback(weight, factor, spec=spec, grid=grid)
    weight[1, 2] = np.nan
    with pytest.raises(RangeError, match=r"weight must be finite; got nan at index \(1, 2\)"):
        round_with_feedback(weight, factor, spec=spec)
