"""The page itself: one tab for each thing that a model can do, and one queue for all of them."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

import gradio as gr
import torch
from PIL.Image import Image

from reptok.app.actions import Guidance, between_conditions, between_images, read_picture, reconstruct
from reptok.pipeline import RepTokPipeline
from reptok.terminal import visible
from reptok.tokenizer import RepTok

MAX_SEED = 2**53 - 1
"""The largest whole number that a browser does not round."""


def build_page(pipe: RepTokPipeline, title: str) -> gr.Blocks:
    """The page on a model; whatever is asked of it waits in one queue, since the model is one.

    Args:
        pipe: The model; tabs that it has no part for are left out.
        title: Heading, shown as it is.
    """
    with gr.Blocks(title=title, analytics_enabled=False) as page:
        gr.HTML(f"<h1>{html.escape(visible(title))}</h1>")
        if pipe.generator is not None:
            with gr.Tab("Generate"):
                _generate(pipe)
        with gr.Tab("Reconstruct"):
            _reconstruct(pipe)
        with gr.Tab("Between two pictures"):
            _between_pictures(pipe)
        if pipe.generator is not None and pipe.generator.is_conditional:
            with gr.Tab("Between two classes" if pipe.class_names else "Between two prompts"):
                _between_prompts(pipe)
    return page


def _generate(pipe: RepTokPipeline) -> None:
    with gr.Row():
        with gr.Column():
            wanted = _wanted(pipe, "")
            number = gr.Slider(1, 16, 4, step=1, label="Pictures")
            guidance, steps = _sampling()
            decoder_steps, seed = _steps("Steps of the decoder"), _seed()
            button = gr.Button("Generate", variant="primary")
        grid = gr.Gallery(label="Generated", columns=4, format="png", interactive=False, buttons=["download"])

    def run(
        wanted: Any, number: float, scale: float, start: float, end: float, steps: float,
        decoder_steps: float, seed: float,
    ) -> list[Image]:  # fmt: skip
        told = Guidance(scale=scale, interval=(start, end))
        return pipe(
            wanted, num_images=int(number), cfg_scale=told.scale, guidance_interval=told.interval,
            num_steps=int(steps), decoder_steps=int(decoder_steps), seed=int(seed),
        )  # fmt: skip

    _on([button.click], run, [wanted, number, *guidance, steps, decoder_steps, seed], [grid], "generate")


def _reconstruct(pipe: RepTokPipeline) -> None:
    tokenizer = pipe.tokenizer
    with gr.Row():
        with gr.Column():
            picture = _upload("Picture")
            steps, seed = _steps("Steps of the decoder"), _seed()
            button = gr.Button("Reconstruct", variant="primary")
        with gr.Column(), gr.Row():
            shown = [_picture(label) for label in ("Original", "VAE alone", "RepTok")]
            cosine = gr.Number(
                label="Cosine of the token to the frozen encoder's", precision=4, interactive=False,
                visible=isinstance(tokenizer, RepTok),
            )  # fmt: skip

    def run(file: str | None, steps: float, seed: float) -> tuple[Image, Image, Image, float | None]:
        image = read_picture(tokenizer, file)
        made = reconstruct(tokenizer, image, num_steps=int(steps), seed=int(seed))
        return made.original, made.autoencoder, made.tokenizer, made.cosine

    _on([button.click], run, [picture, steps, seed], [*shown, cosine], "reconstruct")


def _between_pictures(pipe: RepTokPipeline) -> None:
    tokenizer = pipe.tokenizer
    with gr.Row():
        first, second = _upload("First picture"), _upload("Second picture")
    with gr.Row():
        steps, seed = _steps("Steps of the decoder"), _seed()
    button, place, shown = _way()

    def run(first: str | None, second: str | None, place: float, steps: float, seed: float) -> list[Image]:
        start, end = (read_picture(tokenizer, file) for file in (first, second))
        return between_images(tokenizer, start, end, place, num_steps=int(steps), seed=int(seed))

    inputs = [first, second, place, steps, seed]
    _on([button.click, place.release], run, inputs, shown, "interpolate")


def _between_prompts(pipe: RepTokPipeline) -> None:
    with gr.Row():
        first, second = _wanted(pipe, "First "), _wanted(pipe, "Second ")
    with gr.Row():
        guidance, steps = _sampling()
    with gr.Row():
        decoder_steps, seed = _steps("Steps of the decoder"), _seed()
    button, place, shown = _way()

    def run(
        first: Any, second: Any, place: float, scale: float, start: float, end: float, steps: float,
        decoder_steps: float, seed: float,
    ) -> list[Image]:  # fmt: skip
        return between_conditions(
            pipe, [first, second], place, guidance=Guidance(scale=scale, interval=(start, end)),
            num_steps=int(steps), decoder_steps=int(decoder_steps), seed=int(seed),
        )  # fmt: skip

    inputs = [first, second, place, *guidance, steps, decoder_steps, seed]
    _on([button.click, place.release], run, inputs, shown, "interpolate_prompts")


def _wanted(pipe: RepTokPipeline, which: str) -> gr.components.Component:
    """The field in which the generator is told something; nothing to see where it is told nothing."""
    assert pipe.generator is not None
    conditioner = pipe.conditioner
    if conditioner.reads_text:
        return gr.Textbox(label=f"{which}Prompt".capitalize(), max_length=2000)
    if conditioner.reads_classes:
        names = pipe.class_names or [str(number) for number in range(pipe.generator.config.num_classes)]
        choices: list[Any] = [(visible(name), number) for number, name in enumerate(names)]
        return gr.Dropdown(choices, value=0, label=f"{which}Class".capitalize())
    return gr.State(None)


def _sampling() -> tuple[list[gr.components.Component], gr.Slider]:
    """Scale, start and end of the guidance, and the generator's steps."""
    told = Guidance()
    guidance: list[gr.components.Component] = [
        gr.Slider(1, 10, told.scale, step=0.1, label="Guidance; 1 is off"),
        gr.Slider(0, 1, told.interval[0], step=0.05, label="Guidance acts from (0 is noise)"),
        gr.Slider(0, 1, told.interval[1], step=0.05, label="to (1 is data)"),
    ]
    return guidance, _steps("Steps of the generator")


