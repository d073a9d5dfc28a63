"""Inputs of the example models, for ``--inputs examples.inputs:NAME``: one dict of arrays a sample, seeded.

Pictures are rendered, voices and EEGs synthesised (pictures.py, signals.py), files and digits are real.
Where the right answer is known, ``NAME_labelled`` yields (sample, label) pairs, the same samples in the same order.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from examples import files, pictures, signals
from examples.fetch import EXAMPLES, MINILM_VOCABULARY, fetch, fetch_file

Sample = dict[str, npt.NDArray[Any]]
Labelled = tuple[Sample, Any]

_SAMPLES = 32
_FEW = 16  # of the models that take long on a simulator
_VAD_CONTEXT, _VAD_CHUNK = 64, 512
_MEL_FRAMES = 76

_TOPICS = {
    "weather": (
        "It will rain in the north tomorrow.",
        "The storm brought hail and strong wind.",
        "A warm front clears the sky.",
        "Snow is expected above a thousand metres.",
    ),
    "cooking": (
        "Fry the onions until they are golden.",
        "Bake the bread for forty minutes.",
        "Add a pinch of salt to the soup.",
        "The dough has to rest overnight.",
    ),
    "football": (
        "The striker scored in the last minute.",
        "Their goalkeeper saved two penalties.",
        "The match ended in a draw.",
        "The coach changed the whole defence.",
    ),
    "computing": (
        "The compiler reports a type error.",
        "Restart the server after the update.",
        "This function returns a list of files.",
        "The database index makes the query faster.",
    ),
    "medicine": (
        "The patient complains of a headache.",
        "Take two tablets after every meal.",
        "The surgeon repaired the broken bone.",
        "A vaccine protects against the virus.",
    ),
    "finance": (
        "The bank raised its interest rate.",
        "Shares of the company fell sharply.",
        "Please pay the invoice within thirty days.",
        "Inflation eats up the savings.",
    ),
    "travel": (
        "The train to Vienna leaves at noon.",
        "We booked a room with a view of the sea.",
        "My suitcase was lost at the airport.",
        "The ferry crosses the strait twice a day.",
    ),
    "music": (
        "The orchestra tuned its instruments.",
        "She plays the cello in a quartet.",
        "The song topped the charts in spring.",
        "A slow melody opens the second movement.",
    ),
}


def _rng(name: str) -> np.random.Generator:
    return np.random.default_rng([*name.encode()])


def _samples(labelled: Iterable[Labelled]) -> Iterator[Sample]:
    return (sample for sample, _ in labelled)


def rec_labelled(count: int = _SAMPLES) -> Iterator[Labelled]:
    """Text lines [1, 3, 48, 320] for PP-OCR recognition; the label is the text."""
    rng = _rng("rec")
    done = 0
    while done < count:
        picture, text = pictures.text_line(rng)
        # Longer lines would be squeezed to the fixed width.
        if picture.width * 48 <= picture.height * 330:
            done += 1
            yield {"x": pictures.line_tensor(picture, 320)}, text


def rec() -> Iterator[Sample]:
    """Text lines for PP-OCR recognition, v6 and v4."""
    return _samples(rec_labelled())


def det(count: int = _SAMPLES) -> Iterator[Sample]:
    """Pages [1, 3, 480, 480] for PP-OCR detection, v6 and v4."""
    rng = _rng("det")
    for _ in range(count):
        yield {"x": pictures.to_tensor(pictures.page(rng, 480, 480))}


def cls_labelled(count: int = _SAMPLES) -> Iterator[Labelled]:
    """Text lines [1, 3, 48, 192]; the label is 1 where turned by 180 degrees."""
    rng = _rng("cls")
    for _ in range(count):
        picture, _text = pictures.text_line(rng)
        turned = int(rng.random() < 0.5)
        if turned:
            picture = picture.transpose(Image.Transpose.ROTATE_180)
        yield {"x": pictures.line_tensor(picture, 192)}, turned


def cls() -> Iterator[Sample]:
    """Text lines, upright and upside down."""
    return _samples(cls_labelled())


def magika_labelled() -> Iterator[Labelled]:
    """Real files, short and padded ones among them, int32 [1, 2048]; the label is the type's name."""
    for label, content in files.labelled_files():
        yield {"bytes": files.magika_features(content)}, label


def magika() -> Iterator[Sample]:
    """Real files as magika sees them."""
    return _samples(magika_labelled())


