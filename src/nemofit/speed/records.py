"""What the speed room answers with."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Range:
    """An estimate with its range: ``low`` to ``high`` holds nine of ten published measurements."""

    low: float
    likely: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """How fast a configuration runs on a machine.

    Attributes:
        decode: Generated tokens per second of each stream (with ``streams`` streams the machine
            makes that many times as many).
        prefill: Prompt tokens per second, over the whole prompt of one stream.
        time_to_first_token_ms: Milliseconds from the prompt to the first generated token.
        total_ms: Milliseconds for the prompt and all generated tokens.
        basis: "measured" with what was measured on this machine; "published" where the card it
            runs on has published speeds; "computed" from the machine's figures; "assumed" where a
            figure that matters is not known and a cautious one stands in (a note names it).
        limit: The part that takes most of the time of a generated token, in words.
        notes: One line for every assumption made.
    """

    decode: Range
    prefill: Range
    time_to_first_token_ms: Range
    total_ms: Range
    basis: str
    limit: str
    notes: tuple[str, ...] = ()
