"""An analysis that was left in a folder: its runs and mixture, and what it was asked, to be asked again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bimix_tracking.analysis.asking_again import from_json
from bimix_tracking.data.manifest import parse_json
from bimix_tracking.errors import BimixError, SourceError
from bimix_tracking.files.yaml_json import load_yaml, read_text
from bimix_tracking.mixture import Mixture


def earlier(folder: Path) -> dict[str, Any]:
    """Return what a folder that `bimix analyze --out` left says of its analysis.

    Raises:
        SourceError: It is no such folder.
    """
    try:
        lineage = parse_json((folder / "lineage.json").read_text(encoding="utf-8"))
        document = load_yaml(read_text(folder / "mixture.yaml"))
        provenance = document["provenance"]
        return {
            "runs": [run["id"] for run in lineage["runs"]],
            "data_hash": lineage["data_hash"],
            "mixture": Mixture({str(name): float(share) for name, share in document["mixture"].items()}),
            "law": str(provenance["law"]),
            "tokens": float(provenance["target_tokens"]),
            "weights": {str(name): float(weight) for name, weight in provenance["weights"].items()},
            "reference": Mixture({str(name): float(share) for name, share in provenance["reference"].items()}),
            "options": from_json(lineage.get("options", {})),
        }
    except (BimixError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise SourceError(f"{folder} is not a folder that `bimix analyze --out` left: {error!r}") from error
