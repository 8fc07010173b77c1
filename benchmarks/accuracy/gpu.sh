#!/usr/bin/env bash
# Record what a real NVIDIA card says: build llama.cpp with CUDA, load sparse models, write a fixture.
#
#   benchmarks/accuracy/gpu.sh [OUT.jsonl]
#
# Needs an NVIDIA driver, the CUDA toolkit (nvcc), CMake, a C++ compiler and Python 3.10+. The source is
# the sdist that the oracle pins; the build lands in the user's cache directory beside the CPU one.
# Sparse files take no disk, but their zeros are really allocated on the card: models that exceed the
# free memory are left out and named.
set -euo pipefail
cd "$(dirname "$0")/../.."
out=${1:-tests/fixtures/llama_cpp/cuda.jsonl}

nvidia-smi --query-gpu=name,driver_version,memory.total,memory.used --format=csv
nvcc --version | tail -n 2

export PYTHONPATH=src
cache=$(python3 -c 'from benchmarks.accuracy.engine import programs; print(programs().parents[1])')
source=$cache/source
build=$cache/build-cuda
[ -d "$source" ] || python3 -c 'from benchmarks.accuracy import engine; from pathlib import Path; engine._download(Path("'"$source"'"))'
if [ ! -x "$build/bin/llama-server" ]; then
  cmake -S "$source" -B "$build" -DCMAKE_BUILD_TYPE=Release -DGGML_CUDA=ON -DLLAMA_CURL=OFF \
    -DLLAMA_BUILD_UI=OFF -DCMAKE_CUDA_ARCHITECTURES=native
  cmake --build "$build" -j "$(nproc)" --target llama-server llama-fit-params
fi
NEMOFIT_LLAMA_CPP=$build/bin python3 -m benchmarks.accuracy.gpu_record "$out"
