"""Models from elsewhere through the whole command line: what is printed, and every way to fail."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from benchmarks.accuracy import attachments
from command_lines import NO_CARD, Say
from tests.formats.hubs import publish
from tests.formats.hubs import store as cached
from tests.formats.serving import Site, serve
from tests.formats.stores import layer, manifest, name

from nemofit.catalog.filetypes import tensor_types
from nemofit.catalog.models import find_model
from nemofit.formats.gguf.writer import write_sparse

REPO = "maker/Tiny-GGUF"
HERE = ("--machine", NO_CARD, "-c", "512")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Files of a model of two layers, with all their bytes."""
    from benchmarks.accuracy.sparse import cut

    model = cut(find_model("smollm2-135m").spec(), 2)
    out = {}
    for quant in ("Q4_K_M", "Q8_0"):
        path = tmp_path_factory.mktemp("files") / "x.gguf"
        write_sparse(path, replace(model, file_type=quant), tensor_types(model, quant))
        out[quant] = path.read_bytes()
    return out


@pytest.fixture
def site(data: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Site]:
    monkeypatch.chdir(tmp_path)
    for variable in ("HF_HOME", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "OLLAMA_MODELS", "LLAMA_CACHE"):
        monkeypatch.delenv(variable, raising=False)
    with serve() as running:
        monkeypatch.setenv("HF_ENDPOINT", running.url)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        publish(running, REPO, {f"Tiny-{quant}.gguf": file for quant, file in data.items()})
        running.files["/tiny.gguf"] = data["Q8_0"]
        yield running


def hub_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    constants = pytest.importorskip("huggingface_hub.constants", reason="no extra [hub]")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr(constants, "HF_STORED_TOKENS_PATH", str(tmp_path / "tokens"))


