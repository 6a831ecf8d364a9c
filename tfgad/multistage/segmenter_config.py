"""Hyper-parameters of the segmenter and of its adaptation to a new fabric."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from tfgad.core import settings
from tfgad.core.settings import StepCount, Width


@dataclass(frozen=True)
class AdaptationConfig:
    """Hyper-parameters of fine-tuning on a new fabric; a segmenter keeps them for later."""

    batch_size: Annotated[
        int, Field(ge=2, le=65_536, description="images per step, half of them without a defect")
    ] = 16
    painted: Annotated[
        int, Field(ge=1, le=1_000_000, description="defects painted on the new fabric")
    ] = 500
    # By default all new defects are painted. Where half of them were transplanted, IoU was 0.04
    # lower on twill and 0.01 on satin and check (`mixed` of `examples/benchmarks/multistage.py`,
    # three seeds).
    transplanted: Annotated[
        int,
        Field(ge=0, le=1_000_000, description="known defects cut out and pasted on the new fabric"),
    ] = 0
    rehearsed: Annotated[
        int, Field(ge=0, le=1_000_000, description="known defects on their own fabrics (replay)")
    ] = 500
    # The rate falls to zero, so its mean is about half. Starting at 3e-4, a segmenter of two AITEX
    # fabrics does not learn a third one in 200 steps, not even from its true defects: IoU 0.01,
    # but 0.36 at 6e-4.
    adapt_rate: Annotated[
        float, Field(gt=0, description="learning rate of fine-tuning at its first step (Adam)")
    ] = 6e-4
    adapt_steps: Annotated[StepCount, Field(description="steps of fine-tuning")] = 200


@dataclass(frozen=True)
class SegmenterConfig(AdaptationConfig):
    """Hyper-parameters of the segmenter, with those of its adaptation."""

    backbone: Annotated[
        Literal["small", "resnet50", "lite0"],
        Field(
            description="of DeepLab V3; `resnet50` is the paper's, `lite0` needs a file of weights"
        ),
    ] = "small"
    width: Annotated[
        Width,
        Field(description="channels of the small backbone; half of those of its head and Lite0's"),
    ] = 32
    learning_rate: Annotated[float, Field(gt=0, description="of Adam")] = 1e-3
    steps: Annotated[StepCount, Field(description="training steps")] = 1000


# A trial of minutes: too short to be of use.
QUICK = dataclasses.replace(
    SegmenterConfig(), width=8, steps=60, painted=60, rehearsed=60, adapt_steps=30
)


def settings_of_run(config: Mapping[str, Any]) -> SegmenterConfig:
    """Returns the hyper-parameters of a segmenter's run, also of an older version.

    Args:
        config: of the run.
    """
    return settings.parse(SegmenterConfig, config["settings"], of="the segmenter")