def digits_labelled(count: int | None = None) -> Iterator[Labelled]:
    """Test pictures [1, 1, 8, 8] of the digit classifier; the label is the digit. None: all 450."""
    from examples.digits import data

    for picture, label in zip(data().test[:count], data().test_labels[:count], strict=True):
        yield {"image": picture[None]}, int(label)


def digits() -> Iterator[Sample]:
    """Pictures for the digit classifier (examples/digits.py), 64 of its test set."""
    return _samples(digits_labelled(64))


def orientation_labelled(count: int = _SAMPLES) -> Iterator[Labelled]:
    """Pages [1, 3, 224, 224], turned clockwise by 0, 90, 180 or 270 degrees: label 0 to 3."""
    rng = _rng("orientation")
    for i in range(count):
        quarter = i % 4 if i < 4 else int(rng.integers(0, 4))
        page = pictures.page(rng, 340, 340).rotate(-90 * quarter, expand=True)
        page = page.resize((256, 256), Image.Resampling.LANCZOS).crop((16, 16, 240, 240))
        yield {"x": pictures.imagenet_tensor(page)}, quarter


def orientation() -> Iterator[Sample]:
    """Pages, four ways up."""
    return _samples(orientation_labelled())


def layout(count: int = _FEW) -> Iterator[Sample]:
    """Pages [1, 3, 800, 608] with headings, paragraphs, tables and figures."""
    rng = _rng("layout")
    for _ in range(count):
        yield {"image": pictures.imagenet_tensor(pictures.page(rng, 608, 800))}


def table() -> Iterator[Sample]:
    """Tables [1, 3, 488, 488], ruled and unruled."""
    rng = _rng("table")
    for i in range(_FEW):
        picture = pictures.table(rng, 488, int(rng.integers(240, 489)), ruled=i % 2 == 0)
        tensor = np.zeros((1, 3, 488, 488), np.float32)
        tensor[:, :, : picture.height] = pictures.imagenet_tensor(picture)
        yield {"x": tensor}


def table_cls_labelled(count: int = _SAMPLES) -> Iterator[Labelled]:
    """Tables [1, 3, 224, 224]; the label is 0 where ruled, 1 where not."""
    rng = _rng("table-cls")
    for _ in range(count):
        unruled = int(rng.random() < 0.5)
        picture = pictures.table(rng, 640, 480, ruled=not unruled).resize((224, 224), Image.Resampling.BICUBIC)
        yield {"input": pictures.imagenet_tensor(picture, "RGB")}, unruled


def table_cls() -> Iterator[Sample]:
    """Tables with and without rules."""
    return _samples(table_cls_labelled())


def slider() -> Iterator[Sample]:
    """Puzzle pictures, RGB 0..1 [1, 3, 640, 640], on grey where they do not reach."""
    rng = _rng("slider")
    for _ in range(_FEW):
        picture = pictures.puzzle(rng, 320, 200).resize((640, 400), Image.Resampling.BILINEAR)
        square = Image.new("RGB", (640, 640), (114, 114, 114))
        square.paste(picture, (0, 120))
        yield {"images": pictures.to_tensor(square, mean=(0, 0, 0), std=(1, 1, 1), order="RGB")}


def silero_labelled(count: int = _SAMPLES) -> Iterator[Labelled]:
    """Chunks of a voice with the state that the model itself had reached; the label is 1 within a phrase."""
    return _silero(fetch("silero"), count, {"sr": np.array(16000, np.int64)})


def silero() -> Iterator[Sample]:
    """Voice activity at 16 kHz, with If (input [1, 576], state [2, 1, 128], sr)."""
    return _samples(silero_labelled())


def silero_static_labelled(count: int = _SAMPLES) -> Iterator[Labelled]:
    """As silero_labelled, for the model without If."""
    return _silero(fetch("silero-static"), count, {})


def silero_static() -> Iterator[Sample]:
    """Voice activity at 16 kHz, fixed shapes (input [1, 576], state [2, 1, 128])."""
    return _samples(silero_static_labelled())


def pitch() -> Iterator[Sample]:
    """One second of a voice at 16 kHz [1, 16000], and the range to search."""
    rng = _rng("pitch")
    for _ in range(_SAMPLES):
        # The range that swift-f0 searches by default.
        bounds = {"fmin": np.array(46.875, np.float32), "fmax": np.array(2093.75, np.float32)}
        yield {"audio": signals.voice(rng, 1.0)[0][None], **bounds}


def notes() -> Iterator[Sample]:
    """Two seconds of plucked chords at 22,050 Hz [1, 43844, 1]."""
    rng = _rng("notes")
    for _ in range(_FEW):
        yield {"serving_default_input_2:0": signals.notes(rng, 43844)[None, :, None]}


