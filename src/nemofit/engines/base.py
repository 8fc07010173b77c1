"""What every engine answers with: bytes per device by kind."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceMemory:
    """Bytes on one device by kind.

    Attributes:
        weights_bytes: The engine's "model buffer".
        kv_bytes: KV cache and recurrent state.
        compute_bytes: The engine's "compute buffer" (on the host: with the output buffer).
        overhead_bytes: What the driver and runtime take beyond the engine's own accounting.
    """

    weights_bytes: int = 0
    kv_bytes: int = 0
    compute_bytes: int = 0
    overhead_bytes: int = 0
    name: str = ""

    @property
    def total_bytes(self) -> int:
        return self.weights_bytes + self.kv_bytes + self.compute_bytes + self.overhead_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """A placement: what lies on each GPU, in device order, and on the host.

    Attributes:
        gpus: One record per GPU, unused ones included with zeros.
        host: The same for the host's memory; mapped weights count as weights.
        copies: Pipeline copies in the compute buffers, 1 or 4.
        basis: "computed" where the engine's own rules are replayed for this architecture,
            "assumed" where an upper bound stands in for a layer kind that is not modelled.
        notes: One line for every assumption made.
    """

    gpus: tuple[DeviceMemory, ...]
    host: DeviceMemory
    copies: int = 1
    basis: str = "computed"
    notes: tuple[str, ...] = ()
