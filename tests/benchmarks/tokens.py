"""Real text, tokenised: what the benchmarks of entropies count. The text is what the machine's own packages hold."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer

VOCABULARY = 50_277
"""GPT-NeoX's."""
_PLACES = (Path(sys.prefix), Path(sys.base_prefix), Path("/usr/include"), Path("/usr/share"), Path("/usr/lib"))
_SUFFIXES = {".py", ".pyi", ".txt", ".md", ".rst", ".h", ".hpp", ".c", ".js", ".ts", ".rs", ".html"}
_TRAINED_ON = 30_000_000


def texts() -> Iterator[str]:
    """Yield the text of files, each once however often it lies there."""
    seen = set()
    for place in _PLACES:
        for path in sorted(place.rglob("*")):
            if path.suffix in _SUFFIXES and not path.is_symlink() and path.is_file():
                content = path.read_bytes()[:1_000_000]
                if len(content) > 1_000 and hash(content) not in seen:
                    seen.add(hash(content))
                    yield content.decode(errors="ignore")


def tokens(folder: Path, count: int) -> npt.NDArray[np.uint16]:
    """Return so many tokens of real text, made once and kept in the folder."""
    path = folder / f"tokens-{count}.npy"
    made: npt.NDArray[np.uint16]
    if not path.exists():
        made = np.lib.format.open_memmap(path.with_suffix(".part"), mode="w+", dtype=np.uint16, shape=(count,))
        tokenizer, filled, batch = trained(), 0, []
        for text in texts():
            batch.append(text)
            if len(batch) == 256:
                for encoding in tokenizer.encode_batch_fast(batch):
                    ids = encoding.ids[: count - filled]
                    made[filled : filled + len(ids)] = ids
                    filled += len(ids)
                batch = []
            if filled == count:
                break
        if filled < count:
            sys.exit(f"this machine holds {filled:,} tokens of text, too few for {count:,}: give fewer")
        made.flush()
        path.with_suffix(".part").rename(path)
    made = np.load(path, mmap_mode="r")
    return made


def trained() -> Tokenizer:
    """Return a byte-level BPE tokenizer of `VOCABULARY` ids, trained on a part of the text."""
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    tokenizer.decoder = ByteLevelDecoder()
    taken, part = 0, []
    for number, text in enumerate(texts()):
        if number % 8 == 0:
            part.append(text)
            taken += len(text)
        if taken > _TRAINED_ON:
            break
    trainer = BpeTrainer(vocab_size=VOCABULARY, show_progress=False, initial_alphabet=ByteLevel.alphabet())
    tokenizer.train_from_iterator(part, trainer)
    return tokenizer
