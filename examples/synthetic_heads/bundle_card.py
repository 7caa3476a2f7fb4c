"""The card of `builtin:synthetic-heads`, from the figures that `measure.py` measured."""

from __future__ import annotations

from pathlib import Path

TARGETS = {
    "mtcnn_found": ("MTCNN finds a face (p >= 0.9), 200 random samples", ">= 0.95"),
    "recogniser_auc": ("A real recogniser tells generated people apart (AUC, same or other z)", ">= 0.97"),
    "psnr": ("PSNR against the renderer, held-out people and cameras (dB)", ">= 24"),
    "lpips_alex": ("LPIPS (AlexNet) against the renderer, same pictures", "<= 0.15"),
    "encoder_a_tar": ("Encoder A (loss): TAR at FAR 1e-3, held-out people in other photos", ">= 0.90"),
    "encoder_b_tar": ("Encoder B (judge): the same", ">= 0.90"),
    "inverted_verified": ("Photos of 50 held-out people whose inversion B verifies at FAR 1e-3", ">= 0.90"),
    "bundle_mb": ("Size of the bundle (MB)", "<= 12"),
}

TEXT = """---
license: mit
library_name: guide-hub
pipeline_tag: unconditional-image-generation
tags: [eg3d, synthetic]
---

# synthetic-heads

A small EG3D that makes human heads of no living person, with two identity encoders, perceptual features and
an inversion encoder. It is the model inside guide-hub, for trying and testing erasures without downloading
anything.

Trained from scratch, supervised, on renders of a scan-based morphable head: the light ICT Face Model
(ICT-FaceKit, USC Institute for Creative Technologies, MIT). In the repository, `examples/synthetic_heads` has
the renderer, the training and the script that measured the table.

| measured by `measure.py` | target | reached |
|---|---|---|
{rows}

The encoders and thresholds of this bundle mean nothing on photographs of real people. The planes' fine
detail hangs on the backbone's constant noise: render with `noise_mode="const"`, the default here.
"""


def figure_rows(figures: dict[str, float]) -> str:
    lines = []
    for key, (text, target) in TARGETS.items():
        if key in figures:
            sign, limit = target.split()
            met = figures[key] >= float(limit) if sign == ">=" else figures[key] <= float(limit)
            lines.append(f"| {text} | {target} | {figures[key]:.3f}{'' if met else ' (missed)'} |")
    return "\n".join(lines)


def write_card(folder: Path, figures: dict[str, float]) -> None:
    (folder / "README.md").write_text(TEXT.format(rows=figure_rows(figures)), encoding="utf-8")
