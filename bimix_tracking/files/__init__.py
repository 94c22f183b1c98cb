"""What people and processes leave on a disk, read within limits and written so that a killed process loses nothing:
YAML, JSON and CSV that people give, whole files and whole folders that change places in one step, and the lock by
which a run has one writer.
"""

from typing import TYPE_CHECKING

from bimix_tracking.lazy import attach

if TYPE_CHECKING:
    from bimix_tracking.files.atomic_file import append as append
    from bimix_tracking.files.atomic_file import replace as replace
    from bimix_tracking.files.atomic_file import write as write
    from bimix_tracking.files.atomic_folder import staged as staged
    from bimix_tracking.files.regular_file import lines_of as lines_of
    from bimix_tracking.files.regular_file import opened as opened
    from bimix_tracking.files.regular_file import text_of as text_of
    from bimix_tracking.files.spreadsheet import defused as defused
    from bimix_tracking.files.spreadsheet import restored as restored
    from bimix_tracking.files.spreadsheet import table_csv as table_csv
    from bimix_tracking.files.writer_lock import WriterLock as WriterLock
    from bimix_tracking.files.yaml_json import dump_yaml as dump_yaml
    from bimix_tracking.files.yaml_json import load_yaml as load_yaml
    from bimix_tracking.files.yaml_json import read_text as read_text

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "atomic_file": ["append", "replace", "write"],
        "atomic_folder": ["staged"],
        "regular_file": ["lines_of", "opened", "text_of"],
        "spreadsheet": ["defused", "restored", "table_csv"],
        "writer_lock": ["WriterLock"],
        "yaml_json": ["dump_yaml", "load_yaml", "read_text"],
    },
)
