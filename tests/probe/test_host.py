"""The host: files of real kernels under a fake root, psutil and the kernel itself as judges."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conftest import Files, plant
from nemofit.errors import HardwareError
from nemofit.probe.host import disk_free, read_host
from nemofit.probe.site import Site

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
RAM = 65543212 * KIB
AVAILABLE = 50331648 * KIB
UNLIMITED_V1 = "9223372036854771712\n"
MakeSite = Callable[..., Site]

# proc(5) mountinfo lines as Docker 24 on Debian 12 (cgroup v2) and on CentOS 7 (v1) has them.
MOUNT_V2 = "1017 1016 0:27 / /sys/fs/cgroup ro,nosuid,nodev,noexec - cgroup2 cgroup rw,nsdelegate\n"
MOUNT_V1 = (
    "35 31 0:32 / /sys/fs/cgroup/memory rw,nosuid,nodev shared:14 - cgroup cgroup rw,memory\n"
    "33 31 0:30 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid - cgroup cgroup rw,cpu,cpuacct\n"
)


def v2(path: str, groups: dict[str, Files]) -> Files:
    """A version 2 hierarchy: the own path, and files by group."""
    files: Files = {"/proc/self/cgroup": f"0::{path}\n", "/proc/self/mountinfo": MOUNT_V2}
    for group, content in groups.items():
        files |= {f"/sys/fs/cgroup{group}/{name}": text for name, text in content.items()}
    return files


def test_a_plain_machine(site: MakeSite) -> None:
    """Available memory is what counts, not free memory; swap is apart."""
    host = read_host(site())
    assert host.ram_total_bytes == RAM
    assert host.ram_available_bytes == AVAILABLE
    assert host.memory_limit_bytes is None
    assert (host.swap_total_bytes, host.swap_free_bytes) == (8388604 * KIB, 8388604 * KIB)


def test_a_kernel_without_memavailable(site: MakeSite) -> None:
    """Kernels before 3.14: free and cache, less what is shared memory."""
    text = "MemTotal: 1000 kB\nMemFree: 100 kB\nBuffers: 20 kB\nCached: 500 kB\nShmem: 50 kB\n"
    host = read_host(site({"/proc/meminfo": text}))
    assert host.ram_available_bytes == 570 * KIB
    assert "estimated" in host.notes[0]


def test_docker_on_cgroup_v2(site: MakeSite) -> None:
    """8 GiB allowed, 5 used of which 2 are cache that can go: 5 are left."""
    group: Files = {
        "memory.max": f"{8 * GIB}\n",
        "memory.current": f"{5 * GIB}\n",
        "memory.stat": f"anon 1\nfile {3 * GIB}\ninactive_file {2 * GIB}\nactive_file {GIB}\n",
    }
    host = read_host(site({**v2("/", {"": group}), "/.dockerenv": ""}))
    assert host.ram_total_bytes == host.memory_limit_bytes == 8 * GIB
    assert host.ram_available_bytes == 5 * GIB
    assert host.container == "docker"
    assert "control group /sys/fs/cgroup" in host.notes[0]


def test_the_tightest_ancestor_counts(site: MakeSite) -> None:
    """A roomy group inside a full slice has only what the slice has left."""
    full: Files = {"memory.max": f"{16 * GIB}\n", "memory.current": f"{15 * GIB}\n"}
    roomy: Files = {"memory.max": f"{12 * GIB}\n", "memory.current": f"{GIB}\n"}
    files = v2("/jobs.slice/job.scope", {"/jobs.slice": full, "/jobs.slice/job.scope": roomy})
    host = read_host(site(files))
    assert host.memory_limit_bytes == 12 * GIB
    assert host.ram_available_bytes == GIB
    assert "/jobs.slice:" in host.notes[0]


def test_the_throttling_limit_counts(site: MakeSite) -> None:
    """Above memory.high the kernel reclaims and slows down, so it is the limit."""
    group: Files = {"memory.max": "max\n", "memory.high": f"{4 * GIB}\n", "memory.current": "0\n"}
    assert read_host(site(v2("/a", {"/a": group}))).memory_limit_bytes == 4 * GIB


def test_more_than_the_machine_has_is_no_limit(site: MakeSite) -> None:
    """A limit above the installed memory changes nothing."""
    group: Files = {"memory.max": f"{900 * GIB}\n", "memory.current": "0\n"}
    host = read_host(site(v2("/", {"": group})))
    assert (host.memory_limit_bytes, host.ram_total_bytes) == (None, RAM)


def test_cgroup_v1(site: MakeSite) -> None:
    """Version 1 with an unlimited parent; hierarchical cache is the one to give back."""
    base = "/sys/fs/cgroup/memory"
    files: Files = {
        "/proc/self/cgroup": "9:name=systemd:/\n4:memory:/docker/8bb0\n"
        "2:cpu,cpuacct:/docker/8bb0\n",
        "/proc/self/mountinfo": MOUNT_V1,
        f"{base}/memory.limit_in_bytes": UNLIMITED_V1,
        f"{base}/docker/memory.limit_in_bytes": UNLIMITED_V1,
        f"{base}/docker/8bb0/memory.limit_in_bytes": f"{2 * GIB}\n",
        f"{base}/docker/8bb0/memory.usage_in_bytes": f"{GIB + 512 * MIB}\n",
        f"{base}/docker/8bb0/memory.stat": f"inactive_file 0\ntotal_inactive_file {GIB}\n",
        "/sys/fs/cgroup/cpu,cpuacct/docker/8bb0/cpu.cfs_quota_us": "150000\n",
        "/sys/fs/cgroup/cpu,cpuacct/docker/8bb0/cpu.cfs_period_us": "100000\n",
    }
    host = read_host(site(files))
    assert (host.memory_limit_bytes, host.ram_available_bytes) == (2 * GIB, 1536 * MIB)
    assert host.cpu_quota == 1.5
    assert host.container == "docker"


def test_cgroup_v1_without_its_own_namespace(site: MakeSite) -> None:
    """The container sees the host's path, and its own group as the top of the mount."""
    files: Files = {
        "/proc/self/cgroup": "4:memory:/docker/8bb0\n",
        "/proc/self/mountinfo": "35 31 0:32 /docker/8bb0 /sys/fs/cgroup/memory ro - "
        "cgroup cgroup rw,memory\n",
        "/sys/fs/cgroup/memory/memory.limit_in_bytes": f"{3 * GIB}\n",
        "/sys/fs/cgroup/memory/memory.usage_in_bytes": "0\n",
    }
    assert read_host(site(files)).memory_limit_bytes == 3 * GIB


