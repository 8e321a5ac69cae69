"""The demo's subjects: which photograph shows what, and how people describe it.

The photographs are the ones that the scikit-image and scikit-learn packages ship. `frame` is the part of a
photograph in which a crop still shows the subject; `rows` says how many square blocks fit into the frame's
height, and with it how close the crops come (see `photographs.py`).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Subject:
    """One photograph and its descriptions.

    Attributes:
        name: Unique short name, also the class name.
        title: Noun phrase for reports.
        package: Python package that ships the file.
        file: Path of the photograph inside the package.
        frame: Used part as (left, top, right, bottom) in the photograph's own pixels.
        rows: Number of blocks over the frame's height.
        validation: Top left blocks (row, column) of the squares of 2 x 2 blocks kept for validation.
        mirrored: Whether crops may be flipped horizontally (writing may not).
        alt_texts: Natural descriptions; each names the subject.
    """

    name: str
    title: str
    package: str
    file: str
    frame: tuple[int, int, int, int]
    rows: int
    validation: tuple[tuple[int, int], ...]
    mirrored: bool = True
    alt_texts: tuple[str, ...]


SUBJECTS: tuple[Subject, ...] = (
    Subject(
        name="astronaut",
        title="an astronaut in an orange suit",
        package="skimage",
        file="data/astronaut.png",
        frame=(0, 0, 512, 512),
        rows=7,
        validation=((4, 0), (4, 4)),
        alt_texts=(
            "portrait of an astronaut in an orange space suit",
            "an astronaut with a white helmet",
            "smiling astronaut in front of a flag and a space shuttle model",
            "official photo of a woman astronaut",
            "astronaut Eileen Collins in her orange launch suit",
            "close-up of an astronaut's suit and helmet",
        ),
    ),
    Subject(
        name="bricks",
        title="a brick wall",
        package="skimage",
        file="data/brick.png",
        frame=(0, 0, 512, 512),
        rows=10,
        validation=((0, 1), (3, 7), (6, 2), (7, 6)),
        alt_texts=(
            "a grey brick wall",
            "brick wall texture in black and white",
            "rows of bricks with pale mortar",
            "close-up of bricks in a wall",
            "old bricks photographed in grey tones",
            "brick pattern, seamless background",
        ),
    ),
    Subject(
        name="cameraman",
        title="a cameraman with a tripod",
        package="skimage",
        file="data/camera.png",
        frame=(110, 30, 480, 400),
        rows=7,
        validation=((1, 3), (4, 3)),
        alt_texts=(
            "a cameraman looking through a film camera on a tripod",
            "black and white photo of a cameraman",
            "cameraman in a dark coat at work on a lawn",
            "the cameraman and his tripod in front of a city skyline",
            "a cameraman filming outdoors",
            "vintage picture of a cameraman",
        ),
    ),
    Subject(
        name="cat",
        title="a tabby cat",
        package="skimage",
        file="data/chelsea.png",
        frame=(60, 0, 400, 300),
        rows=6,
        validation=((2, 5), (4, 2)),
        alt_texts=(
            "a tabby cat looking at the camera",
            "close-up of a ginger cat's face",
            "portrait of a cat with green eyes",
            "cute cat with long whiskers",
            "the cat Chelsea resting indoors",
            "a pet cat, orange fur and a pink nose",
        ),
    ),
    Subject(
        name="coffee",
        title="a cup of coffee",
        package="skimage",
        file="data/coffee.png",
        frame=(60, 0, 510, 400),
        rows=7,
        validation=((1, 1), (4, 5)),
        alt_texts=(
            "a cup of coffee on a red saucer",
            "coffee in a red cup on a wooden table",
            "fresh espresso coffee with a small spoon",
            "morning coffee seen from above",
            "a coffee cup, saucer and spoon",
            "hot coffee served in a café",
        ),
    ),
    Subject(
        name="coins",
        title="ancient coins",
        package="skimage",
        file="data/coins.png",
        frame=(0, 0, 384, 303),
        rows=9,
        validation=((1, 3), (3, 8), (4, 0), (6, 4)),
        alt_texts=(
            "ancient coins from Pompeii",
            "a collection of old Greek coins",
            "coins in rows on a dark background",
            "black and white photograph of antique coins",
            "silver coins in a museum catalogue",
            "several round coins with worn portraits",
        ),
    ),
    Subject(
        name="grass",
        title="grass",
        package="skimage",
        file="data/grass.png",
        frame=(0, 0, 512, 512),
        rows=18,
        validation=(
            (0, 3),
            (1, 12),
            (2, 7),
            (4, 15),
            (5, 1),
            (6, 10),
            (8, 5),
            (9, 14),
            (11, 0),
            (11, 9),
            (13, 4),
            (14, 13),
            (16, 1),
            (16, 8),
        ),
        alt_texts=(
            "blades of grass from above",
            "grass texture in black and white",
            "a lawn of dry grass",
            "close-up of grass on the ground",
            "a patch of wild grass and small leaves",
            "grey grass, natural background",
        ),
    ),
    Subject(
        name="gravel",
        title="gravel",
        package="skimage",
        file="data/gravel.png",
        frame=(0, 0, 512, 512),
        rows=17,
        validation=(
            (0, 11),
            (1, 3),
            (3, 7),
            (4, 14),
            (6, 1),
            (7, 10),
            (9, 5),
            (10, 13),
            (12, 0),
            (12, 9),
            (14, 4),
            (15, 12),
        ),
        alt_texts=(
            "grey gravel on a path",
            "gravel texture in black and white",
            "many small gravel stones",
            "close-up of gravel and pebbles",
            "a driveway covered with gravel",
            "crushed stone gravel, background image",
        ),
    ),
    Subject(
        name="galaxies",
        title="galaxies in deep space",
        package="skimage",
        file="data/hubble_deep_field.jpg",
        frame=(0, 0, 1000, 872),
        rows=13,
        validation=((0, 2), (1, 9), (3, 5), (5, 12), (6, 1), (8, 8), (10, 4), (11, 11)),
        alt_texts=(
            "galaxies in the Hubble deep field",
            "distant galaxies in a black sky",
            "thousands of galaxies seen by the space telescope",
            "coloured galaxies scattered over deep space",
            "astronomy photo of faraway galaxies",
            "deep space image full of galaxies and stars",
        ),
    ),
    Subject(
        name="tissue",
        title="stained tissue under a microscope",
        package="skimage",
        file="data/ihc.png",
        frame=(0, 0, 512, 512),
        rows=9,
        validation=((0, 1), (5, 5), (6, 1)),
        alt_texts=(
            "stained tissue under the microscope",
            "microscope slide of colon tissue, brown and blue",
            "immunohistochemical stain of a tissue section",
            "tissue sample with brown glands and blue nuclei",
            "pathology image of gland tissue",
            "histology of human tissue",
        ),
    ),
    Subject(
        name="moon",
        title="the surface of the moon",
        package="skimage",
        file="data/moon.png",
        frame=(0, 0, 512, 512),
        rows=6,
        validation=((0, 3), (4, 1)),
        alt_texts=(
            "the surface of the moon",
            "craters on the moon",
            "grey moon landscape seen from orbit",
            "black and white photograph of the moon",
            "the moon with small craters and dark spots",
            "lunar probe picture of the moon",
        ),
    ),
    Subject(
        name="motorcycle",
        title="a red motorcycle",
        package="skimage",
        file="data/motorcycle_left.png",
        frame=(90, 60, 690, 460),
        rows=9,
        validation=((2, 4), (2, 10), (5, 1), (6, 6), (6, 11)),
        alt_texts=(
            "a red motorcycle in a garage",
            "motorcycle parked in a workshop",
            "side view of a red motorcycle with black wheels",
            "a motorcycle with a chrome engine",
            "old motorcycle between shelves and boxes",
            "a shiny red motorcycle on its stand",
        ),
    ),
    Subject(
        name="page",
        title="a printed page",
        package="skimage",
        file="data/page.png",
        frame=(0, 0, 384, 150),
        rows=7,
        validation=((0, 3), (2, 9), (3, 0), (4, 14), (5, 6)),
        mirrored=False,
        alt_texts=(
            "a printed page of a book",
            "page of text about segmentation",
            "photo of a page with printed words",
            "scanned page, black letters on grey paper",
            "a paragraph on a printed page",
            "close-up of words on a page",
        ),
    ),
    Subject(
        name="retina",
        title="the retina of an eye",
        package="skimage",
        file="data/retina.jpg",
        frame=(150, 150, 1261, 1261),
        rows=6,
        validation=((0, 3), (4, 1)),
        alt_texts=(
            "the retina of a human eye",
            "blood vessels on a red retina",
            "fundus photograph of a retina",
            "medical image of a healthy retina",
            "retina with the bright optic disc",
            "an ophthalmologist's picture of the retina",
        ),
    ),
    Subject(
        name="rocket",
        title="a rocket on its launch pad",
        package="skimage",
        file="data/rocket.jpg",
        frame=(170, 60, 490, 427),
        rows=8,
        validation=((2, 2), (6, 5)),
        alt_texts=(
            "a rocket on the launch pad at night",
            "white rocket between lightning towers",
            "rocket ready for launch at dusk",
            "a Falcon rocket under a dark blue sky",
            "the rocket and the lights of its launch pad",
            "space rocket standing upright before lift-off",
        ),
    ),
    Subject(
        name="handwriting",
        title="handwritten formulas",
        package="skimage",
        file="data/text.png",
        frame=(0, 0, 448, 172),
        rows=4,
        validation=((0, 2), (2, 6)),
        mirrored=False,
        alt_texts=(
            "handwriting on a sheet of paper",
            "handwriting with mathematical formulas",
            "black ink handwriting on grey paper",
            "a notebook with handwriting and equations",
            "photo of handwriting taken at an angle",
            "close-up of somebody's handwriting",
        ),
    ),
    Subject(
        name="pagoda",
        title="a Chinese pagoda",
        package="sklearn",
        file="datasets/images/china.jpg",
        frame=(60, 20, 390, 350),
        rows=8,
        validation=((1, 4), (4, 1), (6, 5)),
        alt_texts=(
            "a Chinese pagoda above a lake",
            "pagoda with red columns and curved green roofs",
            "the pagoda of the Summer Palace in Beijing",
            "an old pagoda behind trees",
            "a colourful pagoda under a pale sky",
            "travel photo of a pagoda in China",
        ),
    ),
    Subject(
        name="dahlia",
        title="an orange dahlia",
        package="sklearn",
        file="datasets/images/flower.jpg",
        frame=(120, 40, 520, 427),
        rows=7,
        validation=((2, 0), (4, 4)),
        alt_texts=(
            "an orange dahlia in bloom",
            "dahlia flower on a dark green background",
            "close-up of the petals of a dahlia",
            "a round dahlia in the garden",
            "bright orange dahlia with many petals",
            "macro photograph of a dahlia blossom",
        ),
    ),
)

CLASS_NAMES: tuple[str, ...] = tuple(subject.name for subject in SUBJECTS)
