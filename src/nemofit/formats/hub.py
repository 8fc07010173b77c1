"""Models in repositories on the hub: from the cache on this disk, else by ranges over the network.

    with Repository.open("bartowski/Llama-3.3-70B-Instruct-GGUF", places) as repository:
        repository.files, repository.ranged("file.gguf")

The network is huggingface_hub's business (the extra ``[hub]``): it lists the files and knows the
person's token, mirror and proxy; see https://huggingface.co/docs/huggingface_hub.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

from nemofit import __version__
from nemofit.catalog.model import Companion, ModelSpec, Origin
from nemofit.errors import DataError, HardwareError, NemofitError, UnknownNameError
from nemofit.probe.site import Waiting

from .connection import Answer, Connections
from .gguf.header import Header, header_of
from .gguf.reader import missing_error, model_of, shown
from .hub_cache import cached_files
from .hub_files import choose, is_checkpoint, launch_tag, parse_reference, whole_set
from .near import companions
from .places import Places
from .ranged import LocalFile, Ranged
from .remote import FIRST, FIRST_OF_SHARD, RemoteFile, refusal

_LISTING_S = 30.0
_TIMEOUT_S = 10.0
_MOST_FILES = 20_000


class Repository:
    """A repository whose files can be read in part; closed at the end of the ``with`` block.

    Attributes:
        name: ``owner/name``.
        files: Bytes of every file by its path, None where not known; in the order of the listing.
        is_local: All of it comes from the cache.
    """

    def __init__(
        self,
        name: str,
        places: Places,
        files: Mapping[str, int | None],
        cached: Mapping[str, Path],
        remote: _Remote | None = None,
    ) -> None:
        self.name = name
        self.files = files
        self.cached = cached
        self.is_local = remote is None
        self._remote = remote
        self._stack = ExitStack()
        self._connections = self._stack.enter_context(Connections(places.environ))

    @staticmethod
    def open(name: str, places: Places) -> Repository:
        """List a repository over the network; what the cache has of it is read from there.

        Raises:
            UnknownNameError: There is none of that name, or none that this person may see.
            HardwareError: The hub may not or cannot be asked.
        """
        remote = _Remote(name, places)
        return Repository(name, places, remote.files, cached_files(name, places), remote)

    @staticmethod
    def in_cache(name: str, places: Places) -> Repository | None:
        """The part of a repository that is on this disk; None: nothing is."""
        cached = cached_files(name, places)
        sizes = {path: _size(file) for path, file in cached.items()}
        return Repository(name, places, sizes, cached) if cached else None

    def __enter__(self) -> Repository:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def ranged(self, path: str, first: int = FIRST) -> Ranged:
        """One file; ``first`` is the size of the first window where it has to be fetched.

        Raises:
            DataError: The cached file cannot be read.
        """
        local = self.cached.get(path)
        if local is not None and self.files.get(path) in (None, _size(local)):
            try:
                return LocalFile(self._stack.enter_context(open(local, "rb")))
            except OSError as error:
                raise DataError(
                    f"cannot read {shown(str(local))}: {error.strerror}", "check the path"
                ) from error
        if self._remote is None:
            raise UnknownNameError(f"file in hf:{self.name}", path)
        return self._remote.file(self._connections, path, first)

    def text(self, path: str, limit: int) -> bytes:
        """A small file as a whole.

        Raises:
            DataError: It has more than ``limit`` bytes.
        """
        source = self.ranged(path, min(limit, FIRST))
        if source.size > limit:
            raise DataError(
                f"hf:{self.name}:{path} has {source.size} bytes, more than {limit}",
                "check the repository",
            )
        return source.read(0, source.size)


def read_hub(ref: str, places: Places) -> ModelSpec:
    """Read a model from ``hf:owner/repo[:quant or file]``.

    A file that is in the cache as a whole is read from there, and nothing is sent.

    Raises:
        UsageError: Not such a reference.
        UnknownNameError: No such repository or file, or several files are meant.
        DataError: What is meant is no language model, or lacks files.
        HardwareError: It is not on this disk and the hub may not or cannot be asked.
    """
    name, choice = parse_reference(ref)
    found = _cached_model(name, choice, places)
    if found is not None:
        return found
    with Repository.open(name, places) as repository:
        if choice is None and is_checkpoint(repository.files):
            return _checkpoint(repository)
        return _model(repository, choose(name, repository.files, choice))


def hub_headers(ref: str, places: Places) -> list[Header]:
    """The headers of a file that need not be a model; of a set, all of them."""
    name, choice = parse_reference(ref)
    for is_local in (True, False):
        opened = Repository.in_cache(name, places) if is_local else Repository.open(name, places)
        if opened is None:
            continue
        with opened as repository:
            try:
                path = choose(name, repository.files, choice)
            except (DataError, UnknownNameError):
                if is_local:
                    continue
                raise
            return _headers(repository, path)[1]
    raise AssertionError


def _cached_model(name: str, choice: str | None, places: Places) -> ModelSpec | None:
    """The model that is meant, where the cache has all of it."""
    opened = Repository.in_cache(name, places)
    if opened is None:
        return None
    with opened as repository:
        try:
            if choice is None and is_checkpoint(repository.files):
                return _checkpoint(repository)
            path = choose(name, repository.files, choice)
        except (DataError, UnknownNameError):
            return None
        if whole_set(path, repository.files)[1]:
            return None
        model = _model(repository, path)
    if choice is None:
        note = f"{path} is the only model of hf:{name} on this disk; the repository may have others"
        return replace(model, notes=(*model.notes, note))
    if choice.lower().endswith(".gguf"):  # its tag may mean another file of the whole repository
        return replace(model, origin=replace(model.origin or Origin(), quant=None))
    return model


def _model(repository: Repository, path: str) -> ModelSpec:
    names, headers = _headers(repository, path)
    own, _ = whole_set(path, repository.files)
    local = repository.cached.get(path)
    others = {
        file: size
        for file, size in repository.files.items()
        if file.lower().endswith(".gguf") and file not in own
    }
    origin = Origin(
        path=str(local) if local is not None and repository.is_local else None,
        repository=repository.name,
        file=path,
        quant=launch_tag(path, repository.files),
        beside=tuple(_companions(repository, others)),
    )
    return model_of(names, headers, origin, f"hf:{repository.name}:{path}")


def _checkpoint(repository: Repository) -> ModelSpec:
    from .safetensors.reader import read_checkpoint

    model = read_checkpoint(RepositoryFolder(repository), repository.name.rpartition("/")[2])
    return replace(model, origin=Origin(repository=repository.name))


class RepositoryFolder:
    """A repository as the place of a checkpoint."""

    def __init__(self, repository: Repository) -> None:
        self.name = f"hf:{repository.name}"
        self._repository = repository

    def files(self) -> Collection[str]:
        return self._repository.files

    def open(self, file: str) -> AbstractContextManager[Ranged]:
        return nullcontext(self._repository.ranged(file, FIRST_OF_SHARD))


def _companions(repository: Repository, files: Mapping[str, int | None]) -> list[Companion]:
    return companions(files, lambda path: f"hf:{repository.name}:{path}")


def _headers(repository: Repository, path: str) -> tuple[list[str], list[Header]]:
    files, missing = whole_set(path, repository.files)
    if missing:
        raise missing_error(
            missing, len(files), f"hf:{repository.name} is not complete: name another file"
        )
    names = [shown(file.rpartition("/")[2]) for file in files]
    headers = [
        header_of(repository.ranged(file, FIRST_OF_SHARD if i else FIRST), names[i])
        for i, file in enumerate(files)
    ]
    return names, headers


class _Remote:
    """What huggingface_hub knows of a repository."""

    def __init__(self, name: str, places: Places) -> None:
        self.name = name
        self._endpoint = places.hub_endpoint
        if places.is_offline:
            raise HardwareError(
                f"hf:{name} is not in the cache as a whole, and HF_HUB_OFFLINE forbids to ask",
                "unset HF_HUB_OFFLINE, or see: nemofit list models --local",
            )
        try:
            import huggingface_hub as hub
            from huggingface_hub import constants, utils
        except ImportError as error:
            raise HardwareError(
                f"hf:{name} is not in the cache, and huggingface_hub is not installed",
                "pip install 'nemofit[hub]'",
            ) from error
        self._hub, self._constants = hub, constants
        self._utils: Any = utils
        try:
            info = Waiting(self._info).result(_LISTING_S)
        except Exception as error:
            raise self._failure(error) from error
        siblings = (info.siblings or [])[:_MOST_FILES]
        self.files: dict[str, int | None] = {s.rfilename: s.size for s in siblings}
        self._revision = info.sha

    def file(self, connections: Connections, path: str, first: int) -> RemoteFile:
        """One file, asked for with the person's token."""
        url = self._hub.hf_hub_url(
            self.name, path, revision=self._revision, endpoint=self._endpoint
        )
        with _no_telemetry(self._constants):
            headers = self._utils.build_hf_headers(
                library_name="nemofit", library_version=__version__
            )
        name = f"hf:{self.name}:{shown(path)}"
        return RemoteFile(connections, url, headers, first, name, self._refusal)

    def _info(self) -> Any:
        api = self._hub.HfApi(
            endpoint=self._endpoint, library_name="nemofit", library_version=__version__
        )
        with _no_telemetry(self._constants):
            return api.model_info(self.name, files_metadata=True, timeout=_TIMEOUT_S)

    def _failure(self, error: Exception) -> NemofitError:
        """What went wrong with the listing, in one line."""
        from huggingface_hub import errors

        response = getattr(error, "response", None)
        status = getattr(response, "status_code", None)
        if isinstance(error, errors.GatedRepoError):
            return self._gated()
        if isinstance(error, errors.RepositoryNotFoundError) or status == 404:
            return self._unknown()
        if isinstance(error, errors.OfflineModeIsEnabled):
            return HardwareError(
                f"hf:{self.name}: huggingface_hub is in offline mode", "unset HF_HUB_OFFLINE"
            )
        if status in (401, 403):
            return self._refused(status)
        if status is not None:
            return HardwareError(
                f"hf:{self.name}: {self._endpoint} answered {status}", "try again later"
            )
        if isinstance(error, TimeoutError) or "Timeout" in type(error).__name__:
            return HardwareError(f"{self._endpoint} does not answer in time", "try again later")
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:120]
        return HardwareError(
            f"cannot reach {self._endpoint}: {reason}",
            "check the network, or HF_ENDPOINT; what is on this disk: nemofit list models --local",
        )

    def _refusal(self, name: str, status: int, answer: Answer) -> NemofitError:
        """What went wrong with a file."""
        code = answer.header("x-error-code")
        if code == "GatedRepo":
            return self._gated()
        if code == "RepoNotFound":
            return self._unknown()
        if status in (401, 403):
            return self._refused(status)
        if status == 404:
            return UnknownNameError("file", name, hint="the repository changed: try again")
        return refusal(name, status, answer)

    def _gated(self) -> HardwareError:
        return HardwareError(
            f"hf:{self.name} is gated: its owner asks everyone to accept conditions first",
            f"accept them at {self._endpoint}/{self.name}, then: hf auth login",
        )

    def _refused(self, status: int) -> HardwareError:
        return HardwareError(
            f"hf:{self.name}: the hub refuses access ({status})",
            "check your token: hf auth login, or HF_TOKEN",
        )

    def _unknown(self) -> UnknownNameError:
        from nemofit.catalog.models import all_models
        from nemofit.catalog.names import near_misses

        known = {repo.repo for card in all_models() for repo in card.gguf}
        near = near_misses(self.name, dict.fromkeys(sorted(known), ()))
        return UnknownNameError(
            "repository",
            f"hf:{self.name}",
            [f"hf:{repo}" for repo in near],
            hint="check the name; where it is private or gated: hf auth login",
        )


@contextmanager
def _no_telemetry(constants: Any) -> Iterator[None]:
    """Keep the client from telling, and from asking another address, what program runs it.

    Source: huggingface_hub, ``utils/_headers.py``, ``utils/_detect_agent.py``.
    """
    before = constants.HF_HUB_DISABLE_TELEMETRY
    constants.HF_HUB_DISABLE_TELEMETRY = True
    try:
        yield
    finally:
        constants.HF_HUB_DISABLE_TELEMETRY = before


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None
