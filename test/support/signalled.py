"""A module's main function that gets signals at given places: `python signalled.py MODULE PLACES ARGUMENT...`.

PLACES is a comma-separated list of FILE:FUNCTION, such as rclpy/node.py:destroy_node, where FILE is the end of a path.
When such a function is entered for the first time, in any thread, the process sends itself SIGINT.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
import threading
from types import FrameType
from typing import Any


def main() -> int:
    places = [place.split(":") for place in sys.argv[2].split(",")]

    def notice(frame: FrameType, event: str, argument: Any) -> None:
        if event != "call":
            return
        for place in list(places):
            if frame.f_code.co_name == place[1] and frame.f_code.co_filename.endswith(place[0]):
                places.remove(place)
                print("signalled at", *place, flush=True)
                os.kill(os.getpid(), signal.SIGINT)

    module = importlib.import_module(sys.argv[1])
    sys.argv[1:] = sys.argv[3:]
    threading.setprofile(notice)
    sys.setprofile(notice)
    return int(module.main())


if __name__ == "__main__":
    sys.exit(main())
