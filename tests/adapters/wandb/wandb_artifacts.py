"""Artifacts of the loopback W&B server: collections, versions, aliases that one version holds, and who used what."""

from __future__ import annotations

import json
import urllib.parse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.adapters.wandb.graphql_toy import connection

if TYPE_CHECKING:
    from tests.adapters.wandb.wandb_server import WandbServer

Collection = tuple[str, str, str]
"""Entity, project, name."""


@dataclass
class StoredArtifact:
    """A version of a collection, or what becomes one when it is committed."""

    id: str
    collection: Collection
    kind: str
    digest: str
    metadata: dict[str, Any]
    wished: list[str]
    run: str | None
    client: str | None
    version: int | None = None
    manifest: str = ""
    contents: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Bytes of its files, as its manifest says."""
        return sum(int(entry.get("size", 0)) for entry in self.contents.values())


class Artifacts:
    """All artifacts of a server.

    Attributes:
        aliases: Of a collection: alias → id; an alias is of one version.
        used: (run, artifact id) in the order of use.
    """

    def __init__(self, server: WandbServer) -> None:
        self._server = server
        self.all: dict[str, StoredArtifact] = {}
        self.aliases: dict[Collection, dict[str, str]] = {}
        self.used: list[tuple[str, str]] = []

    def versions(self, project: str, name: str) -> list[StoredArtifact]:
        """Return what was committed of a collection, in order."""
        found = (a for a in self.all.values() if a.collection[1:] == (project, name) and a.version is not None)
        return sorted(found, key=lambda artifact: artifact.version or 0)

    def named(self, collection: Collection, alias: str) -> StoredArtifact | None:
        """Return the version that an alias, `v3` or a digest names."""
        found = self.aliases.get(collection, {}).get(alias)
        if found is not None:
            return self.all[found]
        for artifact in self.versions(*collection[1:]):
            if alias in {f"v{artifact.version}", artifact.digest}:
                return artifact
        return None

    def text(self, artifact: StoredArtifact, path: str) -> str:
        """Return a file of a version."""
        return self._server.blobs[f"/artifact/{artifact.id}/{path}"].decode()

    def root(self) -> dict[str, Any]:
        """Return the root's fields that are about artifacts."""
        return {
            "artifact": lambda id, **_: self.node(self.all[id]) if id in self.all else None,  # noqa: A006  # its name
            "createArtifact": self._create,
            "createArtifactManifest": self._create_manifest,
            "updateArtifactManifest": self._update_manifest,
            "createArtifactFiles": self._create_files,
            "commitArtifact": self._commit,
            "useArtifact": self._use,
            "updateArtifact": self._update,
            "addAliases": self._add_aliases,
            "deleteAliases": self._delete_aliases,
            "clientIDMapping": lambda clientID, **_: next(
                ({"serverID": artifact.id} for artifact in self.all.values() if artifact.client == clientID), None
            ),
        }

    def membership(self, entity: str, project: str, full: str) -> dict[str, Any] | None:
        """Return what `NAME:ALIAS` stands for."""
        name, _, alias = full.partition(":")
        artifact = self.named((entity, project, name), alias or "latest")
        if artifact is None:
            return None
        return {
            "__typename": "ArtifactCollectionMembership",
            "id": f"membership-{artifact.id}",
            "createdAt": "2026-01-01T00:00:00",
            "versionIndex": artifact.version,
            "aliases": self._aliases_of(artifact),
            "artifactCollection": self._collection(artifact),
            "artifact": self.node(artifact),
            "files": lambda names=None, **_: connection(
                [
                    file_node(self._server, f"/artifact/{artifact.id}/{path}", path)
                    | {"digest": entry["digest"], "md5": entry["digest"], "sizeBytes": entry.get("size", 0)}
                    for path, entry in artifact.contents.items()
                    if not names or path in names
                ]
            ),
        }

    def node(self, artifact: StoredArtifact) -> dict[str, Any]:
        """Return an artifact's fields."""
        created = "2026-01-01T00:00:00"
        return {
            "__typename": "Artifact",
            "id": artifact.id,
            "state": "PENDING" if artifact.version is None else "COMMITTED",
            "digest": artifact.digest,
            "digestAlgorithm": "MANIFEST_MD5",
            "metadata": json.dumps(artifact.metadata),
            "description": None,
            "versionIndex": artifact.version,
            "ttlDurationSeconds": -1,
            "ttlIsInherited": True,
            "tags": [],
            "historyStep": None,
            "size": artifact.size,
            "commitHash": artifact.id,
            "fileCount": len(artifact.contents),
            "createdAt": created,
            "updatedAt": created,
            "artifactType": {"name": artifact.kind},
            "artifactSequence": self._collection(artifact),
            "aliases": self._aliases_of(artifact),
            "currentManifest": {"id": artifact.manifest, "file": {"directUrl": self._url(artifact.manifest)}},
            "createdBy": None,
            "usedBy": connection([]),
        }

    def outputs(self, run: str) -> list[dict[str, Any]]:
        """Return what a run logged."""
        return [self.node(a) for a in self.all.values() if a.run == run and a.version is not None]

    def inputs(self, run: str) -> list[dict[str, Any]]:
        """Return what a run used."""
        return [self.node(self.all[used]) for user, used in dict.fromkeys(self.used) if user == run]

    def _collection(self, artifact: StoredArtifact) -> dict[str, Any]:
        entity, project, name = artifact.collection
        newest = self.aliases.get(artifact.collection, {}).get("latest")
        return {
            "__typename": "ArtifactSequence",
            "id": "/".join(artifact.collection),
            "name": name,
            "project": {"id": project, "internalId": "1", "name": project, "entity": {"id": entity, "name": entity}},
            "type": {"name": artifact.kind},
            "latestArtifact": None if newest is None else {"id": newest},
        }

    def _aliases_of(self, artifact: StoredArtifact) -> list[dict[str, Any]]:
        held = self.aliases.get(artifact.collection, {})
        return [
            {
                "__typename": "ArtifactAlias",
                "id": alias,
                "alias": alias,
                "artifactCollection": self._collection(artifact),
            }
            for alias, holder in held.items()
            if holder == artifact.id
        ]

    def _url(self, manifest: str) -> str:
        return f"{self._server.address}/storage/manifest/{manifest}"

    def _create(self, input: Mapping[str, Any]) -> dict[str, Any]:  # noqa: A002  # the schema's name
        names = input.get("artifactCollectionNames") or [input.get("artifactCollectionName")]
        collection = (input.get("entityName") or "local", input["projectName"], str(names[0]))
        aliases = [a["alias"] if isinstance(a, dict) else str(a) for a in input.get("aliases") or ()]
        for known in self.versions(*collection[1:]):
            if known.digest == input["digest"]:  # the same content is the same version
                self._hold(known, aliases)
                return {"artifact": self.node(known)}
        artifact = StoredArtifact(
            id=f"artifact{len(self.all)}",
            collection=collection,
            kind=input["artifactTypeName"],
            digest=input["digest"],
            metadata=json.loads(input.get("metadata") or "{}"),
            wished=aliases,
            run=input.get("runName"),
            client=input.get("clientID"),
        )
        self.all[artifact.id] = artifact
        return {"artifact": self.node(artifact)}

    def _create_manifest(self, input: Mapping[str, Any]) -> dict[str, Any]:  # noqa: A002  # the schema's name
        artifact = self.all[input["artifactID"]]
        artifact.manifest = f"of-{artifact.id}"
        return self._update_manifest({"artifactManifestID": artifact.manifest})

    def _update_manifest(self, input: Mapping[str, Any]) -> dict[str, Any]:  # noqa: A002  # the schema's name
        manifest = input["artifactManifestID"]
        file = {"id": manifest, "uploadUrl": self._url(manifest), "uploadHeaders": []}
        return {"artifactManifest": {"id": manifest, "file": file}}

    def _create_files(self, input: Mapping[str, Any]) -> dict[str, Any]:  # noqa: A002  # the schema's name
        nodes = []
        for file in input["artifactFiles"]:
            node = file_node(self._server, f"/artifact/{file['artifactID']}/{file['name']}", file["name"])
            nodes.append(node | {"uploadMultipartUrls": None, "artifact": {"id": file["artifactID"]}})
        return {"files": connection(nodes)}

    def _commit(self, input: Mapping[str, Any]) -> dict[str, Any]:  # noqa: A002  # the schema's name
        artifact = self.all[input["artifactID"]]
        artifact.contents = json.loads(self._server.blobs[f"/manifest/{artifact.manifest}"])["contents"]
        artifact.version = len(self.versions(*artifact.collection[1:]))
        self._hold(artifact, [*artifact.wished, "latest"])
        return {"artifact": self.node(artifact)}

    def _use(self, input: Mapping[str, Any]) -> dict[str, Any]:  # noqa: A002  # the schema's name
        self.used.append((input["runName"], input["artifactID"]))
        return {"artifact": self.node(self.all[input["artifactID"]])}

    def _update(self, input: Mapping[str, Any]) -> dict[str, Any]:  # noqa: A002  # the schema's name
        return {"artifact": self.node(self.all[input["artifactID"]])}

    def _add_aliases(self, input: Mapping[str, Any]) -> dict[str, Any]:  # noqa: A002  # the schema's name
        self._hold(self.all[input["artifactID"]], [alias["alias"] for alias in input["aliases"]])
        return {"success": True}

    def _delete_aliases(self, input: Mapping[str, Any]) -> dict[str, Any]:  # noqa: A002  # the schema's name
        held = self.aliases[self.all[input["artifactID"]].collection]
        for alias in input["aliases"]:
            held.pop(alias["alias"], None)
        return {"success": True}

    def _hold(self, artifact: StoredArtifact, aliases: Sequence[str]) -> None:
        self.aliases.setdefault(artifact.collection, {}).update(dict.fromkeys(aliases, artifact.id))


def file_node(server: WandbServer, path: str, name: str) -> dict[str, Any]:
    """Return a file's fields: where it is put, and fetched."""
    url = f"{server.address}/storage{urllib.parse.quote(path)}"
    return {
        "__typename": "File",
        "id": path,
        "name": name,
        "displayName": name,
        "storagePath": path,
        "url": url,
        "directUrl": url,
        "uploadUrl": url,
        "uploadHeaders": [],
        "sizeBytes": len(server.blobs.get(path, b"")),
        "digest": None,
        "md5": None,
        "mimetype": "application/octet-stream",
        "updatedAt": "2026-01-01T00:00:00",
    }
