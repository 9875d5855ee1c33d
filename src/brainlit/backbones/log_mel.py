"""The log-mel spectrograms that models hear, of a whole batch at once and on the device where the batch is."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from brainlit.backbones.frames import INT16_FULL_SCALE
from brainlit.timebase import SAMPLE_RATE_HZ

WINDOW_SAMPLES = 400
MEL_HOP_SAMPLES = 160
MAX_MEL_HZ = 8000.0
POWER_FLOOR = 1e-10
KALDI_FFT = 512
KALDI_POWER_FLOOR = 2.0**-23
DYNAMIC_RANGE = 8.0
"""Factors of ten below a clip's loudest point; what is quieter is raised to there."""


class _LogMel(nn.Module):
    """A window over the sound and filters over its spectrum, neither trained nor saved."""

    window: Tensor
    filters: Tensor

    def __init__(self, window: Tensor, filters: Tensor) -> None:
        super().__init__()
        self.register_buffer("window", window.float(), persistent=False)
        self.register_buffer("filters", filters.float().contiguous(), persistent=False)


class WhisperLogMel(_LogMel):
    """Log power in mel bands every 10 ms, as WhisperFeatureExtractor has it (arXiv 2212.04356, section 2.2).

    Hann windows of 25 ms around every 160th sample, the sound mirrored at both ends, slaney mel filters up to 8 kHz,
    log10, clamped to eight factors of ten below the clip's maximum, then (x + 4) / 4. The maximum is each clip's own,
    so a clip's spectrogram does not depend on its batch. There are n_mels bands: 80, or 128 in large-v3. Another
    extractor's n_fft and hop_length are window_samples and hop_samples.
    """

    def __init__(self, n_mels: int, window_samples: int = WINDOW_SAMPLES, hop_samples: int = MEL_HOP_SAMPLES) -> None:
        from transformers.audio_utils import mel_filter_bank

        n_bins = window_samples // 2 + 1
        filters = mel_filter_bank(n_bins, n_mels, 0.0, MAX_MEL_HZ, SAMPLE_RATE_HZ, norm="slaney", mel_scale="slaney")
        super().__init__(torch.hann_window(window_samples), torch.from_numpy(filters.T))
        self.hop_samples = hop_samples

    def forward(self, sound: Tensor) -> Tensor:
        """Sound (batch, n_samples) in float32 -> float32 (batch, n_mels, n_samples // hop_samples) in any autocast."""
        with torch.autocast(sound.device.type, enabled=False):
            spectrum = torch.stft(
                sound, len(self.window), self.hop_samples, window=self.window, pad_mode="reflect", return_complex=True
            )
            power = spectrum[..., :-1].abs().square()
            log_mel = (self.filters @ power).clamp(min=POWER_FLOOR).log10()
            log_mel = torch.maximum(log_mel, log_mel.amax((1, 2), keepdim=True) - DYNAMIC_RANGE)
            return (log_mel + 4.0) / 4.0


class KaldiLogMel(_LogMel):
    """Log power in mel bands every 10 ms as Kaldi has it, and with it SeamlessM4TFeatureExtractor, not standardised.

    From each 25 ms that lie inside the sound: mean removed, high frequencies raised (0.97), Povey window, 512-point
    transform, triangular filters between 20 Hz and 8 kHz that are straight in mel, natural log. Sound counts in steps
    of int16.
    """

    def __init__(self, n_mels: int) -> None:
        from transformers.audio_utils import mel_filter_bank

        n_bins = KALDI_FFT // 2 + 1
        filters = mel_filter_bank(
            n_bins, n_mels, 20.0, MAX_MEL_HZ, SAMPLE_RATE_HZ, mel_scale="kaldi", triangularize_in_mel_space=True
        )
        window = torch.hann_window(WINDOW_SAMPLES, periodic=False, dtype=torch.float64) ** 0.85
        super().__init__(window, torch.from_numpy(filters))

    def forward(self, sound: Tensor) -> Tensor:
        """Sound (batch, n_samples) in float32 -> float32 (batch, n_frames, n_mels), whatever the autocast."""
        with torch.autocast(sound.device.type, enabled=False):
            pieces = (sound * INT16_FULL_SCALE).unfold(1, WINDOW_SAMPLES, MEL_HOP_SAMPLES)
            pieces = pieces - pieces.mean(2, keepdim=True)
            before = torch.cat([pieces[..., :1], pieces[..., :-1]], dim=2)
            spectrum = torch.fft.rfft((pieces - 0.97 * before) * self.window, KALDI_FFT)
            log_mel: Tensor = (spectrum.abs().square() @ self.filters).clamp(min=KALDI_POWER_FLOOR).log()
            return log_mel
