"""Experiments of the paper; what is stored is not run again.

python -m benchmarks.paper derivations
python -m benchmarks.paper images --data FOLDER
"""

import argparse

from benchmarks.paper import (
    accuracy,
    cheaper,
    cheaper_figures,
    derivation_figures,
    derivations,
    event_figures,
    events,
    flow_figures,
    flows,
    image_figures,
    images,
    joint_events,
    latent,
    latent_figures,
    pages,
    storage,
    vowel_figures,
    vowels,
)


def derive() -> None:
    """The derivations of the paper as numbers."""
    derivation_figures.draw(derivations.run())
    pages.write("derivations")


def regularize() -> None:
    """Digits with each regularizer and weight."""
    cheaper.cheaper()
    cheaper_figures.draw_cheaper()
    pages.write("cheaper")


def spheres() -> None:
    """Nested spheres, plain and augmented."""
    cheaper.spheres()
    cheaper_figures.draw_spheres()
    pages.write("spheres")


def point_process() -> None:
    """Point processes: known intensities, and a latent ODE of values and events."""
    for name, job in {**events.jobs(), **joint_events.jobs()}.items():
        storage.kept("events", name, job)
    event_figures.draw_events()
    pages.write("point-process")


def speakers(file: str) -> None:
    """Speakers of Japanese vowels with points dropped: an ODE-RNN against a GRU."""
    vowels.run(file)
    vowel_figures.draw(storage.results_of("vowels"))
    pages.write("vowels")


def match() -> None:
    """Continuous and planar flows matched to three densities that are known up to a factor."""
    flows.matching()
    flow_figures.draw_matching()
    pages.write("flows")


def likely() -> None:
    """Continuous and planar flows of circles and moons by maximum likelihood."""
    flows.likelihood()
    flow_figures.draw_likelihood()
    pages.write("flows")


def spirals() -> None:
    """Latent ODEs of spirals at irregular times, against recurrent networks."""
    latent.run()
    latent_figures.draw()
    pages.write("latent-ode")


def nets(folder: str) -> None:
    """ODE-Net, RK-Net and ResNet on MNIST."""
    images.mnist(folder)
    image_figures.draw_images()
    pages.write("images")


def small_nets() -> None:
    """The same nets on the digits of scikit-learn."""
    images.digits()
    pages.write("images")


def tolerances(folder: str) -> None:
    """Error, time and evaluations of a trained ODE-Net at many tolerances."""
    accuracy.accuracy(folder)
    image_figures.draw_accuracy()
    pages.write("images")


COMMANDS = {
    "derivations": derive, "digits": small_nets, "matching": match, "likelihood": likely,
    "events": point_process, "latent": spirals, "cheaper": regularize, "spheres": spheres,
}  # fmt: skip
WITH_DATA = {"images": nets, "accuracy": tolerances, "vowels": speakers}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, function in {**COMMANDS, **WITH_DATA}.items():
        command = commands.add_parser(name, help=function.__doc__)
        if name in WITH_DATA:
            command.add_argument("--data", required=True, help="a folder of IDX files; of vowels an .npz file")
    given = parser.parse_args()
    if given.command in WITH_DATA:
        WITH_DATA[given.command](given.data)
    else:
        COMMANDS[given.command]()
