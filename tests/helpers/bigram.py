"""A language model of one table: what it predicts depends on the last token alone, so windows do not matter.

Bigram   logits are a row of the table
"""

import numpy as np
from numpy.typing import NDArray


class Bigram:
    """Predicts from the last token: logits are the row of a fixed table (vocab_size, vocab_size)."""

    def __init__(self, table: NDArray[np.floating]) -> None:
        self.table = table.astype(np.float32)

    @property
    def vocab_size(self) -> int:
        return len(self.table)

    def hidden(self, token_ids: NDArray[np.int64]) -> NDArray[np.float32]:
        return token_ids[..., None].astype(np.float32)

    def head(self, hidden: NDArray[np.float32]) -> NDArray[np.float32]:
        return self.table[hidden[..., 0].astype(np.int64)]
