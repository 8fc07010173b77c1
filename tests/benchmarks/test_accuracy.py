"""The oracle gives the answers it gave before, and the comparison notices what is wrong."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from benchmarks.accuracy.compare import Outcome, ask_nemofit, compare
from benchmarks.accuracy.compare_report import plain
from benchmarks.accuracy.compare_rows import Row, read_rows
from benchmarks.accuracy.engine import Buffers, Engine, parse_log
from benchmarks.accuracy.sparse import ModelFiles, cut

from nemofit.catalog.models import find_model
from nemofit.engines.llama_cpp.config import RunConfig
from nemofit.units import MIB

# llama-fit-params 0.5.0-dev (0c1e570) over RPC devices, --no-repack.
RECORDED = """\
{"model": "llama-3.1-70b", "quant": "Q4_K_M", "n_ctx": 8192, "n_ubatch": 512, "flash_attn": "on", \
"devices": 2, "n_parallel": 1, "n_gpu_layers": 81, "tensor_split": [1, 1], "mib": \
{"RPC0": {"model": 20038, "context": 1312, "compute": 312}, \
"RPC1": {"model": 19940, "context": 1248, "compute": 426}, \
"Host": {"model": 563, "context": 0, "compute": 112}}}
"""
# llama-server 0.5.0-dev at -lv 4, four blocks of the 70B shape over two RPC devices.
LOG = """\
0.00.071.316 I load_tensors:   CPU_Mapped model buffer size =   563.62 MiB
0.00.071.319 I load_tensors: RPC0[127.0.0.1:50191] model buffer size =  1377.19 MiB
0.00.071.321 I load_tensors: RPC0[127.0.0.1:50192] model buffer size =  1022.72 MiB
0.14.502.241 I llama_context:        CPU  output buffer size =     0.49 MiB
0.14.505.883 I llama_kv_cache: RPC0[127.0.0.1:50191] KV buffer size =    48.00 MiB
0.14.505.884 I llama_kv_cache: RPC0[127.0.0.1:50191] KV buffer size =     4.00 MiB
0.14.878.901 I llama_kv_cache: RPC0[127.0.0.1:50192] KV buffer size =    16.00 MiB
0.14.878.902 I llama_memory_recurrent: RPC0[127.0.0.1:50192] RS buffer size =     2.50 MiB
0.14.892.556 I sched_reserve: RPC0[127.0.0.1:50191] compute buffer size =   999.04 MiB
0.14.892.556 I sched_reserve: RPC0[127.0.0.1:50191] compute buffer size =   296.04 MiB
0.14.892.560 I sched_reserve: RPC0[127.0.0.1:50192] compute buffer size =   128.04 MiB
0.14.892.561 I sched_reserve:        CPU compute buffer size =    96.05 MiB
0.14.892.564 I sched_reserve: graph: nodes = 130, splits = 3, input objects = 4
0.14.892.567 I sched_reserve: reserve took 3.50 ms, sched copies = 4
"""


@pytest.fixture
def recorded(tmp_path: Path) -> Row:
    path = tmp_path / "rows.jsonl"
    path.write_text(RECORDED)
    (row,) = read_rows(path)
    return row


def test_a_log_is_read_by_device_and_kind() -> None:
    load = parse_log(LOG, ["127.0.0.1:50191", "127.0.0.1:50192"])
    mib = {d: [round(getattr(b, k) / MIB, 2) for k in b.__slots__] for d, b in load.devices.items()}
    assert list(Buffers.__slots__) == ["model", "kv", "state", "compute", "output"]
    assert mib == {
        "CPU": [563.62, 0, 0, 96.05, 0.49],
        "RPC0": [1377.19, 52.0, 0, 296.04, 0],
        "RPC1": [1022.72, 16.0, 2.5, 128.04, 0],
    }
    assert (load.copies, load.graph) == (4, "nodes = 130, splits = 3, input objects = 4")


def test_rows_survive_a_file(recorded: Row, tmp_path: Path) -> None:
    path = tmp_path / "again.jsonl"
    path.write_text(recorded.json() + "\n")
    assert list(read_rows(path)) == [recorded]
    assert recorded.config == RunConfig(
        context=8192, gpu_layers=81, tensor_split=(1, 1), backend="rpc", program="llama-fit-params"
    )


def test_the_engine_answers_as_recorded(
    recorded: Row, engine: Engine, model_files: ModelFiles
) -> None:
    assert recorded.mib == replace(recorded, mib=None).asked(engine, model_files).mib


def test_a_wrong_number_is_noticed(recorded: Row) -> None:
    """One MiB off in one number of the engine's answer makes that number, and no other, differ."""
    outcome = Outcome()
    ask_nemofit([recorded], outcome)
    assert {d.is_exact for d in outcome.differences} == {True}
    mib = json.loads(json.dumps(recorded.mib))
    mib["RPC1"]["compute"] += 1
    off = [d for d in compare(replace(recorded, mib=mib)) if not d.is_exact]
    assert [(d.device, d.kind, d.nemofit_mib - d.engine_mib) for d in off] == [
        ("RPC1", "compute", -1.0)
    ]
    text = plain(Outcome(differences=off), 5)
    assert "-0.2 % compute on RPC1: llama.cpp 427 MiB, nemofit 426.00 MiB" in text


def test_cutting_keeps_the_first_blocks_and_all_else() -> None:
    model = find_model("qwen3-8b").spec()
    lists = replace(model, metadata={**model.metadata, "attention.head_count_kv": tuple(range(36))})
    small = cut(lists, 2)
    assert small.metadata["block_count"] == 2
    assert small.metadata["attention.head_count_kv"] == (0, 1)
    gone = {t.name for t in model.tensors} - {t.name for t in small.tensors}
    assert all(int(name.split(".")[1]) >= 2 for name in gone)
    assert {t.name.split(".")[1] for t in small.tensors if t.name.startswith("blk.")} == {"0", "1"}
    assert cut(model, 36) is model
