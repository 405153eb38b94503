"""One linear of random codes in awq_ref, packed or float32: microseconds of a product, by number of tokens."""

import numpy as np
from linears import random_codes, times_by_tokens
from result import options, report

from awq_ref.matmul import to_operator
from awq_ref.spec import QuantizedLinear, QuantSpec

given = options()
codes, scales, zeros = random_codes(*given["shape"], given["group_size"])
linear = QuantizedLinear(codes, scales.astype(np.float16), zeros, QuantSpec(group_size=given["group_size"]))
operator = to_operator(linear, given["residency"], n_threads=given["threads"])
report(times=times_by_tokens(operator, given), weight=operator.resident_bytes)
