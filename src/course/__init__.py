"""What builds and runs the course: `course --help` lists the commands."""

import sys

# jsonschema imports it to check addresses in other alphabets, of which notebooks have none, and its
# grammar takes two seconds of every command and of every run of the tests.
sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]
