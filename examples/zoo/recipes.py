"""What determines the zoo's weights, figure by figure; free of torch, so that planning loads none of it."""

from __future__ import annotations

from dataclasses import dataclass

from pipelines.dag.fingerprint import insignificant
from reptok.bounds import Count, Number, Pixels, Positive, Share, Whole


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What all recipes have; see `examples/zoo/loop.py`.

    Attributes:
        seed: of the initial weights, the training's data and every step's random numbers.
        batch_size: samples of a step.
        learning_rate: AdamW's, after the warm-up.
        warmup_steps: steps until the peak rate.
        weight_decay: AdamW's.
        clip_norm: largest gradient norm.
        threads: CPU threads; their number changes the last bits.
        log_every: steps between two entries of the log.
        checkpoint_seconds: shortest time between two checkpoints.
    """

    seed: Whole = 0
    batch_size: Count
    learning_rate: Positive
    warmup_steps: Whole
    weight_decay: Number = 0.0
    clip_norm: Positive = 1.0
    threads: Count = 1
    log_every: Count = insignificant(10)
    checkpoint_seconds: Number = insignificant(60.0)


@dataclass(frozen=True, kw_only=True)
class AutoencoderRecipe(Recipe):
    """Everything that determines the autoencoder's weights.

    Attributes:
        steps: length of the training, and of its schedule.
        block_out_channels: widths at 64, 32, 16 and 8 pixels.
        latent_channels: numbers of the latent at each of its 8 x 8 places.
        equal_channels: whether they start with one deviation, or with those of their components.
        crops_per_subject: training crops in memory.
        kl_weight: weight of the KL divergence per latent element, beside the images' error.
        ema_decay: of the averaged weights, which are the ones saved.
        validation_per_subject: validation crops for the figures.
    """

    block_out_channels: tuple[Count, ...] = (8, 24, 64, 120)
    latent_channels: Count = 4
    equal_channels: bool = True
    crops_per_subject: Count = 800
    steps: Count = 1500
    batch_size: Count = 8
    learning_rate: Positive = 6e-4
    warmup_steps: Whole = 60
    kl_weight: Number = 5e-4
    ema_decay: Share = 0.995
    validation_per_subject: Count = 20
    log_every: Count = insignificant(25)


@dataclass(frozen=True, kw_only=True)
class EncoderPhase:
    """A part of the encoder's training, with a schedule of its own.

    Attributes:
        steps: its length.
        kept_share: share of a view's patches that the student sees; the teacher sees all.
        momentum: the teacher's decay at the start; it rises to 1.
        spread_weight: weight of the KoLeo term, which keeps class tokens apart (as in DINOv2).
        layout_weight: weight of the small picture's mean squared error, with pixels in [-1, 1].
        colours_weight: weight of the histogram's mean squared error, with a uniform histogram's bins at 1.
    """

    steps: Count
    kept_share: Share = 1.0
    momentum: Share = 0.99
    spread_weight: Number = 0.1
    layout_weight: Number = 5.0
    colours_weight: Number = 2.0


@dataclass(frozen=True, kw_only=True)
class EncoderRecipe(Recipe):
    """Everything that determines the encoder's weights.

    Attributes:
        linear_start: begin as a linear code of the view (`linear_vit.py`) instead of as noise.
        layer_scale: initial factor of each residual branch.
        position_std: deviation of the initial position embeddings, large enough to matter at once.
        crops_per_subject: training crops in memory.
        crop_size: their side in pixels, from which views of `image_size` are cut.
        smallest_view: smallest side of a view, as a share of the crop's side.
        colour_jitter: largest relative change of brightness, contrast and saturation.
        layout_size: side of the small picture of its view that the class token predicts.
        prototypes: number of prototypes.
        phases: one after the other: first where things are, then also which colours, then from half of it.
        bank_per_subject, queries_per_subject: crops for the k-nearest-neighbour figures.
        neighbours: their k.
    """

    image_size: Pixels = 64
    patch_size: Count = 16
    width: Count = 192
    depth: Count = 5
    heads: Count = 12
    registers: Whole = 4
    linear_start: bool = False
    layer_scale: Number = 1.0
    position_std: Number = 0.3
    crop_size: Pixels = 96
    crops_per_subject: Count = 500
    smallest_view: Share = 0.6
    colour_jitter: Share = 0.1
    layout_size: Count = 16
    prototypes: Count = 128
    phases: tuple[EncoderPhase, ...] = (
        EncoderPhase(steps=2600, momentum=0.98, spread_weight=0.02, layout_weight=15.0, colours_weight=0.0),
        EncoderPhase(steps=450),
        EncoderPhase(steps=700, kept_share=0.5),
    )
    batch_size: Count = 24
    learning_rate: Positive = 1e-3
    warmup_steps: Whole = 100
    weight_decay: Number = 0.04
    clip_norm: Positive = 3.0
    teacher_temperature: Positive = 0.05
    centre_momentum: Share = 0.7
    bank_per_subject: Count = 60
    queries_per_subject: Count = 30
    neighbours: Count = 20


@dataclass(frozen=True, kw_only=True)
class TextEncoderRecipe(Recipe):
    """Everything that determines the text encoder's weights, beside the frozen image encoder.

    Attributes:
        steps: length of the training, and of its schedule.
        max_length: longest text in tokens, start and end included; longer ones are cut.
        word_dropout: share of words that training replaces by the unknown word, so that new words do no harm.
        crops_per_subject: training crops whose class tokens the texts must find.
        temperature: of the contrastive softmax.
    """

    width: Count = 128
    layers: Count = 2
    heads: Count = 4
    max_length: Count = 32
    word_dropout: Share = 0.15
    crops_per_subject: Count = 40
    temperature: Positive = 0.1
    steps: Count = 400
    batch_size: Count = 54
    learning_rate: Positive = 1e-3
    warmup_steps: Whole = 40
    weight_decay: Number = 0.05
    log_every: Count = insignificant(20)
    checkpoint_seconds: Number = insignificant(30.0)


@dataclass(frozen=True, kw_only=True)
class EmojiTextEncoderRecipe(TextEncoderRecipe):
    """Everything that determines the weights of the emoji's text encoder, beside their frozen image encoder.

    Attributes:
        pictures_per_emoji: one plain picture of each, and so many less one composed scenes.
    """

    pictures_per_emoji: Count = 12
    batch_size: Count = 96
    steps: Count = 1500
    warmup_steps: Whole = 100


@dataclass(frozen=True, kw_only=True)
class EmojiAutoencoderRecipe(AutoencoderRecipe):
    """The autoencoder's recipe where edges are sharp, and a subject is an emoji.

    Its latent is small, and its fine components are small in it, so that a decoder of tokens learns first
    what is seen first.
    """

    latent_channels: Count = 6
    equal_channels: bool = False
    crops_per_subject: Count = 8
    validation_per_subject: Count = 4
    batch_size: Count = 12
    steps: Count = 2400


@dataclass(frozen=True, kw_only=True)
class EmojiEncoderRecipe(EncoderRecipe):
    """The encoder's recipe on emoji: both views are of one picture, and nearly whole."""

    width: Count = 256
    heads: Count = 8
    linear_start: bool = True
    learning_rate: Positive = 5e-4
    prototypes: Count = 256
    crops_per_subject: Count = 8
    crop_size: Pixels = 64
    smallest_view: Share = 0.85
    phases: tuple[EncoderPhase, ...] = (
        EncoderPhase(steps=700, momentum=0.98, spread_weight=0.02, layout_weight=15.0, colours_weight=0.0),
        EncoderPhase(steps=200, spread_weight=0.02, layout_weight=15.0, colours_weight=0.2),
        EncoderPhase(steps=200, kept_share=0.75, spread_weight=0.02, layout_weight=15.0, colours_weight=0.2),
    )
    bank_per_subject: Count = 5
    queries_per_subject: Count = 3
    neighbours: Count = 5