def _steps(label: str) -> gr.Slider:
    return gr.Slider(1, 250, 50, step=1, label=label)


def _seed() -> gr.Number:
    return gr.Number(0, label="Seed", precision=0, minimum=0, maximum=MAX_SEED)


def _upload(label: str) -> gr.Image:
    return gr.Image(label=label, type="filepath", image_mode=None, sources=["upload", "clipboard"])


def _picture(label: str) -> gr.Image:
    return gr.Image(label=label, format="png", interactive=False, buttons=["download"])


def _way() -> tuple[gr.Button, gr.Slider, list[gr.Image]]:
    button = gr.Button("Interpolate", variant="primary")
    place = gr.Slider(0, 1, 0.5, step=0.01, label="Place between the two")
    with gr.Row():
        return button, place, [_picture(label) for label in ("First", "Between", "Second")]


def _on(
    triggers: Sequence[Any], run: Callable[..., Any], inputs: Sequence[Any], outputs: Sequence[Any], name: str
) -> None:
    """Call `run` at an event, one call of the whole page at a time."""
    gr.on(triggers, _told(run), list(inputs), list(outputs), api_name=name, concurrency_limit=1,
          concurrency_id="model")  # fmt: skip


def _told(run: Callable[..., Any]) -> Callable[..., Any]:
    """What a person can cause becomes a sentence on the page."""

    @wraps(run)
    def telling(*values: Any) -> Any:
        try:
            return run(*values)
        except (ValueError, OSError, MemoryError, torch.OutOfMemoryError) as error:
            said = visible(error) or "there is not enough memory"
            raise gr.Error(html.escape(said), print_exception=False) from error

    return telling
