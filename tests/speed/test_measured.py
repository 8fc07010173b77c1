"""Corrections from measurements: what is put in comes out, and elsewhere nothing changes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

import nemofit
from nemofit.engines.llama_cpp.config import RunConfig
from nemofit.errors import DataError
from nemofit.machine.records import Host, Machine
from nemofit.speed import measured as speeds
from nemofit.speed.calibrate import Measured, calibrate
from nemofit.speed.measured import Correction, device_key

HOST = Host(os="linux", cpu="AMD Ryzen 9 5950X", physical_cores=16, ram_bandwidth_gb_s=51.2)
CARD = nemofit.parse_machine("RTX 3090").gpus[0]
MACHINE = Machine(host=HOST, gpus=(CARD,))
CONFIG = RunConfig(gpu_layers=None)


@pytest.fixture(autouse=True)
def _nothing_measured() -> Iterator[None]:
    speeds.use(None)
    yield
    speeds.use(None)


def speed(model: str, machine: Machine = MACHINE, quant: str = "Q4_K_M") -> nemofit.speed.Speed:
    return nemofit.estimate_speed(
        nemofit.load_model(model), quant, CONFIG, machine, prompt_tokens=512, generated_tokens=128
    )


def as_if(correction: Correction, *models: str) -> list[Measured]:
    """What would be measured if the card were as a correction says."""
    key = device_key(CARD)
    truth = replace(correction, phases=frozenset(("decode", "prefill")))
    speeds.use(speeds.Calibration(host=speeds.host_key(HOST), devices={key: truth}))
    out = []
    for name in models:
        model = nemofit.load_model(name)
        for phase, prompt, generated in (("prefill", 512, 0), ("decode", 0, 128)):
            found = nemofit.estimate_speed(
                model, "Q4_K_M", CONFIG, MACHINE, prompt_tokens=prompt, generated_tokens=generated
            )
            likely = (found.prefill if phase == "prefill" else found.decode).likely
            out.append(
                Measured(
                    model=model, quant="Q4_K_M", config=CONFIG, phase=phase,
                    tokens=prompt or generated, depth=0, speed=likely, date="2026-10-01",
                )
            )  # fmt: skip
    speeds.use(None)
    return out


def test_one_model_tells_bandwidth_and_arithmetic() -> None:
    truth = Correction(read=0.8, arithmetic=1.3)
    found = calibrate(MACHINE, as_if(truth, "llama-3.1-8b")).devices[device_key(CARD)]
    assert found.read == pytest.approx(0.8, rel=0.01)
    assert found.arithmetic == pytest.approx(1.3, rel=0.02)
    assert found.overhead == 1.0


def test_models_of_different_size_tell_the_overhead_too() -> None:
    """Slow launches hurt the small model and hardly the large one."""
    truth = Correction(read=0.9, overhead=2.0)
    found = calibrate(MACHINE, as_if(truth, "qwen3-0.6b", "qwen2.5-32b"))
    assert 1.5 < found.devices[device_key(CARD)].overhead < 2.4
    assert found.devices[device_key(CARD)].read == pytest.approx(0.9, rel=0.03)


def test_estimates_start_from_it_and_are_narrower() -> None:
    before, other = speed("llama-3.1-8b"), speed("qwen2.5-14b")
    truth = as_if(Correction(read=0.8), "llama-3.1-8b")
    speeds.use(calibrate(MACHINE, truth))
    after, moved = speed("llama-3.1-8b"), speed("qwen2.5-14b")
    assert (before.basis, after.basis) == ("published", "measured")
    assert after.decode.likely == pytest.approx(0.8 * before.decode.likely, rel=0.06)
    assert moved.decode.likely < 0.9 * other.decode.likely and moved.basis == "measured"
    for new, old in ((after, before), (moved, other)):
        for phase in ("decode", "prefill"):
            a, b = getattr(new, phase), getattr(old, phase)
            assert a.low < a.likely < a.high and a.high / a.low < b.high / b.low
    assert after.decode.high / after.decode.low < moved.decode.high / moved.decode.low


def test_what_is_left_for_a_model_is_kept_with_it() -> None:
    """Two models that disagree: each keeps its own, the card has the mean."""
    fast, slow = (
        as_if(Correction(read=r), m) for r, m in ((1.1, "llama-3.1-8b"), (0.9, "qwen3-8b"))
    )
    expected = fast[1].speed, slow[1].speed
    speeds.use(calibrate(MACHINE, [*fast, *slow]))
    for name, truth in zip(("llama-3.1-8b", "qwen3-8b"), expected, strict=True):
        found = nemofit.estimate_speed(
            nemofit.load_model(name), "Q4_K_M", CONFIG, MACHINE, prompt_tokens=0,
            generated_tokens=128,
        )  # fmt: skip
        assert found.decode.likely == pytest.approx(truth, rel=0.02)


def test_other_hardware_is_not_estimated_with_it() -> None:
    speeds.use(calibrate(MACHINE, as_if(Correction(read=0.5), "llama-3.1-8b")))
    card = replace(MACHINE, gpus=(nemofit.parse_machine("RTX 4090").gpus[0],))
    host = replace(MACHINE, host=replace(HOST, cpu="Intel Core i9-13900K"))
    speeds_now = [speed("llama-3.1-8b", m) for m in (card, host)]
    speeds.use(None)
    assert speeds_now[0].decode == speed("llama-3.1-8b", card).decode
    assert speeds_now[1].decode == speed("llama-3.1-8b", host).decode
    assert any("was made on other hardware: not used" in n for n in speeds_now[1].notes)


def test_a_phase_that_was_not_measured_keeps_its_range() -> None:
    before = speed("llama-3.1-8b")
    speeds.use(calibrate(MACHINE, as_if(Correction(read=0.8), "llama-3.1-8b")[1:]))
    after = speed("llama-3.1-8b")
    ratio = [s.prefill.high / s.prefill.low for s in (before, after)]
    assert ratio[0] == pytest.approx(ratio[1])


def test_a_speed_that_no_such_hardware_has_is_refused() -> None:
    wrong = [replace(m, speed=m.speed * 40) for m in as_if(Correction(), "llama-3.1-8b")]
    with pytest.raises(DataError, match="times the"):
        calibrate(MACHINE, wrong)
