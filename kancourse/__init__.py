"""kancourse: the parts of tomorrow's small language models, each the tested version of one notebook.

Ideas, one per file: `gpt` (and, as the course grows, `splines`, `kan`, `bitnet`, `retention`, …); `zoo` puts them
together by name; `lab` holds what every experiment needs; `lesson` what every notebook needs.
"""

__version__ = "0.1.0"
