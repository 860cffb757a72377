"""The node's process with a scripted pipeline: `python scripted_node.py --seconds 0.5 --ros-args ...`."""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any

from scripted_pipeline import ScriptedPipeline

from litevlm_ros.node import process as node


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=0.0, help="time of one answer")
    parser.add_argument("--load-seconds", type=float, default=0.0, help="in a call that cannot be interrupted")
    parser.add_argument("--failing-service", action="store_true", help="offer ~/fail, whose callback raises")
    options, others = parser.parse_known_args()

    def load(config: Any) -> ScriptedPipeline:
        print("loading", flush=True)
        time.sleep(options.load_seconds)
        return ScriptedPipeline(options.seconds)

    def make_node(stop: Any) -> Any:
        from litevlm_ros.node.lifecycle import LiteVLMNode
        from litevlm_ros.srv import Query

        node = LiteVLMNode(stop, load)
        if options.failing_service:
            node.create_service(Query, "~/fail", lambda request, response: 1 / 0)
        return node

    return node.main([sys.argv[0], *others], make_node)


if __name__ == "__main__":
    sys.exit(main())
