"""Programs that hold memory, and the machine without them."""

from dataclasses import replace

from nemofit.machine import Gpu, Holder, Machine
from nemofit.machine.holders import holding, without
from nemofit.units import GIB, MIB


def machine() -> Machine:
    """Two cards as NVML lists them: a browser in two processes, a model over both, a hidden one."""
    return Machine(
        gpus=(
            Gpu(
                name="a",
                total_bytes=24 * GIB,
                free_bytes=10 * GIB,
                holders=(
                    Holder(pid=7, name="llama-server", bytes=12 * GIB),
                    Holder(pid=1, name="firefox", bytes=1 * GIB),
                    Holder(pid=2, name="firefox", bytes=300 * MIB),
                    Holder(pid=3, name="Xorg", bytes=20 * MIB),
                    Holder(pid=4, name="gnome-shell"),
                ),
            ),
            Gpu(
                name="b",
                total_bytes=24 * GIB,
                free_bytes=23 * GIB,
                holders=(
                    Holder(pid=7, name="llama-server", bytes=3 * GIB),
                    Holder(pid=9, bytes=GIB),
                ),
            ),
        )
    )


def test_holders_are_added_up_by_program() -> None:
    llama, firefox, hidden = holding(machine())
    assert llama.words == "llama-server holds 12.00 GiB on GPU 0 and 3.00 GiB on GPU 1"
    assert firefox.words == "firefox holds 1.29 GiB on GPU 0"
    assert (firefox.processes, hidden.name) == (2, "process 9")


def test_what_is_free_once_it_is_closed() -> None:
    """Never more than the card has: what a driver says of processes and of free memory differs."""
    llama, firefox, _ = holding(machine())
    after = without(machine(), llama, firefox)
    assert after.gpus[0].free_bytes == 23 * GIB + 300 * MIB
    assert after.gpus[1].free_bytes == 24 * GIB
    assert {h.name for h in after.gpus[0].holders} == {"Xorg", "gnome-shell"}
    assert machine().gpus[0].free_bytes == 10 * GIB


def test_unknown_stays_unknown() -> None:
    gpu = replace(machine().gpus[0], free_bytes=None)
    m = Machine(gpus=(gpu,))
    assert without(m, *holding(m)).gpus[0].free_bytes is None
    assert holding(Machine()) == ()
