"""A client as a process, to be killed: `python asking_process.py query|ask QUESTION` asks and reads no answer."""

from __future__ import annotations

import sys
import time

import rclpy
from rclpy.action import ActionClient
from ros_process import image

from litevlm_ros.action import Ask
from litevlm_ros.srv import Query


def main(way: str, question: str) -> None:
    rclpy.init()
    node = rclpy.create_node("asking")
    if way == "query":
        client = node.create_client(Query, "/litevlm/query")
        client.wait_for_service()
        client.call_async(Query.Request(question=question, images=[image(1)]))
    else:
        actions = ActionClient(node, Ask, "/litevlm/ask")
        actions.wait_for_server()
        heard = []
        goal = Ask.Goal(question=question, images=[image(1)])
        rclpy.spin_until_future_complete(node, actions.send_goal_async(goal, heard.append))
        while not heard:
            rclpy.spin_once(node)
    print("asked", flush=True)
    time.sleep(60)


if __name__ == "__main__":
    main(*sys.argv[1:])
