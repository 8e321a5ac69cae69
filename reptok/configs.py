"""Which networks, and of what sizes; free of torch, so that to plan a workflow loads none of it."""

from __future__ import annotations

from dataclasses import dataclass, field

from reptok.bounds import Count, Number, Pixels, Positive, Share, Signed, Whole
from reptok.values import check_ranges

NETWORK = {"reference": "network"}
"""Marks a field that says where weights are: pipelines go by the weights, not by the place."""

TOKENS = ("cls", "reg")
TRAINABLE = ("cls", "nothing", "everything")
GENERATOR_KINDS = ("mixer", "transformer")
CONDITIONS = ("none", "class", "text")
PATHS = ("linear", "trigonometric")
TEXT_ENCODER_KINDS = ("clip", "open_clip", "transformers")
CAPTIONER_BACKENDS = ("transformers", "vllm")

WIDTH, DEPTH, SIDE, TOKEN_NUMBER = (1, 2**16), (1, 1024), (1, 2**14), (1, 4096)
"""Bounds of what a configuration may ask for: beyond them nothing can be meant."""


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """Which encoder, which of its output rows are tokens, and what of it trains.

    Attributes:
        name: A key of ``ENCODERS`` (reptok/encoder/ssl.py), or "folder".
        path: Folder with config.json and model.safetensors; needed for "folder", replaces the hub for the
            others.
        image_size: Side of the square the encoder sees, a multiple of its patch size.
        token: "cls" starts at the [cls] row (then registers), "reg" at the first register.
        num_tokens: K, number of rows. Those beyond the encoder's own [cls] and registers start near the first
            one, for plain transformers.
        trainable: "cls" trains the K rows' input embeddings, "everything" also the rest.
    """

    name: str = "dinov2_vitb14_reg"
    path: str | None = field(default=None, metadata=NETWORK)
    image_size: Pixels = 224
    token: str = "cls"
    num_tokens: Count = 1
    trainable: str = "cls"

    def __post_init__(self) -> None:
        if self.token not in TOKENS:
            raise ValueError(f"encoder.token must be one of {TOKENS}, got {self.token!r}")
        if self.trainable not in TRAINABLE:
            raise ValueError(f"encoder.trainable must be one of {TRAINABLE}, got {self.trainable!r}")
        check_ranges("encoder", self, num_tokens=TOKEN_NUMBER, image_size=SIDE)


@dataclass(frozen=True, kw_only=True)
class DecoderConfig:
    """Sizes of the decoder; widths left at 0 follow from ``width`` as in the paper's XL model.

    Attributes:
        width: D; a multiple of 8 * heads.
        mapping_width: Width of the time condition (0: like ``width``, at most 1024).
        mapping_ff: Hidden width of the mapping network (0: 3 * mapping_width).
        ff: Hidden width of the blocks' SwiGLU (0: 3 * width).
        latent_size: Height and width of the square latent it samples by default.
        token_dim: Width of the token it decodes.
        num_tokens: K, tokens per image.
    """

    width: Count = 1152
    depth: Count = 28
    heads: Count = 16
    patch_size: Count = 2
    latent_channels: Count = 4
    latent_size: Count = 32
    mapping_width: Whole = 0
    mapping_depth: Count = 2
    mapping_ff: Whole = 0
    ff: Whole = 0
    token_dim: Count = 768
    num_tokens: Count = 1

    def __post_init__(self) -> None:
        check_ranges(
            "decoder", self, width=WIDTH, depth=DEPTH, heads=WIDTH, patch_size=SIDE, latent_channels=WIDTH,
            latent_size=SIDE, mapping_width=(0, WIDTH[1]), mapping_depth=(0, DEPTH[1]),
            mapping_ff=(0, 4 * WIDTH[1]), ff=(0, 4 * WIDTH[1]), token_dim=WIDTH, num_tokens=TOKEN_NUMBER,
        )  # fmt: skip
        if self.width % (8 * self.heads):
            raise ValueError(f"decoder width {self.width} must be a multiple of 8 * heads = {8 * self.heads}")
        if self.token_dim > self.width:
            raise ValueError(
                f"decoder width {self.width} must be at least the token's width {self.token_dim}"
            )
        if self.latent_size % self.patch_size:
            raise ValueError(
                f"latent_size {self.latent_size} must be a multiple of patch_size {self.patch_size}"
            )
        object.__setattr__(self, "mapping_width", self.mapping_width or min(self.width, 1024))
        object.__setattr__(self, "mapping_ff", self.mapping_ff or 3 * self.mapping_width)
        object.__setattr__(self, "ff", self.ff or 3 * self.width)


