"""Disks that fail, for the fixture `small_disk`."""

import subprocess


def make_read_only(disk):
    """Remounts what `small_disk` returned."""
    subprocess.run(("mount", "-o", "remount,ro", disk), check=True)
