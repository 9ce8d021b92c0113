"""A view as nodes/view.py sends it, made without sampling: numbers, and small pictures in the server's temp folder."""

import io
import json
import math
import urllib.request
import uuid
from functools import cache

from PIL import Image, ImageDraw


@cache
def picture(hue: int, mark: int, size: int = 96) -> bytes:
    """A PNG of one colour, with as many bars as `mark` says."""
    image = Image.new("RGB", (size, size), f"hsl({hue % 360}, 55%, 45%)")
    draw = ImageDraw.Draw(image)
    for i in range(mark + 1):
        draw.rectangle((8 + 10 * i, 20, 13 + 10 * i, size - 20), fill="white")
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def upload(url: str, name: str, data: bytes) -> dict[str, str]:
    """Put a picture into the server's temp folder. Returns how a view refers to it."""
    edge = uuid.uuid4().hex
    parts = [
        f'--{edge}\r\nContent-Disposition: form-data; name="type"\r\n\r\ntemp\r\n'.encode(),
        f'--{edge}\r\nContent-Disposition: form-data; name="image"; filename="{name}"\r\n'.encode(),
        b"Content-Type: image/png\r\n\r\n" + data + b"\r\n",
        f"--{edge}--\r\n".encode(),
    ]
    header = {"Content-Type": f"multipart/form-data; boundary={edge}"}
    with urllib.request.urlopen(urllib.request.Request(f"{url}/upload/image", b"".join(parts), header)) as answer:
        said = json.load(answer)
    return {"filename": said["name"], "subfolder": said["subfolder"], "type": said["type"]}


def item(url: str, stem: str, steps: int, hue: int) -> dict:
    """One picture of the batch, going round in a spiral."""
    turns = [(math.exp(-0.3 * i), 0.9 * i) for i in range(steps + 1)]
    return {
        "x0": [upload(url, f"{stem}_x0_{i}.png", picture(hue + 25 * i, i)) for i in range(steps)],
        "x_t": [upload(url, f"{stem}_x_t_{i}.png", picture(hue + 25 * i + 180, i)) for i in range(steps)],
        "plane": {
            "path": [[r * math.cos(a), r * math.sin(a)] for r, a in turns],
            "reference": [[r, r * r - 0.5] for r, _ in turns],
            "explained": [0.7, 0.2],
        },
        "measures": {
            "drift": [None, *(1 / i for i in range(1, steps))],
            "distance": [0.1 * i for i in range(steps + 1)],
            "detail": [0.02 * (i + 1) for i in range(steps)],
        },
    }


def run(url: str, stem: str, steps: int, items: int, hue: int, name: str = "trajectory") -> dict:
    """A run of TCD with gamma 0.3."""
    levels = [14.6 * (1 - i / steps) ** 3 for i in range(steps + 1)]
    return {
        "name": name,
        "t": levels[:-1],
        "s_prime": [0.4 * level for level in levels[1:]],
        "s": levels[1:],
        "items": [item(url, f"{stem}_{name}_{i}", steps, hue + 120 * i) for i in range(items)],
    }


def view(url: str, steps: int = 4, items: int = 2, compare: int = 0) -> dict:
    """A whole view; with `compare` steps of a second run."""
    stem = f"view_{uuid.uuid4().hex[:8]}"
    runs = [run(url, stem, steps, items, 20)]
    if compare:
        runs.append(run(url, stem, compare, 1, 200, "compare"))
    files = {name: runs[0]["items"][0]["x0"][0] | {"filename": f"{stem}_{name}"} for name in ("data", "animation")}
    return {
        "steps": steps,
        "unit": "sigma",
        "held": f"3.1 MiB, all of {steps} steps",
        "message": "",
        "runs": runs,
        "files": files,
    }