def speech_quality() -> Iterator[Sample]:
    """Nine seconds of a voice at 16 kHz [1, 144160], from clean to very noisy."""
    rng = _rng("speech-quality")
    for i in range(_FEW):
        yield {"input_1": signals.voice(rng, 9.01, noise=10 ** float(-4 + 3 * i / _FEW))[0][None]}


def wake_mel() -> Iterator[Sample]:
    """0.8 seconds of a voice at 16 kHz, in the range of 16-bit integers [1, 12400]."""
    rng = _rng("wake-mel")
    for _ in range(_SAMPLES):
        yield {"input": (signals.voice(rng, 12400 / 16000)[0] * 32767)[None]}


def wake_embedding() -> Iterator[Sample]:
    """76 frames of the mel spectrogram that openwakeword's own network makes of a voice [1, 76, 32, 1]."""
    rng = _rng("wake-embedding")
    for _ in range(_SAMPLES):
        yield {"input_1": _mel_windows(rng, 1)}


def wake_word() -> Iterator[Sample]:
    """16 embeddings in a row, 80 ms apart, that openwakeword's own networks make of a voice [1, 16, 96]."""
    rng = _rng("wake-word")
    embed = _session(str(fetch("wake-embedding")))
    for _ in range(_SAMPLES):
        yield {"x.1": embed.run(None, {"input_1": _mel_windows(rng, 16)})[0].reshape(1, 16, 96)}


def seizure() -> Iterator[Sample]:
    """Spectrograms of 100 s of EEG [1, 100, 199]."""
    rng = _rng("seizure")
    for _ in range(_SAMPLES):
        yield {"x": signals.seizure_spectrogram(signals.seizure_eeg(rng, 100))}


def spindles() -> Iterator[Sample]:
    """30 s of sleep EEG [1, 1, 7500] and its scalogram [1, 15, 7500]."""
    rng = _rng("spindles")
    for _ in range(_FEW):
        signal = signals.spindle_eeg(rng, 7500)
        yield {
            "raw_signal": signals.z_score(signal[None])[None],
            "spectrogram": signals.z_score(signals.spindle_scalogram(signal))[None],
        }


def minilm_labelled() -> Iterator[Labelled]:
    """Sentences as tokens, int64 [1, 64]; the label is the topic, which the nearest other sentence should share."""
    from examples.minilm import WordPiece

    tokenizer = WordPiece(fetch_file(MINILM_VOCABULARY).read_text(encoding="utf-8").splitlines())
    pairs = [(text, topic) for topic, texts in _TOPICS.items() for text in texts]
    for i in _rng("minilm").permutation(len(pairs)):
        yield tokenizer.encode(pairs[i][0], 64), pairs[i][1]


def minilm() -> Iterator[Sample]:
    """Sentences on eight topics."""
    return _samples(minilm_labelled())


def of_example(name: str) -> Callable[[], Iterator[Sample]]:
    """The function that EXAMPLES names as an example's inputs."""
    function: Callable[[], Iterator[Sample]] = globals()[EXAMPLES[name].inputs.partition(":")[2]]
    return function


@functools.cache
def _session(path: str) -> Any:
    import onnxruntime

    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def _silero(path: object, count: int, constant: Sample) -> Iterator[Labelled]:
    session = _session(str(path))
    every = 3  # chunks that follow one another are much alike
    audio, spoken = signals.voice(_rng("silero"), (count * every + 2) * _VAD_CHUNK / 16000)
    state = np.zeros((2, 1, 128), np.float32)
    for i in range(count * every):
        start = (i + 1) * _VAD_CHUNK
        chunk = audio[start - _VAD_CONTEXT : start + _VAD_CHUNK][None]
        sample = {"input": chunk, "state": state, **constant}
        if i % every == 0:
            yield sample, int(spoken[start : start + _VAD_CHUNK].mean() > 0.5)
        state = session.run(["stateN"], sample)[0]


def _mel_windows(rng: np.random.Generator, count: int) -> npt.NDArray[np.float32]:
    """float32 [count, 76, 32, 1]: windows of the mel spectrogram, eight frames (80 ms) apart."""
    seconds = 0.8 + 0.08 * count
    audio = (signals.voice(rng, seconds)[0] * 32767)[None]
    # openwakeword scales the network's output so.
    mel = _session(str(fetch("wake-mel"))).run(None, {"input": audio})[0].reshape(-1, 32) / 10 + 2
    return np.stack([mel[8 * i : 8 * i + _MEL_FRAMES] for i in range(count)])[..., None].astype(np.float32)
