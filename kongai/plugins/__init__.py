"""The built-in plugins, one file each; `kongai.registry` finds them by name."""
