"""The processor: its name, the cores this process may use, the instruction sets engines use."""

from __future__ import annotations

import re
from dataclasses import dataclass

from .cgroup import cpu_quota
from .site import Site

# Kernel flag -> name in llama.cpp's system_info line (ggml/src/ggml-cpu/ggml-cpu.cpp,
# ggml_backend_cpu_get_features).
FEATURES = {
    "pni": "SSE3", "ssse3": "SSSE3", "avx": "AVX", "avx_vnni": "AVX_VNNI", "avx2": "AVX2",
    "f16c": "F16C", "fma": "FMA", "bmi2": "BMI2", "avx512f": "AVX512",
    "avx512vbmi": "AVX512_VBMI", "avx512_vnni": "AVX512_VNNI", "avx512_bf16": "AVX512_BF16",
    "amx_int8": "AMX_INT8",
    "asimd": "NEON", "neon": "NEON", "asimdhp": "FP16_VA", "i8mm": "MATMUL_INT8", "sve": "SVE",
    "asimddp": "DOTPROD", "sme": "SME", "sme2": "SME2", "vxe": "VXE",
}  # fmt: skip
_HEAD = 1 << 14


@dataclass(frozen=True, slots=True)
class Cpu:
    """Counts are of what this process may use, by affinity and by quota; None: unknown."""

    name: str | None
    physical_cores: int | None
    logical_cores: int | None
    quota: float | None
    features: tuple[str, ...]


def read_cpu(site: Site) -> Cpu:
    """Read /proc, /sys and the cpu control group of a Linux machine."""
    # The first processor's block is enough; on large machines the file is slow to produce.
    facts = _facts(site.text("/proc/cpuinfo", _HEAD) or "")
    allowed = cpu_list(_status(site).get("Cpus_allowed_list", ""))
    online = cpu_list(site.text("/sys/devices/system/cpu/online") or "")
    usable = (allowed & online if online else allowed) or online
    quota = cpu_quota(site)
    cap = max(1, int(quota)) if quota else None
    return Cpu(
        name=_name(site, facts),
        physical_cores=_least(_cores(site, usable), cap),
        logical_cores=_least(len(usable) or None, cap),
        quota=quota,
        features=_features(facts),
    )


def cpu_list(text: str) -> set[int]:
    """``"0-3,8"`` -> {0, 1, 2, 3, 8}; what makes no sense counts for nothing."""
    found: set[int] = set()
    for part in text.split(","):
        m = re.fullmatch(r"(\d{1,5})(?:-(\d{1,5}))?", part.strip())
        if m:
            found.update(range(int(m[1]), int(m[2] or m[1]) + 1))
    return found


def _least(count: int | None, cap: int | None) -> int | None:
    return min(count, cap) if count is not None and cap is not None else count


def _cores(site: Site, usable: set[int]) -> int | None:
    """Distinct cores among the usable processors, by their lists of siblings."""
    cores: set[str] = set()
    for n in usable:
        base = f"/sys/devices/system/cpu/cpu{n}/topology"
        siblings = site.text(f"{base}/core_cpus_list") or site.text(f"{base}/thread_siblings_list")
        if siblings is None:
            return None
        cores.add(siblings)
    return len(cores) or None


def _facts(text: str) -> dict[str, str]:
    facts: dict[str, str] = {}
    for line in text.splitlines():
        key, colon, value = line.partition(":")
        if colon:
            facts.setdefault(key.strip(), value.strip())
    return facts


def _status(site: Site) -> dict[str, str]:
    return _facts(site.text("/proc/self/status") or "")


def _name(site: Site, facts: dict[str, str]) -> str | None:
    for key in ("model name", "cpu", "Hardware", "Model", "uarch"):
        if facts.get(key):
            return " ".join(facts[key].split())
    board = site.text("/sys/firmware/devicetree/base/model") or site.text(
        "/sys/devices/virtual/dmi/id/product_name"
    )
    if board:
        return board
    part = facts.get("CPU part")
    return f"CPU implementer {facts.get('CPU implementer')} part {part}" if part else None


def _features(facts: dict[str, str]) -> tuple[str, ...]:
    flags = set(
        (facts.get("flags") or facts.get("Features") or facts.get("features") or "").split()
    )
    names = [name for flag, name in FEATURES.items() if flag in flags]
    isa = facts.get("isa", "").lower().split("_")[0]
    if isa.startswith("rv") and "v" in isa[4:]:
        names.append("RISCV_V")
    return tuple(dict.fromkeys(names))
