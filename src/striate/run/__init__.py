"""One run: its settings, folder, record and report page."""
