"""Ask a server of this machine to do something, within limits of time and size."""

from __future__ import annotations

import json

from nemofit.errors import HardwareError

_MOST_BYTES = 1 << 22


def post(host: str, port: int, path: str, question: object, seconds: float) -> object:
    """The JSON that a server on this machine answers.

    Args:
        host: An address of this machine; nothing else is asked.
        question: What is sent, as JSON.
        seconds: Longest wait for each part of the answer.

    Raises:
        HardwareError: It refuses, does not answer, or answers something else.
    """
    from http.client import HTTPConnection, HTTPException

    if host not in ("127.0.0.1", "::1"):
        raise ValueError(host)
    where = f"{host}:{port}{path}"
    connection = HTTPConnection(host, port, timeout=seconds)
    try:
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        connection.request("POST", path, body=json.dumps(question), headers=headers)
        answer = connection.getresponse()
        body = answer.read(_MOST_BYTES + 1)
        if answer.status != 200:
            said = body[:200].decode("utf-8", "replace").replace("\n", " ")
            raise HardwareError(f"{where} answers {answer.status}: {said}", "see the server's log")
        if len(body) > _MOST_BYTES:
            raise HardwareError(f"{where} answers more than 4 MiB", "is this the engine's address?")
        found: object = json.loads(body)
        return found
    except TimeoutError as error:
        raise HardwareError(
            f"{where} did not answer within {seconds:g} s", "see the server's log"
        ) from error
    except (OSError, HTTPException, ValueError, RecursionError) as error:
        if isinstance(error, HardwareError):
            raise
        raise HardwareError(f"{where} gives no answer: {error}", "see the server's log") from error
    finally:
        connection.close()