def test_a_hybrid_host(site: MakeSite) -> None:
    """Where both versions are mounted, the numbered line with memory decides."""
    files: Files = {
        "/proc/self/cgroup": "4:memory:/a\n0::/b\n",
        "/proc/self/mountinfo": MOUNT_V1 + MOUNT_V2.replace("/sys/fs/cgroup", "/cg2"),
        "/sys/fs/cgroup/memory/a/memory.limit_in_bytes": f"{5 * GIB}\n",
        "/sys/fs/cgroup/memory/a/memory.usage_in_bytes": "0\n",
        "/cg2/b/memory.max": f"{GIB}\n",
    }
    assert read_host(site(files)).memory_limit_bytes == 5 * GIB


def test_a_flat_v1_hierarchy(site: MakeSite) -> None:
    """With use_hierarchy 0 a parent's limit does not bind its children."""
    base = "/sys/fs/cgroup/memory"
    files: Files = {
        "/proc/self/cgroup": "4:memory:/a/b\n",
        "/proc/self/mountinfo": MOUNT_V1,
        f"{base}/a/memory.limit_in_bytes": f"{GIB}\n",
        f"{base}/a/memory.use_hierarchy": "0\n",
        f"{base}/a/b/memory.limit_in_bytes": f"{6 * GIB}\n",
    }
    assert read_host(site(files)).memory_limit_bytes == 6 * GIB


def test_a_path_outside_the_namespace(site: MakeSite) -> None:
    """``..`` leads nowhere: the mount is the nearest group."""
    files = v2("/../../other", {"": {"memory.max": f"{GIB}\n", "memory.current": "0\n"}})
    assert read_host(site(files)).memory_limit_bytes == GIB


def cores(count: int, threads: int = 2) -> Files:
    """Processors 0.. of which each core has ``threads``, numbered as Linux does on x86."""
    files: Files = {"/sys/devices/system/cpu/online": f"0-{count * threads - 1}\n"}
    for n in range(count * threads):
        siblings = ",".join(str(n % count + count * t) for t in range(threads))
        files[f"/sys/devices/system/cpu/cpu{n}/topology/core_cpus_list"] = siblings + "\n"
    return files


@pytest.mark.parametrize(
    ("allowed", "quota", "physical", "logical"),
    [
        ("0-15", "max 100000", 8, 16),
        ("0-7", "max 100000", 8, 8),
        ("0,8", "max 100000", 1, 2),
        ("0-15", "250000 100000", 2, 2),
        ("0-15", "50000 100000", 1, 1),
        ("0-31", "max 100000", 8, 16),
    ],
)
def test_cores(site: MakeSite, allowed: str, quota: str, physical: int, logical: int) -> None:
    """Affinity and quota bound what a run has of eight cores with two threads each."""
    files: Files = {
        **cores(8),
        **v2("/", {"": {"cpu.max": quota + "\n"}}),
        "/proc/self/status": f"Name:\tpython\nCpus_allowed:\tffff\nCpus_allowed_list:\t{allowed}\n",
    }
    host = read_host(site(files))
    assert (host.physical_cores, host.logical_cores) == (physical, logical)


