"""The form of ``gpus.yaml``: cards by id, with the sources their figures come from."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from ..errors import DataError
from .yaml_schema import entries, place, section

Text = Annotated[str, StringConstraints(min_length=1, max_length=400, strict=True)]
Amount = Annotated[float, Field(gt=0, lt=1e7, allow_inf_nan=False)]
Count = Annotated[int, Field(gt=0, lt=10**7)]
Rate = Literal["fp16_tflops", "fp16_vector_tflops", "int8_tops"]


class CardEntry(BaseModel):
    """One card; the head of ``data/gpus.yaml`` says what each field means and its unit."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: Text
    aliases: list[Text] = []
    vendor: Literal["nvidia", "amd", "apple", "intel"]
    kind: Literal["discrete", "laptop", "unified"]
    year: Annotated[int, Field(ge=2000, le=2100)] | None = None
    architecture: Text | None = None
    compute_capability: Annotated[str, StringConstraints(pattern=r"^\d{1,2}\.\d$")] | None = None
    gfx: Annotated[str, StringConstraints(pattern=r"^gfx[0-9a-f]{3,4}$")] | None = None
    pci_ids: list[Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{4}$")]] = []
    memory_gb: Amount | None = None
    memory_sizes_gb: list[Count] = []
    ecc: bool = False
    nvml_mib: Count | None = None
    runtime_mib: Count | None = None
    memory: Text | None = None
    bandwidth_gb_s: Amount | None = None
    fp16_tflops: Amount | None = None
    fp16_vector_tflops: Amount | None = None
    fp32_tflops: Amount | None = None
    int8_tops: Amount | None = None
    derived: list[Rate] = []
    sm_count: Count | None = None
    gpu_cores: list[Count] = []
    power_w: Amount | None = None
    pcie_gen: Annotated[int, Field(ge=1, le=9)] | None = None
    pcie_lanes: Literal[1, 2, 4, 8, 16] | None = None
    nvlink: bool | None = None
    source: Annotated[list[Text], Field(min_length=1)]
    note: Text | None = None

    @model_validator(mode="after")
    def _memory_is_known(self) -> CardEntry:
        if self.kind != "unified" and self.memory_gb is None:
            raise ValueError("memory_gb is missing (only a unified card may leave it out)")
        return self


def validate(raw: object, file: str) -> dict[str, object]:
    """Check ``gpus.yaml`` and return its cards by id as plain data, sources written out.

    Raises:
        DataError: Names file, line, card, field and what was expected.
    """
    cards = section(raw, file, "gpus")
    sources = section(raw, file, "sources", required=False)
    assert isinstance(raw, dict)
    for key in raw:
        if key not in ("gpus", "sources"):
            raise DataError(
                f"{place(raw, file, (key,))}: {key!r} is not a section that is known",
                "write cards under 'gpus:' and what they cite under 'sources:'",
            )
    for key, text in sources.items():
        if not isinstance(text, str) or not text:
            where = place(sources, file, (key,))
            raise DataError(
                f"{where}: sources {key!r}: expected text, found {text!r:.60}",
                "name what a stranger can open: a page, a paper, a repository and path",
            )
    checked = entries(cards, file, "gpus", CardEntry)
    for entry in checked.values():
        assert isinstance(entry, dict)
        entry["source"] = [sources.get(s, s) for s in entry["source"]]
    return checked
