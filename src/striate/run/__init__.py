"""Training runs: settings, run folder, manifest and report page."""