@dataclass(frozen=True, kw_only=True)
class EnglishRecipe(Recipe):
    """Everything that determines the English text encoder's weights, beside its teacher and WordNet 3.0.

    Attributes:
        wordnet: folder of WordNet's files; Debian's package wordnet-base puts them there.
        width, layers, heads: of the transformer; the word pieces' embeddings are most of its weights.
        max_length: longest text in tokens, start and end included; longer ones are cut.
        steps: length of the training, and of its schedule.
    """

    wordnet: str = insignificant("/usr/share/wordnet")
    width: Count = 144
    layers: Count = 1
    heads: Count = 6
    max_length: Count = 64
    batch_size: Count = 96
    steps: Count = 100
    learning_rate: Positive = 1e-3
    warmup_steps: Whole = 10
    weight_decay: Number = 0.01
    log_every: Count = insignificant(20)


@dataclass(frozen=True, kw_only=True)
class CaptionerRecipe(Recipe):
    """Everything that determines the captioner's weights, beside the encoder that its vision part starts as.

    Attributes:
        vision_width, vision_depth, vision_heads, patch_size: of the vision part; the encoder's, but for its
            last block.
        width, depth, heads: of the language model, a Qwen2 with half as many key-value heads.
        max_length: longest dialogue in tokens.
        prompts: what it is asked; each is trained alike.
        crops_per_subject: training crops in memory.
        crop_size, smallest_view, colour_jitter: of the training views, as in the encoder's recipe.
        vision_rate: learning rate of the vision part, as a share of `learning_rate`.
        ema_decay: of the averaged weights, which are the ones saved.
        steps: length of the training, and of its schedule.
        measured_per_subject: crops for the figures.
    """

    image_size: Pixels = 64
    patch_size: Count = 16
    vision_width: Count = 192
    vision_depth: Count = 4
    vision_heads: Count = 12
    width: Count = 128
    depth: Count = 2
    heads: Count = 4
    max_length: Count = 64
    prompts: tuple[str, ...] = ("describe the image in one sentence.", "what does the picture show?")
    crop_size: Pixels = 96
    smallest_view: Share = 0.5
    colour_jitter: Share = 0.3
    crops_per_subject: Count = 1000
    batch_size: Count = 36
    steps: Count = 5000
    learning_rate: Positive = 1e-3
    vision_rate: Number = 0.4
    warmup_steps: Whole = 100
    weight_decay: Number = 0.05
    ema_decay: Share = 0.998
    measured_per_subject: Count = 30
    log_every: Count = insignificant(20)

    @property
    def image_tokens(self) -> int:
        """Tokens of an image: a quarter of its patches, as InternVL shuffles 2 x 2 of them into one."""
        return (self.image_size // self.patch_size) ** 2 // 4
