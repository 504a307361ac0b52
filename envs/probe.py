"""Draw one small picture in a process of its own; run as a file, so that nothing else is imported.

Prints one line of JSON: ``{"mean": 109.8}``, the picture's mean in [0, 255], or ``{"reason": "..."}``.
Nothing of this project is imported: the answer must not depend on it, and the start must be quick.
"""

from __future__ import annotations

import json
import os
import sys

_SCENE = """
<mujoco>
  <worldbody>
    <light pos="0 0 3"/>
    <geom type="sphere" size="1" rgba="1 1 1 1"/>
    <camera name="probe" pos="0 0 3"/>
  </worldbody>
</mujoco>
"""


def draw() -> float:
    """Return the mean of a 16 x 16 picture of a white sphere, in [0, 255]."""
    import mujoco

    model = mujoco.MjModel.from_xml_string(_SCENE)
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    renderer = mujoco.Renderer(model, 16, 16)
    renderer.update_scene(data, 0)
    return float(renderer.render().mean())


def main() -> None:
    """Print the answer; whatever goes wrong is the answer, too."""
    try:
        answer: dict[str, object] = {"mean": draw()}
    except Exception as error:
        answer = {"reason": " ".join(str(error).split()) or type(error).__name__}
    print(json.dumps(answer), flush=True)  # noqa: T201
    # Libraries that clean up at exit may crash or hang there; the picture has been drawn.
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
