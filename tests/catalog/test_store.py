"""The facts: found everywhere, never stale, overridden entry by entry, broken files named."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath

import pytest

from nemofit.catalog import store
from nemofit.errors import DataError

ROOT = Path(__file__).resolve().parents[2]

CARD = """
gpus:
  my-card:
    {name: My Card, vendor: nvidia, kind: discrete, memory_gb: 24, bandwidth_gb_s: 100,
     source: [my own measurement]}
"""


@pytest.fixture(autouse=True)
def _as_it_was(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Compile the shipped facts once; leave the store as every other test finds it."""
    cache = store._cache
    store.use_cache(tmp_path_factory.getbasetemp() / "compiled")
    yield
    store.use_personal_catalog(None)
    store.use_cache(cache)


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the shipped data that the store reads instead."""
    copy = tmp_path / "data"
    copy.mkdir()
    for kind in store.KINDS:
        shutil.copy(store.data_directory() / f"{kind}.yaml", copy)
    monkeypatch.setattr(store, "data_directory", lambda: copy)
    store.use_cache(tmp_path / "cache")
    store.reload()
    return copy


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def test_every_kind_of_fact_is_there() -> None:
    assert store.gpus()["nvidia-geforce-rtx-3090"]["bandwidth_gb_s"] == 936.2
    for entries in (store.models(), store.quants(), store.gpus()):
        assert entries
        json.dumps(dict(entries), allow_nan=False)


def test_a_changed_fact_is_seen(data: Path) -> None:
    card = "nvidia-geforce-rtx-3090"
    assert store.gpus()[card]["bandwidth_gb_s"] == 936.2
    edit(data / "gpus.yaml", "936.2", "111.5")
    assert store.gpus()[card]["bandwidth_gb_s"] == 936.2, "kept within a run"
    store.reload()
    assert store.gpus()[card]["bandwidth_gb_s"] == 111.5


def test_a_second_run_reads_the_compiled_form(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = dict(store.gpus())
    (kept,) = (tmp_path / "cache").iterdir()
    monkeypatch.setattr(store, "_validated", None)
    store.reload()
    assert first == dict(store.gpus())
    assert json.loads(kept.read_bytes())["entries"] == first


@pytest.mark.parametrize("broken", [b"", b"{", b"[]", b'{"digest": 1}', b"\xff", b"[" * 10**6])
def test_a_broken_compiled_form_is_made_anew(data: Path, tmp_path: Path, broken: bytes) -> None:
    first = dict(store.gpus())
    (kept,) = (tmp_path / "cache").iterdir()
    good = kept.read_bytes()
    kept.write_bytes(broken)
    store.reload()
    assert first == dict(store.gpus())
    assert kept.read_bytes() == good
    assert [kept] == list((tmp_path / "cache").iterdir()), "no half-written file is left"


def test_a_cache_that_cannot_be_written_is_harmless(data: Path, tmp_path: Path) -> None:
    file = tmp_path / "not-a-directory"
    file.write_text("", encoding="utf-8")
    store.use_cache(file / "cache")
    assert store.gpus()


def test_without_a_cache_nothing_is_written(data: Path, tmp_path: Path) -> None:
    store.use_cache(None)
    assert store.gpus()
    assert not (tmp_path / "cache").exists()


def test_a_copied_tree_imports_no_parser_the_second_time_and_sees_a_change(tmp_path: Path) -> None:
    shutil.copytree(
        ROOT / "src/nemofit", tmp_path / "src/nemofit", ignore=shutil.ignore_patterns("__pycache__")
    )
    shutil.copytree(ROOT / "data", tmp_path / "data")
    program = (
        "import sys; from pathlib import Path; from nemofit.catalog import store\n"
        "store.use_cache(Path(sys.argv[1]))\n"
        "print(Path(store.__file__).parents[3], store.gpus()['tesla-t4']['power_w'],\n"
        "      'yaml' in sys.modules, 'pydantic' in sys.modules)"
    )

    def run() -> list[str]:
        done = subprocess.run(
            [sys.executable, "-c", program, str(tmp_path / "cache")],
            env={"PYTHONPATH": str(tmp_path / "src"), "SYSTEMROOT": "C:\\Windows"},
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.split()

    assert run() == [str(tmp_path), "70.0", "True", "True"]
    assert run() == [str(tmp_path), "70.0", "False", "False"]
    gpus = tmp_path / "data/gpus.yaml"
    head, _, tail = gpus.read_text(encoding="utf-8").partition("  tesla-t4:")
    gpus.write_text(head + "  tesla-t4:" + tail.replace("power_w: 70", "power_w: 71", 1), "utf-8")
    assert run() == [str(tmp_path), "71.0", "True", "True"]


def test_a_change_of_the_rules_makes_the_compiled_form_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = store.digest("gpus", b"x")
    assert before == store.digest("gpus", b"x")
    assert before != store.digest("gpus", b"y")
    assert before != store.digest("quants", b"x")
    monkeypatch.setattr(store, "FORMAT", store.FORMAT + 1)
    assert before != store.digest("gpus", b"x")


def test_a_personal_file_adds_and_replaces_entry_by_entry(tmp_path: Path) -> None:
    shipped = dict(store.gpus())
    replaced = CARD.replace("my-card", "tesla-t4").replace("\ngpus:", "")
    (tmp_path / "gpus.yaml").write_text(CARD + replaced, encoding="utf-8")
    store.use_personal_catalog(tmp_path)
    mine = store.gpus()
    assert mine["my-card"]["bandwidth_gb_s"] == 100
    assert mine["tesla-t4"]["name"] == "My Card"
    assert "compute_capability" not in mine["tesla-t4"], "an entry is replaced as a whole"
    changed = {i for i in mine if mine[i] != shipped.get(i)}
    assert changed == {"my-card", "tesla-t4"}
    store.use_personal_catalog(None)
    assert dict(store.gpus()) == shipped


def test_a_personal_card_is_found_by_name(tmp_path: Path) -> None:
    from nemofit.catalog.cards import find_card

    (tmp_path / "gpus.yaml").write_text(CARD, encoding="utf-8")
    store.use_personal_catalog(tmp_path)
    assert find_card("my card").id == "my-card"


def test_a_directory_that_was_named_must_exist(tmp_path: Path) -> None:
    store.use_personal_catalog(tmp_path / "nowhere")
    assert store.gpus()
    for missing in (tmp_path / "nowhere", tmp_path / ("nowhere" * 1000)):
        with pytest.raises(DataError, match="nowhere") as e:
            store.use_personal_catalog(missing, must_exist=True)
        assert len(e.value.message) < 300


def test_a_personal_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "gpus.yaml").mkdir()
    store.use_personal_catalog(tmp_path)
    with pytest.raises(DataError, match=r"gpus\.yaml is not a regular file"):
        store.gpus()
    store.use_personal_catalog(tmp_path / ("long" * 1000))
    with pytest.raises(DataError, match="cannot be read"):
        store.gpus()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("gpus: [", "line 2: not YAML"),
        ("- gpus", "expected fields at the top, found a list"),
        ("", "expected fields at the top, found nothing"),
        ("gpus: 7", "line 1: expected entries by id, found 7"),
        ("cards: {}", "is missing"),
        ("gpus: {}\ncards: {}", "line 2: 'cards' is not a section"),
        ("gpus:\n  a: 7", "line 2: gpus 'a': "),
        ("sources: {x: 7}\ngpus: {}", "line 1: sources 'x': expected text, found 7"),
        (CARD.replace("100", "fast"), "line 4: gpus 'my-card': bandwidth_gb_s: "),
        (CARD.replace("100", "-1"), "found -1"),
        (CARD.replace("100", ".nan"), "found '.nan'"),
        (CARD.replace("nvidia", "matrox"), "line 4: gpus 'my-card': vendor: "),
        (CARD.replace("memory_gb: 24, ", ""), "memory_gb is missing"),
        (CARD.replace("source", "sauce"), "is missing"),
        (CARD.replace("[my own measurement]", "[]"), "source: "),
        (CARD.replace("kind", "colour: red, kind"), "colour: is not a field that is known"),
        (CARD + CARD.replace("\ngpus:", ""), "line 7: 'my-card' is already defined in line 3"),
    ],
)
def test_a_broken_file_names_file_line_entry_and_field(
    tmp_path: Path, text: str, says: str
) -> None:
    path = tmp_path / "gpus.yaml"
    path.write_text(text, encoding="utf-8")
    store.use_personal_catalog(tmp_path)
    with pytest.raises(DataError) as e:
        store.gpus()
    assert e.value.message.startswith(str(path))
    assert says in e.value.message
    assert "\n" not in e.value.message
    assert e.value.exit_code == 2
    assert e.value.hint


def test_where_things_lie_on_each_system() -> None:
    """XDG base directories, Apple's file system guide, Windows' known folders."""
    posix, windows = Path("/home/ada"), Path("C:/Users/ada")
    personal, cache = store.default_personal_directory, store.default_cache_directory

    def same(path: Path, expected: str) -> bool:
        return PurePosixPath(path.as_posix()) == PurePosixPath(expected)

    assert same(personal({}, "linux", posix), "/home/ada/.config/nemofit")
    assert same(personal({"XDG_CONFIG_HOME": "/x"}, "linux", posix), "/x/nemofit")
    assert same(personal({"XDG_CONFIG_HOME": "x"}, "linux", posix), "/home/ada/.config/nemofit")
    assert same(personal({"XDG_CONFIG_HOME": ""}, "linux", posix), "/home/ada/.config/nemofit")
    assert same(cache({}, "linux", posix), "/home/ada/.cache/nemofit")
    assert same(cache({"XDG_CACHE_HOME": "/x"}, "freebsd14", posix), "/x/nemofit")
    mac = "/home/ada/Library"
    assert same(
        personal({"XDG_CONFIG_HOME": "/x"}, "darwin", posix), mac + "/Application Support/nemofit"
    )
    assert same(cache({}, "darwin", posix), mac + "/Caches/nemofit")
    roaming = {"APPDATA": r"C:\Users\ada\AppData\Roaming", "LOCALAPPDATA": r"D:\Local"}
    for environ in (roaming, {}):
        found = PureWindowsPath(str(personal(environ, "win32", windows)))
        assert found == PureWindowsPath(r"C:\Users\ada\AppData\Roaming\nemofit")
    found = PureWindowsPath(str(cache(roaming, "win32", windows)))
    assert found == PureWindowsPath(r"D:\Local\nemofit\Cache")
    found = PureWindowsPath(str(cache({}, "win32", windows)))
    assert found == PureWindowsPath(r"C:\Users\ada\AppData\Local\nemofit\Cache")
