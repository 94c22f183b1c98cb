"""A W&B server on loopback for the unmodified SDK: runs, their rows by offset, files; artifacts and runs are next door.

State is in memory and a server's own. What the SDK asks for and this one doesn't know is null, and in `unresolved`.
Written after what SDK 0.31 sends.
"""

from __future__ import annotations

import base64
import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import RLock, Thread
from typing import Any

import pytest
import wandb

from tests.adapters.wandb.graphql_toy import Query, connection
from tests.adapters.wandb.wandb_artifacts import Artifacts, file_node
from tests.adapters.wandb.wandb_http import Handler, Http
from tests.adapters.wandb.wandb_runs import StoredRun, matches, now, sampled

KEY = "0123456789abcdef" * 2 + "01234567"
"""Forty characters: what the SDK takes for an API key."""
ENTITY = "local"
_USER = {"id": "user", "entity": ENTITY, "username": ENTITY, "email": "local@localhost", "name": ENTITY}
_FIELDS = {
    "displayName": "display_name",
    "groupName": "group",
    "jobType": "job_type",
    "notes": "notes",
    "state": "state",
    "tags": "tags",
    "sweep": "sweep",
}


class WandbServer:
    """A server on a free port from `start` to `stop`; started again, it is on the same port with all it had.

    Attributes:
        runs: By (entity, project, id).
        operations: How often each GraphQL operation came, refused ones too.
        views: Reports and workspaces that were saved, by id.
        unresolved: What the SDK asked for and got null, as nobody has taught the server what it is.
        refused: How often the next GraphQL requests are refused, with which status and headers.
    """

    def __init__(self) -> None:
        self.lock = RLock()
        self.runs: dict[tuple[str, str, str], StoredRun] = {}
        self.blobs: dict[str, bytes] = {}
        self.views: dict[str, dict[str, Any]] = {}
        self.operations: Counter[str] = Counter()
        self.unresolved: set[str] = set()
        self.refused: tuple[int, int, Mapping[str, str]] = (0, 429, {})
        self.artifacts = Artifacts(self)
        self._port = 0
        self._server: Http | None = None

    @property
    def address(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> WandbServer:
        """Serve, in threads of its own."""
        handler = type("Handler", (Handler,), {"owner": self})
        self._server = Http(("127.0.0.1", self._port), handler)
        self._port = self._server.server_address[1]
        Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def stop(self) -> None:
        """Close the port and every connection: from here on nobody answers."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def run(self, project: str, name: str, *, entity: str = ENTITY, create: bool = False) -> StoredRun | None:
        """Return a run, made if it may be."""
        key = (entity, project, name)
        if key not in self.runs and create:
            self.runs[key] = StoredRun(entity, project, name, f"run{len(self.runs)}", now(), name)
        return self.runs.get(key)

    def of(self, project: str) -> list[StoredRun]:
        """Return the runs of a project, oldest first."""
        return [run for run in self.runs.values() if run.project == project]

    def only(self, project: str) -> StoredRun:
        """Return the one run of a project."""
        (run,) = self.of(project)
        return run

    def answer(self, query: Query) -> Any:
        """Return the data of an operation."""
        with self.lock:
            data = query.answer(self._root())
            self.unresolved |= set(query.unresolved)
            return data

    def refusal(self) -> tuple[int, Mapping[str, str]] | None:
        """Return how the request at hand is refused, if it is."""
        with self.lock:
            times, status, headers = self.refused
            if not times:
                return None
            self.refused = (times - 1, status, headers)
            return status, headers

    def stream(self, entity: str, project: str, name: str, content: Mapping[str, Any]) -> None:
        """Take rows and summaries as the file stream brings them: a line replaces an earlier one of its offset."""
        with self.lock:
            run = self.run(project, name, entity=entity, create=True)
            if run is None:
                return
            # What is not a number to JSON is read back as a string.
            for file, chunk in (content.get("files") or {}).items():
                if file == "wandb-history.jsonl":
                    lines = [json.loads(line, parse_constant=str) for line in chunk["content"]]
                    run.lines |= {chunk["offset"] + place: line for place, line in enumerate(lines)}
                elif file == "wandb-summary.json" and chunk["content"]:
                    run.summary = json.loads(chunk["content"][-1], parse_constant=str)
            if content.get("complete"):
                run.state = "failed" if content.get("exitcode") else "finished"

    def _root(self) -> dict[str, Any]:
        return {
            "viewer": _USER | {"flags": "{}", "admin": True, "teams": connection([{"name": ENTITY}])},
            "serverInfo": {"cliVersionInfo": "{}", "latestLocalVersionInfo": None, "features": []},
            "entity": lambda name=None, **_: {"id": "entity", "name": name, "organization": None},
            "project": lambda name=None, entityName=None, **_: self._project(entityName or ENTITY, name),
            "model": lambda name=None, entityName=None, **_: {
                "bucket": lambda name, project=name, **_: self._node(
                    self.run(project, name, entity=entityName or ENTITY)
                ),
            },
            "models": lambda entityName=None, **_: connection(
                [self._project(entityName, project) for project in sorted({run.project for run in self.runs.values()})]
            ),
            "upsertBucket": self._upsert,
            "createRunFiles": self._create_files,
            "upsertView": self._upsert_view,
            "view": lambda id, **_: self.views.get(id),  # noqa: A006  # the schema's name
            "markRunFilesUploaded": lambda **_: {"success": True},
            **self.artifacts.root(),
        }

    def _upsert_view(self, input: Mapping[str, Any], **_: Any) -> dict[str, Any]:  # noqa: A002  # the schema's name
        view = {name: value for name, value in input.items() if not name.endswith("Name") or name == "displayName"}
        made = base64.b64encode(f"View:{len(self.views)}".encode()).decode()
        view |= {"id": input.get("id") or made, "createdAt": now(), "updatedAt": now()}
        view["project"] = {"id": "p", "name": input.get("projectName"), "entityName": input.get("entityName")}
        self.views[view["id"]] = view
        return {"view": view, "inserted": True}

    def _project(self, entity: str, name: str | None) -> dict[str, Any] | None:
        if name is None or not any(run.project == name for run in self.runs.values()):
            return None
        return {
            "__typename": "Project",
            "id": name,
            "internalId": "1",
            "name": name,
            "entityName": entity,
            "entity": {"id": "entity", "name": entity},
            "readOnly": False,
            "isBenchmark": False,
            "createdAt": now(),
            "runCount": lambda filters=None, **_: len(self._found(entity, name, filters)),
            "runs": lambda filters=None, first=50, after=None, **_: self._page(
                self._found(entity, name, filters), first, after
            ),
            "run": lambda name, project=name, **_: self._node(self.run(project, name, entity=entity)),
            "artifactCollection": lambda name, project=name, **_: {
                "__typename": "ArtifactSequence",
                "artifactMembership": lambda aliasName, **_: self.artifacts.membership(
                    entity, project, f"{name}:{aliasName}"
                ),
            },
            "artifactCollectionMembership": lambda name, project=name, **_: self.artifacts.membership(
                entity, project, name
            ),
        }

    def _found(self, entity: str, project: str, filters: str | None) -> list[StoredRun]:
        wanted = json.loads(filters) if filters else {}
        return [r for (e, p, _), r in self.runs.items() if (e, p) == (entity, project) and matches(r, wanted)]

    def _page(self, runs: Sequence[StoredRun], first: int, after: str | None) -> dict[str, Any]:
        start = int(after) + 1 if after else 0
        part = [self._node(run) for run in runs[start : start + first]]
        return connection(part, start=start, more=start + first < len(runs))

    def _node(self, run: StoredRun | None) -> dict[str, Any] | None:
        if run is None:
            return None
        rows = run.rows
        return {
            "__typename": "Run",
            "id": run.storage_id,
            "name": run.name,
            "displayName": run.display_name,
            "projectId": "1",
            "sweepName": run.sweep,
            "state": run.state,
            "config": json.dumps(run.config),
            "summaryMetrics": json.dumps(run.summary),
            "systemMetrics": "{}",
            "group": run.group,
            "jobType": run.job_type,
            "tags": run.tags,
            "notes": run.notes,
            "description": None,
            "commit": None,
            "readOnly": False,
            "stopped": False,
            "createdAt": run.created,
            "heartbeatAt": run.created,
            "historyLineCount": len(rows),
            "logLineCount": 0,
            "eventsLineCount": 0,
            "historyTail": json.dumps([json.dumps(row) for row in rows[-1:]]),
            "eventsTail": "[]",
            "wandbConfig": json.dumps({"t": {}}),  # not null: the run can be resumed
            "user": _USER,
            "project": {
                "id": run.project,
                "internalId": "1",
                "name": run.project,
                "entity": {"id": "entity", "name": run.entity},
            },
            "historyKeys": {"lastStep": run.last_step, "sets": [], "keys": {}},
            "history": lambda minStep=0, maxStep=None, samples=None, **_: [
                json.dumps(row) for row in rows if (minStep or 0) <= row["_step"] < (maxStep or 1 << 60)
            ][:samples],
            "sampledHistory": lambda specs, **_: [sampled(rows, json.loads(spec)) for spec in specs],
            "parquetHistory": lambda **_: {"parquetUrls": [], "liveData": rows},
            "fileCount": len(run.files),
            "files": lambda names=None, **_: connection(
                [file_node(self, path, name) for name, path in run.files.items() if not names or name in names]
            ),
            "outputArtifacts": lambda **_: connection(self.artifacts.outputs(run.name)),
            "inputArtifacts": lambda **_: connection(self.artifacts.inputs(run.name)),
        }

    def _upsert(self, input: Mapping[str, Any]) -> dict[str, Any]:  # noqa: A002  # the schema's name
        given = {name: value for name, value in input.items() if value is not None}
        found = next((run for run in self.runs.values() if run.storage_id == given.get("id")), None)
        place = (given.get("modelName") or "uncategorized", str(given.get("name")))
        entity = given.get("entityName") or ENTITY
        inserted = found is None and self.run(*place, entity=entity) is None
        run = found or self.run(*place, entity=entity, create=True)
        for name in _FIELDS.keys() & given.keys():
            setattr(run, _FIELDS[name], given[name])
        if run is not None and "config" in given:
            run.config = json.loads(given["config"])
        if run is not None and "summaryMetrics" in given:
            run.summary = json.loads(given["summaryMetrics"], parse_constant=str)
        if run is not None and found is None:
            run.state = "running"  # opened, maybe once more
        return {"bucket": self._node(run), "inserted": inserted}

    def _create_files(self, input: Mapping[str, Any]) -> dict[str, Any]:  # noqa: A002  # the schema's name
        run = self.run(input["projectName"], input["runName"], entity=input.get("entityName") or ENTITY, create=True)
        files = {name: f"/run/{input['runName']}/{name}" for name in input["files"]}
        if run is None:
            return {}
        run.files |= files
        return {
            "runID": run.storage_id,
            "uploadHeaders": [],
            "files": [file_node(self, path, name) for name, path in files.items()],
        }


def environment(server: WandbServer, folder: Path) -> dict[str, str]:
    """Return the variables that lead the SDK to this server, and its files into a folder."""
    folders = {f"WANDB_{kind}": folder / kind.lower() for kind in ("DIR", "CACHE_DIR", "CONFIG_DIR", "DATA_DIR")}
    for place in folders.values():
        place.mkdir(parents=True, exist_ok=True)
    return {
        "WANDB_BASE_URL": server.address,
        "WANDB_API_KEY": KEY,
        "WANDB_SILENT": "true",
        "BIMIX_CACHE": str(folder / "bimix-cache"),
        **{name: str(place) for name, place in folders.items()},
    }


def look_again() -> None:
    """Have the SDK look at the variables: it keeps for good what it sees first, in whichever test that is."""
    wandb.teardown()
    wandb.setup()


@contextmanager
def serving(folder: Path, **variables: str) -> Iterator[WandbServer]:
    """Serve, with this process's SDK led there, and further variables set; its sidecar ends with the server."""
    server = WandbServer().start()
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("WANDB_")]:
            patch.delenv(name)
        for name, value in (environment(server, folder) | variables).items():
            patch.setenv(name, value)
        look_again()
        try:
            yield server
        finally:
            wandb.teardown()
            server.stop()
