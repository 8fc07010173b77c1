"""A replay of how llama.cpp sizes its compute buffers.

llama.cpp builds the worst-case graph of a micro-batch, its scheduler cuts it into splits per
device, and ggml's allocator lays the results out; the highest address per device is the compute
buffer. The rooms here follow that order: ``ops`` (tensors and operations), ``blocks`` and
``models`` (the graph of an architecture), ``scheduler`` (devices and splits), ``allocator``
(addresses). Rules follow llama.cpp's sources as of 1 October 2026 (commit 0c1e570): ggml.c,
ggml-backend.cpp, ggml-alloc.c, llama-graph.cpp and src/models.
"""
