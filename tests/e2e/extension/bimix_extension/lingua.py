"""Meta Lingua's `data.sources` (facebookresearch/lingua, lingua/data.py, DataArgs): folder of `root_dir` → weight."""

from __future__ import annotations

from bimix_tracking.errors import MixtureError
from bimix_tracking.exports import Format, Request
from bimix_tracking.files.yaml_json import dump_yaml


def lingua(of: Request) -> str:
    """Write the weights of the sources."""
    for domain in of.used:
        if of.path(domain).startswith("/"):
            raise MixtureError(
                f"Lingua looks for {of.path(domain)!r} of domain {domain!r} under root_dir: give its folder with --path"
            )
    return of.commented(
        dump_yaml({"data": {"sources": {of.path(domain): share for domain, share in of.used.items()}}}),
        "names are folders of data.root_dir; weights count sequences of equal length",
    )


LINGUA = Format("lingua.yaml", "Meta Lingua data.sources (lingua/data.py, DataArgs)", lingua)
sloppy = {"file": "sloppy.yaml"}
