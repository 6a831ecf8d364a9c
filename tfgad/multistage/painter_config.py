"""Hyper-parameters of the defect painter."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from tfgad.core.settings import LatentDim, TwoStages, Width
from tfgad.multistage.style import CODE_DIM


@dataclass(frozen=True)
class PainterConfig:
    """Hyper-parameters of stages 1 and 2. The paper (Liu et al. 2020) gives none of them."""

    patches: Annotated[
        int,
        Field(
            gt=CODE_DIM,
            le=1_000_000,
            description="patches of defects that the generator learns from",
        ),
    ] = 6000
    ground: Annotated[
        Literal["fabric", "nothing"],
        Field(description="what a defect is generated on; `nothing` is the paper's"),
    ] = "fabric"
    latent_dim: LatentDim = 64
    # A narrow generator makes more steps in the same time, and steps are what it lacks: 32 channels
    # at a rate of 2e-4, with a critic of whole patches alone, made 1,500 steps, and its holes and
    # stains were pale patches (seen by eye).
    width: Annotated[Width, Field(description="channels of the generator's last hidden layer")] = 16
    learning_rate: Annotated[
        float, Field(gt=0, description="of generator and critic of stage 1 (Adam)")
    ] = 1e-3
    batch_size: Annotated[
        int, Field(ge=1, le=65_536, description="patches per step of stage 1")
    ] = 32
    r1: Annotated[float, Field(ge=0, description="λ of the R1 penalty of both critics")] = 0.1
    fusions: Annotated[
        int, Field(ge=1, le=1_000_000, description="examples that the fusion learns from")
    ] = 2000
    fusion_width: Annotated[
        Width, Field(description="channels of the fusion network's first layer")
    ] = 24
    fusion_rate: Annotated[
        float, Field(gt=0, description="learning rate of fusion network and critic (Adam)")
    ] = 2e-4
    fusion_batch_size: Annotated[
        int, Field(ge=1, le=65_536, description="examples per step of stage 2")
    ] = 16
    # A defect generated on the fabric has no seam to repair, and a fusion network that also learns
    # to repair misplaced defects blurs it: a classifier separated its defects from real ones of
    # twill 84 times in 100 at 0.5, 73 at 0, and 76 before the fusion. With `ground=nothing` the
    # patch has a seam: take 0.5.
    own_share: Annotated[
        float,
        Field(ge=0, le=1, description="share of examples that repair their own misplaced defect"),
    ] = 0.0
    margin: Annotated[
        float, Field(ge=0, description="m of the hinge reconstruction loss; black and white: 2")
    ] = 0.1
    reconstruction: Annotated[
        float, Field(ge=0, description="λ_r, weight of the reconstruction loss")
    ] = 10.0
    feature: Annotated[float, Field(ge=0, description="λ_f, weight of the feature loss")] = 1.0
    adversarial: Annotated[
        float, Field(ge=0, description="λ_a, weight of the adversarial loss")
    ] = 0.1
    steps: Annotated[TwoStages, Field(description="training steps of stages 1 and 2")] = (4000, 400)


# A trial of minutes: too short for useful defects.
QUICK = dataclasses.replace(
    PainterConfig(), patches=1200, width=8, fusions=160, fusion_width=8, steps=(1000, 30)
)