@dataclass(frozen=True, kw_only=True)
class AutoencoderConfig:
    """Which VAE and how its latents are scaled.

    Attributes:
        path: Local diffusers AutoencoderKL folder, or a hub id.
        scale: Multiplies (posterior - shift), so that latents have about unit variance; None takes the
            `scaling_factor` that the VAE's own configuration states.
        shift: Subtracted from the posterior before scaling; None takes the VAE's own `shift_factor`.
        sample: Whether training draws from the posterior; otherwise it takes the mean.
    """

    path: str = field(default="stabilityai/sd-vae-ft-mse", metadata=NETWORK)
    scale: Positive | None = None
    shift: Signed | None = None
    sample: bool = True

    def __post_init__(self) -> None:
        check_ranges("vae", self, scale=(1e-6, 1e6), shift=(-1e6, 1e6))


@dataclass(frozen=True, kw_only=True)
class RepTokConfig:
    """The tokenizer's parts; decoder and encoder must agree on the width and number of tokens."""

    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    decoder: DecoderConfig = field(default_factory=DecoderConfig)
    autoencoder: AutoencoderConfig = field(default_factory=AutoencoderConfig)


@dataclass(frozen=True, kw_only=True)
class LatentTokenizerConfig:
    """The VAE's latent as tokens, for the attention baselines.

    Attributes:
        autoencoder: The VAE.
        image_size: Side of the square images in pixels.
        patch_size: Side of a patch in latent cells; one patch is one token.
    """

    autoencoder: AutoencoderConfig = field(default_factory=AutoencoderConfig)
    image_size: Pixels = 256
    patch_size: Count = 2

    def __post_init__(self) -> None:
        check_ranges("tokenizer", self, image_size=SIDE, patch_size=SIDE)


@dataclass(frozen=True, kw_only=True)
class GeneratorConfig:
    """Sizes and condition of a generator; widths left at 0 follow from ``dim`` as in the paper.

    Attributes:
        kind: "mixer" or "transformer".
        token_dim: D.
        num_tokens: K.
        condition: "none", "class" or "text".
        num_classes: Number of classes for "class".
        condition_dropout: Share of training samples made unconditional.
        num_extra_tokens: Tokens that a caller of "none" gives with ``Condition.extra``.
        num_learnable_tokens: Learned tokens beside the noisy ones, for "text" with the mixer.
        text_dim: Width of the language model's states, for "text".
        dim: Width inside.
        tokens_mlp_dim: Hidden width across tokens (0: twice the sequence length).
        channels_mlp_dim: Hidden width across channels (0: 4 * dim).
        heads: Attention heads (text cross-attention, transformer).
        path: "linear" or "trigonometric", the way from noise to token that it is trained on.
        whiten: Whether tokens are brought to equal variance in all directions and not number by number (not
            in the paper): for encoders whose tokens vary much in few directions, while a decoder reads all.
    """

    kind: str = "mixer"
    token_dim: Count = 768
    num_tokens: Count = 1
    condition: str = "none"
    num_classes: Whole = 0
    condition_dropout: Share = 0.1
    num_extra_tokens: Whole = 0
    num_learnable_tokens: Whole = 4
    text_dim: Whole = 0
    dim: Count = 1280
    depth: Count = 28
    tokens_mlp_dim: Whole = 0
    channels_mlp_dim: Whole = 0
    heads: Count = 16
    path: str = "linear"
    whiten: bool = False

    def __post_init__(self) -> None:
        if self.path not in PATHS:
            raise ValueError(f"generator.path must be one of {PATHS}, got {self.path!r}")
        if self.kind not in GENERATOR_KINDS:
            raise ValueError(f"generator.kind must be one of {GENERATOR_KINDS}, got {self.kind!r}")
        if self.condition not in CONDITIONS:
            raise ValueError(f"generator.condition must be one of {CONDITIONS}, got {self.condition!r}")
        check_ranges(
            "generator", self, token_dim=WIDTH, num_tokens=TOKEN_NUMBER, num_classes=(0, 2**20),
            condition_dropout=(0, 1), num_extra_tokens=(0, 4096), num_learnable_tokens=(0, 4096),
            text_dim=(0, WIDTH[1]), dim=WIDTH, depth=DEPTH, tokens_mlp_dim=(0, 4 * WIDTH[1]),
            channels_mlp_dim=(0, 4 * WIDTH[1]), heads=WIDTH,
        )  # fmt: skip
        if self.condition == "class" and self.num_classes < 1:
            raise ValueError("a class-conditional generator needs generator.num_classes of at least 1")
        if self.condition == "text" and self.text_dim < 1:
            raise ValueError(
                "a text-conditional generator needs generator.text_dim, the text encoder's width"
            )
        object.__setattr__(self, "tokens_mlp_dim", self.tokens_mlp_dim or 2 * self.sequence_length)
        object.__setattr__(self, "channels_mlp_dim", self.channels_mlp_dim or 4 * self.dim)

    @property
    def num_leading_tokens(self) -> int:
        """Tokens before the noisy ones: learned with text, otherwise the caller's."""
        return self.num_learnable_tokens if self.condition == "text" else self.num_extra_tokens

    @property
    def sequence_length(self) -> int:
        """Tokens in the mixer: leading, noisy, class if any, time."""
        return self.num_leading_tokens + self.num_tokens + (self.condition == "class") + 1


