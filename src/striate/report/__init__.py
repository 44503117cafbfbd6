"""Render report blocks (findings) as HTML, terminal text, SVG or PNG."""
