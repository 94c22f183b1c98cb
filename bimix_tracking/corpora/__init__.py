"""Text and token ids as files hold them: found, divided into blocks, read in a stream."""

from bimix_tracking.corpora.opening import find_blocks, open_format, read_block

__all__ = ["find_blocks", "open_format", "read_block"]
