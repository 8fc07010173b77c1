"""How near nemofit's numbers are to those of the real llama.cpp."""
