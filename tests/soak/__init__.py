"""Long tests: load, endurance, signals and slow peers, with processes on every side."""
