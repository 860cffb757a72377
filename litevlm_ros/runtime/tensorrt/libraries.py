"""The choice between cuDNN and TensorRT for a part of a layer: cuDNN where it is right on this GPU, else TensorRT."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import ClassVar, TypeVar

from litevlm_ros.errors import EngineError
from litevlm_ros.runtime.tensorrt.cudnn_library import Cudnn, CudnnRefusal
from litevlm_ros.runtime.tensorrt.device import CudaDevice
from litevlm_ros.runtime.tensorrt.memory import DeviceMemory

_LOGGER = logging.getLogger(__name__)
_Kernel = TypeVar("_Kernel")


class Libraries:
    """All users of a device share it, and with it one handle of cuDNN. The device must be current in every call."""

    _of_devices: ClassVar[dict[CudaDevice, Libraries]] = {}

    def __init__(self, device: CudaDevice, memory: DeviceMemory) -> None:
        self._device = device
        self._users = 0
        self._warned = False
        self._cudnn: Cudnn | None = None
        self._missing = ""
        try:
            self._cudnn = Cudnn(device, memory)
        except CudnnRefusal as refusal:
            self._missing = str(refusal)

    @classmethod
    def borrow(cls, device: CudaDevice, memory: DeviceMemory) -> Libraries:
        """Returns those of `device`, which are loaded for their first user."""
        libraries = cls._of_devices.get(device) or cls(device, memory)
        cls._of_devices[device] = libraries
        libraries._users += 1
        return libraries

    @property
    def cudnn_version(self) -> str:
        """The version of cuDNN; '' if it is missing."""
        return self._cudnn.version if self._cudnn is not None else ""

    def give_back(self) -> None:
        """Unloads them after the last user. No kernel may be running."""
        self._users -= 1
        if not self._users:
            del self._of_devices[self._device]
            if self._cudnn is not None:
                self._cudnn.close()

    def make(
        self,
        what: str,
        by_cudnn: Callable[[Cudnn], _Kernel],
        by_engine: Callable[[], _Kernel],
        check: Callable[[_Kernel], str],
    ) -> _Kernel:
        """Returns the first of both that passes its `check`, which says what is wrong. `what` is for messages.

        Raises EngineError if none does, or if there is no room.
        """
        started = time.monotonic()
        try:
            kernel = self._checked_cudnn(by_cudnn, check)
        except CudnnRefusal as refusal:
            reason = str(refusal)
        else:
            _LOGGER.debug("cuDNN computes %s; made and checked in %.2f s", what, time.monotonic() - started)
            return kernel
        self._say(what, reason)
        kernel = by_engine()
        wrong = check(kernel)
        if wrong:
            raise EngineError(
                f"nothing computes {what} right on {self._device.name}: TensorRT: {wrong}; cuDNN: {reason}. "
                "Update TensorRT or cuDNN, or set backend to onnxruntime"
            )
        _LOGGER.debug("TensorRT computes %s; made and checked in %.2f s", what, time.monotonic() - started)
        return kernel

    def _checked_cudnn(self, by_cudnn: Callable[[Cudnn], _Kernel], check: Callable[[_Kernel], str]) -> _Kernel:
        """Returns cuDNN's kernel. Raises CudnnRefusal with the reason why it cannot be used."""
        if self._cudnn is None:
            raise CudnnRefusal(self._missing)
        kernel = by_cudnn(self._cudnn)
        wrong = check(kernel)
        if wrong:
            raise CudnnRefusal(f"cuDNN {self._cudnn.version} is not used, {wrong}")
        return kernel

    def _say(self, what: str, reason: str) -> None:
        """Warns once for a device; what follows is for those who look closely."""
        _LOGGER.log(
            logging.DEBUG if self._warned else logging.WARNING,
            "TensorRT computes %s, which is slower than cuDNN: %s",
            what,
            reason,
        )
        self._warned = True
