"""Names for the array types of awq_ref, and the precision that each step computes in.

    F16, F32, F64, U8, U16, I32, I64, Bool    NumPy array types, for signatures
    AnyFloat                                  a float array of any width

Shapes are not in the types: they stand in the docstrings and are checked by `awq_ref.checks`.
"""

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

F16: TypeAlias = NDArray[np.float16]
F32: TypeAlias = NDArray[np.float32]
F64: TypeAlias = NDArray[np.float64]
U8: TypeAlias = NDArray[np.uint8]
U16: TypeAlias = NDArray[np.uint16]
U32: TypeAlias = NDArray[np.uint32]
I16: TypeAlias = NDArray[np.int16]
I32: TypeAlias = NDArray[np.int32]
I64: TypeAlias = NDArray[np.int64]
Bool: TypeAlias = NDArray[np.bool_]
AnyFloat: TypeAlias = NDArray[np.floating[Any]]
AnyArray: TypeAlias = NDArray[Any]
