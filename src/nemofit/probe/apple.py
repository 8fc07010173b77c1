"""Apple silicon: sysctl for the chip, Metal for what a GPU may use of the unified memory.

The budget is Metal's ``recommendedMaxWorkingSetSize``, as in llama.cpp's Metal backend; it follows
``iogpu.wired_limit_mb``. macOS does not tell what other programs' GPU work holds.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

from ..machine.records import Gpu, Host
from ..units import MIB, gib
from .site import Site, Waiting, whole

_NAMES = (
    "hw.memsize", "machdep.cpu.brand_string", "hw.optional.arm64", "kern.osproductversion",
    "hw.perflevel0.physicalcpu", "hw.physicalcpu", "iogpu.wired_limit_mb",
    "debug.iogpu.wired_limit", "hw.optional.neon", "hw.optional.arm.FEAT_DotProd",
    "hw.optional.arm.FEAT_FP16", "hw.optional.arm.FEAT_I8MM", "hw.optional.arm.FEAT_SME",
    "hw.optional.arm.FEAT_SME2", "hw.optional.avx1_0", "hw.optional.avx2_0", "hw.optional.f16c",
    "hw.optional.fma", "hw.optional.avx512f", "hw.optional.bmi2",
)  # fmt: skip
_FEATURES = {
    "hw.optional.neon": "NEON", "hw.optional.arm.FEAT_DotProd": "DOTPROD",
    "hw.optional.arm.FEAT_FP16": "FP16_VA", "hw.optional.arm.FEAT_I8MM": "MATMUL_INT8",
    "hw.optional.arm.FEAT_SME": "SME", "hw.optional.arm.FEAT_SME2": "SME2",
    "hw.optional.avx1_0": "AVX", "hw.optional.avx2_0": "AVX2", "hw.optional.f16c": "F16C",
    "hw.optional.fma": "FMA", "hw.optional.avx512f": "AVX512", "hw.optional.bmi2": "BMI2",
}  # fmt: skip
_FRAMEWORKS = "/System/Library/Frameworks/{0}.framework/{0}"


def metal_working_set() -> int | None:
    """``recommendedMaxWorkingSetSize`` of the default Metal device in bytes, None: no device.

    Raises:
        OSError: Metal or the Objective-C runtime cannot be loaded.
    """
    import ctypes

    # Without CoreGraphics a program outside the window session is given no default device.
    ctypes.CDLL(_FRAMEWORKS.format("CoreGraphics"))
    metal = ctypes.CDLL(_FRAMEWORKS.format("Metal"))
    runtime = ctypes.CDLL("/usr/lib/libobjc.A.dylib")
    metal.MTLCreateSystemDefaultDevice.restype = ctypes.c_void_p
    runtime.sel_registerName.restype = ctypes.c_void_p
    runtime.sel_registerName.argtypes = [ctypes.c_char_p]
    device = metal.MTLCreateSystemDefaultDevice()
    if not device:
        return None
    selector = runtime.sel_registerName(b"recommendedMaxWorkingSetSize")
    send = ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_void_p, ctypes.c_void_p)(
        ("objc_msgSend", runtime)
    )
    return int(send(device, selector)) or None


def read_apple(
    site: Site, host: Host, working_set: Callable[[], int | None] = metal_working_set
) -> tuple[Host, tuple[Gpu, ...]]:
    """Complete the host by what sysctl tells, and give the GPU of Apple silicon."""
    facts = sysctl(site)
    total = whole(facts.get("hw.memsize"))
    chip = facts.get("machdep.cpu.brand_string")
    version = facts.get("kern.osproductversion")
    host = replace(
        host,
        cpu=chip or host.cpu,
        os_version=f"macOS {version}" if version else host.os_version,
        physical_cores=whole(facts.get("hw.physicalcpu")) or host.physical_cores,
        ram_total_bytes=total or host.ram_total_bytes,
        cpu_features=tuple(n for key, n in _FEATURES.items() if facts.get(key) == "1"),
    )
    if facts.get("hw.optional.arm64") != "1" and not (chip or "").startswith("Apple "):
        return host, ()
    gpu = Gpu(
        name=chip or "Apple silicon",
        vendor="apple",
        backend="metal",
        shared=True,
        architecture="Apple silicon",
        cores=_gpu_cores(site),
    )
    return host, (_budget(site, host, gpu, facts, working_set),)


def sysctl(site: Site) -> dict[str, str]:
    """The values of the names that this system knows."""
    text = site.run(["/usr/sbin/sysctl", *_NAMES]) or ""
    lines = re.finditer(r"^([\w.]+):[ \t]*(.*?)[ \t]*$", text, re.MULTILINE)
    return {m[1]: m[2] for m in lines}


def _budget(
    site: Site,
    host: Host,
    gpu: Gpu,
    facts: dict[str, str],
    working_set: Callable[[], int | None],
) -> Gpu:
    raised = whole(facts.get("iogpu.wired_limit_mb") or facts.get("debug.iogpu.wired_limit"))
    ram, notes = host.ram_total_bytes, []
    limit: int | None = None
    why = "there is no Metal device"
    if site.libraries or working_set is not metal_working_set:
        try:
            limit = Waiting(working_set).result(site.deadline_s)
        except TimeoutError:
            why = f"Metal did not answer within {site.deadline_s:g} s"
        except (OSError, AttributeError, ValueError) as e:
            why = f"Metal cannot be asked: {e}"
    if limit is None and raised:
        limit = raised * MIB
        notes.append(f"GPU memory limit from iogpu.wired_limit_mb ({why})")
    elif limit is None and ram is not None:
        limit = ram * 2 // 3
        notes.append(f"GPU memory limit assumed to be two thirds of the memory ({why})")
    if limit is not None and ram is not None:
        most = (ram - 8 * 1024 * MIB) // MIB
        if limit // MIB < most:
            notes.append(
                f"a GPU may use {gib(limit)} of {gib(ram)}; "
                f"more until the next restart: sudo sysctl iogpu.wired_limit_mb={most}"
            )
    available = host.ram_available_bytes
    known = [n for n in (limit, available) if n is not None]
    return replace(
        gpu,
        total_bytes=limit,
        free_bytes=min(known) if limit is not None else None,
        notes=tuple(notes),
    )


def _gpu_cores(site: Site) -> int | None:
    text = site.run(["/usr/sbin/ioreg", "-rd1", "-c", "AGXAccelerator"]) or ""
    m = re.search(r'"gpu-core-count"\s*=\s*(\d+)', text)
    return int(m[1]) if m else None
