"""Synthetic voices, notes and EEGs: made from models of how such signals arise, in place of recordings.

A voice is a glottal pulse train (voiced) or noise (unvoiced) through formant resonators, in phrases with pauses between
them. It is not speech, but it has what speech models look for: pitch, formants, onsets, silence. Where the phrases
are is known, so it is labelled.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.signal import lfilter, spectrogram

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]

# First three formants of vowels in Hz, after Peterson and Barney (1952), men.
_VOWELS = {
    "i": (270, 2290, 3010),
    "e": (530, 1840, 2480),
    "a": (730, 1090, 2440),
    "o": (570, 840, 2410),
    "u": (300, 870, 2240),
}
_BANDWIDTHS_HZ = (60, 90, 150)
EEG_RATE = 200
SPINDLE_RATE = 250


def voice(
    rng: np.random.Generator, seconds: float, rate: int = 16000, noise: float = 0.003
) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """A voice in -1..1 [samples], and for each sample whether it lies in a phrase (False in the pauses)."""
    samples = round(seconds * rate)
    # A last phrase may reach past the end: it is cut there.
    signal, spoken = np.zeros(samples + 3 * rate), np.zeros(samples + 3 * rate, bool)
    pitch = float(rng.uniform(90, 240))
    at = 0
    while at < samples:
        for _ in range(int(rng.integers(4, 13))):
            length = round(float(rng.uniform(0.06, 0.2)) * rate)
            pitch = float(np.clip(pitch * rng.uniform(0.9, 1.1), 80, 320))
            part = _vowel(rng, length, rate, pitch) if rng.random() < 0.7 else _fricative(rng, length, rate)
            signal[at : at + length] = part * np.hanning(length + 2)[1:-1] ** 0.3 * float(rng.uniform(0.3, 0.9))
            spoken[at : at + length] = True
            at += length
        at += round(float(rng.uniform(0.4, 1.0)) * rate)
    return np.asarray(signal[:samples] * 0.5 + rng.normal(0, noise, samples), np.float32), spoken[:samples]


def _vowel(rng: np.random.Generator, length: int, rate: int, pitch: float) -> Doubles:
    formants = _VOWELS[str(rng.choice(list(_VOWELS)))]
    glide = pitch * (1 + float(rng.uniform(-0.1, 0.1)) * np.linspace(0, 1, length))
    phase = np.cumsum(glide / rate)
    pulses = np.diff(np.floor(phase), prepend=0.0)
    source = lfilter([1.0], [1, -0.96], pulses) + rng.normal(0, 0.01, length)
    for formant, bandwidth in zip(formants, _BANDWIDTHS_HZ, strict=True):
        radius = np.exp(-np.pi * bandwidth / rate)
        source = lfilter([1 - radius], [1, -2 * radius * np.cos(2 * np.pi * formant / rate), radius**2], source)
    return np.asarray(source / (np.abs(source).max() + 1e-9))


def _fricative(rng: np.random.Generator, length: int, rate: int) -> Doubles:
    centre = float(rng.uniform(2500, 6000))
    hiss = lfilter([0.2], [1, -1.6 * np.cos(2 * np.pi * centre / rate), 0.64], rng.normal(0, 1, length))
    return np.asarray(0.3 * hiss / (np.abs(hiss).max() + 1e-9))


def notes(rng: np.random.Generator, samples: int, rate: int = 22050) -> Floats:
    """Chords of plucked strings (decaying harmonics) between 82 and 988 Hz, in -1..1 [samples]."""
    signal = np.zeros(samples)
    at = 0
    while at < samples:
        length = min(samples - at, round(float(rng.uniform(0.2, 0.6)) * rate))
        time = np.arange(length) / rate
        for pitch in rng.integers(40, 84, int(rng.integers(1, 4))):
            base = 440 * 2 ** ((int(pitch) - 69) / 12)
            decay = float(rng.uniform(2, 6))
            for harmonic in range(1, 9):
                if base * harmonic < rate / 2:
                    level = np.exp(-decay * harmonic**0.5 * time) / harmonic
                    phase = float(rng.uniform(0, 2 * np.pi))
                    signal[at : at + length] += level * np.sin(2 * np.pi * base * harmonic * time + phase)
        at += length
    return np.asarray(0.3 * signal / (np.abs(signal).max() + 1e-9) + rng.normal(0, 0.001, samples), np.float32)


def _background(rng: np.random.Generator, samples: int) -> Doubles:
    """1/f noise of unit deviation, as at rest."""
    spectrum = np.fft.rfft(rng.normal(0, 1, samples))
    frequency = np.maximum(np.fft.rfftfreq(samples), 1 / samples)
    pink = np.fft.irfft(spectrum / frequency**0.8, samples)
    return np.asarray(pink / pink.std())


def seizure_eeg(rng: np.random.Generator, seconds: int) -> Doubles:
    """EEG at 200 Hz: background with an alpha rhythm, and in half of the draws a run of 3 Hz spike-and-wave."""
    time = np.arange(seconds * EEG_RATE) / EEG_RATE
    signal = _background(rng, len(time)) + 0.4 * np.sin(2 * np.pi * float(rng.uniform(8, 12)) * time)
    if rng.random() < 0.5:
        start = float(rng.uniform(0.2, 0.6)) * seconds
        run = (time > start) & (time < start + float(rng.uniform(10, 30)))
        cycle = (time * float(rng.uniform(2.5, 4))) % 1
        wave = np.exp(-(((cycle - 0.1) / 0.03) ** 2)) * 6 - 3 * np.sin(np.pi * cycle)
        signal = np.where(run, signal + wave, signal)
    return signal


def seizure_spectrogram(signal: Doubles) -> Floats:
    """As brainmaze-eeg-models prepares it: z-score, spectrogram (1 s, hop 0.5 s, 0..99 Hz), z-score of each frequency.

    Returns:
        float32 [1, 100, 2 * seconds - 1].
    """
    signal = (signal - signal.mean()) / signal.std()
    _, _, power = spectrogram(signal, EEG_RATE, nperseg=EEG_RATE, noverlap=EEG_RATE // 2)
    power = power[:100]
    return z_score(power)[None]


def spindle_eeg(rng: np.random.Generator, samples: int) -> Doubles:
    """Sleep EEG at 250 Hz: background and slow waves, with a few spindles (11 to 16 Hz, 0.5 to 2 s)."""
    time = np.arange(samples) / SPINDLE_RATE
    signal = _background(rng, samples) + np.sin(2 * np.pi * float(rng.uniform(0.5, 1.2)) * time)
    for _ in range(int(rng.integers(0, 6))):
        centre, width = float(rng.uniform(2, time[-1] - 2)), float(rng.uniform(0.15, 0.5))
        burst = np.exp(-(((time - centre) / width) ** 2)) * np.sin(2 * np.pi * float(rng.uniform(11, 16)) * time)
        signal += float(rng.uniform(0.8, 1.8)) * burst
    return signal


def spindle_scalogram(signal: Doubles) -> Doubles:
    """Magnitude of the continuous wavelet transform with 'shan6-13' at 15 scales, as brainmaze-eeg-models computes it.

    Returns:
        float64 [15, samples].
    """
    grid = np.linspace(-20, 20, 2**10)
    step = grid[1] - grid[0]
    wavelet = np.sqrt(6) * np.sinc(6 * grid) * np.exp(2j * np.pi * 13 * grid)
    integral = np.conj(np.cumsum(wavelet) * step)
    rows = []
    for scale in np.geomspace(135, 270, num=15):
        index = (np.arange(scale * 40 + 1) / (scale * step)).astype(int)
        kernel = integral[index[index < len(grid)]][::-1]
        size = 1 << (len(signal) + len(kernel)).bit_length()
        full = np.fft.ifft(np.fft.fft(signal, size) * np.fft.fft(kernel, size))[: len(signal) + len(kernel) - 1]
        coefficients = -np.sqrt(scale) * np.diff(full)
        start = int(np.floor((len(coefficients) - len(signal)) / 2))
        rows.append(np.abs(coefficients[start : start + len(signal)]))
    return np.array(rows)


def z_score(rows: Doubles) -> Floats:
    """Each row to mean 0 and deviation 1, float32."""
    return np.asarray((rows - rows.mean(-1, keepdims=True)) / rows.std(-1, keepdims=True), np.float32)
