"""A W&B server as far as its client asks one about rows: it keeps what it is sent, and says how far a run got.

What it has to answer is in W&B's own client, github.com/wandb/wandb: core/api/graphql (the questions),
core/internal/runbranch/resume.go (runs that go on), core/internal/filestream (rows). A row is sent with the number of
its line: the same line sent again takes the place of the first. An agent of a sweep is given the runs that a test
says. It knows nothing of artifacts.
"""

from __future__ import annotations

import gzip
import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

HISTORY, EVENTS, SUMMARY, CONSOLE = "wandb-history.jsonl", "wandb-events.jsonl", "wandb-summary.json", "output.log"
ROWS = "rows"
WHO = {"id": "1", "username": "somebody", "entity": "lab", "email": "", "admin": False, "flags": "{}"}
API_KEY = "k" * 40


@dataclass
class ServedRun:
    """What arrived of a run: its configuration, the lines of each file by their numbers, and whether it has ended.

    `n_replaced` counts lines of its history that were sent again.
    """

    config: str = "{}"
    lines: dict[str, dict[int, str]] = field(default_factory=dict)
    n_replaced: int = 0
    complete: bool = False

    def rows(self) -> list[dict[str, Any]]:
        """The history, in the order of its lines; a line that is lacking is an error."""
        lines = self.lines.get(HISTORY, {})
        return [json.loads(lines[number]) for number in range(len(lines))]

    def summary(self) -> dict[str, Any]:
        """Names and last values."""
        lines = self.lines.get(SUMMARY, {})
        return json.loads(lines[max(lines)]) if lines else {}


class WandbServer:
    """The answers. `runs` is what arrived, by the id of the run.

    Questions that are in `stalls` get no answer; rows that come while ROWS is in it are lost. `sweep` is what the
    file of a sweep says, `chosen` the parameters of its runs, by their ids; an agent is given all of them at once.
    """

    def __init__(self) -> None:
        self.runs: dict[str, ServedRun] = {}
        self.stalls: set[str] = set()
        self.url = ""
        self.sweep: dict[str, Any] = {}
        self.chosen: dict[str, dict[str, Any]] = {}

    def answer(self, question: str, given: dict[str, Any]) -> dict[str, Any] | None:
        """Of GraphQL: who the user is, whether a run goes on, that a run begins, where files go. Else None."""
        asked = re.search(r"(?:query|mutation)\s+(\w+)", question)
        operation = asked[1] if asked else ""
        self.stalled(operation)
        match operation:
            case "Viewer":
                return {"viewer": WHO}
            case "ServerFeaturesQuery":
                return {"serverInfo": {"features": []}}
            case "RunResumeStatus":
                return {"model": {**_project(given), "bucket": self._resume(given["name"])}}
            case "UpsertBucket":
                is_new = given["name"] not in self.runs
                run = self.runs.setdefault(given["name"], ServedRun())
                run.config = given.get("config") or run.config
                about = dict.fromkeys(("description", "sweepName", "historyLineCount"))
                names = dict.fromkeys(("id", "name", "displayName"), given["name"])
                bucket = {**about, **names, "config": run.config, "project": _project(given)}
                return {"upsertBucket": {"bucket": bucket, "inserted": is_new}}
            case "CreateRunFiles":
                files = [{"name": one, "uploadUrl": f"{self.url}/upload/{one}"} for one in given["files"]]
                return {"createRunFiles": {"runID": given["run"], "uploadHeaders": [], "files": files}}
            case "SweepWithRuns":
                return {"project": {"sweep": {"config": json.dumps(self.sweep), "runs": {"edges": []}}}}
            case "CreateAgent":
                return {"createAgent": {"agent": {"id": "a"}}}
            case "Heartbeat":
                commands = [self._command(name, values) for name, values in self.chosen.items()]
                self.chosen = {}
                return {"agentHeartbeat": {"agent": {"id": "a"}, "commands": json.dumps(commands)}}
        return None

    def _command(self, name: str, values: dict[str, Any]) -> dict[str, Any]:
        args = {key: {"value": value} for key, value in values.items()}
        return {"type": "run", "run_id": name, "program": self.sweep["program"], "args": args}

    def stalled(self, operation: str) -> bool:
        """Wait while this operation stalls; whether it did."""
        stalls = operation in self.stalls
        while operation in self.stalls:
            time.sleep(0.1)
        return stalls

    def _resume(self, name: str) -> dict[str, Any] | None:
        if name not in self.runs:
            return None
        run = self.runs[name]
        history, events = run.lines.get(HISTORY, {}), run.lines.get(EVENTS, {})
        started = json.loads(run.config).get("_wandb", {}).get("value", {}).get("t")
        return {
            **dict.fromkeys(("id", "name", "displayName"), name),
            "config": run.config,
            "summaryMetrics": json.dumps(run.summary()),
            "historyLineCount": len(history),
            "eventsLineCount": len(events),
            "logLineCount": len(run.lines.get(CONSOLE, {})),
            "historyTail": json.dumps([history[max(history)]] if history else []),
            "eventsTail": json.dumps([events[max(events)]] if events else []),
            "tags": [],
            "notes": "",
            "wandbConfig": json.dumps({"t": started} if started else {}),
        }

    def take(self, name: str, sent: dict[str, Any]) -> None:
        """Lines of files of a run."""
        run = self.runs[name]
        for file, part in (sent.get("files") or {}).items():
            lines = run.lines.setdefault(file, {})
            given = {part["offset"] + k: line for k, line in enumerate(part["content"])}
            run.n_replaced += len(given.keys() & lines.keys()) if file == HISTORY else 0
            lines.update(given)
        run.complete = run.complete or bool(sent.get("complete"))


def _project(given: dict[str, Any]) -> dict[str, Any]:
    return {"id": "p", "name": given.get("project"), "entity": {"id": "e", "name": WHO["entity"]}}


@contextmanager
def wandb_server() -> Iterator[WandbServer]:
    """A server on a free port of this machine, until the block ends."""
    served = WandbServer()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def body(self) -> bytes:
            data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            return gzip.decompress(data) if self.headers.get("Content-Encoding") == "gzip" else data

        def say(self, answer: dict[str, Any], code: int = 200) -> None:
            data = json.dumps(answer).encode()
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def do_POST(self) -> None:
            data = self.body()
            if self.path.startswith("/graphql"):
                asked = json.loads(data)
                answer = served.answer(asked["query"], asked.get("variables") or {})
                self.say({"errors": [{"message": "not known here"}]} if answer is None else {"data": answer})
            elif self.path.endswith("/file_stream"):
                if served.stalled(ROWS):
                    self.close_connection = True
                    return
                served.take(self.path.split("/")[-2], json.loads(data))
                self.say({"exitcode": None, "limits": {}})
            else:
                self.say({}, 404)

        def do_PUT(self) -> None:
            self.body()
            self.say({})

        def log_message(self, *_: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: Any) -> None:
            """A client that is killed closes its connections."""

    with Server(("127.0.0.1", 0), Handler) as http:
        served.url = f"http://127.0.0.1:{http.server_address[1]}"
        thread = threading.Thread(target=http.serve_forever, daemon=True)
        thread.start()
        try:
            yield served
        finally:
            served.stalls.clear()
            http.shutdown()
            thread.join()
