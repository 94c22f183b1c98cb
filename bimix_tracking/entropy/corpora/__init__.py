"""Text and token ids as files hold them: found, divided into blocks, read in a stream; and what turns text into
token ids or vectors.
"""

from typing import TYPE_CHECKING

from bimix_tracking.lazy import attach

if TYPE_CHECKING:
    from bimix_tracking.entropy.corpora.documents import Block as Block
    from bimix_tracking.entropy.corpora.documents import Document as Document
    from bimix_tracking.entropy.corpora.documents import Format as Format
    from bimix_tracking.entropy.corpora.embedders import Embedder as Embedder
    from bimix_tracking.entropy.corpora.embedders import open_embedder as open_embedder
    from bimix_tracking.entropy.corpora.opening import find_blocks as find_blocks
    from bimix_tracking.entropy.corpora.opening import open_format as open_format
    from bimix_tracking.entropy.corpora.opening import read_block as read_block
    from bimix_tracking.entropy.corpora.tokenizers import Tokenizer as Tokenizer
    from bimix_tracking.entropy.corpora.tokenizers import open_tokenizer as open_tokenizer

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "documents": ["Block", "Document", "Format"],
        "embedders": ["Embedder", "open_embedder"],
        "opening": ["find_blocks", "open_format", "read_block"],
        "tokenizers": ["Tokenizer", "open_tokenizer"],
    },
)
