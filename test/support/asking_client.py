"""A client of the action `~/ask`. As a program it asks one question about an image and prints the answer's pieces."""

from __future__ import annotations

import os
import sys
from typing import Any

from ros_process import Client, image


class Goal:
    """One goal, its feedback and its result."""

    def __init__(self) -> None:
        self.feedback: list[Any] = []
        self.handle: Any = None
        self._result: Any = None

    def is_done(self) -> bool:
        return self._result is not None and bool(self._result.done())

    def responded(self, future: Any) -> None:
        self.handle = future.result()
        if self.handle.accepted:
            self._result = self.handle.get_result_async()

    def result(self) -> tuple[int, Any]:
        response = self._result.result()
        return response.status, response.result


class AskingClient(Client):
    """A client that asks by the action as well."""

    def __init__(self, domain: int) -> None:
        from rclpy.action import ActionClient

        from litevlm_ros.action import Ask

        super().__init__(domain)
        self._ask: Any = ActionClient(self.node, Ask, "/litevlm/ask")

    def close(self) -> None:
        self._ask.destroy()
        super().close()

    def start(self, question: str, **fields: Any) -> Goal:
        """A goal of which the node has not said yet whether it accepts it: it has no handle."""
        from litevlm_ros.action import Ask

        self.wait_for(self._ask.server_is_ready)
        goal = Goal()
        request = Ask.Goal(question=question, **fields)
        sent = self._ask.send_goal_async(request, lambda message: goal.feedback.append(message.feedback))
        sent.add_done_callback(goal.responded)
        return goal

    def offer(self, question: str, **fields: Any) -> Goal:
        """A goal that the node has accepted or rejected."""
        goal = self.start(question, **fields)
        self.wait_for(lambda: goal.handle is not None)
        return goal

    def send(self, question: str, **fields: Any) -> Goal:
        """A goal that the node has accepted."""
        goal = self.offer(question, **fields)
        assert goal.handle.accepted
        return goal

    def cancel(self, goal: Goal) -> None:
        """Asks for it; what became of the goal is in its result."""
        self.wait_for(goal.handle.cancel_goal_async().done)

    def outcome(self, goal: Goal) -> tuple[int, Any]:
        """Status and result, once there is one."""
        self.wait_for(goal.is_done)
        return goal.result()


def main() -> None:
    client = AskingClient(int(os.environ["ROS_DOMAIN_ID"]))
    goal, heard = client.send(sys.argv[1], images=[image()]), 0
    while not goal.is_done():
        client.spin()
        for feedback in goal.feedback[heard:]:
            print(feedback.piece, flush=True)
        heard = len(goal.feedback)


if __name__ == "__main__":
    main()
