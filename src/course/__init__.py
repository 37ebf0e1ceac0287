"""What builds and runs the course: `course --help` lists the commands."""
