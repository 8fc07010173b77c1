"""NVIDIA's management library through the ``pynvml`` module of nvidia-ml-py.

Every answer is a value or a reason; return codes and what they mean: NVIDIA's nvml.h.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import Any

from .site import Site

LIBRARY = "libnvidia-ml.so.1"
_WSL_LIBRARY = "/usr/lib/wsl/lib/libnvidia-ml.so.1"

NOT_SUPPORTED, FUNCTION_NOT_FOUND, STRUCTURES_DIFFER = 3, 13, 25
DRIVER_NOT_LOADED, LIBRARY_NOT_FOUND = 9, 12
_LOST = {15, 16}

_REASONS = {
    1: "the driver library was shut down",
    2: "the driver refuses the question",
    3: "the driver does not report it",
    4: "no permission",
    6: "not found",
    13: "the driver is too old to tell",
    15: "the card is lost (fallen off the bus): restart the machine",
    16: "the card needs a reset (nvidia-smi --gpu-reset) or a restart of the machine",
    17: "the operating system or a container rule blocks it",
    18: "driver library and kernel module differ: restart the machine",
    25: "driver and binding disagree about a structure",
    999: "the driver reports an unknown error",
}


class DriverError(Exception):
    """The driver as a whole cannot be asked; the message says why and what to do."""


class CardError(Exception):
    """One card cannot be asked any more; the message says why."""


def load() -> ModuleType:
    """Load and initialize the library.

    Raises:
        DriverError: There is no driver, or it does not answer.
    """
    try:
        pynvml = import_module("pynvml")
    except ImportError as e:
        raise DriverError(
            f"the Python module pynvml is missing ({e}): pip install nvidia-ml-py"
        ) from e
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as e:
        raise DriverError(_init_reason(e.value)) from e
    except (OSError, AttributeError) as e:
        raise DriverError(f"the driver library cannot be used: {e}") from e
    return pynvml


def find_library() -> None:
    """Fail early where there is no library: importing the binding costs more than all the rest.

    Raises:
        DriverError: It is missing, or the loader does not take it.
    """
    import ctypes
    import os

    try:
        ctypes.CDLL(LIBRARY)
    except OSError as missing:
        if os.path.exists(_WSL_LIBRARY):
            try:
                ctypes.CDLL(_WSL_LIBRARY)  # the binding then finds it by its soname
            except OSError as e:
                raise DriverError(f"{_WSL_LIBRARY} cannot be loaded: {e}") from e
        elif "No such file" in str(missing):
            raise DriverError(f"no driver library ({LIBRARY}) on this system") from missing
        else:
            raise DriverError(f"{LIBRARY} cannot be loaded: {missing}") from missing


def _init_reason(code: int) -> str:
    if code == LIBRARY_NOT_FOUND:
        return "no driver library on this system"
    if code == DRIVER_NOT_LOADED:
        return "the kernel driver is not loaded (in a container: start it with --gpus all)"
    if code == 18:
        return (
            "the driver needs a restart: library and kernel module have different versions, "
            "usually after an upgrade; restart the machine"
        )
    if code == 4:
        return "no permission for the driver's device files (/dev/nvidia*)"
    return reason(code)


def reason(code: int) -> str:
    """A return code in words."""
    return _REASONS.get(code, f"the driver answers with code {code}")


class Asker:
    """Asks about one card and keeps, by reason, what stays unknown.

    Attributes:
        unknown: Reason -> what could not be read for it.
        code: Return code of the last question, 0: success.
    """

    def __init__(self, nvml: ModuleType) -> None:
        self.nvml = nvml
        self.unknown: dict[str, list[str]] = {}
        self.code = 0

    def __call__(self, what: str, function: str, *args: object, **kwargs: object) -> Any | None:
        """The answer, or None with the reason kept under ``what``; "" keeps no reason.

        Raises:
            CardError: The card is lost.
        """
        self.code = 0
        try:
            return getattr(self.nvml, function)(*args, **kwargs)
        except self.nvml.NVMLError as e:
            self.code = int(e.value)
            why = reason(self.code)
        except Exception as e:  # a missing symbol has several exceptions of the binding's own
            self.code = FUNCTION_NOT_FOUND
            why = f"the binding cannot read it ({type(e).__name__})"
        if self.code in _LOST:
            raise CardError(why)
        if what:
            self.unknown.setdefault(why, []).append(what)
        return None

    def text(self, what: str, function: str, *args: object) -> str | None:
        """A string; old bindings give bytes."""
        value = self(what, function, *args)
        if isinstance(value, bytes):
            value = value.decode("utf-8", "replace")
        return str(value).strip() or None if value is not None else None

    def notes(self) -> tuple[str, ...]:
        """One line for each reason."""
        return tuple(f"{', '.join(w)}: {why}" for why, w in self.unknown.items())


def module_version(site: Site) -> str | None:
    """Version of the loaded kernel module, which NVML cannot tell when it does not match."""
    words = (site.text("/proc/driver/nvidia/version") or "").split()
    return next((w for w in words if w[0].isdigit() and w.count(".") >= 1), None)
