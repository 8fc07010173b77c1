"""What is installed: the wheel and the sdist carry the facts, compiled, and find them."""

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from nemofit.catalog import store

pytest.importorskip("hatchling", reason="hatchling builds the packages; it comes with nemofit[dev]")

ROOT = Path(__file__).resolve().parents[1]
FACTS = {f"nemofit/_data/{kind}.{form}" for kind in store.KINDS for form in ("yaml", "json")}

PROGRAM = """
import sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from nemofit.catalog import store
print(Path(store.__file__).is_relative_to(sys.argv[1]), len(store.models()), len(store.quants()),
      len(store.gpus()), store.gpus()["tesla-t4"]["power_w"],
      "yaml" in sys.modules, "pydantic" in sys.modules)
"""


def build(target: str, tree: Path, out: Path) -> Path:
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", target, "-d", str(out)],
        cwd=tree,
        check=True,
        capture_output=True,
    )
    (made,) = out.iterdir()
    return made


def ask(site: Path) -> list[str]:
    """What nemofit in ``site`` knows, apart from everything that is installed beside it."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(site)], check=True, capture_output=True, text=True
    )
    return done.stdout.split()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("wheel", ROOT, tmp_path_factory.mktemp("wheel"))


def test_an_installed_wheel_starts_from_compiled_facts(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as z:
        assert set(z.namelist()) >= FACTS
        z.extractall(tmp_path)
    counts = [str(len(f())) for f in (store.models, store.quants, store.gpus)]
    assert ask(tmp_path) == ["True", *counts, "70.0", "False", "False"]


def test_a_fact_that_is_changed_in_an_installed_package_is_seen(
    wheel: Path, tmp_path: Path
) -> None:
    with zipfile.ZipFile(wheel) as z:
        z.extractall(tmp_path)
    gpus = tmp_path / "nemofit/_data/gpus.yaml"
    head, _, tail = gpus.read_text(encoding="utf-8").partition("  tesla-t4:")
    gpus.write_text(head + "  tesla-t4:" + tail.replace("power_w: 70", "power_w: 71", 1), "utf-8")
    assert ask(tmp_path)[-3:] == ["71.0", "True", "True"]


def test_the_sdist_builds_the_same_wheel(wheel: Path, tmp_path: Path) -> None:
    sdist = build("sdist", ROOT, tmp_path / "sdist")
    safely = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
    with tarfile.open(sdist) as t:
        t.extractall(tmp_path / "tree", **safely)  # type: ignore[arg-type]
    (tree,) = (tmp_path / "tree").iterdir()
    again = build("wheel", tree, tmp_path / "again")
    with zipfile.ZipFile(wheel) as a, zipfile.ZipFile(again) as b:
        assert set(a.namelist()) == set(b.namelist())
        for name in FACTS:
            assert a.read(name) == b.read(name), name


def test_nothing_but_the_package_is_installed(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as z:
        tops = {name.split("/")[0] for name in z.namelist()}
    assert tops == {"nemofit", wheel.name.removesuffix("-py3-none-any.whl") + ".dist-info"}


def test_a_broken_data_file_fails_the_build_and_names_its_place(tmp_path: Path) -> None:
    import shutil

    tree = tmp_path / "tree"
    for part in ("src", "data"):
        shutil.copytree(ROOT / part, tree / part, ignore=shutil.ignore_patterns("__pycache__"))
    for part in ("pyproject.toml", "hatch_build.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / part, tree)
    gpus = tree / "data/gpus.yaml"
    gpus.write_text(gpus.read_text("utf-8").replace("power_w: 70,", "power_w: much,"), "utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path / "out")],
        cwd=tree,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "power_w" in done.stderr
    assert "data/gpus.yaml line" in done.stderr
