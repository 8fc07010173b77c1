"""From a file to a model: keys, types, sets of files, and everything that is no model."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nemofit.catalog.model import Tensor
from nemofit.errors import DataError
from nemofit.formats.gguf.reader import read_gguf

from . import build
from .build import DATA, F32, I32, SMALL, STRING, TENSORS, U16, U32


def changed(key: str, kind: int, value: object) -> list[build.Pair]:
    """SMALL with one key set."""
    return [*(p for p in SMALL if p[0] != key), (key, kind, value)]


def without(key: str) -> list[build.Pair]:
    return [p for p in SMALL if p[0] != key]


def write(path: Path, pairs: list[build.Pair], infos: list[build.Info] = TENSORS) -> Path:
    path.write_bytes(build.gguf(pairs, infos, DATA))
    return path


def test_reads_a_model_with_the_types_of_the_file(tmp_path: Path) -> None:
    path = write(tmp_path / "Tiny-Q4_K_M.gguf", SMALL)
    model = read_gguf(path)
    assert model.id == "Tiny-Q4_K_M"
    assert model.architecture == "llama"
    assert model.metadata == {
        "block_count": 2,
        "embedding_length": 256,
        "attention.head_count_kv": (4, 8),
        "attention.layer_norm_rms_epsilon": 1e-5,
        "rope.scaling.type": "yarn",
        "vocab_size": 3,
    }
    assert model.tensors == (
        Tensor("token_embd.weight", (256, 3), "Q4_K"),
        Tensor("output_norm.weight", (256,), "F32"),
    )
    assert model.file_type == "Q4_K_M"
    assert model.file_bytes == path.stat().st_size
    assert model.source == str(path)
    assert model.notes == ()


def test_the_vocabulary_counts_tokens_else_the_key_else_the_rows(tmp_path: Path) -> None:
    bare = without("tokenizer.ggml.tokens")
    said = [*bare, ("llama.vocab_size", U32, 77)]
    assert read_gguf(write(tmp_path / "a.gguf", said)).metadata["vocab_size"] == 77
    assert read_gguf(write(tmp_path / "b.gguf", bare)).metadata["vocab_size"] == 3
    both = [*SMALL, ("llama.vocab_size", U32, 77)]
    assert read_gguf(write(tmp_path / "c.gguf", both)).metadata["vocab_size"] == 3


def test_unknown_types_are_reported(tmp_path: Path) -> None:
    infos: list[build.Info] = [
        ("a.weight", (32, 2), 99, 0),
        ("token_embd.weight", (32,), 0, 4096),
    ]
    pairs = changed("general.file_type", U32, 999)
    path = tmp_path / "x.gguf"
    path.write_bytes(build.gguf(pairs, infos, 4096 + 128))
    model = read_gguf(path)
    assert [t.type for t in model.tensors] == ["type 99", "F32"]
    assert model.file_type is None
    assert any("999" in n for n in model.notes)
    assert any("a.weight (99)" in n for n in model.notes)
    assert read_gguf(write(path, without("general.file_type"))).file_type is None


def split(tmp_path: Path, count: int = 3) -> list[Path]:
    """A set of files: the keys in the first, the tensors spread."""
    paths = [tmp_path / f"big-{i:05d}-of-{count:05d}.gguf" for i in range(1, count + 1)]
    for n, path in enumerate(paths):
        pairs = [("split.no", U16, n), ("split.count", U16, count)]
        infos: list[build.Info] = [(f"{'blk.0.' * n}token_embd.weight", (32, n + 1), 1, 0)]
        pairs = [*SMALL, *pairs] if n == 0 else pairs
        path.write_bytes(build.gguf(pairs, infos, 64 * (n + 1)))
    return paths


def test_any_file_names_the_set(tmp_path: Path) -> None:
    paths = split(tmp_path)
    models = [read_gguf(p) for p in paths]
    assert models[0] == models[1] == models[2]
    assert models[0].id == "big"
    assert [t.shape for t in models[0].tensors] == [(32, 1), (32, 2), (32, 3)]
    assert models[0].file_bytes == sum(p.stat().st_size for p in paths)


def test_missing_files_are_named(tmp_path: Path) -> None:
    paths = split(tmp_path, 6)
    for p in paths[:5]:
        p.unlink()
    with pytest.raises(DataError, match=r"5 of 6 .*big-00001-of-00006\.gguf.*and 2 more"):
        read_gguf(paths[5])


def test_a_renamed_file_of_a_set_is_refused(tmp_path: Path) -> None:
    first, second, _ = split(tmp_path)
    with pytest.raises(DataError, match="one of 3 files"):
        read_gguf(first.rename(tmp_path / "renamed.gguf"))
    second.rename(first)
    second.write_bytes(first.read_bytes())
    with pytest.raises(DataError, match="part 1"):
        read_gguf(first)


def test_incomplete_files_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "x.gguf", SMALL)
    whole = path.read_bytes()
    for n in (len(whole) - 1, len(whole) - DATA):
        path.write_bytes(whole[:n])
        with pytest.raises(DataError, match=rf"incomplete.* end at byte {len(whole)}, it has {n}"):
            read_gguf(path)
    for n in (len(whole) // 3, 4, 0):
        path.write_bytes(whole[:n])
        with pytest.raises(DataError, match=rf"byte {n}|cut off|claims"):
            read_gguf(path)


@pytest.mark.parametrize(
    ("pairs", "said"),
    [
        (without("general.architecture"), "general.architecture"),
        (changed("general.architecture", U32, 3), "general.architecture"),
        (changed("general.architecture", STRING, "clip"), "projector"),
        (changed("general.type", STRING, "adapter"), "adapter"),
        (changed("general.type", STRING, "imatrix"), "imatrix"),
        (without("llama.block_count"), "block_count is None"),
        (changed("llama.block_count", U32, 0), "block_count is 0"),
        (changed("llama.block_count", U32, 4_000_000_000), "block_count is 4000000000"),
        (changed("llama.block_count", STRING, "many"), "block_count is None"),
        (changed("llama.block_count", I32, [2, 2]), r"block_count is \(2, 2\)"),
        (changed("llama.expert_used_count", U32, 1 << 31), "expert_used_count is 2147483648"),
        (changed("llama.expert_count", F32, 8.0), "expert_count is 8.0"),
        (changed("llama.embedding_length", U32, 0), "embedding_length is 0"),
        (changed("llama.embedding_length", STRING, "wide"), "embedding_length is None"),
        (changed("llama.attention.head_count_kv", I32, [1, 2, 3]), "3 values for 2 blocks"),
        (changed("llama.rope.freq_base", F32, float("nan")), "freq_base is nan"),
        (changed("llama.rope.freq_base", F32, float("inf")), "freq_base is inf"),
    ],
)
def test_keys_that_make_no_sense_are_refused(
    tmp_path: Path, pairs: list[build.Pair], said: str
) -> None:
    with pytest.raises(DataError, match=said):
        read_gguf(write(tmp_path / "x.gguf", pairs))


def test_a_file_without_an_embedding_is_no_language_model(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="token_embd"):
        read_gguf(write(tmp_path / "x.gguf", SMALL, [("w.weight", (256, 2), 12, 0)]))


def test_rows_that_do_not_divide_into_blocks_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="block of Q4_K"):
        read_gguf(write(tmp_path / "x.gguf", SMALL, [("w.weight", (255, 2), 12, 0)]))


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No such file"):
        read_gguf(tmp_path / "none.gguf")
    with pytest.raises(DataError, match="directory"):
        read_gguf(tmp_path)
    with pytest.raises(DataError, match="cannot read"):
        read_gguf("a\0b.gguf")
    with pytest.raises(DataError, match="cannot read"):
        read_gguf("x" * 5000 + ".gguf")
    (tmp_path / "two\nlines.gguf").write_bytes(b"GGUF")
    with pytest.raises(DataError) as caught:
        read_gguf(tmp_path / "two\nlines.gguf")
    assert "\n" not in caught.value.message


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")
def test_pipes_and_devices_are_refused_without_opening(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.gguf")
    for path in (tmp_path / "pipe.gguf", Path("/dev/zero")):
        with pytest.raises(DataError, match="device or a pipe"):
            read_gguf(path)


WHOLE = build.gguf(SMALL, TENSORS, DATA)


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.tuples(st.integers(4, len(WHOLE) - DATA), st.integers(0, 255)), max_size=4))
def test_a_damaged_file_gives_a_model_or_data_error(
    tmp_path: Path, damage: list[tuple[int, int]]
) -> None:
    data = bytearray(WHOLE)
    for at, byte in damage:
        data[at] = byte
    path = tmp_path / "x.gguf"
    path.write_bytes(data)
    try:
        model = read_gguf(path)
    except DataError:
        return
    assert len(model.per_layer("attention.head_count_kv")) == model.integer("block_count")
    assert model.parameters > 0
