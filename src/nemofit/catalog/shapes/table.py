"""One row per architecture: which pieces its files hold, and in which blocks."""

from __future__ import annotations

from .row import Row
from .rows_dense import DENSE_ROWS
from .rows_encoder import ENCODER_ROWS
from .rows_hybrid import HYBRID_ROWS
from .rows_sparse import SPARSE_ROWS

ROWS: dict[str, Row] = DENSE_ROWS | SPARSE_ROWS | HYBRID_ROWS | ENCODER_ROWS
