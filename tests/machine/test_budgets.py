"""What a machine offers, and that shared memory is promised once."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nemofit.errors import UsageError
from nemofit.machine import Gpu, Host, Machine, budgets, parse_machine
from nemofit.units import GIB, MIB


def machine(*gpus: Gpu, available: int | None = 60 * GIB, total: int | None = 64 * GIB) -> Machine:
    return Machine(
        host=Host(os="linux", ram_total_bytes=total, ram_available_bytes=available), gpus=gpus
    )


def card(total: int = 24 * GIB, free: int | None = None, **more: bool) -> Gpu:
    return Gpu(name="card", total_bytes=total, free_bytes=free, **more)


def test_free_memory_counts_and_the_total_when_idle_is_assumed() -> None:
    m = machine(card(free=20 * GIB), card())
    assert budgets(m, reserve_bytes=0).gpus == (20 * GIB, 24 * GIB)
    assert budgets(m, reserve_bytes=0, assume_idle=True).gpus == (24 * GIB, 24 * GIB)


def test_the_reserve_depends_on_the_role() -> None:
    m = machine(card(display=True), card(display=False), card())
    assert budgets(m).reserves == (1024 * MIB, 256 * MIB, 512 * MIB)
    assert budgets(m).gpus == tuple(24 * GIB - r for r in budgets(m).reserves)


def test_a_reserve_that_a_person_sets_is_taken() -> None:
    m = machine(card(), card())
    assert budgets(m, reserve_bytes=GIB).gpus == (23 * GIB, 23 * GIB)
    assert budgets(m, reserve_bytes=[0, 2 * GIB]).gpus == (24 * GIB, 22 * GIB)
    assert budgets(m, reserve_bytes=25 * GIB).gpus == (0, 0)
    for wrong in ([GIB], -1, [0, -1]):
        with pytest.raises(UsageError):
            budgets(m, reserve_bytes=wrong)


def test_a_reserve_by_the_number_of_the_card() -> None:
    m = machine(card(), card(display=True), card(display=False))
    assert budgets(m, reserve_bytes={0: 2 * GIB}).reserves == (2 * GIB, 1024 * MIB, 256 * MIB)
    assert budgets(m, reserve_bytes={None: GIB, 2: 0}).reserves == (GIB, GIB, 0)
    for wrong in ({3: GIB}, {-1: GIB}, {0: -1}):
        with pytest.raises(UsageError):
            budgets(m, reserve_bytes=wrong)


def test_a_card_that_could_not_be_read_offers_nothing_and_hides_no_other() -> None:
    lost = Gpu(name="lost card", error="GPU is lost")
    b = budgets(machine(lost, card()), reserve_bytes=0)
    assert b.gpus == (0, 24 * GIB)
    assert any("lost card: GPU is lost" in n for n in b.notes)


def test_host_memory() -> None:
    assert budgets(machine()).host == 59 * GIB
    assert budgets(machine(available=None, total=None)).host is None
    limited = Host(os="linux", ram_total_bytes=8 * GIB, memory_limit_bytes=8 * GIB)
    assert budgets(Machine(host=limited)).host == 7 * GIB
    # Linux shows 62.6 of 64 GiB, and the system itself needs some of it.
    idle = budgets(parse_machine("64 GiB RAM")).host
    assert idle is not None
    assert 58 * GIB < idle < 62.6 * GIB
    windows = budgets(parse_machine("64 GiB RAM, windows")).host
    assert windows is not None
    assert windows < idle


def test_memory_that_is_not_known_is_not_checked_and_says_so() -> None:
    b = budgets(parse_machine("RTX 3090"))
    assert b.fits([GIB], host=10**15)
    assert any("host memory is not known" in n for n in b.notes)


def test_one_pool_is_never_promised_twice() -> None:
    """An M3 Max with 64 GB lends 48 GiB to Metal, out of the same 64."""
    b = budgets(parse_machine("M3 Max 64GB"))
    assert b.shared == (True,)
    assert b.host is not None
    half = 40 * GIB
    assert b.fits([half])
    assert b.fits([0], host=half)
    assert not b.fits([half], host=half)
    assert b.short([half], host=half) == ((0,), 2 * half - b.host)


def test_a_shared_gpu_never_offers_more_than_the_host_has_left() -> None:
    m = machine(card(total=48 * GIB, shared=True), available=10 * GIB)
    assert budgets(m).gpus == (9 * GIB,)


def test_separate_memory_does_not_count_against_the_host() -> None:
    b = budgets(machine(card()), reserve_bytes=0)
    assert b.fits([24 * GIB], host=59 * GIB)
    assert b.short([24 * GIB + 1], host=59 * GIB + 2) == ((1,), 2)
    assert b.short([0, 5]) == ((0, 5), 0)


@given(
    st.lists(st.tuples(st.booleans(), st.integers(0, 100), st.integers(0, 150)), max_size=4),
    st.integers(0, 100),
    st.integers(0, 150),
)
def test_what_fits_is_within_the_machines_real_memory(
    gpus: list[tuple[bool, int, int]], available: int, host_use: int
) -> None:
    """Counted the plain way: bytes drawn from RAM are at most what RAM has."""
    m = machine(
        *(card(total=free * GIB, free=free * GIB, shared=shared) for shared, free, _ in gpus),
        available=available * GIB,
        total=100 * GIB,
    )
    uses = [use * GIB for _, _, use in gpus]
    if budgets(m).fits(uses, host_use * GIB):
        in_ram = host_use + sum(use for shared, _, use in gpus if shared)
        assert in_ram <= available
        assert all(use <= free for _, free, use in gpus)
