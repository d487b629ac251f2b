"""Every setting of a run: frozen dataclasses (`schema`), and the preset files that fill them (`presets`)."""