@dataclass(frozen=True, kw_only=True)
class TextEncoderConfig:
    """Which language model.

    Attributes:
        kind: "clip" a transformers CLIPTextModel; "open_clip" a text tower of open_clip; "transformers" the
            last hidden states of any other text model, such as Gemma or InternVL's language part.
        path: Local folder or hub id; for open_clip "MODEL/WEIGHTS", as in "ViT-L-14/openai".
        max_length: Captions are cut to this many tokens.
    """

    kind: str = "clip"
    path: str = field(default="openai/clip-vit-large-patch14", metadata=NETWORK)
    max_length: Count = 77

    def __post_init__(self) -> None:
        if self.kind not in TEXT_ENCODER_KINDS:
            raise ValueError(f"text_encoder.kind must be one of {TEXT_ENCODER_KINDS}, got {self.kind!r}")
        check_ranges("text_encoder", self, max_length=(1, 2**16))


@dataclass(frozen=True, kw_only=True)
class VisionLanguageConfig:
    """Which vision-language model writes captions, and how it decodes.

    Attributes:
        backend: "transformers", or "vllm" where the extra of that name is installed.
        path: Folder or hub id of an InternVL in transformers' format.
        revision: Branch, tag or commit of a hub id; a commit makes captions reproducible.
        image_size: Side of a tile in pixels; None takes what the model was trained with (448 for InternVL3).
        max_tiles: 1 squeezes an image into one tile; more cut it into up to so many, beside a thumbnail.
        prompts: What the model is asked; the captions of an image take them in turn.
        captions_per_image: How many captions are written for each image.
        max_new_tokens: A caption's longest length in tokens.
        temperature: 0 takes the likeliest token; above, tokens are drawn, seeded per caption.
        top_p: Tokens are drawn from the smallest set of this probability.
    """

    backend: str = "transformers"
    path: str = field(default="OpenGVLab/InternVL3-1B-hf", metadata={**NETWORK, "named": True})
    revision: str | None = None
    image_size: Pixels | None = None
    max_tiles: Count = 1
    prompts: tuple[str, ...] = ("Describe the image in one sentence.",)
    captions_per_image: Count = 1
    max_new_tokens: Count = 64
    temperature: Number = 0.0
    top_p: Share = 1.0

    def __post_init__(self) -> None:
        if self.backend not in CAPTIONER_BACKENDS:
            raise ValueError(f"captioner backend must be one of {CAPTIONER_BACKENDS}, got {self.backend!r}")
        if not self.prompts or not all(prompt.strip() for prompt in self.prompts):
            raise ValueError("a captioner needs prompts, and none of them may be empty")
        check_ranges(
            "captioner.model", self, captions_per_image=(1, 1000), max_new_tokens=(1, 2**14),
            max_tiles=(1, 64), image_size=(1, 4096),
        )  # fmt: skip
        if self.temperature < 0 or not 0 < self.top_p <= 1:
            raise ValueError(
                f"need temperature >= 0 and 0 < top_p <= 1, got {self.temperature} and {self.top_p}"
            )
        if self.temperature == 0 and self.captions_per_image > len(self.prompts):
            raise ValueError(
                f"{self.captions_per_image} captions from {len(self.prompts)} prompts would repeat without a "
                "temperature; set temperature above 0 or give more prompts"
            )