def test_a_plan_from_the_hub_ends_in_its_name(
    say: Say, site: Site, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    hub_installed(monkeypatch, tmp_path)
    said = say("plan", f"hf:{REPO}:Q4_K_M", *HERE)
    assert said.code == 0, said.err
    assert said.out.splitlines()[-1].startswith(f"llama-server -hf {REPO}:Q4_K_M -c 512 ")
    by_option = say("plan", f"hf:{REPO}", "-q", "q8_0", *HERE, "--json").json
    assert by_option["quant"]["id"] == "Q8_0"
    assert by_option["model"]["source"] == f"hf:{REPO}:Tiny-Q8_0.gguf"
    ollama = say("plan", f"hf:{REPO}:Q8_0", "--engine", "ollama", *HERE).out.splitlines()[-1]
    assert f"ollama pull hf.co/{REPO}:Q8_0 && " in ollama


def test_a_plan_by_address_ends_in_the_address(say: Say, site: Site) -> None:
    said = say("plan", f"{site.url}/tiny.gguf", *HERE)
    assert said.out.splitlines()[-1].startswith(f"llama-server -mu {site.url}/tiny.gguf ")
    disk = next(
        item
        for item in say("check", f"{site.url}/tiny.gguf", *HERE, "--json").json["items"]
        if item["item"] == "disk"
    )
    assert disk["have"] == "not checked"


def test_a_plan_from_ollamas_store_ends_in_its_name(
    say: Say, site: Site, data: dict[str, bytes], tmp_path: Path
) -> None:
    store = tmp_path / "home/.ollama/models"
    content = manifest(store, [layer(store, "model", data["Q8_0"])])
    name(store, "registry.ollama.ai/library/tiny/1b", content)
    ask = ("plan", "ollama:tiny:1b", "--engine", "ollama", "--machine")
    roomy = say(*ask, "RTX 4090, 64 GiB RAM").out.splitlines()[-1]
    assert roomy == "ollama run tiny:1b"
    other = say(*ask, NO_CARD, "-c", "512").out.splitlines()[-1]
    assert "FROM tiny:1b" in other
    assert "pull" not in other
    listed = say("list", "models", "--local")
    assert "tiny:1b" in listed.out
    assert "ollama:tiny:1b" in listed.out
    (item,) = say("list", "models", "--local", "--json").json["items"]
    assert item["places"][0]["store"] == "ollama"
    assert item["bytes"] == len(data["Q8_0"])


@pytest.mark.parametrize(
    ("ref", "code", "says"),
    [
        (f"hf:{REPO}", 4, "hf:maker/Tiny-GGUF:Q8_0"),
        (f"hf:{REPO}:Q5_K_M", 4, "Q4_K_M"),
        ("hf:maker/none", 4, "check the name"),
        ("hf:nothing", 2, "hf:owner/repo"),
        ("{url}/none.gguf", 4, "check the address"),
        ("{url}/page", 2, "web page"),
        ("ollama:none:1b", 4, "ollama pull"),
        ("ollama:a/b/c/d", 2, "ollama:llama3.1:8b"),
    ],
)
def test_a_mistake_is_one_clear_message(
    ref: str,
    code: int,
    says: str,
    say: Say,
    site: Site,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    hub_installed(monkeypatch, tmp_path)
    site.special["/page"] = lambda h: h.say(200, {"Content-Type": "text/html"}, b"<html>")
    said = say("plan", ref.format(url=site.url), *HERE)
    assert code == said.code
    first, *rest = said.err.strip().splitlines()
    assert first.startswith("error: ")
    assert [line[:4] for line in rest] == ["try:"]
    assert says in said.err


def test_offline_is_an_answer_of_its_own(
    say: Say, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    said = say("plan", f"hf:{REPO}:Q4_K_M", *HERE)
    assert said.code == 5
    assert "HF_HUB_OFFLINE" in said.err
    assert site.log == []


def test_only_models_are_local(say: Say) -> None:
    said = say("list", "gpus", "--local")
    assert said.code == 2
    assert "list models --local" in said.err


def test_what_is_broken_or_there_twice_is_told(
    say: Say,
    site: Site,
    data: dict[str, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("COLUMNS", "400")
    store = tmp_path / "home/.ollama/models"
    made = layer(store, "model", data["Q8_0"])
    name(store, "registry.ollama.ai/library/tiny/1b", manifest(store, [made]))
    snapshot = cached(tmp_path / "hub", REPO, {"Tiny-Q8_0.gguf": data["Q8_0"]})
    (tmp_path / "cut.gguf").write_bytes(data["Q8_0"][:999])
    said = say("list", "models", "--local")
    assert said.code == 0
    assert "2 on this disk" in said.out
    assert "broken: cut.gguf: cut.gguf is cut off" in said.out
    assert f"lies here 2 times, also as {snapshot}/Tiny-Q8_0.gguf" in said.out


def test_a_projector_of_the_repository_is_counted(
    say: Say, site: Site, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, data: dict[str, bytes]
) -> None:
    """``-hf`` loads it unasked, so nothing has to be said; left out, the command says so."""
    hub_installed(monkeypatch, tmp_path)
    projector = attachments.tiny(tmp_path / "p.gguf", 576).read_bytes()
    repo = "maker/Seeing-GGUF"
    publish(site, repo, {"Tiny-Q8_0.gguf": data["Q8_0"], "mmproj-Tiny-F16.gguf": projector})
    plan = say("plan", f"hf:{repo}:Q8_0", *HERE, "--json").json
    [found] = plan["companions"]
    assert found["name"] == "mmproj-Tiny-F16.gguf"
    assert found["file_bytes"] == len(projector)
    assert "mmproj" not in plan["command"]
    bare = say("plan", f"hf:{repo}:Q8_0", *HERE, "--mmproj", "none", "--json").json
    assert bare["companions"] == []
    assert "--no-mmproj" in bare["command"]
    assert (
        "--no-mmproj"
        in say("recommend", "-m", f"hf:{repo}:Q8_0", *HERE, "--json").json["plans"][0]["command"]
    )