@pytest.mark.parametrize(
    ("cpuinfo", "name", "features"),
    [
        (
            # An EPYC 9004 guest, kernel 6.18.
            "processor\t: 0\nvendor_id\t: AuthenticAMD\nmodel name\t: AMD EPYC\nflags\t\t: fpu "
            "sse2 ht pni ssse3 fma avx f16c avx2 bmi2 avx512f avx512_bf16 avx512vbmi avx512_vnni\n",
            "AMD EPYC",
            "SSE3 SSSE3 AVX AVX2 F16C FMA BMI2 AVX512 AVX512_VBMI AVX512_VNNI AVX512_BF16",
        ),
        (
            # Neoverse V2 (Grace), as the kernel names its features.
            "processor\t: 0\nBogoMIPS\t: 2000.00\nFeatures\t: fp asimd evtstrm aes sha1 fphp "
            "asimdhp asimddp sve i8mm bf16\nCPU implementer\t: 0x41\nCPU part\t: 0xd4f\n",
            "CPU implementer 0x41 part 0xd4f",
            "NEON FP16_VA MATMUL_INT8 SVE DOTPROD",
        ),
        ("processor : 0\nisa\t: rv64imafdcv_zicbom\nuarch : thead,c920\n", "thead,c920", "RISCV_V"),
        ("processor : 0\nisa\t: rv64imafdc_zvkn\nuarch : sifive,u74\n", "sifive,u74", ""),
        ("", None, ""),
    ],
)
def test_the_processor(site: MakeSite, cpuinfo: str, name: str | None, features: str) -> None:
    """Its name, and the instruction sets by llama.cpp's names."""
    host = read_host(site({"/proc/cpuinfo": cpuinfo}))
    assert host.cpu == name
    assert " ".join(host.cpu_features) == features


@pytest.mark.parametrize(
    ("release", "wsl"),
    [
        ("5.15.153.1-microsoft-standard-WSL2", 2),
        ("4.4.0-19041-Microsoft", 1),
        ("6.1.0-28-amd64", None),
        ("6.8.0-1015-azure", None),
    ],
)
def test_wsl(site: MakeSite, release: str, wsl: int | None) -> None:
    """By the kernel's release."""
    host = read_host(site({"/proc/sys/kernel/osrelease": release + "\n"}))
    assert host.wsl == wsl
    assert any("wslconfig" in n for n in host.notes) == (wsl is not None)


@pytest.mark.parametrize(
    ("files", "environ", "container"),
    [
        ({}, {}, None),
        ({"/.dockerenv": ""}, {}, "docker"),
        ({"/run/.containerenv": 'engine="podman-4.3.1"\n'}, {"container": "podman"}, "podman"),
        ({"/.dockerenv": ""}, {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, "kubernetes"),
        ({"/proc/self/cgroup": "0::/kubepods.slice/kubepods-pod1.slice\n"}, {}, "kubernetes"),
        ({"/proc/self/cgroup": "4:memory:/lxc/100/ns\n"}, {}, "lxc"),
        ({}, {"container": "systemd-nspawn"}, "container"),
    ],
)
def test_containers(
    site: MakeSite, files: Files, environ: dict[str, str], container: str | None
) -> None:
    """By what each runtime leaves behind."""
    assert read_host(site(files, **environ)).container == container


def test_the_distribution(site: MakeSite) -> None:
    """The pretty name of os-release(5)."""
    text = 'NAME="Debian GNU/Linux"\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n'
    assert read_host(site({"/etc/os-release": text})).os_version == "Debian GNU/Linux 12 (bookworm)"


def test_numa_nodes(site: MakeSite) -> None:
    """Nodes without processors (CXL memory, a GPU's) are not counted."""
    base = "/sys/devices/system/node"
    files: Files = {f"{base}/node{n}/cpulist": c for n, c in enumerate(["0-7\n", "8-15\n", "\n"])}
    assert read_host(site(files)).numa_nodes == 2


_FILES = (
    "/proc/meminfo", "/proc/self/cgroup", "/proc/self/mountinfo", "/proc/cpuinfo",
    "/proc/self/status", "/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.stat",
    "/sys/fs/cgroup/cpu.max", "/etc/os-release", "/sys/devices/system/cpu/online",
)  # fmt: skip


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.sampled_from(_FILES), st.binary(max_size=200)))
def test_files_that_make_no_sense(
    tmp_path_factory: pytest.TempPathFactory, files: dict[str, bytes]
) -> None:
    """Any bytes in any of the files give a host, never an exception, never a negative size."""
    head: Files = {
        "/proc/meminfo": "MemTotal: 1000 kB\n",
        "/proc/self/cgroup": "0::/\n",
        "/proc/self/mountinfo": MOUNT_V2,
    }
    root = plant(tmp_path_factory.mktemp("root"), {**head, **files})
    host = read_host(Site(root=str(root)))
    sizes = (host.ram_total_bytes, host.ram_available_bytes, host.memory_limit_bytes)
    assert all(n is None or n >= 0 for n in sizes)


