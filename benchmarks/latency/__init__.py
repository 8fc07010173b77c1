"""How long nemofit takes to answer, beside the programs that answer the same question."""
