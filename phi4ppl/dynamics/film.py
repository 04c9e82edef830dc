"""Films of fields that moved: GIF, or a page that needs nothing else."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path

import numpy as np
import xarray as xr

from .._typing import PathLike
from ..errors import ArgumentError
from ..errors.arguments import call_checked, path_of, positive_int, writing
from ..reports.style import panels
from .snapshots import Recorded, recorded_field

__all__ = ["animate", "film_path"]

KINDS = (".gif", ".html")
PIXELS = 80  # per inch
PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<style>body{{font-family:sans-serif;text-align:center;margin:1em}} img{{max-width:100%}} input{{width:60%}}</style></head>
<body><img id="frame" alt="{title}"><br>
<button id="play">Pause</button> <input id="at" type="range" min="0" max="{last}" value="0" aria-label="time">
<script>
const frames = {frames}, image = document.getElementById("frame"), at = document.getElementById("at");
const play = document.getElementById("play");
let timer = null;
function show(k) {{ at.value = k; image.src = "data:image/png;base64," + frames[k]; }}
function go() {{ timer = setInterval(() => show((+at.value + 1) % frames.length), {pause}); play.textContent = "Pause"; }}
function stop() {{ clearInterval(timer); timer = null; play.textContent = "Play"; }}
play.onclick = () => timer === null ? go() : stop();
at.oninput = () => {{ stop(); show(+at.value); }};
show(0); go();
</script></body></html>
"""


@call_checked
def animate(
    tree: xr.DataTree, path: PathLike, *, replica: int = 0, frames_per_second: int = 12, max_frames: int = 100
) -> Path:
    """Write a film of what `evolve` recorded of one replica, with one scale for all times.

    Parameters
    ----------
    tree : xarray.DataTree
        Of `evolve`, with the field.
    path : path-like
        Ending in ``.gif`` (by Pillow), or in ``.html``: a page with a slider that holds all frames and loads nothing.
    replica : int, default 0
    frames_per_second : int, default 12
    max_frames : int, default 100
        Of more records, evenly spaced ones are shown, the first and the last among them.

    Returns
    -------
    pathlib.Path

    Raises
    ------
    ArgumentError
        If the ending is another one, or the file cannot be written.

    Examples
    --------
    >>> import numpy as np, phi4ppl as p4, tempfile, os
    >>> process = p4.dynamics.Diffusion(p4.lattice.chain(20))
    >>> tree = p4.dynamics.evolve(process, np.eye(20)[10], time=2, every=1)
    >>> folder = tempfile.mkdtemp()
    >>> os.path.getsize(p4.dynamics.animate(tree, os.path.join(folder, "film.gif"))) > 1000
    True
    """
    path = film_path("path", path)
    rate = positive_int("frames_per_second", frames_per_second)
    shown = recorded_field(tree, replica)
    number = min(positive_int("max_frames", max_frames, minimum=2), len(shown.times))
    pictures = _pictures(shown, np.linspace(0, len(shown.times) - 1, number).round().astype(int))
    with writing("path", path):
        if path.suffix.lower() == ".gif":
            first, *others = pictures
            pause = max(20, round(1000 / rate))  # viewers slow down what is faster
            first.save(path, save_all=True, append_images=others, duration=pause, loop=0)
        else:
            frames = json.dumps([_encoded(picture) for picture in pictures])
            title = f"φ on {shown.lattice.name}".replace("<", "&lt;")
            page = PAGE.format(title=title, last=len(pictures) - 1, frames=frames, pause=round(1000 / rate))
            path.write_text(page, encoding="utf-8")
    return path


def film_path(name: str, value: PathLike) -> Path:
    """Return the path of a film, or raise `ArgumentError` if its ending is of no kind of film."""
    path = path_of(name, value)
    if path.suffix.lower() not in KINDS:
        raise ArgumentError(name, f"a name that ends in {' or '.join(KINDS)}", repr(str(path)), reason="choice")
    return path


def _pictures(shown: Recorded, chosen) -> list:
    """Frames of equal size, with colors in common."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    figure, axes = panels(1, width=4.4 if shown.is_line else 4.2, height=3.0 if shown.is_line else 3.8, columns=1)
    figure.set_dpi(PIXELS)
    canvas = FigureCanvasAgg(figure)
    change, found = _drawn(shown, axes[0]), []
    for k in chosen:
        change(shown.fields[k])
        axes[0].set_title(f"t = {shown.times[k]:.4g}", fontsize=9)
        canvas.draw()
        found.append(Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB"))
    palette = found[len(found) // 2].quantize(256)
    return [picture.quantize(palette=palette, dither=Image.Dither.NONE) for picture in found]


def _drawn(shown: Recorded, ax):
    """Draw the first field, and return what changes it to another one."""
    low, high = shown.limits
    if shown.is_line:
        room = 0.05 * (high - low)
        (line,) = ax.plot(shown.fields[0], lw=1.5)
        ax.set(xlabel="site", ylabel="φ", ylim=(low - room, high + room))
        return line.set_ydata
    shown.lattice.draw(shown.fields[0], ax=ax, vmin=low, vmax=high, cmap=shown.cmap)
    colors = ax.collections[-1]
    grid = len(shown.fields[0].shape) == 2 and np.ndim(colors.get_array()) == 2
    return lambda field: colors.set_array(field.T if grid else np.ravel(field))


def _encoded(picture) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, format="png", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode("ascii")
