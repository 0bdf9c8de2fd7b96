"""What users run beside their own code: the `graphc` command, verification, inspection, benchmarks, the op reference.

Start at `command.py`. Nothing heavy is imported before a command needs it: `graphc --help` answers at once.
"""
