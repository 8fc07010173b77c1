"""Memory bandwidth: measured here beside a C program that counts the same bytes."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from nemofit.errors import HardwareError
from nemofit.probe import bandwidth
from nemofit.probe.bandwidth import caches, measure
from nemofit.probe.host import read_host
from nemofit.probe.site import Site, this_site
from nemofit.units import GIB, MIB

STREAM = r"""
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#define PASSES 80
static pthread_barrier_t gate;
static size_t bytes;
static double took[64][PASSES][2];
static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + 1e-9 * t.tv_nsec;
}
static void *copy(void *arg) {
    long me = (long)arg;
    char *from = malloc(bytes), *to = malloc(bytes);
    memset(from, 1, bytes);
    memset(to, 2, bytes);
    for (int p = 0; p < PASSES; p++) {
        pthread_barrier_wait(&gate);
        took[me][p][0] = now();
        memcpy(to, from, bytes);
        took[me][p][1] = now();
    }
    return to[bytes / 2] ? to : from;
}
int main(int argc, char **argv) {
    int n = atoi(argv[1]);
    double best = 1e9;
    pthread_t threads[64];
    bytes = strtoull(argv[2], NULL, 10);
    pthread_barrier_init(&gate, NULL, n);
    for (long i = 0; i < n; i++) pthread_create(&threads[i], NULL, copy, (void *)i);
    for (int i = 0; i < n; i++) pthread_join(threads[i], NULL);
    for (int p = 0; p < PASSES; p++) {
        double begin = 1e18, end = 0;
        for (int i = 0; i < n; i++) {
            if (took[i][p][0] < begin) begin = took[i][p][0];
            if (took[i][p][1] > end) end = took[i][p][1];
        }
        if (end - begin < best) best = end - begin;
    }
    printf("%.3f\n", 2.0 * bytes * n / best / 1e9);
    return argc < 3;
}
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the C program is for Linux")
def test_a_c_program_finds_the_same(tmp_path: Path) -> None:
    """Within a factor of two, of the best of five: other programs use the memory meanwhile."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler")
    if (read_host(this_site()).ram_available_bytes or 0) < 2 * GIB:
        pytest.skip("too little memory is free to measure it")
    (tmp_path / "stream.c").write_text(STREAM)
    program = tmp_path / "stream"
    build = [compiler, "-O2", "-fno-builtin", str(tmp_path / "stream.c"), "-o", str(program)]
    subprocess.run([*build, "-lpthread"], check=True)
    ours, theirs = 0.0, 0.0
    for _ in range(5):
        found = measure(this_site(), 2, 2 * GIB)
        size = str(found.bytes // found.threads // 2)
        said = subprocess.run([program, "2", size], check=True, capture_output=True, text=True)
        ours, theirs = max(ours, found.gb_s), max(theirs, float(said.stdout))
        if 0.5 < ours / theirs < 2:
            return
    pytest.fail(f"{ours} GB/s here, {theirs} GB/s by the C program")


def test_what_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bandwidth, "SECONDS", 0.05)
    found = measure(this_site(), 3, 4 * GIB)
    assert found.threads == 3
    assert found.bytes >= bandwidth.LEAST_BYTES - 3 * 2 * 4096
    assert found.passes >= bandwidth.LEAST_PASSES
    assert 0.1 < found.gb_s < 10_000


def test_too_little_memory() -> None:
    with pytest.raises(HardwareError, match="cannot be measured"):
        measure(this_site(), 2, 100 * MIB)


def test_the_system_refuses_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    import mmap

    def refuse(*_args: object) -> object:
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(mmap, "mmap", refuse)
    with pytest.raises(HardwareError, match="not enough memory"):
        measure(this_site(), 2, 4 * GIB)


def test_caches(site: Callable[..., Site]) -> None:
    """Two dies with a cache each, as Linux shows a Ryzen 9 7950X: counted once for each die."""
    files = {}
    for cpu in range(4):
        base = f"/sys/devices/system/cpu/cpu{cpu}/cache/index3"
        files[f"{base}/size"] = "32768K\n"
        files[f"{base}/shared_cpu_list"] = "0-1\n" if cpu < 2 else "2-3\n"
    files["/sys/devices/system/cpu/cpufreq/policy0"] = ""
    assert caches(site(files)) == 64 * MIB
    assert caches(Site(root="/nowhere")) == 0
