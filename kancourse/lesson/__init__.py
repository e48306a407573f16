"""What every notebook needs: setup report, checks, source display, interactive pictures, claims, figures."""

from kancourse.lesson import check, figures
from kancourse.lesson.claims import claim
from kancourse.lesson.machine import Machine, set_seed, setup
from kancourse.lesson.show import source
from kancourse.lesson.widgets import play

__all__ = ["Machine", "check", "claim", "figures", "play", "set_seed", "setup", "source"]
