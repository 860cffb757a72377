"""A node as a process with a scripted pipeline, and a client that talks to it over DDS."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ros_domains import next_domain
from ros_process import ROOT, Client, process, wait_for

SUPPORT = ROOT / "test" / "support"
TOPIC = "/front/image_raw"


class Robot:
    """A node with a scripted pipeline, one camera and a client, on a domain of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.domain = next_domain()
        self.client = Client(self.domain)
        self.log = folder / "node.log"

    @contextmanager
    def node(self, *parameters: str, seconds: float = 0.0) -> Iterator[subprocess.Popen[bytes]]:
        """The node, active; it must still run at the end, without a traceback in its log."""
        chosen = ("cameras:=[front]", f"camera_topics:=[{TOPIC}]", "caption_period:=0.0", *parameters)
        arguments = ["--ros-args", *(part for parameter in chosen for part in ("-p", parameter))]
        command = [str(SUPPORT / "scripted_node.py"), "--seconds", str(seconds), *arguments]
        with process(command, self.log, self.domain) as node:
            wait_for(lambda: "Ready" in self.log.read_text())
            yield node
            assert node.poll() is None, self.log.read_text()
            assert "Traceback" not in self.log.read_text()

    @contextmanager
    def process(self, script: str, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
        """Another process of test/support/."""
        with process([str(SUPPORT / script), *arguments], self.folder / f"{script}.log", self.domain) as child:
            yield child

    def ask_until_answered(self, question: str = "What?", **fields: Any) -> Any:
        """Asks again while cameras are still being found."""

        def answer() -> Any:
            response = self.client.ask(question, **fields)
            return response if response.success else None

        return self.client.wait_for(answer)