@pytest.mark.parametrize("system", ["linux", "darwin", "win32"])
def test_without_proc_psutil_is_asked(tmp_path: Path, system: str) -> None:
    """The same memory and cores that psutil tells."""
    psutil = pytest.importorskip("psutil")
    host = read_host(Site(root=str(tmp_path), system=system))
    assert host.ram_total_bytes == psutil.virtual_memory().total
    assert host.logical_cores == psutil.cpu_count()
    assert host.os == {"linux": "linux", "darwin": "macos", "win32": "windows"}[system]


@pytest.mark.skipif(sys.platform != "linux", reason="compares /proc with psutil")
def test_this_machine_agrees_with_psutil() -> None:
    """Two readings of the same kernel; a control group may only make it less."""
    psutil = pytest.importorskip("psutil")
    host = read_host(Site())
    memory = psutil.virtual_memory()
    assert host.ram_total_bytes is not None
    assert host.ram_total_bytes == host.memory_limit_bytes or (host.ram_total_bytes == memory.total)
    assert host.ram_available_bytes is not None
    assert host.ram_available_bytes <= memory.available + 256 * MIB
    assert host.logical_cores == len(os.sched_getaffinity(0)) or host.cpu_quota is not None


def test_a_machine_without_cards_loads_nothing_heavy(site: MakeSite) -> None:
    """Start-up is most of a probe's time: no binding, no psutil, no table of cards."""
    code = (
        "import sys\n"
        "from nemofit.probe import probe\n"
        "from nemofit.probe.site import Site\n"
        f"probe(Site(root={site().root!r}))\n"
        "heavy = {'pynvml', 'psutil', 'pydantic', 'yaml', 'rich', 'subprocess', 'ctypes'}\n"
        "sys.exit(', '.join(heavy & set(sys.modules)) or 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.strip()) == (0, "")


def test_disk_free_agrees_with_the_system(tmp_path: Path) -> None:
    """The nearest folder that exists decides for one that does not."""
    free = disk_free(tmp_path / "not" / "yet" / "there.gguf")
    assert free == pytest.approx(shutil.disk_usage(tmp_path).free, abs=512 * MIB)


def test_disk_free_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system that does not answer is an error with the place in it."""

    def fail(_: str) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "statvfs", fail, raising=False)
    with pytest.raises(HardwareError, match="Input/output error"):
        disk_free(tmp_path)


def _group() -> Path | None:
    """A control group that this test may make: the folder of the own one, None where there is none.

    A group of version 2 with processes in it cannot have children with limits, so there only the
    root group will do.
    """
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        if line.split(":")[1] == "memory":
            return Path("/sys/fs/cgroup/memory")
    control = Path("/sys/fs/cgroup/cgroup.subtree_control")
    return control.parent if control.exists() and "memory" in control.read_text() else None


@pytest.mark.skipif(sys.platform != "linux", reason="control groups are Linux's")
def test_a_real_control_group() -> None:
    """A process in a group of 700 MiB has no more than that."""
    base = _group()
    if base is None:
        pytest.skip("no memory control group can be made here")
    group = base / f"nemofit-test-{os.getpid()}"
    try:
        group.mkdir()
    except OSError as e:
        pytest.skip(f"no control group may be made here: {e.strerror}")
    try:
        name = "memory.limit_in_bytes" if "memory" in base.name else "memory.max"
        (group / name).write_text(str(700 * MIB))
        code = (
            "import os, json, dataclasses\n"
            f"open({str(group / 'cgroup.procs')!r}, 'w').write(str(os.getpid()))\n"
            "from nemofit.probe.host import read_host\n"
            "from nemofit.probe.site import Site\n"
            "print(json.dumps(dataclasses.asdict(read_host(Site()))))\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        )
    finally:
        group.rmdir()
    host = json.loads(done.stdout)
    assert host["memory_limit_bytes"] == 700 * MIB
    assert host["ram_total_bytes"] == 700 * MIB
    assert 600 * MIB < host["ram_available_bytes"] <= 700 * MIB
    assert str(group) in host["notes"][0]
