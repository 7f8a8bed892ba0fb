"""The machine: devices, processes, compilation, random bits, interrupts, progress."""
