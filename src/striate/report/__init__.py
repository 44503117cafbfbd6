"""Rendering of findings: HTML, terminal, SVG, PNG."""
