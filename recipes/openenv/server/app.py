"""The web application of the container: the procedural problems with their calculator."""

from eapo_agents import presets
from eapo_agents.adapters import ServedParts, served_app

app = served_app(
    ServedParts.from_config(presets.embedded()), sessions=256, session_timeout_s=3600.0
)
