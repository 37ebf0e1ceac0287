"""nbgrader's configuration, for its command line and for the formgrader in JupyterLab."""

from course.classroom import configure

configure(get_config())  # noqa: F821  (traitlets defines it)
