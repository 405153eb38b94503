"""One function held to the cases of one operation: what is asked, and what the verdict says."""

import numpy as np
import pytest

from awq_ref.errors import RangeError
from awq_ref.vectors import check_function, read_cases

PLAIN = {"symmetric": False, "range_rule": "zero", "scale_dtype": "float16"}


def mean_abs(x):
    return np.abs(x).mean(axis=0, dtype=np.float64)


def rms(x, weight, eps):
    return weight * (x / np.sqrt((x.astype(np.float64) ** 2).mean(axis=1, keepdims=True) + eps))


def test_a_right_function_is_right_and_all_valid_cases_were_asked():
    verdict = check_function("rms_norm", rms)
    assert verdict.is_right
    assert not verdict.failed
    assert [o.case.id for o in verdict.outcomes] == [c.id for c in read_cases() if c.op == "rms_norm"]
    assert str(verdict) == "rms is right: all 3 golden cases of rms_norm agree."


def test_a_wrong_function_is_told_where_and_which_bug_that_is():
    def eps_forgotten(x, weight):
        return rms(x, weight, 0.0)

    verdict = check_function("rms_norm", eps_forgotten)
    assert not verdict.is_right
    text = str(verdict)
    assert text.startswith("eps_forgotten is not right yet: 2 of 3 golden cases of rms_norm differ.")
    assert "L5/rms_norm/plain" in text
    assert "expected" in text
    assert "NormEps: " in text


@pytest.mark.parametrize("error", [NotImplementedError, ValueError, ZeroDivisionError])
def test_an_exception_is_no_right_answer(error):
    def fails(x):
        raise error("my own words")

    verdict = check_function("act_mean_abs", fails)
    assert not verdict.is_right
    assert "my own words" in str(verdict)


@pytest.mark.parametrize("result", [None, "a text", (1, 2), {"other": np.zeros(16, dtype=np.float32)}])
def test_what_is_no_answer_is_not_right(result):
    assert not check_function("act_mean_abs", lambda x: result).is_right


def test_outputs_come_by_name_or_in_their_order():
    def as_dict(x, act_group_size):
        codes, scales = as_tuple(x, act_group_size)
        return {"act_scales": scales, "act_codes": codes}

    def as_tuple(x, act_group_size):
        groups = x.reshape(len(x), -1, act_group_size)
        scales = np.abs(groups).max(axis=2) / np.float32(127)
        codes = np.rint(groups / np.where(scales == 0, np.float32(1), scales)[:, :, None])
        return np.clip(codes, -127, 127).astype(np.int8).reshape(x.shape), scales

    assert check_function("quantize_activations", as_dict).is_right
    assert check_function("quantize_activations", as_tuple).is_right


def test_cases_with_an_input_that_it_does_not_name_are_not_asked():
    plain = check_function("quantize_linear", lambda weight: None)
    clipped = check_function("quantize_linear", lambda weight, clip=None: None)
    assert all(set(o.case.inputs) == {"weight"} for o in plain.outcomes)
    assert {"clip"} <= {name for o in clipped.outcomes for name in o.case.inputs}
    assert all(o.case.is_valid for o in clipped.outcomes)


def test_where_selects_by_parameters():
    verdict = check_function("quantize_linear", lambda weight: None, PLAIN)
    assert verdict.outcomes
    assert all(o.case.params[name] == value for o in verdict.outcomes for name, value in PLAIN.items())


def test_a_function_may_take_everything():
    seen = []

    def anything(**given):
        seen.append(set(given))
        return mean_abs(given["x"])

    assert check_function("act_mean_abs", anything).is_right
    assert seen == [{"x"}]


def test_the_function_gets_copies():
    def vandal(x):
        answer = mean_abs(x)
        x[...] = 0.0
        return answer

    assert check_function("act_mean_abs", vandal).is_right
    assert check_function("act_mean_abs", mean_abs).is_right


def test_an_unknown_operation_is_an_error_that_lists_them():
    with pytest.raises(RangeError, match="op must be one of act_mean_abs, attention"):
        check_function("softmax", mean_abs)


@pytest.mark.parametrize(
    ("function", "where"), [(lambda y: y, None), (lambda x, beta: x, None), (lambda x: x, {"bits": 5})]
)
def test_a_function_that_fits_no_case_is_an_error_that_names_the_arguments(function, where):
    with pytest.raises(RangeError, match=r"a case of act_mean_abs must fit.*\(x\)"):
        check_function("act_mean_abs", function, where)
