"""Visible-device variables: which cards a run would see, and in which order."""

from __future__ import annotations

import pytest

from nemofit.machine.records import Gpu
from nemofit.probe.visible import Candidate, chosen, cuda_view, oneapi_view, rocm_view

IDS = ["GPU-8932f937-d72c", "GPU-8932ffff-0000", "GPU-b5f65f8e-98cd", "GPU-00e21ef5-92e8"]


@pytest.mark.parametrize(
    ("value", "ordinals"),
    [
        # Examples of the CUDA programming guide.
        ("2,1", [2, 1]),
        ("0,2,-1,1", [0, 2]),
        ("GPU-8932f937", [0]),
        # Its rules: the first that names nothing hides itself and what follows.
        ("", []),
        ("-1", []),
        ("4", []),
        ("3,4,0", [3]),
        ("NoDevFiles", []),
        ("GPU-ffff", []),
        ("GPU-b5f6,GPU-8932,GPU-00e2", [2]),  # the second is ambiguous
        ("GPU-b5f6,1", [2]),
        ("1,GPU-b5f6", [1]),
        (" 1 , 0 ", [1, 0]),
        # As the C library reads numbers, which PyTorch repeats: "1gpu2,2ampere" is "1,2".
        ("1gpu2,2ampere", [1, 2]),
        ("0,0", []),
        ("1,", [1]),
    ],
)
def test_chosen(value: str, ordinals: list[int]) -> None:
    """Indices, UUIDs and their beginnings."""
    assert chosen(value, IDS) == ordinals


def cards(*names: str) -> list[Candidate]:
    return [
        Candidate(gpu=Gpu(name=name, uuid=IDS[n]), card=n, speed=float(len(name)))
        for n, name in enumerate(names)
    ]


def test_unset_shows_all_and_says_nothing() -> None:
    """Without the variables there is nothing to explain."""
    view = cuda_view(cards("a", "a"), {})
    assert [g.uuid for g in view.visible] == IDS[:2]
    assert (view.hidden, view.notes) == ((), ())


def test_the_variables_order_is_the_engines() -> None:
    """CUDA_VISIBLE_DEVICES=2,0 makes card 2 the first device."""
    view = cuda_view(cards("a", "a", "a"), {"CUDA_VISIBLE_DEVICES": "2,0"})
    assert [g.uuid for g in view.visible] == [IDS[2], IDS[0]]
    assert [g.uuid for g in view.hidden] == [IDS[1]]
    assert view.notes == ("CUDA_VISIBLE_DEVICES='2,0' shows a run 2 of 3 NVIDIA devices",)


def test_a_hostile_value_stays_short_and_printable() -> None:
    """Nothing of the environment reaches a terminal raw."""
    value = "\x1b[31m" + "0," * 5000
    view = cuda_view(cards("a"), {"CUDA_VISIBLE_DEVICES": value})
    assert view.visible == ()
    assert "\x1b" not in view.notes[0]
    assert len(view.notes[0]) < 200


def radeons(count: int) -> list[Gpu]:
    return [Gpu(name="x", vendor="amd", uuid=f"GPU-{n:016x}", index=n) for n in range(count)]


@pytest.mark.parametrize(
    ("environ", "seen"),
    [
        ({}, [0, 1, 2]),
        ({"HIP_VISIBLE_DEVICES": "2,0"}, [2, 0]),
        ({"CUDA_VISIBLE_DEVICES": "1"}, [1]),
        ({"HIP_VISIBLE_DEVICES": "0", "CUDA_VISIBLE_DEVICES": "1"}, [0]),
        ({"ROCR_VISIBLE_DEVICES": "1,2", "HIP_VISIBLE_DEVICES": "1"}, [2]),
        ({"ROCR_VISIBLE_DEVICES": "GPU-0000000000000002"}, [2]),
        ({"ROCR_VISIBLE_DEVICES": ""}, []),
    ],
)
def test_rocm(environ: dict[str, str], seen: list[int]) -> None:
    """ROCR_ first, then HIP_ on what is left; HIP honours CUDA_ where its own is not set."""
    view = rocm_view(radeons(3), environ)
    assert [g.index for g in view.visible] == seen
    assert len(view.visible) + len(view.hidden) == 3


def test_oneapi() -> None:
    """ZE_AFFINITY_MASK filters; ONEAPI_DEVICE_SELECTOR is pointed out."""
    gpus = [Gpu(name="Arc", vendor="intel", index=n) for n in range(2)]
    view = oneapi_view(gpus, {"ZE_AFFINITY_MASK": "1.0", "ONEAPI_DEVICE_SELECTOR": "opencl:*"})
    assert [g.index for g in view.visible] == [1]
    assert "ONEAPI_DEVICE_SELECTOR" in view.notes[-1]
