"""Headers from strangers: mutated by the million, each of which must end in a model or an error."""
