"""Ask a server of this machine, within limits of time and size; no other machine is asked."""

from __future__ import annotations

import json

from nemofit.errors import HardwareError

from .site import Waiting

_GET_S = 1.0
_MOST_BYTES = 1 << 22


def ask_server(host: str, port: int, path: str, seconds: float = _GET_S) -> object | None:
    """The JSON that a server answers, None where there is none."""
    try:
        return _answer(host, port, "GET", path, None, seconds)
    except HardwareError:
        return None


def post(host: str, port: int, path: str, question: object, seconds: float) -> object:
    """The JSON that a server answers to a question.

    Args:
        question: What is sent, as JSON.
        seconds: Longest wait for the whole answer.

    Raises:
        HardwareError: It refuses, does not answer, or answers something else.
    """
    return _answer(host, port, "POST", path, json.dumps(question), seconds)


def _answer(
    host: str, port: int, method: str, path: str, body: str | None, seconds: float
) -> object:
    if host not in ("127.0.0.1", "::1"):
        raise ValueError(host)
    where = f"{host}:{port}{path}"
    try:
        status, said = Waiting(lambda: _exchange(host, port, method, path, body, seconds)).result(
            seconds
        )
        if status != 200:
            start = said[:200].decode("utf-8", "replace").replace("\n", " ")
            raise HardwareError(f"{where} answers {status}: {start}", _LOG)
        if len(said) > _MOST_BYTES:
            raise HardwareError(f"{where} answers more than 4 MiB", "is this the engine's address?")
        found: object = json.loads(said)
        return found
    except TimeoutError as error:
        raise HardwareError(f"{where} did not answer within {seconds:g} s", _LOG) from error
    except (OSError, ValueError, RecursionError) as error:
        raise HardwareError(f"{where} gives no answer: {error}", _LOG) from error


_LOG = "see the server's log"


def _exchange(
    host: str, port: int, method: str, path: str, body: str | None, seconds: float
) -> tuple[int, bytes]:
    """Status and the beginning of an answer; each wait takes at most ``seconds``."""
    from http.client import HTTPConnection, HTTPException

    connection = HTTPConnection(host, port, timeout=seconds)
    headers = {"Accept": "application/json"}
    if body is not None:
        headers["Content-Type"] = "application/json"
    try:
        connection.request(method, path, body=body, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read(_MOST_BYTES + 1)
    except HTTPException as error:
        raise ConnectionError(str(error) or type(error).__name__) from error
    finally:
        connection.close()
